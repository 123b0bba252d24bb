//! A [`ReadRequest`]: what a reader asks for.

use std::sync::Arc;
use std::time::Duration;

use crate::events::log::StartAt;
use crate::events::{Ack, Cursor, Filter};
use crate::kernel::names::{ClientName, SubscriptionName};

/// The most entries one read hands over: the vendor's own limit.
pub const MAX_IN_ONE_READ: usize = crate::vendor::events::MAX_IN_ONE_READ;

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
