//! [`Book`]: the entries of a subscription that are acknowledged one by one: who holds each, since when it waits, and how
//! often it was handed out.
//!
//! Invariants: an entry in the book is *open*: not acknowledged, and in one of three states: waiting, held under a lease,
//! or given up (its attempts are spent; it waits to be buried). Entries of one *key* (a user, a channel) are handed out in
//! order: only the first that waits can be taken, and not while another lease holds an entry of its key, nor while an
//! entry of it is given up, nor before its own delay is over. One lease may hold several of a key, in order. A lease that
//! has run out is ended before anything else is looked at ([`Book::advance`]), so a lease that is known has time left.
//!
//! Each step costs the logarithm of what is open, for each entry that it moves; what does not move costs nothing.

mod ended;
mod key;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::name::LeaseName;
use ended::Ended;
use key::{Key, Listed};

/// What is open, and under which leases.
#[derive(Debug, Default)]
pub(in crate::events) struct Book {
    open: BTreeMap<u64, Open>,
    keys: HashMap<u64, Key>,
    /// Keys whose first waiting entry can be taken now, by that entry.
    ready: BTreeSet<(u64, u64)>,
    /// Keys whose first waiting entry has a delay.
    later: BTreeSet<(Instant, u64)>,
    leases: HashMap<LeaseName, Lease>,
    due: BTreeSet<(Instant, LeaseName)>,
    given_up: BTreeMap<u64, Reason>,
    /// How many open entries were handed out before.
    tried: usize,
    ended: Ended,
}

#[derive(Debug)]
struct Open {
    key: u64,
    attempts: u32,
    /// Whether somebody may have it: it was on its way, though perhaps it did not arrive.
    was_sent: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not before then.
    Waiting(Option<Instant>),
    Held(LeaseName),
    GivenUp,
}

#[derive(Debug)]
struct Lease {
    /// All that it was given; some may be settled since.
    entries: Vec<u64>,
    held: usize,
    /// `None`: a plain read's, which ends with its response.
    until: Option<Instant>,
    max_attempts: u32,
    /// Cancelled when it ends.
    over: CancellationToken,
}

/// An entry that comes into the book.
#[derive(Clone, Copy, Debug)]
pub(in crate::events) struct New {
    pub(in crate::events) at: u64,
    /// Whose it is: those of one key come in order.
    pub(in crate::events) key: u64,
    /// How often it was handed out before.
    pub(in crate::events) attempts: u32,
    /// When it can be handed out.
    pub(in crate::events) delay_until: Option<Instant>,
}

/// On which terms entries are held.
#[derive(Clone, Copy, Debug)]
pub(in crate::events) struct Hold {
    /// When it ends by itself.
    pub(in crate::events) until: Option<Instant>,
    /// After how many attempts an entry is given up.
    pub(in crate::events) max_attempts: u32,
}

/// Entries that were taken, with the attempt that this is for each.
#[derive(Clone, Debug)]
pub(in crate::events) struct Taken {
    pub(in crate::events) lease: LeaseName,
    pub(in crate::events) entries: Vec<(u64, u32)>,
    /// Cancelled when the lease ends.
    pub(in crate::events) over: CancellationToken,
}

/// Why an entry was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum Reason {
    /// The last lease ran out.
    RanOut,
    /// The last reader gave it back.
    GivenBack,
}

/// What a lease's holder asks about.
#[derive(Clone, Debug)]
pub(in crate::events) enum Which {
    Lease(LeaseName),
    Entries(Vec<u64>),
}

/// The lease is not known: it has run out, was given back, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) struct Unknown;

impl Book {
    /// Takes in entries that are new to the book, to wait.
    pub(in crate::events) fn admit(&mut self, entries: impl IntoIterator<Item = New>, now: Instant) {
        for New { at, key, attempts, delay_until } in entries {
            if self.open.contains_key(&at) {
                continue;
            }
            self.tried += usize::from(attempts > 0);
            let state = State::Waiting(delay_until.filter(|&until| until > now));
            self.open.insert(at, Open { key, attempts, was_sent: attempts > 0, state });
            self.keys.entry(key).or_default().wait(at);
            self.list(key, now);
        }
    }

