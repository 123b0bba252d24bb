//! [`LeaseTable`]: the entries of a subscription that are acknowledged one by one: who holds each, since when it waits,
//! and how often it was handed out.
//!
//! Invariants: an entry in the table is *open*: not acknowledged, and in one of three states: waiting, held under a
//! lease, or given up (its attempts are spent; it waits to be buried). Entries of one *key* (a user, a channel) are
//! handed out in order: only the first that waits can be taken, and not while another lease holds an entry of its key,
//! nor while an entry of it is given up, nor before its own delay is over. One lease may hold several of a key, in
//! order. A lease that has run out is ended before anything else is looked at ([`LeaseTable::advance`]), so a lease
//! that is known has time left. Entries that went out as one are a *unit* ([`Unit`]): taken together, alone, or not at
//! all.
//!
//! Each step costs the logarithm of what is open, for each entry that it moves (a unit, what it holds); what does not
//! move costs nothing.

mod active_leases;
mod entries;
mod hold;
mod key_queue;
mod lease_slot;
mod unit;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use tokio::time::Instant;

use self::active_leases::ActiveLeases;
use self::entries::{EntryState, HoldEnd, OpenEntry};
use self::key_queue::{KeyQueue, Listing, Listings};
use self::unit::Unit;
use crate::events::subscription::lease_name::LeaseName;

pub(in crate::events) use self::entries::{GiveUpReason, LeaseGrant, NewEntry, Selection, UnknownLease};
pub(in crate::events) use self::hold::Hold;
pub(in crate::events) use self::lease_slot::LeaseSlot;

/// What is open, and under which leases.
#[derive(Debug, Default)]
pub(in crate::events) struct LeaseTable {
    open: BTreeMap<u64, OpenEntry>,
    keys: HashMap<u64, KeyQueue>,
    /// What went out as one, by its number.
    units: HashMap<u64, Unit>,
    /// Entries of units that are not open yet, and of which.
    awaited: BTreeMap<u64, u64>,
    /// Keys whose first waiting entry, or the unit that it is in, can be taken, now or later.
    listings: Listings,
    leases: ActiveLeases,
    given_up: BTreeMap<u64, GiveUpReason>,
    /// How many open entries were handed out before.
    tried: usize,
}

impl LeaseTable {
    /// Takes in entries that are new to the table, to wait.
    pub(in crate::events) fn admit(&mut self, entries: impl IntoIterator<Item = NewEntry>, now: Instant) {
        for NewEntry { at, key, attempts, delay_until, alone } in entries {
            if self.open.contains_key(&at) {
                continue;
            }
            self.tried += usize::from(attempts > 0);
            let state = EntryState::Waiting(delay_until.filter(|&until| until > now));
            let unit = self.awaited.remove(&at);
            self.open.insert(at, OpenEntry { key, attempts, was_sent: attempts > 0, unit, alone, state });
            if let Some(unit) = unit {
                self.units.entry(unit).or_default().opened(at);
            }
            self.keys.entry(key).or_default().wait((unit.unwrap_or(at), at));
            self.list(key, now);
        }
    }

