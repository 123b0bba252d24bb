//! [`SpaceWatch`]: how much room the store has and what each log holds of it, looked at every few seconds.
//!
//! Whoever asks is told what was found last, and when: a disk that hangs holds up neither a scrape nor an operator.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{Metrics, StreamLabels};
use crate::kernel::sync::lock;
use crate::store::{Error, LogKey, Space, SpaceHistory, Store};

/// What was found.
#[derive(Clone, Debug)]
pub struct SpaceReport {
    /// When it was looked at.
    pub looked_at: UnixMillis,
    /// The store's room, or why it cannot be told.
    pub space: Result<Space, Error>,
    /// What each log holds.
    pub logs: Vec<LogShare>,
    /// How long until nothing more is read, if that can be told: see [`SpaceHistory::full_in`].
    pub full_in: Option<Duration>,
}

/// What one log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogShare {
    /// Whose it is.
    pub log: LogKey,
    /// What its entries take.
    pub bytes: u64,
    /// What they may take: `retention_bytes`.
    pub limit: u64,
}

impl SpaceReport {
    /// What all logs may take together.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.logs.iter().fold(0, |sum: u64, log| sum.saturating_add(log.limit))
    }
}

/// Looks, and remembers.
pub(super) struct SpaceWatch {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Metrics,
    seen: Mutex<SpaceSeen>,
}

#[derive(Default)]
struct SpaceSeen {
    report: Option<SpaceReport>,
    history: SpaceHistory,
    /// The logs that have series.
    shown: HashSet<LogKey>,
}

impl SpaceWatch {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock, metrics: Metrics) -> Self {
        Self { store, clock, metrics, seen: Mutex::default() }
    }

    /// What was found last; `None` before the first look.
    pub(super) fn report(&self) -> Option<SpaceReport> {
        lock(&self.seen).report.clone()
    }

    /// Looks: at these logs, which may have so many bytes each.
    pub(super) async fn look(&self, logs: impl IntoIterator<Item = (LogKey, u64)>) {
        let mut shares = Vec::new();
        for (log, limit) in logs {
            // A closed store tells of no log.
            let bytes = self.store.log_state(&log).await.map_or(0, |state| state.bytes);
            shares.push(LogShare { log, bytes, limit });
        }
        let space = self.store.space().await;
        let mut seen = lock(&self.seen);
        if let Ok(space) = &space {
            seen.history.note(self.clock.now(), *space);
        }
        let limit_left =
            shares.iter().map(|share| share.limit.saturating_sub(share.bytes)).fold(0, u64::saturating_add);
        let full_in = seen.history.full_in(limit_left).filter(|_| space.is_ok());
        let report = SpaceReport { looked_at: self.clock.wall_ms(), space, logs: shares, full_in };
        self.show(&report, &mut seen.shown);
        seen.report = Some(report);
    }

    fn show(&self, report: &SpaceReport, shown: &mut HashSet<LogKey>) {
        let (metrics, gauge) = (&self.metrics, |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX));
        // What cannot be told stays as it was: the store says by other metrics that it fails.
        if let Ok(Space { taken, used, free, reserve }) = report.space {
            metrics.store_bytes.set(gauge(taken));
            metrics.store_used.set(gauge(used));
            metrics.store_free.set(gauge(free));
            metrics.store_reserve.set(gauge(reserve));
        }
        metrics.store_limit.set(gauge(report.limit()));
        let labels =
            |LogKey { app, stream }: &LogKey| StreamLabels { app: app.to_string(), stream: stream.to_string() };
        let now: HashSet<_> = report.logs.iter().map(|share| share.log.clone()).collect();
        for gone in shown.difference(&now) {
            metrics.store_log.remove(&labels(gone));
            metrics.store_log_limit.remove(&labels(gone));
        }
        for LogShare { log, bytes, limit } in &report.logs {
            metrics.store_log.get_or_create(&labels(log)).set(gauge(*bytes));
            metrics.store_log_limit.get_or_create(&labels(log)).set(gauge(*limit));
        }
        *shown = now;
    }
}
