//! The metrics of one subscription, made and removed with it.

use std::sync::Arc;

use crate::kernel::metrics::{Metrics, SubscriptionLabels, SubscriptionSeries};
use crate::kernel::names::SubscriptionName;
use crate::store::LogKey;

/// What is counted of a subscription that is there from now on.
pub(super) fn enter(metrics: &Metrics, log: &LogKey, name: &SubscriptionName) -> Arc<SubscriptionSeries> {
    metrics.subscriptions.enter(&labels(log, name))
}

/// A subscription is no more: nor are its metrics.
pub(super) fn remove(metrics: &Metrics, log: &LogKey, name: &SubscriptionName) {
    metrics.subscriptions.remove(&labels(log, name));
}

fn labels(log: &LogKey, name: &SubscriptionName) -> SubscriptionLabels {
    SubscriptionLabels { app: log.app.to_string(), stream: log.stream.to_string(), subscription: name.to_string() }
}
