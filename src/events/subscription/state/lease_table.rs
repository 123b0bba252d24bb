//! [`LeaseTable`]: the entries of a subscription that are acknowledged one by one: who holds each, since when it waits, and how
//! often it was handed out.
//!
//! Invariants: an entry in the book is *open*: not acknowledged, and in one of three states: waiting, held under a lease,
//! or given up (its attempts are spent; it waits to be buried). Entries of one *key* (a user, a channel) are handed out in
//! order: only the first that waits can be taken, and not while another lease holds an entry of its key, nor while an
//! entry of it is given up, nor before its own delay is over. One lease may hold several of a key, in order. A lease that
//! has run out is ended before anything else is looked at ([`LeaseTable::advance`]), so a lease that is known has time left.
//! Entries that went out as one are a *unit* ([`Unit`]): taken together, alone, or not at all.
//!
//! Each step costs the logarithm of what is open, for each entry that it moves (a unit, what it holds); what does not move
//! costs nothing.

mod ended_leases;
mod hold;
mod inquiry;
mod key_queue;
mod lease_slot;
mod unit;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ended_leases::EndedLeases;
use self::key_queue::{KeyQueue, Listing};
use self::unit::Unit;
use crate::events::subscription::lease_name::LeaseName;

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
    /// Keys whose first waiting entry, or the unit that it is in, can be taken now, by that entry or unit.
    ready: BTreeSet<(u64, u64)>,
    /// Keys whose first waiting entry, or the unit that it is in, has a delay.
    later: BTreeSet<(Instant, u64)>,
    leases: HashMap<LeaseName, ActiveLease>,
    due: BTreeSet<(Instant, LeaseName)>,
    given_up: BTreeMap<u64, GiveUpReason>,
    /// How many open entries were handed out before.
    tried: usize,
    ended: EndedLeases,
}

#[derive(Debug)]
struct OpenEntry {
    key: u64,
    attempts: u32,
    /// Whether somebody may have it: it was on its way, though perhaps it did not arrive.
    was_sent: bool,
    unit: Option<u64>,
    /// Whether it is no part of what goes out as one: an operator put it back.
    alone: bool,
    state: EntryState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Waiting(Option<Instant>),
    Held(LeaseName),
    GivenUp,
}

#[derive(Debug)]
struct ActiveLease {
    /// All that it was given; some may be settled since.
    entries: Vec<u64>,
    held: usize,
    hold: Hold,
    /// Cancelled when it ends.
    over: CancellationToken,
}

/// An entry that comes into the book.
#[derive(Clone, Copy, Debug)]
pub(in crate::events) struct NewEntry {
    pub(in crate::events) at: u64,
    /// Whose it is: those of one key come in order.
    pub(in crate::events) key: u64,
    /// How often it was handed out before.
    pub(in crate::events) attempts: u32,
    pub(in crate::events) delay_until: Option<Instant>,
    /// Whether it is no part of what goes out as one.
    pub(in crate::events) alone: bool,
}

/// Entries that were taken, with the attempt that this is for each.
#[derive(Clone, Debug)]
pub(in crate::events) struct LeaseGrant {
    pub(in crate::events) lease: LeaseName,
    pub(in crate::events) entries: Vec<(u64, u32)>,
    /// Cancelled when the lease ends.
    pub(in crate::events) over: CancellationToken,
}

/// Why an entry was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum GiveUpReason {
    RanOut,
    GivenBack,
}

/// How a hold on entries ends that are not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HoldEnd {
    /// It did not arrive: that was no attempt, and nothing has changed.
    Unsent,
    /// It was an attempt in vain.
    Failed(GiveUpReason),
}

/// What a lease's holder asks about.
#[derive(Clone, Debug)]
pub(in crate::events) enum Selection {
    Lease(LeaseName),
    Entries(Vec<u64>),
}

/// The lease is not known: it has run out, was given back, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) struct UnknownLease;

