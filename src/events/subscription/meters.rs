//! How far behind a subscription is, and its meters.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::Subscription;
use crate::events::lock;
use crate::kernel::metrics::{Metrics, SubscriptionLabels};
use crate::kernel::names::SubscriptionName;
use crate::store::LogKey;

/// What a subscription looks like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) struct Backlog {
    /// The last entry up to which all are settled.
    pub(in crate::events) low: u64,
    /// Entries that are not settled.
    pub(in crate::events) lag: u64,
    /// Of those, the ones in a response or under a lease.
    pub(in crate::events) in_flight: u64,
    /// Of those that are not settled, the ones that were handed out to be acknowledged.
    pub(in crate::events) unacknowledged: u64,
}

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

impl Subscription {
    /// What it looks like in a log whose next entry is `next`. Sets the metrics too.
    pub(in crate::events) fn observe(self: &Arc<Self>, next: u64) -> Backlog {
        let standing = {
            let state = lock(&self.state);
            Backlog {
                low: state.low(),
                lag: state.ranges.lag(next) + state.leases.len() as u64,
                in_flight: state.ranges.in_flight() + state.leases.held() as u64,
                unacknowledged: state.leases.tried() as u64,
            }
        };
        let shown = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if !self.is_removed() {
            self.meters.lag.set(shown(standing.lag));
            self.meters.unacknowledged.set(shown(standing.unacknowledged));
        }
        standing
    }
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
