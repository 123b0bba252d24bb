//! The two clocks everything else is given: a monotonic one and a wall clock.
//!
//! Invariants: [`Clock::now`] is tokio's clock, so a paused runtime pauses it. Durations, deadlines and quota use
//! `now`; only what is shown to people or stored on disk uses `wall`. Nothing else in the crate reads the time (a
//! clippy rule keeps it so).

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A source of both times. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    wall: Wall,
}

#[derive(Clone, Debug)]
enum Wall {
    /// The system's clock, with its corrections.
    System,
    /// A wall clock that moves with tokio's time: for tests that pause it.
    Anchored { at: SystemTime, began: Instant },
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self { wall: Wall::System }
    }

    /// A wall clock that shows `at` now and then moves with tokio's clock. For tests with paused time.
    #[must_use]
    pub fn anchored(at: SystemTime) -> Self {
        Self { wall: Wall::Anchored { at, began: Instant::now() } }
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wall time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clock")]
    pub fn wall(&self) -> SystemTime {
        match self.wall {
            Wall::System => SystemTime::now(),
            Wall::Anchored { at, began } => at + began.elapsed(),
        }
    }

    /// Wall time as milliseconds since 1970 UTC.
    #[must_use]
    pub fn wall_ms(&self) -> UnixMillis {
        UnixMillis::from(self.wall())
    }
}

/// Milliseconds since 1970 UTC: what the vendor calls `ms` and what the log stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This time less `by`, or 1970.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// RFC 3339 in UTC, with milliseconds.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(time) => write!(f, "{time:.3}"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_anchored_wall_moves_with_paused_time() {
        let clock = Clock::anchored(SystemTime::UNIX_EPOCH);
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.wall_ms(), UnixMillis(1500));
        assert_eq!(clock.wall_ms().to_string(), "1970-01-01T00:00:01.500Z");
    }
}
