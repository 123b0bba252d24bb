//! The [`Engine`]: which event of an endpoint is sent when. Pure: it is told what happened and when, and says what to do.
//!
//! A *unit* is what goes out in one request, a *lane* is a stream.
//!
//! ```text
//!  add ──> waiting ──start──> under way ──finished──> done ──recorded──> (out)
//!             ^                   │ failed              ^
//!             └───────────────────┴─ too often ─> burying ─ buried
//! ```
//!
//! Invariants:
//! - No more than `max_in_flight` units are under way or done and not recorded: after a crash those come again, no others.
//! - A unit starts only when no earlier one of its lane that shares a key is still held; with `max_in_flight` of one, only
//!   when no earlier one is.
//! - A unit leaves by being delivered or buried, and in no other way.
//! - While an endpoint has too much to do, nothing starts before the time it named, or the retry schedule has if that is
//!   later; then one at a time until one arrives.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::record::Held;
use super::schedule;
use crate::clock::UnixMillis;
use crate::config::Retry;

/// What holds for an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) max_in_flight: usize,
    pub(super) max_attempts: u32,
    pub(super) retry: Retry,
}

/// What goes out in one request, `T`, and how far it is.
#[derive(Debug)]
pub(super) struct Unit<T> {
    /// The number of its last entry; it is known by that of its first.
    pub(super) last: u64,
    /// What must keep its order, see `Entry::key`.
    pub(super) keys: Vec<u64>,
    /// Tries in vain so far.
    pub(super) attempts: u32,
    pub(super) load: T,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    UnderWay,
    Burying,
    Done,
}

/// Which unit: its lane, and the number of its first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Which {
    pub(super) lane: usize,
    pub(super) first: u64,
}

/// What came of a try, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    Failed,
    /// Failed, and the endpoint has too much to do; it may have said for how long.
    SlowDown(Option<Duration>),
    /// Not tried, as far as counting goes: the endpoint wants no more, or the try was cut short by us.
    NotCounted,
}

/// What follows from a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Done,
    Again,
    /// It was tried often enough: it is to be put among the dead letters, then [`Engine::buried`].
    Bury,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Engine<T> {
    rules: Rules,
    lanes: Vec<Lane<T>>,
    /// Nothing starts before.
    quiet_until: Option<Instant>,
    /// One at a time, until one arrives.
    careful: bool,
    /// The lane whose turn it is.
    turn: usize,
}

#[derive(Debug)]
struct Lane<T> {
    units: BTreeMap<u64, Unit<T>>,
    /// Something was done or failed, and is not recorded.
    changed: bool,
    /// Nothing is wanted of it any more: what is under way ends, and that is all.
    is_closed: bool,
}

impl<T> Engine<T> {
    pub(super) fn new(rules: Rules, lanes: usize) -> Self {
        let mut engine = Self { rules, lanes: Vec::new(), quiet_until: None, careful: false, turn: 0 };
        for _ in 0..lanes {
            engine.open_lane();
        }
        engine
    }

    /// Another lane, and its number.
    pub(super) fn open_lane(&mut self) -> usize {
        self.lanes.push(Lane { units: BTreeMap::new(), changed: false, is_closed: false });
        self.lanes.len() - 1
    }

    /// Nothing of a lane is sent any more, nor recorded. What is under way ends.
    pub(super) fn close_lane(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        (lane.is_closed, lane.changed) = (true, false);
        lane.units.retain(|_, unit| matches!(unit.state, State::UnderWay | State::Burying));
    }

    /// Takes in a unit of a lane that may start from `at` on.
    pub(super) fn add(&mut self, which: Which, last: u64, keys: Vec<u64>, (attempts, at): (u32, Instant), load: T) {
        let unit = Unit { last, keys, attempts, load, state: State::Waiting(at) };
        self.lanes[which.lane].units.insert(which.first, unit);
    }

