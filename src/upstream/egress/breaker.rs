//! A circuit breaker: what fails is left alone for a while, and then asked once.
//!
//! Invariants: it opens after `failures` failures in a row and not before; one probe at a time; any success closes it,
//! whoever had it and whenever it was sent: what answers now is well now. A failure is heard only from an exchange that
//! began after the last change of state and was not sent in spite of the breaker. Pure: time and chance come in as
//! arguments.
//!
//! | state   | entered when           | lets through            | left by                                        |
//! |---------|------------------------|-------------------------|------------------------------------------------|
//! | closed  | at first; any success  | all                     | so many failures in a row: open                |
//! | open    | see above              | nothing, until its time | its time: the next order is a probe; a success |
//! | probing | an order came then     | that one                | its end: closed, or open for longer; a success |
//!
//! There is one for each host ([`super::hosts`]), which counts connections that cannot be made and holds everything
//! back, and one for each endpoint of an app in a region ([`super::endpoint`]), which counts answers that fail and only
//! sends orders elsewhere.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Breaker as Rule;

/// It stays open no longer than this (or `open_for`, if that is more), before jitter.
const MAX_OPEN: Duration = Duration::from_secs(30);

/// When to ask again while the probe is under way.
const SOON: Duration = Duration::from_secs(1);

/// What an exchange said about what the breaker watches: that it serves, that it fails, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Well,
    Failed,
    Unknown,
}

/// As what an exchange goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its end counts, if nothing has changed until then.
    Usual { since: u64 },
    /// Its end decides, if nothing has changed until then.
    Probe { since: u64 },
    /// It was sent in spite of the breaker: only its success counts.
    InSpite,
}

/// A breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    rule: Rule,
    state: BreakerPhase,
    /// Changes of state so far.
    changes: u64,
    /// How often in a row it has opened.
    row: u32,
    /// How long it was open the last time, and when it closed.
    last: Option<(Duration, Instant)>,
}

#[derive(Clone, Copy, Debug)]
enum BreakerPhase {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

/// The state without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerStatus {
    Closed,
    Open { retry_after: Duration },
    Probing,
}

impl Breaker {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, state: BreakerPhase::Closed { failures: 0 }, changes: 0, row: 0, last: None }
    }

    /// Another rule, from now on. One that turns it off closes it.
    pub(super) fn reconfigure(&mut self, rule: Rule) {
        self.rule = rule;
        if rule.failures == 0 {
            self.turn(BreakerPhase::Closed { failures: 0 });
        }
    }

    /// Would an order be let through at `at`? If not: how long after that to ask again.
    pub(super) fn look(&self, at: Instant) -> Result<(), Duration> {
        match self.state {
            BreakerPhase::Closed { .. } => Ok(()),
            BreakerPhase::Open { until } if at >= until => Ok(()),
            BreakerPhase::Open { until } => Err(until - at),
            BreakerPhase::Probing => Err(SOON),
        }
    }

    /// Lets an order through, or not.
    pub(super) fn enter(&mut self, now: Instant) -> Result<Role, Duration> {
        self.look(now)?;
        if let BreakerPhase::Open { .. } = self.state {
            self.turn(BreakerPhase::Probing);
            return Ok(Role::Probe { since: self.changes });
        }
        Ok(Role::Usual { since: self.changes })
    }

    /// An exchange has ended. `chance` is between 0 and 1. Says whether the state has changed.
    pub(super) fn ended(&mut self, role: Role, verdict: Verdict, now: Instant, chance: f64) -> bool {
        let before = self.changes;
        let is_current = match role {
            Role::Usual { since } | Role::Probe { since } => since == self.changes,
            Role::InSpite => false,
        };
        match (verdict, self.state) {
            (Verdict::Well, BreakerPhase::Closed { .. }) => self.state = BreakerPhase::Closed { failures: 0 },
            (Verdict::Well, BreakerPhase::Open { .. } | BreakerPhase::Probing) => {
                self.last = Some((self.open_for(), now));
                self.turn(BreakerPhase::Closed { failures: 0 });
            }
            (Verdict::Failed | Verdict::Unknown, _) if !is_current => {}
            (Verdict::Failed, BreakerPhase::Closed { failures }) => {
                let failures = failures.saturating_add(1);
                self.state = BreakerPhase::Closed { failures };
                if self.rule.failures > 0 && failures >= self.rule.failures {
                    // Hardly closed and open again: it was not well.
                    let again = self.last.is_some_and(|(open, at)| now.saturating_duration_since(at) <= open);
                    self.open(if again { self.row + 1 } else { 0 }, now, chance);
                }
            }
            (Verdict::Failed, BreakerPhase::Probing) => self.open(self.row + 1, now, chance),
            // The next may probe at once.
            (Verdict::Unknown, BreakerPhase::Probing) => self.turn(BreakerPhase::Open { until: now }),
            (Verdict::Failed, BreakerPhase::Open { .. })
            | (Verdict::Unknown, BreakerPhase::Closed { .. } | BreakerPhase::Open { .. }) => {}
        }
        before != self.changes
    }

    pub(super) fn status(&self, now: Instant) -> BreakerStatus {
        match self.state {
            BreakerPhase::Closed { .. } => BreakerStatus::Closed,
            BreakerPhase::Open { until } => BreakerStatus::Open { retry_after: until.saturating_duration_since(now) },
            BreakerPhase::Probing => BreakerStatus::Probing,
        }
    }

    fn open(&mut self, row: u32, now: Instant, chance: f64) {
        self.row = row;
        // Jitter, so that many gateways do not probe as one.
        let time = self.open_for().mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0));
        self.turn(BreakerPhase::Open { until: now + time });
    }

    /// Twice as long each time in a row.
    fn open_for(&self) -> Duration {
        let first = self.rule.open_for;
        first.saturating_mul(1 << self.row.min(16)).min(MAX_OPEN.max(first))
    }

    fn turn(&mut self, state: BreakerPhase) {
        self.state = state;
        self.changes += 1;
    }
}

#[cfg(test)]
mod tests;
