//! A vendor on HTTP/2 that turns requests away at random (REFUSED_STREAM, GOAWAY) under load: what it says of them is held
//! against what callers are told, and against what it has counted.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::names::{BucketName, Stream};
use rtm_gateway::simulator::{self, Endpoint, Fault, Limits, Profile};
use tokio::task::JoinSet;

use super::events::texts;
use super::stage::{APP, RTM, Stage, by_tls, request, vendors_app};
use crate::egress::tls::vendor_of;

/// Messages that the vendor takes in a second: few enough that the quota is felt.
const MESSAGES: usize = 100;

fn profile(seed: u64) -> Profile {
    let some = Duration::from_millis(30);
    Profile::seeded(seed)
        .with(0.08, Fault::RefuseStream)
        .with(0.05, Fault::GoAway)
        // So that they are processed in another order than they came in, and many at a time.
        .with(0.5, Fault::JitterBefore(some))
        .with(0.3, Fault::JitterAfter(some))
}

/// What callers were told.
#[derive(Debug, Default)]
struct Told {
    well: u64,
    unavailable: u64,
    over_limit: u64,
}

impl Told {
    fn add(&mut self, status: u16) {
        match status {
            200 => self.well += 1,
            503 => self.unavailable += 1,
            429 => self.over_limit += 1,
            other => panic!("{other}: the vendor has answered, or said that it did not process it"),
        }
    }

    fn all(&self) -> u64 {
        self.well + self.unavailable + self.over_limit
    }
}

#[tokio::test]
async fn of_what_a_vendor_turns_away_nothing_is_lost_doubled_or_in_doubt() {
    for seed in 1..=4_u64 {
        let limits = Limits::all(simulator::Limit::per_second(1000))
            .with(BucketName::Messages, simulator::Limit::per_second(MESSAGES));
        let (sim, ca) = vendor_of(vendors_app(APP).limits(limits), &["h2"]).await;
        let quota = format!("[apps.quota]\nmessages = {{ requests = {MESSAGES}, per = \"1s\" }}");
        let tls = by_tls(&ca);
        let change = |folder: &std::path::Path, text: String| tls(folder, text).replace("[apps.quota]", &quota);
        let stage = std::sync::Arc::new(Stage::before(sim.clone(), "", "", change).await);
        // From one connection for all to the most there may be.
        sim.max_streams([1000, 7, 3, 1][usize::try_from(seed % 4).unwrap()]);
        sim.random(profile(seed));

        let mut callers = JoinSet::new();
        for caller in 0..10 {
            let (stage, mut random) = (stage.clone(), StdRng::seed_from_u64(seed * 100 + caller));
            callers.spawn(async move {
                let (mut messages, mut counts) = (Told::default(), Told::default());
                for n in 0..30 {
                    if random.random_bool(0.2) {
                        let target =
                            format!("{RTM}/message/history/count?source=u{caller}-{n}&start_time=0&end_time=9");
                        counts.add(stage.get(&target).await.status);
                    } else {
                        let target = format!("{RTM}/users/u{caller}/peer_messages");
                        let body = format!(r#"{{"destination":"bob","payload":"{n}"}}"#);
                        let head = "Content-Type: application/json\r\n";
                        messages.add(stage.raw(request("POST", &target, "all", head, &body)).await.status);
                    }
                    // Bursts, and pauses in which connections are idle.
                    if random.random_bool(0.3) {
                        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
                    }
                }
                (messages, counts)
            });
        }
        let emitted: Vec<String> = {
            let mut all = Vec::new();
            for _ in 0..20 {
                all.extend(sim.emit_many(APP, Stream::UserEvents, 20).iter().map(ToString::to_string));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            all
        };
        let (mut messages, mut counts) = (Told::default(), Told::default());
        while let Some(told) = callers.join_next().await {
            let (more, some) = told.unwrap();
            messages.well += more.well;
            messages.unavailable += more.unavailable;
            messages.over_limit += more.over_limit;
            counts.well += some.well;
            counts.unavailable += some.unavailable;
            counts.over_limit += some.over_limit;
        }
        sim.clear_faults();

        let stats = sim.stats();
        let of = stats.of(Endpoint::PeerMessages);
        assert_eq!(of.counted, messages.well, "seed {seed}: {messages:?} {of:?}");
        assert!(of.received <= 3 * messages.all(), "seed {seed}: {messages:?} {of:?}");
        let of = stats.of(Endpoint::HistoryCount);
        assert_eq!(of.counted, counts.well, "seed {seed}: {counts:?} {of:?}");
        assert!(of.received <= 3 * counts.all(), "seed {seed}: {counts:?} {of:?}");
        let met = sim.faults_met();
        assert!(met["refuse_stream"] > 10 && met["go_away"] > 5, "{met:?}");
        assert!(messages.well > messages.all() / 2, "{messages:?}");

        let mut read = Vec::new();
        while read.len() < emitted.len() {
            let answer = stage.get(&format!("{RTM}/vendor/user_events?wait=20s")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            read.extend(texts(&answer));
        }
        assert_eq!(read, emitted, "seed {seed}");
        let text = stage.app.metrics.text();
        let mut losses = text.lines().filter(|line| line.starts_with("rtm_gateway_events_possible_loss_total{"));
        assert!(losses.all(|line| line.ends_with(" 0")), "seed {seed}: {text}");
        assert_eq!(sim.violations(), [], "seed {seed}");
        stage.stopped().await;
        sim.stop().await;
    }
}
