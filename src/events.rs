//! Events: read once from the vendor, kept durably, handed to many subscribers.
//!
//! ```text
//! egress <── poller (one for each app, stream and region) ──> log ──> store
//!                                                             │ tail (memory)
//! routes <── delivery, receipt <── reader <── subscription <──┘
//! ```
//!
//! | file | what |
//! |---|---|
//! | `ingest` | from the vendor into a log: pollers, what regions return twice, the vendor's order |
//! | `log` | a stream's entries, the newest in memory; cursors, filters, ages |
//! | `delivery` | what a read asks for and gets; its `reader` serves it from memory, from the store, or when something comes |
//! | `subscription` | who has read what: plainly, under leases, in hand; what was given up, and who is behind |
//! | `retention` | removes what is old |
//!
//! Invariants: an event is on stable storage before a reader sees it and before the next read of its poller; nothing the
//! vendor returned whole is dropped; a poller reads only when the store can keep what it reads; a subscription is given
//! every entry at least once (from where it began, as long as retention keeps it), and exactly once while its responses
//! are handed over and the store is closed in order.

mod apply;
mod delivery;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod ingest;
mod log;
mod retention;
mod subscription;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use futures_util::future::join_all;

use self::apply::{FeedKey, Running};
use self::ingest::pending_writes::PendingWrites;
use self::log::Log;
use self::log::age_guard::AgeGuard;
use self::log::judge::Judge;
use self::subscription::{CursorWriter, LeaseTimer, Removal, Shared};
use crate::kernel::clock::Clock;
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{AppId, Stream, SubscriptionName};
use crate::kernel::sync::lock;
use crate::kernel::task::Tasks;
use crate::store::{Error, LogKey, Store};
use crate::upstream::egress::{Egress, Orders};

pub use self::delivery::{
    Delivery, MAX_IN_ONE_READ, ReadError, ReadFrom, ReadRequest, Receipt, Run, StartAt, StreamNumber,
};
pub use self::ingest::quarantine::ReadAgain;
pub use self::log::cursor::{Cursor, NotACursor};
pub use self::log::cursor_pair::CursorPair;
pub use self::log::filter::Filter;
pub use self::subscription::dead_letters::{DeadLetter, MAX_DEAD_LETTERS, Redeliver};
pub use self::subscription::in_hand::{DeliveryOrder, InHand, Nack, Tries};
pub use self::subscription::leases::{Ack, AckError, Holding, LeaseName, Leased, MAX_LEASE, NotALease};

/// All event logs of the gateway and their pollers. Cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    source: Arc<dyn Orders>,
    tasks: Tasks,
    clock: Clock,
    witness: Arc<AgeGuard>,
    metrics: Metrics,
    shared: Arc<Shared>,
    leftovers: Arc<PendingWrites>,
    logs: ArcSwap<Logs>,
    feeds: Mutex<BTreeMap<FeedKey, Running>>,
    /// Whether [`Events::apply`] has been called; held while it runs.
    is_started: tokio::sync::Mutex<bool>,
}

type Logs = BTreeMap<LogKey, Arc<Log>>;

/// What the admin API shows of a poller: one for each app, stream and region.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the JSON members")]
pub struct PollerStatus {
    pub app: String,
    pub stream: &'static str,
    pub region: String,
    pub state: &'static str,
    pub reads: u64,
    pub events: u64,
    pub duplicates: u64,
    pub late: u64,
    pub possible_losses: u64,
    pub last_read_at: Option<String>,
    pub last_error: Option<String>,
    pub events_per_second: f64,
    pub seconds_to_overflow: Option<f64>,
}

/// What the admin API shows of a subscription.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the JSON members")]
pub struct SubscriptionStatus {
    pub app: String,
    pub stream: &'static str,
    pub subscription: String,
    pub client: Option<String>,
    pub cursor: String,
    pub lag: u64,
    pub undelivered: u64,
    pub unacknowledged: u64,
    pub in_flight: u64,
    pub dead_letters: u64,
    pub oldest_event_age_seconds: Option<f64>,
    pub delivered_per_second: f64,
    pub near_retention: Option<&'static str>,
    pub last_read_at: String,
}

