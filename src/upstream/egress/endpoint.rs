//! What an endpoint of one app has answered in one region of late.
//!
//! Invariants: answers that fail (5xx but 501, lost, late) count for their own app and endpoint alone, so that what one
//! caller's requests bring about says nothing about another app's or about other things asked of the same host. They
//! send orders to another region where there is one that does better, and never hold one back. What holds orders back is
//! the vendor's own word, a 503 with `Retry-After`: until then, or until a success of an order that was sent after it,
//! one order in [`PROBE_EVERY`] is let through, and none while the last of these is under way. Reads of events pass: they
//! have their own pace.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::answer_time::AnswerTime;
use super::breaker::{Breaker, Role, Seen, Verdict};
use crate::config;
use crate::kernel::clock::UnixMillis;
use crate::kernel::metrics::{Metrics, RegionEndpointLabels};
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::sync::lock;

/// An endpoint of an app in a region.
pub(super) struct Endpoint {
    app: AppId,
    name: &'static str,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    word: Option<Word>,
    /// An order that was let through in spite of a word is under way.
    probing: bool,
    /// The longest that it is believed.
    longest: Duration,
    /// Words so far.
    words: u64,
    /// What the last failure was.
    why: Option<String>,
    /// When it began to fail.
    since: Option<UnixMillis>,
    /// From the first trouble on.
    gauges: Option<Gauges>,
    answer_time: AnswerTime,
}

/// An endpoint's trouble, as metrics show it.
struct Gauges {
    failing: Gauge,
    held: Gauge<f64, AtomicU64>,
}

/// An endpoint of an app in a region that is not as it should be, for the admin API.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EndpointState {
    /// The app.
    pub app: String,
    /// As metrics and logs name it.
    pub endpoint: &'static str,
    /// Its answers fail (5xx, lost, late): other regions are asked before this one, where there are any.
    pub failing: bool,
    /// Since when it fails.
    pub since: Option<String>,
    /// What the last failure was.
    pub why: Option<String>,
    /// The vendor asked to be left alone (503 with `Retry-After`): for so many seconds more.
    pub held_seconds: Option<f64>,
    /// While it is held: how long until one order is let through to find out whether it still is; 0 while the last of
    /// these has taken longer.
    pub next_try_seconds: Option<f64>,
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

/// Of a word that is not over: how long it lasts, and how long until one order is let through all the same.
struct Left {
    left: Duration,
    next_try: Duration,
}

/// As what an order goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entered {
    role: Role,
    /// Words before it.
    words: u64,
    /// In spite of the vendor's word, to find out.
    probes: bool,
}

/// While the vendor wants to be left alone one order in so long finds out whether it still does.
const PROBE_EVERY: Duration = Duration::from_secs(5);

impl Endpoint {
    /// `longest`: the vendor's word is believed for so long.
    pub(super) fn new(app: &AppId, name: &'static str, rule: config::Breaker, longest: Duration) -> Self {
        let breaker = Breaker::new(rule);
        let state = State {
            breaker,
            word: None,
            probing: false,
            longest,
            words: 0,
            why: None,
            since: None,
            gauges: None,
            answer_time: AnswerTime::default(),
        };
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
        let word = state.word.filter(|word| state.probing || at < word.probe_at)?;
        Some(word.left(state.longest, at)).filter(|left| !left.is_zero())
    }

