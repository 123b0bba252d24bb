//! [`AcceptPauses`]: times in which no new connections are taken, because the system gives none.
//!
//! Invariants: what is counted, what is logged and what a probe is told are of one book: the pauses that are under way.
//! Each is counted. Where descriptors are scarce and connections come and go there are a hundred in a second, so lines
//! are bounded: of those that begin within [`EVERY`] of a line, only one that lasts ([`LONG`]) has lines of its own.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{Metrics, SecondsTotal};
use crate::kernel::sync::lock;

/// How often it is said that short pauses begin.
const EVERY: Duration = Duration::from_secs(60);
/// A pause of so long is always told.
const LONG: Duration = Duration::from_secs(5);

/// The pauses of the listeners behind the same places. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AcceptPauses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: Counter,
    seconds: SecondsTotal,
    clock: Clock,
    open: Mutex<OpenPauses>,
}

#[derive(Debug, Default)]
struct OpenPauses {
    /// Of how many listeners.
    count: usize,
    /// When the first of them began.
    since: Option<UnixMillis>,
    /// When the last line about a beginning was written.
    told: Option<Instant>,
    /// How many have begun since without a line.
    untold: u64,
}

/// A listener takes no connections for as long as there is one of these.
#[derive(Debug)]
pub struct AcceptPause {
    pauses: AcceptPauses,
    listen: String,
    lasted: Duration,
    error: String,
    is_told: bool,
}

impl AcceptPauses {
    /// None yet; they are counted in the metrics of callers' connections.
    #[must_use]
    pub fn counted(metrics: &Metrics, clock: Clock) -> Self {
        Self::new(metrics.accept_pauses.clone(), metrics.accept_paused.clone(), clock)
    }

    /// None yet; they are logged and not counted.
    #[must_use]
    pub fn uncounted(clock: Clock) -> Self {
        Self::new(Counter::default(), SecondsTotal::default(), clock)
    }

    fn new(begun: Counter, seconds: SecondsTotal, clock: Clock) -> Self {
        Self(Arc::new(Inner { begun, seconds, clock, open: Mutex::default() }))
    }

    /// The listener of this address can take no more, for the reason that the system gave.
    #[must_use]
    pub fn begin(&self, listen: &impl fmt::Display, error: &std::io::Error) -> AcceptPause {
        let mut open = lock(&self.0.open);
        open.count += 1;
        open.since.get_or_insert_with(|| self.0.clock.wall_ms());
        drop(open);
        self.0.begun.inc();
        let (listen, error) = (listen.to_string(), error.to_string());
        let mut pause = AcceptPause { pauses: self.clone(), listen, lasted: Duration::ZERO, error, is_told: false };
        pause.tell();
        pause
    }

    /// Whether there may be a line now, and how many pauses have begun without one.
    fn line(&self, is_long: bool) -> Option<u64> {
        let (mut open, now) = (lock(&self.0.open), self.0.clock.now());
        if !is_long && open.told.is_some_and(|told| now < told + EVERY) {
            open.untold += 1;
            return None;
        }
        open.told = Some(now);
        // One that is told when it has lasted is among them.
        Some(std::mem::take(&mut open.untold).saturating_sub(is_long.into()))
    }

    /// Since when a listener takes none; `None` while all do.
    #[must_use]
    pub fn since(&self) -> Option<UnixMillis> {
        lock(&self.0.open).since
    }
}

impl AcceptPause {
    /// It has lasted so much longer.
    pub fn lasted(&mut self, time: Duration) {
        self.lasted += time;
        self.pauses.0.seconds.inc_by(time.as_secs_f64());
        if !self.is_told && self.lasted >= LONG {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let Some(untold) = self.pauses.line(self.lasted >= LONG) else { return };
        self.is_told = true;
        let Self { listen, error, .. } = &*self;
        tracing::warn!(listen, error, untold, "new connections cannot be taken: pausing until they can");
    }
}

impl Drop for AcceptPause {
    fn drop(&mut self) {
        let mut open = lock(&self.pauses.0.open);
        open.count -= 1;
        if open.count == 0 {
            open.since = None;
        }
        drop(open);
        if !self.is_told {
            return;
        }
        let seconds = self.lasted.as_secs_f64();
        tracing::info!(listen = self.listen, paused_seconds = seconds, "new connections are taken again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::pass;

    #[tokio::test(start_paused = true)]
    async fn each_pause_is_counted_and_few_of_many_are_told() {
        let metrics = Metrics::new();
        let pauses = AcceptPauses::counted(&metrics, Clock::system());
        let begin = || pauses.begin(&"here", &std::io::Error::from_raw_os_error(24));
        let told = (0..100).filter(|_| begin().is_told).count();
        assert_eq!((told, metrics.accept_pauses.get()), (1, 100));
        // One that lasts is told, and says how many were not; then the count begins anew.
        let mut long = begin();
        long.lasted(LONG - Duration::from_millis(1));
        assert!(!long.is_told && pauses.since().is_some());
        long.lasted(Duration::from_millis(1));
        assert!(long.is_told);
        assert_eq!(lock(&pauses.0.open).untold, 0);
        drop(long);
        assert!(!begin().is_told);
        pass(EVERY).await;
        assert!(begin().is_told);
    }
}
