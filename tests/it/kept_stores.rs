//! Stores that earlier versions wrote, kept as fixtures: today's code opens each and reads all that it holds.
//!
//! `tests/fixtures/store-*/README.md` says what is in them and how they were written. A listing is never made anew to
//! suit the code: what it says was in the file on the day it was written.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rtm_gateway::config::{self, App, Config, Credential};
use rtm_gateway::events::{
    Ack, Cursor, Delivery, DeliveryOrder, Events, Holding, InHand, ReadFrom, ReadRequest, StartAt, SubscriptionStatus,
};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::metrics::Metrics;
use rtm_gateway::kernel::names::{AppId, ClientName, Stream, SubscriptionName, WebhookName};
use rtm_gateway::kernel::secret::SecretSource;
use rtm_gateway::kernel::task::Tasks;
use rtm_gateway::store::embedded::EmbeddedStore;
use rtm_gateway::store::{Content, LogKey, NoteKind, Sequence, Store};
use rtm_gateway::upstream::egress::{Egress, LastShutdown};
use tempfile::TempDir;

const LOGS: [(&str, Stream); 5] = [
    ("app-1", Stream::UserEvents),
    ("app-1", Stream::ChannelEvents),
    ("app-2", Stream::UserEvents),
    ("app-2", Stream::ChannelEvents),
    ("app-3", Stream::UserEvents),
];
const KINDS: [NoteKind; 4] = [NoteKind::Subscription, NoteKind::DeadLetter, NoteKind::Webhook, NoteKind::Waiting];
const FACTS: [&str; 5] = ["witness: wall", "witness: jump", "witness: held", "stopped: boot", "stopped: since boot"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1").join(name)
}

/// A folder with a store as it was kept.
fn unpacked(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packed = fs::File::open(fixture(&format!("{name}.redb.gz"))).unwrap();
    let mut data = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut data).unwrap();
    fs::write(folder.path().join("events.redb"), data).unwrap();
    folder
}

/// All that a store holds, line by line.
async fn listing(store: &dyn Store) -> String {
    let mut text =
        format!("epoch {:016x}\nlast clean stop {:?}\n", store.epoch(), store.last_clean_stop().map(|t| t.0));
    let mut line = |said: std::fmt::Arguments<'_>| writeln!(text, "{said}").unwrap();
    for name in FACTS {
        line(format_args!("fact {name:?} {:?}", store.fact(name).await.unwrap()));
    }
    for (app, stream) in LOGS {
        let log = LogKey { app: AppId::parse(app).unwrap(), stream };
        let state = store.log_state(&log).await.unwrap();
        let (earliest, next, bytes) = (state.earliest.0, state.next.0, state.bytes);
        line(format_args!("\nlog {app}/{stream}: earliest {earliest}, next {next}, bytes {bytes}"));
        for batch in store.read(&log, Sequence(0), usize::MAX).await.unwrap() {
            let (first, received, region) = (batch.first.0, batch.received_at.0, &batch.region);
            line(format_args!("batch {first} received {received} region {region}"));
            match &batch.content {
                Content::Events(events) => events
                    .iter()
                    .enumerate()
                    .for_each(|(n, event)| line(format_args!("  {} {}", first + n as u64, event.escape_ascii()))),
                Content::PossibleLoss(reason) => line(format_args!("  {first} possible loss: {reason}")),
                Content::Damaged(entries) => line(format_args!("  {first} damaged: {entries}")),
            }
        }
        for (name, at) in store.cursors(&log).await.unwrap() {
            line(format_args!("cursor {name} {}", at.0));
        }
        for kind in KINDS {
            for (name, note) in store.notes(&log, kind, "", "", usize::MAX).await.unwrap() {
                line(format_args!("note {kind:?} {name:?} {}", note.escape_ascii()));
            }
        }
        for kept in store.quarantined(&log, u64::MAX, usize::MAX).await.unwrap() {
            let (received, region, why) = (kept.received_at.0, &kept.region, &kept.why);
            line(format_args!("quarantined received {received} region {region} why {why:?}"));
            let (_, pieces) = store.quarantined_body(&log, kept.id).await.unwrap().unwrap();
            line(format_args!("  {}", pieces.concat().escape_ascii()));
        }
    }
    text
}

