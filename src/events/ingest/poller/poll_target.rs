//! [`PollTarget`]: one stream of one region, and how what comes from it is kept.
//!
//! Invariants: [`PollTarget::keep`] returns only when all of an outcome is stored; while the store fails it tries
//! again, also during a stop. If it is dropped on the way, what is left goes to [`PendingWrites`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::DATE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::answer::Outcome;
use super::status::Status;
use crate::config;
use crate::events::app_stream::AppStream;
use crate::events::append::{AppendRequest, STORE_RETRY};
use crate::events::ingest::pending_writes::PendingWrites;
use crate::events::log::loss::Loss;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::names::{ClientName, RegionName};
use crate::kernel::task::Tasks;
use crate::store::{Content, LogKey, NewBatch, QuarantineRecord, Store, UnreadableResponse};
use crate::upstream::egress::{Failed, Orders, Reply};
use crate::vendor::events::MAX_IN_ONE_READ;
use crate::vendor::order::{Operation, Order, Payer};

/// What a poller goes by; changed by a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) struct Settings {
    /// Between reads while events flow.
    pub(in crate::events) poll_interval: Duration,
    /// Between reads while none do.
    pub(in crate::events) poll_interval_idle: Duration,
    /// How long the poller waits for a read before it leaves it to itself.
    pub(in crate::events) give_up_after: Duration,
}

impl Settings {
    /// As configured, within a day (so that no sum overflows).
    pub(in crate::events) fn new(events: &config::Events, upstream: &config::Upstream) -> Self {
        Self {
            poll_interval: events.poll_interval.min(A_DAY),
            poll_interval_idle: events.poll_interval_idle.min(A_DAY),
            give_up_after: WAIT_FOR_A_SEAT + upstream.connect_timeout.min(A_DAY) + upstream.request_timeout.min(A_DAY),
        }
    }
}

/// What a read brought, for the poller's pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct Summary {
    /// Duplicates too: it is what the vendor had.
    pub(super) events: usize,
    /// It failed, or ended in doubt.
    pub(super) failed: bool,
    /// When the vendor, or our own quota, wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

impl Summary {
    /// Whether there may be more.
    pub(super) fn is_full(&self) -> bool {
        self.events >= MAX_IN_ONE_READ && !self.failed
    }
}

/// The longest pause anyone else's word brings about.
const MAX_HINT: Duration = Duration::from_secs(60);

/// One stream of one region.
pub(in crate::events) struct PollTarget {
    region: RegionName,
    stream: Arc<AppStream>,
    source: Arc<dyn Orders>,
    payer: Payer,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(in crate::events) status: Status,
    settings: watch::Sender<Settings>,
    /// Bounds the reads under way.
    places: Arc<Semaphore>,
    pending_writes: Arc<PendingWrites>,
}

impl fmt::Display for PollTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogKey { app, stream } = self.stream.log.key();
        write!(f, "{app}/{stream}/{}", self.region)
    }
}

impl PollTarget {
    /// An answer with this head comes now: its date bears out our clock, or does not.
    pub(super) fn heard(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        if let Some(date) = date {
            self.stream.vendor_says(UnixMillis::from(date));
        }
    }

    pub(in crate::events) fn new(
        stream: Arc<AppStream>,
        region: RegionName,
        source: Arc<dyn Orders>,
        settings: Settings,
        pending_writes: Arc<PendingWrites>,
    ) -> Arc<Self> {
        Arc::new(Self {
            status: Status::new(stream.log.key(), &region, stream.shared.metrics.clone()),
            clock: stream.shared.clock.clone(),
            tasks: stream.shared.tasks.clone(),
            region,
            stream,
            source,
            payer: Payer { client: ClientName::of_pollers(), weight: 1 },
            settings: watch::Sender::new(settings),
            places: Arc::new(Semaphore::new(READS_UNDER_WAY)),
            pending_writes,
        })
    }

