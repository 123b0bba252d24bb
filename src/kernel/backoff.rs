//! [`Backoff`]: how long to wait before the next try of what keeps failing.
//!
//! Invariants: the wait doubles with each failure in a row and never exceeds its bound, however many there were. It
//! only says how long: whoever waits knows what a server asked for, and when to give up.

use std::time::Duration;

use rand::RngExt as _;

/// Waits that double from the first to a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// The wait after one more failure.
    pub(crate) fn next_wait(&mut self) -> Duration {
        // 2^16 times any first wait is beyond any bound; a shift by more than 31 would panic.
        let wait = self.first.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// The same, from half of it to all of it by chance: many whom one event threw out at once do not come back as one.
    pub(crate) fn next_jittered(&mut self) -> Duration {
        self.next_wait().mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// It went well: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row, as far as a wait was asked for after each.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_double_to_a_bound_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(ms(250), ms(3000));
        let waits: Vec<_> = (0..6).map(|_| backoff.next_wait()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 3000, 3000].map(ms));
        assert_eq!(backoff.failures(), 6);
        backoff.reset();
        assert_eq!((backoff.failures(), backoff.next_wait()), (0, ms(250)));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff { failures: u32::MAX, ..Backoff::new(ms(1), Duration::MAX) };
        assert_eq!(backoff.next_wait(), ms(1 << 16));
        assert_eq!(backoff.failures(), u32::MAX);
        let mut longest = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!([longest.next_wait(), longest.next_wait()], [Duration::MAX; 2]);
    }

    #[test]
    fn by_chance_it_is_from_half_of_the_wait_to_all_of_it() {
        let mut backoff = Backoff::new(ms(100), ms(400));
        for most in [100, 200, 400, 400] {
            let wait = backoff.next_jittered();
            assert!(wait >= ms(most / 2) && wait <= ms(most), "{wait:?}");
        }
    }
}
