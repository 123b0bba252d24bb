//! What befalls the gateway: its lives and their ends, reloads; and what occurs at the vendor.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{App, Limit, Limits, Listen, Options, Sim, World};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::endpoint::{self, FIRST_WAIT, Hook, TIMEOUT, TRIES};
use super::gateway::Gateway;
use super::stage::{ALL, CUT, LOGS, Life, Live, Stage};

/// Events of so many users and channels.
const WHOSE: u64 = 7;

/// While so many events are left to be read, no more occur: who is behind would need one long life to catch up, and judging
/// a life costs the square of its length.
const MAX_LEFT: u64 = 3000;
/// How often that is looked at.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// How long it may take until less is left to be read, at the end.
const WITHOUT_PROGRESS: Duration = Duration::from_secs(40);
/// How often it is said meanwhile what is left.
const TOLD_EVERY: Duration = Duration::from_secs(10);

pub struct Drama {
    stage: Arc<Stage>,
    random: StdRng,
    gateway: Option<Gateway>,
    vendor: Arc<Sim>,
    emits: Arc<AtomicBool>,
    emitters: Vec<JoinHandle<()>>,
    judging: Vec<JoinHandle<()>>,
    endpoint: SocketAddr,
    hooks: Vec<Arc<Hook>>,
    poll_ms: u32,
    written: u32,
}

