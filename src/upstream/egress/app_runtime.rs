//! [`AppRuntime`]: what runs for one app: where its requests go, what they show, what they are counted in.
//!
//! Invariants: a table is prepared (all that can fail) and then committed (which cannot), so that a reload that does not
//! hold changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::buckets::{AppBucket, Buckets, Lines};
use super::budget::Budgets;
use super::endpoint::Endpoint;
use super::hosts::{HostHealth, Hosts};
use super::meters::{self, AppMeters, ENDPOINTS, RegionMeters};
use super::retry::{Reason, Tries};
use super::switched_off::SwitchedOff;
use super::{BuildError, Failure, Table, Timeouts};
use tokio::time::Instant;

use crate::config::{self, App, Config, Quota};
use crate::kernel::clock::Clock;
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{AppId, BucketName, ClientName, RegionName};
use crate::upstream::credentials::{self, Base, Credential};
use crate::upstream::pool::{Lanes, Settings, Upstream};
use crate::vendor::order::{Operation, Order, Safety};

/// One app.
pub(super) struct AppRuntime {
    pub(super) credential: Arc<Credential>,
    pub(super) meters: AppMeters,
    pub(super) budgets: Arc<Budgets>,
    pub(super) switched_off: Arc<SwitchedOff>,
    /// Bytes that are kept of an answer to a read of events, decoded.
    pub(super) max_read: usize,
    regions: Vec<Region>,
    lines: Lines,
}

/// One of an app's regions.
pub(super) struct Region {
    pub(super) name: RegionName,
    pub(super) base: Base,
    pub(super) meters: RegionMeters,
    pub(super) place: Arc<HostHealth>,
    pub(super) lanes: Arc<Lanes>,
    /// In the order of [`ENDPOINTS`].
    endpoints: Endpoints,
}

type Endpoints = [Arc<Endpoint>; ENDPOINTS.len()];

/// A table whose making can no longer fail.
pub(super) struct Prepared {
    upstream: Arc<Upstream>,
    upstream_rules: config::Upstream,
    apps: Vec<PreparedApp>,
}

type Known = (Endpoints, Arc<Lanes>);

struct PreparedApp {
    id: AppId,
    credential: Arc<Credential>,
    /// Whether it was in use before and its secret must be read again.
    kept: bool,
    /// Whether its requests go elsewhere than before.
    moved: bool,
    budgets: Option<Arc<Budgets>>,
    switched_off: Arc<SwitchedOff>,
    /// With what is known of their endpoints from before, and the connections there.
    regions: Vec<(RegionName, Base, Option<Known>)>,
    quota: Quota,
    max_read: usize,
}

impl AppRuntime {
    /// The region that an order would be sent to at `at`: the one it names; else, if it keeps no state, the first that
    /// can be connected to, those last where its endpoint fails or that `tries` has failed with; else the first.
    pub(super) fn region(&self, order: &Order, tries: &Tries, at: Instant) -> Result<&Region, Failure> {
        let all = match &order.region {
            Some(name) => self.regions.iter().find(|r| r.name == *name).map(std::slice::from_ref),
            None if order.operation.keeps_no_state() => Some(&self.regions[..]),
            None => self.regions.get(..1),
        };
        let all = all.filter(|all| !all.is_empty()).ok_or(Failure::NoSuchApp)?;
        let (failed, fresh): (Vec<_>, Vec<_>) = all.iter().partition(|region| tries.has_failed(&region.name));
        let is_read = order.operation.safety() == Safety::Destructive;
        let mut failing = None;
        let mut shut: Option<(Duration, &Region)> = None;
        let mut asked: Option<(Duration, &Region)> = None;
        for region in fresh.into_iter().chain(failed) {
            let word = region.endpoint(&order.operation).and_then(|e| e.asked(at)).filter(|_| !is_read);
            match region.place.look(at) {
                Ok(()) if word.is_some() => {
                    let left = word.unwrap_or_default();
                    if asked.is_none_or(|(least, _)| left < least) {
                        asked = Some((left, region));
                    }
                }
                Ok(()) if region.endpoint(&order.operation).is_some_and(|e| e.fails(at)) => {
                    failing = failing.or(Some(region));
                }
                Ok(()) => return Ok(region),
                Err(wait) if shut.is_none_or(|(least, _)| wait < least) => shut = Some((wait, region)),
                Err(_) => {}
            }
        }
        // One that fails is asked all the same where no other can be.
        if let Some(region) = failing {
            return Ok(region);
        }
        if let Some((retry_after, region)) = asked {
            return Err(Failure::AskedToWait { region: region.name.clone(), retry_after });
        }
        let (retry_after, region) = shut.ok_or(Failure::NoSuchApp)?;
        Err(Failure::RegionDown { region: region.name.clone(), retry_after })
    }

    /// Whether an order may be sent again for this reason. If so it is counted, and what it takes of the
    /// client's budget is taken.
    pub(super) fn may_send_again(&self, reason: Reason, client: &ClientName, now: Instant) -> bool {
        if reason.is_budgeted() && !self.budgets.again(client, now) {
            self.meters.budget_exhausted.inc();
            return false;
        }
        self.meters.again(reason);
        true
    }

    /// Its regions.
    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The bucket an order of this name is counted in.
    pub(super) fn line(&self, name: BucketName) -> &AppBucket {
        let [user_events, channel_events, create, get, count, messages] = &self.lines;
        match name {
            BucketName::UserEvents => user_events,
            BucketName::ChannelEvents => channel_events,
            BucketName::HistoryCreate => create,
            BucketName::HistoryGet => get,
            BucketName::HistoryCount => count,
            BucketName::Messages => messages,
        }
    }

