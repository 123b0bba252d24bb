//! A client's `requests_per_second`: so many in any second, wherever that second begins.
//!
//! Kept as the times of the requests of the last second, which makes it exact (a bucket that fills evenly would allow
//! nearly twice as many in some seconds, and could not tell what a returned token is worth): no second holds more than
//! `rate` requests that were taken and kept, whatever was given back in between. It takes 16 bytes for each of them.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// When the requests of the last second were taken, oldest first. The rate is not part of it: a changed rate forgets
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    taken: VecDeque<Instant>,
}

/// One request taken, to be kept or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateToken(Instant);

const SECOND: Duration = Duration::from_secs(1);

impl Rate {
    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one, if nothing is given back. Nothing has changed then.
    pub(super) fn take(&mut self, rate: NonZeroU32, now: Instant) -> Result<RateToken, Duration> {
        self.forget(now);
        let rate = usize::try_from(rate.get()).unwrap_or(usize::MAX);
        // After a lowered rate more than one must pass.
        if let Some(over) = self.taken.len().checked_sub(rate)
            && let Some(oldest) = self.taken.get(over)
        {
            return Err(*oldest + SECOND - now);
        }
        self.taken.push_back(now);
        Ok(RateToken(now))
    }

    /// Gives one back that was taken for nothing.
    pub(super) fn give_back(&mut self, RateToken(at): RateToken) {
        // Those of one instant are alike.
        if let Ok(place) = self.taken.binary_search(&at) {
            self.taken.remove(place);
        }
    }

    /// Whether it is as good as new.
    pub(super) fn is_new(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.taken.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        while self.taken.front().is_some_and(|at| *at + SECOND <= now) {
            self.taken.pop_front();
        }
        if self.taken.is_empty() {
            self.taken.shrink_to(KEPT_CAPACITY);
        }
    }
}

/// Room that is kept while nothing is in it.
const KEPT_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_s_worth_at_once_and_then_as_they_grow_a_second_old() {
        let mut bucket = Rate::default();
        let now = Instant::now();
        let half = now + SECOND / 2;
        bucket.take(rate(3), now).unwrap();
        bucket.take(rate(3), half).unwrap();
        bucket.take(rate(3), half).unwrap();
        assert_eq!(bucket.take(rate(3), half), Err(SECOND / 2));
        bucket.take(rate(3), now + SECOND).unwrap();
        assert_eq!(bucket.take(rate(3), now + SECOND), Err(SECOND / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_rate_forgets_nothing() {
        let (mut bucket, now) = (Rate::default(), Instant::now());
        for ms in 0..10 {
            bucket.take(rate(10), now + Duration::from_millis(ms)).unwrap();
        }
        let later = now + Duration::from_millis(10);
        assert_eq!(bucket.take(rate(1), later), Err(SECOND - Duration::from_millis(1)), "all ten must pass");
        for _ in 0..2 {
            bucket.take(rate(12), later).unwrap();
        }
        assert!(bucket.take(rate(12), later).is_err());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Wait(u64),
        Take,
        GiveBack(prop::sample::Index),
        Keep(prop::sample::Index),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => prop_oneof![0u64..50, 0u64..2000].prop_map(Op::Wait),
            6 => Just(Op::Take),
            2 => any::<prop::sample::Index>().prop_map(Op::GiveBack),
            1 => any::<prop::sample::Index>().prop_map(Op::Keep),
        ]
    }

    properties! {
        #[test]
        fn no_second_holds_more_than_its_worth(n in 1u32..20, ops in prop::collection::vec(any_op(), 1..200)) {
            let (mut now, mut bucket) = (Instant::now(), Rate::default());
            let mut kept: Vec<Instant> = Vec::new();
            let mut open: Vec<RateToken> = Vec::new();
            for op in ops {
                match op {
                    Op::Wait(ms) => now += Duration::from_millis(ms),
                    Op::Take => {
                        bucket.forget(now);
                        let before = bucket.clone();
                        let in_the_last_second = |at: &&Instant| now - **at < SECOND;
                        let undecided: Vec<Instant> = open.iter().map(|taken| taken.0).collect();
                        let counted = kept.iter().chain(&undecided).filter(in_the_last_second).count();
                        match bucket.take(rate(n), now) {
                            Ok(taken) => {
                                prop_assert!(counted < n as usize);
                                open.push(taken);
                            }
                            Err(wait) => {
                                prop_assert_eq!(counted, n as usize, "refused only when it must be");
                                prop_assert_eq!(&before, &bucket, "a refusal takes nothing");
                                let mut later = before;
                                prop_assert!(later.take(rate(n), now + wait).is_ok(), "the wait it names is enough");
                            }
                        }
                    }
                    Op::GiveBack(index) if !open.is_empty() => bucket.give_back(open.remove(index.index(open.len()))),
                    Op::Keep(index) if !open.is_empty() => kept.push(open.remove(index.index(open.len())).0),
                    Op::GiveBack(_) | Op::Keep(_) => {}
                }
            }
            kept.extend(open.into_iter().map(|taken| taken.0));
            kept.sort_unstable();
            for window in kept.windows(n as usize + 1) {
                prop_assert!(window[n as usize] - window[0] >= SECOND);
            }
        }
    }
}
