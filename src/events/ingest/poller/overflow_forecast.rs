//! [`OverflowForecast`]: when the vendor will overwrite events that nobody has read.
//!
//! The vendor keeps [`KEPT_BY_VENDOR`] events. What is known of the rate at which they come is what reads brought, and
//! over which time that had gathered: since the read before, as a rule. Where that is not known (the first read
//! ever), or says too little (a full read leaves events behind, and what came in a long pause may have been
//! overwritten), the events' own times tell: the part of the read in which they stand closest.
//!
//! Invariants: a time told is rather too short than too long. Time runs from the moment a read was sent, since all that
//! it did not bring may have come after that; it runs on whatever keeps the poller from reading, and only a read that
//! ended without a doubt sets it anew. There is no warming up: an average over less than its memory is the average of
//! what there is.

use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::clock::UnixMillis;
use crate::vendor::events::{KEPT_BY_VENDOR, MAX_IN_ONE_READ};

/// Forecasts for one stream of one region.
#[derive(Clone, Debug)]
pub(super) struct OverflowForecast {
    /// Over about two seconds: sees at once when more comes.
    present: Average,
    /// Over about half a minute.
    recent: Average,
    /// Over about five minutes: does not forget a burst before the next.
    lasting: Average,
    filling: Option<Filling>,
    /// Whether a read since then has ended in doubt: it may have taken events that nobody counted.
    is_in_doubt: bool,
}

/// What may stand in the vendor's queue.
#[derive(Clone, Copy, Debug)]
struct Filling {
    /// Since when, by this run's clock.
    since: Instant,
    /// For how long before that: in an earlier run.
    before: Duration,
    /// What the last read may have left there.
    left_behind: u32,
}

/// A read that ended without a doubt.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoodRead {
    /// When it was sent, or earlier.
    pub(super) began: Instant,
    pub(super) events: usize,
}

/// What an earlier run stored of one read.
#[derive(Clone, Debug)]
pub(super) struct StoredRead {
    pub(super) at: UnixMillis,
    pub(super) events: usize,
    /// The events' own times, in milliseconds and in any order; needed of full reads alone, and of those after a pause.
    pub(super) times: Vec<u64>,
    /// Whether a read before it, after the last that was stored, had ended in doubt.
    pub(super) follows_doubt: bool,
}

impl Default for OverflowForecast {
    fn default() -> Self {
        let [present, recent, lasting] = [Duration::from_secs(2), RECENT, Duration::from_secs(300)].map(Average::over);
        Self { present, recent, lasting, filling: None, is_in_doubt: false }
    }
}

impl OverflowForecast {
    /// Takes up what an earlier run stored, oldest first. `last_good` is when it read last without a doubt, as far as
    /// is known; `now` is the same moment by both clocks.
    pub(super) fn recall(
        &mut self,
        reads: impl IntoIterator<Item = StoredRead>,
        last_good: UnixMillis,
        now: (Instant, UnixMillis),
    ) {
        let apart = |from: UnixMillis, to: UnixMillis| Duration::from_millis(to.0.saturating_sub(from.0));
        let mut last: Option<(UnixMillis, bool)> = None;
        for StoredRead { at, events, times, follows_doubt } in reads {
            let is_full = events >= MAX_IN_ONE_READ;
            if let Some((before, had_more)) = last.replace((at, is_full)) {
                self.is_in_doubt = follows_doubt;
                self.take_in(Some((apart(before, at), had_more)), events, || times);
            }
        }
        // Since then it had read, and nothing came.
        let quiet = last.map_or(Duration::ZERO, |(last, _)| apart(last, last_good));
        self.add(0, quiet, quiet);
        let before = apart(last_good, now.1);
        // By a clock that went back nothing is known.
        self.filling = (!before.is_zero()).then_some(Filling { since: now.0, before, left_behind: 0 });
    }

    /// A read brought events whose own times, in milliseconds and in any order, are `times`.
    pub(super) fn good_read(&mut self, GoodRead { began, events }: GoodRead, times: impl FnOnce() -> Vec<u64>) {
        let is_full = events >= MAX_IN_ONE_READ;
        let known = self.filling.map(|filling| (filling.lasts(began), filling.left_behind > 0));
        let left_behind =
            if is_full { KEPT_BY_VENDOR.saturating_sub(events.try_into().unwrap_or(u32::MAX)) } else { 0 };
        self.filling = Some(Filling { since: began, before: Duration::ZERO, left_behind });
        self.take_in(known, events, times);
    }

