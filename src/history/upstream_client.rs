//! The one thing history needs of egress, so that a scripted vendor can stand in its place.

use async_trait::async_trait;

use crate::kernel::names::{AppId, ClientName};
use crate::upstream::egress::{Egress, Failed, Reply};
use crate::vendor::order::Order;

/// Takes orders to the vendor.
#[async_trait]
pub(super) trait UpstreamClient: Send + Sync {
    /// Sends an order and waits for the whole answer.
    async fn send(&self, order: Order) -> Result<Reply, Failed>;

    /// Whether what failed may be asked once more, by the client's retry budget. If so that is spent.
    fn may_repeat(&self, app: &AppId, client: &ClientName) -> bool;
}

#[async_trait]
impl UpstreamClient for Egress {
    async fn send(&self, order: Order) -> Result<Reply, Failed> {
        Self::send(self, order).await
    }

    fn may_repeat(&self, app: &AppId, client: &ClientName) -> bool {
        Self::may_repeat(self, app, client)
    }
}
