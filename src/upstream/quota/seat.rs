//! A seat: what may be done with it, and what its drop means.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::ledger::SeatOutcome;
use super::seat_queue::GivenSeat;

/// A seat. Dropped without a word it settles by what is known: see the methods. Only its bucket gives one:
///
/// ```compile_fail
/// use std::sync::Arc;
/// use rtm_gateway::upstream::quota::{Bucket, Seat};
/// fn forged(bucket: Arc<Bucket>) -> Seat {
///     Seat::new(bucket, todo!())
/// }
/// ```
///
/// What fails there is the making alone; this is how one is had:
///
/// ```
/// use std::sync::Arc;
/// use rtm_gateway::upstream::quota::{Bucket, NoSeat, Seat};
/// use rtm_gateway::vendor::order::Payer;
/// async fn given(bucket: Arc<Bucket>, payer: &Payer, by: tokio::time::Instant) -> Result<Seat, NoSeat> {
///     bucket.seat(payer, by).await
/// }
/// ```
#[derive(Debug)]
#[must_use = "a seat that is dropped is given back"]
pub struct Seat {
    bucket: Arc<Bucket>,
    given: GivenSeat,
    state: SeatState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeatState {
    /// Nothing was sent: dropped, it is free at once.
    Unsent,
    /// Something may have been sent: dropped, its connection is known dead.
    Sending,
    Settled,
}

impl Seat {
    pub(super) fn new(bucket: Arc<Bucket>, given: GivenSeat) -> Self {
        Self { bucket, given, state: SeatState::Unsent }
    }

    /// The request's first bytes may leave now. From here on a drop means "connection known dead now": the seat comes
    /// free one window later.
    pub fn sending(&mut self) {
        self.state = SeatState::Sending;
    }

    /// The response began to arrive now: the seat comes free one window later.
    pub fn answered(self) {
        self.settle(SeatOutcome::Used);
    }

    /// Something was sent, and nobody watches what becomes of it any more: the vendor counts it by that time or never.
    /// The seat comes free one window later.
    pub fn abandoned(self, until: Instant) {
        self.settle(SeatOutcome::Abandoned(until));
    }

    /// The vendor answered 429: the seat comes free one window later, and the bucket shrinks and pauses for a window
    /// or `retry_after`, whichever is longer, the latter as far as it is believed ([`Bucket::believe`]). Orders that
    /// cannot be served in time any more are refused at once, or within 100 ms where many wait.
    pub fn refused(self, retry_after: Option<Duration>) {
        self.settle(SeatOutcome::Refused(retry_after));
    }

    fn settle(mut self, settled: SeatOutcome) {
        self.state = SeatState::Settled;
        self.bucket.settle(self.given, settled);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self.state {
            SeatState::Unsent => self.bucket.settle(self.given, SeatOutcome::Unused),
            SeatState::Sending => self.bucket.settle(self.given, SeatOutcome::Used),
            SeatState::Settled => {}
        }
    }
}
