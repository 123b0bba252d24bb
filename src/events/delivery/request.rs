//! A [`ReadRequest`]: what a reader asks for.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::events::{Ack, Cursor, Filter};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{ClientName, SubscriptionName};

/// The most entries one read hands over: the vendor's own limit.
pub const MAX_IN_ONE_READ: usize = crate::vendor::events::MAX_IN_ONE_READ;

/// Where a new subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    Since(UnixMillis),
    After(Cursor),
}

/// From where to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// From a subscription's stored cursor; what is handed over moves it.
    Subscription {
        name: SubscriptionName,
        /// Where it starts if it is new.
        from: StartAt,
    },
    /// From a cursor, moving nothing.
    After(Cursor),
}

/// Which open stream reads: no other of this run has or had its number.
pub type StreamNumber = NonZeroU64;

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    pub place: ReadFrom,
    /// Who reads. A subscription that is new is this client's: no client can make all that there may be. And what its
    /// filters cost is charged to it.
    pub client: ClientName,
    /// At most this many entries, 1 to 1000; a number outside is taken as the nearest inside. (A marker of what
    /// retention has cut off from a subscription comes on top.)
    pub limit: usize,
    /// At most so many bytes of events, though one event at least.
    pub max_bytes: usize,
    /// How long to wait for the first entry.
    pub wait: Duration,
    /// Whether markers are wanted (native reads). Otherwise they are passed over, but the cursor moves past them.
    pub markers: bool,
    /// Which events are wanted. The others are passed over, and the cursor moves past them.
    pub filter: Arc<Filter>,
    /// How what a subscription hands over is settled. Nothing to a read by a cursor.
    pub ack: Ack,
}

/// Why a read cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The cursor is older than what is kept, or of another store.
    #[error("the cursor is older than retention")]
    Expired {
        /// The place before the oldest entry kept: read after this.
        earliest: Cursor,
        /// How many entries after the cursor are gone; `None` when it is of another store, which says nothing.
        lost: Option<u64>,
    },
    /// The cursor is no place in this log (ahead of its end).
    #[error("the cursor is ahead of the log")]
    Ahead,
    /// The cursor is of the app's other stream.
    #[error("the cursor is of another stream")]
    OfAnotherStream,
    /// This app does not have this stream.
    #[error("the stream is not read for this app")]
    NoSuchStream,
    /// The subscription is being removed; a moment later a new one of that name can begin.
    #[error("the subscription is being removed")]
    BeingRemoved,
    /// The subscription has no such dead letter.
    #[error("the subscription has no such dead letter")]
    NoSuchDeadLetter,
    /// The client has as many subscriptions of the stream as it may have.
    #[error("the client has as many subscriptions of the stream as it may have")]
    TooManyOfClient { most: usize },
    /// The stream has no such subscription.
    #[error("the stream has no such subscription")]
    NoSuchSubscription,
    /// The stream has as many subscriptions as it may have, or the client its share of them.
    #[error("the stream has too many subscriptions")]
    TooManySubscriptions,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}
