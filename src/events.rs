//! Events: read once from the vendor, kept durably, handed to many subscribers.
//!
//! To be written by its owner; the signatures are the contract with the routes, the admin API and the composition root.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixMillis;
use crate::names::{AppId, Stream, SubscriptionName};
use crate::store::{Batch, Sequence};

/// All event logs of the gateway and their pollers.
#[derive(Clone)]
pub struct Events;

/// A place in a log as a client holds it: opaque, names the store's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The store's epoch.
    pub epoch: u64,
    /// The last entry read.
    pub at: Sequence,
}

/// Where a new subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum From {
    Earliest,
    Latest,
    Since(UnixMillis),
}

/// From where to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// From a subscription's stored cursor; what is handed over moves it.
    Subscription {
        /// Its name.
        name: SubscriptionName,
        /// Where it starts if it is new.
        from: From,
    },
    /// From a cursor, moving nothing.
    After(Cursor),
}

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// From where.
    pub place: Place,
    /// At most this many entries, 1 to 1000.
    pub limit: usize,
    /// How long to wait for the first entry.
    pub wait: Duration,
    /// Whether markers are wanted (native reads). Otherwise they are passed over, but the cursor moves past them.
    pub markers: bool,
}

/// A run of a batch's entries.
#[derive(Clone, Debug)]
pub struct Run {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Which of its entries.
    pub entries: Range<usize>,
}

/// What a read found. Dropping `receipt` without [`Receipt::handed_over`] gives the entries again to the next read.
#[derive(Debug)]
pub struct Delivery {
    /// The entries, oldest first. May be empty.
    pub runs: Vec<Run>,
    /// The place after the last entry.
    pub next: Cursor,
    /// Entries stored after `next`.
    pub lag: u64,
    /// To be told when the response was handed over whole.
    pub receipt: Receipt,
}

/// Stands for entries on their way to a reader.
#[derive(Debug)]
#[must_use]
pub struct Receipt;

impl Receipt {
    /// The reader has all of it: the subscription's cursor moves.
    pub fn handed_over(self) {}
}

/// Why a read cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The cursor is older than what is kept, or of another store.
    #[error("the cursor is older than retention")]
    Expired {
        /// The place before the oldest entry kept: read after this.
        earliest: Cursor,
    },
    /// The cursor is no place in this log (ahead of its end).
    #[error("the cursor is ahead of the log")]
    Ahead,
    /// This app does not have this stream.
    #[error("the stream is not read for this app")]
    NoSuchStream,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

/// What the admin API shows of a poller: one for each app, stream and region.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the JSON members")]
pub struct PollerStatus {
    pub app: String,
    pub stream: &'static str,
    pub region: String,
    pub state: &'static str,
    pub reads: u64,
    pub events: u64,
    pub duplicates: u64,
    pub possible_losses: u64,
    pub last_read_at: Option<String>,
    pub last_error: Option<String>,
    pub events_per_second: f64,
    pub seconds_to_overflow: Option<f64>,
}

/// What the admin API shows of a subscription.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the JSON members")]
pub struct SubscriptionStatus {
    pub app: String,
    pub stream: &'static str,
    pub subscription: String,
    pub cursor: String,
    pub lag: u64,
    pub in_flight: u64,
}

impl Events {
    /// Reads from a stream's log; waits up to `read.wait` for the first entry.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, _app: &AppId, _stream: Stream, _read: Read) -> Result<Delivery, ReadError> {
        unimplemented!()
    }
}
