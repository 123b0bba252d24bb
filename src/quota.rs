//! Seats: the right to send one order to the vendor now.
//!
//! To be written by its owner; the signatures are the contract.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::Limit;
use crate::order::Payer;

/// How a bucket begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// All seats free.
    Full,
    /// As if every seat had just been used.
    Empty,
}

/// One limit of the vendor.
#[derive(Debug)]
pub struct Bucket;

/// A seat. Dropped without a word it settles by what is known: see the methods.
#[derive(Debug)]
#[must_use]
pub struct Seat;

/// Why no seat was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// None can come free before the deadline. `retry_after`: when one might.
    Spent {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Too many wait already.
    Crowded,
}

/// What a bucket looks like now (for the admin API, metrics and `RateLimit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The configured limit.
    pub limit: Limit,
    /// Seats in use or free now: below the limit after a refusal by the vendor.
    pub in_force: u32,
    /// Seats free now.
    pub free: u32,
    /// Seats whose exchange is under way.
    pub in_flight: u32,
    /// Orders that wait.
    pub waiting: usize,
    /// How long until the next seat comes free, as far as is known; zero when one is free.
    pub next: Duration,
}

impl Bucket {
    /// A bucket.
    #[must_use]
    pub fn new(_limit: Limit, _begin: Begin, _clock: Clock) -> Arc<Self> {
        unimplemented!()
    }

    /// Waits for a seat, in fair order. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// At once when no seat can come before `deadline`, or at the deadline when others came first.
    pub async fn seat(self: &Arc<Self>, _payer: &Payer, _deadline: Instant) -> Result<Seat, Refused> {
        unimplemented!()
    }

    /// Changes the limit of a running bucket without breaching the old or the new one.
    pub fn reconfigure(&self, _limit: Limit) {}

    /// A look at it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
}

impl Seat {
    /// The request's first bytes may leave now. From here on a drop means "connection known dead now".
    pub fn sending(&mut self) {}

    /// The response began to arrive now: the seat comes free one window later.
    pub fn answered(self) {}

    /// The vendor answered 429: the seat comes free one window later, and the bucket shrinks and pauses.
    pub fn refused(self, _retry_after: Option<Duration>) {}
}
