//! The buckets of all apps, which outlive reloads.
//!
//! Invariants: a bucket is of an app and of the endpoints that are counted in it together, and serves these alone.
//! While they stay the same it stays, whatever it is called and whatever its limit becomes. When what an endpoint is
//! counted in changes, all buckets concerned are retired, and those in their place begin empty and take over what is
//! under way. An app that is taken out keeps its buckets until all that was sent is a window old, so that taking it out
//! and in again does not forget what the vendor has counted. Those of an app that is new in a reload begin empty: what
//! was spent before is not known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::meters::BucketMeters;
use super::previous_run::{CountedUntil, PreviousRun};
use tokio::time::Instant;

use crate::config::{Limit, Quota, QuotaRule};
use crate::kernel::clock::Clock;
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{AppId, BucketName, Stream};
use crate::upstream::quota::{Bucket, BucketLabel};

/// A bucket that reads of events draw on obeys the vendor no longer than this, or than its last read said.
const READS_OBEY: Duration = Duration::from_secs(60);

/// One bucket in use.
#[derive(Clone)]
pub(super) struct AppBucket {
    pub(super) name: BucketName,
    pub(super) seats: Arc<Bucket>,
    pub(super) limit: Limit,
    pub(super) meters: BucketMeters,
}

/// An app's buckets, in the order of [`BucketName::ALL`]; those that share are the other's again.
pub(super) type AppBuckets = [AppBucket; BucketName::ALL.len()];

pub(super) struct Buckets {
    before: PreviousRun,
    clock: Clock,
    metrics: Metrics,
    /// Also of apps that are not configured any more.
    all: HashMap<AppId, Vec<OwnedBucket>>,
}

/// A bucket, and the endpoints that are counted in it.
struct OwnedBucket {
    members: BTreeSet<BucketName>,
    bucket: Arc<Bucket>,
    limit: Limit,
}

impl Buckets {
    pub(super) fn new(before: PreviousRun, clock: Clock, metrics: Metrics) -> Self {
        Self { before, clock, metrics, all: HashMap::new() }
    }

    /// From here on buckets are made by reloads.
    pub(super) fn opened(&mut self) {
        self.before.opened();
    }

    /// What an app's endpoints are counted in from now on. An order that has still to get its seat in a bucket that is
    /// not among these is told to look again, so what this returns must be put into force soon.
    pub(super) fn of_app(&mut self, app: &AppId, quota: &Quota, max_retry_after: Duration) -> AppBuckets {
        let mut groups = BTreeMap::<BucketName, (Limit, BTreeSet<BucketName>)>::new();
        for name in BucketName::ALL {
            let (owner, limit) = counted_in(quota, name);
            groups.entry(owner).or_insert_with(|| (limit, BTreeSet::new())).1.insert(name);
        }
        let mut before = self.all.remove(app).unwrap_or_default();
        let mut made = Vec::new();
        let mut all = Vec::with_capacity(groups.len());
        for (limit, members) in groups.into_values() {
            let kept = before.iter().position(|held| held.members == members).map(|place| before.swap_remove(place));
            let mut held = kept.unwrap_or_else(|| {
                let begin = self.before.begin(app, &members, limit, self.clock.now());
                let bucket = Bucket::new(limit, begin, self.clock.clone());
                made.push((members.clone(), bucket.clone()));
                OwnedBucket { members, bucket, limit }
            });
            let has_reads = Stream::ALL.iter().any(|stream| held.members.contains(&stream.bucket()));
            held.bucket.believe(if has_reads { max_retry_after.min(READS_OBEY) } else { max_retry_after });
            if held.limit != limit {
                held.bucket.reconfigure(limit);
                held.limit = limit;
            }
            all.push(held);
        }
        for old in before {
            let heirs = made.iter().filter(|(members, _)| !members.is_disjoint(&old.members));
            old.bucket.retire(&heirs.map(|(_, bucket)| bucket.clone()).collect::<Vec<_>>());
        }
        let of_app = BucketName::ALL.map(|name| {
            let (owner, limit) = counted_in(quota, name);
            let held = all.iter().find(|held| held.members.contains(&name));
            let bucket = &held.expect("every endpoint is in the group of its owner").bucket;
            bucket.show_as(BucketLabel { metrics: self.metrics.clone(), app: app.clone(), bucket: owner });
            AppBucket {
                name: owner,
                seats: bucket.clone(),
                limit,
                meters: BucketMeters::new(&self.metrics, app, owner),
            }
        });
        self.all.insert(app.clone(), all);
        of_app
    }

    /// What the vendor may still count, if what is under way lasts until then at the latest.
    pub(super) fn sent(&self, under_way: Instant) -> CountedUntil {
        let before = self.before.sent_after(self.clock.now()).map(|(key, until)| (key.clone(), until));
        let mut sent: CountedUntil = before.collect();
        for (app, held) in self.all.iter().flat_map(|(app, held)| held.iter().map(move |held| (app, held))) {
            let Some(until) = held.bucket.counted_until(under_way) else { continue };
            for name in &held.members {
                let latest = sent.entry((app.clone(), *name)).or_insert(until);
                *latest = until.max(*latest);
            }
        }
        sent
    }

    /// Forgets the buckets of apps that are not configured, as soon as the vendor can hold nothing against them.
    pub(super) fn prune(&mut self, is_configured: impl Fn(&AppId) -> bool) {
        self.all.retain(|app, held| {
            if !is_configured(app) {
                held.retain(|held| !held.bucket.retire_if_idle());
            }
            !held.is_empty()
        });
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

#[cfg(test)]
mod tests;
