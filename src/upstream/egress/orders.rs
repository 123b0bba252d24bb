//! What may be asked of egress, and what comes back: a [`Reply`], or why there is none.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};

use super::Failure;
use crate::kernel::names::{AppId, ClientName, RegionName};
use crate::vendor::order::Order;

/// What takes orders to the vendor: [`Egress`](super::Egress), or a script in the tests of those who order.
#[async_trait]
pub(crate) trait Orders: Send + Sync + 'static {
    /// Sends an order and waits for the whole answer.
    async fn send(&self, order: Order) -> Result<Reply, Failed>;

    /// Whether what failed may be asked once more, by the client's retry budget. If so that is spent.
    fn may_repeat(&self, app: &AppId, client: &ClientName) -> bool;
}

/// What sending an order took, for the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// All the time that was spent waiting for seats of a bucket.
    pub queue_wait: Duration,
    /// Waiting for the vendor.
    pub upstream_time: Duration,
    /// Requests that may have left: what the vendor can have counted.
    pub exchanges: u32,
    /// The vendor's `request_id` of the last answer, if it gave one.
    pub upstream_request_id: Option<Arc<str>>,
}

/// The vendor's answer, whole. Any status but 401 and 429.
#[derive(Clone, Debug)]
pub struct Reply {
    /// As the vendor said it.
    pub status: StatusCode,
    /// The allow-listed headers of the answer: content type, encoding, language, `Retry-After`, `Date`.
    pub headers: HeaderMap,
    /// Its body, decoded from transfer but not content encoding. A message's holds its place in the memory for answers
    /// until its last copy is gone.
    pub body: Bytes,
    /// The region that answered.
    pub region: RegionName,
    /// What was spent on it.
    pub costs: Costs,
}

impl Reply {
    /// How long the vendor wants to be left alone, as far as it is believed.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        // Of our own making: seconds.
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
    }
}

/// An order that got no answer.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Also says whether the vendor may have acted on it.
    pub why: Failure,
    /// What was spent on it.
    pub costs: Costs,
}
