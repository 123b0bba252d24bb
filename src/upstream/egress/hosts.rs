//! Hosts: what is known of a region's host, whoever asks it.
//!
//! Invariants: apps whose regions have the same name and the same host share one [`HostHealth`], and so one breaker. It
//! counts connections that cannot be made and nothing else; any answer, whatever it says and whoever gets it, is a
//! success: what an app's own requests are answered is its [`EndpointHealth`]'s. What is known outlives reloads while
//! an app names it. The state is under one short lock.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::HeaderMap;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::breaker::{Breaker, BreakerStatus, Role, Verdict};
use super::endpoint::{EndpointChange, EndpointEntry, EndpointHealth, EndpointState};
use super::skew::Skew;
use crate::config;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{Metrics, PlaceLabels};
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::sync::lock;
use crate::upstream::credentials::Base;

/// A region's host.
pub(super) struct HostHealth {
    region: RegionName,
    /// With its port if it is not the scheme's own.
    address: String,
    clock: Clock,
    state: Mutex<HostRecord>,
    open: Gauge,
    skew: Gauge<f64, AtomicU64>,
}

struct HostRecord {
    breaker: Breaker,
    skew: Skew,
    /// Why no connection could be made the last time.
    why: Option<String>,
    /// Since when the breaker is not closed.
    since: Option<UnixMillis>,
}

/// The right to send one request to a host. Dropped without a verdict, it says nothing about it.
pub(super) struct Ticket {
    host: Arc<HostHealth>,
    role: Role,
    endpoint: Arc<EndpointHealth>,
    entered: EndpointEntry,
    told: bool,
}

/// What an exchange said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExchangeVerdict {
    /// About the host: whether it can be connected to.
    pub(super) host: Verdict,
    /// About the endpoint: whether it serves.
    pub(super) endpoint: Verdict,
}

/// How a region's host is, for the admin API.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RegionState {
    /// The region's name in the configuration.
    pub region: String,
    /// The host, with its port if it is not the scheme's own.
    pub host: String,
    /// The apps that name it.
    pub apps: Vec<String>,
    /// `closed` (all is sent), `open` (no connection can be made: nothing is) or `probing` (one request is under way to
    /// find out).
    pub breaker: &'static str,
    /// While it is open: how long until the next request is let through, in seconds.
    pub retry_after_seconds: Option<f64>,
    /// While it is not closed: since when.
    pub since: Option<String>,
    /// While it is not closed: why no connection could be made the last time.
    pub why: Option<String>,
    /// The vendor's clock less ours; `None` before the first answer with a `Date`.
    pub clock_skew_seconds: Option<f64>,
    /// The endpoints here whose answers fail, or that the vendor asked to leave alone.
    pub endpoints: Vec<EndpointState>,
}

/// All hosts in use.
#[derive(Default)]
pub(super) struct Hosts(HashMap<(RegionName, Base), Arc<HostHealth>>);

impl Hosts {
    /// The host of a region, with this rule from now on.
    pub(super) fn host(
        &mut self,
        region: &RegionName,
        base: &Base,
        rule: config::Breaker,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Arc<HostHealth> {
        let host = self.0.entry((region.clone(), base.clone())).or_insert_with(|| {
            let labels = PlaceLabels { region: region.to_string(), host: base.host().to_owned() };
            Arc::new(HostHealth {
                region: region.clone(),
                address: base.host().to_owned(),
                clock: clock.clone(),
                state: Mutex::new(HostRecord {
                    breaker: Breaker::new(rule),
                    skew: Skew::default(),
                    why: None,
                    since: None,
                }),
                open: metrics.upstream_breaker_open.get_or_create(&labels).clone(),
                skew: metrics.upstream_clock_skew.get_or_create(&labels).clone(),
            })
        });
        host.state().breaker.reconfigure(rule);
        host.show();
        host.clone()
    }

    /// Forgets the hosts that no table names any more.
    pub(super) fn prune(&mut self) {
        self.0.retain(|_, host| {
            let in_use = Arc::strong_count(host) > 1;
            if !in_use {
                host.open.set(0);
                host.skew.set(0.0);
            }
            in_use
        });
    }
}

impl HostHealth {
    /// Would an order be let through at `at`? If not: how long after that to ask again.
    pub(super) fn look(&self, at: Instant) -> Result<(), Duration> {
        self.state().breaker.look(at)
    }

