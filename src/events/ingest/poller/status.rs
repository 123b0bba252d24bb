//! What a poller is doing, for the admin API, `/readyz` and the metrics.
//!
//! Invariants: one short lock; nothing here decides what the poller does.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::answer::Outcome;
use super::overflow_forecast::{GoodRead, NO_OVERFLOW, OverflowForecast, StoredRead};
use crate::events::append::AppendOutcome;
use crate::events::log::loss::Loss;
use crate::kernel::clock::UnixMillis;
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
    pub reads: u64,
    pub events: u64,
    pub duplicates: u64,
    pub late: u64,
    pub possible_losses: u64,
    pub last_read_at: Option<String>,
    pub last_error: Option<String>,
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

#[derive(Default)]
struct PollerState {
    phase: &'static str,
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

impl Status {
    pub(super) fn new(key: &LogKey, region: &RegionName, metrics: Metrics) -> Self {
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
        from_the_start(&metrics.events_possible_loss, Loss::OF_A_READ.map(lost));
        let state = PollerState { phase: "starting", ..PollerState::default() };
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
    pub(in crate::events) fn trouble(&self) -> Option<Trouble> {
        let since = lock(&self.state).paused.as_ref()?.since;
        Some(Trouble { part: Part::Events, app: Some(self.app.clone()), symptom: Symptom::ReadingStopped, since })
    }

    /// What the store has of earlier reads: the newest batches of all regions, oldest first. `stopped` is when the run
    /// before ended in order.
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

    /// A read that was sent at `began`, or after, has ended.
    pub(super) fn read(&self, began: Instant, outcome: &Outcome, wall: UnixMillis) {
        let events = outcome.count();
        let mut state = lock(&self.state);
        state.reads += 1;
        if outcome.error.is_none() || events > 0 {
            state.last_read_at = Some(wall);
        }
        match (&outcome.loss, &outcome.error) {
            // What had gathered before the reads since then says nothing of them.
            _ if outcome.is_late => {}
            (Some(_), _) => state.forecast.read_in_doubt(),
            (None, Some(_)) => {}
            (None, None) => state.forecast.good_read(GoodRead { began, events }, || times(&outcome.events)),
        }
        state.last_error.clone_from(&outcome.error);
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

    /// Events may have been lost.
    pub(super) fn lost(&self, loss: Loss) {
        let SourceLabels { app, stream, region } = self.labels.clone();
        let labels = LossLabels { app, stream, region, reason: loss.as_str().to_owned() };
        self.metrics.events_possible_loss.get_or_create(&labels).inc();
        if loss == Loss::Overflow {
            self.metrics.events_overflow_suspected.get_or_create(&self.labels).inc();
        }
        let mut state = lock(&self.state);
        state.possible_losses += 1;
        let error = state.last_error.as_deref().unwrap_or_default();
        tracing::warn!(
            app = %self.app,
            stream = self.stream,
            region = self.region,
            reason = loss.as_str(),
            error,
            "events may have been lost"
        );
    }

    /// How long from now until events would be overwritten if none were read; `None`: no such time is in sight.
    pub(super) fn seconds_to_overflow(&self, now: Instant) -> Option<f64> {
        lock(&self.state).forecast.seconds_left(now)
    }

    /// All of it. Sets the metric of the time left, too.
    pub(in crate::events) fn observe(&self, now: Instant) -> PollerStatus {
        let state = lock(&self.state);
        let left = state.forecast.seconds_left(now);
        self.metrics.events_seconds_to_overflow.get_or_create(&self.labels).set(left.unwrap_or(NO_OVERFLOW));
        PollerStatus {
            app: self.app.to_string(),
            stream: self.stream,
            region: self.region.clone(),
            state: if state.paused.is_some() { "paused" } else { state.phase },
            reads: state.reads,
            events: state.events,
            duplicates: state.duplicates,
            late: state.late,
            possible_losses: state.possible_losses,
            last_read_at: state.last_read_at.map(|at| at.to_string()),
            last_error: state.paused.as_ref().map(|paused| paused.why.clone()).or_else(|| state.last_error.clone()),
            events_per_second: state.forecast.per_second(),
            seconds_to_overflow: left,
        }
    }
}

/// The events' own times, of those that have one.
fn times(events: &[EventText]) -> Vec<u64> {
    events.iter().flat_map(EventText::iter).filter_map(|event| facts(&event).ms).collect()
}