    /// Units of a lane that are not out.
    pub(super) fn held(&self, lane: usize) -> usize {
        self.lanes[lane].units.len()
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> usize {
        self.count(|state| state == State::UnderWay)
    }

    /// The unit to send now, if any; it counts as under way from here on.
    pub(super) fn start(&mut self, now: Instant) -> Option<Which> {
        if self.quiet_until.is_some_and(|until| now < until) || !self.has_room() {
            return None;
        }
        let (count, strict) = (self.lanes.len(), self.is_strict());
        for lane in (0..count).map(|n| (self.turn + n) % count) {
            let due = |&(_, at): &(u64, Instant)| at <= now;
            if let Some((first, _)) = self.lanes[lane].startable(strict).into_iter().find(due) {
                self.turn = lane + 1;
                self.set(Which { lane, first }, State::UnderWay);
                return Some(Which { lane, first });
            }
        }
        None
    }

    /// When something may start, if nothing else happens before.
    pub(super) fn wake(&self) -> Option<Instant> {
        if !self.has_room() {
            return None;
        }
        let strict = self.is_strict();
        let first = self.lanes.iter().flat_map(|lane| lane.startable(strict)).map(|(_, at)| at).min()?;
        Some(self.quiet_until.map_or(first, |until| first.max(until)))
    }

    /// The unit itself.
    pub(super) fn unit(&self, which: Which) -> Option<&Unit<T>> {
        self.lanes[which.lane].units.get(&which.first)
    }

    /// Whether a unit is about to go: it is delivered, or among the dead letters, and that is not on record yet.
    pub(super) fn is_leaving(&self, which: Which) -> bool {
        self.unit(which).is_some_and(|unit| matches!(unit.state, State::Burying | State::Done))
    }

    /// The load of a unit.
    pub(super) fn load_mut(&mut self, which: Which) -> Option<&mut T> {
        self.lanes[which.lane].units.get_mut(&which.first).map(|unit| &mut unit.load)
    }

    /// Says what came of a try. `spread` is from -1 to 1, at random.
    pub(super) fn finished(&mut self, which: Which, verdict: Verdict, now: Instant, spread: f64) -> Next {
        let (retry, max_attempts) = (self.rules.retry, self.rules.max_attempts);
        if verdict == Verdict::Delivered && self.quiet_until.is_none_or(|until| until <= now) {
            // One that was sent before the endpoint asked for quiet says nothing of it.
            (self.careful, self.quiet_until) = (false, None);
        }
        let lane = &mut self.lanes[which.lane];
        let is_closed = lane.is_closed;
        let Some(unit) = lane.units.get_mut(&which.first) else { return Next::Done };
        let asked = match verdict {
            Verdict::Delivered => {
                self.set(which, State::Done);
                return Next::Done;
            }
            Verdict::NotCounted => {
                self.set(which, State::Waiting(now));
                return Next::Again;
            }
            Verdict::Failed => None,
            Verdict::SlowDown(after) => schedule::asked(retry, after),
        };
        unit.attempts = unit.attempts.saturating_add(1);
        // The longer of both: many short waits would spend the tries that are to last for hours.
        let at = now + schedule::wait(retry, unit.attempts, spread).max(asked.unwrap_or_default());
        let is_last = unit.attempts >= max_attempts;
        if let Verdict::SlowDown(_) = verdict {
            self.careful = true;
            self.quiet_until = Some(self.quiet_until.map_or(at, |until| until.max(at)));
        }
        self.set(which, if is_last { State::Burying } else { State::Waiting(at) });
        if is_last && !is_closed { Next::Bury } else { Next::Again }
    }

    /// A unit that was started is put among the dead letters instead of being sent.
    pub(super) fn bury(&mut self, which: Which) {
        self.set(which, State::Burying);
    }

    /// Says that a unit could not be put among the dead letters. It is started again from `at` on.
    pub(super) fn not_buried(&mut self, which: Which, at: Instant) {
        self.set(which, State::Waiting(at));
    }

    /// Says that a unit is among the dead letters.
    pub(super) fn buried(&mut self, which: Which) {
        self.set(which, State::Done);
    }

    /// Whether something was done or failed in a lane since the last record of it.
    pub(super) fn has_changed(&self, lane: usize) -> bool {
        self.lanes[lane].changed
    }

    /// What of a lane is not done, for a record, and what is done: [`Engine::recorded`], once that is on stable storage.
    pub(super) fn snapshot(&mut self, lane: usize, now: (Instant, UnixMillis)) -> (Vec<Held>, Vec<Which>) {
        let mut done = Vec::new();
        let mut held = Vec::new();
        for (&first, unit) in &self.lanes[lane].units {
            let wait = match unit.state {
                State::Done => {
                    done.push(Which { lane, first });
                    continue;
                }
                State::Waiting(at) => at.saturating_duration_since(now.0),
                State::UnderWay | State::Burying => Duration::ZERO,
            };
            let due = now.1.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            held.push(Held { first, last: unit.last, attempts: unit.attempts, due });
        }
        self.lanes[lane].changed = false;
        (held, done)
    }

    /// Says that a record could not be written, or that it says something else now.
    pub(super) fn not_recorded(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        lane.changed = !lane.is_closed;
    }

    /// Until when nothing starts, because the endpoint has asked for it.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        self.quiet_until
    }

