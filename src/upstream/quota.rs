//! Seats: the right to send one order to the vendor now.
//!
//! The promise: at no instant has the vendor counted more than N requests of a bucket in any window of length W,
//! closed at both ends, whatever the network delays are. How it is kept:
//!
//! - A seat is taken before a request's first byte leaves and comes free W (and a little) after its response began, or
//!   after its connection was known dead; at once if nothing was sent; and if nobody waits for the answer any more, W
//!   after the time by which it is counted or never. The vendor counts in between, so two requests in one seat are
//!   counted more than W apart, and N seats are counted at most N times in a window.
//! - A seat is never given while N others are under way or cooling. That one comparison (`ledger`) is all that
//!   shrinking, growing and reconfiguring change, so none of them can breach.
//! - A bucket that takes over from others (a reload changed what an endpoint is counted in) begins as if every seat had
//!   just been used, and the seats that are under way in them take up its own until they are settled. Those others give
//!   no seat any more: who waits there, or comes there late, is sent to ask again.
//! - Who used seats and who waited for them is kept for each client in the same place (`client_books`).
//! - Seats go to those who wait by start-time fair queueing over clients (`fair_queue`). What several clients wait for
//!   stands in the line of each (`shared_wait`).
//!
//! Everything of a bucket is under one short lock that is never held across an await; there is no task and no timer of
//! the bucket's own. Who waits holds its timer (`bucket`).

mod bucket;
mod client_books;
mod fair_queue;
mod ledger;
mod penalty;
mod ranked;
mod seat;
mod seat_queue;
mod shared_wait;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

use tokio::time::Instant;

pub use bucket::Bucket;
pub(crate) use client_books::BucketLabel;
pub use client_books::ClientUse;
pub(crate) use penalty::RefusalNews;
pub use penalty::VendorRefusals;
pub use seat::Seat;
pub(crate) use shared_wait::seat_of_any;
pub use window::cycle;

use crate::config::Limit;

/// How a bucket begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// All seats free.
    Full,
    /// As if every seat had just been used, by a run that is dead.
    Empty,
    /// As [`Begin::Empty`], but not before that time: what was sent may be counted until then.
    UsedUntil(Instant),
}

/// Why no seat was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// None can come free before the deadline. `retry_after`: when one might.
    Spent {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Too many orders of this client wait already.
    Crowded,
    /// The bucket gives no seat any more: its endpoints are counted in others from now on.
    Moved,
}

/// What a bucket looks like now (for the admin API, metrics and `RateLimit`).
///
/// `free + in_flight + cooling + retired` is the limit's N. Only after the limit was lowered it may be more, until the
/// surplus has cooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// As configured: N requests in W.
    pub limit: Limit,
    /// Seats that may be used: below the limit after a refusal by the vendor.
    pub in_force: u32,
    /// Seats that would be given at once.
    pub free: u32,
    /// Seats given out whose exchange is not settled, those of buckets before this one included.
    pub in_flight: u32,
    /// Seats that wait out their window, or the vendor's `Retry-After`.
    pub cooling: u32,
    /// Seats out of use since the vendor refused.
    pub retired: u32,
    /// Orders that wait.
    pub waiting: usize,
    /// How long until the next seat comes free, as far as is known; zero when one is free.
    pub next: Duration,
}
