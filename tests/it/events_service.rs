//! Events through the real egress and the real store, against the simulated vendor: whatever the vendor handed over
//! whole is in the log, once, in order and byte for byte, and what it lost is marked.

mod answers;
mod regions;

use std::sync::Arc;
use std::time::Duration;

use rtm_gateway::config::{App, Config, Credential, Limit, Quota, QuotaRule, Region};
use rtm_gateway::events::{Ack, Events, Marker, ReadFrom, ReadRequest, StartAt};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::metrics::Metrics;
use rtm_gateway::kernel::names::{AppId, ClientName, RegionName, Stream, SubscriptionName};
use rtm_gateway::kernel::secret::SecretSource;
use rtm_gateway::kernel::task::Tasks;
use rtm_gateway::simulator::{self, Endpoint, Fault, Limits, Profile, Sim};
use rtm_gateway::store::embedded::EmbeddedStore;
use rtm_gateway::store::{Content, Store};
use rtm_gateway::upstream::egress::{Egress, LastShutdown};

const APP: &str = "demo-app";
const STREAM: Stream = Stream::UserEvents;
const READS_A_SECOND: u32 = 200;

struct Rig {
    events: Events,
    store: Arc<dyn Store>,
    work: Tasks,
    writer: Tasks,
}

impl Rig {
    async fn start(sim: &Sim, folder: &std::path::Path) -> Self {
        Self::start_with(config(&[sim], folder), folder).await
    }

    async fn start_with(config: Config, folder: &std::path::Path) -> Self {
        let (clock, metrics, work, writer) = (Clock::system(), Metrics::new(), Tasks::new(), Tasks::new());
        let store = EmbeddedStore::open(folder.join("data"), writer.clone(), clock.clone(), metrics.clone());
        let store: Arc<dyn Store> = store.await.unwrap();
        let egress = Egress::new(&config, LastShutdown::None, clock.clone(), metrics.clone(), &work).unwrap();
        let events = Events::new(store.clone(), egress, work.clone(), clock, metrics);
        events.apply(&config.apps, &config.upstream, &[]).await.unwrap();
        Self { events, store, work, writer }
    }

    /// As on SIGTERM.
    async fn stop(self) {
        assert_eq!(self.work.finish(Duration::from_secs(10)).await, 0);
        self.events.flush().await.unwrap();
        self.store.close(Clock::system().wall_ms()).await.unwrap();
        drop((self.events, self.store));
        assert_eq!(self.writer.finish(Duration::from_secs(10)).await, 0);
    }

    /// The next entries of a subscription: events, and reasons of markers.
    async fn next(&self, subscription: &str) -> (Vec<String>, Vec<String>) {
        self.entries(subscription).await.into_iter().partition(|entry| entry.starts_with('{'))
    }

    /// The next entries of a subscription, in order.
    async fn entries(&self, subscription: &str) -> Vec<String> {
        let name = SubscriptionName::parse(subscription).unwrap();
        let by = ClientName::parse("somebody").unwrap();
        let place = ReadFrom::Subscription { name, from: StartAt::Earliest };
        let read = ReadRequest {
            place,
            client: by,
            limit: 1000,
            max_bytes: usize::MAX,
            wait: Duration::from_secs(10),
            markers: true,
            filter: Arc::default(),
            ack: Ack::OnHandover,
        };
        let delivery = self.events.read(&AppId::parse(APP).unwrap(), STREAM, read).await.unwrap();
        let mut entries = Vec::new();
        for run in &delivery.runs {
            match &run.batch.content {
                Content::Events(text) => entries
                    .extend(run.entries.clone().map(|n| String::from_utf8(text.slice(n..n + 1).to_vec()).unwrap())),
                Content::PossibleLoss(text) => entries.push(Marker::read(text).reason),
                Content::Damaged(_) => entries.push("damaged".to_owned()),
            }
        }
        delivery.receipt.handed_over();
        entries
    }

    /// So many entries of a subscription, in order.
    async fn until(&self, subscription: &str, count: usize) -> Vec<String> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.extend(self.entries(subscription).await);
        }
        entries
    }

    /// What is in the quarantine, oldest first: its body, and how many of its events were delivered.
    async fn quarantine(&self) -> Vec<(String, Vec<u8>, u64)> {
        let app = AppId::parse(APP).unwrap();
        let mut found = Vec::new();
        for entry in self.events.quarantined(&app, STREAM, u64::MAX, 1000).await.unwrap() {
            let (_, pieces) = self.events.quarantined_body(&app, STREAM, entry.id).await.unwrap().unwrap();
            found.push((entry.why, pieces.concat(), entry.delivered));
        }
        found.reverse();
        found
    }
}

