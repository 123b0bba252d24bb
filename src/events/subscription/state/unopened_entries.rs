//! [`UnopenedEntries`]: what an earlier run has stored of entries that are not in the lease table yet: how often they
//! were handed out, and until when they are not to be.
//!
//! Why: a restart does not read the log. An entry comes into the table when a reader looks at it, and goes on from
//! here.

use std::collections::BTreeMap;
use std::ops::Range;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(in crate::events::subscription) struct UnopenedEntries {
    attempts: BTreeMap<u64, u32>,
    delays: BTreeMap<u64, Instant>,
}

impl UnopenedEntries {
    pub(super) fn new(attempts: BTreeMap<u64, u32>, delays: BTreeMap<u64, Instant>) -> Self {
        Self { attempts, delays }
    }

    /// An entry is not open, and was handed out so often, and is to wait.
    pub(super) fn add(&mut self, at: u64, attempts: u32, delay_until: Option<Instant>) {
        if attempts > 0 {
            self.attempts.insert(at, attempts);
        }
        self.delays.extend(delay_until.map(|until| (at, until)));
    }

    /// What is known of an entry, which is opened, or of no account any more.
    pub(super) fn take(&mut self, at: u64) -> (u32, Option<Instant>) {
        (self.attempts.remove(&at).unwrap_or_default(), self.delays.remove(&at))
    }

    /// All up to `low` is settled.
    pub(super) fn settled_to(&mut self, low: u64) {
        // Looked at first: this is asked at each hand-over, and there is mostly nothing.
        if self.attempts.first_key_value().is_some_and(|(&at, _)| at <= low) {
            self.attempts = self.attempts.split_off(&(low + 1));
        }
        if self.delays.first_key_value().is_some_and(|(&at, _)| at <= low) {
            self.delays = self.delays.split_off(&(low + 1));
        }
    }

    /// Retention removed all before `earliest`: none of that is to be waited for.
    pub(super) fn cut(&mut self, earliest: u64) {
        self.delays = self.delays.split_off(&earliest);
    }

    /// None waits beyond `latest`.
    pub(super) fn wait_no_longer_than(&mut self, latest: Instant) {
        self.delays.values_mut().for_each(|until| *until = latest.min(*until));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.delays.is_empty()
    }

    /// Whether one is to wait.
    pub(super) fn has_delays(&self) -> bool {
        !self.delays.is_empty()
    }

    /// The most attempts that one has behind it.
    pub(super) fn most_attempts(&self) -> u32 {
        self.attempts.values().copied().max().unwrap_or(0)
    }

    /// Those of a range that were handed out before, with how often.
    pub(super) fn attempted(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.attempts.range(range).map(|(&at, &attempts)| (at, attempts))
    }

    /// Those of a range that are to wait, with until when.
    pub(super) fn delayed(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Instant)> + '_ {
        self.delays.range(range).map(|(&at, &until)| (at, until))
    }
}
