//! How many pages may be under way.
//!
//! By Little's law as many are being served, and as many stand in the quota's line, as the sums of those times grow a second.
//! So many are let run as were being served, and [`IN_LINE`] more: enough that one waits whenever a seat comes free, and few
//! enough that the client's other orders, which stand in the same line, hardly notice.
//!
//! Invariants: judged over whole rounds, longer than the window of any usual quota, for within a window seats may come all
//! at once. Until one has waited, the quota has seats to spare, and the number grows with each page.

use std::time::Duration;

use tokio::time::Instant;

use super::Page;

/// At first and at least: a short list costs one page too many at most.
pub(super) const LEAST: usize = 2;

/// At most: a hundred a second that each take more than two seconds.
pub(super) const MOST: usize = 256;

/// So many wait for seats.
const IN_LINE: usize = 4;

/// How many more for each that ends, until one has waited: this, or one for each step of the time it took.
const OPENING: usize = 3;
const OPENING_STEP: Duration = Duration::from_millis(50);

/// A page that waited no longer for its seats found them free.
const NO_WAIT: Duration = Duration::from_millis(2);

/// How long a round takes at least; and twice as long as a page.
const ROUND: Duration = Duration::from_secs(2);

/// The number, and what the present round has seen.
pub(super) struct Pace {
    most: usize,
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
            most: LEAST,
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

    /// One of `running` has ended.
    pub(super) fn ended(&mut self, running: usize, page: &Page) {
        let now = Instant::now();
        let is_full = running >= self.most;
        if !self.has_waited && page.waited <= NO_WAIT {
            let more = usize::try_from(page.took.as_millis() / OPENING_STEP.as_millis()).unwrap_or(MOST).max(OPENING);
            self.most = (self.most + if is_full { more } else { 0 }).min(MOST);
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
            let most = self.next(time);
            *self = Self { most, has_waited: true, began: Some(now), ..Self::default() };
        }
    }

    /// The number for the next round.
    fn next(&self, time: Duration) -> usize {
        let mean = |sum: Duration| sum.as_secs_f64() / time.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and bounded by MOST")]
        let served = mean(self.served).ceil().min(MOST as f64) as usize;
        let most = match (mean(self.waited) < 1.0, self.was_full) {
            // Seats lie idle: what was served is no measure of what could be.
            (true, true) => self.most + (self.most / 2).max(IN_LINE),
            (true, false) => self.most,
            (false, _) => served + IN_LINE,
        };
        most.clamp(LEAST, MOST)
    }
}