    pub(super) fn settings(&self) -> Settings {
        *self.settings.borrow()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Settings> {
        self.settings.subscribe()
    }

    /// Changes what the poller goes by, from its next wait on.
    pub(in crate::events) fn adjust(&self, settings: Settings) {
        self.settings.send_if_modified(|now| std::mem::replace(now, settings) != settings);
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.stream.log.store()
    }

    /// Waits until fewer than [`READS_UNDER_WAY`] are. (Given up reads end by egress's own limit.)
    pub(super) async fn place_for_a_read(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// How many reads are under way, or about to be.
    pub(in crate::events) fn reads_under_way(&self) -> usize {
        READS_UNDER_WAY - self.places.available_permits()
    }

    /// How much of a `Retry-After` is obeyed: the vendor overwrites what is not read.
    pub(super) fn obeys(&self) -> Duration {
        let left = self.status.seconds_to_overflow(self.clock.now());
        left.map_or(MAX_HINT, |left| Duration::from_secs_f64(left / 2.0).min(MAX_HINT))
    }

    /// Takes up what is stored of earlier reads; `stopped` is when the run before ended in order.
    pub(in crate::events) fn recall(&self, stopped: Option<UnixMillis>) {
        let now = (self.clock.now(), self.clock.wall_ms());
        self.status.recall(&self.stream.log.newest(), stopped, now);
    }

    /// Sends a read and waits for its end, however long that takes.
    pub(super) async fn order_a_read(&self) -> Result<Reply, Failed> {
        let LogKey { app, stream } = self.stream.log.key();
        let order = Order {
            app: app.clone(),
            operation: Operation::ReadEvents(*stream),
            payer: self.payer.clone(),
            proof: None,
            sharers: None,
            is_repeat: false,
            seat_by: None,
            deadline: self.clock.now() + WAIT_FOR_A_SEAT,
            sent: None,
            retry_after_limit: Some(self.obeys()),
            region: Some(self.region.clone()),
            headers: HeaderMap::new(),
        };
        self.source.send(order).await
    }

    /// Keeps what a read that was sent at `began` brought, in one step: what cannot be read, the events, and the marker
    /// behind them.
    pub(super) async fn keep(&self, began: Instant, outcome: Outcome) -> Summary {
        let now = self.clock.wall_ms();
        self.status.read(began, &outcome, now);
        let events = outcome.count();
        let summary = Summary { events, failed: outcome.error.is_some(), retry_after: outcome.retry_after };
        let summary = Summary { retry_after: summary.retry_after.map(|hint| hint.min(self.obeys())), ..summary };
        let quarantined = outcome.unreadable.map(|(body, why)| {
            self.status.quarantined();
            let response = UnreadableResponse { received_at: now, region: self.region.clone(), why, body };
            QuarantineRecord { response, delivered: events as u64 }
        });
        let marker = outcome.loss.map(|loss| {
            self.status.lost(loss);
            loss.marker()
        });
        let contents = outcome.events.into_iter().map(Content::Events).chain(marker);
        let batches = contents.map(|content| self.batch(content, now)).collect();
        self.insist(AppendRequest::new(batches, quarantined)).await;
        summary
    }

    /// Marks that events may have been lost, though no read ended in doubt.
    pub(super) async fn mark(&self, loss: Loss) {
        self.status.lost(loss);
        self.insist(self.marker(loss)).await;
    }

    /// Leaves a marker for the last flush.
    pub(super) fn leave_marker(&self, loss: Loss) {
        self.status.lost(loss);
        self.pending_writes.add(&self.stream, self.marker(loss));
    }

    fn marker(&self, loss: Loss) -> Arc<AppendRequest> {
        AppendRequest::new(vec![self.batch(loss.marker(), self.clock.wall_ms())], None)
    }

    fn batch(&self, content: Content, received_at: UnixMillis) -> NewBatch {
        NewBatch { received_at, region: self.region.clone(), content }
    }

    /// Stores it, however long that takes.
    async fn insist(&self, request: Arc<AppendRequest>) {
        let mut unstored = UnstoredGuard { target: self, request: (!request.is_empty()).then_some(request) };
        let mut backoff = STORE_RETRY;
        while let Some(request) = &unstored.request {
            match self.stream.append(request).await {
                Ok(outcome) => {
                    unstored.request = None;
                    self.status.stored(outcome);
                    self.status.resume();
                }
                Err(error) => {
                    self.status.pause(&error, self.clock.wall_ms());
                    tokio::time::sleep(backoff.next_jittered()).await;
                }
            }
        }
    }
}

/// Leaves what is not stored yet for the last flush, should the task be dropped.
struct UnstoredGuard<'a> {
    target: &'a PollTarget,
    request: Option<Arc<AppendRequest>>,
}

impl Drop for UnstoredGuard<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.target.pending_writes.add(&self.target.stream, request);
        }
    }
}

/// How long a read may wait for its turn within the quota; then nothing was sent, and it is tried again.
const WAIT_FOR_A_SEAT: Duration = Duration::from_secs(2);

const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// The one at hand and those given up. With egress's limit of six request timeouts there are fewer.
const READS_UNDER_WAY: usize = 8;
