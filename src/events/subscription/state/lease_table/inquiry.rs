//! What is asked of the book, and changes nothing.

use tokio::time::Instant;

use super::{EntryState, GiveUpReason, Hold, LeaseTable, OpenEntry};
use crate::events::subscription::lease_name::LeaseName;

impl LeaseTable {
    /// When the next lease or delay ends.
    pub(in crate::events) fn next_due(&self) -> Option<Instant> {
        let lease = self.due.first().map(|&(until, _)| until);
        let delay = self.later.first().map(|&(until, _)| until);
        lease.into_iter().chain(delay).min()
    }

    /// The first open entry after `at`.
    pub(in crate::events) fn first_after(&self, at: u64) -> Option<u64> {
        self.open.range(at.saturating_add(1)..).next().map(|(&at, _)| at)
    }

    /// The open entries, in order.
    pub(in crate::events) fn entries(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.keys().copied()
    }

    /// How many entries are open.
    pub(in crate::events) fn len(&self) -> usize {
        self.open.len()
    }

    /// How many of them were handed out, once or more.
    pub(in crate::events) fn tried(&self) -> usize {
        self.tried
    }

    /// How many of them are held under a lease.
    pub(in crate::events) fn held(&self) -> usize {
        self.leases.values().map(|lease| lease.held).sum()
    }

    /// Whether an entry is on its way to a plain reader: it is nobody else's to give back.
    pub(super) fn is_in_response(&self, at: u64) -> bool {
        let lease = self.holder(at).and_then(|name| self.leases.get(&name));
        lease.is_some_and(|lease| lease.hold == Hold::Response)
    }

    /// Whether something can be taken, as far as is known since the last [`LeaseTable::advance`].
    pub(in crate::events) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// At least how many entries can be taken: one for each key that is ready.
    pub(in crate::events) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How often an open entry was handed out, and until when it waits; `None` when it is not open.
    pub(in crate::events) fn known(&self, at: u64) -> Option<(u32, Option<Instant>)> {
        self.open.get(&at).map(|open| match open.state {
            EntryState::Waiting(until) => (open.attempts, until),
            EntryState::Held(_) | EntryState::GivenUp => (open.attempts, None),
        })
    }

    /// The unit that an open entry is in.
    pub(in crate::events) fn unit_of(&self, at: u64) -> Option<u64> {
        self.open.get(&at)?.unit
    }

    /// Whether nobody can have an open entry.
    pub(in crate::events) fn is_unseen(&self, at: u64) -> bool {
        self.open.get(&at).is_some_and(|open| !open.was_sent)
    }

    /// The open entries of a range that were handed out before, with how often.
    pub(in crate::events) fn attempted(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.open.range(range).filter(|(_, open)| open.attempts > 0).map(|(&at, open)| (at, open.attempts))
    }

    /// The open entries of a range that have a delay, with until when.
    pub(in crate::events) fn delayed(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, Instant)> + '_ {
        self.open.range(range).filter_map(|(&at, open)| match open.state {
            EntryState::Waiting(until) => until.map(|until| (at, until)),
            EntryState::Held(_) | EntryState::GivenUp => None,
        })
    }

    /// Whether a lease holds an open entry.
    pub(in crate::events) fn is_held_by(&self, lease: LeaseName, at: u64) -> bool {
        self.holder(at) == Some(lease)
    }

    /// The open entries that nobody holds and that were not put back by an operator.
    pub(in crate::events) fn resting(&self) -> Vec<u64> {
        let rests = |open: &OpenEntry| matches!(open.state, EntryState::Waiting(_)) && !open.alone;
        self.open.iter().filter(|(_, open)| rests(open)).map(|(&at, _)| at).collect()
    }

    /// The most attempts that an open entry has behind it.
    pub(in crate::events) fn most_attempts(&self) -> u32 {
        match self.tried {
            0 => 0,
            _ => self.open.values().map(|open| open.attempts).max().unwrap_or(0),
        }
    }

    /// The entries that are to be buried, at most `most`.
    pub(in crate::events) fn given_up(&self, most: usize) -> Vec<(u64, u32, GiveUpReason)> {
        let attempts = |at: u64| self.open.get(&at).map_or(0, |open| open.attempts);
        self.given_up.iter().take(most).map(|(&at, &reason)| (at, attempts(at), reason)).collect()
    }
}
