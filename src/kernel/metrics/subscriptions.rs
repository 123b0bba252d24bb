//! [`SubscriptionBook`]: the metrics of subscriptions, of which there may be thousands.
//!
//! Of an app [`NAMED`] subscriptions have series of their own, from the first on; all others share those of
//! [`OTHER`], one for each stream. Of these the [`FURTHEST`] that are behind are shown by their gauges all the same:
//! who is about to lose events must have a name, and a gauge may come and go where a counter may not.
//!
//! Invariants: no counter of a series goes back while its subscription is there, nor does one of `other` at all. A
//! subscription that is removed leaves no series, and one of the others has its place.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

use super::{OTHER, SubscriptionLabels};
use crate::kernel::sync::lock;

/// Subscriptions of an app that have series of their own: nine of each are some 100 kB of a page.
const NAMED: usize = 100;

/// Of the others, so many of an app are shown by their gauges.
const FURTHEST: usize = 10;

const COUNTERS: [(&str, &str); 5] = [
    ("events_delivered", "Events delivered."),
    ("events_given_again", "Events whose first hand-over failed."),
    ("events_cut_off", "Events that retention removed before the subscription read them."),
    ("events_acknowledged", "Events that a reader has acknowledged."),
    ("events_dead_lettered", "Events given up after their last attempt; see the subscription's dead letters."),
];

const GAUGES: [(&str, &str); 4] = [
    ("subscription_unacknowledged_events", "Events handed out to be acknowledged that are not yet."),
    (
        "subscription_oldest_event_age_seconds",
        "How long ago the oldest event was stored that is not done with; 0 when there is none.",
    ),
    (
        "subscription_near_retention",
        "1 when retention is about to remove events before the subscription has read them.",
    ),
    ("subscription_lag_events", "Events stored and not yet delivered."),
];

/// What is counted of one subscription.
#[derive(Debug, Default)]
pub struct SubscriptionSeries {
    /// Events delivered.
    pub delivered: Counter,
    /// Events whose first hand-over failed.
    pub given_again: Counter,
    /// Events that retention removed before it read them.
    pub cut_off: Counter,
    /// Events that its readers acknowledged.
    pub acknowledged: Counter,
    /// Events given up.
    pub dead_lettered: Counter,
    /// Events handed out to be acknowledged that are not yet.
    pub unacknowledged: Gauge,
    /// Seconds since the oldest event was stored that is not done with.
    pub oldest: Gauge,
    /// 1 while retention is about to cut it off.
    pub near_retention: Gauge,
    /// Events stored and not yet delivered.
    pub lag: Gauge,
}

type Counts = [u64; COUNTERS.len()];
type Levels = [i64; GAUGES.len()];

impl SubscriptionSeries {
    fn counts(&self) -> Counts {
        [&self.delivered, &self.given_again, &self.cut_off, &self.acknowledged, &self.dead_lettered].map(Counter::get)
    }

    fn levels(&self) -> Levels {
        [&self.unacknowledged, &self.oldest, &self.near_retention, &self.lag].map(Gauge::get)
    }
}

/// The series of all subscriptions. Cheap to clone; clones are one book.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionBook(Arc<Mutex<BTreeMap<String, AppBook>>>);

/// An app's.
#[derive(Debug, Default)]
struct AppBook {
    /// By stream and name.
    named: BTreeMap<(String, String), Entry>,
    others: BTreeMap<(String, String), Arc<SubscriptionSeries>>,
    /// By stream: what was counted as `other` of those that are there no more, or have a name now.
    left: BTreeMap<String, Counts>,
}

#[derive(Debug)]
struct Entry {
    series: Arc<SubscriptionSeries>,
    /// What was counted as `other` before.
    before: Counts,
}

/// Of one subscription, or of all others of a stream.
struct Row {
    labels: SubscriptionLabels,
    counts: Option<Counts>,
    levels: Option<Levels>,
}

fn add(sum: &mut Counts, more: Counts) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(more));
}

