//! What is done with entries that are open each by itself: acknowledging, prolonging, giving back, burying.
//!
//! Invariants: an acknowledgement is answered when it is durable. Whoever frees entries wakes one reader, and a reader
//! that leaves some wakes the next: so none is woken in vain by the thousand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Subscription;
use super::claim::MAX_OPEN;
use super::in_hand::Tries;
use super::lease_name::LeaseName;
use super::state::{GiveUpReason, LostRanges, Selection, UnknownLease};
use crate::kernel::sync::lock;
use crate::store::{Error, Sequence, Store};

/// Why an acknowledgement was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) enum SettleError {
    /// See [`UnknownLease`].
    UnknownLease,
    /// An entry was never handed out.
    Unseen,
    Store(Error),
}

impl Subscription {
    /// At least how many open entries can be had now.
    pub(in crate::events) fn ready(&self, now: Instant) -> usize {
        let mut state = lock(&self.state);
        state.leases.advance(now);
        state.leases.ready()
    }

    /// The timer has fired: ends what is over, and wakes a reader for it.
    pub(in crate::events) fn fired(self: &Arc<Self>, now: Instant) {
        lock(&self.state).fired(now);
        self.arm();
        self.wake_one();
    }

    pub(super) fn arm(self: &Arc<Self>) {
        let due = lock(&self.state).arm();
        if let Some(due) = due {
            self.shared.timer.arm(due, self);
        }
    }

    /// Settles what is held; durable on return. Says how many entries were open until now.
    pub(in crate::events) async fn acknowledge(
        self: &Arc<Self>,
        which: &Selection,
        now: Instant,
        store: &dyn Store,
    ) -> Result<u64, SettleError> {
        let settled = {
            let mut state = lock(&self.state);
            // What nobody can have nobody can have done: then the cursor is another's, or made up.
            if let Selection::Entries(entries) = which
                && entries.iter().any(|&at| state.is_unseen(at))
            {
                return Err(SettleError::Unseen);
            }
            let settled = state.leases.settle(which, now)?;
            state.settled(&settled, true);
            if let Selection::Entries(entries) = which {
                state.keep(entries);
            }
            settled.len() as u64
        };
        self.meters.acknowledged.inc_by(settled);
        self.wake_one();
        // Also when nothing was open: what settled it may not be durable yet.
        self.save(store).await.map_err(SettleError::Store)?;
        Ok(settled)
    }

    /// Gives back what is held, not to be handed out again before `delay_until`. Says how many entries that were.
    pub(in crate::events) fn give_back(
        self: &Arc<Self>,
        which: &Selection,
        delay_until: Option<Instant>,
        now: Instant,
    ) -> Result<u64, UnknownLease> {
        let back = self.change(|state| {
            let back = state.leases.give_back(which, delay_until, now)?;
            back.iter().for_each(|&at| state.touch(at));
            Ok::<_, UnknownLease>(back.len() as u64)
        })?;
        self.meters.given_again.inc_by(back);
        self.arm();
        self.wake_one();
        Ok(back)
    }

    /// Gives back what a lease holds that was no attempt, though it may have arrived.
    pub(in crate::events) fn give_back_uncounted(self: &Arc<Self>, lease: LeaseName, now: Instant) {
        self.change(|state| {
            // Of one that is over nothing is held.
            let back = state.leases.give_back_uncounted(lease, None, now).unwrap_or_default();
            back.into_iter().for_each(|at| state.touch(at));
        });
        self.arm();
        self.wake_one();
    }

    /// What a lease holds goes out as one: if it is not settled it goes out so again.
    pub(in crate::events) fn goes_out(self: &Arc<Self>, lease: LeaseName) {
        self.change(|state| {
            let entries = state.leases.held_by(lease);
            if state.leases.unite(&entries) {
                entries.into_iter().for_each(|at| state.touch(at));
            }
        });
    }

    /// What is open and nobody holds is opened anew by the next read: see `SubscriptionState::reopen`.
    pub(in crate::events) fn reopen(self: &Arc<Self>, keeps_units: bool, longest: Duration, now: Instant) {
        self.change(|state| state.reopen(keeps_units, now + longest, now));
        self.arm();
        self.wake_one();
    }