    /// So many events came. `known` is the time since the read before, and whether that may have left some behind.
    fn take_in(&mut self, known: Option<(Duration, bool)>, events: usize, times: impl FnOnce() -> Vec<u64>) {
        let (is_full, had_more) = (events >= MAX_IN_ONE_READ, known.is_some_and(|(_, had_more)| had_more));
        let is_rest = std::mem::take(&mut self.is_in_doubt) || had_more && events < TELLING;
        if is_rest && !is_full && self.recent.seconds > 0.0 {
            return; // What is left of a time says nothing of its rate.
        }
        let by_times = || came_within(events, times(), if is_full || had_more { LEAST_OF_MANY } else { LEAST });
        let window = match known {
            Some((elapsed, _)) if events == 0 => elapsed,
            Some((_, true)) => by_times(),
            Some((elapsed, false)) if is_full || elapsed > RECENT && events >= TELLING => by_times().min(elapsed),
            Some((elapsed, false)) => elapsed,
            None if events == 0 => Duration::ZERO,
            None => by_times(),
        };
        self.add(events, window, known.map_or(window, |(elapsed, _)| elapsed));
    }

    /// A read ended in doubt: it may have taken events.
    pub(super) fn read_in_doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// Events a second, of late.
    pub(super) fn per_second(&self) -> f64 {
        self.recent.events / self.recent.seconds()
    }

    /// How long from now until events would be overwritten if none were read: the vendor's room, less what may have
    /// come since the last read. `None` while next to nothing comes (a year and more), or nothing is known.
    pub(super) fn seconds_left(&self, now: Instant) -> Option<f64> {
        let filling = self.filling?;
        let room = f64::from(KEPT_BY_VENDOR.saturating_sub(filling.left_behind));
        let rate = self.averages().map(|average| average.at_most()).into_iter().fold(0.0, f64::max);
        let left = room / rate - filling.lasts(now).as_secs_f64();
        (left < NO_OVERFLOW).then_some(left.max(0.0))
    }

    /// For how long nothing has been read without a doubt, in earlier runs too; `None` when that is not known.
    pub(super) fn unread_for(&self, now: Instant) -> Option<Duration> {
        Some(self.filling?.lasts(now))
    }

    fn add(&mut self, events: usize, window: Duration, passed: Duration) {
        for average in [&mut self.present, &mut self.recent, &mut self.lasting] {
            average.add(events, window, passed);
        }
    }

    fn averages(&self) -> [&Average; 3] {
        [&self.present, &self.recent, &self.lasting]
    }
}

impl Filling {
    fn lasts(&self, now: Instant) -> Duration {
        self.before + now.saturating_duration_since(self.since)
    }
}

/// Events in a time, the older the less of them: what is asked for is their ratio.
#[derive(Clone, Copy, Debug)]
struct Average {
    memory: Duration,
    events: f64,
    seconds: f64,
}

impl Average {
    fn over(memory: Duration) -> Self {
        Self { memory, events: 0.0, seconds: 0.0 }
    }

    /// So many came within `window`, of the time that has passed.
    fn add(&mut self, events: usize, window: Duration, passed: Duration) {
        let kept = (-passed.as_secs_f64() / self.memory.as_secs_f64()).exp();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let events = events as f64;
        self.events = self.events.mul_add(kept, events);
        self.seconds = self.seconds.mul_add(kept, window.as_secs_f64());
    }

    fn seconds(&self) -> f64 {
        self.seconds.max(0.001)
    }

    /// The highest rate that fits: at one event a second a read after 1.9 s brings one.
    fn at_most(&self) -> f64 {
        (self.events + self.events.min(1.0)) / self.seconds()
    }
}

/// Within which time so many events came, by the times of those that have one: at the pace of the quarter of them that
/// came fastest. So one time that is wrong changes little, and a burst counts, whatever time lay before it.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn came_within(count: usize, mut times: Vec<u64>, least: Duration) -> Duration {
    times.sort_unstable();
    let steps = times.len().saturating_sub(1);
    let part = if times.len() < TELLING { steps } else { steps / 4 };
    let spans = times.iter().zip(times.get(part..).unwrap_or_default()).step_by(part.max(1));
    let Some(shortest) = spans.map(|(from, to)| to - from).min().filter(|_| steps > 0) else { return LEAST };
    least.max(Duration::from_millis(shortest).min(LONGEST).mul_f64(count as f64 / part as f64))
}

/// What came in a longer time than that says little of the rate now.
const RECENT: Duration = Duration::from_secs(30);

/// Longer apart no two events are: a time may be anything.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// So many events, or more, tell a rate by their times.
const TELLING: usize = 40;

/// Where it is not known for how long events had gathered, it was no less: a gateway takes as long to start.
const LEAST: Duration = Duration::from_secs(1);

/// More than 10,000 events a second nobody could read.
const LEAST_OF_MANY: Duration = Duration::from_millis(100);

/// A year: the metric's value while no overflow is in sight, in seconds.
pub(super) const NO_OVERFLOW: f64 = 365.0 * 24.0 * 3600.0;

#[cfg(test)]
mod tests;