    /// Takes up to `limit` entries that can be had now, oldest first; or a unit, whole.
    pub(in crate::events) fn take(&mut self, limit: usize, hold: Hold, now: Instant) -> Option<LeaseGrant> {
        self.advance(now);
        self.listings.ready()?;
        let lease = LeaseName::random();
        let (mut entries, mut touched) = (Vec::new(), Vec::new());
        while entries.len() < limit
            && let Some((at, id)) = self.listings.ready()
        {
            let (Some(key), first) = (self.keys.get_mut(&id), self.open.get(&at)) else { break };
            let unit = key.waiting.front().and_then(|(_, front)| self.open.get(front)?.unit);
            let goes_alone = unit.is_some() || (hold.unites() && first.is_some_and(OpenEntry::goes_alone));
            // What goes out as one gets no company: its receiver knows it by an id that is made of its entries.
            if goes_alone && !entries.is_empty() {
                break;
            }
            if let Some(unit) = unit {
                self.take_unit(unit, lease, hold, &mut entries, &mut touched);
                break;
            }
            self.listings.unlist(Listing::Ready(at), id);
            key.waiting.pop_front();
            key.listed = None;
            let Some(open) = self.open.get_mut(&at) else { continue };
            if open.attempts >= hold.max_attempts() {
                // An earlier run handed it out for the last time, and ended before its lease did.
                open.state = EntryState::GivenUp;
                key.given_up += 1;
                self.given_up.insert(at, GiveUpReason::RanOut);
                continue;
            }
            self.tried += open.hold(lease, hold);
            entries.push((at, open.attempts));
            if key.holder.replace(lease).is_none() {
                touched.push(id);
            }
            key.held += 1;
            // The next of the key can follow it under the same lease.
            if let Some(&(_, next)) = key.waiting.front()
                && self.open.get(&next).is_some_and(|open| open.unit.is_none() && !open.is_delayed(now))
            {
                key.listed = Some(Listing::Ready(next));
                self.listings.enlist(Listing::Ready(next), id);
            }
            if goes_alone {
                break;
            }
        }
        // Their keys have a holder now: none of them is to be had until that lets go.
        touched.into_iter().for_each(|key| self.list(key, now));
        if entries.is_empty() {
            return None;
        }
        let numbers = entries.iter().map(|&(at, _)| at).collect();
        let over = self.leases.begin(lease, numbers, hold);
        Some(LeaseGrant { lease, entries, over })
    }

    /// Settles entries: all that a lease holds, or these. Returns those that were open until now. An entry that waits
    /// after a lease that ran out can still be settled by its number; a lease that was settled before has nothing left.
    ///
    /// # Errors
    /// When the lease is not known.
    pub(in crate::events) fn settle(&mut self, which: &Selection, now: Instant) -> Result<Vec<u64>, UnknownLease> {
        let mut entries = self.named(which, now)?;
        entries.retain(|&at| self.remove(at, now));
        Ok(entries)
    }

    /// Gives entries back, not to be handed out again before `delay_until`. What was taken to go out as one is a unit
    /// from now on. Returns those that were held until now.
    ///
    /// # Errors
    /// When the lease is not known.
    pub(in crate::events) fn give_back(
        &mut self,
        which: &Selection,
        delay_until: Option<Instant>,
        now: Instant,
    ) -> Result<Vec<u64>, UnknownLease> {
        let mut entries = self.named(which, now)?;
        match which {
            Selection::Lease(_) => {
                // Before they wait again: another read could take a part of them.
                self.unite(&entries);
            }
            Selection::Entries(_) => entries.retain(|&at| !self.is_in_response(at)),
        }
        entries.retain(|&at| self.put_back(at, delay_until, HoldEnd::Failed(GiveUpReason::GivenBack), now));
        Ok(entries)
    }

    /// Gives back what a lease holds, though it was no attempt. What was taken to go out as one is a unit from now on:
    /// it may have arrived. Returns what was held until now.
    ///
    /// # Errors
    /// When the lease is not known.
    pub(in crate::events) fn give_back_uncounted(
        &mut self,
        lease: LeaseName,
        delay_until: Option<Instant>,
        now: Instant,
    ) -> Result<Vec<u64>, UnknownLease> {
        let mut entries = self.named(&Selection::Lease(lease), now)?;
        self.unite(&entries);
        entries.retain(|&at| self.put_back(at, delay_until, HoldEnd::Unsent, now));
        Ok(entries)
    }

    /// Lets leases run until then. One that is named by its entries is not shortened: another may hold them by now.
    /// Returns how many entries they hold.
    ///
    /// # Errors
    /// When the lease is not known.
    pub(in crate::events) fn extend(
        &mut self,
        which: &Selection,
        until: Instant,
        now: Instant,
    ) -> Result<usize, UnknownLease> {
        let entries = self.named(which, now)?;
        let holders: HashSet<_> = entries.iter().filter_map(|at| self.holder(*at)).collect();
        let mut held = 0;
        for name in holders {
            held += self.leases.extend(name, until, matches!(which, Selection::Entries(_)));
        }
        Ok(held)
    }

