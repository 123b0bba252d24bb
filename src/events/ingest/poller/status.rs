//! What a poller is doing, for the admin API, `/readyz` and the metrics.
//!
//! Invariants: one short lock; nothing here decides what the poller does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{Outcome, ReadFailure};
use super::overflow_forecast::{GoodRead, NO_OVERFLOW, OverflowForecast, StoredRead};
use crate::events::append::AppendOutcome;
use crate::events::log::loss::{Loss, MarkedOutage, Marker};
use crate::events::log::outage::OutageStatus;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{LossLabels, Metrics, SourceLabels, from_the_start};
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::sync::lock;
use crate::kernel::trouble::{Part, Symptom, Trouble};
use crate::store::{Batch, Content, Error, EventText, LogKey};
use crate::vendor::events::facts;

/// What the admin API shows of a poller: one for each app, stream and region.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PollerStatus {
    pub app: String,
    pub stream: &'static str,
    pub region: String,
    pub state: &'static str,
    /// Since when it is in that state, or has been reading.
    pub since: String,
    pub reads: u64,
    /// Reads that brought nothing since the last good one.
    pub failed_reads: u64,
    pub events: u64,
    pub duplicates: u64,
    pub late: u64,
    pub possible_losses: u64,
    pub last_read_at: Option<String>,
    pub last_error: Option<String>,
    /// Seconds; since the start while there was none.
    pub last_good_read_seconds: f64,
    /// The outage that has not ended.
    pub outage: Option<OutageStatus>,
    pub events_per_second: f64,
    pub seconds_to_overflow: Option<f64>,
}

/// What a poller is doing.
pub(in crate::events) struct Status {
    app: AppId,
    stream: &'static str,
    region: String,
    metrics: Metrics,
    labels: SourceLabels,
    state: Mutex<PollerState>,
}

struct PollerState {
    phase: &'static str,
    /// When it began, or began to read again.
    since: UnixMillis,
    last_good: Instant,
    /// Reads fail.
    trouble: Option<FailingReads>,
    /// Reading is stopped.
    paused: Option<Paused>,
    reads: u64,
    events: u64,
    duplicates: u64,
    late: u64,
    possible_losses: u64,
    last_read_at: Option<UnixMillis>,
    last_error: Option<String>,
    forecast: OverflowForecast,
}

/// Why reading is stopped, and since when.
struct Paused {
    why: String,
    since: UnixMillis,
}

/// What keeps the poller from reading.
struct FailingReads {
    failure: ReadFailure,
    /// The last error that says more than that the vendor is being left alone.
    cause: String,
    /// Whether that is so: what only says so takes no other's place.
    is_cause: bool,
    /// Since it is of this kind.
    since: UnixMillis,
    /// When the first of these reads was sent, of whatever kind.
    began: Instant,
    failed_reads: u64,
    /// Of which kinds a line of the log has told.
    told: Vec<ReadFailure>,
}

impl FailingReads {
    fn state(&self) -> &'static str {
        match self.failure {
            ReadFailure::Refused | ReadFailure::NoCredential => "refused",
            ReadFailure::Failing | ReadFailure::Busy => "failing",
        }
    }
}

impl Status {
    pub(super) fn new(key: &LogKey, region: &RegionName, metrics: Metrics, clock: &Clock) -> Self {
        let (app, stream, region) = (key.app.clone(), key.stream.as_str(), region.to_string());
        let labels = SourceLabels { app: app.to_string(), stream: stream.to_owned(), region: region.clone() };
        // The series are there from the start, so that their first step is seen.
        metrics.poller_paused.get_or_create(&labels).set(0);
        let counters = [&metrics.events_ingested, &metrics.events_duplicates, &metrics.events_late];
        let rare = [&metrics.events_quarantined, &metrics.events_overflow_suspected];
        counters.into_iter().chain(rare).for_each(|counter| from_the_start(counter, [labels.clone()]));
        let lost = |loss: Loss| LossLabels {
            app: app.to_string(),
            stream: stream.to_owned(),
            region: region.clone(),
            reason: loss.as_str().to_owned(),
        };
        from_the_start(&metrics.events_possible_loss, Loss::of_a_poller().map(lost));
        let state = PollerState {
            phase: "starting",
            since: clock.wall_ms(),
            last_good: clock.now(),
            trouble: None,
            paused: None,
            reads: 0,
            events: 0,
            duplicates: 0,
            late: 0,
            possible_losses: 0,
            last_read_at: None,
            last_error: None,
            forecast: OverflowForecast::default(),
        };
        Self { app, stream, region, metrics, labels, state: Mutex::new(state) }
    }