    /// Takes up to `limit` entries that can be had now, oldest first.
    pub(in crate::events) fn take(&mut self, limit: usize, hold: Hold, now: Instant) -> Option<Taken> {
        self.advance(now);
        if self.ready.is_empty() {
            return None;
        }
        let lease = LeaseName::random();
        let (mut entries, mut touched) = (Vec::new(), Vec::new());
        while entries.len() < limit
            && let Some((at, id)) = self.ready.pop_first()
        {
            let (Some(open), Some(key)) = (self.open.get_mut(&at), self.keys.get_mut(&id)) else { continue };
            key.waiting.pop_front();
            key.listed = None;
            if open.attempts >= hold.max_attempts {
                // An earlier run handed it out for the last time, and ended before its lease did.
                open.state = State::GivenUp;
                key.given_up += 1;
                self.given_up.insert(at, Reason::RanOut);
                continue;
            }
            open.state = State::Held(lease);
            open.was_sent = true;
            self.tried += usize::from(open.attempts == 0);
            open.attempts = open.attempts.saturating_add(1);
            entries.push((at, open.attempts));
            if key.holder.replace(lease).is_none() {
                touched.push(id);
            }
            key.held += 1;
            // The next of the key can follow it under the same lease.
            if let Some(&next) = key.waiting.front()
                && self.open.get(&next).is_some_and(|open| !open.is_delayed(now))
            {
                key.listed = Some(Listed::Ready(next));
                self.ready.insert((next, id));
            }
        }
        touched.into_iter().for_each(|key| self.list(key, now));
        if entries.is_empty() {
            return None;
        }
        let numbers = entries.iter().map(|&(at, _)| at).collect();
        let Hold { until, max_attempts } = hold;
        let over = CancellationToken::new();
        let held = Lease { entries: numbers, held: entries.len(), until, max_attempts, over: over.clone() };
        self.leases.insert(lease, held);
        if let Some(until) = until {
            self.due.insert((until, lease));
        }
        Some(Taken { lease, entries, over })
    }

    /// Settles entries: all that a lease holds, or these. Returns those that were open until now. An entry that waits
    /// after a lease that ran out can still be settled by its number; a lease that was settled before has nothing left.
    ///
    /// # Errors
    /// When the lease is not known.
    pub(in crate::events) fn settle(&mut self, which: &Which, now: Instant) -> Result<Vec<u64>, Unknown> {
        let mut entries = self.named(which, now)?;
        entries.retain(|&at| self.remove(at, now));
        Ok(entries)
    }

    /// Gives entries back, not to be handed out again before `delay_until`. Returns those that were held until now.
    ///
    /// # Errors
    /// When the lease is not known.
    pub(in crate::events) fn give_back(
        &mut self,
        which: &Which,
        delay_until: Option<Instant>,
        now: Instant,
    ) -> Result<Vec<u64>, Unknown> {
        let mut entries = self.named(which, now)?;
        entries.retain(|&at| self.put_back(at, delay_until, Some(Reason::GivenBack), now));
        Ok(entries)
    }

    /// Lets leases run until then. One that is named by its entries is not shortened: another may hold them by now. Returns
    /// how many entries they hold.
    ///
    /// # Errors
    /// When the lease is not known.
    pub(in crate::events) fn extend(&mut self, which: &Which, until: Instant, now: Instant) -> Result<usize, Unknown> {
        let entries = self.named(which, now)?;
        let holders: HashSet<_> = entries.iter().filter_map(|at| self.holder(*at)).collect();
        let mut held = 0;
        for name in holders {
            let Some(lease) = self.leases.get_mut(&name) else { continue };
            let Some(before) = lease.until else { continue };
            let until = if matches!(which, Which::Entries(_)) { until.max(before) } else { until };
            lease.until = Some(until);
            held += lease.held;
            self.due.remove(&(before, name));
            self.due.insert((until, name));
        }
        Ok(held)
    }

    /// The response with these entries did not reach its reader: they wait again, and that was no attempt.
    pub(in crate::events) fn release(&mut self, lease: LeaseName, now: Instant) {
        for at in self.held_by(lease) {
            self.put_back(at, None, None, now);
        }
    }

    /// As [`Book::release`], for these of a lease's entries.
    pub(in crate::events) fn release_some(&mut self, lease: LeaseName, entries: &[u64], now: Instant) {
        for &at in entries {
            if self.holder(at) == Some(lease) {
                self.put_back(at, None, None, now);
            }
        }
    }

