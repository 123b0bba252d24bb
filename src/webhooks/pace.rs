//! [`Pace`]: how many requests an endpoint is sent at a time, and when the next may be. Pure: it is told what happened
//! and when, and says what follows.
//!
//! Invariants:
//! - No more than `max_in_flight` slots are taken. One is free again when what came of its request is on stable
//!   storage: after a crash those requests come again that had a slot, and no others.
//! - While an endpoint has too much to do, nothing starts before the time it named, or the retry schedule has if that
//!   is later; then one at a time until one arrives.

use std::time::Duration;

use tokio::time::Instant;

use super::schedule;
use crate::config::Retry;
use crate::events::Nack;

/// What holds for an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) max_in_flight: usize,
    pub(super) max_attempts: u32,
    pub(super) retry: Retry,
}

/// What came of a try, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    Failed,
    /// Failed, and the endpoint has too much to do; it may have said for how long.
    SlowDown(Option<Duration>),
    /// Not tried, as far as counting goes: the endpoint wants no more.
    NotCounted,
}

/// What follows from a verdict, for what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    Settle,
    /// It is to go out again.
    Again(Nack),
    /// It was tried often enough: it is to be put among the dead letters.
    Bury,
}

#[derive(Debug)]
pub(super) struct Pace {
    rules: Rules,
    /// Slots that are taken.
    taken: usize,
    quiet_until: Option<Instant>,
    /// One at a time, until one arrives.
    careful: bool,
}

impl Pace {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, taken: 0, quiet_until: None, careful: false }
    }

    /// Whether something may start now.
    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.has_room() && self.quiet_until.is_none_or(|until| until <= now)
    }

    /// When something may start that may not now, if nothing else happens before.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        self.quiet_until.filter(|&until| until > now && self.has_room())
    }

    /// Whether a slot is free.
    pub(super) fn has_room(&self) -> bool {
        self.taken < self.most()
    }

    /// How many slots there are now.
    pub(super) fn most(&self) -> usize {
        if self.careful { 1 } else { self.rules.max_in_flight }
    }

    /// A slot is taken.
    pub(super) fn started(&mut self) {
        self.taken += 1;
    }

    /// A slot is free again.
    pub(super) fn ended(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }

    /// What follows from what came of a try; `failures` is how often that failed, should this be one. `spread` is from
    /// -1 to 1, at random.
    pub(super) fn finished(&mut self, verdict: Verdict, failures: u32, now: Instant, spread: f64) -> Disposition {
        let Rules { retry, max_attempts, .. } = self.rules;
        let asked = match verdict {
            Verdict::Delivered => {
                // One that was sent before the endpoint asked for quiet says nothing of it.
                if self.quiet_until.is_none_or(|until| until <= now) {
                    (self.careful, self.quiet_until) = (false, None);
                }
                return Disposition::Settle;
            }
            Verdict::NotCounted => return Disposition::Again(Nack::Uncounted),
            Verdict::Failed => None,
            Verdict::SlowDown(after) => schedule::asked(retry, after),
        };
        // The longer of both: many short waits would spend the tries that are to last for hours.
        let wait = schedule::wait(retry, failures, spread).max(asked.unwrap_or_default());
        if let Verdict::SlowDown(_) = verdict {
            self.keep_quiet(self.quiet_until.map_or(now + wait, |until| until.max(now + wait)));
        }
        if failures >= max_attempts { Disposition::Bury } else { Disposition::Again(Nack::Failed(wait)) }
    }

    /// Until when nothing starts, because the endpoint has asked for it.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        self.quiet_until
    }

    /// The endpoint has asked for that.
    pub(super) fn keep_quiet(&mut self, until: Instant) {
        (self.careful, self.quiet_until) = (true, Some(until));
    }

    /// Whether the endpoint said that it has too much to do, and nothing has arrived since.
    pub(super) fn is_careful(&self) -> bool {
        self.careful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { initial: Duration::from_secs(5), max: Duration::from_secs(3600) };

    fn pace(max_in_flight: usize, max_attempts: u32) -> Pace {
        Pace::new(Rules { max_in_flight, max_attempts, retry: RETRY })
    }

    fn start_all(pace: &mut Pace, now: Instant) -> usize {
        let may_start = |pace: &mut Pace| pace.may_start(now).then(|| pace.started());
        std::iter::from_fn(|| may_start(pace)).count()
    }

    fn wait(seconds: u64) -> Disposition {
        Disposition::Again(Nack::Failed(Duration::from_secs(seconds)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_free_again_when_what_came_of_it_is_on_record() {
        let (mut pace, now) = (pace(2, 3), Instant::now());
        assert_eq!(start_all(&mut pace, now), 2);
        assert_eq!(pace.finished(Verdict::Delivered, 1, now, 0.0), Disposition::Settle);
        assert_eq!(start_all(&mut pace, now), 0, "not before it is on record");
        pace.ended();
        assert_eq!(start_all(&mut pace, now), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_what_was_tried_often_enough_is_to_be_buried() {
        let (mut pace, now) = (pace(1, 3), Instant::now());
        let next: Vec<Disposition> =
            (1..=3).map(|failures| pace.finished(Verdict::Failed, failures, now, 0.0)).collect();
        assert_eq!(next, [wait(5), wait(15), Disposition::Bury]);
        assert_eq!(pace.finished(Verdict::NotCounted, 3, now, 0.0), Disposition::Again(Nack::Uncounted), "cut short");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_with_too_much_to_do_is_left_alone_and_then_asked_one_at_a_time() {
        let (mut pace, now) = (pace(3, 10), Instant::now());
        assert_eq!(start_all(&mut pace, now), 3);
        assert_eq!(pace.finished(Verdict::SlowDown(Some(Duration::from_secs(30))), 1, now, 0.0), wait(30));
        assert_eq!(pace.finished(Verdict::SlowDown(None), 1, now, 0.0), wait(5));
        assert_eq!(pace.finished(Verdict::Failed, 1, now, 0.0), wait(5));
        (0..3).for_each(|_| pace.ended());
        let named = now + Duration::from_secs(30);
        assert_eq!((start_all(&mut pace, now + RETRY.initial * 2), pace.wake(now)), (0, Some(named)));
        assert!(pace.is_careful());
        assert_eq!(start_all(&mut pace, named), 1);
        assert_eq!(pace.finished(Verdict::Delivered, 1, named, 0.0), Disposition::Settle);
        pace.ended();
        assert_eq!(start_all(&mut pace, named), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longer_of_what_is_asked_for_and_the_schedule_holds_whoever_succeeds_meanwhile() {
        let (mut pace, now) = (pace(3, 10), Instant::now());
        assert_eq!(start_all(&mut pace, now), 3);
        assert_eq!(pace.finished(Verdict::SlowDown(Some(Duration::from_secs(1))), 1, now, 0.0), wait(5));
        assert_eq!(pace.quiet_until(), Some(now + RETRY.initial), "a short word spends no tries");
        // They were sent before.
        pace.finished(Verdict::Delivered, 1, now, 0.0);
        pace.finished(Verdict::SlowDown(Some(Duration::from_secs(30))), 1, now, 0.0);
        (0..3).for_each(|_| pace.ended());
        let named = now + Duration::from_secs(30);
        assert_eq!((start_all(&mut pace, named - Duration::from_millis(1)), pace.wake(now)), (0, Some(named)));
        assert_eq!(start_all(&mut pace, named), 1);
        pace.finished(Verdict::Delivered, 1, named, 0.0);
        assert!(!pace.is_careful());
    }
}
