//! A seat: what may be done with it, and what its drop means.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::ledger::Settled;

/// A seat. Dropped without a word it settles by what is known: see the methods.
#[derive(Debug)]
#[must_use = "a seat that is dropped is given back"]
pub struct Seat {
    bucket: Arc<Bucket>,
    /// Which of the bucket's halvings it was given after.
    era: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was sent: dropped, it is free at once.
    Unsent,
    /// Something may have been sent: dropped, its connection is known dead.
    Sending,
    /// The bucket knows.
    Settled,
}

impl Seat {
    pub(super) fn new(bucket: Arc<Bucket>, era: u64) -> Self {
        Self { bucket, era, state: State::Unsent }
    }

    /// The request's first bytes may leave now. From here on a drop means "connection known dead now": the seat comes
    /// free one window later.
    pub fn sending(&mut self) {
        self.state = State::Sending;
    }

    /// The response began to arrive now: the seat comes free one window later.
    pub fn answered(self) {
        self.settle(Settled::Used);
    }

    /// Something was sent, and nobody watches what becomes of it any more: the vendor counts it by that time or never. The
    /// seat comes free one window later.
    pub fn abandoned(self, until: Instant) {
        self.settle(Settled::Abandoned(until));
    }

    /// The vendor answered 429: the seat comes free one window later, and the bucket shrinks and pauses for a window
    /// or `retry_after`, whichever is longer, the latter as far as it is believed ([`Bucket::believe`]). Orders that cannot be served
    /// in time any more are refused at once.
    pub fn refused(self, retry_after: Option<Duration>) {
        self.settle(Settled::Refused(retry_after));
    }

    fn settle(mut self, settled: Settled) {
        self.state = State::Settled;
        self.bucket.settle(self.era, settled);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self.state {
            State::Unsent => self.bucket.settle(self.era, Settled::Unused),
            State::Sending => self.bucket.settle(self.era, Settled::Used),
            State::Settled => {}
        }
    }
}
