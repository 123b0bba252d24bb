//! [`Claim`]: entries of a subscription that one reader has taken, and no other gets until it is done with them.
//!
//! There are two kinds. A [`LogRange`] is a run of the log: to hand it over settles it. [`LeasedEntries`] are open each
//! by itself: who takes them to acknowledge them is given them by the hand-over, and settles them by a word of its own.
//!
//! Invariants: a claim stands for its entries. It ends by being handed over, or by a word on what they hold, or gives
//! them back when it is dropped, whatever the reason. One from before a seek changes nothing: the place it was taken at
//! is another's by then.

mod leased_entries;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

pub(in crate::events) use self::leased_entries::LeasedEntries;
use super::state::SubscriptionState;
use super::state::loss_notices::{self, LossNotice};
use super::{PlaceId, Subscription};
use crate::events::subscription::StreamNumber;
use crate::kernel::sync::lock;
use crate::store::Sequence;

pub(in crate::events) struct Claim<K: ClaimKind> {
    subscription: Arc<Subscription>,
    /// Where it was taken.
    place: PlaceId,
    taken: K,
    /// What is told with it.
    loss: LossNotice,
    /// How many events are on their way; no more than a read hands over. Thousands of readers wait with room for a
    /// claim.
    events: u32,
    is_in_response: bool,
    is_done: bool,
}

/// What is taken, and what is particular about its end.
pub(in crate::events) trait ClaimKind: fmt::Debug + Sized {
    /// The reader has it. Under the lock of the state: the entries and what is told with them are settled in one step.
    fn settle(claim: &mut Claim<Self>, state: &mut SubscriptionState, now: Instant);

    /// Nobody has it.
    fn give_back(claim: &mut Claim<Self>);

    /// Gives back the entries from `at` on. Whether any are kept.
    fn shorten(claim: &mut Claim<Self>, at: Sequence) -> bool;

    /// Whether others of the same key can be taken once it is settled.
    fn frees_others(&self) -> bool {
        false
    }

    /// Whether it ended already, by another's word.
    fn is_over(&self) -> bool {
        false
    }
}

impl<K: ClaimKind> Claim<K> {
    fn new(subscription: &Arc<Subscription>, place: PlaceId, taken: K, loss: LossNotice) -> Self {
        Self {
            subscription: Arc::clone(subscription),
            place,
            taken,
            loss,
            events: 0,
            is_in_response: false,
            is_done: false,
        }
    }

    /// How many entries were cut off by retention before these that no reader was told of yet, and the first of them.
    pub(in crate::events) fn lost(&self) -> (u64, Option<Sequence>) {
        loss_notices::count(&self.loss)
    }

    /// A response with so many events is on its way.
    pub(in crate::events) fn under_way(&mut self, events: u64) {
        (self.events, self.is_in_response) = (u32::try_from(events).unwrap_or(u32::MAX), true);
    }

    /// Gives back the entries from `at` on, `left` events among them. Whether any are kept.
    pub(in crate::events) fn keep_before(&mut self, at: Sequence, left: u64) -> bool {
        self.events = self.events.saturating_sub(u32::try_from(left).unwrap_or(u32::MAX));
        K::shorten(self, at)
    }

    /// The reader has the entries, and was told what was cut off before them.
    pub(in crate::events) fn handed_over(mut self) {
        self.is_done = true;
        let subscription = Arc::clone(&self.subscription);
        let now = subscription.shared.clock.now();
        subscription.change(|state| K::settle(&mut self, state, now));
        if self.taken.frees_others() {
            subscription.wake_one();
        }
        subscription.meters.delivered.inc_by(self.events.into());
    }

    /// Whether the subscription is still at the place where this was taken.
    fn is_of(&self, state: &SubscriptionState) -> bool {
        state.place == self.place
    }
}

impl<K: ClaimKind> Drop for Claim<K> {
    fn drop(&mut self) {
        // What was in hand may have been given back by a word; but what was to be told with it has not been.
        if self.is_done || (self.loss.is_none() && self.taken.is_over()) {
            return;
        }
        K::give_back(self);
        self.subscription.meters.given_again.inc_by(self.events.into());
        self.subscription.given_back.notify_waiters();
    }
}

impl<K: ClaimKind> fmt::Debug for Claim<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({} {:?})", self.subscription.name(), self.taken)
    }
}

/// A run of the log.
pub(in crate::events) struct LogRange {
    range: Range<u64>,
    /// Something must be stored before anybody is given it.
    is_owed: bool,
}

