//! The buckets of all apps, which outlive reloads.
//!
//! Invariants: a bucket is made once for an app and a name and kept for the life of the process, also while its app is
//! not configured, so that taking an app out and in again does not forget what the vendor has counted. Buckets made by a
//! reload begin empty: what a changed configuration spent through others is not known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::meters::BucketMeters;
use crate::clock::{BootTime, Clock};
use crate::config::Limit;
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

pub(super) struct Buckets {
    past: Past,
    clock: Clock,
    metrics: Metrics,
    all: HashMap<(AppId, BucketName), Line>,
}

impl Buckets {
    pub(super) fn new(past: Past, clock: Clock, metrics: Metrics) -> Self {
        Self { past, clock, metrics, all: HashMap::new() }
    }

    /// From here on buckets are made by reloads.
    pub(super) fn opened(&mut self) {
        self.past = Past::Unknown;
    }

    /// The bucket of that name, with this limit from now on.
    pub(super) fn line(&mut self, app: &AppId, name: BucketName, limit: Limit) -> Line {
        let line = self.all.entry((app.clone(), name)).or_insert_with(|| Line {
            name,
            bucket: Bucket::new(limit, self.past.begin(limit.per), self.clock.clone()),
            limit,
            meters: BucketMeters::new(&self.metrics, app, name),
        });
        if line.limit != limit {
            line.bucket.reconfigure(limit);
            line.limit = limit;
        }
        line.clone()
    }
}

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