impl SubscriptionBook {
    /// A subscription is there: what is counted of it from now on.
    #[must_use]
    pub fn enter(&self, labels: &SubscriptionLabels) -> Arc<SubscriptionSeries> {
        let SubscriptionLabels { app, stream, subscription } = labels.clone();
        let (mut apps, key) = (lock(&self.0), (stream, subscription));
        let book = apps.entry(app).or_default();
        let known = book.named.get(&key).map(|entry| &entry.series).or_else(|| book.others.get(&key));
        if let Some(series) = known {
            // Its log was closed for a while.
            return Arc::clone(series);
        }
        let series = Arc::<SubscriptionSeries>::default();
        // One that is called `other` cannot be told from them.
        if book.named.len() < NAMED && key.1 != OTHER {
            book.named.insert(key, Entry { series: Arc::clone(&series), before: Counts::default() });
        } else {
            book.others.insert(key, Arc::clone(&series));
        }
        series
    }

    /// A subscription is no more: nor are its series.
    pub fn remove(&self, labels: &SubscriptionLabels) {
        let mut apps = lock(&self.0);
        let Some(book) = apps.get_mut(&labels.app) else { return };
        let key = (labels.stream.clone(), labels.subscription.clone());
        if book.named.remove(&key).is_some() {
            book.name_another();
        } else if let Some(gone) = book.others.remove(&key) {
            add(book.left.entry(key.0).or_default(), gone.counts());
        }
    }

    fn rows(&self) -> Vec<Row> {
        lock(&self.0).iter().flat_map(|(app, book)| book.rows(app)).collect()
    }
}

impl AppBook {
    /// A name is free: the one that is furthest behind has it.
    fn name_another(&mut self) {
        let candidates = self.others.iter().filter(|((_, name), _)| name != OTHER);
        let Some(key) = candidates.max_by_key(|(_, series)| series.lag.get()).map(|(key, _)| key.clone()) else {
            return;
        };
        if let Some(series) = self.others.remove(&key) {
            let before = series.counts();
            add(self.left.entry(key.0.clone()).or_default(), before);
            self.named.insert(key, Entry { series, before });
        }
    }

    fn rows(&self, app: &str) -> Vec<Row> {
        let labels = |stream: &str, subscription: &str| SubscriptionLabels {
            app: app.to_owned(),
            stream: stream.to_owned(),
            subscription: subscription.to_owned(),
        };
        let mut rows = Vec::with_capacity(self.named.len() + FURTHEST + 2);
        for ((stream, name), Entry { series, before }) in &self.named {
            let (mut counts, levels) = (series.counts(), series.levels());
            counts.iter_mut().zip(before).for_each(|(count, before)| *count = count.saturating_sub(*before));
            rows.push(Row { labels: labels(stream, name), counts: Some(counts), levels: Some(levels) });
        }
        let mut sums: BTreeMap<&str, (Counts, Levels)> =
            self.left.iter().map(|(stream, left)| (stream.as_str(), (*left, Levels::default()))).collect();
        let mut others: Vec<_> = self.others.iter().collect();
        others.sort_by_cached_key(|(_, series)| Reverse(series.lag.get()));
        let mut shown = 0;
        for ((stream, name), series) in others {
            let (counts, levels) = sums.entry(stream).or_default();
            add(counts, series.counts());
            let [unacknowledged, oldest, near, lag] = series.levels();
            if shown < FURTHEST && lag > 0 && name != OTHER {
                shown += 1;
                rows.push(Row { labels: labels(stream, name), counts: None, levels: Some(series.levels()) });
                continue;
            }
            levels[0] = levels[0].saturating_add(unacknowledged);
            levels[1] = levels[1].max(oldest);
            levels[2] = levels[2].max(near);
            levels[3] = levels[3].saturating_add(lag);
        }
        let sums = sums.into_iter().map(|(stream, (counts, levels))| Row {
            labels: labels(stream, OTHER),
            counts: Some(counts),
            levels: Some(levels),
        });
        rows.extend(sums);
        rows
    }
}

