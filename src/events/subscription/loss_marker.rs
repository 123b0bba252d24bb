//! [`LossMarker`]: the marker of what retention took, on its way to a reader who is given it by itself.
//!
//! Invariants: it stands for the entries that it tells of: dropped, it gives them back untold. What becomes of one from
//! before a seek changes nothing. It is told, or among the dead letters, or to be told again, and one of these alone.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::notes::RetryState;
use super::state::SubscriptionState;
use super::state::loss_notices::{self, LossNotice};
use super::{PlaceId, Subscription};
use crate::kernel::sync::lock;
use crate::store::Sequence;

/// How many entries retention has cut off, on its way to a reader.
pub(in crate::events) struct LossMarker {
    subscription: Arc<Subscription>,
    place: PlaceId,
    cut_off: LossNotice,
    over: CancellationToken,
}

impl LossMarker {
    /// That was taken at this place; `over` is cancelled when nobody is to be told of it any more.
    pub(super) fn new(
        subscription: Arc<Subscription>,
        place: PlaceId,
        cut_off: LossNotice,
        over: CancellationToken,
    ) -> Self {
        Self { subscription, place, cut_off, over }
    }

    /// Cancelled when nobody is to be told of it any more.
    pub(in crate::events) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// The reader was told.
    pub(in crate::events) fn told(&mut self) {
        let cut_off = self.cut_off.take();
        self.end(|state| {
            state.missed.told(cut_off);
        });
    }

    /// How often the reader was told in vain.
    pub(in crate::events) fn tried(&self) -> RetryState {
        lock(&self.subscription.state).missed.tried()
    }

    /// The reader was told in vain, so often by now.
    pub(in crate::events) fn failed(&self, tried: RetryState) {
        self.end(|state| state.missed.failed(&self.cut_off, tried));
    }

    /// It is given up: this letter, which has no other's number, says so from now on. Says whether it was still to be
    /// told.
    pub(in crate::events) fn bury(&mut self, Sequence(at): Sequence, letter: Bytes) -> bool {
        let (cut_off, mut is_buried) = (self.cut_off.take(), false);
        self.end(|state| {
            is_buried = state.missed.told(cut_off);
            if is_buried {
                state.letters.add(at, letter);
            }
        });
        is_buried
    }

    pub(in crate::events) fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Of a place that is another by now, nothing is told any more.
    fn end(&self, change: impl FnOnce(&mut SubscriptionState)) {
        self.subscription.change(|state| {
            if state.place == self.place {
                change(state);
            }
        });
    }
}

impl Drop for LossMarker {
    fn drop(&mut self) {
        let cut_off = self.cut_off.take();
        if cut_off.is_some() {
            self.end(|state| state.missed.give_back(cut_off, None));
        }
    }
}

impl fmt::Debug for LossMarker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LossMarker({} {})", self.subscription.name, loss_notices::count(&self.cut_off).0)
    }
}
