//! One app's desk: where its requests go, what they show, what they are counted in.
//!
//! Invariants: a table is prepared (all that can fail) and then committed (which cannot), so that a reload that does not
//! hold changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::buckets::{Buckets, Line};
use super::meters::{AppMeters, RegionMeters};
use super::{BuildError, Table};
use crate::clock::Clock;
use crate::config::{App, Config, Limit, Quota, QuotaRule};
use crate::credentials::{Base, Credential};
use crate::metrics::Metrics;
use crate::names::{AppId, BucketName, RegionName};
use crate::upstream::{Settings, Upstream};

/// One app.
pub(super) struct Desk {
    pub(super) credential: Arc<Credential>,
    pub(super) meters: AppMeters,
    regions: Vec<Region>,
    /// In the order of [`BucketName::ALL`]; those that share are the other's again.
    lines: [Line; BucketName::ALL.len()],
}

/// One of an app's regions.
pub(super) struct Region {
    pub(super) name: RegionName,
    pub(super) base: Base,
    pub(super) meters: RegionMeters,
}

/// A table whose making can no longer fail.
pub(super) struct Prepared {
    upstream: Arc<Upstream>,
    request_timeout: Duration,
    apps: Vec<PreparedApp>,
}

struct PreparedApp {
    id: AppId,
    credential: Arc<Credential>,
    /// Whether it was in use before and its secret must be read again.
    kept: bool,
    regions: Vec<(RegionName, Base)>,
    quota: Quota,
}

impl Desk {
    /// The region of that name, or the first.
    pub(super) fn region(&self, name: Option<&RegionName>) -> Option<&Region> {
        match name {
            None => self.regions.first(),
            Some(name) => self.regions.iter().find(|r| r.name == *name),
        }
    }

    /// The bucket an order of this name is counted in.
    pub(super) fn line(&self, name: BucketName) -> &Line {
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
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        BucketName::ALL.into_iter().zip(&self.lines).filter(|(name, line)| *name == line.name).map(|(_, line)| line)
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
        let apps = config.apps.iter().map(|app| prepare_app(app, config, old, clock)).collect::<Result<_, _>>()?;
        Ok(Prepared { upstream, request_timeout: config.upstream.request_timeout, apps })
    }
}

fn prepare_app(app: &App, config: &Config, old: Option<&Table>, clock: &Clock) -> Result<PreparedApp, BuildError> {
    let vendor = config.upstream.vendor;
    let in_use = old.and_then(|table| table.desks.get(&app.id)).map(|desk| &desk.credential);
    let kept = in_use.filter(|credential| credential.is(&app.credential, vendor)).cloned();
    let base = |region: &crate::config::Region| match Base::new(&region.base_url) {
        Some(base) => Ok((region.name.clone(), base)),
        None => Err(BuildError::BadBase { app: app.id.clone(), region: region.name.clone() }),
    };
    Ok(PreparedApp {
        id: app.id.clone(),
        kept: kept.is_some(),
        credential: match kept {
            Some(credential) => credential,
            None => Credential::new(&app.id, &app.credential, vendor, clock)
                .map_err(|_| BuildError::BadUid(app.id.clone()))?,
        },
        regions: app.regions.iter().map(base).collect::<Result<_, _>>()?,
        quota: app.quota,
    })
}

impl Prepared {
    /// Puts it into force: buckets get their limits, secrets are read again.
    pub(super) fn commit(self, buckets: &mut Buckets, metrics: &Metrics) -> Table {
        let desks = self.apps.into_iter().map(|app| {
            if app.kept {
                app.credential.look();
            }
            let lines = BucketName::ALL.map(|name| {
                let (name, limit) = counted_in(&app.quota, name);
                buckets.line(&app.id, name, limit)
            });
            let regions = app.regions.into_iter().map(|(name, base)| {
                let meters = RegionMeters::new(metrics, &app.id, &name);
                Region { name, base, meters }
            });
            let regions = regions.collect();
            let meters = AppMeters::new(metrics, &app.id);
            (app.id, Desk { credential: app.credential, meters, regions, lines })
        });
        let desks: HashMap<_, _> = desks.collect();
        Table { desks, upstream: self.upstream, request_timeout: self.request_timeout }
    }
}

/// The bucket that a name is counted in, and its limit.
fn counted_in(quota: &Quota, name: BucketName) -> (BucketName, Limit) {
    match quota.rule(name) {
        QuotaRule::Own(limit) => (name, limit),
        QuotaRule::Share(other) => match quota.rule(other) {
            QuotaRule::Own(limit) => (other, limit),
            // Refused by the configuration's rules. The strictest reading: one at a time, by itself.
            QuotaRule::Share(_) => (name, Limit { requests: std::num::NonZeroU32::MIN, per: Duration::from_secs(1) }),
        },
    }
}
