//! [`HistogramOnUse`]: a histogram whose series begins with its first observation.
//!
//! A histogram is 21 lines of the page. With one for each app, and each of its endpoints and buckets, most of a page
//! would be of what nobody has ever observed: with 1000 apps 26 MB of 30. A counter is one line, and stays there from
//! the start: who asks how much it grew would miss its first step.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// A histogram of one set of labels, which is on the page from its first observation on. Looks its series up once.
/// Cheap to clone; clones are one.
pub struct HistogramOnUse<L>(Arc<Unused<L>>);

struct Unused<L> {
    family: Family<L, Histogram>,
    labels: L,
    series: OnceLock<Histogram>,
}

impl<L: Clone + Hash + Eq> HistogramOnUse<L> {
    /// Of these labels in the family.
    #[must_use]
    pub fn new(family: &Family<L, Histogram>, labels: L) -> Self {
        Self(Arc::new(Unused { family: family.clone(), labels, series: OnceLock::new() }))
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let Unused { family, labels, series } = &*self.0;
        series.get_or_init(|| family.get_or_create(labels).clone()).observe(value);
    }
}

impl<L> Clone for HistogramOnUse<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<L: fmt::Debug> fmt::Debug for HistogramOnUse<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HistogramOnUse").field(&self.0.labels).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::metrics::{BucketLabels, Metrics};

    #[test]
    fn a_histogram_is_on_the_page_from_its_first_observation_on_and_all_handles_are_one() {
        let metrics = Metrics::new();
        let handle = || {
            let labels = BucketLabels { app: "a".into(), bucket: "messages".into() };
            HistogramOnUse::new(&metrics.quota_wait, labels)
        };
        let (one, other) = (handle(), handle());
        let lines = || metrics.text().lines().filter(|line| line.contains("quota_wait_seconds_")).count();
        assert_eq!(lines(), 0);
        one.clone().observe(1.0);
        other.observe(2.0);
        one.observe(4.0);
        assert_eq!(lines(), 21);
        let labels = r#"{app="a",bucket="messages"}"#;
        assert!(metrics.text().contains(&format!("\nrtm_gateway_quota_wait_seconds_count{labels} 3\n")));
        assert!(metrics.text().contains(&format!("\nrtm_gateway_quota_wait_seconds_sum{labels} 7.0\n")));
    }
}