    /// What of it was tried in vain, and what can be.
    pub(in crate::events) fn tries(self: &Arc<Self>, now: Instant, next: Sequence) -> Tries {
        let lag = self.observe(next).lag;
        let mut state = lock(&self.state);
        state.leases.advance(now);
        let (told, due) = (state.missed.tried(), state.leases.next_due());
        let next = if state.leases.has_ready() { Some(now) } else { due.into_iter().chain(told.delay_until).min() };
        Tries { open: state.leases.len(), failures: state.most_attempts().max(told.attempts), next, lag }
    }

    /// What a lease still holds of its entries, in order.
    pub(in crate::events) fn held_by(&self, lease: LeaseName) -> Vec<Sequence> {
        lock(&self.state).leases.held_by(lease).into_iter().map(Sequence).collect()
    }

    /// Lets leases run until then. Says how many entries they hold.
    pub(in crate::events) fn extend(
        self: &Arc<Self>,
        which: &Selection,
        until: Instant,
        now: Instant,
    ) -> Result<u64, UnknownLease> {
        let held = lock(&self.state).leases.extend(which, until, now)? as u64;
        self.arm();
        Ok(held)
    }

    /// Whether an entry whose attempts are spent waits to be buried.
    pub(in crate::events) fn has_given_up(&self, now: Instant) -> bool {
        !self.given_up(1, now).is_empty()
    }

    /// Whether something must be stored before another entry goes out.
    pub(in crate::events) fn is_owed(&self) -> bool {
        lock(&self.state).letters.is_owed()
    }

    /// Whether something must be stored before a stream is given another entry.
    pub(in crate::events) fn owes_streams(&self) -> bool {
        lock(&self.state).plain.owes()
    }

    /// The entries whose attempts are spent, at most `most`.
    pub(in crate::events) fn given_up(&self, most: usize, now: Instant) -> Vec<(Sequence, u32, GiveUpReason)> {
        let mut state = lock(&self.state);
        state.leases.advance(now);
        let given_up = state.leases.given_up(most).into_iter();
        given_up.map(|(at, attempts, why)| (Sequence(at), attempts, why)).collect()
    }

    /// These (in order: number, letter) are dead, if they are still open, and held by this lease: they are settled, and
    /// on the list as soon as that is stored. Says how many.
    pub(in crate::events) fn bury(
        self: &Arc<Self>,
        mut letters: Vec<(Sequence, Bytes)>,
        by: Option<LeaseName>,
        now: Instant,
    ) -> u64 {
        let buried = self.change(|state| {
            letters.retain(|&(at, _)| by.is_none_or(|lease| state.leases.is_held_by(lease, at.0)));
            state.bury(letters.into_iter().map(|(at, letter)| (at.0, letter)), now)
        });
        self.wake_one();
        buried
    }

    /// Retention has removed these before they could be handed out, or buried. Readers will be told.
    pub(in crate::events) fn gone(self: &Arc<Self>, entries: &[Sequence], now: Instant) {
        let lost = self.change(|state| {
            let mut lost = LostRanges::default();
            state.drop_open(&numbers(entries), now).into_iter().for_each(|at| lost.add(at..at + 1));
            let count = lost.count();
            state.missed.add(lost);
            count
        });
        self.meters.cut_off.inc_by(lost);
        self.wake_one();
    }

    /// Settled entries are open once more.
    pub(in crate::events) fn put_back(self: &Arc<Self>, entries: &[Sequence], now: Instant) {
        self.change(|state| state.put_back(&numbers(entries), now));
        self.wake_one();
    }

    /// Whether an entry is open, and held by this lease.
    pub(in crate::events) fn is_open(&self, Sequence(at): Sequence, by: Option<LeaseName>) -> bool {
        let state = lock(&self.state);
        by.map_or_else(|| state.leases.known(at).is_some(), |lease| state.leases.is_held_by(lease, at))
    }

    /// Whether entries are to wait that are not open yet.
    pub(in crate::events) fn awaits_opening(&self) -> bool {
        lock(&self.state).awaits_opening()
    }

    /// Wakes one reader, if there is something for it.
    pub(super) fn wake_one(&self) {
        let has_some = {
            let state = lock(&self.state);
            state.leases.has_ready() || state.ranges.has_given_back() || state.leases.len() < MAX_OPEN
        };
        if has_some {
            self.given_back.notify_one();
        }
    }
}

impl From<UnknownLease> for SettleError {
    fn from(_: UnknownLease) -> Self {
        Self::UnknownLease
    }
}

/// As the state counts them.
pub(super) fn numbers(entries: &[Sequence]) -> Vec<u64> {
    entries.iter().map(|at| at.0).collect()
}