fn config(regions: &[&Sim], folder: &std::path::Path) -> Config {
    let secret = |name: &str| {
        std::fs::write(folder.join(name), name).unwrap();
        SecretSource::File(folder.join(name))
    };
    let limit = Limit { requests: READS_A_SECOND.try_into().unwrap(), per: Duration::from_secs(1) };
    let region =
        |sim: &&Sim| Region { name: RegionName::parse(sim.name()).unwrap(), base_url: sim.base_url().parse().unwrap() };
    let mut config = Config::default();
    config.apps = vec![App {
        id: AppId::parse(APP).unwrap(),
        regions: regions.iter().map(region).collect(),
        credential: Credential::Basic { api_key: secret("key"), api_secret: secret("secret") },
        quota: Quota { user_events: QuotaRule::Own(limit), ..Quota::default() },
        events: rtm_gateway::config::Events {
            streams: vec![STREAM],
            poll_interval: Duration::from_millis(5),
            poll_interval_idle: Duration::from_millis(10),
            ..rtm_gateway::config::Events::default()
        },
        history: rtm_gateway::config::History::default(),
        webhooks: Vec::new(),
    }];
    config
}

fn app() -> simulator::App {
    let limits =
        Limits::default().with(STREAM.bucket(), simulator::Limit::per_second(READS_A_SECOND.try_into().unwrap()));
    simulator::App::new(APP).basic("key", "secret").limits(limits).rules(|rules| rules.unknown_members = true)
}

async fn simulator() -> Sim {
    Sim::start(app()).await.unwrap()
}

#[tokio::test]
async fn what_the_vendor_handed_over_whole_is_kept_and_what_it_lost_is_marked() {
    let (sim, folder) = (simulator().await, tempfile::tempdir().unwrap());
    let rig = Rig::start(&sim, folder.path()).await;
    let chance = 0.08;
    sim.random(
        Profile::seeded(11)
            .with(chance, Fault::DropAfter)
            .with(chance, Fault::ResetBefore)
            .with(chance, Fault::CutBody { keep: 40 })
            .with(chance, Fault::garbage("<html>no</html>"))
            .with(chance, Fault::status_but_acted(408))
            .with(chance, Fault::status_but_acted(503))
            .with(chance, Fault::Chunked)
            .with(1.0, Fault::JitterBefore(Duration::from_millis(5))),
    );
    let (mut events, mut markers) = (Vec::new(), Vec::new());
    while sim.stats().of(Endpoint::UserEvents).faulted < 25 || sim.ledger(APP, STREAM).counts.lost == 0 {
        sim.emit_many(APP, STREAM, 50);
        let (more, doubts) = rig.next("reader").await;
        events.extend(more);
        markers.extend(doubts);
    }
    sim.clear_faults();
    // An event comes into a read that is on its way when the stop comes: it is stored.
    let faulted = sim.stats().of(Endpoint::UserEvents).faulted;
    sim.on(Endpoint::UserEvents, Fault::DelayBefore(Duration::from_millis(300)));
    sim.wait_until(|stats| stats.of(Endpoint::UserEvents).faulted > faulted).await.unwrap();
    let last = sim.emit_user_event(APP, "Login", "last \u{7528}\u{6237}");
    rig.stop().await;
    assert_eq!(sim.ledger(APP, STREAM).waiting, Vec::<Arc<str>>::new());

    let rig = Rig::start(&sim, folder.path()).await;
    while events.last().map(String::as_str) != Some(&*last) {
        let (more, doubts) = rig.next("reader").await;
        events.extend(more);
        markers.extend(doubts);
    }
    let ledger = sim.ledger(APP, STREAM);
    let handed: Vec<_> = ledger.handed.iter().map(|event| event.to_string()).collect();
    assert_eq!(events, handed, "once, in order, byte for byte");
    assert!(!ledger.lost.is_empty() && !markers.is_empty());
    for reason in &markers {
        let known = ["reset", "cut_body", "unparsable", "status_408", "status_5xx"];
        assert!(known.contains(&reason.as_str()), "{reason}");
    }
    let mut again = Vec::new();
    while again.len() < handed.len() {
        again.extend(rig.next("another").await.0);
    }
    assert_eq!(again, handed, "another subscriber gets the same");
    rig.stop().await;
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

/// Refused streams and connections that go away, more often in a row than one order is sent again for.
#[tokio::test]
async fn a_read_that_the_vendor_did_not_process_leaves_no_marker_and_is_read_again() {
    let (sim, ca) = crate::egress::tls::vendor_of(app(), &["h2"]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), ca).unwrap();
    let mut config = config(&[&sim], folder.path());
    config.upstream.ca_file = Some(folder.path().join("ca.pem"));
    let turns = [Fault::RefuseStream, Fault::GoAway].into_iter().cycle().take(10);
    for fault in turns {
        sim.on(Endpoint::UserEvents, fault);
    }
    sim.emit_many(APP, STREAM, 50);
    let rig = Rig::start_with(config, folder.path()).await;
    let mut events = Vec::new();
    while events.len() < 50 {
        let (more, markers) = rig.next("reader").await;
        events.extend(more);
        assert_eq!(markers, Vec::<String>::new());
    }
    let stats = sim.stats();
    assert_eq!(stats.of(Endpoint::UserEvents).faulted, 10);
    rig.stop().await;
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}
