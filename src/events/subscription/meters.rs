//! [`SubscriptionMeters`]: the metrics of one subscription, made and removed with it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::kernel::metrics::{Metrics, SubscriptionLabels};
use crate::kernel::names::SubscriptionName;
use crate::store::LogKey;

/// See [`Metrics`] for what each means.
pub(in crate::events) struct SubscriptionMeters {
    pub(in crate::events) delivered: Counter,
    pub(in crate::events) given_again: Counter,
    pub(in crate::events) acknowledged: Counter,
    pub(in crate::events) dead_lettered: Counter,
    pub(in crate::events) cut_off: Counter,
    pub(in crate::events) lag: Gauge,
    pub(in crate::events) unacknowledged: Gauge,
    pub(in crate::events) oldest: Gauge,
    pub(in crate::events) near_retention: Gauge,
}

impl SubscriptionMeters {
    pub(super) fn new(metrics: &Metrics, log: &LogKey, name: &SubscriptionName) -> Self {
        let labels = labels(log, name);
        Self {
            delivered: metrics.events_delivered.get_or_create_owned(&labels),
            given_again: metrics.events_given_again.get_or_create_owned(&labels),
            acknowledged: metrics.events_acknowledged.get_or_create_owned(&labels),
            dead_lettered: metrics.events_dead_lettered.get_or_create_owned(&labels),
            cut_off: metrics.events_cut_off.get_or_create_owned(&labels),
            lag: metrics.subscription_lag.get_or_create_owned(&labels),
            unacknowledged: metrics.subscription_unacknowledged.get_or_create_owned(&labels),
            oldest: metrics.subscription_oldest.get_or_create_owned(&labels),
            near_retention: metrics.subscription_near_retention.get_or_create_owned(&labels),
        }
    }

    /// A subscription is no more: nor are its metrics.
    pub(super) fn remove(metrics: &Metrics, log: &LogKey, name: &SubscriptionName) {
        let labels = labels(log, name);
        metrics.events_delivered.remove(&labels);
        metrics.events_given_again.remove(&labels);
        metrics.events_acknowledged.remove(&labels);
        metrics.events_dead_lettered.remove(&labels);
        metrics.events_cut_off.remove(&labels);
        metrics.subscription_lag.remove(&labels);
        metrics.subscription_unacknowledged.remove(&labels);
        metrics.subscription_oldest.remove(&labels);
        metrics.subscription_near_retention.remove(&labels);
    }
}

fn labels(log: &LogKey, name: &SubscriptionName) -> SubscriptionLabels {
    SubscriptionLabels { app: log.app.to_string(), stream: log.stream.to_string(), subscription: name.to_string() }
}
