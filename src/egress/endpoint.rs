//! What an endpoint of one app has answered in one region of late.
//!
//! Invariants: answers that fail (5xx but 501, lost, late) count for their own app and endpoint alone, so that what one
//! caller's requests bring about says nothing about another app's or about other things asked of the same host. They
//! send orders to another region where there is one that does better, and never hold one back. What holds orders back is
//! the vendor's own word, a 503 with `Retry-After`: until then, or until a success of an order that was sent after it,
//! one order in [`PROBE_EVERY`] is let through. Reads of events pass: they have their own pace.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, Role, Seen, Verdict};
use crate::config;
use crate::names::AppId;

/// An endpoint of an app in a region.
pub(super) struct Endpoint {
    app: AppId,
    name: &'static str,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    word: Option<Word>,
    /// The longest that it is believed.
    longest: Duration,
    /// Words so far.
    words: u64,
}

/// The vendor asked to be left alone.
#[derive(Clone, Copy, Debug)]
struct Word {
    said_at: Instant,
    pause: Duration,
    /// When one may be sent all the same.
    probe_at: Instant,
}

impl Word {
    /// What is left of it at `at` if it is believed for `longest`.
    fn left(&self, longest: Duration, at: Instant) -> Duration {
        self.pause.min(longest).saturating_sub(at.saturating_duration_since(self.said_at))
    }
}

/// As what an order goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entered {
    role: Role,
    /// Words before it.
    words: u64,
}

/// While the vendor wants to be left alone one order in so long finds out whether it still does.
const PROBE_EVERY: Duration = Duration::from_secs(5);

impl Endpoint {
    /// `longest`: the vendor's word is believed for so long.
    pub(super) fn new(app: &AppId, name: &'static str, rule: config::Breaker, longest: Duration) -> Self {
        let state = State { breaker: Breaker::new(rule), word: None, longest, words: 0 };
        Self { app: app.clone(), name, state: Mutex::new(state) }
    }

    /// Whose.
    pub(super) fn app(&self) -> &AppId {
        &self.app
    }

    /// As metrics and logs name it.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Other rules, from now on, also for what was said before.
    pub(super) fn reconfigure(&self, rule: config::Breaker, longest: Duration) {
        let mut state = self.state();
        state.breaker.reconfigure(rule);
        state.longest = longest;
    }

    /// Whether orders that may go elsewhere should.
    pub(super) fn fails(&self, at: Instant) -> bool {
        self.state().breaker.look(at).is_err()
    }

    /// What would be left at `at` of the time that the vendor asked for; `None`: an order may go out.
    pub(super) fn asked(&self, at: Instant) -> Option<Duration> {
        let state = self.state();
        let word = state.word.filter(|word| at < word.probe_at)?;
        Some(word.left(state.longest, at)).filter(|left| !left.is_zero())
    }

    /// An order goes out now, if it may.
    pub(super) fn enter(&self, is_read: bool, now: Instant) -> Option<Entered> {
        let mut state = self.state();
        let longest = state.longest;
        if let Some(word) = &mut state.word
            && !word.left(longest, now).is_zero()
            && !is_read
        {
            if now < word.probe_at {
                return None;
            }
            word.probe_at = now + PROBE_EVERY;
        }
        let role = state.breaker.enter(now).unwrap_or(Role::InSpite);
        Some(Entered { role, words: state.words })
    }

    /// The vendor asked to be left alone for so long.
    pub(super) fn ask_to_wait(&self, pause: Duration, now: Instant) {
        let mut state = self.state();
        state.words += 1;
        // A shorter wish, of an answer that was under way, does not take back a longer one.
        let before = state.word.map(|word| (word.left(state.longest, now), word.probe_at));
        let before = before.filter(|(left, _)| !left.is_zero());
        let probe_at = before.map_or(now + PROBE_EVERY, |(_, probe_at)| probe_at);
        let pause = before.map_or(pause, |(left, _)| left.max(pause));
        state.word = Some(Word { said_at: now, pause, probe_at });
    }

    /// It has answered an order as it should.
    fn forget_word(state: &mut State, entered: Entered) {
        if entered.words == state.words {
            state.word = None;
        }
    }

    /// It has ended. Says whether it began to fail, or fails no more.
    pub(super) fn ended(&self, entered: Entered, verdict: Verdict, now: Instant) -> Option<Turned> {
        let mut state = self.state();
        if verdict == Verdict::Well {
            Self::forget_word(&mut state, entered);
        }
        let breaker = &mut state.breaker;
        if !breaker.ended(entered.role, verdict, now, rand::random()) {
            return None;
        }
        match breaker.seen(now) {
            Seen::Closed => Some(Turned::Well),
            Seen::Open { retry_after } if !retry_after.is_zero() => Some(Turned::Failing),
            Seen::Open { .. } | Seen::Probing => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an endpoint has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    Well,
    Failing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> (Endpoint, Instant) {
        let app = AppId::parse("an-app").unwrap();
        (Endpoint::new(&app, "peer_messages", config::Breaker::default(), Duration::MAX), Instant::now())
    }

    #[test]
    fn while_the_vendor_wants_to_be_left_alone_one_order_in_five_seconds_finds_out() {
        let (endpoint, began) = endpoint();
        let second = Duration::from_secs(1);
        endpoint.ask_to_wait(second * 120, began);
        let mut sent = 0;
        for tenth in 0..1200 {
            let now = began + second * tenth / 10;
            if let Some(left) = endpoint.asked(now) {
                assert_eq!((left, endpoint.enter(false, now)), (began + second * 120 - now, None));
            } else {
                let entered = endpoint.enter(false, now).unwrap();
                endpoint.ended(entered, Verdict::Failed, now);
                sent += 1;
            }
            assert!(endpoint.enter(true, now).is_some(), "reads of events have a pace of their own");
        }
        assert_eq!(sent, 23);
        assert_eq!(endpoint.asked(began + second * 120), None);
    }

    #[test]
    fn its_word_is_believed_for_as_long_as_is_believed_now() {
        let (endpoint, began) = endpoint();
        let second = Duration::from_secs(1);
        endpoint.ask_to_wait(second * 3600, began);
        endpoint.reconfigure(config::Breaker::default(), second * 3);
        assert_eq!(endpoint.asked(began + second), Some(second * 2));
        assert_eq!(endpoint.asked(began + second * 3), None);
        assert!(endpoint.enter(false, began + second * 3).is_some());
    }

    #[test]
    fn a_success_after_its_word_ends_the_wait_and_one_before_it_does_not() {
        let (endpoint, now) = endpoint();
        let before = endpoint.enter(false, now).unwrap();
        endpoint.ask_to_wait(PROBE_EVERY * 100, now);
        endpoint.ended(before, Verdict::Well, now);
        assert!(endpoint.asked(now).is_some());
        let probe = endpoint.enter(false, now + PROBE_EVERY).unwrap();
        assert!(endpoint.asked(now + PROBE_EVERY).is_some());
        endpoint.ended(probe, Verdict::Well, now + PROBE_EVERY);
        assert_eq!(endpoint.asked(now + PROBE_EVERY), None);
    }
}
