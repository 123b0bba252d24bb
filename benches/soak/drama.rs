//! What befalls the gateway: restarts of every kind, reloads, a full disk, a vendor that is away.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::events::Cursor;
use rtm_gateway::kernel::names::BucketName;
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::caller::PATIENCE;
use super::gateway::{Gateway, NotStarted};
use super::ledger::Run;
use super::readers::pick;
use super::stage::{Live, Stage};
use super::vendor::{CERTIFICATE, LOGS, ONE, TWO};

pub struct Drama {
    stage: Arc<Stage>,
    random: StdRng,
    gateway: Option<Gateway>,
    config: Config,
    secrets: u32,
    /// Whether the gateway may be ended now.
    restarts: bool,
}

/// What reloads change.
#[derive(Clone, Copy)]
struct Config {
    /// Of both event endpoints, within the vendor's 10.
    quota: u32,
    guest: bool,
    poll_ms: u32,
}

impl Drama {
    pub async fn begin(stage: Arc<Stage>, seed: u64) -> Self {
        fs::write(stage.dir.join("key"), "key").unwrap();
        fs::write(stage.dir.join("secret"), "secret-0").unwrap();
        fs::write(stage.dir.join("certificate"), CERTIFICATE).unwrap();
        let config = Config { quota: 10, guest: true, poll_ms: 100 };
        let mut drama =
            Self { stage, random: StdRng::seed_from_u64(seed), gateway: None, config, secrets: 0, restarts: true };
        drama.write();
        drama.start(false).await;
        drama
    }

    /// Acts until then. `restarts`: also ends the gateway, in every way.
    pub async fn play(&mut self, until: Instant, restarts: bool) {
        self.restarts = restarts;
        while Instant::now() < until {
            self.pause(200..1800).await;
            match self.random.random_range(if restarts { 0 } else { 50 }..100) {
                0..24 => self.kill().await,
                24..30 => self.kill_while_starting().await,
                30..38 => self.kill_while_draining().await,
                38..50 => self.stop_in_order().await,
                50..60 => self.change_quota().await,
                60..66 => self.change_guest().await,
                66..72 => self.rotate_secret().await,
                72..78 => self.refuse_bad_file().await,
                78..84 => self.fill_disk().await,
                84..90 => self.vendor_goes_away().await,
                90..95 => self.cut_connections().await,
                _ => self.somebody_else_spends().await,
            }
        }
    }

    /// Makes everything well for the end.
    pub async fn calm(&mut self) {
        if !self.config.guest {
            self.config.guest = true;
            self.reload().await;
        }
    }

    pub fn gateway(&self) -> Option<&Gateway> {
        self.gateway.as_ref()
    }

