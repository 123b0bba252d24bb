//! Requests that are refused for the key they showed, or did not show: counted, and told in the log.
//!
//! Invariants: each is counted; how many lines there are is bounded, whoever knocks and however often. Nothing of what
//! was shown is in a line.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::operator::KeyFault;
use super::trace::TARGET;
use crate::kernel::conn::Conn;
use crate::kernel::metrics::{Metrics, OperatorRefusedLabels, from_the_start};
use crate::kernel::sync::lock;

/// So many lines at once, and then one in each [`PAUSE`].
const BURST: u32 = 10;
const PAUSE: Duration = Duration::from_secs(10);

/// Tells of them.
pub(super) struct RefusedKeys {
    metrics: Metrics,
    lines: Mutex<Lines>,
}

/// How many lines may be written now.
#[derive(Debug)]
struct Lines {
    free: u32,
    /// When the next one comes free.
    next: Instant,
    untold: u64,
}

impl RefusedKeys {
    /// Of a port that opens now.
    pub(super) fn new(metrics: Metrics, now: Instant) -> Self {
        from_the_start(&metrics.operator_refused, KeyFault::ALL.map(labels));
        Self { metrics, lines: Mutex::new(Lines { free: BURST, next: now, untold: 0 }) }
    }

    /// Counts one that is told of elsewhere.
    pub(super) fn count(&self, fault: KeyFault) {
        self.metrics.operator_refused.get_or_create(&labels(fault)).inc();
    }

    /// Counts one and tells of it.
    pub(super) fn tell(&self, fault: KeyFault, conn: Option<&Conn>, now: Instant) {
        self.count(fault);
        let Some(untold) = lock(&self.lines).one(now) else { return };
        let peer = conn.map(|conn| conn.peer.to_string()).unwrap_or_default();
        tracing::warn!(target: TARGET, peer, reason = fault.as_str(), untold, "an operator's request was refused");
    }
}

fn labels(fault: KeyFault) -> OperatorRefusedLabels {
    OperatorRefusedLabels { reason: fault.as_str().to_owned() }
}

impl Lines {
    /// Takes one, and says how many requests were not told of since the last. `None`: this is one more of these.
    fn one(&mut self, now: Instant) -> Option<u64> {
        while self.free < BURST && self.next <= now {
            self.free += 1;
            self.next += PAUSE;
        }
        if self.free == 0 {
            self.untold += 1;
            return None;
        }
        if self.free == BURST {
            self.next = now + PAUSE;
        }
        self.free -= 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_few_lines_and_these_say_how_many_are_missing() {
        let began = Instant::now();
        let mut lines = Lines { free: BURST, next: began, untold: 0 };
        let told = |lines: &mut Lines, at: Duration| lines.one(began + at);
        let first: Vec<_> = (0..30).filter_map(|n| told(&mut lines, Duration::from_millis(n))).collect();
        assert_eq!(first, [0; 10]);
        assert_eq!(told(&mut lines, Duration::from_secs(10)), Some(20));
        assert_eq!(told(&mut lines, Duration::from_secs(11)), None);
        assert_eq!(told(&mut lines, Duration::from_secs(20)), Some(1));
        // After an hour without any there is room for a burst again, and for no more.
        let later = Duration::from_secs(3600);
        assert_eq!((0..30).filter_map(|_| told(&mut lines, later)).count(), 10);
    }
}