async fn reads_as_listed(name: &str) {
    let (folder, writer) = (unpacked(name), Tasks::new());
    let store = EmbeddedStore::open(folder.path(), writer.clone(), Clock::system(), Metrics::new()).await.unwrap();
    assert!(!store.is_new());
    let store: Arc<dyn Store> = store;
    let (found, expected) = (listing(&*store).await, fs::read_to_string(fixture(&format!("{name}.txt"))).unwrap());
    for (n, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{name}.txt, line {}", n + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
    // It is a store to go on with, too.
    store.ready().await.unwrap();
    store.close(Clock::system().wall_ms()).await.unwrap();
    drop(store);
    assert_eq!(writer.finish(Duration::from_secs(10)).await, 0);
}

#[tokio::test]
async fn a_store_of_the_first_format_that_was_stopped_in_order_is_read_entry_by_entry() {
    reads_as_listed("stopped").await;
}

#[tokio::test]
async fn a_store_of_the_first_format_whose_gateway_was_killed_is_read_entry_by_entry() {
    reads_as_listed("killed").await;
}

#[tokio::test]
async fn a_backup_of_a_store_holds_all_that_the_store_holds_but_its_epoch_and_its_stop() {
    for name in ["stopped", "killed"] {
        let (folder, copied, tasks) = (unpacked(name), tempfile::tempdir().unwrap(), Tasks::new());
        let open = async |path: &Path| {
            EmbeddedStore::open(path, tasks.clone(), Clock::system(), Metrics::new()).await.unwrap()
        };
        let store = open(folder.path()).await;
        let mut backup = store.backup().await.unwrap();
        std::io::copy(&mut backup, &mut fs::File::create(copied.path().join("events.redb")).unwrap()).unwrap();
        let copy = open(copied.path()).await;
        let all = async |store: &EmbeddedStore| listing(store).await.lines().skip(2).collect::<Vec<_>>().join("\n");
        assert!(all(&copy).await == all(&store).await, "{name}");
        drop((store, copy));
        assert_eq!(tasks.finish(Duration::from_secs(10)).await, 0);
    }
}

/// A gateway of `app-1` that reads nothing: what is looked at is what is there.
fn of_app_1(key: PathBuf) -> Config {
    let events = config::Events { retention: Duration::from_secs(u32::MAX.into()), ..config::Events::default() };
    let mut config = Config::default();
    config.apps = vec![App {
        id: AppId::parse("app-1").unwrap(),
        regions: Vec::new(),
        credential: Credential::Basic { api_key: SecretSource::File(key.clone()), api_secret: SecretSource::File(key) },
        quota: config::Quota::default(),
        events,
        history: config::History::default(),
        webhooks: Vec::new(),
    }];
    config
}

/// All that a webhook can have of a stream now, one after the other, and how often each was tried in vain; settled.
async fn drained(events: &Events, stream: Stream, webhook: &str) -> Vec<(u64, u32)> {
    let (app, name) = (AppId::parse("app-1").unwrap(), SubscriptionName::from(&WebhookName::parse(webhook).unwrap()));
    let mut all = Vec::new();
    loop {
        let read = ReadRequest {
            place: ReadFrom::Subscription { name: name.clone(), from: StartAt::Latest },
            client: ClientName::parse("reader").unwrap(),
            limit: 1,
            max_bytes: usize::MAX,
            wait: Duration::ZERO,
            markers: true,
            filter: Arc::default(),
            ack: Ack::InHand(InHand { turns: DeliveryOrder::All, unites: false, most_open: 100 }),
        };
        let Delivery { runs, leased: Some(leased), receipt, .. } = events.read(&app, stream, read).await.unwrap()
        else {
            return all;
        };
        let entries = runs.iter().flat_map(|run| run.entries.clone().map(|n| run.batch.first.0 + n as u64));
        all.extend(entries.zip(leased.attempts));
        events.acknowledge(&app, stream, &name, &Holding::Lease(leased.name)).await.unwrap();
        receipt.handed_over();
    }
}

#[tokio::test]
async fn webhooks_of_a_store_of_the_first_format_go_on_where_their_records_say() {
    for (name, next) in [("stopped", 19), ("killed", 20)] {
        let (folder, writer, work) = (unpacked(name), Tasks::new(), Tasks::new());
        let (clock, metrics) = (Clock::system(), Metrics::new());
        let store = EmbeddedStore::open(folder.path(), writer.clone(), clock.clone(), metrics.clone()).await.unwrap();
        let key = folder.path().join("key");
        fs::write(&key, "key").unwrap();
        let config = of_app_1(key);
        for start in 1..=2 {
            let egress = Egress::new(&config, LastShutdown::None, clock.clone(), metrics.clone(), &work).unwrap();
            let events = Events::new(store.clone(), egress, work.clone(), clock.clone(), metrics.clone());
            events.apply(&config.apps, &config.upstream, &[]).await.unwrap();
            let app = AppId::parse("app-1").unwrap();
            let left = async |stream, webhook: &str| {
                let log = LogKey { app: app.clone(), stream };
                let note = store.note(&log, NoteKind::Webhook, webhook).await.unwrap();
                note.map(|note| serde_json::from_slice::<serde_json::Value>(&note).unwrap())
            };
            let disabled = |since: u64, why| Some(serde_json::json!({ "disabled": { "since": since, "why": why } }));
            let by_operator = disabled(1_795_901_973_110, "operator");
            let now = format!("{name}, start {start}");
            assert_eq!(left(Stream::UserEvents, "crm").await, None, "{now}");
            assert_eq!(left(Stream::UserEvents, "gone").await, disabled(1_795_901_972_365, "gone"), "{now}");
            assert_eq!(left(Stream::UserEvents, "taken").await, by_operator, "{now}");
            assert_eq!(left(Stream::ChannelEvents, "taken").await, by_operator, "{now}");
            // What the first start found is settled at the second.
            let found =
                |range: std::ops::Range<u64>| range.filter(|_| start == 1).map(|at| (at, 0)).collect::<Vec<_>>();
            // One had delivered or given up all; one had delivered nothing; one all until it was disabled.
            assert_eq!(drained(&events, Stream::UserEvents, "crm").await, [], "{now}");
            assert_eq!(drained(&events, Stream::UserEvents, "gone").await, found(1..next), "{now}");
            assert_eq!(drained(&events, Stream::UserEvents, "taken").await, found(19..next), "{now}");
            assert_eq!(drained(&events, Stream::ChannelEvents, "taken").await, [], "{now}");
            let crm = SubscriptionName::from(&WebhookName::parse("crm").unwrap());
            let letters = events.dead_letters(&app, Stream::UserEvents, &crm, None, 100).await.unwrap();
            assert!(letters.iter().map(|letter| letter.cursor.at.0).eq(4..next), "{now}");
        }
        assert_eq!(work.finish(Duration::from_secs(10)).await, 0);
        store.close(clock.wall_ms()).await.unwrap();
        drop(store);
        assert_eq!(writer.finish(Duration::from_secs(10)).await, 0);
    }
}

#[tokio::test]
async fn clients_places_of_a_store_of_the_first_format_are_their_own_from_the_first_start_on() {
    let (folder, writer, work) = (unpacked("stopped"), Tasks::new(), Tasks::new());
    let (clock, metrics) = (Clock::system(), Metrics::new());
    let store = EmbeddedStore::open(folder.path(), writer.clone(), clock.clone(), metrics.clone()).await.unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "key").unwrap();
    let config = of_app_1(key);
    for start in 1..=2 {
        let egress = Egress::new(&config, LastShutdown::None, clock.clone(), metrics.clone(), &work).unwrap();
        let events = Events::new(store.clone(), egress, work.clone(), clock.clone(), metrics.clone());
        events.apply(&config.apps, &config.upstream, &[]).await.unwrap();
        let place =
            |s: SubscriptionStatus| (s.stream, s.subscription, s.client, s.cursor.parse::<Cursor>().unwrap().at.0);
        let mut places: Vec<_> = events.subscriptions().into_iter().map(place).collect();
        places.retain(|(_, name, ..)| !name.starts_with("$webhook."));
        places.sort();
        let of = |stream, name: &str, client: &str, at| (stream, name.to_owned(), Some(client.to_owned()), at);
        let expected = [
            of("channel_events", "$client.two", "two", 3),
            of("channel_events", "chan", "one", 0),
            of("user_events", "$client.one", "one", 5),
            of("user_events", "$client.two", "two", 1),
            of("user_events", "shared", "one", 3),
            of("user_events", "work", "one", 1),
        ];
        assert_eq!(places, expected, "start {start}");
    }
    assert_eq!(work.finish(Duration::from_secs(10)).await, 0);
    store.close(clock.wall_ms()).await.unwrap();
    drop(store);
    assert_eq!(writer.finish(Duration::from_secs(10)).await, 0);
}
