//! [`Table`]: all that a reload replaces.
//!
//! Invariant: a table is prepared (all that can fail) and then committed (which cannot), so that a reload that does not
//! hold changes nothing.

use std::sync::Arc;
use std::time::Duration;

use super::app_runtime::{AppRuntime, Endpoints, Region};
use super::buckets::Buckets;
use super::budget::Budgets;
use super::endpoint::EndpointHealth;
use super::hosts::Hosts;
use super::meters::{AppMeters, PerEndpoint, RegionMeters};
use super::switched_off::SwitchedOff;
use crate::config::{self, App, Config, Quota};
use crate::kernel::clock::Clock;
use crate::kernel::fast_map::FastMap;
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{AppId, RegionName};
use crate::tls::Role;
use crate::upstream::credentials::{self, Base, Credential};
use crate::upstream::pool::{Lanes, Settings, SettingsError, Upstream};

/// All that a reload replaces.
pub(super) struct Table {
    pub(super) apps: FastMap<AppId, AppRuntime>,
    upstream: Arc<Upstream>,
    pub(super) timeouts: Timeouts,
    /// The longest that the vendor's `Retry-After` is believed.
    pub(super) max_retry_after: Duration,
}

/// How long an exchange may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// From the connection to the head of the answer.
    pub(super) first_byte: Duration,
    /// Between two pieces of its body.
    pub(super) idle: Duration,
    pub(super) request: Duration,
}

/// Why a configuration cannot be put into force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No connections can be made with these settings.
    #[error(transparent)]
    Upstream(#[from] SettingsError),
    /// A token's uid cannot stand in a header.
    #[error("apps.credential.uid of app {0} cannot stand in a header")]
    BadUid(AppId),
    /// A `base_url` lacks its scheme or host.
    #[error("apps.regions.base_url of app {app}, region {region} is not an absolute URL")]
    BadBase { app: AppId, region: RegionName },
}

/// A table whose making can no longer fail.
pub(super) struct PreparedTable {
    upstream: Arc<Upstream>,
    upstream_rules: config::Upstream,
    apps: Vec<PreparedApp>,
}

struct PreparedApp {
    id: AppId,
    credential: Arc<Credential>,
    /// Whether it was in use before and its secret must be read again.
    kept: bool,
    /// Whether its requests go elsewhere than before.
    moved: bool,
    budgets: Option<Arc<Budgets>>,
    switched_off: Arc<SwitchedOff>,
    regions: Vec<PreparedRegion>,
    quota: Quota,
    max_read: usize,
}

struct PreparedRegion {
    name: RegionName,
    base: Base,
    /// What is known of its endpoints from before, and the connections there.
    known: Option<(Endpoints, Arc<Lanes>)>,
}

impl Table {
    /// Builds all that can fail. What `old` has and still fits is used again.
    pub(super) fn prepare(config: &Config, old: Option<&Self>, clock: &Clock) -> Result<PreparedTable, BuildError> {
        // Its files are read here, so a CA file that was exchanged in place makes new connections, too.
        let settings = Settings::read(&config.upstream)?;
        let upstream = match old {
            Some(old) if old.upstream.is(&settings) => old.upstream.clone(),
            _ => Arc::new(Upstream::new(settings, clock)?),
        };
        let apps = config.apps.iter().map(|app| prepare_app(app, config, old, clock)).collect::<Result<Vec<_>, _>>()?;
        // Those that are in use are read when this is put into force.
        credentials::read(apps.iter().filter(|app| !app.kept).map(|app| &app.credential));
        Ok(PreparedTable { upstream, upstream_rules: config.upstream.clone(), apps })
    }
}

