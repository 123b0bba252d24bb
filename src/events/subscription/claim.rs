//! [`Claim`]: a run of entries that one reader has taken.
//!
//! Invariant: a claim stands for the entries it took: it ends by [`Claim::settle`], [`Claim::pass_over`] or
//! [`Claim::open`], or gives them back when it is dropped, whatever the reason. One from before a seek changes nothing.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::state::SubscriptionState;
use super::state::loss_notices::{self, LossNotice};
use super::{PlaceId, Subscription};
use crate::events::delivery::StreamNumber;
use crate::events::lock;
use crate::store::Sequence;

/// Entries that one reader has taken and no other gets, until it gives them back.
pub(in crate::events) struct Claim {
    subscription: Arc<Subscription>,
    range: Range<u64>,
    /// Where it was taken.
    place: PlaceId,
    /// Events on their way in a response.
    events: u64,
    in_response: bool,
    cut_off: LossNotice,
    /// Something must be stored before anybody is given these.
    is_owed: bool,
    settled: bool,
}

impl Subscription {
    /// Takes up to `limit` entries of a log that holds `earliest..next`, for a stream if that is said.
    pub(in crate::events) fn claim(
        self: &Arc<Self>,
        (earliest, next): (u64, u64),
        limit: u64,
        stream: Option<StreamNumber>,
    ) -> Option<Claim> {
        self.cut(earliest);
        let mut state = lock(&self.state);
        if self.is_removed() {
            return None;
        }
        let (range, is_owed) = state.take(next, limit, stream)?;
        let cut_off = state.missed.take();
        let (subscription, place) = (Arc::clone(self), state.place);
        Some(Claim { subscription, range, place, events: 0, in_response: false, cut_off, is_owed, settled: false })
    }

    /// Takes entries to be opened one by one, while fewer than `most` are; see [`super::held`].
    pub(in crate::events) fn claim_to_open(
        self: &Arc<Self>,
        (earliest, next): (u64, u64),
        limit: u64,
        most: usize,
    ) -> Option<Claim> {
        let (low, open, awaits_units) = {
            let state = lock(&self.state);
            (state.low(), state.leases.len(), state.leases.awaits_units())
        };
        // What was open when it went out as one has room again.
        let most = if awaits_units { MAX_OPEN } else { most };
        let room = most.saturating_sub(open) as u64;
        self.claim((earliest, next.min(low.saturating_add(MAX_AHEAD))), limit.min(room), None)
    }
}

impl Claim {
    pub(in crate::events) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// How many entries were cut off by retention before these that no reader was told of yet, and the first of them.
    pub(in crate::events) fn cut_off(&self) -> (u64, Option<Sequence>) {
        loss_notices::count(&self.cut_off)
    }

    /// Gives back the entries from `at` on.
    pub(in crate::events) fn shorten(&mut self, at: u64) {
        if self.range.start < at && at < self.range.end {
            let mut state = lock(&self.subscription.state);
            if state.place == self.place {
                state.ranges.shorten(self.range.start, at, self.in_response);
            }
            drop(state);
            self.range.end = at;
            self.subscription.given_back.notify_waiters();
        }
    }

    /// Gives back the entries from `at` on, `left` events among them. Whether any are kept.
    pub(in crate::events) fn keep_before(&mut self, at: u64, left: u64) -> bool {
        self.events = self.events.saturating_sub(left);
        self.shorten(at);
        self.range.start < at
    }

    /// A response with so many events is on its way.
    pub(in crate::events) fn under_way(&mut self, events: u64) {
        (self.events, self.in_response) = (events, true);
    }

    /// Whether something must be stored before anybody is given these.
    pub(in crate::events) fn is_owed(&self) -> bool {
        self.is_owed
    }

    /// The entries were handed over, and with them what was cut off before them.
    pub(in crate::events) fn settle(mut self) {
        self.settled = true;
        let (subscription, cut_off) = (Arc::clone(&self.subscription), self.cut_off.take());
        subscription.change(|state| {
            self.end(state, |state| {
                state.handed_over(self.range());
                state.told_plainly(cut_off);
            });
        });
        subscription.meters.delivered.inc_by(self.events);
    }

    /// The entries hold nothing that this reader wants.
    pub(in crate::events) fn pass_over(self) {
        let (range, now) = (self.range(), self.subscription.shared.clock.now());
        self.end_unseen(|state| {
            state.plain.add(range.clone());
            state.leases.await_no_longer(range, now);
        });
    }

    /// These of the entries (with their keys) are open from now on, each by itself; the others hold nothing that this
    /// reader wants.
    pub(in crate::events) fn open(self, entries: &[(u64, u64)], now: Instant) {
        let (subscription, range) = (Arc::clone(&self.subscription), self.range());
        self.end_unseen(|state| {
            state.plain.opened(range.clone());
            state.admit(range, entries, now);
        });
        // Some may have to wait, as an earlier run has promised.
        subscription.arm();
    }

    /// Nobody is given anything by that.
    fn end_unseen(mut self, change: impl FnOnce(&mut SubscriptionState)) {
        self.settled = true;
        let cut_off = self.cut_off.take();
        self.subscription.change_unseen(self.range.end, |state| {
            self.end(state, |state| {
                change(state);
                state.missed.give_back(cut_off, None);
            });
        });
    }

    fn end(&self, state: &mut SubscriptionState, change: impl FnOnce(&mut SubscriptionState)) {
        if state.place == self.place {
            state.ranges.settle(self.range.start);
            change(state);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        {
            let mut state = lock(&self.subscription.state);
            if state.place == self.place {
                let told = state.ranges.told(self.range.start).filter(|_| self.in_response);
                state.missed.give_back(self.cut_off.take(), told);
                state.ranges.give_back(self.range.start, self.in_response);
            }
        }
        self.subscription.meters.given_again.inc_by(self.events);
        self.subscription.given_back.notify_waiters();
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({} {:?})", self.subscription.name, self.range)
    }
}

/// The most entries of a subscription that are open at once: leased, waiting behind one that is, or to be given again.
/// Each costs some 150 bytes.
pub(in crate::events) const MAX_OPEN: usize = 100_000;

/// How far readers may be ahead of the oldest entry that is not settled: a bit each, in memory and in the store.
pub(super) const MAX_AHEAD: u64 = 1_000_000;
