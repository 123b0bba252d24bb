//! The clocks everything else is given: a monotonic one, a wall clock, and the machine's time since it was booted.
//!
//! Invariants: [`Clock::now`] is tokio's clock, so a paused runtime pauses it. Durations, deadlines and quota use
//! `now`; only what is shown to people or stored on disk uses `wall`, which may jump either way at any time: nothing is
//! given up (deleted, forgotten, let out early) on its word alone. [`Clock::boot`] tells how long a stop took, whatever
//! the wall clock did meanwhile. Nothing else reads the system's clocks (a clippy rule keeps it so). Tokio's own
//! `Instant` is the clock of [`Clock::now`], paused with it: timers of a connection read it where they have no `Clock`
//! at hand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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
    System { boot: Option<u64> },
    /// A wall clock that moves with tokio's time, and by what it was told to jump: for tests that pause it.
    Anchored { at: SystemTime, began: Instant, jumped: Arc<AtomicI64> },
}

impl Clock {
    /// The clocks of the machine, for all but tests.
    #[must_use]
    pub fn system() -> Self {
        Self { wall: Wall::System { boot: boot_id() } }
    }

    /// A wall clock that shows `at` now and then moves with tokio's clock. For tests with paused time.
    #[must_use]
    pub fn anchored(at: SystemTime) -> Self {
        Self { wall: Wall::Anchored { at, began: Instant::now(), jumped: Arc::default() } }
    }

    /// Lets the wall clock of all clones jump by so many milliseconds, either way. For tests: only an anchored one
    /// does.
    pub fn jump(&self, by: i64) {
        if let Wall::Anchored { jumped, .. } = &self.wall {
            let sum = |now: i64| Some(now.saturating_add(by));
            // The sum is always given.
            let _ = jumped.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sum);
        }
    }

    /// The machine's time since it was booted, if it tells.
    #[must_use]
    pub fn boot(&self) -> Option<BootTime> {
        match &self.wall {
            Wall::System { boot } => boot.map(|boot| BootTime { boot, millis: since_boot() }),
            Wall::Anchored { began, .. } => {
                Some(BootTime { boot: 1, millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) })
            }
        }
    }

    /// Monotonic time, which a paused runtime pauses.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The time of day, which may jump.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clock")]
    pub fn wall(&self) -> SystemTime {
        match &self.wall {
            Wall::System { .. } => SystemTime::now(),
            Wall::Anchored { at, began, jumped } => {
                let (jumped, moved) = (jumped.load(Ordering::SeqCst), *at + began.elapsed());
                let by = Duration::from_millis(jumped.unsigned_abs());
                let shown = if jumped < 0 { moved.checked_sub(by) } else { moved.checked_add(by) };
                shown.unwrap_or(SystemTime::UNIX_EPOCH)
            }
        }
    }

    /// Wall time as milliseconds since 1970 UTC.
    #[must_use]
    pub fn wall_ms(&self) -> UnixMillis {
        UnixMillis::from(self.wall())
    }
}

/// A point of the machine's own time, sleep included, which no correction of the wall clock moves. Two of them can be
/// compared only when the machine was not booted between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootTime {
    pub boot: u64,
    /// Milliseconds since then.
    pub millis: u64,
}

impl BootTime {
    /// How long after `earlier` this is; `None` when that cannot be known.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        let millis = self.millis.checked_sub(earlier.millis)?;
        (self.boot == earlier.boot).then_some(Duration::from_millis(millis))
    }
}

/// What Linux calls this boot (random(4)), folded into a number.
fn boot_id() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken in")]
    Some((id >> 64) as u64 ^ id as u64)
}

#[cfg(target_os = "linux")]
fn since_boot() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = i128::from(time.tv_sec) * 1000 + i128::from(time.tv_nsec) / 1_000_000;
    u64::try_from(millis).unwrap_or(0)
}

/// Not asked: without a boot's name nothing is compared.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> u64 {
    0
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

    /// This time and `by`.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
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

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_wall_moves_no_other_clock() {
        let clock = Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_secs(10));
        let (now, boot) = (clock.now(), clock.boot().unwrap());
        clock.clone().jump(-3_000);
        assert_eq!((clock.wall_ms(), clock.now(), clock.boot()), (UnixMillis(7_000), now, Some(boot)));
        clock.jump(i64::MIN);
        assert_eq!(clock.wall_ms(), UnixMillis(0));
    }

    /// By what hyper writes `Date`.
    #[test]
    fn a_time_that_no_header_can_say_is_written_as_the_nearest_that_one_can() {
        let (hour, epoch) = (Duration::from_secs(3600), SystemTime::UNIX_EPOCH);
        assert_eq!(httpdate::fmt_http_date(epoch - hour), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(httpdate::fmt_http_date(epoch + hour), "Thu, 01 Jan 1970 01:00:00 GMT");
        let late = epoch + Duration::from_secs(1 << 40);
        assert_eq!(httpdate::fmt_http_date(late), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(UnixMillis::from(epoch - hour), UnixMillis(0));
    }

    #[test]
    fn time_since_boot_is_compared_within_one_boot_only() {
        let (early, late) = (BootTime { boot: 1, millis: 5 }, BootTime { boot: 1, millis: 7 });
        assert_eq!(late.since(early), Some(Duration::from_millis(2)));
        assert_eq!(early.since(late), None);
        assert_eq!(BootTime { boot: 2, ..late }.since(early), None);
        let (one, two) = (Clock::system().boot(), Clock::system().boot());
        assert!(one.is_none() || two.unwrap().since(one.unwrap()).is_some());
    }
}
