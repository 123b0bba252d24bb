//! [`AcceptPauses`]: times in which no new connections are taken, because the system gives none.
//!
//! Invariant: what is counted, what is logged and what a probe is told are of one book: the pauses that are under way.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{Metrics, SecondsTotal};
use crate::kernel::sync::lock;

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
}

/// A listener takes no connections for as long as there is one of these.
#[derive(Debug)]
pub struct AcceptPause {
    pauses: AcceptPauses,
    listen: String,
    lasted: Duration,
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
        let listen = listen.to_string();
        tracing::warn!(listen, %error, "new connections cannot be taken: pausing until they can");
        AcceptPause { pauses: self.clone(), listen, lasted: Duration::ZERO }
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
        let seconds = self.lasted.as_secs_f64();
        tracing::info!(listen = self.listen, paused_seconds = seconds, "new connections are taken again");
    }
}
