//! [`Held`]: entries of a subscription under a lease, and what their holder does with them.
//!
//! Invariants: a response that does not reach its reader gives its entries back at once. An acknowledgement is answered
//! when it is durable. Whoever frees entries wakes one reader, and a reader that leaves some wakes the next: so none is
//! woken in vain by the thousand.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::in_hand::Tries;
use super::lease_name::LeaseName;
use super::loss_marker::LossMarker;
use super::state::loss_notices::{self, LossNotice};
use super::state::{GiveUpReason, Hold, LostRanges, Selection, UnknownLease};
use super::{PlaceId, Subscription};
use crate::events::lock;
use crate::store::{Error, Sequence, Store};

/// Entries on their way to a reader under a lease.
pub(in crate::events) struct Held {
    subscription: Arc<Subscription>,
    lease: LeaseName,
    entries: Vec<(u64, u32)>,
    over: CancellationToken,
    hold: Hold,
    events: u64,
    /// Where it was taken.
    place: PlaceId,
    cut_off: LossNotice,
    done: bool,
}

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
    /// Takes up to `limit` open entries that can be had.
    pub(in crate::events) fn hold(self: &Arc<Self>, limit: usize, hold: Hold, now: Instant) -> Option<Held> {
        let held = self.change(|state| {
            // Nothing waits for anything here any more, and all of it is given by who comes after.
            if self.is_removed() {
                return None;
            }
            // Who keeps the order comes again when what was given up is stored: else that might come after what follows it.
            if state.is_owed() && hold != Hold::Response {
                return None;
            }
            let taken = state.leases.take(limit, hold, now)?;
            if hold.counts_taking() {
                taken.entries.iter().for_each(|&(at, _)| state.touch(at));
            }
            Some((taken, state.missed.take(), state.place))
        });
        let (taken, cut_off, place) = held?;
        self.arm();
        self.wake_one();
        Some(Held {
            subscription: Arc::clone(self),
            lease: taken.lease,
            entries: taken.entries,
            over: taken.over,
            hold,
            events: 0,
            place,
            cut_off,
            done: false,
        })
    }

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

    /// What is open and nobody holds is opened anew by the next read: see [`SubscriptionState::reopen`](super::state::State::reopen).
    pub(in crate::events) fn reopen(self: &Arc<Self>, keeps_units: bool, longest: Duration, now: Instant) {
        self.change(|state| state.reopen(keeps_units, now + longest, now));
        self.arm();
        self.wake_one();
    }

    /// What of it was tried in vain, and what can be.
    pub(in crate::events) fn tries(&self, now: Instant) -> Tries {
        let mut state = lock(&self.state);
        state.leases.advance(now);
        let (told, due) = (state.missed.tried(), state.leases.next_due());
        let next = if state.leases.has_ready() { Some(now) } else { due.into_iter().chain(told.delay_until).min() };
        Tries { open: state.leases.len(), failures: state.most_attempts().max(told.attempts), next }
    }

    /// What a lease still holds of its entries, in order.
    pub(in crate::events) fn held_by(&self, lease: LeaseName) -> Vec<u64> {
        lock(&self.state).leases.held_by(lease)
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
        lock(&self.state).is_owed()
    }

    /// Whether something must be stored before a stream is given another entry.
    pub(in crate::events) fn owes_streams(&self) -> bool {
        lock(&self.state).plain.owes()
    }

    /// The entries whose attempts are spent, at most `most`.
    pub(in crate::events) fn given_up(&self, most: usize, now: Instant) -> Vec<(u64, u32, GiveUpReason)> {
        let mut state = lock(&self.state);
        state.leases.advance(now);
        state.leases.given_up(most)
    }

    /// These (in order: number, letter) are dead, if they are still open, and held by this lease: they are settled, and on
    /// the list as soon as that is stored. Says how many.
    pub(in crate::events) fn bury(
        self: &Arc<Self>,
        mut letters: Vec<(u64, Bytes)>,
        by: Option<LeaseName>,
        now: Instant,
    ) -> u64 {
        let buried = self.change(|state| {
            letters.retain(|&(at, _)| by.is_none_or(|lease| state.leases.is_held_by(lease, at)));
            state.bury(letters, now)
        });
        self.wake_one();
        buried
    }

    /// Retention has removed these before they could be handed out, or buried. Readers will be told.
    pub(in crate::events) fn gone(self: &Arc<Self>, entries: &[u64], now: Instant) {
        let lost = self.change(|state| {
            let mut lost = LostRanges::default();
            state.drop_open(entries, now).into_iter().for_each(|at| lost.add(at..at + 1));
            let count = lost.count();
            state.missed.add(lost);
            count
        });
        self.meters.cut_off.inc_by(lost);
        self.wake_one();
    }

    /// Settled entries are open once more.
    pub(in crate::events) fn put_back(self: &Arc<Self>, entries: &[u64], now: Instant) {
        self.change(|state| state.put_back(entries, now));
        self.wake_one();
    }

    /// Whether an entry is open, and held by this lease.
    pub(in crate::events) fn is_open(&self, at: u64, by: Option<LeaseName>) -> bool {
        let state = lock(&self.state);
        by.map_or_else(|| state.leases.known(at).is_some(), |lease| state.leases.is_held_by(lease, at))
    }

    /// Whether entries are to wait that are not open yet.
    pub(in crate::events) fn awaits_opening(&self) -> bool {
        lock(&self.state).awaits_opening()
    }

    /// Wakes one reader, if there is something for it.
    fn wake_one(&self) {
        let has_some = {
            let state = lock(&self.state);
            state.leases.has_ready() || state.ranges.has_given_back() || state.leases.len() < super::claim::MAX_OPEN
        };
        if has_some {
            self.given_back.notify_one();
        }
    }
}