    /// The poller goes on to its next step.
    pub(super) fn enter(&self, phase: &'static str) {
        lock(&self.state).phase = phase;
        if phase == "stopped" {
            self.resume();
        }
    }

    /// Reading is stopped: the store cannot keep events.
    pub(super) fn pause(&self, error: &Error, now: UnixMillis) {
        let mut state = lock(&self.state);
        let before = state.paused.as_ref().map(|paused| paused.since);
        state.paused = Some(Paused { why: error.to_string(), since: before.unwrap_or(now) });
        drop(state);
        if before.is_none() {
            self.metrics.poller_paused.get_or_create(&self.labels).set(1);
            tracing::error!(app = %self.app, stream = self.stream, region = self.region, %error, "reading is stopped");
        }
    }

    /// The store can keep events again.
    pub(super) fn resume(&self) {
        if lock(&self.state).paused.take().is_some() {
            self.metrics.poller_paused.get_or_create(&self.labels).set(0);
            tracing::info!(app = %self.app, stream = self.stream, region = self.region, "reading goes on");
        }
    }

    /// Why reading is stopped, if it is.
    pub(in crate::events) fn paused(&self) -> Option<String> {
        let state = lock(&self.state);
        let Paused { why, .. } = state.paused.as_ref()?;
        Some(format!("{} of {} in {} are not read: {why}", self.stream, self.app, self.region))
    }

    /// What of it fails, for probes.
    pub(in crate::events) fn trouble(&self, now: Instant) -> Option<Trouble> {
        let state = lock(&self.state);
        let is_told = |unread: &&FailingReads| {
            unread.failure != ReadFailure::NoCredential && now.saturating_duration_since(unread.began) >= TOLD_AFTER
        };
        let unread = state.trouble.as_ref().filter(is_told);
        let (symptom, since) = match (&state.paused, unread) {
            (Some(paused), _) => (Symptom::ReadingStopped, paused.since),
            (None, Some(unread)) => (Symptom::EventsNotGiven, unread.since),
            (None, None) => return None,
        };
        Some(Trouble { part: Part::Events, app: Some(self.app.clone()), symptom, since })
    }

    /// For how long nothing has been read because reads fail; `None` while they do not, or that is not known.
    pub(super) fn failing_for(&self, now: Instant) -> Option<Duration> {
        let state = lock(&self.state);
        state.trouble.as_ref().and_then(|_| state.forecast.unread_for(now))
    }

    /// What the store has of earlier reads: the newest batches of all regions, oldest first. `stopped` is when the run
    /// before ended in order, or read last before that.
    ///
    /// Events count whatever region they came from: another may have returned this one's, too.
    pub(super) fn recall(&self, batches: &[Arc<Batch>], stopped: Option<UnixMillis>, now: (Instant, UnixMillis)) {
        let (mut reads, mut last, mut follows_doubt) = (Vec::new(), None, false);
        for batch in batches {
            match &batch.content {
                Content::Events(events) => {
                    let times = times(std::slice::from_ref(events));
                    let follows_doubt = std::mem::take(&mut follows_doubt);
                    reads.push(StoredRead { at: batch.received_at, events: events.len(), times, follows_doubt });
                    last = if batch.region.as_str() == self.region { Some(batch.received_at) } else { last };
                }
                Content::PossibleLoss(_) | Content::Damaged(_) => follows_doubt = true,
            }
        }
        // Nothing is known of when a region was read of which nothing is stored.
        let Some(last) = last else { return };
        let last_good = stopped.filter(|_| !follows_doubt).map_or(last, |stopped| stopped.max(last));
        let mut state = lock(&self.state);
        state.forecast.recall(reads, last_good, now);
        if follows_doubt || stopped.is_none() {
            state.forecast.read_in_doubt();
        }
    }

