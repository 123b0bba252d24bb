//! What an endpoint of one app has answered in one region of late.
//!
//! Invariants: answers that fail (5xx but 501, lost, late) count for their own app and endpoint alone, so that what one
//! caller's requests bring about says nothing about another app's or about other things asked of the same host. They
//! send orders to another region where there is one that does better, and never hold one back: that does the vendor's
//! own word alone, a 503 with `Retry-After` ([`Hold`]).

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::answer_time::AnswerTime;
use super::breaker::{Breaker, BreakerStatus, Role, Verdict};
use super::hold::{Hold, HoldEntry, HoldLeft};
use crate::config;
use crate::kernel::clock::UnixMillis;
use crate::kernel::metrics::{Metrics, RegionEndpointLabels};
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::sync::lock;

/// An endpoint of an app in a region.
pub(super) struct EndpointHealth {
    app: AppId,
    name: &'static str,
    record: Mutex<EndpointRecord>,
}

struct EndpointRecord {
    breaker: Breaker,
    hold: Hold,
    /// What the last failure was.
    why: Option<String>,
    /// When it began to fail.
    since: Option<UnixMillis>,
    /// From the first trouble on.
    gauges: Option<Gauges>,
    answer_time: AnswerTime,
}

/// An endpoint's trouble, as metrics show it.
struct Gauges {
    failing: Gauge,
    held: Gauge<f64, AtomicU64>,
}

/// An endpoint of an app in a region that is not as it should be, for the admin API.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EndpointState {
    /// The app.
    pub app: String,
    /// As metrics and logs name it.
    pub endpoint: &'static str,
    /// Its answers fail (5xx, lost, late): other regions are asked before this one, where there are any.
    pub failing: bool,
    /// Since when it fails.
    pub since: Option<String>,
    /// What the last failure was.
    pub why: Option<String>,
    /// The vendor asked to be left alone (503 with `Retry-After`): for so many seconds more.
    pub held_seconds: Option<f64>,
    /// While it is held: how long until one order is let through to find out whether it still is; 0 while the last of
    /// these has taken longer.
    pub next_try_seconds: Option<f64>,
}

/// As what an order goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndpointEntry {
    role: Role,
    hold: HoldEntry,
}

impl EndpointHealth {
    /// `max_hold`: the vendor's word is believed for so long.
    pub(super) fn new(app: &AppId, name: &'static str, rule: config::Breaker, max_hold: Duration) -> Self {
        let record = EndpointRecord {
            breaker: Breaker::new(rule),
            hold: Hold::new(max_hold),
            why: None,
            since: None,
            gauges: None,
            answer_time: AnswerTime::default(),
        };
        Self { app: app.clone(), name, record: Mutex::new(record) }
    }

    pub(super) fn app(&self) -> &AppId {
        &self.app
    }

    /// As metrics and logs name it.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Other rules, from now on, also for what was said before.
    pub(super) fn reconfigure(&self, rule: config::Breaker, max_hold: Duration) {
        let mut record = self.record();
        record.breaker.reconfigure(rule);
        record.hold.believe(max_hold);
    }

    /// Whether orders that may go elsewhere should.
    pub(super) fn fails(&self, at: Instant) -> bool {
        self.record().breaker.look(at).is_err()
    }

    /// What would be left at `at` of the time that the vendor asked for; `None`: an order may go out.
    pub(super) fn held_for(&self, at: Instant) -> Option<Duration> {
        self.record().hold.look(at)
    }

    /// An order goes out now, if it may.
    pub(super) fn enter(&self, is_read: bool, now: Instant) -> Option<EndpointEntry> {
        let mut record = self.record();
        let hold = record.hold.enter(is_read, now)?;
        let role = record.breaker.enter(now).unwrap_or(Role::InSpite);
        Some(EndpointEntry { role, hold })
    }

    /// The vendor asked to be left alone for so long.
    pub(super) fn hold(&self, pause: Duration, now: Instant) {
        self.record().hold.begin(pause, now);
    }

    /// It has ended, by `why` if it failed. Says whether it began to fail, or fails no more.
    pub(super) fn ended(
        &self,
        entered: EndpointEntry,
        verdict: Verdict,
        why: Option<&str>,
        now: Instant,
        wall: impl FnOnce() -> UnixMillis,
    ) -> Option<EndpointChange> {
        let mut record = self.record();
        record.hold.ended(entered.hold, verdict == Verdict::Well);
        if let (Verdict::Failed, Some(why)) = (verdict, why) {
            record.why = Some(why.to_owned());
        }
        if !record.breaker.ended(entered.role, verdict, now, rand::random()) {
            return None;
        }
        match record.breaker.status(now) {
            BreakerStatus::Closed => {
                record.since = None;
                Some(EndpointChange::Well)
            }
            BreakerStatus::Open { retry_after } if !retry_after.is_zero() => {
                record.since.get_or_insert_with(wall);
                Some(EndpointChange::Failing)
            }
            BreakerStatus::Open { .. } | BreakerStatus::Probing => None,
        }
    }

    /// An answer took so long.
    pub(super) fn took(&self, time: Duration) {
        self.record().answer_time.took(time);
    }

    /// Nearly all answers come within that, by those of late.
    pub(super) fn answers_within(&self) -> Duration {
        self.record().answer_time.nearly_all()
    }

    /// How it is; `None`: as it should be.
    pub(super) fn describe(&self, now: Instant) -> Option<EndpointState> {
        let record = self.record();
        let (failing, held) = record.trouble(now);
        (failing || held.is_some()).then(|| EndpointState {
            app: self.app.to_string(),
            endpoint: self.name,
            failing,
            since: record.since.filter(|_| failing).map(|since| since.to_string()),
            why: record.why.clone(),
            held_seconds: held.as_ref().map(|held| held.left.as_secs_f64()),
            next_try_seconds: held.map(|held| held.next_try.as_secs_f64()),
        })
    }