    async fn pause(&mut self, ms: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(ms))).await;
    }

    /// Starts the gateway anew. `early`: kills it at some instant of its start.
    async fn start(&mut self, early: bool) {
        let kill_after = early.then(|| Duration::from_millis(self.random.random_range(0..120)));
        let began = Instant::now();
        let stage = self.stage.clone();
        let started = Gateway::start(&stage.dir, &stage.log, kill_after).await;
        match started {
            Ok(gateway) => {
                let run = Run { began, killed: false, cursors: Some(cursors(&gateway).await) };
                let number = {
                    let mut runs = stage.runs.lock().unwrap();
                    runs.push(run);
                    runs.len() - 1
                };
                stage.live.send_replace(Some(Live { run: number, callers: gateway.callers }));
                self.gateway = Some(gateway);
            }
            Err(NotStarted(status)) => {
                if status.signal() != Some(9) {
                    stage.breach(format!("the gateway did not start: {status}"));
                }
                // It may have read from the vendor: a run like any other, but nobody saw its cursors.
                stage.vendor.quiet().await;
                stage.runs.lock().unwrap().push(Run { began, killed: true, cursors: None });
            }
        }
    }

    /// The gateway is gone: how, is noted.
    async fn ended(&mut self) -> bool {
        let Some(mut gateway) = self.gateway.take() else { return false };
        let status = gateway.wait().await;
        self.stage.live.send_replace(None);
        let killed = status.signal() == Some(9);
        if let Some(run) = self.stage.runs.lock().unwrap().last_mut() {
            run.killed = status.code() != Some(0);
        }
        if !killed && status.code() != Some(0) {
            self.stage.breach(format!("the gateway ended with {status}"));
        }
        self.stage.vendor.quiet().await;
        killed
    }

    async fn kill(&mut self) {
        self.stage.act("kill -9");
        if let Some(gateway) = &self.gateway {
            gateway.signal(Signal::KILL);
        }
        self.ended().await;
        self.start(false).await;
    }

    async fn kill_while_starting(&mut self) {
        self.stage.act("kill -9 while starting");
        if let Some(gateway) = &self.gateway {
            gateway.signal(Signal::KILL);
        }
        self.ended().await;
        for _ in 0..self.random.random_range(1..4) {
            self.start(true).await;
        }
        self.start(false).await;
    }

    async fn kill_while_draining(&mut self) {
        self.stage.act("kill -9 while draining");
        if let Some(gateway) = &self.gateway {
            gateway.signal(Signal::TERM);
        }
        self.pause(0..40).await;
        if let Some(gateway) = &self.gateway {
            gateway.signal(Signal::KILL);
        }
        self.ended().await;
        self.start(false).await;
    }

    async fn stop_in_order(&mut self) {
        self.stage.act("SIGTERM");
        self.terminate().await;
        self.start(false).await;
    }

    /// Stops the gateway in order, starts it, and stops it again: what it has stored is seen once more.
    pub async fn finish(&mut self) {
        self.terminate().await;
        self.start(false).await;
        self.terminate().await;
    }

    async fn terminate(&mut self) {
        if let Some(gateway) = &self.gateway {
            gateway.signal(Signal::TERM);
        }
        if self.ended().await {
            self.stage.breach("the gateway was killed by somebody else".into());
        }
    }

    async fn change_quota(&mut self) {
        self.stage.act("reload: quota");
        self.config.quota = *pick(&mut self.random, &[4, 6, 8, 10]);
        self.config.poll_ms = *pick(&mut self.random, &[50, 100, 200]);
        self.reload().await;
    }

    async fn change_guest(&mut self) {
        self.stage.act("reload: client");
        self.config.guest = !self.config.guest;
        self.reload().await;
    }

    async fn rotate_secret(&mut self) {
        self.stage.act("secret rotated");
        self.secrets += 1;
        let (old, new) = (format!("secret-{}", self.secrets - 1), format!("secret-{}", self.secrets));
        self.stage.vendor.set_secrets(&[old, new.clone()]);
        fs::write(self.stage.dir.join("secret"), &new).unwrap();
        // Not always long enough for the gateway to have seen it: then it meets a 401 and looks.
        self.pause(0..2500).await;
        self.stage.vendor.set_secrets(&[new]);
    }

    async fn refuse_bad_file(&mut self) {
        self.stage.act("reload: bad file");
        let refused = self.reloads("refused").await;
        fs::write(self.stage.dir.join("gateway.toml"), "[server]\nlisten = 7\n").unwrap();
        self.until_reloaded("refused", refused).await;
        self.reload().await;
    }

    async fn fill_disk(&mut self) {
        self.stage.act("disk full");
        let data = self.stage.dir.join("data/events.redb");
        let size = fs::metadata(data).map_or(0, |m| m.len());
        // No room to grow; or not even for what is there.
        let most = *pick(&mut self.random, &[size, size, size / 2, 0]);
        if let Some(gateway) = &self.gateway {
            gateway.limit_files(Some(most));
        }
        self.pause(300..4000).await;
        // Every fourth time it dies with the disk full.
        if self.restarts && self.random.random_bool(0.25) {
            self.kill().await;
        } else if let Some(gateway) = &self.gateway {
            gateway.limit_files(None);
        }
    }

    /// Makes the gateway let go of what it keeps to be fast, as much as work has made it: connections to the vendor, whose
    /// buffers grew with its answers; and, by writes that fail for a while, the store's cache: it opens its file anew.
    pub async fn let_go(&self, full: Duration) {
        self.stage.vendor.sims().into_iter().for_each(|sim| sim.cut_all(false));
        let Some(gateway) = &self.gateway else { return };
        gateway.limit_files(Some(0));
        tokio::time::sleep(full).await;
        gateway.limit_files(None);
    }

    async fn vendor_goes_away(&mut self) {
        self.stage.act("vendor away");
        let stage = self.stage.clone();
        let sim = *pick(&mut self.random, &stage.vendor.sims());
        sim.down().await;
        self.pause(100..3000).await;
        sim.up().await.unwrap();
    }

    async fn cut_connections(&mut self) {
        self.stage.act("connections cut");
        let reset = self.random.random_bool(0.5);
        let stage = self.stage.clone();
        stage.vendor.sims().into_iter().for_each(|sim| sim.cut_all(reset));
    }

    async fn somebody_else_spends(&mut self) {
        self.stage.act("quota spent elsewhere");
        let bucket =
            *pick(&mut self.random, &[BucketName::UserEvents, BucketName::ChannelEvents, BucketName::HistoryGet]);
        self.stage.vendor.here.world().spend(ONE, bucket, self.random.random_range(1..10));
    }

    async fn reload(&mut self) {
        let applied = self.reloads("applied").await;
        self.write();
        if let (Some(gateway), true) = (&self.gateway, self.random.random_bool(0.5)) {
            gateway.signal(Signal::HUP);
        }
        self.until_reloaded("applied", applied).await;
    }

    async fn reloads(&self, outcome: &str) -> u64 {
        let Some(gateway) = &self.gateway else { return 0 };
        gateway.admin("/admin/v1/config").await["reload"][outcome].as_u64().unwrap_or(0)
    }

    async fn until_reloaded(&self, outcome: &str, before: u64) {
        let until = Instant::now() + PATIENCE;
        while self.reloads(outcome).await <= before {
            if Instant::now() > until {
                return self.stage.breach(format!("a file was not {outcome}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn write(&self) {
        // A number that changes makes each file differ from the one before.
        static WRITTEN: Mutex<u64> = Mutex::new(0);
        let number = {
            let mut written = WRITTEN.lock().unwrap();
            *written += 1;
            *written
        };
        let text = format!("# {number}\n{}", self.config.text(&self.stage));
        let (path, beside) = (self.stage.dir.join("gateway.toml"), self.stage.dir.join("gateway.toml.new"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }
}

/// The stored cursors of a gateway that nobody has read from yet.
async fn cursors(gateway: &Gateway) -> HashMap<(usize, String), u64> {
    let until = Instant::now() + PATIENCE;
    let mut body = gateway.admin("/admin/v1/subscriptions").await;
    while body["subscriptions"].is_null() {
        assert!(Instant::now() < until, "the operators' port does not tell the subscriptions: {body}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        body = gateway.admin("/admin/v1/subscriptions").await;
    }
    let place = |s: &serde_json::Value| {
        let (app, stream) = (s["app"].as_str()?, s["stream"].as_str()?);
        let log = LOGS.iter().position(|(a, s)| *a == app && s.as_str() == stream)?;
        let at = s["cursor"].as_str()?.parse::<Cursor>().ok()?.at.0;
        Some(((log, s["subscription"].as_str()?.to_owned()), at))
    };
    body["subscriptions"].as_array().into_iter().flatten().filter_map(place).collect()
}

impl Config {
    fn text(&self, stage: &Stage) -> String {
        let vendor = &stage.vendor;
        let (dir, quota, poll) = (stage.dir.display(), self.quota, self.poll_ms);
        let streams = |app: &str| {
            let names = LOGS.iter().filter(|(a, _)| *a == app).map(|(_, stream)| format!("\"{stream}\""));
            names.collect::<Vec<_>>().join(", ")
        };
        let manners = |app| {
            format!(
                "[apps.quota]\nuser_events = {{ requests = {quota}, per = \"1s\" }}\n\
                 channel_events = {{ requests = {quota}, per = \"1s\" }}\n\
                 [apps.events]\nstreams = [{}]\npoll_interval = \"{poll}ms\"\npoll_interval_idle = \"{poll}ms\"\n\
                 dedup_window = \"1m\"\n\
                 [apps.history]\ndeadline = \"15s\"\nhandle_ttl = \"20s\"\n",
                streams(app)
            )
        };
        let mut text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nshutdown_grace = \"20s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [log]\naccess = false\n[store]\npath = \"{dir}/data\"\n\
             [upstream]\nconnect_timeout = \"1s\"\nrequest_timeout = \"2s\"\n\
             [[apps]]\nid = \"{ONE}\"\nregions = [{{ name = \"here\", base_url = \"{here}\" }}]\n\
             [apps.credential]\nkind = \"basic\"\napi_key = {{ file = \"{dir}/key\" }}\n\
             api_secret = {{ file = \"{dir}/secret\" }}\n{one}\
             [[apps]]\nid = \"{TWO}\"\nregions = [{{ name = \"east\", base_url = \"{east}\" }}, \
             {{ name = \"west\", base_url = \"{west}\" }}]\n\
             [apps.credential]\nkind = \"token\"\napp_certificate = {{ file = \"{dir}/certificate\" }}\nuid = \"soak\"\n{two}",
            here = vendor.here.base_url(),
            east = vendor.east.base_url(),
            west = vendor.west.base_url(),
            one = manners(ONE),
            two = manners(TWO),
        );
        let names = if self.guest { &["reader", "guest"][..] } else { &["reader"] };
        for name in names {
            let hash: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!(
                "[[clients]]\nname = \"{name}\"\napi_key_sha256 = \"{hash}\"\n\
                 allow = [{{ app = \"*\", actions = [\"events\", \"history\", \"count\", \"messages\"] }}]\n"
            );
        }
        text
    }
}
