//! [`AppStream`]: one stream of one app: its log, who appends to it, and who reads it.
//!
//! Invariants: the log is trimmed in one place, here: where readers stand is stored before, and what they were not
//! given is told to them after ([`Registry::trimmed`]).

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use super::append::{AppendOutcome, AppendRequest, Appender};
use super::log::age_guard::AgeGuard;
use super::log::judge::Judge;
use super::log::loss_index::LossIndex;
use super::log::outage::{self, Outage, OutageBook};
use super::log::{LOG_TARGET, Log, Retention};
use super::subscription::Shared;
use super::subscription::registry::{Registry, SubscriptionLimits};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::kernel::sync::lock;
use crate::store::{Error, LogKey, NewBatch, Store};

/// One stream of one app.
pub(super) struct AppStream {
    pub(super) log: Arc<Log>,
    pub(super) appender: Arc<Appender>,
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Arc<Shared>,
    /// Where in the log events may have been lost.
    pub(super) losses: LossIndex,
    ages: Arc<AgeGuard>,
    retention: Mutex<Retention>,
    /// Of the regions that are or were read.
    outages: Mutex<BTreeMap<RegionName, Arc<OutageBook>>>,
}

/// How much there may be in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamLimits {
    pub(super) retention: Retention,
    pub(super) subscriptions: SubscriptionLimits,
}

/// What all streams have in common.
#[derive(Clone)]
pub(super) struct StreamParts {
    pub(super) store: Arc<dyn Store>,
    pub(super) shared: Arc<Shared>,
    pub(super) ages: Arc<AgeGuard>,
    pub(super) judge: Arc<Judge>,
}

impl AppStream {
    /// Opens a stream as the store has it: its subscriptions, and its newest entries into memory. `clients` are the
    /// names of those whose own subscriptions may be there.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn open(
        key: LogKey,
        parts: StreamParts,
        limits: StreamLimits,
        clients: &HashSet<&str>,
    ) -> Result<Arc<Self>, Error> {
        let StreamParts { store, shared, ages, judge } = parts;
        let StreamLimits { retention, subscriptions: limits } = limits;
        let log = Log::open(key, store, judge).await?;
        let registry =
            Registry::open(Arc::clone(&log), Arc::clone(&shared), Arc::clone(&ages), limits, clients).await?;
        let appender = Appender::new(Arc::clone(&log), shared.clock.clone(), Arc::clone(&ages));
        let (losses, outages, retention) = (LossIndex::default(), Mutex::default(), Mutex::new(retention));
        Ok(Arc::new(Self { log, appender, registry, shared, losses, ages, retention, outages }))
    }

    /// [`Appender::append`].
    ///
    /// # Errors
    /// As that.
    pub(super) async fn append(&self, request: &Arc<AppendRequest>) -> Result<AppendOutcome, Error> {
        let outcome = self.appender.append(request).await?;
        self.trim_a_burst().await;
        Ok(outcome)
    }

    /// An answer of the vendor's that comes now was dated then.
    pub(super) fn vendor_says(&self, date: UnixMillis) {
        self.ages.vendor_says(date);
    }

    /// What is known of a region's outages.
    pub(super) fn outages_of(&self, region: &RegionName) -> Arc<OutageBook> {
        Arc::clone(lock(&self.outages).entry(region.clone()).or_default())
    }

    /// Ends the outages that an earlier run noted of regions that are not among these: nobody will read there.
    ///
    /// # Errors
    /// When the store fails; those that are not marked yet stay noted.
    pub(super) async fn end_left_outages(&self, read: &[&RegionName]) -> Result<(), Error> {
        let (store, log) = (self.log.store(), self.log.key());
        for region in outage::noted(store, log).await? {
            let Some(left) = Outage::recall(store, log, &region).await?.filter(|_| !read.contains(&&region)) else {
                continue;
            };
            let (status, now) = (left.status(), self.shared.clock.wall_ms());
            tracing::warn!(
                app = %log.app,
                stream = %log.stream,
                %region,
                count = status.doubts,
                reasons = ?status.reasons,
                from = status.from,
                "an outage in which events may have been lost is over: the region is not read any more"
            );
            let (note, content) = ((outage::note_name(&region), None), left.marker(now).content());
            let batch = NewBatch { received_at: now, region, content };
            self.append(&AppendRequest::with_notes(vec![batch], None, vec![note])).await?;
        }
        Ok(())
    }

    /// How much is kept.
    pub(super) fn retention(&self) -> Retention {
        *lock(&self.retention)
    }

    /// Changes how much is kept, from the next trimming on, and how many subscriptions may begin.
    pub(super) fn set_limits(&self, limits: StreamLimits) {
        *lock(&self.retention) = limits.retention;
        self.registry.set_limits(limits.subscriptions);
    }

    /// Between two rounds of housekeeping a burst may bring more than is to be kept.
    async fn trim_a_burst(&self) {
        let most = self.retention().bytes;
        let is_over = |bytes: u64| bytes > most.saturating_add(most / BURST);
        if self.log.store().log_state(self.log.key()).await.is_ok_and(|state| is_over(state.bytes)) {
            self.try_to_trim().await;
        }
    }

    /// [`AppStream::trim`]. What fails is tried again next time.
    pub(super) async fn try_to_trim(&self) {
        if let Err(error) = self.trim().await {
            let LogKey { app, stream } = self.log.key();
            tracing::warn!(target: LOG_TARGET, %app, %stream, %error, "old events could not be removed");
        }
    }

    /// Removes what is older or more than is to be kept.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn trim(&self) -> Result<(), Error> {
        // Or after a kill it would seem that subscriptions have not read what they have. If it fails there may be no
        // room for it, and room is what is made here; it is tried again.
        let unsaved: Vec<_> = self.registry.all().into_iter().filter(|subscription| subscription.is_listed()).collect();
        let _ = self.shared.saver.save(&unsaved).await;
        let retention = self.retention();
        let earliest = self.log.trim(self.ages.older_than(retention.age), retention.bytes).await?;
        self.registry.trimmed(earliest);
        Ok(())
    }
}

/// The part of `retention_bytes` by which a log may grow beyond it before it is trimmed at once: an eighth.
const BURST: u64 = 8;
