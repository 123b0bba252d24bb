//! The vendor of the soak: two apps in two worlds, events that occur by chance, and faults.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::kernel::secret::Secret;
use rtm_gateway::simulator::{App, Canned, Credential, Endpoint, Fault, Listen, Message, Options, Profile, Sim, World};

use super::ledger::{LogBook, Read, Serial};

/// An app with one region, opened by key and secret.
pub const ONE: &str = "soak-one";
/// An app with two regions that return the same events, opened by a minted token.
pub const TWO: &str = "fedcba9876543210fedcba9876543210";
pub const CERTIFICATE: &str = "5cfd2fd1755d40ecb72977518be15d3b";
/// How many messages the history holds.
pub const MESSAGES: usize = 60;

/// The logs that the gateway keeps.
pub const LOGS: [(&str, Stream); 3] =
    [(ONE, Stream::UserEvents), (ONE, Stream::ChannelEvents), (TWO, Stream::UserEvents)];

/// The vendor's queue holds 2000: more than this is not let in, so that nothing is overwritten.
const MAX_WAITING: usize = 1950;

pub struct Vendor {
    pub here: Sim,
    pub east: Sim,
    pub west: Sim,
    emitted: [Mutex<Emitted>; LOGS.len()],
    pub stop_emitting: AtomicBool,
    rests: AtomicBool,
}

/// The events of one log by their texts.
#[derive(Default)]
struct Emitted {
    serials: HashMap<Arc<str>, Serial>,
}

impl Vendor {
    pub async fn start(seed: u64) -> Arc<Self> {
        let world = |replicate| World::new(Clock::system(), Options { seen: 0, ledger: 10_000_000, replicate });
        let (one, two) = (world(false), world(true));
        one.add(App::new(ONE).basic("key", "secret-0").rules(|rules| rules.in_progress = 1));
        two.add(App::new(TWO).certificate(CERTIFICATE));
        one.add_messages(ONE, (0..MESSAGES).map(|n| Message::peer("ann", "bob", &format!("message {n}"))));
        let listen = async |world: &World, name| Sim::listen(world, name, Listen::default()).await.unwrap();
        let vendor = Self {
            here: listen(&one, "here").await,
            east: listen(&two, "east").await,
            west: listen(&two, "west").await,
            emitted: Default::default(),
            rests: AtomicBool::new(false),
            stop_emitting: AtomicBool::new(false),
        };
        vendor.faults_on(seed);
        Arc::new(vendor)
    }

    pub fn sims(&self) -> [&Sim; 3] {
        [&self.here, &self.east, &self.west]
    }

    /// The regions of a log.
    fn regions(&self, log: usize) -> Vec<&Sim> {
        if LOGS[log].0 == ONE { vec![&self.here] } else { vec![&self.east, &self.west] }
    }

    pub fn faults_on(&self, seed: u64) {
        for (n, sim) in self.sims().into_iter().enumerate() {
            sim.random(faults(seed.wrapping_add(n as u64)));
        }
    }

    /// From now on hardly anything happens, or as much as before.
    pub fn rest(&self, rests: bool, seed: u64) {
        self.rests.store(rests, Ordering::SeqCst);
        if rests { self.faults_off() } else { self.faults_on(seed) }
    }

    pub fn is_at_rest(&self) -> bool {
        self.rests.load(Ordering::SeqCst)
    }

    pub fn faults_off(&self) {
        for sim in self.sims() {
            sim.clear_faults();
        }
    }

    /// Only these secrets open the first app.
    pub fn set_secrets(&self, secrets: &[String]) {
        let basic = |secret: &String| Credential::Basic { key: "key".into(), secret: Secret::new(secret.clone()) };
        self.here.world().set_credentials(ONE, secrets.iter().map(basic).collect());
    }

    /// Lets events of a log occur by chance, until told to stop.
    pub async fn emit(self: Arc<Self>, log: usize, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        while !self.stop_emitting.load(Ordering::SeqCst) {
            if self.is_at_rest() {
                // So that what is forgotten with time is.
                self.occur(log, &mut random);
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            let count = match random.random_range(0..1000) {
                0..3 => random.random_range(900..1900),
                3..40 => random.random_range(20..200),
                40..400 => random.random_range(1..6),
                _ => 0,
            };
            let waiting = self.waiting(log);
            for _ in 0..count.min(MAX_WAITING.saturating_sub(waiting)) {
                self.occur(log, &mut random);
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(5..25))).await;
        }
    }

