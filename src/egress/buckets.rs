//! The buckets of all apps, which outlive reloads.
//!
//! Invariants: a bucket is made once for an app and a name and kept for the life of the process, also while its app is
//! not configured, so that taking an app out and in again does not forget what the vendor has counted. Buckets made by a
//! reload begin empty: what a changed configuration spent through others is not known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::meters::BucketMeters;
use crate::clock::Clock;
use crate::config::Limit;
use crate::metrics::Metrics;
use crate::names::{AppId, BucketName};
use crate::quota::{Begin, Bucket};
use crate::store::Store;

/// What is known of the run before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// There was none: the store is new.
    None,
    /// It ended in order this long ago.
    Clean(Duration),
    /// It did not end in order, or nobody knows.
    Unknown,
}

impl Past {
    /// What the store knows.
    #[must_use]
    pub fn of(store: &dyn Store, clock: &Clock) -> Self {
        match store.last_clean_stop() {
            _ if store.is_new() => Self::None,
            Some(stop) => Self::Clean(clock.wall_ms().since(stop)),
            None => Self::Unknown,
        }
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

    #[test]
    fn a_bucket_begins_full_only_when_nothing_can_be_held_against_it() {
        let second = Duration::from_secs(1);
        assert_eq!(Past::None.begin(second), Begin::Full);
        assert_eq!(Past::Clean(second * 2).begin(second), Begin::Full);
        assert_eq!(Past::Clean(second).begin(second), Begin::Empty);
        assert_eq!(Past::Unknown.begin(second), Begin::Empty);
    }
}