impl LeaseTable {
    /// Takes in entries that are new to the book, to wait.
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
        if self.ready.is_empty() {
            return None;
        }
        let lease = LeaseName::random();
        let (mut entries, mut touched) = (Vec::new(), Vec::new());
        while entries.len() < limit
            && let Some(&(at, id)) = self.ready.first()
        {
            let (Some(key), first) = (self.keys.get_mut(&id), self.open.get(&at)) else { break };
            let unit = key.waiting.front().and_then(|(_, front)| self.open.get(front)?.unit);
            let goes_alone = unit.is_some() || (hold.unites() && first.is_some_and(OpenEntry::goes_alone));
            if goes_alone && !entries.is_empty() {
                break;
            }
            if let Some(unit) = unit {
                self.take_unit(unit, lease, hold, &mut entries, &mut touched);
                break;
            }
            self.ready.pop_first();
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
                self.ready.insert((next, id));
            }
            if goes_alone {
                break;
            }
        }
        touched.into_iter().for_each(|key| self.list(key, now));
        if entries.is_empty() {
            return None;
        }
        let numbers = entries.iter().map(|&(at, _)| at).collect();
        let over = CancellationToken::new();
        self.leases.insert(lease, ActiveLease { entries: numbers, held: entries.len(), hold, over: over.clone() });
        if let Some(until) = hold.until() {
            self.due.insert((until, lease));
        }
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

    /// Gives entries back, not to be handed out again before `delay_until`. What was taken to go out as one is a unit from
    /// now on. Returns those that were held until now.
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
                self.unite(&entries);
            }
            Selection::Entries(_) => entries.retain(|&at| !self.is_in_response(at)),
        }
        entries.retain(|&at| self.put_back(at, delay_until, HoldEnd::Failed(GiveUpReason::GivenBack), now));
        Ok(entries)
    }

    /// Gives back what a lease holds, though it was no attempt. What was taken to go out as one is a unit from now on: it
    /// may have arrived. Returns what was held until now.
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

    /// Lets leases run until then. One that is named by its entries is not shortened: another may hold them by now. Returns
    /// how many entries they hold.
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
            let Some(lease) = self.leases.get_mut(&name) else { continue };
            let Some(before) = lease.hold.until() else { continue };
            let until = if matches!(which, Selection::Entries(_)) { until.max(before) } else { until };
            lease.hold = lease.hold.extended(until);
            held += lease.held;
            self.due.remove(&(before, name));
            self.due.insert((until, name));
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
        while let Some(&(until, lease)) = self.due.first()
            && until <= now
        {
            for at in self.held_by(lease) {
                self.put_back(at, None, HoldEnd::Failed(GiveUpReason::RanOut), now);
            }
            self.due.remove(&(until, lease));
        }
        while let Some(&(until, key)) = self.later.first()
            && until <= now
        {
            self.later.remove(&(until, key));
            self.list(key, now);
        }
    }

    /// Ends all leases and forgets all entries.
    pub(in crate::events) fn clear(&mut self) {
        self.leases.values().for_each(|lease| lease.over.cancel());
        *self = Self::default();
    }

    /// Takes out the entries before `earliest` that nobody holds: they are gone. Returns them, in order.
    pub(in crate::events) fn cut(&mut self, earliest: u64, now: Instant) -> Vec<u64> {
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
            EntryState::Held(lease) => self.let_go(lease, true),
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
        let hold = self.leases.get(&lease).map_or(Hold::Response, |lease| lease.hold);
        let (id, order, before) = (open.key, open.unit.unwrap_or(at), open.attempts);
        open.attempts = match back {
            HoldEnd::Failed(_) if hold.counts_failures() => before.saturating_add(1),
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
        self.let_go(lease, false);
        self.list(id, now);
        true
    }

    /// What a request names.
    fn named(&mut self, which: &Selection, now: Instant) -> Result<Vec<u64>, UnknownLease> {
        self.advance(now);
        match which {
            Selection::Lease(lease) if self.leases.contains_key(lease) => Ok(self.held_by(*lease)),
            Selection::Lease(lease) if self.ended.holds(lease) => Ok(Vec::new()),
            Selection::Lease(_) => Err(UnknownLease),
            Selection::Entries(entries) => Ok(entries.clone()),
        }
    }

    /// What a lease holds, in order.
    pub(in crate::events) fn held_by(&self, lease: LeaseName) -> Vec<u64> {
        let entries = self.leases.get(&lease).map_or(&[][..], |lease| &lease.entries);
        entries.iter().copied().filter(|at| self.holder(*at) == Some(lease)).collect()
    }

    fn holder(&self, at: u64) -> Option<LeaseName> {
        match self.open.get(&at)?.state {
            EntryState::Held(lease) => Some(lease),
            EntryState::Waiting(_) | EntryState::GivenUp => None,
        }
    }

    /// One entry less under a lease; one that holds nothing more is ended.
    fn let_go(&mut self, name: LeaseName, settled: bool) {
        let Some(lease) = self.leases.get_mut(&name) else { return };
        lease.held -= 1;
        if lease.held > 0 {
            return;
        }
        if let Some(until) = lease.hold.until() {
            self.due.remove(&(until, name));
        }
        lease.over.cancel();
        self.leases.remove(&name);
        if settled {
            self.ended.add(name);
        }
    }

    /// Lists a key where it belongs after a change; and the units that were first in it and are now.
    fn list(&mut self, id: u64, now: Instant) {
        let Some(key) = self.keys.get_mut(&id) else { return };
        if let Some(listed) = key.listed.take() {
            Self::unlist(&mut self.ready, &mut self.later, listed, id);
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
            self.enlist(listed, id);
        }
        for unit in before.into_iter().chain(unit.filter(|_| unit != before)) {
            self.list_unit(unit, now);
        }
    }

    fn enlist(&mut self, listed: Listing, id: u64) {
        match listed {
            Listing::Ready(at) => self.ready.insert((at, id)),
            Listing::Later(until) => self.later.insert((until, id)),
        };
    }

    fn unlist(ready: &mut BTreeSet<(u64, u64)>, later: &mut BTreeSet<(Instant, u64)>, listed: Listing, id: u64) {
        match listed {
            Listing::Ready(at) => ready.remove(&(at, id)),
            Listing::Later(until) => later.remove(&(until, id)),
        };
    }
}

impl OpenEntry {
    /// It is held from now on. Says by how many there are more that were tried.
    fn hold(&mut self, lease: LeaseName, hold: Hold) -> usize {
        (self.state, self.was_sent) = (EntryState::Held(lease), true);
        if !hold.counts_taking() {
            return 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        usize::from(self.attempts == 1)
    }

    /// Whether it goes by itself where others go out as one: it did before, or is to.
    fn goes_alone(&self) -> bool {
        self.alone || self.attempts > 0
    }

    fn is_delayed(&self, now: Instant) -> bool {
        matches!(self.state, EntryState::Waiting(Some(until)) if until > now)
    }
}

#[cfg(test)]
mod tests;
