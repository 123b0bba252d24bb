//! A seat: what may be done with it, and what its drop means.

use std::sync::Arc;
use std::time::Duration;

use super::bucket::Bucket;

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
    pub fn answered(mut self) {
        self.state = State::Settled;
        self.bucket.cool();
    }

    /// The vendor answered 429: the seat comes free one window later, and the bucket shrinks and pauses for a window
    /// or `retry_after`, whichever is longer, but at most a minute for the latter's sake. Orders that cannot be served
    /// in time any more are refused at once.
    pub fn refused(mut self, retry_after: Option<Duration>) {
        self.state = State::Settled;
        self.bucket.refused(self.era, retry_after);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self.state {
            State::Unsent => self.bucket.give_back(),
            State::Sending => self.bucket.cool(),
            State::Settled => {}
        }
    }
}