    /// The most events of a log that wait in a region.
    pub fn waiting(&self, log: usize) -> usize {
        let (app, stream) = LOGS[log];
        self.regions(log).iter().map(|sim| sim.waiting(app, stream)).max().unwrap_or(0)
    }

    fn occur(&self, log: usize, random: &mut StdRng) {
        let mut emitted = self.emitted[log].lock().unwrap();
        let serial = Serial::try_from(emitted.serials.len()).unwrap();
        let more = match random.random_range(0..100) {
            0 => format!(",\"pad\":\"{}\"", "x".repeat(random.random_range(1000..4000))),
            1..4 => ",\"origin\":{\"node\":\"n-7\",\"load\":1.50}".to_owned(),
            4..6 => ",\"name\":\"\\u00e9 \\\"quoted\\\", 渋谷\"".to_owned(),
            _ => String::new(),
        };
        let group = if LOGS[log].1 == Stream::ChannelEvents { "\"group_id\":\"room\"," } else { "" };
        let text = format!(
            "{{{group}\"ms\":{},\"type\":\"Login\",\"user_id\":\"u-{serial}\"{more}}}",
            1_700_000_000_000 + u64::from(serial)
        );
        let (app, stream) = LOGS[log];
        let text = self.regions(log)[0].emit_raw(app, stream, &text);
        emitted.serials.insert(text, serial);
    }

    /// Which event this text is, byte for byte.
    pub fn serial(&self, log: usize, text: &str) -> Option<Serial> {
        self.emitted[log].lock().unwrap().serials.get(text).copied()
    }

    pub fn emitted(&self) -> usize {
        self.emitted.iter().map(|log| log.lock().unwrap().serials.len()).sum()
    }

    /// The reads of a log, without its entries.
    pub fn book(&self, log: usize) -> LogBook {
        let (app, stream) = LOGS[log];
        let emitted = self.emitted[log].lock().unwrap();
        let feed = |sim: &&Sim| {
            let reads = sim.event_reads(app, stream).into_iter().map(|read| Read {
                received: read.received,
                events: read.events.iter().map(|text| emitted.serials[text]).collect(),
                whole: read.whole,
            });
            (sim.name().to_owned(), reads.collect())
        };
        LogBook {
            name: format!("{app}/{stream}"),
            entries: Vec::new(),
            feeds: self.regions(log).iter().map(feed).collect(),
        }
    }

    /// Waits until no connection is open: what a dead gateway had sent is dealt with.
    pub async fn quiet(&self) {
        for sim in self.sims() {
            while sim.wait_until(|stats| stats.open == 0).await.is_err() {}
        }
    }
}

fn faults(seed: u64) -> Profile {
    let ms = Duration::from_millis;
    let answer = |status, acted| {
        Fault::Answer(Canned {
            status,
            content_type: "text/html".into(),
            retry_after: None,
            body: "<html>no</html>".into(),
            acted,
        })
    };
    let mut profile = Profile::seeded(seed)
        .with(0.010, Fault::DropBefore)
        .with(0.008, Fault::DropAfter)
        .with(0.010, Fault::ResetBefore)
        .with(0.008, Fault::ResetAfter)
        .with(0.004, Fault::Hang)
        .with(0.008, Fault::CutBody { keep: 40 })
        .with(0.004, Fault::StallBody { keep: 10 })
        .with(0.020, Fault::JitterBefore(ms(300)))
        .with(0.020, Fault::JitterAfter(ms(300)))
        .with(0.030, Fault::Chunked)
        .with(0.020, Fault::Pad(5000))
        .with(0.020, Fault::Drip { bytes: 900, every: ms(3) })
        .with(0.020, Fault::CloseAfter)
        .with(0.008, answer(503, false))
        .with(0.004, answer(500, true))
        .with(0.004, Fault::status(408))
        .with(0.004, Fault::too_many(Some("1")))
        .with(0.004, answer(200, true));
    // Later than the gateway waits: the answer comes when it has gone on.
    for endpoint in [Endpoint::UserEvents, Endpoint::ChannelEvents] {
        profile = profile.with_at(endpoint, 0.003, Fault::DelayAfter(ms(7000)));
    }
    profile
}
