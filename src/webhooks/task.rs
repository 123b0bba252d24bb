//! The task of one webhook.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::delivery_loop::DeliveryLoop;
use super::endpoint::{Endpoint, LoopEnd};

/// Delivers until the gateway stops; rests while the webhook is disabled, or not configured.
pub(super) async fn run(mut endpoint: Endpoint, stop: CancellationToken) {
    let Some(condition) = stop.run_until_cancelled(endpoint.recall()).await else { return };
    let condition = Arc::clone(endpoint.condition.get_or_init(|| condition));
    loop {
        let Some(target) = endpoint.targets.borrow_and_update().clone() else {
            endpoint.forget_metrics();
            match endpoint.stay_away(&stop).await {
                LoopEnd::Changed => continue,
                LoopEnd::Stopping => break,
            }
        };
        let left = if endpoint.is_disabled(&condition) {
            endpoint.rest(&condition, &stop).await
        } else {
            DeliveryLoop::new(&mut endpoint, target, Arc::clone(&condition)).run(&stop).await
        };
        if left == LoopEnd::Stopping {
            break;
        }
    }
}
