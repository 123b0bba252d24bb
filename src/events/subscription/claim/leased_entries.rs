//! [`LeasedEntries`]: a [`Claim`] of entries that are open each by itself.
//!
//! Invariant: a response that does not reach its reader gives its entries back at once, and that was no attempt.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Claim, ClaimKind};
use crate::events::subscription::Subscription;
use crate::events::subscription::holding::numbers;
use crate::events::subscription::lease_name::LeaseName;
use crate::events::subscription::loss_marker::LossMarker;
use crate::events::subscription::state::{Hold, Selection, SubscriptionState};
use crate::kernel::sync::lock;
use crate::store::Sequence;

/// Entries under a lease, or, for a plain reader, for as long as its response is under way.
pub(in crate::events) struct LeasedEntries {
    lease: LeaseName,
    entries: Vec<(Sequence, u32)>,
    /// Cancelled when the lease ends.
    over: CancellationToken,
    hold: Hold,
}

impl LeasedEntries {
    /// Takes up to `limit` open entries that can be had.
    pub(in crate::events) fn claim(
        subscription: &Arc<Subscription>,
        limit: usize,
        hold: Hold,
        now: Instant,
    ) -> Option<Claim<Self>> {
        let taken = subscription.change(|state| {
            // Nothing waits for anything here any more, and all of it is given by who comes after.
            if subscription.is_removed() {
                return None;
            }
            // Who keeps the order comes again when what was given up is stored: else that might come after what follows
            // it.
            if state.letters.is_owed() && hold != Hold::Response {
                return None;
            }
            let grant = state.leases.take(limit, hold, now)?;
            if hold.counts_taking() {
                grant.entries.iter().for_each(|&(at, _)| state.touch(at));
            }
            Some((grant, state.missed.take(), state.place))
        });
        let (grant, loss, place) = taken?;
        subscription.arm();
        subscription.wake_one();
        let entries = grant.entries.into_iter().map(|(at, attempt)| (Sequence(at), attempt)).collect();
        let taken = Self { lease: grant.lease, entries, over: grant.over, hold };
        Some(Claim::new(subscription, place, taken, loss))
    }
}

impl Claim<LeasedEntries> {
    /// The entries, with the attempt that this is for each.
    pub(in crate::events) fn entries(&self) -> &[(Sequence, u32)] {
        &self.taken.entries
    }

    pub(in crate::events) fn lease(&self) -> LeaseName {
        self.taken.lease
    }

    /// Cancelled when the lease ends.
    pub(in crate::events) fn over(&self) -> CancellationToken {
        self.taken.over.clone()
    }

    /// Which attempt it is to tell of what was cut off; in hand, how many have failed.
    pub(in crate::events) fn marker_attempt(&self) -> u32 {
        let counts_failures = self.taken.hold.counts_failures();
        if counts_failures { lock(&self.subscription.state).missed.tried().attempts } else { 1 }
    }

    /// Whether the reader is to acknowledge them.
    pub(in crate::events) fn is_leased(&self) -> bool {
        self.taken.hold != Hold::Response
    }

    /// Whether this is to be stored as one more try of an entry.
    pub(in crate::events) fn is_tried_again(&self) -> bool {
        self.taken.hold.counts_taking() && self.taken.entries.iter().any(|&(_, attempt)| attempt > 1)
    }

    /// These of the entries, in order, hold nothing that this reader wants.
    pub(in crate::events) fn drop_unwanted(&mut self, entries: &[Sequence], now: Instant) {
        if !entries.is_empty() {
            self.subscription.change(|state| state.drop_open(&numbers(entries), now));
            self.subscription.wake_one();
            self.taken.leave_out(entries);
        }
    }

    /// Retention has removed these of the entries, in order: this reader is told.
    pub(in crate::events) fn drop_trimmed(&mut self, entries: &[Sequence], now: Instant) {
        if !entries.is_empty() {
            self.subscription.gone(entries, now);
            let mut state = lock(&self.subscription.state);
            if self.is_of(&state) {
                // With what was taken before, as one.
                state.missed.give_back(self.loss.take(), None);
                self.loss = state.missed.take();
            }
            drop(state);
            self.taken.leave_out(entries);
        }
    }

    /// What was cut off before these entries, apart from them: who has them may pass it on by itself.
    pub(in crate::events) fn split_loss(&mut self) -> LossMarker {
        let (loss, over) = (self.loss.take(), lock(&self.subscription.state).missed.over());
        LossMarker::new(Arc::clone(&self.subscription), self.place, loss, over)
    }
}

impl LeasedEntries {
    fn leave_out(&mut self, entries: &[Sequence]) {
        self.entries.retain(|(at, _)| entries.binary_search(at).is_err());
    }
}

impl ClaimKind for LeasedEntries {
    fn settle(claim: &mut Claim<Self>, state: &mut SubscriptionState, now: Instant) {
        let (loss, hold) = (claim.loss.take(), claim.taken.hold);
        if claim.is_of(state) {
            match hold {
                Hold::Response => state.told_plainly(loss),
                Hold::Lease { .. } | Hold::InHand { .. } => {
                    state.missed.told(loss);
                }
            }
        }
        // Also after a seek: by its name, which no lease of the other place has.
        if hold == Hold::Response
            && let Ok(settled) = state.leases.settle(&Selection::Lease(claim.taken.lease), now)
        {
            state.settled(&settled, true);
            settled.iter().for_each(|&at| state.plain.add(at..at + 1));
        }
    }

    fn give_back(claim: &mut Claim<Self>) {
        let (now, loss) = (claim.subscription.shared.clock.now(), claim.loss.take());
        claim.subscription.change(|state| {
            state.leases.release(claim.taken.lease, now);
            if claim.taken.hold.counts_taking() {
                // That they were taken may be stored: it is to be stored that they were not.
                claim.taken.entries.iter().for_each(|&(at, _)| state.touch(at.0));
            }
            if claim.is_of(state) {
                state.missed.give_back(loss, None);
            }
        });
    }

    fn shorten(claim: &mut Claim<Self>, at: Sequence) -> bool {
        let taken = &mut claim.taken;
        let kept = taken.entries.iter().take_while(|(entry, _)| *entry < at).count();
        let rest: Vec<u64> = taken.entries.split_off(kept).into_iter().map(|(entry, _)| entry.0).collect();
        let now = claim.subscription.shared.clock.now();
        claim.subscription.change(|state| {
            state.leases.release_some(taken.lease, &rest, now);
            if taken.hold.counts_taking() {
                rest.iter().for_each(|&at| state.touch(at));
            }
        });
        claim.subscription.wake_one();
        kept > 0
    }

    fn frees_others(&self) -> bool {
        self.hold == Hold::Response
    }

    fn is_over(&self) -> bool {
        self.hold.counts_failures() && self.over.is_cancelled()
    }
}

impl fmt::Debug for LeasedEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.entries)
    }
}