fn prepare_app(app: &App, config: &Config, old: Option<&Table>, clock: &Clock) -> Result<PreparedApp, BuildError> {
    let vendor = config.upstream.vendor;
    let before = old.and_then(|table| table.apps.get(&app.id));
    let kept =
        before.map(|runtime| &runtime.credential).filter(|credential| credential.is(&app.credential, vendor)).cloned();
    let known = |name: &RegionName, base: &Base| {
        let region = before?.regions.iter().find(|r| r.name == *name && r.base == *base)?;
        Some((region.endpoints.clone(), region.lanes.clone()))
    };
    let base = |region: &crate::config::Region| match Base::new(&region.base_url) {
        Some(base) => {
            let known = known(&region.name, &base);
            Ok(PreparedRegion { name: region.name.clone(), base, known })
        }
        None => Err(BuildError::BadBase { app: app.id.clone(), region: region.name.clone() }),
    };
    let regions: Vec<_> = app.regions.iter().map(base).collect::<Result<_, _>>()?;
    let same = |runtime: &AppRuntime| {
        runtime.regions.iter().map(|r| (&r.name, &r.base)).eq(regions.iter().map(|r| (&r.name, &r.base)))
    };
    Ok(PreparedApp {
        id: app.id.clone(),
        kept: kept.is_some(),
        moved: before.is_some_and(|runtime| !same(runtime)),
        budgets: before.map(|runtime| runtime.budgets.clone()),
        switched_off: before.map(|runtime| runtime.switched_off.clone()).unwrap_or_default(),
        credential: match kept {
            Some(credential) => credential,
            None => Credential::new(&app.id, &app.credential, vendor, clock)
                .map_err(|_| BuildError::BadUid(app.id.clone()))?,
        },
        regions,
        quota: app.quota,
        max_read: usize::try_from(app.events.max_read_bytes).unwrap_or(usize::MAX),
    })
}

impl PreparedRegion {
    fn open(self, app: &AppId, common: &Common<'_>, hosts: &mut Hosts) -> Region {
        let Self { name, base, known } = self;
        let Common { upstream, rules, clock, metrics } = *common;
        let meters = RegionMeters::new(metrics, app, &name);
        let host = hosts.host(&name, &base, rules.breaker, clock, metrics);
        let (endpoints, lanes) = known.unzip();
        let endpoints = endpoints.unwrap_or_else(|| {
            let new = |name| EndpointHealth::new(app, name, rules.breaker, rules.max_retry_after);
            PerEndpoint::new(|endpoint| Arc::new(new(endpoint.as_str())))
        });
        let lanes = lanes.filter(|lanes: &Arc<Lanes>| lanes.are_of(upstream));
        let lanes = lanes.unwrap_or_else(|| Arc::new(Lanes::new(upstream, metrics, app, &name)));
        endpoints.iter().for_each(|endpoint| endpoint.reconfigure(rules.breaker, rules.max_retry_after));
        Region { name, base, meters, host, lanes, endpoints }
    }
}

/// What all apps of a table are made with.
struct Common<'a> {
    upstream: &'a Arc<Upstream>,
    rules: &'a config::Upstream,
    clock: &'a Clock,
    metrics: &'a Metrics,
}

impl PreparedTable {
    /// Puts it into force: buckets get their limits, secrets are read again.
    pub(super) fn commit(self, buckets: &mut Buckets, hosts: &mut Hosts, clock: &Clock, metrics: &Metrics) -> Table {
        let (rules, upstream) = (&self.upstream_rules, &self.upstream);
        Role::UpstreamCa.ends(upstream.ca_ends(), metrics, clock);
        let common = Common { upstream, rules, clock, metrics };
        credentials::read(self.apps.iter().filter(|app| app.kept).map(|app| &app.credential));
        let built = self.apps.into_iter().map(|app| {
            if app.moved {
                app.credential.try_anew();
            }
            let PreparedApp { id, credential, budgets, switched_off, regions, quota, max_read, .. } = app;
            let regions = regions.into_iter().map(|region| region.open(&id, &common, hosts)).collect();
            let meters = AppMeters::new(metrics, &id);
            let budgets = budgets.unwrap_or_else(|| Arc::new(Budgets::new(rules.retry_budget)));
            budgets.reconfigure(rules.retry_budget);
            let counted_in =
                move |buckets| AppRuntime { credential, meters, budgets, switched_off, max_read, regions, buckets };
            (id, quota, counted_in)
        });
        let built: Vec<_> = built.collect();
        // Last and at once, because orders cannot get seats of a bucket that is retired, nor yet of that in its place.
        let apps = built.into_iter().map(|(id, quota, counted_in)| {
            let runtime = counted_in(buckets.of_app(&id, &quota, rules.max_retry_after));
            (id, runtime)
        });
        let apps = apps.collect();
        let timeouts = Timeouts {
            first_byte: rules.first_byte_timeout.unwrap_or(rules.request_timeout),
            idle: rules.idle_timeout,
            request: rules.request_timeout,
        };
        Table { apps, upstream: self.upstream, timeouts, max_retry_after: rules.max_retry_after }
    }
}