    /// The response with these entries did not reach its reader: they wait again, and that was no attempt.
    pub(in crate::events) fn release(&mut self, lease: LeaseName, now: Instant) {
        for at in self.held_by(lease) {
            self.put_back(at, None, HoldEnd::Unsent, now);
        }
    }

    /// As [`LeaseTable::release`], for these of a lease's entries.
    pub(in crate::events) fn release_some(&mut self, lease: LeaseName, entries: &[u64], now: Instant) {
        for &at in entries {
            if self.holder(at) == Some(lease) {
                self.put_back(at, None, HoldEnd::Unsent, now);
            }
        }
    }

    /// Ends the leases and delays that are over.
    pub(in crate::events) fn advance(&mut self, now: Instant) {
        while let Some((until, lease)) = self.leases.first_due()
            && until <= now
        {
            for at in self.held_by(lease) {
                self.put_back(at, None, HoldEnd::Failed(GiveUpReason::RanOut), now);
            }
            // Putting back its last entry ended it. Were it to hold nothing, this loop would not end.
            self.leases.not_due((until, lease));
        }
        while let Some((until, key)) = self.listings.later()
            && until <= now
        {
            self.listings.unlist(Listing::Later(until), key);
            self.list(key, now);
        }
    }

    /// Ends all leases and forgets all entries.
    pub(in crate::events) fn clear(&mut self) {
        self.leases.end_all();
        *self = Self::default();
    }

    /// Takes out the entries before `earliest` that nobody holds: they are gone. Returns them, in order.
    pub(in crate::events) fn cut(&mut self, earliest: u64, now: Instant) -> Vec<u64> {
        // Who holds one has its text, and may acknowledge it still.
        let is_gone = |open: &OpenEntry| !matches!(open.state, EntryState::Held(_));
        let gone: Vec<u64> = self.open.range(..earliest).filter(|(_, open)| is_gone(open)).map(|(&at, _)| at).collect();
        gone.iter().for_each(|&at| {
            self.remove(at, now);
        });
        gone
    }

    /// Takes one entry out, whatever its state. Says whether it was open.
    pub(in crate::events) fn remove(&mut self, at: u64, now: Instant) -> bool {
        let Some(OpenEntry { key: id, attempts, state, unit, .. }) = self.open.remove(&at) else { return false };
        self.tried -= usize::from(attempts > 0);
        if let Some(key) = self.keys.get_mut(&id) {
            match state {
                EntryState::Waiting(_) => key.forget((unit.unwrap_or(at), at)),
                EntryState::Held(_) => key.let_go(),
                EntryState::GivenUp => key.given_up -= 1,
            }
        }
        match state {
            EntryState::Waiting(_) => {}
            EntryState::Held(lease) => self.leases.let_go(lease, true),
            EntryState::GivenUp => {
                self.given_up.remove(&at);
            }
        }
        self.list(id, now);
        if let Some(unit) = unit {
            self.leave_unit(unit, at, now);
        }
        true
    }

    /// Ends the hold on an entry. Says whether it was held.
    fn put_back(&mut self, at: u64, delay_until: Option<Instant>, back: HoldEnd, now: Instant) -> bool {
        let Some(open) = self.open.get_mut(&at) else { return false };
        let EntryState::Held(lease) = open.state else { return false };
        let hold = self.leases.hold(lease).unwrap_or(Hold::Response);
        let (id, order, before) = (open.key, open.unit.unwrap_or(at), open.attempts);
        open.attempts = match back {
            HoldEnd::Failed(_) if hold.counts_failures() => before.saturating_add(1),
            // It was counted when it was taken.
            HoldEnd::Unsent if hold.counts_taking() => before.saturating_sub(1),
            HoldEnd::Failed(_) | HoldEnd::Unsent => before,
        };
        self.tried += usize::from(before == 0 && open.attempts > 0);
        self.tried -= usize::from(before > 0 && open.attempts == 0);
        let spent = match back {
            HoldEnd::Failed(reason) => Some(reason).filter(|_| open.attempts >= hold.max_attempts()),
            HoldEnd::Unsent => None,
        };
        let key = self.keys.entry(id).or_default();
        key.let_go();
        if let Some(reason) = spent {
            open.state = EntryState::GivenUp;
            key.given_up += 1;
            self.given_up.insert(at, reason);
        } else {
            open.state = EntryState::Waiting(delay_until);
            key.wait((order, at));
        }
        self.leases.let_go(lease, false);
        self.list(id, now);
        true
    }

