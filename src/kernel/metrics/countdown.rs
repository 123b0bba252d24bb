//! [`Countdown`]: how long it is until something ends, told anew whenever the page is read.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::kernel::clock::Clock;
use crate::kernel::sync::lock;

/// A family of gauges: seconds until each end, and less than none after it. Cheap to clone; clones are one family.
#[derive(Debug)]
pub struct Countdown<L>(Arc<Mutex<HashMap<L, End>>>);

#[derive(Debug)]
struct End {
    clock: Clock,
    /// In seconds since 1970.
    at: i64,
}

impl<L: Clone + Eq + Hash> Countdown<L> {
    /// Sets when it ends, in seconds since 1970 by that clock. `None`: there is nothing that ends.
    pub fn set(&self, labels: &L, at: Option<i64>, clock: &Clock) {
        let mut ends = lock(&self.0);
        match at {
            Some(at) => drop(ends.insert(labels.clone(), End { clock: clock.clone(), at })),
            None => drop(ends.remove(labels)),
        }
    }
}

impl<L> Clone for Countdown<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L> Default for Countdown<L> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<L: EncodeLabelSet + fmt::Debug> EncodeMetric for Countdown<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        lock(&self.0).iter().try_for_each(|(labels, end)| {
            let now = i64::try_from(end.clock.wall_ms().seconds()).unwrap_or(i64::MAX);
            ConstGauge::new(end.at.saturating_sub(now)).encode(encoder.encode_family(labels)?)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
