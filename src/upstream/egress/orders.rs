//! What may be asked of egress, and what comes back: a [`Reply`], or why there is none.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};

use super::{Costs, Failure, WorkCosts};
use crate::kernel::names::{AppId, ClientName, RegionName};
use crate::vendor::order::Order;

/// What takes orders to the vendor: [`Egress`](super::Egress), or a script in the tests of those who order.
#[async_trait]
pub(crate) trait Orders: Send + Sync + 'static {
    /// Sends an order and waits for the whole answer.
    async fn send(&self, order: Order) -> Result<Reply, Failed>;

    /// The same; what it costs is added to the work that it is for, also when it is dropped on the way.
    async fn send_for(&self, order: Order, work: &WorkCosts) -> Result<Reply, Failed>;

    /// Whether what failed may be asked once more, by the client's retry budget. If so that is spent.
    fn may_repeat(&self, app: &AppId, client: &ClientName) -> bool;
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
