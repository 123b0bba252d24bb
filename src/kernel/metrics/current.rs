//! [`Current`]: what is in force now, as labels.

use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

use crate::kernel::sync::lock;

/// An info whose labels change: always 1, in one series at most. Cheap to clone; clones are one.
#[derive(Debug)]
pub struct Current<L>(Arc<Mutex<Option<L>>>);

impl<L> Current<L> {
    /// From now on these are the labels.
    pub fn set(&self, labels: L) {
        *lock(&self.0) = Some(labels);
    }
}

impl<L> Clone for Current<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L> Default for Current<L> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<L: EncodeLabelSet + fmt::Debug> EncodeMetric for Current<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        lock(&self.0).as_ref().map_or(Ok(()), |labels| encoder.encode_info(labels))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Info
    }
}
