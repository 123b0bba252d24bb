//! Metric handles, looked up once, so that an exchange formats no label.
//!
//! Invariants: labels come from the configuration, the operations' names and statuses of three digits.

use std::sync::Mutex;

use hyper::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::retry::Reason;
use crate::kernel::metrics::{
    AppLabels, BucketLabels, EndpointLabels, HistogramOnUse, Metrics, RetryLabels, UpstreamLabels,
};
use crate::kernel::names::{AppId, BucketName, RegionName};
use crate::kernel::sync::lock;
use crate::upstream::quota::Snapshot;
use crate::vendor::order::{Endpoint, Operation};

/// One thing for each of the vendor's endpoints, found without a search.
pub(super) struct PerEndpoint<T>([T; Endpoint::ALL.len()]);

impl<T> PerEndpoint<T> {
    pub(super) fn new(make: impl FnMut(Endpoint) -> T) -> Self {
        Self(Endpoint::ALL.map(make))
    }

    pub(super) fn of(&self, operation: &Operation) -> &T {
        // As many as there are endpoints, in their order.
        &self.0[operation.endpoint() as usize]
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<T: Clone> Clone for PerEndpoint<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Status(StatusCode),
    /// Without a status: no connection, no answer, or nobody who waited for it.
    Error,
}

/// The meters of an app.
pub(super) struct AppMeters {
    retries: [Counter; Reason::ALL.len()],
    pub(super) budget_exhausted: Counter,
    durations: PerEndpoint<HistogramOnUse<EndpointLabels>>,
}

/// The meters of a region: exchanges by endpoint and ending.
pub(super) struct RegionMeters {
    metrics: Metrics,
    app: AppId,
    region: RegionName,
    /// Few statuses occur: a list is searched faster than a map.
    counters: PerEndpoint<Mutex<Vec<(Ending, Counter)>>>,
}

/// The meters of a bucket.
#[derive(Clone)]
pub(super) struct BucketMeters {
    pub(super) wait: HistogramOnUse<BucketLabels>,
    pub(super) rejections: Counter,
    pub(super) refused: Counter,
    free: Gauge,
    limit: Gauge,
    waiting: Gauge,
}

impl AppMeters {
    pub(super) fn new(metrics: &Metrics, app: &AppId) -> Self {
        let durations = PerEndpoint::new(|endpoint| {
            let labels = EndpointLabels { app: app.to_string(), endpoint: endpoint.as_str().to_owned() };
            HistogramOnUse::new(&metrics.upstream_duration, labels)
        });
        let retries = Reason::ALL.map(|reason| {
            let labels = RetryLabels { app: app.to_string(), reason: reason.as_str().to_owned() };
            metrics.upstream_retries.get_or_create(&labels).clone()
        });
        let labels = AppLabels { app: app.to_string() };
        let budget_exhausted = metrics.upstream_retry_budget_exhausted.get_or_create(&labels).clone();
        Self { retries, budget_exhausted, durations }
    }

    /// An order is sent again.
    pub(super) fn again(&self, reason: Reason) {
        if let Some(counter) = self.retries.get(reason as usize) {
            counter.inc();
        }
    }

    /// How long exchanges of this operation take.
    pub(super) fn took(&self, operation: &Operation, time: std::time::Duration) {
        self.durations.of(operation).observe(time.as_secs_f64());
    }
}

impl RegionMeters {
    pub(super) fn new(metrics: &Metrics, app: &AppId, region: &RegionName) -> Self {
        let counters = PerEndpoint::new(|_| Mutex::default());
        Self { metrics: metrics.clone(), app: app.clone(), region: region.clone(), counters }
    }