impl LogRange {
    /// Takes up to `limit` entries of a log that holds these, for a stream if that is said.
    pub(in crate::events) fn claim(
        subscription: &Arc<Subscription>,
        log: Range<Sequence>,
        limit: u64,
        stream: Option<StreamNumber>,
    ) -> Option<Claim<Self>> {
        subscription.cut(log.start);
        let mut state = lock(&subscription.state);
        // Asked under the lock: who removes it looks at the state after it has said so.
        if subscription.is_removed() {
            return None;
        }
        let (range, is_owed) = state.take(log.end.0, limit, stream)?;
        let loss = state.missed.take();
        Some(Claim::new(subscription, state.place, Self { range, is_owed }, loss))
    }

    /// Takes entries to be opened one by one, while fewer than `most` are.
    pub(in crate::events) fn claim_to_open(
        subscription: &Arc<Subscription>,
        log: Range<Sequence>,
        limit: u64,
        most: usize,
    ) -> Option<Claim<Self>> {
        let (low, open, awaits_units) = {
            let state = lock(&subscription.state);
            (state.low(), state.leases.len(), state.leases.awaits_units())
        };
        // What was open when it went out as one has room again.
        let most = if awaits_units { MAX_OPEN } else { most };
        let room = most.saturating_sub(open) as u64;
        let end = log.end.min(Sequence(low).plus(MAX_AHEAD));
        Self::claim(subscription, log.start..end, limit.min(room), None)
    }
}

impl Claim<LogRange> {
    pub(in crate::events) fn range(&self) -> Range<Sequence> {
        Sequence(self.taken.range.start)..Sequence(self.taken.range.end)
    }

    /// Whether something must be stored before anybody is given these.
    pub(in crate::events) fn is_owed(&self) -> bool {
        self.taken.is_owed
    }

    /// The entries hold nothing that this reader wants.
    pub(in crate::events) fn pass_over(self) {
        let (range, now) = (self.taken.range.clone(), self.subscription.shared.clock.now());
        self.end_unseen(|state| {
            state.plain.add(range.clone());
            state.leases.await_no_longer(range, now);
        });
    }

    /// These of the entries (with their keys) are open from now on, each by itself; the others hold nothing that this
    /// reader wants.
    pub(in crate::events) fn open(self, entries: &[(Sequence, u64)], now: Instant) {
        let (subscription, range) = (Arc::clone(&self.subscription), self.taken.range.clone());
        self.end_unseen(|state| {
            state.plain.opened(range.clone());
            state.admit(range, entries, now);
        });
        // Some may have to wait, as an earlier run has promised.
        subscription.arm();
    }

    /// Nobody is given anything by that.
    fn end_unseen(mut self, change: impl FnOnce(&mut SubscriptionState)) {
        self.is_done = true;
        let loss = self.loss.take();
        self.subscription.change_unseen(self.taken.range.end, |state| {
            if self.is_of(state) {
                state.ranges.settle(self.taken.range.start);
                change(state);
                state.missed.give_back(loss, None);
            }
        });
    }
}

impl ClaimKind for LogRange {
    fn settle(claim: &mut Claim<Self>, state: &mut SubscriptionState, _: Instant) {
        if claim.is_of(state) {
            state.ranges.settle(claim.taken.range.start);
            state.handed_over(claim.taken.range.clone());
            state.told_plainly(claim.loss.take());
        }
    }

    fn give_back(claim: &mut Claim<Self>) {
        // Only locked: what is given back does not move the low-water mark, so there is nothing to store.
        let mut state = lock(&claim.subscription.state);
        if claim.is_of(&state) {
            let (start, in_response) = (claim.taken.range.start, claim.is_in_response);
            // Before the entries: where they were in a response is forgotten when they are given back.
            let told = state.ranges.told(start).filter(|_| in_response);
            state.missed.give_back(claim.loss.take(), told);
            state.ranges.give_back(start, in_response);
        }
    }

    fn shorten(claim: &mut Claim<Self>, Sequence(at): Sequence) -> bool {
        let Range { start, end } = claim.taken.range;
        if start < at && at < end {
            let mut state = lock(&claim.subscription.state);
            if claim.is_of(&state) {
                state.ranges.shorten(start, at, claim.is_in_response);
            }
            drop(state);
            claim.taken.range.end = at;
            claim.subscription.given_back.notify_waiters();
        }
        start < at
    }
}

impl fmt::Debug for LogRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.range)
    }
}

/// The most entries of a subscription that are open at once: leased, waiting behind one that is, or to be given again.
/// Each costs some 150 bytes.
pub(in crate::events) const MAX_OPEN: usize = 100_000;

/// How far readers may be ahead of the oldest entry that is not settled: a bit each, in memory and in the store.
pub(super) const MAX_AHEAD: u64 = 1_000_000;
