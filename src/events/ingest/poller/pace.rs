//! When the next read is due.
//!
//! Invariants: after a full read at once (the quota alone limits it); while events flow every `poll_interval`; while
//! none do, doubling up to `poll_interval_idle`; after a failure, doubling up to [`MAX_PAUSE`] with jitter, or what the
//! vendor asked for, as far as the feed obeys. Every wait is finite.
//!
//! Pollers that begin together, or that the store held up together, do not stay together: each has a [`Phase`] of its
//! own. The first read is due within a `poll_interval`, and idle reads at the same point of each `poll_interval_idle`:
//! whoever is at another comes to it by a wait that is shorter than that, by half at most.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use super::poll_target::Summary;

/// The longest pause between failing reads. Short, because the vendor overwrites what is not read.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The most by which a first read is put off.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// At which point of an interval a poller reads: the same in each run, and even over all pollers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase(f64);

impl Phase {
    /// That of what is called this.
    pub(super) fn of(name: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        // Of its bits as many as make a number below 1.
        let upper_half = u32::try_from(hasher.finish() >> 32).unwrap_or_default();
        Self(f64::from(upper_half) / (f64::from(u32::MAX) + 1.0))
    }

    fn of_interval(self, interval: Duration) -> Duration {
        interval.mul_f64(self.0)
    }
}

/// When the next read is due.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    phase: Phase,
    base: Instant,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    First,
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
    /// No read was sent yet.
    pub(super) fn new(now: Instant, phase: Phase) -> Self {
        Self { began: now, phase, base: now, step: Step::First }
    }

    /// A read that began and ended then.
    pub(super) fn note(&mut self, read: &Summary, began: Instant, ended: Instant, settings: Settings) {
        (self.base, self.step) = if read.failed {
            let times = match self.step {
                Step::Failed { times, .. } => times.saturating_add(1),
                Step::First | Step::AtOnce | Step::Quiet(_) => 1,
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
        let idle = settings.poll_interval_idle.max(settings.poll_interval);
        match self.step {
            Step::First => self.base + self.phase.of_interval(settings.poll_interval.min(FIRST_WITHIN)),
            Step::AtOnce => self.base,
            Step::Quiet(times) => {
                let wait = doubled(settings.poll_interval, times);
                if wait < idle { self.base + wait } else { self.in_phase(idle) }
            }
            Step::Failed { wait, .. } => self.base + wait,
        }
    }

    /// The last instant within an interval from the last read on at which one is due by the phase; not sooner than half
    /// of the interval, so that this poller does not ask more often than every other.
    fn in_phase(&self, interval: Duration) -> Instant {
        let latest = self.base + interval;
        let since = (latest - self.began).saturating_sub(self.phase.of_interval(interval));
        let beyond = since.as_nanos().checked_rem(interval.as_nanos()).unwrap_or_default();
        let beyond = Duration::from_nanos(u64::try_from(beyond).unwrap_or_default());
        (latest - beyond).max(self.base + interval / 2)
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
        let mut pace = Pace::new(now, Phase(0.0));
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

    /// When this one reads, if all its reads are answered at once and bring nothing.
    fn idle_reads(name: usize, began: Instant, until: Duration) -> Vec<Duration> {
        let mut pace = Pace::new(began, Phase::of(&name));
        let (mut reads, mut now) = (Vec::new(), pace.due(SETTINGS));
        while now - began < until {
            reads.push(now - began);
            pace.note(&brought(0), now, now, SETTINGS);
            now = pace.due(SETTINGS);
        }
        reads
    }

    #[tokio::test(start_paused = true)]
    async fn pollers_that_begin_together_spread_over_the_interval_and_keep_to_it() {
        const POLLERS: usize = 2000;
        const SLOT: Duration = Duration::from_millis(20);
        let began = Instant::now();
        let all: Vec<_> = (0..POLLERS).map(|name| idle_reads(name, began, Duration::from_secs(20))).collect();
        let most_in_a_slot = |from: Duration, to: Duration| {
            let mut slots = std::collections::HashMap::<u128, usize>::new();
            let reads = all.iter().flatten().filter(|at| (from..to).contains(*at));
            reads.for_each(|at| *slots.entry(at.as_millis() / SLOT.as_millis()).or_default() += 1);
            slots.into_values().max().unwrap()
        };
        // An even share is 200 of the first, within 200 ms, and 40 of a second's.
        let first = most_in_a_slot(Duration::ZERO, SETTINGS.poll_interval);
        let idle = most_in_a_slot(Duration::from_secs(5), Duration::from_secs(20));
        assert!(first < 2 * 200 && idle < 2 * 40, "{first} first reads in 20 ms, {idle} idle ones");
        for reads in &all {
            assert!(reads[0] < SETTINGS.poll_interval);
            let waits: Vec<_> = reads.windows(2).map(|two| two[1] - two[0]).collect();
            assert_eq!(waits[..2], [Duration::from_millis(400), Duration::from_millis(800)]);
            for wait in &waits {
                assert!(*wait >= SETTINGS.poll_interval_idle * 2 / 5 && *wait <= SETTINGS.poll_interval_idle);
            }
            assert!(waits[4..].iter().all(|wait| *wait == SETTINGS.poll_interval_idle), "{waits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_poller_that_was_held_up_comes_back_to_its_own_time() {
        let began = Instant::now();
        let mut pace = Pace::new(began, Phase(0.3));
        let idle = SETTINGS.poll_interval_idle;
        let mut now = pace.due(SETTINGS);
        for late in [0, 0, 0, 0, 5000, 1300, 999, 1].map(Duration::from_millis) {
            let read = now + late;
            for _ in 0..4 {
                pace.note(&brought(0), read, read, SETTINGS);
            }
            now = pace.due(SETTINGS);
            assert!(now >= read + idle / 2 && now <= read + idle);
            pace.note(&brought(0), now, now, SETTINGS);
            let next = pace.due(SETTINGS);
            assert!(next >= now + idle / 2 && next <= now + idle);
            pace.note(&brought(0), next, next, SETTINGS);
            now = pace.due(SETTINGS);
            assert_eq!((now - began).as_millis() % 1000, 300, "{late:?}");
        }
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
