//! The circuit breaker of a region: one that fails is left alone for a while, and then asked once.
//!
//! Invariants: it opens after `failures` failures in a row and not before; while it is open nothing is sent but what
//! the last column lets through; one probe at a time. Pure: time and chance come in as arguments. What an exchange says
//! that began before the last change of state is not heard.
//!
//! | state   | entered when               | lets through               | left by                              | reads of events |
//! |---------|----------------------------|----------------------------|--------------------------------------|-----------------|
//! | closed  | at first; a probe was well | all                        | so many failures in a row: open      | pass            |
//! | open    | see above                  | nothing, until its time    | its time: the next order is a probe  | pass if it answers |
//! | probing | an order came then         | that one                   | its end: closed, or open for longer  | pass if it answers |
//!
//! A region that cannot be connected to holds reads of events back too: they could not be sent. One that answers, but
//! with failures, does not: the vendor overwrites what is not read, and other calls' failures say little about reads. The
//! poller has a pace of its own for its failures.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Breaker as Rule;

/// It stays open no longer than this (or `open_for`, if that is more), before jitter.
const LONGEST: Duration = Duration::from_secs(30);

/// When to ask again while the probe is under way.
const SOON: Duration = Duration::from_secs(1);

/// What an exchange said about its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It serves.
    Well,
    /// No connection could be made.
    Unreachable,
    /// It was reached, and lost, late, or failing (5xx).
    Failing,
    /// Nothing.
    Unknown,
}

/// As what an exchange goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its end counts, if nothing has changed until then.
    Usual {
        since: u64,
    },
    Probe {
        since: u64,
    },
    /// Its end does not count.
    Bystander,
}

/// A breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    rule: Rule,
    state: State,
    /// Changes of state so far.
    changes: u64,
    /// How often in a row it has opened.
    row: u32,
    /// How long it was open the last time, and when it closed.
    last: Option<(Duration, Instant)>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, reached: bool },
    Probing { reached: bool },
}

/// The state without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Closed,
    Open { retry_after: Duration },
    Probing,
}

impl Breaker {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, state: State::Closed { failures: 0 }, changes: 0, row: 0, last: None }
    }

    /// Another rule, from now on. One that turns it off closes it.
    pub(super) fn reconfigure(&mut self, rule: Rule) {
        self.rule = rule;
        if rule.failures == 0 {
            self.turn(State::Closed { failures: 0 });
        }
    }

    /// Would an order be let through now? If not: when to ask again.
    pub(super) fn look(&self, is_read: bool, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } if now >= until => Ok(()),
            State::Open { reached: true, .. } | State::Probing { reached: true } if is_read => Ok(()),
            State::Open { until, .. } => Err(until - now),
            State::Probing { .. } => Err(SOON),
        }
    }

    /// Lets an order through, or not.
    pub(super) fn enter(&mut self, is_read: bool, now: Instant) -> Result<Role, Duration> {
        self.look(is_read, now)?;
        Ok(match self.state {
            State::Closed { .. } => Role::Usual { since: self.changes },
            State::Open { until, reached } if now >= until => {
                self.turn(State::Probing { reached });
                Role::Probe { since: self.changes }
            }
            State::Open { .. } | State::Probing { .. } => Role::Bystander,
        })
    }

    /// An exchange has ended. `chance` is between 0 and 1. Says whether the state has changed.
    pub(super) fn ended(&mut self, role: Role, verdict: Verdict, now: Instant, chance: f64) -> bool {
        let before = self.changes;
        let reached = verdict == Verdict::Failing;
        match (role, self.state, verdict) {
            (Role::Bystander, ..) => {}
            (Role::Usual { since } | Role::Probe { since }, ..) if since != self.changes => {}
            (_, State::Closed { .. }, Verdict::Well) => self.state = State::Closed { failures: 0 },
            (_, State::Closed { failures }, Verdict::Unreachable | Verdict::Failing) => {
                let failures = failures.saturating_add(1);
                self.state = State::Closed { failures };
                if self.rule.failures > 0 && failures >= self.rule.failures {
                    // Hardly closed and open again: it was not well.
                    let again = self.last.is_some_and(|(open, at)| now.saturating_duration_since(at) <= open);
                    self.open(if again { self.row + 1 } else { 0 }, reached, now, chance);
                }
            }
            (_, State::Probing { .. }, Verdict::Well) => {
                self.last = Some((self.open_for(), now));
                self.turn(State::Closed { failures: 0 });
            }
            (_, State::Probing { .. }, Verdict::Unreachable | Verdict::Failing) => {
                self.open(self.row + 1, reached, now, chance);
            }
            // The next may probe at once.
            (_, State::Probing { reached }, Verdict::Unknown) => self.turn(State::Open { until: now, reached }),
            (_, State::Closed { .. } | State::Open { .. }, _) => {}
        }
        before != self.changes
    }

    pub(super) fn seen(&self, now: Instant) -> Seen {
        match self.state {
            State::Closed { .. } => Seen::Closed,
            State::Open { until, .. } => Seen::Open { retry_after: until.saturating_duration_since(now) },
            State::Probing { .. } => Seen::Probing,
        }
    }

    fn open(&mut self, row: u32, reached: bool, now: Instant, chance: f64) {
        self.row = row;
        // Jitter, so that many gateways do not probe as one.
        let time = self.open_for().mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0));
        self.turn(State::Open { until: now + time, reached });
    }

    /// Twice as long each time in a row.
    fn open_for(&self) -> Duration {
        let first = self.rule.open_for;
        first.saturating_mul(1 << self.row.min(16)).min(LONGEST.max(first))
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.changes += 1;
    }
}

#[cfg(test)]
mod tests;
