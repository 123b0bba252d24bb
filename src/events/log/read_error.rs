//! [`ReadError`]: why a log, or a subscription of it, cannot be read.

use super::cursor::Cursor;

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
