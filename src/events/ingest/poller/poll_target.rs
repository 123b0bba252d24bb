//! [`PollTarget`]: one stream of one region, and how what comes from it is kept.
//!
//! Invariants: [`PollTarget::keep`] returns only when all of an outcome is stored; while the store fails it tries
//! again, also during a stop. If it is dropped on the way, what is left goes to [`PendingWrites`].

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::DATE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::answer::Outcome;
use super::status::{PollerStatus, Status};
use crate::config;
use crate::events::app_stream::AppStream;
use crate::events::append::{AppendRequest, STORE_RETRY};
use crate::events::ingest::pending_writes::PendingWrites;
use crate::events::log::loss::Loss;
use crate::events::log::outage::{OpenOutage, Outage, OutageBook, OutageStatus, note_name};
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::names::{ClientName, RegionName};
use crate::kernel::sync::lock;
use crate::kernel::task::Tasks;
use crate::store::{Content, LogKey, NewBatch, NoteKind, QuarantineRecord, Store, UnreadableResponse};
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
    outages: Arc<OutageBook>,
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
            status: Status::new(stream.log.key(), &region, stream.shared.metrics.clone(), &stream.shared.clock),
            clock: stream.shared.clock.clone(),
            tasks: stream.shared.tasks.clone(),
            outages: stream.outages_of(&region),
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
    pub(super) async fn recall(&self, stopped: Option<UnixMillis>) {
        // Reads may have failed for long before the stop.
        let (log, name) = (self.stream.log.key(), unread_note(&self.region));
        let note = self.store().note(log, NoteKind::Waiting, &name).await.ok().flatten();
        let last_read = note.as_ref().and_then(|note| str::from_utf8(note).ok()?.parse().ok()).map(UnixMillis);
        if note.is_some() {
            // If it stays, a later start takes the time to overflow for shorter than it is.
            let _ = self.store().keep_notes(log, NoteKind::Waiting, vec![(name, None)]).await;
        }
        let now = (self.clock.now(), self.clock.wall_ms());
        let stopped = stopped.map(|stopped| last_read.map_or(stopped, |read| read.min(stopped)));
        self.status.recall(&self.stream.log.newest(), stopped, now);
    }

    /// Stores when events were read last, if reads fail: or the next run would take the stop for that.
    async fn note_failing(&self) {
        let Some(unread) = self.status.failing_for(self.clock.now()) else { return };
        let ago = u64::try_from(unread.as_millis()).unwrap_or(u64::MAX);
        let last_read = self.clock.wall_ms().0.saturating_sub(ago).to_string();
        let note = (unread_note(&self.region), Some(last_read.into()));
        // A forecast alone hangs on it.
        let _ = self.store().keep_notes(self.stream.log.key(), NoteKind::Waiting, vec![note]).await;
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
            headers: Vec::new(),
        };
        self.source.send(order).await
    }

    /// Keeps what a read that was sent at `began` brought, in one step: what cannot be read, the events, and what is
    /// known of an outage. `noted` is the read's own: in which outage its doubt was noted.
    pub(super) async fn keep(&self, began: Instant, outcome: Outcome, noted: &Arc<OnceLock<u64>>) -> Summary {
        let now = self.clock.wall_ms();
        let in_outage = lock(&self.outages.open).outage.is_some();
        self.status.read(began, &outcome, now, in_outage);
        let events = outcome.count();
        let summary = Summary { events, failed: outcome.error.is_some(), retry_after: outcome.retry_after };
        let summary = Summary { retry_after: summary.retry_after.map(|hint| hint.min(self.obeys())), ..summary };
        let quarantined = outcome.unreadable.map(|(body, why)| {
            self.status.quarantined();
            let response = UnreadableResponse { received_at: now, region: self.region.clone(), why, body };
            QuarantineRecord { response, delivered: events as u64 }
        });
        if let Some(loss) = outcome.loss {
            self.status.doubted(loss);
        }
        let is_good = outcome.error.is_none() && !outcome.is_late;
        let batches = outcome.events.into_iter().map(|events| self.batch(Content::Events(events), now)).collect();
        let read = KeptRead {
            ends_outage: is_good || events > 0,
            batches,
            quarantined,
            loss: outcome.loss,
            is_late: outcome.is_late,
            noted: Arc::clone(noted),
        };
        self.insist(read).await;
        summary
    }

    /// Marks that events may have been lost, though no read ended in doubt.
    pub(super) async fn mark(&self, loss: Loss) {
        self.status.lost(loss);
        self.insist(KeptRead { batches: vec![self.marker(loss)], ..KeptRead::default() }).await;
    }

    /// Leaves a marker for the last flush.
    pub(super) fn leave_marker(&self, loss: Loss) {
        self.status.lost(loss);
        self.pending_writes.add(&self.stream, AppendRequest::new(vec![self.marker(loss)], None));
    }

    /// Takes up the outage that an earlier run left, however long the store takes.
    pub(super) async fn recall_outage(&self) {
        let mut backoff = STORE_RETRY;
        let mut is_recalled = self.outages.turn.lock().await;
        while !*is_recalled {
            match Outage::recall(self.store(), self.stream.log.key(), &self.region).await {
                Ok(outage) => {
                    if let Some(open) = &outage {
                        self.status.outage_recalled(&open.status());
                    }
                    lock(&self.outages.open).outage = outage;
                    *is_recalled = true;
                }
                Err(error) => {
                    self.status.pause(&error, self.clock.wall_ms());
                    tokio::time::sleep(backoff.next_jittered()).await;
                }
            }
        }
        self.status.resume();
    }

    /// The poller ends: at a stop, and the next run is to go on; or the region is read no more, and what is open is
    /// told now.
    pub(super) async fn leave(&self) {
        if self.tasks.stopping().is_cancelled() {
            return self.note_failing().await;
        }
        self.recall_outage().await;
        self.insist(KeptRead { ends_outage: true, ..KeptRead::default() }).await;
    }

    /// What it is doing.
    pub(in crate::events) fn observe(&self) -> PollerStatus {
        PollerStatus { outage: self.outage_status(), ..self.status.observe(self.clock.now()) }
    }

    fn outage_status(&self) -> Option<OutageStatus> {
        lock(&self.outages.open).outage.as_ref().map(Outage::status)
    }

    fn marker(&self, loss: Loss) -> NewBatch {
        self.batch(loss.marker(), self.clock.wall_ms())
    }

    fn batch(&self, content: Content, received_at: UnixMillis) -> NewBatch {
        NewBatch { received_at, region: self.region.clone(), content }
    }

    /// Stores it, however long that takes.
    async fn insist(&self, read: KeptRead) {
        let mut unstored = Unstored { target: self, stage: Stage::Read(read) };
        // One after another: what is stored of the outage is what was decided last.
        let _turn = self.outages.turn.lock().await;
        unstored.plan();
        let mut backoff = STORE_RETRY;
        while let Stage::Request(request) = &unstored.stage {
            match self.stream.append(request).await {
                Ok(outcome) => {
                    unstored.stage = Stage::Stored;
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

    /// How a read is stored, and what is known of the outage with it. The marker of the doubts so far stands before its
    /// events, since what was lost was lost before them; a doubt of its own is about what comes behind them.
    fn plan(&self, read: KeptRead) -> Arc<AppendRequest> {
        let KeptRead { ends_outage, batches: mut events, quarantined, loss, is_late, noted } = read;
        let now = self.clock.wall_ms();
        let mut open = lock(&self.outages.open);
        let OpenOutage { outage, ended: outages_ended } = &mut *open;
        let was_open = outage.is_some();
        let (mut batches, mut ended) = (Vec::with_capacity(events.len() + 1), None);
        if let Some(over) = outage.take_if(|_| ends_outage) {
            let marker = over.marker(now);
            batches.push(self.batch(marker.content(), now));
            ended = Some(marker);
            if is_late {
                // Others may have ended in doubt after this one was sent: about what comes behind its events. Its own
                // doubt may be of an outage that was told before.
                let is_of_this = noted.get() == Some(outages_ended);
                *outage = if is_of_this { over.without_a_timeout() } else { Some(over) };
            }
            *outages_ended += u64::from(outage.is_none());
        }
        if loss.is_some() && !is_late {
            noted.get_or_init(|| *outages_ended);
        }
        match (&mut *outage, loss) {
            (Some(open), Some(loss)) => open.add(loss),
            (none, Some(loss)) => *none = Some(Outage::new(loss, now)),
            (_, None) => {}
        }
        match (ended.as_ref(), &*outage) {
            (Some(marker), None) => self.status.outage_ended(marker),
            (None, Some(open)) if !was_open => self.status.outage_began(open.status()),
            _ => {}
        }
        batches.append(&mut events);
        let note = outage.as_ref().map(Outage::note);
        let notes = if loss.is_some() || ended.is_some() { vec![(note_name(&self.region), note)] } else { Vec::new() };
        AppendRequest::with_notes(batches, quarantined, notes)
    }
}

/// What is to be stored of a read.
#[derive(Default)]
struct KeptRead {
    batches: Vec<NewBatch>,
    quarantined: Option<QuarantineRecord>,
    /// It ended in doubt.
    loss: Option<Loss>,
    /// It had been given up before, and that doubt was noted then.
    is_late: bool,
    /// In which outage: how many had ended before that.
    noted: Arc<OnceLock<u64>>,
    /// The marker of an open outage is to stand before it.
    ends_outage: bool,
}

/// What is not stored yet: left for the last flush, should the task be dropped.
struct Unstored<'a> {
    target: &'a PollTarget,
    stage: Stage,
}

enum Stage {
    Read(KeptRead),
    Request(Arc<AppendRequest>),
    Stored,
}

impl Unstored<'_> {
    /// Decides how a read is stored.
    fn plan(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Stored) {
            Stage::Read(read) => {
                let request = self.target.plan(read);
                if request.is_empty() { Stage::Stored } else { Stage::Request(request) }
            }
            planned => planned,
        };
    }
}

impl Drop for Unstored<'_> {
    fn drop(&mut self) {
        self.plan();
        if let Stage::Request(request) = &self.stage {
            let target = self.target;
            target.pending_writes.add(&target.stream, Arc::clone(request));
            // Tasks are dropped in any order: what was decided last of the outage is what stays.
            let note = lock(&target.outages.open).outage.as_ref().map(Outage::note);
            let last = AppendRequest::with_notes(Vec::new(), None, vec![(note_name(&target.region), note)]);
            target.pending_writes.add(&target.stream, last);
        }
    }
}

/// The name of a region's note of when it was read last, among those of [`NoteKind::Waiting`].
fn unread_note(region: &RegionName) -> String {
    format!("unread/{region}")
}

/// How long a read may wait for its turn within the quota; then nothing was sent, and it is tried again.
const WAIT_FOR_A_SEAT: Duration = Duration::from_secs(2);

const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// The one at hand and those given up. With egress's limit of six request timeouts there are fewer.
const READS_UNDER_WAY: usize = 8;
