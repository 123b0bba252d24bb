//! The buckets of all apps, which outlive reloads.
//!
//! Invariants: a bucket is of an app and of the endpoints that are counted in it together, and serves these alone. While
//! they stay the same it stays, whatever it is called and whatever its limit becomes. When what an endpoint is counted in
//! changes, all buckets concerned are retired, and those in their place begin empty and take over what is under way. An
//! app that is taken out keeps its buckets until all that was sent is a window old, so that taking it out and in again
//! does not forget what the vendor has counted. Those of an app that is new in a reload begin empty: what was spent
//! before is not known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::meters::BucketMeters;
use crate::clock::{BootTime, Clock};
use crate::config::{Limit, Quota, QuotaRule};
use crate::metrics::Metrics;
use crate::names::{AppId, BucketName};
use crate::quota::{Begin, Bucket};
use crate::store::{Error, Store};

/// What is known of the run before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// It is known that there was none. (A new store does not say so: its folder may have been lost.)
    None,
    /// It ended in order this long ago.
    Clean(Duration),
    /// It did not end in order, or nobody knows.
    Unknown,
}

/// When the last run ended in order: which boot, and milliseconds since then.
const STOPPED_BOOT: &str = "stopped: boot";
const STOPPED_AT: &str = "stopped: since boot";

impl Past {
    /// What the store knows. How long a stop took is told by the machine's time since boot alone: the wall clock may have
    /// jumped. After a boot, or on another machine, nobody knows.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of(store: &dyn Store, clock: &Clock) -> Result<Self, Error> {
        let stopped = (store.fact(STOPPED_BOOT).await?, store.fact(STOPPED_AT).await?);
        let (Some(_), (Some(boot), Some(millis)), Some(now)) = (store.last_clean_stop(), stopped, clock.boot()) else {
            return Ok(Self::Unknown);
        };
        Ok(now.since(BootTime { boot, millis }).map_or(Self::Unknown, Self::Clean))
    }

    /// Notes for the next run that this one ends now. To be called before the store records a clean stop, without which
    /// it means nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_stop(store: &dyn Store, clock: &Clock) -> Result<(), Error> {
        let Some(BootTime { boot, millis }) = clock.boot() else { return Ok(()) };
        store.keep_facts(&[(STOPPED_BOOT, boot), (STOPPED_AT, millis)]).await
    }

    /// How a bucket with this window begins: full only if the vendor can hold nothing against us any more.
    #[must_use]
    pub fn begin(self, window: Duration) -> Begin {
        match self {
            Self::None => Begin::Full,
            Self::Clean(ago) if ago > window => Begin::Full,
            Self::Clean(_) | Self::Unknown => Begin::Empty,
        }
    }
}

/// One bucket in use.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) name: BucketName,
    pub(super) bucket: Arc<Bucket>,
    pub(super) limit: Limit,
    pub(super) meters: BucketMeters,
}

/// An app's lines, in the order of [`BucketName::ALL`]; those that share are the other's again.
pub(super) type Lines = [Line; BucketName::ALL.len()];

pub(super) struct Buckets {
    past: Past,
    clock: Clock,
    metrics: Metrics,
    /// Also of apps that are not configured any more.
    all: HashMap<AppId, Vec<Held>>,
}

/// A bucket, and the endpoints that are counted in it.
struct Held {
    members: BTreeSet<BucketName>,
    bucket: Arc<Bucket>,
    limit: Limit,
}

impl Buckets {
    pub(super) fn new(past: Past, clock: Clock, metrics: Metrics) -> Self {
        Self { past, clock, metrics, all: HashMap::new() }
    }

    /// From here on buckets are made by reloads.
    pub(super) fn opened(&mut self) {
        self.past = Past::Unknown;
    }

    /// What an app's endpoints are counted in from now on. An order that has still to get its seat in a bucket that is
    /// not among these is told to look again, so what this returns must be put into force soon.
    pub(super) fn lines(&mut self, app: &AppId, quota: &Quota) -> Lines {
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
                let bucket = Bucket::new(limit, self.past.begin(limit.per), self.clock.clone());
                made.push((members.clone(), bucket.clone()));
                Held { members, bucket, limit }
            });
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
        let lines = BucketName::ALL.map(|name| {
            let (owner, limit) = counted_in(quota, name);
            let held = all.iter().find(|held| held.members.contains(&name));
            let bucket = &held.expect("every endpoint is in the group of its owner").bucket;
            Line { name: owner, bucket: bucket.clone(), limit, meters: BucketMeters::new(&self.metrics, app, owner) }
        });
        self.all.insert(app.clone(), all);
        lines
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
mod walk;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::EmbeddedStore;

    #[tokio::test(start_paused = true)]
    async fn how_long_a_stop_took_is_not_asked_of_the_wall_clock() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::anchored(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        let run = async |jump: i64, stops: bool| {
            let tasks = crate::task::Tasks::new();
            let store = EmbeddedStore::open(folder.path(), tasks.clone(), clock.clone(), Metrics::new()).await.unwrap();
            let past = Past::of(&*store, &clock).await.unwrap();
            if stops {
                Past::note_stop(&*store, &clock).await.unwrap();
                store.close(clock.wall_ms()).await.unwrap();
            }
            drop(store);
            tasks.finish(Duration::from_secs(10)).await;
            clock.jump(jump);
            past
        };
        let hour = 3_600_000;
        // A new folder may stand where one was lost.
        assert_eq!(run(hour, true).await, Past::Unknown);
        // The clock said that an hour had passed; then that none had.
        assert!(matches!(run(-2 * hour, true).await, Past::Clean(ago) if ago < Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(matches!(run(0, false).await, Past::Clean(ago) if ago >= Duration::from_secs(100)));
        assert_eq!(run(hour, true).await, Past::Unknown, "the last run did not end in order");
    }

    #[test]
    fn a_bucket_begins_full_only_when_nothing_can_be_held_against_it() {
        let second = Duration::from_secs(1);
        assert_eq!(Past::None.begin(second), Begin::Full);
        assert_eq!(Past::Clean(second * 2).begin(second), Begin::Full);
        assert_eq!(Past::Clean(second).begin(second), Begin::Empty);
        assert_eq!(Past::Unknown.begin(second), Begin::Empty);
    }
}