    /// What a request names.
    fn named(&mut self, which: &Selection, now: Instant) -> Result<Vec<u64>, UnknownLease> {
        self.advance(now);
        match which {
            Selection::Lease(lease) if self.leases.hold(*lease).is_some() => Ok(self.held_by(*lease)),
            Selection::Lease(lease) if self.leases.was_settled(lease) => Ok(Vec::new()),
            Selection::Lease(_) => Err(UnknownLease),
            Selection::Entries(entries) => Ok(entries.clone()),
        }
    }

    /// What a lease holds, in order.
    pub(in crate::events) fn held_by(&self, lease: LeaseName) -> Vec<u64> {
        let taken = self.leases.entries(lease).iter().copied();
        taken.filter(|at| self.holder(*at) == Some(lease)).collect()
    }

    fn holder(&self, at: u64) -> Option<LeaseName> {
        match self.open.get(&at)?.state {
            EntryState::Held(lease) => Some(lease),
            EntryState::Waiting(_) | EntryState::GivenUp => None,
        }
    }

    /// Lists a key where it belongs after a change; and the units that were first in it and are now.
    fn list(&mut self, id: u64, now: Instant) {
        let Some(key) = self.keys.get_mut(&id) else { return };
        // Off first, whatever has changed: a key that is listed twice would be taken by two.
        if let Some(listed) = key.listed.take() {
            self.listings.unlist(listed, id);
        }
        let first = key.waiting.front().map(|&(_, at)| at);
        let open = first.and_then(|at| self.open.get(&at));
        let unit = open.and_then(|open| open.unit);
        let before = std::mem::replace(&mut key.unit, unit);
        if key.is_done() {
            self.keys.remove(&id);
        } else if let (Some(first), None, true) = (first, unit, key.is_free()) {
            let listed = match open.map(|open| open.state) {
                Some(EntryState::Waiting(Some(until))) if until > now => Listing::Later(until),
                _ => Listing::Ready(first),
            };
            key.listed = Some(listed);
            self.listings.enlist(listed, id);
        }
        // A unit can be taken when it is first in each of its keys, so each says when that changes.
        for unit in before.into_iter().chain(unit.filter(|_| unit != before)) {
            self.list_unit(unit, now);
        }
    }

    // What follows changes nothing.

    /// When the next lease or delay ends.
    pub(in crate::events) fn next_due(&self) -> Option<Instant> {
        let lease = self.leases.first_due().map(|(until, _)| until);
        let delay = self.listings.later().map(|(until, _)| until);
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
        self.leases.held()
    }

    /// Whether an entry is on its way to a plain reader: it is nobody else's to give back.
    pub(super) fn is_in_response(&self, at: u64) -> bool {
        self.holder(at).and_then(|name| self.leases.hold(name)) == Some(Hold::Response)
    }

    /// Whether something can be taken, as far as is known since the last [`LeaseTable::advance`].
    pub(in crate::events) fn has_ready(&self) -> bool {
        self.listings.ready().is_some()
    }

    /// At least how many entries can be taken: one for each key that is ready.
    pub(in crate::events) fn ready(&self) -> usize {
        self.listings.ready_len()
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
    pub(in crate::events) fn attempted(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.open.range(range).filter(|(_, open)| open.attempts > 0).map(|(&at, open)| (at, open.attempts))
    }

    /// The open entries of a range that have a delay, with until when.
    pub(in crate::events) fn delayed(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Instant)> + '_ {
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

#[cfg(test)]
mod tests;