impl Collector for SubscriptionBook {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let rows = self.rows();
        for (at, (name, help)) in COUNTERS.into_iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for Row { labels, counts, .. } in &rows {
                if let Some(counts) = counts {
                    ConstCounter::new(counts[at]).encode(family.encode_family(labels)?)?;
                }
            }
        }
        for (at, (name, help)) in GAUGES.into_iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for Row { labels, levels, .. } in &rows {
                if let Some(levels) = levels {
                    ConstGauge::new(levels[at]).encode(family.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::metrics::Metrics;

    fn labels(name: &str) -> SubscriptionLabels {
        SubscriptionLabels { app: "a".into(), stream: "user_events".into(), subscription: name.into() }
    }

    fn shown(metrics: &Metrics, family: &str, name: &str) -> Option<i64> {
        let line = format!("rtm_gateway_{family}{{app=\"a\",stream=\"user_events\",subscription=\"{name}\"}} ");
        metrics.text().lines().find_map(|found| found.strip_prefix(&line)?.parse().ok())
    }

    #[test]
    fn the_first_have_series_of_their_own_the_rest_share_theirs_and_the_furthest_behind_is_seen() {
        let metrics = Metrics::new();
        let all: Vec<_> = (0..300).map(|n| metrics.subscriptions.enter(&labels(&format!("s{n}")))).collect();
        for (n, series) in all.iter().enumerate() {
            series.delivered.inc_by(2);
            series.lag.set(i64::try_from(n % 150).unwrap());
            series.oldest.set(i64::try_from(n).unwrap());
        }
        let delivered = |name| shown(&metrics, "events_delivered_total", name);
        let lag = |name| shown(&metrics, "subscription_lag_events", name);
        assert_eq!((delivered("s0"), delivered("s99"), delivered("s100")), (Some(2), Some(2), None));
        assert_eq!(delivered(OTHER), Some(400));
        // Of the others: 299 and 149 are furthest behind, and so on down to 145.
        assert_eq!((lag("s299"), lag("s145"), lag("s144"), lag("s294")), (Some(149), Some(145), None, None));
        let sum: i64 = (0..300).map(|n| n % 150).sum();
        let page = metrics.text();
        let lags = page.lines().filter(|line| line.starts_with("rtm_gateway_subscription_lag_events{"));
        assert_eq!(lags.clone().count(), NAMED + FURTHEST + 1);
        assert_eq!(lags.map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap()).sum::<i64>(), sum);
        assert_eq!(shown(&metrics, "subscription_oldest_event_age_seconds", OTHER), Some(294));
        assert!(page.len() < 200_000, "{}", page.len());
    }

    #[test]
    fn a_name_that_is_free_is_given_to_another_and_no_sum_goes_back() {
        let metrics = Metrics::new();
        let book = &metrics.subscriptions;
        let all: Vec<_> = (0..NAMED + 3).map(|n| book.enter(&labels(&format!("s{n}")))).collect();
        for series in &all {
            series.delivered.inc_by(10);
        }
        all[NAMED + 1].lag.set(7);
        let named = format!("s{}", NAMED + 1);
        let delivered = |name: &str| shown(&metrics, "events_delivered_total", name);
        assert_eq!((delivered(OTHER), delivered(&named)), (Some(30), None));
        book.remove(&labels("s0"));
        assert_eq!((delivered("s0"), delivered(OTHER), delivered(&named)), (None, Some(30), Some(0)));
        all[NAMED + 1].delivered.inc_by(5);
        all[NAMED].delivered.inc_by(1);
        assert_eq!((delivered(OTHER), delivered(&named)), (Some(31), Some(5)));
        book.remove(&labels(&format!("s{NAMED}")));
        assert_eq!(delivered(OTHER), Some(31), "what was counted was counted");
        // One that is called as the others are is one of them.
        let other = book.enter(&labels(OTHER));
        other.delivered.inc();
        assert_eq!(delivered(OTHER), Some(32));
        assert_eq!(metrics.text().matches("events_delivered_total{").count(), NAMED + 1);
    }
}