    /// A read that was sent at `began`, or after, has ended; `in_outage` says whether earlier ones ended in doubt.
    pub(super) fn read(&self, began: Instant, outcome: &Outcome, wall: UnixMillis, in_outage: bool) {
        let events = outcome.count();
        let mut state = lock(&self.state);
        state.reads += 1;
        if outcome.error.is_none() || events > 0 {
            state.last_read_at = Some(wall);
        }
        if outcome.is_late {
            return; // What had gathered before the reads since then says nothing of them.
        }
        match (&outcome.error, outcome.failure) {
            (Some(error), Some(failure)) => self.unread(&mut state, (failure, error), outcome.loss, began, wall),
            _ => self.read_again(&mut state, began, wall, in_outage),
        }
        match (&outcome.loss, &outcome.error) {
            (Some(_), _) => state.forecast.read_in_doubt(),
            (None, Some(_)) => {}
            (None, None) => state.forecast.good_read(GoodRead { began, events }, || times(&outcome.events)),
        }
    }

    /// A read failed. Told once for each way in which it fails; of a doubt the outage's own line tells.
    fn unread(
        &self,
        state: &mut PollerState,
        (failure, error): (ReadFailure, &str),
        loss: Option<Loss>,
        began: Instant,
        wall: UnixMillis,
    ) {
        let is_cause = failure != ReadFailure::Busy;
        let new = || FailingReads {
            failure,
            cause: error.to_owned(),
            is_cause,
            since: wall,
            began,
            failed_reads: 0,
            told: Vec::new(),
        };
        let unread = state.trouble.get_or_insert_with(new);
        unread.failed_reads += 1;
        if is_cause && unread.failure != failure {
            // Kinds may take turns, and it is one time without reads all the same.
            let (failed_reads, began, told) = (unread.failed_reads, unread.began, std::mem::take(&mut unread.told));
            *unread = FailingReads { failed_reads, began, told, ..new() };
        }
        if is_cause || !unread.is_cause {
            (unread.cause, unread.is_cause) = (error.to_owned(), is_cause);
        }
        state.last_error =
            Some(if unread.cause == error { error.to_owned() } else { format!("{error}; before: {}", unread.cause) });
        let is_due = is_cause || began.saturating_duration_since(unread.began) >= TOLD_AFTER;
        let is_news = is_due && !unread.told.contains(&unread.failure);
        if is_news {
            unread.told.push(unread.failure);
        }
        if is_news && loss.is_none() {
            tracing::warn!(
                app = %self.app,
                stream = self.stream,
                region = self.region,
                state = unread.state(),
                error = unread.cause,
                "events cannot be read"
            );
        }
    }

    /// A read was good. Told if it had been told that they were not; of an outage its own line tells.
    fn read_again(&self, state: &mut PollerState, began: Instant, wall: UnixMillis, in_outage: bool) {
        state.last_error = None;
        state.last_good = began;
        let Some(unread) = state.trouble.take() else { return };
        state.since = wall;
        if !unread.told.is_empty() && !in_outage {
            tracing::warn!(
                app = %self.app,
                stream = self.stream,
                region = self.region,
                state = unread.state(),
                error = unread.cause,
                seconds = began.saturating_duration_since(unread.began).as_secs_f64(),
                failed_reads = unread.failed_reads,
                "events are read again"
            );
        }
    }

    /// A batch was stored.
    pub(super) fn stored(&self, AppendOutcome { stored, duplicates, late }: AppendOutcome) {
        self.metrics.events_ingested.get_or_create(&self.labels).inc_by(stored);
        self.metrics.events_duplicates.get_or_create(&self.labels).inc_by(duplicates);
        self.metrics.events_late.get_or_create(&self.labels).inc_by(late);
        let mut state = lock(&self.state);
        state.events += stored;
        state.duplicates += duplicates;
        state.late += late;
    }

    /// A response went to the quarantine.
    pub(super) fn quarantined(&self) {
        self.metrics.events_quarantined.get_or_create(&self.labels).inc();
    }