impl Drama {
    pub async fn begin(stage: Arc<Stage>, seed: u64, endpoint: SocketAddr, hooks: &[Arc<Hook>]) -> Self {
        let world = World::new(Clock::system(), Options { seen: 0, ledger: 0, replicate: false });
        for app in [ALL, CUT] {
            world.add(App::new(app).basic("key", "secret").limits(Limits::all(Limit::per_second(1000))));
        }
        let vendor = Arc::new(Sim::listen(&world, "here", Listen::default()).await.unwrap());
        fs::write(stage.dir.join("key"), "key").unwrap();
        fs::write(stage.dir.join("secret"), "secret").unwrap();
        fs::write(stage.dir.join("signing"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let emits = Arc::new(AtomicBool::new(true));
        let emitters = (0..LOGS.len())
            .map(|log| tokio::spawn(emit(stage.clone(), vendor.clone(), log, seed, emits.clone())))
            .collect();
        let (random, hooks) = (StdRng::seed_from_u64(seed), hooks.to_vec());
        let mut drama = Self {
            stage,
            random,
            gateway: None,
            vendor,
            emits,
            emitters,
            judging: Vec::new(),
            endpoint,
            hooks,
            poll_ms: 50,
            written: 0,
        };
        drama.write();
        drama.start().await;
        drama
    }

    /// Acts until then; with `ends`, ends the gateway again and again.
    pub async fn play(&mut self, until: Instant, ends: bool) {
        while Instant::now() < until {
            let pause = *super::readers::pick(&mut self.random, &[100, 400, 1000, 2000, 3000]);
            let pause = Duration::from_millis(self.random.random_range(pause / 2..pause * 2));
            tokio::time::sleep(pause.min(until - Instant::now())).await;
            match self.random.random_range(0..100) {
                0..45 if ends => self.kill().await,
                45..75 if ends => {
                    self.stop().await;
                    self.start().await;
                }
                _ => self.reload(),
            }
        }
    }

    /// Nothing occurs any more, and all is in the logs.
    pub async fn calm(&mut self) {
        self.emits.store(false, Ordering::SeqCst);
        for emitter in self.emitters.drain(..) {
            emitter.await.unwrap();
        }
        while LOGS.iter().any(|(app, stream)| self.vendor.waiting(app, *stream) > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// Waits until all readers have all, and webhooks, too: as long as there is less and less.
    pub async fn until_rest(&self, round: u8, readers: usize, hooks: &[Arc<Hook>]) {
        let live = self.stage.live().await;
        let mut drained = vec![false; hooks.len()];
        let (mut since, mut told, mut least) = (Instant::now(), Instant::now(), (usize::MAX, u64::MAX));
        loop {
            for (hook, drained) in hooks.iter().zip(&mut drained).filter(|(_, drained)| !**drained) {
                *drained = self.stage.is_drained(&hook.book, live).await;
            }
            let resting = self.stage.resting(round);
            let working = readers - resting.len() + drained.iter().filter(|drained| !**drained).count();
            if working == 0 {
                return;
            }
            let left = (working, self.stage.lag(live).await);
            if told.elapsed() > TOLD_EVERY {
                told = Instant::now();
                let hooks: Vec<&str> =
                    hooks.iter().zip(&drained).filter(|(_, done)| !**done).map(|(h, _)| h.name).collect();
                println!(
                    "  round {round}: {} events are left; of {readers} readers {} rest; not drained: {hooks:?}",
                    left.1,
                    resting.len()
                );
            }
            if left < least {
                (since, least) = (Instant::now(), left);
            } else if since.elapsed() > WITHOUT_PROGRESS {
                let hooks: Vec<&str> =
                    hooks.iter().zip(drained).filter(|(_, drained)| !drained).map(|(hook, _)| hook.name).collect();
                return self.stage.breach(format!(
                    "of {readers} readers only these have come to an end: {resting:?}; these webhooks have not: {hooks:?}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn start(&mut self) {
        let life = {
            let mut lives = self.stage.lives.lock().unwrap();
            lives.push(Life { began: self.stage.now(), ended: None });
            lives.len() - 1
        };
        match Gateway::start(&self.stage.dir, &self.stage.tally, None).await {
            Ok(gateway) => {
                let live = Live { life, callers: gateway.callers, operators: gateway.operators };
                self.stage.live.send_replace(Some(live));
                self.gateway = Some(gateway);
            }
            Err(not) => self.stage.breach(format!("the gateway did not start: {}", not.0)),
        }
    }

    pub async fn kill(&mut self) {
        self.stage.count("life: kill -9");
        self.end(Signal::KILL).await;
        self.start().await;
    }

    pub async fn stop(&mut self) {
        self.stage.count("life: stops in order");
        self.end(Signal::TERM).await;
    }

    async fn end(&mut self, signal: Signal) {
        let Some(mut gateway) = self.gateway.take() else { return };
        let from = self.stage.now();
        gateway.signal(signal);
        let status = gateway.wait().await;
        self.stage.live.send_replace(None);
        let to = self.stage.now();
        let killed = status.signal() == Some(9);
        if status.code() != Some(0) && (signal == Signal::TERM || !killed) {
            self.stage.breach(format!("the gateway ended with {status}"));
        }
        let life = self.stage.lives.lock().unwrap().len() - 1;
        // What it had sent has come by then.
        endpoint::has_accepted(self.endpoint).await;
        self.stage.quiet(life).await;
        self.stage.ended(life, (from, to, killed));
        // One life after the other.
        let (stage, before) = (self.stage.clone(), self.judging.pop());
        self.judging.push(tokio::spawn(async move {
            if let Some(before) = before {
                before.await.unwrap();
            }
            stage.judge(life).await;
        }));
    }

    /// Waits until all that ended is judged.
    pub async fn judged(&mut self) {
        if let Some(last) = self.judging.pop() {
            last.await.unwrap();
        }
    }

    fn reload(&mut self) {
        self.stage.count("reloads");
        self.poll_ms = *super::readers::pick(&mut self.random, &[50, 100]);
        self.write();
        if let (Some(gateway), true) = (&self.gateway, self.random.random_bool(0.5)) {
            gateway.signal(Signal::HUP);
        }
    }

    fn write(&mut self) {
        self.written += 1;
        let text = format!("# {}\n{}", self.written, self.config());
        let (path, beside) = (self.stage.dir.join("gateway.toml"), self.stage.dir.join("gateway.toml.new"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }

    fn config(&self) -> String {
        let (dir, url, poll) = (self.stage.dir.display(), self.vendor.base_url(), self.poll_ms);
        let mut text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nshutdown_grace = \"20s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [log]\naccess = false\n[store]\npath = \"{dir}/data\"\n"
        );
        for app in [ALL, CUT] {
            let streams: Vec<String> =
                LOGS.iter().filter(|(of, _)| *of == app).map(|(_, s)| format!("\"{s}\"")).collect();
            let kept = if app == CUT { "retention_bytes = \"8KiB\"\n" } else { "" };
            text += &format!(
                "[[apps]]\nid = \"{app}\"\nregions = [{{ name = \"here\", base_url = \"{url}\" }}]\n\
                 [apps.credential]\nkind = \"basic\"\napi_key = {{ file = \"{dir}/key\" }}\n\
                 api_secret = {{ file = \"{dir}/secret\" }}\n\
                 [apps.quota]\nuser_events = {{ requests = 100, per = \"1s\" }}\n\
                 channel_events = {{ requests = 100, per = \"1s\" }}\n\
                 [apps.events]\nstreams = [{}]\npoll_interval = \"{poll}ms\"\npoll_interval_idle = \"{poll}ms\"\n{kept}",
                streams.join(", ")
            );
            for hook in self.hooks.iter().filter(|hook| LOGS[hook.book.log].0 == app) {
                let (format, stream) = (if hook.batch { "batch" } else { "structured" }, LOGS[hook.book.log].1);
                text += &format!(
                    "[[apps.webhooks]]\nname = \"{name}\"\nurl = \"http://{to}/{name}\"\nstreams = [\"{stream}\"]\n\
                     secrets = [{{ file = \"{dir}/signing\" }}]\nformat = \"{format}\"\nmax_in_flight = {most}\n\
                     timeout = \"{TIMEOUT}ms\"\nmax_attempts = {TRIES}\nallow_private_targets = true\n\
                     retry = {{ initial = \"{FIRST_WAIT}ms\", max = \"1s\" }}\n",
                    name = hook.name,
                    to = self.endpoint,
                    most = hook.max_in_flight,
                );
            }
        }
        for name in ["reader", "scanner"] {
            let hash: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!(
                "[[clients]]\nname = \"{name}\"\napi_key_sha256 = \"{hash}\"\n\
                 allow = [{{ app = \"*\", actions = [\"events\"] }}]\n"
            );
        }
        text
    }
}

/// Lets events occur, in bursts, as long as the readers keep up.
async fn emit(stage: Arc<Stage>, vendor: Arc<Sim>, log: usize, seed: u64, goes_on: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(seed ^ (log as u64 + 1));
    let (app, stream) = LOGS[log];
    let (mut number, mut looked, mut is_much_left) = (0, Instant::now(), false);
    while goes_on.load(Ordering::SeqCst) {
        if looked.elapsed() > LOOKED_AT_EVERY {
            looked = Instant::now();
            // While the gateway is away nothing is known but what was so before.
            let live = *stage.live.borrow();
            if let Some(live) = live {
                is_much_left = stage.lag(live).await > MAX_LEFT;
            }
        }
        if is_much_left {
            tokio::time::sleep(LOOKED_AT_EVERY).await;
            continue;
        }
        let count = match random.random_range(0..100) {
            0 => random.random_range(20..60),
            1..25 => random.random_range(1..4),
            _ => 0,
        };
        for _ in 0..count {
            number += 1;
            let whose = random.random_range(0..=WHOSE);
            let (kind, whose) = match (stream, whose) {
                // Some are nobody's.
                (_, 0) => ("Login", String::new()),
                (Stream::UserEvents, whose) => ("Login", format!(",\"user_id\":\"u{whose}\"")),
                (Stream::ChannelEvents, whose) => ("Join", format!(",\"group_id\":\"c{whose}\"")),
            };
            vendor.emit_raw(app, stream, &format!("{{\"ms\":{number},\"type\":\"{kind}\"{whose},\"n\":{number}}}"));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(10..60))).await;
    }
}
