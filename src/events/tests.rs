//! The whole of events over a scripted vendor and a store in memory, in paused time.

mod bounded;
mod embedded;
mod faults;
mod filtering;
#[cfg(feature = "judged")]
mod judged;
mod leasing;
mod losing;
mod ordering;
mod outages;
mod owning;
mod polling;
mod reading;
mod resuming;
mod saving;
mod sighting;
mod subscribing;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::append::AppendRequest;
use super::log::Log;
use super::*;
use crate::config;
use crate::kernel::names::{ClientName, RegionName, SubscriptionName};
use crate::kernel::testing::{look_again, pass};
use crate::store::embedded::EmbeddedStore;
use crate::store::tests::memory::MemoryStore;
use crate::store::{Content, EventText, NewBatch, Sequence};
use crate::upstream::egress::{Costs, Failed, Failure, Orders, Reply, WorkCosts};
use crate::vendor::order::{Operation, Order};

/// What a scripted vendor does with a read.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Answers so.
    Answer(u16, String),
    /// Answers with this status and this `Retry-After`.
    Busy(u16, &'static str),
    /// Fails so.
    Fail(Failure),
    /// Does the next step after a while.
    After(Duration, Box<Step>),
    /// Never answers.
    Hang,
}

/// Answers reads by script, region by region; when the script is at its end, with no events.
#[derive(Default)]
pub(super) struct Script {
    steps: Mutex<HashMap<String, VecDeque<Step>>>,
    /// Region and time of each read.
    seen: Mutex<Vec<(String, Instant)>>,
    /// How much of a `Retry-After` each read's bucket is to obey.
    obeys: Mutex<Vec<Duration>>,
}

impl Script {
    fn say(&self, region: &str, steps: impl IntoIterator<Item = Step>) {
        lock(&self.steps).entry(region.to_owned()).or_default().extend(steps);
    }

    fn seen(&self) -> usize {
        lock(&self.seen).len()
    }

    /// Reads of one region.
    fn seen_of(&self, region: &str) -> usize {
        lock(&self.seen).iter().filter(|(of, _)| of == region).count()
    }
}

#[async_trait]
impl Orders for Script {
    async fn send_for(&self, _: Order, _: &WorkCosts) -> Result<Reply, Failed> {
        unreachable!("a poller's reads are for no request")
    }

    async fn send(&self, order: Order) -> Result<Reply, Failed> {
        assert!(matches!(order.operation, Operation::ReadEvents(_)));
        let region = order.region.unwrap();
        lock(&self.obeys).push(order.retry_after_limit.unwrap());
        lock(&self.seen).push((region.to_string(), Instant::now()));
        let mut step = lock(&self.steps).get_mut(region.as_str()).and_then(VecDeque::pop_front);
        while let Some(Step::After(pause, then)) = step {
            pass(pause).await;
            step = Some(*then);
        }
        let (costs, mut headers) = (Costs::default(), HeaderMap::new());
        let (status, body) = match step {
            Some(Step::Answer(status, body)) => (status, body),
            Some(Step::Busy(status, retry_after)) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
                (status, String::new())
            }
            Some(Step::Fail(why)) => return Err(Failed { why, costs }),
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::After(..)) | None => (200, events(0..0)),
        };
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Reply { status, headers, body: body.into(), region, costs })
    }

    fn may_repeat(&self, _: &AppId, _: &ClientName) -> bool {
        unreachable!("no read of events asks for it")
    }
}