    /// Writes its gauges, if it has ever been in trouble.
    pub(super) fn show(&self, region: &RegionName, metrics: &Metrics, now: Instant) {
        let mut record = self.record();
        let (failing, held) = record.trouble(now);
        if !failing && held.is_none() && record.gauges.is_none() {
            return;
        }
        let gauges = record.gauges.get_or_insert_with(|| {
            let labels = RegionEndpointLabels {
                app: self.app.to_string(),
                region: region.to_string(),
                endpoint: self.name.to_owned(),
            };
            Gauges {
                failing: metrics.upstream_endpoint_failing.get_or_create(&labels).clone(),
                held: metrics.upstream_endpoint_held.get_or_create(&labels).clone(),
            }
        });
        gauges.failing.set(i64::from(failing));
        gauges.held.set(held.map_or(0.0, |held| held.left.as_secs_f64()));
    }

    fn record(&self) -> MutexGuard<'_, EndpointRecord> {
        lock(&self.record)
    }
}

impl EndpointRecord {
    /// Whether it fails, and what is left of what the vendor asked for.
    fn trouble(&self, now: Instant) -> (bool, Option<HoldLeft>) {
        (self.breaker.status(now) != BreakerStatus::Closed, self.hold.left(now))
    }
}

/// How an endpoint has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndpointChange {
    Well,
    Failing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::egress::hold::PROBE_EVERY;

    fn endpoint() -> (EndpointHealth, Instant) {
        let app = AppId::parse("an-app").unwrap();
        (EndpointHealth::new(&app, "peer_messages", config::Breaker::default(), Duration::MAX), Instant::now())
    }

    #[test]
    fn while_the_vendor_wants_to_be_left_alone_one_order_in_five_seconds_finds_out() {
        let (endpoint, began) = endpoint();
        let second = Duration::from_secs(1);
        endpoint.hold(second * 120, began);
        let mut sent = 0;
        for tenth in 0..1200 {
            let now = began + second * tenth / 10;
            if let Some(left) = endpoint.held_for(now) {
                assert_eq!((left, endpoint.enter(false, now)), (began + second * 120 - now, None));
            } else {
                let entered = endpoint.enter(false, now).unwrap();
                endpoint.ended(entered, Verdict::Failed, Some("it answered 503"), now, || UnixMillis(0));
                let shown = endpoint.describe(now).unwrap();
                assert_eq!(shown.next_try_seconds, Some(5.0));
                sent += 1;
            }
            assert!(endpoint.enter(true, now).is_some(), "reads of events have a pace of their own");
        }
        assert_eq!(sent, 23);
        assert_eq!(endpoint.held_for(began + second * 120), None);
    }

    #[test]
    fn an_order_that_finds_out_is_waited_for_before_another_does() {
        let (endpoint, began) = endpoint();
        let second = Duration::from_secs(1);
        endpoint.hold(second * 120, began);
        let slow = endpoint.enter(false, began + second * 5).unwrap();
        for later in [6, 11, 60] {
            let now = began + second * later;
            assert_eq!((endpoint.held_for(now), endpoint.enter(false, now)), (Some(second * (120 - later)), None));
            assert!(endpoint.enter(true, now).is_some(), "reads of events have a pace of their own");
        }
        // Its end is not another's.
        let read = endpoint.enter(true, began + second * 61).unwrap();
        endpoint.ended(read, Verdict::Unknown, None, began + second * 61, || UnixMillis(0));
        assert_eq!(endpoint.enter(false, began + second * 61), None);
        endpoint.ended(slow, Verdict::Unknown, None, began + second * 62, || UnixMillis(0));
        assert_eq!(endpoint.held_for(began + second * 62), None);
        let next = endpoint.enter(false, began + second * 62).unwrap();
        // One that never ends holds nobody longer than the word.
        assert!(endpoint.held_for(began + second * 119).is_some());
        assert!(endpoint.enter(false, began + second * 120).is_some());
        endpoint.ended(next, Verdict::Well, None, began + second * 121, || UnixMillis(0));
        assert_eq!(endpoint.held_for(began + second * 121), None);
    }

    #[test]
    fn its_word_is_believed_for_as_long_as_is_believed_now() {
        let (endpoint, began) = endpoint();
        let second = Duration::from_secs(1);
        endpoint.hold(second * 3600, began);
        endpoint.reconfigure(config::Breaker::default(), second * 3);
        assert_eq!(endpoint.held_for(began + second), Some(second * 2));
        assert_eq!(endpoint.held_for(began + second * 3), None);
        assert!(endpoint.enter(false, began + second * 3).is_some());
    }

    #[test]
    fn a_success_after_its_word_ends_the_wait_and_one_before_it_does_not() {
        let (endpoint, now) = endpoint();
        let before = endpoint.enter(false, now).unwrap();
        endpoint.hold(PROBE_EVERY * 100, now);
        endpoint.ended(before, Verdict::Well, None, now, || UnixMillis(0));
        assert!(endpoint.held_for(now).is_some());
        let probe = endpoint.enter(false, now + PROBE_EVERY).unwrap();
        assert!(endpoint.held_for(now + PROBE_EVERY).is_some());
        endpoint.ended(probe, Verdict::Well, None, now + PROBE_EVERY, || UnixMillis(0));
        assert_eq!(endpoint.held_for(now + PROBE_EVERY), None);
    }
}
