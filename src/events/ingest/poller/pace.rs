//! When the next read is due.
//!
//! Invariants: after a full read at once (the quota alone limits it); while events flow every `poll_interval`; while
//! none do, doubling up to `poll_interval_idle`; after a failure, doubling up to [`MAX_PAUSE`] with jitter, or what the
//! vendor asked for, as far as the feed obeys. Every wait is finite.

use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use super::poll_target::Summary;

/// The longest pause between failing reads. Short, because the vendor overwrites what is not read.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// When the next read is due.
#[derive(Debug)]
pub(super) struct Pace {
    base: Instant,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    AtOnce,
    /// So many reads in a row brought nothing.
    Quiet(u32),
    /// So many reads in a row failed.
    Failed {
        times: u32,
        wait: Duration,
    },
}

impl Pace {
    /// The first read is due now.
    pub(super) fn new(now: Instant) -> Self {
        Self { base: now, step: Step::AtOnce }
    }

    /// A read that began and ended then.
    pub(super) fn note(&mut self, read: &Summary, began: Instant, ended: Instant, settings: Settings) {
        (self.base, self.step) = if read.failed {
            let times = match self.step {
                Step::Failed { times, .. } => times.saturating_add(1),
                Step::AtOnce | Step::Quiet(_) => 1,
            };
            let longest = doubled(settings.poll_interval.max(Duration::from_millis(100)), times).min(MAX_PAUSE);
            let jittered = longest.mul_f64(rand::random_range(0.5..=1.0));
            let wait = jittered.max(read.retry_after.unwrap_or_default());
            (ended, Step::Failed { times, wait })
        } else if read.is_full() {
            (ended, Step::AtOnce)
        } else if read.events > 0 {
            (began, Step::Quiet(0))
        } else {
            let times = if let Step::Quiet(times) = self.step { times.saturating_add(1) } else { 1 };
            (began, Step::Quiet(times))
        };
    }

    /// When the next read is due.
    pub(super) fn due(&self, settings: Settings) -> Instant {
        self.base
            + match self.step {
                Step::AtOnce => Duration::ZERO,
                Step::Quiet(times) => {
                    doubled(settings.poll_interval, times).min(settings.poll_interval_idle.max(settings.poll_interval))
                }
                Step::Failed { wait, .. } => wait,
            }
    }
}

fn doubled(start: Duration, times: u32) -> Duration {
    start.saturating_mul(1 << times.min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        poll_interval: Duration::from_millis(200),
        poll_interval_idle: Duration::from_secs(1),
        give_up_after: Duration::from_secs(15),
    };

    const FAILED: Summary = Summary { events: 0, failed: true, retry_after: None };

    fn waits(reads: &[Summary]) -> Vec<Duration> {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let each = reads.iter().map(|read| {
            pace.note(read, now, now, SETTINGS);
            pace.due(SETTINGS) - now
        });
        each.collect()
    }

    fn brought(events: usize) -> Summary {
        Summary { events, ..Summary::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn reads_follow_the_flow_of_events() {
        let reads = [1000, 1000, 7, 0, 0, 0, 0, 1, 0].map(brought);
        let millis: Vec<_> = waits(&reads).iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [0, 0, 200, 400, 800, 1000, 1000, 200, 400]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_within_bounds_whatever_the_vendor_asks_for() {
        for (n, wait) in waits(&[FAILED; 40]).iter().enumerate() {
            assert!(*wait >= Duration::from_millis(200) && *wait <= MAX_PAUSE, "{n}: {wait:?}");
        }
        assert!(waits(&[FAILED; 40])[39] >= MAX_PAUSE / 2);
        let asked = |seconds| Summary { retry_after: Some(Duration::from_secs(seconds)), ..FAILED };
        assert_eq!(waits(&[asked(30)]), [Duration::from_secs(30)]);
    }
}