impl Held {
    /// The entries, with the attempt that this is for each.
    pub(in crate::events) fn entries(&self) -> &[(u64, u32)] {
        &self.entries
    }

    pub(in crate::events) fn lease(&self) -> LeaseName {
        self.lease
    }

    /// Cancelled when the lease ends.
    pub(in crate::events) fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// How many entries were cut off by retention before these that no reader was told of yet, and the first of them.
    pub(in crate::events) fn cut_off(&self) -> (u64, Option<Sequence>) {
        loss_notices::count(&self.cut_off)
    }

    /// Which attempt it is to tell of that; in hand, how many have failed.
    pub(in crate::events) fn marker_attempt(&self) -> u32 {
        if self.hold.counts_failures() { lock(&self.subscription.state).missed.tried().attempts } else { 1 }
    }

    /// These of the entries hold nothing that this reader wants.
    pub(in crate::events) fn without(&mut self, entries: &[u64], now: Instant) {
        if !entries.is_empty() {
            self.subscription.change(|state| state.drop_open(entries, now));
            self.subscription.wake_one();
            self.entries.retain(|(at, _)| entries.binary_search(at).is_err());
        }
    }

    /// Retention has removed these of the entries: this reader is told.
    pub(in crate::events) fn without_gone(&mut self, entries: &[u64], now: Instant) {
        if !entries.is_empty() {
            self.subscription.gone(entries, now);
            let mut state = lock(&self.subscription.state);
            if state.place == self.place {
                // With what was taken before, as one.
                state.missed.give_back(self.cut_off.take(), None);
                self.cut_off = state.missed.take();
            }
            drop(state);
            self.entries.retain(|(at, _)| entries.binary_search(at).is_err());
        }
    }

    /// Gives back the entries from `at` on, `left` events among them. Whether any are kept.
    pub(in crate::events) fn keep_before(&mut self, at: u64, left: u64) -> bool {
        self.events = self.events.saturating_sub(left);
        let kept = self.entries.iter().take_while(|(entry, _)| *entry < at).count();
        let rest: Vec<u64> = self.entries.split_off(kept).into_iter().map(|(entry, _)| entry).collect();
        let now = self.subscription.shared.clock.now();
        self.subscription.change(|state| {
            state.leases.release_some(self.lease, &rest, now);
            if self.hold.counts_taking() {
                rest.iter().for_each(|&at| state.touch(at));
            }
        });
        self.subscription.wake_one();
        kept > 0
    }

    /// A response with so many events is on its way.
    pub(in crate::events) fn under_way(&mut self, events: u64) {
        self.events = events;
    }

    /// Whether the reader is to acknowledge them.
    pub(in crate::events) fn is_leased(&self) -> bool {
        self.hold != Hold::Response
    }

    /// Whether this is to be stored as one more try of an entry.
    pub(in crate::events) fn is_tried_again(&self) -> bool {
        self.hold.counts_taking() && self.entries.iter().any(|&(_, attempt)| attempt > 1)
    }

    /// What was cut off before these entries, apart from them: who has them may pass it on by itself.
    pub(in crate::events) fn split_cut_off(&mut self) -> LossMarker {
        let (cut_off, over) = (self.cut_off.take(), lock(&self.subscription.state).missed.over());
        LossMarker::new(Arc::clone(&self.subscription), self.place, cut_off, over)
    }

    /// The reader has them. A plain reader's are settled by that.
    pub(in crate::events) fn handed_over(mut self) {
        self.done = true;
        let (now, cut_off) = (self.subscription.shared.clock.now(), self.cut_off.take());
        self.subscription.change(|state| {
            if state.place == self.place {
                match self.hold {
                    Hold::Response => state.told_plainly(cut_off),
                    Hold::Lease { .. } | Hold::InHand { .. } => {
                        state.missed.told(cut_off);
                    }
                }
            }
            if self.hold == Hold::Response
                && let Ok(settled) = state.leases.settle(&Selection::Lease(self.lease), now)
            {
                state.settled(&settled, true);
                settled.iter().for_each(|&at| state.plain.add(at..at + 1));
            }
        });
        if self.hold == Hold::Response {
            self.subscription.wake_one();
        }
        self.subscription.meters.delivered.inc_by(self.events);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What was in hand may have been given back by a word.
        if self.done || (self.hold.counts_failures() && self.cut_off.is_none() && self.over.is_cancelled()) {
            return;
        }
        let (now, cut_off) = (self.subscription.shared.clock.now(), self.cut_off.take());
        self.subscription.change(|state| {
            state.leases.release(self.lease, now);
            if self.hold.counts_taking() {
                self.entries.iter().for_each(|&(at, _)| state.touch(at));
            }
            if state.place == self.place {
                state.missed.give_back(cut_off, None);
            }
        });
        self.subscription.meters.given_again.inc_by(self.events);
        self.subscription.given_back.notify_waiters();
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({} {:?})", self.subscription.name, self.entries)
    }
}

impl From<UnknownLease> for SettleError {
    fn from(_: UnknownLease) -> Self {
        Self::UnknownLease
    }
}
