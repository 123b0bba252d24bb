//! [`BoundedFamily`]: a family whose number of series has a bound, whatever names come.
//!
//! Invariants: a label set that has a series keeps it until it is removed. Once a family is full, label sets that are
//! new share the series in which the name is [`OTHER`], so that sums stay right. The series are never more than the
//! bound, and one `other` for each combination of the other labels.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::kernel::fast_map::FastMap;

/// The name that stands for all that have no series of their own.
pub const OTHER: &str = "other";

/// Series by client that a family keeps apart. Enough to name whoever spends; few enough for a page that is read every
/// few seconds.
pub const SERIES_BY_CLIENT: usize = 10_000;

/// Labels with a name of which there may be many.
pub trait BoundedLabels: Clone + Eq + Hash {
    /// The same, with [`OTHER`] for that name.
    #[must_use]
    fn other(&self) -> Self;
}

/// A family of metrics with a bound. Cheap to clone; clones are one family.
///
/// What is shared as [`OTHER`] is added to by many: of a gauge there, only `inc` and `dec` mean something.
pub struct BoundedFamily<L, M> {
    series: Arc<RwLock<FastMap<L, M>>>,
    most: usize,
    make: fn() -> M,
}

impl<L: BoundedLabels, M: Clone> BoundedFamily<L, M> {
    /// A family without series yet, which will keep `most` of them apart. `make` makes a metric that has counted
    /// nothing.
    #[must_use]
    pub fn new(most: usize, make: fn() -> M) -> Self {
        Self { series: Arc::default(), most, make }
    }

    /// The metric with these labels, which is made with its first use; or, where there are too many, the one of
    /// `other`. Whoever uses it often keeps it.
    pub fn get_or_create(&self, labels: &L) -> M {
        if let Some(metric) = self.read().get(labels) {
            return metric.clone();
        }
        let mut series = self.write();
        let labels = match series.contains_key(labels) || series.len() < self.most {
            true => labels.clone(),
            false => labels.other(),
        };
        series.entry(labels).or_insert_with(self.make).clone()
    }

    /// Whether these labels have a series of their own.
    #[must_use]
    pub fn has(&self, labels: &L) -> bool {
        self.read().contains_key(labels)
    }

    /// Removes the series of these labels, if they have one of their own. Its place is free for another.
    pub fn remove(&self, labels: &L) {
        self.write().remove(labels);
    }

    fn write(&self) -> RwLockWriteGuard<'_, FastMap<L, M>> {
        // A map is changed whole or not at all.
        self.series.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L, M> BoundedFamily<L, M> {
    fn read(&self) -> RwLockReadGuard<'_, FastMap<L, M>> {
        self.series.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L, M> Clone for BoundedFamily<L, M> {
    fn clone(&self) -> Self {
        Self { series: self.series.clone(), most: self.most, make: self.make }
    }
}

impl<L, M> fmt::Debug for BoundedFamily<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedFamily").field("series", &self.read().len()).finish_non_exhaustive()
    }
}

impl<L: EncodeLabelSet, M: EncodeMetric + TypedMetric> EncodeMetric for BoundedFamily<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.read().iter().try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(labels)?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::metrics::RequestLabels;

    fn labels(client: &str, route: &'static str) -> RequestLabels {
        RequestLabels { route, client: client.into(), status: 200 }
    }

    #[test]
    fn who_comes_when_a_family_is_full_is_counted_as_other() {
        let family: BoundedFamily<_, Counter> = BoundedFamily::new(2, Counter::default);
        for client in ["first", "second", "third", "fourth", "first"] {
            family.get_or_create(&labels(client, "r")).inc();
        }
        let count = |client| family.read().get(&labels(client, "r")).map(Counter::get);
        assert_eq!([count("first"), count("second"), count("third")], [Some(2), Some(1), None]);
        assert_eq!(["first", "third"].map(|client| family.has(&labels(client, "r"))), [true, false]);
        assert_eq!(count(OTHER), Some(2));
        // A place that is given up is another's.
        family.remove(&labels("first", "r"));
        family.remove(&labels(OTHER, "r"));
        family.get_or_create(&labels("third", "r")).inc();
        assert_eq!([count("first"), count("third"), count(OTHER)], [None, Some(1), None]);
    }

    properties! {
        /// Whatever comes: no more series than the bound and one `other` a route, and nothing is lost from the sum.
        #[test]
        fn a_family_has_a_bound_and_its_sum_is_right(
            uses in prop::collection::vec((0..30u8, 0..3u8), 0..200),
            most in 0..20usize,
        ) {
            let family: BoundedFamily<_, Counter> = BoundedFamily::new(most, Counter::default);
            for (client, route) in &uses {
                family.get_or_create(&labels(&client.to_string(), ["a", "b", "c"][usize::from(*route)])).inc();
            }
            let series = family.read();
            prop_assert!(series.len() <= most + 3, "{}", series.len());
            prop_assert_eq!(series.values().map(Counter::get).sum::<u64>(), uses.len() as u64);
        }
    }
}