    /// A read ended in doubt.
    pub(super) fn doubted(&self, loss: Loss) {
        let SourceLabels { app, stream, region } = self.labels.clone();
        let labels = LossLabels { app, stream, region, reason: loss.as_str().to_owned() };
        self.metrics.events_possible_loss.get_or_create(&labels).inc();
        lock(&self.state).possible_losses += 1;
    }

    /// Events may have been lost, though no read ended in doubt.
    pub(super) fn lost(&self, loss: Loss) {
        self.doubted(loss);
        if loss == Loss::Overflow {
            self.metrics.events_overflow_suspected.get_or_create(&self.labels).inc();
        }
        self.warn_of_loss(loss.as_str());
    }

    /// The first read ended in doubt.
    pub(super) fn outage_began(&self, outage: OutageStatus) {
        self.warn_of_loss(outage.reasons.keys().next().map_or("", String::as_str));
    }

    /// An outage that an earlier run left goes on.
    pub(super) fn outage_recalled(&self, outage: &OutageStatus) {
        let OutageStatus { from, doubts, reasons } = outage;
        tracing::warn!(
            app = %self.app,
            stream = self.stream,
            region = self.region,
            count = doubts,
            ?reasons,
            from,
            "an outage in which events may have been lost goes on since an earlier run"
        );
    }

    fn warn_of_loss(&self, reason: &str) {
        let error = lock(&self.state).last_error.clone().unwrap_or_default();
        tracing::warn!(
            app = %self.app,
            stream = self.stream,
            region = self.region,
            reason,
            error,
            "events may have been lost"
        );
    }

    /// Events are read again, and what ended in doubt is marked.
    pub(super) fn outage_ended(&self, marker: &Marker) {
        let Some(MarkedOutage { count, reasons, from, to }) = &marker.outage else { return };
        tracing::warn!(
            app = %self.app,
            stream = self.stream,
            region = self.region,
            count,
            ?reasons,
            %from,
            %to,
            "an outage in which events may have been lost is over"
        );
    }

    /// How long from now until events would be overwritten if none were read; `None`: no such time is in sight.
    pub(super) fn seconds_to_overflow(&self, now: Instant) -> Option<f64> {
        lock(&self.state).forecast.seconds_left(now)
    }

    /// All of it but the outage. Sets the metrics of times, too.
    pub(in crate::events) fn observe(&self, now: Instant) -> PollerStatus {
        let state = lock(&self.state);
        let left = state.forecast.seconds_left(now);
        self.metrics.events_seconds_to_overflow.get_or_create(&self.labels).set(left.unwrap_or(NO_OVERFLOW));
        let last_good = now.saturating_duration_since(state.last_good).as_secs_f64();
        self.metrics.poller_last_good_read.get_or_create(&self.labels).set(last_good);
        let unread = state.trouble.as_ref().filter(|_| state.phase != "stopped");
        let (shown, since) = match (&state.paused, unread) {
            (Some(paused), _) => ("paused", paused.since),
            (None, Some(unread)) => (unread.state(), unread.since),
            (None, None) => (state.phase, state.since),
        };
        PollerStatus {
            app: self.app.to_string(),
            stream: self.stream,
            region: self.region.clone(),
            state: shown,
            since: since.to_string(),
            reads: state.reads,
            failed_reads: state.trouble.as_ref().map_or(0, |unread| unread.failed_reads),
            events: state.events,
            duplicates: state.duplicates,
            late: state.late,
            possible_losses: state.possible_losses,
            last_read_at: state.last_read_at.map(|at| at.to_string()),
            last_error: state.paused.as_ref().map(|paused| paused.why.clone()).or_else(|| state.last_error.clone()),
            last_good_read_seconds: last_good,
            outage: None,
            events_per_second: state.forecast.per_second(),
            seconds_to_overflow: left,
        }
    }
}

/// The events' own times, of those that have one.
fn times(events: &[EventText]) -> Vec<u64> {
    events.iter().flat_map(EventText::iter).filter_map(|event| facts(&event).ms).collect()
}

/// So long reads may fail before probes are told, and before a line tells what ends by itself.
const TOLD_AFTER: Duration = Duration::from_secs(10);