    /// An order goes out now, if it may.
    pub(super) fn enter(&self, is_read: bool, now: Instant) -> Option<Entered> {
        let mut state = self.state();
        let (longest, probing) = (state.longest, state.probing);
        let mut probes = false;
        if let Some(word) = &mut state.word
            && !word.left(longest, now).is_zero()
            && !is_read
        {
            if probing || now < word.probe_at {
                return None;
            }
            word.probe_at = now + PROBE_EVERY;
            probes = true;
        }
        state.probing |= probes;
        let role = state.breaker.enter(now).unwrap_or(Role::InSpite);
        Some(Entered { role, words: state.words, probes })
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

    /// It has ended, by `why` if it failed. Says whether it began to fail, or fails no more.
    pub(super) fn ended(
        &self,
        entered: Entered,
        verdict: Verdict,
        why: Option<&str>,
        (now, wall): (Instant, UnixMillis),
    ) -> Option<Turned> {
        let mut state = self.state();
        if entered.probes {
            state.probing = false;
        }
        match (verdict, why) {
            (Verdict::Well, _) => Self::forget_word(&mut state, entered),
            (Verdict::Failed, Some(why)) => state.why = Some(why.to_owned()),
            (Verdict::Failed | Verdict::Unknown, _) => {}
        }
        if !state.breaker.ended(entered.role, verdict, now, rand::random()) {
            return None;
        }
        match state.breaker.seen(now) {
            Seen::Closed => {
                state.since = None;
                Some(Turned::Well)
            }
            Seen::Open { retry_after } if !retry_after.is_zero() => {
                state.since.get_or_insert(wall);
                Some(Turned::Failing)
            }
            Seen::Open { .. } | Seen::Probing => None,
        }
    }

    /// An answer took so long.
    pub(super) fn took(&self, time: Duration) {
        self.state().answer_time.took(time);
    }

    /// Nearly all answers come within that, by those of late.
    pub(super) fn answers_within(&self) -> Duration {
        self.state().answer_time.nearly_all()
    }

    /// How it is; `None`: as it should be.
    pub(super) fn describe(&self, now: Instant) -> Option<EndpointState> {
        let state = self.state();
        let (failing, held) = state.trouble(now);
        (failing || held.is_some()).then(|| EndpointState {
            app: self.app.to_string(),
            endpoint: self.name,
            failing,
            since: state.since.filter(|_| failing).map(|since| since.to_string()),
            why: state.why.clone(),
            held_seconds: held.as_ref().map(|held| held.left.as_secs_f64()),
            next_try_seconds: held.map(|held| held.next_try.as_secs_f64()),
        })
    }

    /// Writes its gauges, if it has ever been in trouble.
    pub(super) fn show(&self, region: &RegionName, metrics: &Metrics, now: Instant) {
        let mut state = self.state();
        let (failing, held) = state.trouble(now);
        if !failing && held.is_none() && state.gauges.is_none() {
            return;
        }
        let gauges = state.gauges.get_or_insert_with(|| {
            let labels = RegionEndpointLabels {
                app: self.app.to_string(),
                region: region.to_string(),
                endpoint: self.name.to_owned(),
            };
            Gauges {
                failing: metrics.upstream_endpoint_failing.get_or_create(&labels).clone(),
                held: metrics.upstream_endpoint_held.get_or_create(&labels).clone(),
            }
        });
        gauges.failing.set(i64::from(failing));
        gauges.held.set(held.map_or(0.0, |held| held.left.as_secs_f64()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Whether it fails, and what is left of what the vendor asked for.
    fn trouble(&self, now: Instant) -> (bool, Option<Left>) {
        let held = self.word.and_then(|word| {
            let left = word.left(self.longest, now);
            let next_try = word.probe_at.saturating_duration_since(now).min(left);
            (!left.is_zero()).then_some(Left { left, next_try })
        });
        (self.breaker.seen(now) != Seen::Closed, held)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // One in its place writes them anew when they are read.
        if let Some(gauges) = &self.state().gauges {
            gauges.failing.set(0);
            gauges.held.set(0.0);
        }
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
                endpoint.ended(entered, Verdict::Failed, Some("it answered 503"), (now, UnixMillis(0)));
                let shown = endpoint.describe(now).unwrap();
                assert_eq!(shown.next_try_seconds, Some(5.0));
                sent += 1;
            }
            assert!(endpoint.enter(true, now).is_some(), "reads of events have a pace of their own");
        }
        assert_eq!(sent, 23);
        assert_eq!(endpoint.asked(began + second * 120), None);
    }

    #[test]
    fn an_order_that_finds_out_is_waited_for_before_another_does() {
        let (endpoint, began) = endpoint();
        let second = Duration::from_secs(1);
        endpoint.ask_to_wait(second * 120, began);
        let slow = endpoint.enter(false, began + second * 5).unwrap();
        for later in [6, 11, 60] {
            let now = began + second * later;
            assert_eq!((endpoint.asked(now), endpoint.enter(false, now)), (Some(second * (120 - later)), None));
            assert!(endpoint.enter(true, now).is_some(), "reads of events have a pace of their own");
        }
        // Its end is not another's.
        let read = endpoint.enter(true, began + second * 61).unwrap();
        endpoint.ended(read, Verdict::Unknown, None, (began + second * 61, UnixMillis(0)));
        assert_eq!(endpoint.enter(false, began + second * 61), None);
        endpoint.ended(slow, Verdict::Unknown, None, (began + second * 62, UnixMillis(0)));
        assert_eq!(endpoint.asked(began + second * 62), None);
        let next = endpoint.enter(false, began + second * 62).unwrap();
        // One that never ends holds nobody longer than the word.
        assert!(endpoint.asked(began + second * 119).is_some());
        assert!(endpoint.enter(false, began + second * 120).is_some());
        endpoint.ended(next, Verdict::Well, None, (began + second * 121, UnixMillis(0)));
        assert_eq!(endpoint.asked(began + second * 121), None);
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
        endpoint.ended(before, Verdict::Well, None, (now, UnixMillis(0)));
        assert!(endpoint.asked(now).is_some());
        let probe = endpoint.enter(false, now + PROBE_EVERY).unwrap();
        assert!(endpoint.asked(now + PROBE_EVERY).is_some());
        endpoint.ended(probe, Verdict::Well, None, (now + PROBE_EVERY, UnixMillis(0)));
        assert_eq!(endpoint.asked(now + PROBE_EVERY), None);
    }
}