    /// Ends the leases and delays that are over.
    pub(in crate::events) fn advance(&mut self, now: Instant) {
        while let Some(&(until, lease)) = self.due.first()
            && until <= now
        {
            for at in self.held_by(lease) {
                self.put_back(at, None, Some(Reason::RanOut), now);
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

    /// Whether something can be taken, as far as is known since the last [`Book::advance`].
    pub(in crate::events) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// At least how many entries can be taken: one for each key that is ready.
    pub(in crate::events) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Ends all leases and forgets all entries.
    pub(in crate::events) fn clear(&mut self) {
        self.leases.values().for_each(|lease| lease.over.cancel());
        *self = Self::default();
    }

    /// How often an open entry was handed out, and until when it waits; `None` when it is not open.
    pub(in crate::events) fn known(&self, at: u64) -> Option<(u32, Option<Instant>)> {
        self.open.get(&at).map(|open| match open.state {
            State::Waiting(until) => (open.attempts, until),
            State::Held(_) | State::GivenUp => (open.attempts, None),
        })
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
            State::Waiting(until) => until.map(|until| (at, until)),
            State::Held(_) | State::GivenUp => None,
        })
    }

    /// The entries that are to be buried, at most `most`.
    pub(in crate::events) fn given_up(&self, most: usize) -> Vec<(u64, u32, Reason)> {
        let attempts = |at: u64| self.open.get(&at).map_or(0, |open| open.attempts);
        self.given_up.iter().take(most).map(|(&at, &reason)| (at, attempts(at), reason)).collect()
    }

    /// Takes out the entries before `earliest` that nobody holds: they are gone. Returns how many.
    pub(in crate::events) fn cut(&mut self, earliest: u64, now: Instant) -> u64 {
        let is_gone = |open: &Open| !matches!(open.state, State::Held(_));
        let gone: Vec<u64> = self.open.range(..earliest).filter(|(_, open)| is_gone(open)).map(|(&at, _)| at).collect();
        gone.iter().for_each(|&at| {
            self.remove(at, now);
        });
        gone.len() as u64
    }

    /// Takes one entry out, whatever its state. Says whether it was open.
    pub(in crate::events) fn remove(&mut self, at: u64, now: Instant) -> bool {
        let Some(Open { key: id, attempts, state, .. }) = self.open.remove(&at) else { return false };
        self.tried -= usize::from(attempts > 0);
        if let Some(key) = self.keys.get_mut(&id) {
            match state {
                State::Waiting(_) => key.forget(at),
                State::Held(_) => key.let_go(),
                State::GivenUp => key.given_up -= 1,
            }
        }
        match state {
            State::Waiting(_) => {}
            State::Held(lease) => self.let_go(lease, true),
            State::GivenUp => {
                self.given_up.remove(&at);
            }
        }
        self.list(id, now);
        true
    }

    /// Ends the hold on an entry. Without a reason it was no attempt. Says whether it was held.
    fn put_back(&mut self, at: u64, delay_until: Option<Instant>, why: Option<Reason>, now: Instant) -> bool {
        let Some(open) = self.open.get_mut(&at) else { return false };
        let State::Held(lease) = open.state else { return false };
        let most = self.leases.get(&lease).map_or(u32::MAX, |lease| lease.max_attempts);
        let spent = why.filter(|_| open.attempts >= most);
        let id = open.key;
        if why.is_none() {
            open.attempts = open.attempts.saturating_sub(1);
            self.tried -= usize::from(open.attempts == 0);
        }
        let key = self.keys.entry(id).or_default();
        key.let_go();
        if let Some(reason) = spent {
            open.state = State::GivenUp;
            key.given_up += 1;
            self.given_up.insert(at, reason);
        } else {
            open.state = State::Waiting(delay_until);
            key.wait(at);
        }
        self.let_go(lease, false);
        self.list(id, now);
        true
    }

    /// What a request names.
    fn named(&mut self, which: &Which, now: Instant) -> Result<Vec<u64>, Unknown> {
        self.advance(now);
        match which {
            Which::Lease(lease) if self.leases.contains_key(lease) => Ok(self.held_by(*lease)),
            Which::Lease(lease) if self.ended.holds(lease) => Ok(Vec::new()),
            Which::Lease(_) => Err(Unknown),
            Which::Entries(entries) => Ok(entries.clone()),
        }
    }

    fn held_by(&self, lease: LeaseName) -> Vec<u64> {
        let entries = self.leases.get(&lease).map_or(&[][..], |lease| &lease.entries);
        entries.iter().copied().filter(|at| self.holder(*at) == Some(lease)).collect()
    }

    fn holder(&self, at: u64) -> Option<LeaseName> {
        match self.open.get(&at)?.state {
            State::Held(lease) => Some(lease),
            State::Waiting(_) | State::GivenUp => None,
        }
    }

    /// One entry less under a lease; one that holds nothing more is ended.
    fn let_go(&mut self, name: LeaseName, settled: bool) {
        let Some(lease) = self.leases.get_mut(&name) else { return };
        lease.held -= 1;
        if lease.held > 0 {
            return;
        }
        if let Some(until) = lease.until {
            self.due.remove(&(until, name));
        }
        lease.over.cancel();
        self.leases.remove(&name);
        if settled {
            self.ended.add(name);
        }
    }

    /// Lists a key where it belongs after a change.
    fn list(&mut self, id: u64, now: Instant) {
        let Some(key) = self.keys.get_mut(&id) else { return };
        match key.listed.take() {
            Some(Listed::Ready(at)) => {
                self.ready.remove(&(at, id));
            }
            Some(Listed::Later(until)) => {
                self.later.remove(&(until, id));
            }
            None => {}
        }
        if key.is_done() {
            self.keys.remove(&id);
            return;
        }
        let (Some(&first), None, 0) = (key.waiting.front(), key.holder, key.given_up) else { return };
        match self.open.get(&first).map(|open| open.state) {
            Some(State::Waiting(Some(until))) if until > now => {
                key.listed = Some(Listed::Later(until));
                self.later.insert((until, id));
            }
            _ => {
                key.listed = Some(Listed::Ready(first));
                self.ready.insert((first, id));
            }
        }
    }
}

impl Open {
    fn is_delayed(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting(Some(until)) if until > now)
    }
}

#[cfg(test)]
mod tests;