/// A vendor's answer with these events: each is its number.
pub(super) fn events(numbers: std::ops::Range<u64>) -> String {
    let numbers: Vec<_> = numbers.map(|n| n.to_string()).collect();
    format!(r#"{{"result":"success","request_id":"1","events":[{}]}}"#, numbers.join(","))
}

pub(super) fn answer(numbers: std::ops::Range<u64>) -> Step {
    Step::Answer(200, events(numbers))
}

/// One run of the events service.
pub(crate) struct Rig {
    pub(crate) events: Events,
    vendor: Arc<Script>,
    store: Arc<MemoryStore>,
    /// The real store instead of the one in memory.
    folder: Option<Folder>,
    tasks: Tasks,
    clock: Clock,
    metrics: Metrics,
    config: config::App,
}

/// A store in a folder, opened.
pub(super) struct Folder {
    folder: tempfile::TempDir,
    store: Arc<EmbeddedStore>,
    writer: Tasks,
}

impl Folder {
    async fn open(folder: tempfile::TempDir, clock: &Clock) -> Self {
        let writer = Tasks::new();
        let store = EmbeddedStore::open(folder.path(), writer.clone(), clock.clone(), Metrics::new()).await.unwrap();
        Self { folder, store, writer }
    }
}

pub(crate) const STREAM: Stream = Stream::UserEvents;

pub(crate) fn app() -> AppId {
    AppId::parse("app").unwrap()
}

pub(super) fn key() -> LogKey {
    LogKey { app: app(), stream: STREAM }
}

pub(super) fn clock() -> Clock {
    Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

pub(super) fn config(regions: &[&str]) -> config::App {
    let region = |name: &&str| config::Region {
        name: RegionName::parse(name).unwrap(),
        base_url: "http://127.0.0.1".parse().unwrap(),
    };
    config::App {
        id: app(),
        regions: regions.iter().map(region).collect(),
        credential: config::Credential::Token {
            app_certificate: crate::kernel::secret::SecretSource::Env("NONE".into()),
            uid: "gateway".into(),
        },
        quota: config::Quota::default(),
        events: config::Events { streams: vec![STREAM], ..config::Events::default() },
        history: config::History::default(),
        webhooks: Vec::new(),
    }
}

impl Rig {
    async fn new(regions: &[&str]) -> Self {
        Self::over(MemoryStore::default(), config(regions)).await
    }

    /// A gateway that reads nothing: for tests that append themselves.
    pub(crate) async fn quiet() -> Self {
        Self::new(&[]).await
    }

    async fn over(store: MemoryStore, config: config::App) -> Self {
        Self::with(store, config, Arc::default()).await
    }

    async fn with(store: MemoryStore, config: config::App, vendor: Arc<Script>) -> Self {
        Self::start(store, None, config, vendor, clock()).await
    }

    /// Over the real store.
    async fn in_folder(config: config::App) -> Self {
        let clock = clock();
        let folder = Folder::open(tempfile::tempdir().unwrap(), &clock).await;
        Self::start(MemoryStore::default(), Some(folder), config, Arc::default(), clock).await
    }

    async fn start(
        store: MemoryStore,
        folder: Option<Folder>,
        config: config::App,
        vendor: Arc<Script>,
        clock: Clock,
    ) -> Self {
        let (store, tasks, metrics) = (Arc::new(store), Tasks::new(), Metrics::new());
        let source: Arc<dyn Orders> = vendor.clone();
        let used: Arc<dyn Store> = match &folder {
            Some(folder) => folder.store.clone(),
            None => store.clone(),
        };
        let events = Events::with_source(used, source, tasks.clone(), clock.clone(), metrics.clone());
        let rig = Self { events, vendor, store, folder, tasks, clock, metrics, config };
        rig.apply().await;
        rig
    }

    async fn apply(&self) {
        self.events.apply(std::slice::from_ref(&self.config), &config::Upstream::default(), &[]).await.unwrap();
    }

    /// Stops in order, and starts again over the same store.
    async fn restart(self) -> Self {
        assert_eq!(self.tasks.finish(Duration::from_secs(30)).await, 0);
        self.events.flush().await.unwrap();
        if let Some(folder) = &self.folder {
            folder.store.close(self.clock.wall_ms()).await.unwrap();
        }
        self.reopen(true).await
    }

    /// Ends without a word.
    pub(crate) async fn kill(self) -> Self {
        self.tasks.finish(Duration::ZERO).await;
        self.reopen(false).await
    }

    async fn reopen(self, clean_stop: bool) -> Self {
        let Self { events, vendor, store, folder, clock, config, .. } = self;
        drop(events);
        let folder = match folder {
            Some(Folder { folder, store, writer }) => {
                drop(store);
                assert_eq!(writer.finish(Duration::from_secs(30)).await, 0);
                Some(Folder::open(folder, &clock).await)
            }
            None => None,
        };
        let clean_stop = clean_stop.then(|| clock.wall_ms());
        Self::start(store.reopened(clean_stop), folder, config, vendor, clock).await
    }

    fn stream(&self) -> Arc<AppStream> {
        self.events.stream(&app(), STREAM).unwrap()
    }

    fn log(&self) -> Arc<Log> {
        Arc::clone(&self.stream().log)
    }

    fn cursor(&self, at: u64) -> Cursor {
        self.log().cursor(Sequence(at))
    }

    /// The number of the oldest entry, and of the next.
    fn range(&self) -> (u64, u64) {
        let range = self.log().range();
        (range.start.0, range.end.0)
    }

    pub(crate) async fn append(&self, numbers: std::ops::Range<u64>) {
        let numbers: Vec<_> = numbers.map(|n| n.to_string()).collect();
        self.append_content(Content::Events(EventText::join(numbers.iter().map(|n| n.as_bytes())).unwrap())).await;
    }

    async fn append_content(&self, content: Content) {
        let received_at = self.events.0.parts.shared.clock.wall_ms();
        let new = NewBatch { received_at, region: RegionName::parse("cn").unwrap(), content };
        self.stream().append(&AppendRequest::new(vec![new], None)).await.unwrap();
    }

    async fn read(&self, read: ReadRequest) -> Result<Delivery, ReadError> {
        self.events.read(&app(), STREAM, read).await
    }

    /// The bodies in the quarantine, newest first, and how many events of each were delivered.
    async fn quarantined(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for entry in self.events.quarantined(&app(), STREAM, u64::MAX, 10).await.unwrap() {
            let (_, pieces) = self.events.quarantined_body(&app(), STREAM, entry.id).await.unwrap().unwrap();
            found.push((String::from_utf8(pieces.concat()).unwrap(), entry.delivered));
        }
        found
    }

    /// Reads and hands over.
    async fn take(&self, read: ReadRequest) -> Vec<String> {
        let delivery = self.read(read).await.unwrap();
        let texts = texts(&delivery);
        delivery.receipt.handed_over();
        texts
    }

    /// All of the log, markers by their reason.
    async fn all(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut after = self.cursor(self.range().0 - 1);
        loop {
            let read = ReadRequest {
                place: ReadFrom::After(after),
                client: ClientName::parse("all").unwrap(),
                limit: 1000,
                max_bytes: usize::MAX,
                wait: Duration::ZERO,
                markers: true,
                filter: Arc::default(),
                ack: Ack::OnHandover,
            };
            let delivery = self.read(read).await.unwrap();
            if delivery.runs.is_empty() {
                return all;
            }
            all.extend(texts(&delivery));
            after = delivery.next;
        }
    }

    /// The markers of the log, as they are stored.
    async fn markers(&self) -> Vec<Marker> {
        let batches = self.log().store().read(&key(), Sequence(0), usize::MAX).await.unwrap();
        let of = |batch: &Arc<crate::store::Batch>| match &batch.content {
            Content::PossibleLoss(text) => Some(Marker::read(text)),
            Content::Events(_) | Content::Damaged(_) => None,
        };
        batches.iter().filter_map(of).collect()
    }

    /// Waits until the vendor has seen so many reads.
    /// Waits for so many reads more of each of these regions: they are not read in turn.
    async fn until_each_seen(&self, regions: &[&str], more: usize) {
        for (region, before) in regions.iter().map(|region| (region, self.vendor.seen_of(region))).collect::<Vec<_>>() {
            while self.vendor.seen_of(region) < before + more {
                look_again().await;
            }
        }
    }

    async fn until_seen(&self, reads: usize) {
        while self.vendor.seen() < reads {
            look_again().await;
        }
    }

    fn metric(&self, line: &str) -> bool {
        let text = self.metrics.text();
        text.lines().any(|l| l.strip_prefix("rtm_gateway_").is_some_and(|l| l == line))
    }
}

/// The texts of what was delivered, markers by their reason.
pub(crate) fn texts(delivery: &Delivery) -> Vec<String> {
    let run = |run: &Run| match &run.batch.content {
        Content::Events(events) => {
            let text = events.slice(run.entries.clone());
            std::str::from_utf8(&text).unwrap().split(',').map(str::to_owned).collect()
        }
        Content::PossibleLoss(text) => vec![Marker::read(text).reason],
        Content::Damaged(_) => vec!["damaged".to_owned()],
    };
    delivery.runs.iter().flat_map(run).collect()
}

pub(crate) fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// A vendor-compatible read of a subscription that begins at the earliest.
pub(crate) fn by(name: &str, limit: usize) -> ReadRequest {
    let by = ClientName::parse(&format!("reader-of-{name}")).unwrap();
    let name = SubscriptionName::parse(name).unwrap();
    ReadRequest {
        place: ReadFrom::Subscription { name, from: StartAt::Earliest },
        client: by,
        limit,
        max_bytes: usize::MAX,
        wait: Duration::ZERO,
        markers: false,
        filter: Arc::default(),
        ack: Ack::OnHandover,
    }
}

pub(super) fn wait(seconds: u64, read: ReadRequest) -> ReadRequest {
    ReadRequest { wait: Duration::from_secs(seconds), ..read }
}

pub(super) fn from(from: StartAt, read: ReadRequest) -> ReadRequest {
    let ReadFrom::Subscription { name, .. } = read.place else { panic!("not a subscription") };
    ReadRequest { place: ReadFrom::Subscription { name, from }, ..read }
}