    /// All its buckets, each once.
    pub(super) fn lines(&self) -> impl Iterator<Item = &AppBucket> {
        BucketName::ALL.into_iter().zip(&self.lines).filter(|(name, line)| *name == line.name).map(|(_, line)| line)
    }
}

impl Region {
    /// All its endpoints.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter()
    }

    /// The endpoint of an operation.
    pub(super) fn endpoint(&self, operation: &Operation) -> Option<&Arc<Endpoint>> {
        meters::of(&self.endpoints, operation)
    }
}

impl Table {
    /// Builds all that can fail. What `old` has and still fits is used again.
    pub(super) fn prepare(config: &Config, old: Option<&Self>, clock: &Clock) -> Result<Prepared, BuildError> {
        let settings = Settings::read(&config.upstream)?;
        let upstream = match old {
            Some(old) if old.upstream.is(&settings) => old.upstream.clone(),
            _ => Arc::new(Upstream::new(settings, clock)?),
        };
        let apps = config.apps.iter().map(|app| prepare_app(app, config, old, clock)).collect::<Result<Vec<_>, _>>()?;
        // Those that are in use are read when this is put into force.
        credentials::read(apps.iter().filter(|app| !app.kept).map(|app| &app.credential));
        Ok(Prepared { upstream, upstream_rules: config.upstream.clone(), apps })
    }
}

fn prepare_app(app: &App, config: &Config, old: Option<&Table>, clock: &Clock) -> Result<PreparedApp, BuildError> {
    let vendor = config.upstream.vendor;
    let before = old.and_then(|table| table.desks.get(&app.id));
    let kept = before.map(|desk| &desk.credential).filter(|credential| credential.is(&app.credential, vendor)).cloned();
    let known = |name: &RegionName, base: &Base| {
        let region = before?.regions.iter().find(|r| r.name == *name && r.base == *base)?;
        Some((region.endpoints.clone(), region.lanes.clone()))
    };
    let base = |region: &crate::config::Region| match Base::new(&region.base_url) {
        Some(base) => Ok((region.name.clone(), base.clone(), known(&region.name, &base))),
        None => Err(BuildError::BadBase { app: app.id.clone(), region: region.name.clone() }),
    };
    let regions: Vec<_> = app.regions.iter().map(base).collect::<Result<_, _>>()?;
    let same =
        |desk: &AppRuntime| desk.regions.iter().map(|r| (&r.name, &r.base)).eq(regions.iter().map(|(n, b, _)| (n, b)));
    Ok(PreparedApp {
        id: app.id.clone(),
        kept: kept.is_some(),
        moved: before.is_some_and(|desk| !same(desk)),
        budgets: before.map(|desk| desk.budgets.clone()),
        switched_off: before.map(|desk| desk.switched_off.clone()).unwrap_or_default(),
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

impl Prepared {
    /// Puts it into force: buckets get their limits, secrets are read again.
    pub(super) fn commit(self, buckets: &mut Buckets, places: &mut Hosts, clock: &Clock, metrics: &Metrics) -> Table {
        let (rules, upstream) = (&self.upstream_rules, &self.upstream);
        credentials::read(self.apps.iter().filter(|app| app.kept).map(|app| &app.credential));
        let desks = self.apps.into_iter().map(|app| {
            if app.moved {
                app.credential.try_anew();
            }
            let regions = app.regions.into_iter().map(|(name, base, known)| {
                let meters = RegionMeters::new(metrics, &app.id, &name);
                let place = places.place(&name, &base, rules.breaker, clock, metrics);
                let (endpoints, lanes) = known.unzip();
                let endpoints = endpoints.unwrap_or_else(|| {
                    let new = |endpoint| Endpoint::new(&app.id, endpoint, rules.breaker, rules.max_retry_after);
                    ENDPOINTS.map(|endpoint| Arc::new(new(endpoint)))
                });
                let lanes = lanes.filter(|lanes: &Arc<Lanes>| lanes.are_of(upstream));
                let lanes = lanes.unwrap_or_else(|| Arc::new(Lanes::new(upstream, metrics, &app.id, &name)));
                endpoints.iter().for_each(|endpoint| endpoint.reconfigure(rules.breaker, rules.max_retry_after));
                Region { name, base, meters, place, lanes, endpoints }
            });
            let regions = regions.collect();
            let meters = AppMeters::new(metrics, &app.id);
            let budgets = app.budgets.unwrap_or_else(|| Arc::new(Budgets::new(rules.retry_budget)));
            budgets.reconfigure(rules.retry_budget);
            ((app.id, app.quota, app.max_read), app.credential, meters, budgets, app.switched_off, regions)
        });
        // Last, because orders cannot get seats of a bucket that is retired, nor yet of that in its place.
        let built: Vec<_> = desks.collect();
        let desks =
            built.into_iter().map(|((app, quota, max_read), credential, meters, budgets, switched_off, regions)| {
                let lines = buckets.lines(&app, &quota, rules.max_retry_after);
                (app, AppRuntime { credential, meters, budgets, switched_off, max_read, regions, lines })
            });
        let desks: HashMap<_, _> = desks.collect();
        let timeouts = Timeouts {
            first_byte: rules.first_byte_timeout.unwrap_or(rules.request_timeout),
            idle: rules.idle_timeout,
            request: rules.request_timeout,
        };
        Table { desks, upstream: self.upstream, timeouts, max_retry_after: rules.max_retry_after }
    }
}
