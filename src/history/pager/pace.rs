//! How many pages may be under way, and how fast they may be begun.
//!
//! By Little's law as many are being served, and as many stand in the quota's line, as the sums of those times grow a
//! second. So many are let run as were being served, and [`IN_LINE`] more: enough that one waits whenever a seat comes
//! free, and few enough that the client's other orders, which stand in the same line, hardly notice.
//!
//! Seats that are taken all at once come free all at once, a window later, and in between nobody has any, whoever
//! waits. So pages are begun at even distances, a little shorter than those at which they ended of late: then seats
//! come free one by one, and one who asks for a single page beside an export waits for the next, not for the next
//! window.
//!
//! Invariants: judged over whole rounds, longer than the window of any usual quota, for within a window seats may come
//! all at once. Until one has waited, the quota has seats to spare, and the number grows with each page.

use std::time::Duration;

use tokio::time::Instant;

use super::list_reader::Page;

/// At first and at least: a short list costs one page too many at most.
pub(super) const MIN_PAGES: usize = 2;

/// At most: a hundred a second that each take more than two seconds.
pub(super) const MAX_PAGES: usize = 256;

/// So many wait for seats.
const IN_LINE: usize = 2;

/// How many more for each that ends, until one has waited: this, or one for each step of the time it took.
const OPENING: usize = 3;
const OPENING_STEP: Duration = Duration::from_millis(50);

/// A page that waited no longer for its seats found them free.
const NO_WAIT: Duration = Duration::from_millis(2);

/// The distance between beginnings, in tenths of that between ends of late.
const TENTHS: u32 = 9;

/// Beginnings that were late may be made up for by so many at once.
const LATE: u32 = 2;

/// How long a round takes at least; and twice as long as a page.
const ROUND: Duration = Duration::from_secs(2);

/// The number, and what the present round has seen.
pub(super) struct Pace {
    most: usize,
    /// Between two beginnings; none before the first round is over.
    distance: Duration,
    /// When the next may begin.
    next: Option<Instant>,
    /// One has waited for its seats.
    has_waited: bool,
    began: Option<Instant>,
    ended: usize,
    /// As many ran as may.
    was_full: bool,
    served: Duration,
    waited: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            most: MIN_PAGES,
            distance: Duration::ZERO,
            next: None,
            has_waited: false,
            began: None,
            ended: 0,
            was_full: false,
            served: Duration::ZERO,
            waited: Duration::ZERO,
        }
    }
}

impl Pace {
    /// How many may run.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// How long the next is not to be begun yet.
    pub(super) fn pause(&self) -> Option<Duration> {
        let pause = self.next?.saturating_duration_since(Instant::now());
        (!pause.is_zero()).then_some(pause)
    }

    /// One was begun.
    pub(super) fn begun(&mut self) {
        if !self.distance.is_zero() {
            let now = Instant::now();
            // Who was kept from beginning for a while may catch up by a few, not by all at once: those would come free
            // as one burst again.
            let earliest = now.checked_sub(self.distance * LATE).unwrap_or(now);
            self.next = Some(self.next.unwrap_or(now).max(earliest) + self.distance);
        }
    }

    /// One of `running` has ended.
    pub(super) fn ended(&mut self, running: usize, page: &Page) {
        let now = Instant::now();
        let is_full = running >= self.most;
        // As in TCP's slow start: until a seat had to be waited for there is no measure of what the quota gives, and a
        // long list should not take many rounds to find out.
        if !self.has_waited && page.waited <= NO_WAIT {
            let more =
                usize::try_from(page.took.as_millis() / OPENING_STEP.as_millis()).unwrap_or(MAX_PAGES).max(OPENING);
            self.most = (self.most + if is_full { more } else { 0 }).min(MAX_PAGES);
            return;
        }
        self.has_waited = true;
        self.ended += 1;
        self.was_full |= is_full;
        self.served += page.took.saturating_sub(page.waited);
        self.waited += page.waited;
        let time = now.duration_since(*self.began.get_or_insert(now));
        // Those that began before the round must not weigh much.
        if time >= ROUND.max(page.took * 2) && self.ended >= self.most {
            let (most, distance) = self.judge(time);
            *self = Self { most, distance, next: self.next, has_waited: true, began: Some(now), ..Self::default() };
        }
    }

    /// The number and the distance for the next round.
    fn judge(&self, time: Duration) -> (usize, Duration) {
        let mean = |sum: Duration| sum.as_secs_f64() / time.as_secs_f64();
        let distance = time * TENTHS / (10 * u32::try_from(self.ended).unwrap_or(u32::MAX).max(1));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and bounded by MAX_PAGES"
        )]
        let served = mean(self.served).ceil().min(MAX_PAGES as f64) as usize;
        // Little's law: the mean number in the quota's line is the time waited in it a second. One there at all times
        // means that no seat lies idle for want of us.
        let (most, distance) = if mean(self.waited) >= 1.0 {
            (served + IN_LINE, distance)
        } else if self.was_full {
            // Seats lie idle: what was served is no measure of what could be.
            (self.most + (self.most / 2).max(IN_LINE), distance / 2)
        } else {
            (self.most, distance / 2)
        };
        (most.clamp(MIN_PAGES, MAX_PAGES), distance)
    }
}