    /// The right to send one request now, if there is.
    pub(super) fn enter(
        self: &Arc<Self>,
        endpoint: &Arc<EndpointHealth>,
        is_read: bool,
        now: Instant,
    ) -> Option<Ticket> {
        self.look(now).ok()?;
        // Looked at before, entered after the endpoint: a probe of the host that the endpoint then refuses would never
        // end.
        let entered = endpoint.enter(is_read, now)?;
        let role = self.state().breaker.enter(now).unwrap_or(Role::InSpite);
        Some(Ticket { host: self.clone(), role, endpoint: endpoint.clone(), entered, told: false })
    }

    /// An answer's head has come at `now`, `after` its request had left.
    pub(super) fn note_date(&self, headers: &HeaderMap, after: Duration, now: Instant) {
        let mut state = self.state();
        let told = state.skew.note(headers, after, now, || self.clock.wall_ms());
        if let Some(seconds) = state.skew.seconds {
            self.skew.set(seconds);
        }
        drop(state);
        if let Some(seconds) = told {
            tracing::warn!(
                region = %self.region, host = self.address, skew_seconds = seconds.round(),
                "this machine's clock and the vendor's disagree by more than a minute (skew: theirs less ours)"
            );
        }
    }

    /// How it is, with these of its apps' endpoints.
    pub(super) fn describe(&self, apps: Vec<&AppId>, endpoints: Vec<EndpointState>) -> RegionState {
        let state = self.state();
        let (breaker, retry_after) = match state.breaker.status(self.clock.now()) {
            BreakerStatus::Closed => ("closed", None),
            BreakerStatus::Open { retry_after } => ("open", Some(retry_after.as_secs_f64())),
            BreakerStatus::Probing => ("probing", None),
        };
        RegionState {
            region: self.region.to_string(),
            host: self.address.clone(),
            apps: apps.into_iter().map(ToString::to_string).collect(),
            breaker,
            retry_after_seconds: retry_after,
            since: state.since.map(|since| since.to_string()),
            why: state.why.clone().filter(|_| breaker != "closed"),
            clock_skew_seconds: state.skew.seconds,
            endpoints,
        }
    }

    fn ended(&self, role: Role, verdict: Verdict, why: Option<&str>, now: Instant) {
        let mut state = self.state();
        if let (Verdict::Failed, Some(why)) = (verdict, why) {
            state.why = Some(why.to_owned());
        }
        if !state.breaker.ended(role, verdict, now, rand::random()) {
            return;
        }
        let seen = state.breaker.status(now);
        match seen {
            BreakerStatus::Closed => state.since = None,
            BreakerStatus::Open { .. } | BreakerStatus::Probing => {
                state.since.get_or_insert_with(|| self.clock.wall_ms());
            }
        }
        drop(state);
        self.show();
        match seen {
            BreakerStatus::Closed => {
                tracing::info!(region = %self.region, host = self.address, "the region can be reached again")
            }
            BreakerStatus::Open { retry_after } if !retry_after.is_zero() => tracing::warn!(
                region = %self.region, host = self.address, seconds = retry_after.as_secs_f64(), why,
                "the region cannot be reached: it is left alone for a while"
            ),
            BreakerStatus::Open { .. } | BreakerStatus::Probing => {}
        }
    }

    fn show(&self) {
        let is_closed = self.state().breaker.status(self.clock.now()) == BreakerStatus::Closed;
        self.open.set(i64::from(!is_closed));
    }

    fn state(&self) -> MutexGuard<'_, HostRecord> {
        lock(&self.state)
    }
}

impl Ticket {
    /// Tells what the exchange said that ended now, and why it failed, if it did.
    pub(super) fn tell(mut self, said: ExchangeVerdict, why: Option<&str>, now: Instant) {
        self.told = true;
        self.ended(said, why, now);
    }

    fn ended(&self, said: ExchangeVerdict, why: Option<&str>, now: Instant) {
        self.host.ended(self.role, said.host, why, now);
        let wall = || self.host.clock.wall_ms();
        let turned = self.endpoint.ended(self.entered, said.endpoint, why, now, wall);
        let (region, host, endpoint) = (&self.host.region, &self.host.address, self.endpoint.name());
        match turned {
            None => {}
            Some(EndpointChange::Well) => {
                tracing::info!(%region, host, app = %self.endpoint.app(), endpoint, "the vendor serves again");
            }
            Some(EndpointChange::Failing) => {
                tracing::warn!(
                    %region, host, app = %self.endpoint.app(), endpoint, why,
                    "the vendor fails: another region is asked first, where there is one"
                );
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.told {
            let unknown = ExchangeVerdict { host: Verdict::Unknown, endpoint: Verdict::Unknown };
            self.ended(unknown, None, self.host.clock.now());
        }
    }
}