    /// The endpoint has asked for that before.
    pub(super) fn keep_quiet(&mut self, until: Instant) {
        (self.careful, self.quiet_until) = (true, Some(until));
    }

    /// Lets units out that are done, and on record as such.
    pub(super) fn recorded(&mut self, done: &[Which]) -> Vec<T> {
        let out = |which: &Which| self.lanes[which.lane].units.remove(&which.first).map(|unit| unit.load);
        done.iter().filter_map(out).collect()
    }

    /// Whether nothing is under way, being buried, or waiting to be recorded.
    pub(super) fn is_at_rest(&self) -> bool {
        self.count(|state| !matches!(state, State::Waiting(_))) == 0 && !self.lanes.iter().any(|lane| lane.changed)
    }

    /// When the first thing is tried again, for the operator.
    pub(super) fn next_try(&self, now: Instant) -> Option<Instant> {
        self.wake().filter(|at| *at > now)
    }

    /// The most tries in vain of any unit.
    pub(super) fn most_attempts(&self) -> u32 {
        self.lanes.iter().flat_map(|lane| lane.units.values()).map(|unit| unit.attempts).max().unwrap_or(0)
    }

    /// Whether the endpoint said that it has too much to do, and nothing has arrived since.
    pub(super) fn is_careful(&self) -> bool {
        self.careful
    }

    fn is_strict(&self) -> bool {
        self.rules.max_in_flight == 1
    }

    fn has_room(&self) -> bool {
        let most = if self.careful { 1 } else { self.rules.max_in_flight };
        // Burying takes a slot too: after a crash it is tried once more.
        self.count(|state| !matches!(state, State::Waiting(_))) < most
    }

    fn count(&self, what: impl Fn(State) -> bool) -> usize {
        self.lanes.iter().flat_map(|lane| lane.units.values()).filter(|unit| what(unit.state)).count()
    }

    fn set(&mut self, which: Which, state: State) {
        let lane = &mut self.lanes[which.lane];
        if lane.is_closed {
            lane.units.remove(&which.first);
        } else if let Some(unit) = lane.units.get_mut(&which.first) {
            lane.changed |= state != State::UnderWay && unit.state != state;
            unit.state = state;
        }
    }
}

impl<T> Lane<T> {
    /// The waiting units that no other keeps from starting, in order, and when they are due.
    fn startable(&self, strict: bool) -> Vec<(u64, Instant)> {
        let mut taken: HashSet<u64> = HashSet::new();
        for unit in self.units.values().filter(|unit| matches!(unit.state, State::UnderWay | State::Burying)) {
            taken.extend(&unit.keys);
        }
        let mut startable = Vec::new();
        for (&first, unit) in self.units.iter().filter(|(_, unit)| unit.state != State::Done) {
            if let State::Waiting(at) = unit.state
                && (!strict || taken.is_empty())
                && !unit.keys.iter().any(|key| taken.contains(key))
            {
                startable.push((first, at));
            }
            taken.extend(&unit.keys);
        }
        startable
    }
}

#[cfg(test)]
mod tests;
