//! What a poller is doing, for the admin API, `/readyz` and the metrics.
//!
//! Invariants: one short lock; nothing here decides what the poller does.

use std::sync::Mutex;

use tokio::time::Instant;

use crate::events::append::AppendOutcome;
use crate::events::log::loss::Loss;
use crate::kernel::clock::UnixMillis;
use crate::kernel::metrics::{LossLabels, Metrics, SourceLabels};
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::sync::lock;
use crate::kernel::trouble::{Part, Symptom, Trouble};
use crate::store::{Error, LogKey};
use crate::vendor::events::KEPT_BY_VENDOR;

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
    rate: Rate,
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
        let _ = metrics.events_ingested.get_or_create_owned(&labels);
        let _ = metrics.events_duplicates.get_or_create_owned(&labels);
        let _ = metrics.events_late.get_or_create_owned(&labels);
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

    pub(super) fn read(&self, events: usize, error: Option<String>, wall: UnixMillis, now: Instant) {
        let mut state = lock(&self.state);
        state.reads += 1;
        if error.is_none() || events > 0 {
            state.last_read_at = Some(wall);
            state.rate.note(events, now);
        }
        state.last_error = error;
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
        lock(&self.state).rate.seconds_to_overflow(now)
    }

    /// All of it. Sets the metric of the time left, too.
    pub(in crate::events) fn observe(&self, now: Instant) -> PollerStatus {
        let state = lock(&self.state);
        let left = state.rate.seconds_to_overflow(now);
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
            events_per_second: state.rate.per_second,
            seconds_to_overflow: left,
        }
    }
}

/// Events a second: a moving average over about [`Rate::MEMORY`] seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    per_second: f64,
    since: Option<Instant>,
}

impl Rate {
    const MEMORY: f64 = 30.0;

    fn note(&mut self, events: usize, now: Instant) {
        // The first read says what had gathered, not since when.
        if let Some(since) = self.since.replace(now) {
            let seconds = (now - since).as_secs_f64().max(0.001);
            let weight = 1.0 - (-seconds / Self::MEMORY).exp();
            self.per_second += weight * (events as f64 / seconds - self.per_second);
        }
    }

    /// How long from now until events would be overwritten if none were read: the vendor's room, less what has come
    /// since the last read. `None` while next to nothing comes (a year and more).
    fn seconds_to_overflow(&self, now: Instant) -> Option<f64> {
        let since = (now - self.since?).as_secs_f64();
        let left = f64::from(KEPT_BY_VENDOR) / self.per_second - since;
        (left < NO_OVERFLOW).then_some(left.max(0.0))
    }
}

/// A year: the metric's value while no overflow is in sight, in seconds.
const NO_OVERFLOW: f64 = 365.0 * 24.0 * 3600.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_left_follows_the_rate_and_runs_down_while_nothing_is_read() {
        let mut rate = Rate::default();
        let mut now = Instant::now();
        assert_eq!(rate.seconds_to_overflow(now), None);
        for _ in 0..2000 {
            rate.note(20, now);
            now += Duration::from_millis(200);
        }
        let left = rate.seconds_to_overflow(now).unwrap();
        assert!((left - 19.8).abs() < 0.1, "{left}");
        assert!((rate.seconds_to_overflow(now + Duration::from_secs(10)).unwrap() - 9.8).abs() < 0.1);
        assert_eq!(rate.seconds_to_overflow(now + Duration::from_secs(60)), Some(0.0));
        for _ in 0..2000 {
            now += Duration::from_secs(1);
            rate.note(0, now);
        }
        assert_eq!(rate.seconds_to_overflow(now), None);
    }
}