    /// Counts an exchange.
    pub(super) fn ended(&self, operation: &Operation, ending: Ending) {
        let mut list = lock(self.counters.of(operation));
        if let Some((_, counter)) = list.iter().find(|(known, _)| *known == ending) {
            counter.inc();
            return;
        }
        let labels = UpstreamLabels {
            app: self.app.to_string(),
            region: self.region.to_string(),
            endpoint: operation.endpoint().as_str().to_owned(),
            status: match ending {
                Ending::Status(status) => status.as_str().to_owned(),
                Ending::Error => "error".to_owned(),
            },
        };
        let counter = self.metrics.upstream_requests.get_or_create(&labels).clone();
        counter.inc();
        list.push((ending, counter));
    }
}

impl BucketMeters {
    pub(super) fn new(metrics: &Metrics, app: &AppId, bucket: BucketName) -> Self {
        let labels = BucketLabels { app: app.to_string(), bucket: bucket.to_string() };
        Self {
            wait: HistogramOnUse::new(&metrics.quota_wait, labels.clone()),
            rejections: metrics.quota_rejections.get_or_create(&labels).clone(),
            refused: metrics.quota_refused_by_vendor.get_or_create(&labels).clone(),
            free: metrics.quota_tokens_available.get_or_create(&labels).clone(),
            limit: metrics.quota_limit.get_or_create(&labels).clone(),
            waiting: metrics.quota_waiting.get_or_create(&labels).clone(),
        }
    }

    /// Writes the gauges.
    pub(super) fn show(&self, now: &Snapshot) {
        self.free.set(i64::from(now.free));
        self.limit.set(i64::from(now.in_force));
        self.waiting.set(i64::try_from(now.waiting).unwrap_or(i64::MAX));
    }

    /// Writes that it is out of use.
    pub(super) fn gone(&self) {
        [&self.free, &self.limit, &self.waiting].into_iter().for_each(|gauge| {
            gauge.set(0);
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::kernel::names::Stream;
    use crate::vendor::order::Message;

    /// With 1000 apps the page of metrics is this times 1000.
    #[test]
    fn an_app_that_nothing_was_asked_of_has_few_lines_and_no_histogram() {
        let metrics = Metrics::new();
        let before = metrics.text();
        let app = AppId::parse("a").unwrap();
        let meters = AppMeters::new(&metrics, &app);
        let buckets = BucketName::ALL.map(|bucket| BucketMeters::new(&metrics, &app, bucket));
        let page = metrics.text();
        let more = page.lines().count() - before.lines().count();
        assert_eq!(more, Reason::ALL.len() + 1 + 5 * BucketName::ALL.len(), "{page}");
        assert!(!page.contains("_bucket{app="), "{page}");
        // What counts is there at 0: a rate sees its first step.
        for counter in [
            "upstream_retry_budget_exhausted_total{app=\"a\"}",
            "quota_rejections_total{app=\"a\",bucket=\"messages\"}",
        ] {
            assert!(page.contains(&format!("\nrtm_gateway_{counter} 0\n")), "{counter}: {page}");
        }
        meters.took(&Operation::CreateHistory(Bytes::new()), std::time::Duration::from_secs(1));
        buckets[0].wait.observe(1.0);
        let page = metrics.text();
        for histogram in ["upstream_duration_seconds", "quota_wait_seconds"] {
            assert_eq!(page.matches(&format!("\nrtm_gateway_{histogram}_count{{app=\"a\",")).count(), 1, "{page}");
        }
    }

    #[test]
    fn every_operation_has_its_meters() {
        let message = Message { user: "u".into(), query: Vec::new(), body: Bytes::new() };
        let operations = [
            Operation::ReadEvents(Stream::UserEvents),
            Operation::ReadEvents(Stream::ChannelEvents),
            Operation::CreateHistory(Bytes::new()),
            Operation::FetchHistory("h".into()),
            Operation::CountHistory(Vec::new()),
            Operation::PeerMessage(message.clone()),
            Operation::ChannelMessage(message),
        ];
        let metrics = Metrics::new();
        let region = RegionMeters::new(&metrics, &AppId::parse("a").unwrap(), &RegionName::parse("r").unwrap());
        for operation in &operations {
            region.ended(operation, Ending::Status(StatusCode::OK));
            region.ended(operation, Ending::Status(StatusCode::OK));
            region.ended(operation, Ending::Error);
        }
        let text = metrics.text();
        for endpoint in Endpoint::ALL.map(Endpoint::as_str) {
            let series = r#"upstream_requests_total{app="a",region="r",endpoint=""#;
            assert!(text.contains(&format!("{series}{endpoint}\",status=\"200\"}} 2")), "{endpoint}: {text}");
            assert!(text.contains(&format!("{series}{endpoint}\",status=\"error\"}} 1")), "{endpoint}: {text}");
        }
    }
}