impl Events {
    /// No logs and no pollers yet: see [`Events::apply`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>, egress: Egress, tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        Self::with_source(store, Arc::new(egress), tasks, clock, metrics)
    }

    fn with_source(
        store: Arc<dyn Store>,
        source: Arc<dyn Orders>,
        tasks: Tasks,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            shared: Arc::new(Shared {
                tasks: tasks.clone(),
                saver: CursorWriter::new(Arc::clone(&store)),
                timer: LeaseTimer::default(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                keys: RandomState::new(),
                judge: Judge::default(),
            }),
            store,
            source,
            tasks,
            witness: Arc::new(AgeGuard::new(clock.clone())),
            clock,
            metrics,
            leftovers: Arc::default(),
            logs: ArcSwap::default(),
            feeds: Mutex::default(),
            is_started: tokio::sync::Mutex::default(),
        }))
    }

    /// What names the store for ever.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.store.epoch()
    }

    /// Reads from a stream's log; waits up to `read.wait` for the first entry, or until the gateway stops.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, app: &AppId, stream: Stream, read: ReadRequest) -> Result<Delivery, ReadError> {
        self.log(app, stream)?.read(read, None, self.0.tasks.stopping()).await
    }

    /// As [`Events::read`], for an open stream if a number is said.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_in_stream(
        &self,
        app: &AppId,
        stream: Stream,
        read: ReadRequest,
        number: Option<StreamNumber>,
    ) -> impl Future<Output = Result<Delivery, ReadError>> + use<> {
        // No `async fn`: that would hold all of it twice while it waits.
        let (log, stopping) = (self.log(app, stream), self.0.tasks.stopping());
        async move { log?.read(read, number, stopping).await }
    }

    /// A reader of a subscription comes back and says that it has all up to `last` that it was given, or if nothing was
    /// `given`, that this was nothing after `last`; of `unheard` it was given nothing either, wherever that lies. In the
    /// response that was given back and holds `last`, that part is settled, in a stream what it was given before that, too, and
    /// nobody else's; of the rest what was handed over plainly is given again, and readers are told of what retention took
    /// of that. So one reader gets each event once across reconnects, competing readers at least once.
    ///
    /// # Errors
    /// When there is no such subscription, or `last` is no place in the log.
    pub fn resume(
        &self,
        (app, stream): (&AppId, Stream),
        name: &SubscriptionName,
        (last, given): (Cursor, bool),
        unheard: &[Range<u64>],
    ) -> Result<(), ReadError> {
        let log = self.log(app, stream)?;
        let last = match log.at(last) {
            // Of this log, and older than what is kept.
            Err(ReadError::Expired { lost: Some(_), .. }) => last.at.0,
            at => at?,
        };
        log.known(name).ok_or(ReadError::NoSuchSubscription)?.resume((last, given), unheard, log.range().0);
        Ok(())
    }

    /// Stores where a subscription is: durable on return.
    ///
    /// # Errors
    /// When there is no such subscription, or the store fails.
    pub async fn keep_place(&self, (app, stream): (&AppId, Stream), name: &SubscriptionName) -> Result<(), ReadError> {
        let subscription = self.log(app, stream)?.known(name).ok_or(ReadError::NoSuchSubscription)?;
        Ok(subscription.save(&*self.0.store).await?)
    }

    /// Sets a subscription to another place, and says which; durable on return. What is under way to its readers, or leased
    /// to them, is of no account any more.
    ///
    /// # Errors
    /// When there is no such subscription, `to` is no place in the log, or the store fails.
    pub async fn seek(
        &self,
        app: &AppId,
        stream: Stream,
        name: &SubscriptionName,
        to: StartAt,
    ) -> Result<Cursor, ReadError> {
        let log = self.log(app, stream)?;
        let subscription = log.known(name).ok_or(ReadError::NoSuchSubscription)?;
        let at = log.place(to).await?;
        subscription.seek(at, &*self.0.store).await?;
        Ok(log.cursor(at))
    }

    /// The cursor of a place in a stream, such as its end.
    ///
    /// # Errors
    /// When there is no such stream, `at` is no place in the log, or the store fails.
    pub async fn place(&self, app: &AppId, stream: Stream, at: StartAt) -> Result<Cursor, ReadError> {
        let log = self.log(app, stream)?;
        Ok(log.cursor(log.place(at).await?))
    }

    /// What each poller is doing.
    #[must_use]
    pub fn pollers(&self) -> Vec<PollerStatus> {
        let now = self.0.clock.now();
        lock(&self.0.feeds).values().map(|running| running.feed.status.observe(now)).collect()
    }

    /// Removes a subscription: its place, its leases and its dead letters. A read of that name begins a new one.
    ///
    /// # Errors
    /// When there is no such subscription, or the store fails.
    pub async fn remove(&self, app: &AppId, stream: Stream, name: &SubscriptionName) -> Result<(), ReadError> {
        let (log, subscription) = self.subscription(app, stream, name)?;
        log.remove(subscription, Removal::Asked).await?.map(drop).ok_or(ReadError::BeingRemoved)
    }

    /// Whether one of an app's streams has a subscription of this name.
    #[must_use]
    pub fn has_subscription(&self, app: &AppId, name: &SubscriptionName) -> bool {
        Stream::ALL.iter().any(|&stream| self.log(app, stream).is_ok_and(|log| log.known(name).is_some()))
    }

    /// The subscription of a stream that operators mean by a name: the one of that name, or else the default one of the
    /// client of that name.
    #[must_use]
    pub fn meant_by_operators(&self, app: &AppId, stream: Stream, name: SubscriptionName) -> SubscriptionName {
        let has = |name: &SubscriptionName| self.log(app, stream).is_ok_and(|log| log.known(name).is_some());
        if has(&name) { name } else { name.default_of_namesake().filter(has).unwrap_or(name) }
    }

    /// Why reading is stopped, for `/readyz`; `None` when it is not.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        lock(&self.0.feeds).values().find_map(|running| running.feed.status.paused())
    }

    /// Renews the metrics that move by themselves: lags, and times left until overflow. Done every few seconds anyway.
    pub fn observe(&self) {
        let _ = self.pollers();
        for log in self.logs().values() {
            let (_, next) = log.range();
            for subscription in log.subscriptions() {
                subscription.observe(next);
            }
        }
    }

    /// Stores what is still only in memory: what a forced stop left in hand, and cursors. To be called when all tasks have
    /// ended and all responses are done, before the store is closed.
    ///
    /// # Errors
    /// When the store fails: then the stop is not a clean one.
    pub async fn flush(&self) -> Result<(), Error> {
        let cursors = self.save_cursors().await.and(self.keep_owners().await);
        self.0.leftovers.flush().await.and(cursors)?;
        // After what was left: that may be another region's copy.
        self.keep_dropped().await?;
        self.0.witness.keep(&*self.0.store).await
    }

    /// Stores what was dropped as another region's copy, as far as it is not stored yet.
    async fn keep_dropped(&self) -> Result<(), Error> {
        let logs: Vec<_> = self.logs().values().map(Arc::clone).collect();
        for some in logs.chunks(KEPT_AT_ONCE) {
            join_all(some.iter().map(|log| log.keep_dropped())).await.into_iter().collect::<Result<(), Error>>()?;
        }
        Ok(())
    }

    /// Stores the cursors as they are now: for a copy of the store that is to hold what was handed over before.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn save_cursors(&self) -> Result<(), Error> {
        let subscriptions: Vec<_> = self.logs().values().flat_map(|log| log.subscriptions()).collect();
        self.0.shared.saver.save(&subscriptions).await
    }

    /// Stores whose each subscription is and when it was read last, as far as that has changed.
    async fn keep_owners(&self) -> Result<(), Error> {
        let subscriptions: Vec<_> = self.logs().values().flat_map(|log| log.subscriptions()).collect();
        for some in subscriptions.chunks(KEPT_AT_ONCE) {
            let kept = some.iter().map(|subscription| subscription.keep_owner(&*self.0.store));
            join_all(kept).await.into_iter().collect::<Result<(), Error>>()?;
        }
        Ok(())
    }

    fn log(&self, app: &AppId, stream: Stream) -> Result<Arc<Log>, ReadError> {
        self.logs().get(&LogKey { app: app.clone(), stream }).cloned().ok_or(ReadError::NoSuchStream)
    }

    fn logs(&self) -> Arc<Logs> {
        self.0.logs.load_full()
    }
}

/// Of how many subscriptions, or logs, something is stored together.
const KEPT_AT_ONCE: usize = 256;
