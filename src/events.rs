//! Events: read once from the vendor, kept durably, handed to many subscribers.
//!
//! The way of an event, file by file:
//!
//! ```text
//! vendor
//!   │ Order: it empties the vendor's queue, so it is never cancelled and never sent twice
//! ingest/poller.rs ──> in_flight.rs ──> answer.rs     when to read; the read; what its answer means
//! ingest/poller/poll_target.rs                        what came, held until it is stored
//!   │ AppendRequest
//! app_stream.rs ──> append/appender.rs                less what another region returned; one commit
//!   │ Batch, on stable storage
//! log.rs                                              into the tail in memory; whoever waits is woken
//!   │ entries
//! delivery/reader.rs ──> subscription/claim.rs        one read, and what a subscription takes for it
//!   │ Delivery { runs, receipt }
//! delivery/merged_reader.rs                           one stream or both, for a caller who may come again
//! request/routes/events/sse.rs, http/body/handover.rs bytes; until the caller's system has them
//!   │ Receipt::handed_over
//! subscription/cursor_writer.rs                       the place is settled, and stored
//! ```
//!
//! | file | what |
//! |---|---|
//! | `ingest` | from the vendor into a log: pollers, and what they could not read |
//! | `append` | what pollers bring: what regions return twice, the vendor's order, one commit |
//! | `log` | a stream's entries, the newest in memory; cursors, filters, ages |
//! | `delivery` | what a read asks for and gets, and who serves it |
//! | `subscription` | who has read what: plainly, under leases, in hand; what was given up, and who is behind |
//! | `subscriptions` | what is asked and told of one of them: the second half of [`Events`] |
//! | `losses` | what may have been lost, of all streams |
//! | `app_stream` | one log, one appender and one registry of subscriptions for each stream of an app |
//! | `apply` | makes streams and pollers what the configuration says |
//! | `retention` | housekeeping: removes what is old, and renews what moves by itself |
//!
//! Invariants: an event is on stable storage before a reader sees it and before the next read of its poller; nothing
//! the vendor returned whole is dropped; a poller reads only when the store can keep what it reads; a subscription is
//! given every entry at least once (from where it began, as long as retention keeps it), and exactly once while its
//! responses are handed over and the store is closed in order.

mod app_stream;
mod append;
mod apply;
mod delivery;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod ingest;
mod log;
mod losses;
mod retention;
mod space_watch;
mod subscription;
mod subscriptions;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;

use self::app_stream::{AppStream, StreamParts};
use self::apply::{PollerKey, RunningPoller};
use self::delivery::StreamSessions;
use self::delivery::reader::Reader;
use self::ingest::pending_writes::PendingWrites;
use self::ingest::quarantine;
use self::log::age_guard::AgeGuard;
use self::space_watch::SpaceWatch;
use self::subscription::{CursorWriter, LeaseTimer, Removal, Shared};
use crate::config;
use crate::kernel::clock::Clock;
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{AppId, Stream, SubscriptionName};
use crate::kernel::sync::lock;
use crate::kernel::task::Tasks;
use crate::kernel::trouble::Trouble;
use crate::store::{Error, LogKey, QuarantineEntry, Store};
use crate::upstream::egress::{Egress, Orders};

pub use self::delivery::{Delivery, MAX_IN_ONE_READ, ReadFrom, ReadRequest, Receipt};
pub(crate) use self::delivery::{
    EntryContent, LeasedReader, MergedReader, MergedRun, SessionOver, SessionTurn, StreamReadError,
};
pub use self::ingest::poller::status::PollerStatus;
pub use self::ingest::quarantine::ReadAgain;
pub use self::log::cursor::{Cursor, NotACursor};
pub use self::log::cursor_pair::CursorPair;
pub use self::log::filter::Filter;
pub use self::log::loss::{MarkedOutage, Marker};
pub use self::log::outage::OutageStatus;
pub(crate) use self::log::shown;
pub use self::log::{ReadError, Run, StartAt};
pub use self::losses::{LossPage, LossPlace, LossQuery, LossRecord, NotALossPlace};
pub use self::space_watch::{LogShare, SpaceReport};
pub use self::subscription::StreamNumber;
pub use self::subscription::dead_letters::{DeadLetter, MAX_DEAD_LETTERS, Redeliver};
pub use self::subscription::in_hand::{DeliveryOrder, InHand, Nack, Tries};
pub use self::subscription::lag::SubscriptionStatus;
pub use self::subscription::leases::{Ack, AckError, Holding, LeaseName, Leased, MAX_LEASE, NotALease};

/// All event logs of the gateway and their pollers. Cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<EventsInner>);

struct EventsInner {
    parts: StreamParts,
    /// Where pollers read.
    source: Arc<dyn Orders>,
    tasks: Tasks,
    pending_writes: Arc<PendingWrites>,
    streams: ArcSwap<Streams>,
    pollers: Mutex<BTreeMap<PollerKey, RunningPoller>>,
    /// How much room there is.
    space: SpaceWatch,
    /// The open streams of subscriptions.
    sessions: Arc<StreamSessions>,
    /// Whether [`Events::apply`] has been called; held while it runs.
    is_started: tokio::sync::Mutex<bool>,
}

type Streams = BTreeMap<LogKey, Arc<AppStream>>;

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
        let shared = Arc::new(Shared {
            tasks: tasks.clone(),
            saver: CursorWriter::new(Arc::clone(&store)),
            timer: LeaseTimer::default(),
            clock: clock.clone(),
            metrics,
            keys: RandomState::new(),
        });
        let space = SpaceWatch::new(Arc::clone(&store), clock.clone(), shared.metrics.clone());
        let parts = StreamParts { store, shared, ages: Arc::new(AgeGuard::new(clock)), judge: Arc::default() };
        let (pending_writes, streams, pollers, sessions, is_started) = Default::default();
        Self(Arc::new(EventsInner {
            parts,
            source,
            tasks,
            pending_writes,
            streams,
            pollers,
            space,
            sessions,
            is_started,
        }))
    }

    /// Starts, stops and adjusts pollers and logs. `clients` are those whose places may be there.
    ///
    /// # Errors
    /// When the store fails; then no poller has changed.
    pub async fn apply(
        &self,
        apps: &[config::App],
        upstream: &config::Upstream,
        clients: &[config::Client],
    ) -> Result<(), Error> {
        apply::apply(self, apps, upstream, clients).await
    }

    /// What names the store for ever.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.parts.store.epoch()
    }

    /// Reads from a stream's log; waits up to `read.wait` for the first entry, or until the gateway stops.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, app: &AppId, stream: Stream, read: ReadRequest) -> Result<Delivery, ReadError> {
        Reader::read(self.stream(app, stream)?, read, None, self.0.tasks.stopping()).await
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
        let (stream, stopping) = (self.stream(app, stream), self.0.tasks.stopping());
        async move { Reader::read(stream?, read, number, stopping).await }
    }

    /// A reader of a subscription comes back and says that it has all up to `last` that it was given, or if nothing was
    /// `given`, that this was nothing after `last`; of `unheard` it was given nothing either, wherever that lies. In
    /// the response that was given back and holds `last`, that part is settled, in a stream what it was given before
    /// that, too, and nobody else's; of the rest what was handed over plainly is given again, and readers are told of
    /// what retention took of that. So one reader gets each event once across reconnects, competing readers at least
    /// once.
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
        let stream = self.stream(app, stream)?;
        let last = match stream.log.at(last) {
            // Of this log, and older than what is kept.
            Err(ReadError::Expired { lost: Some(_), .. }) => last.at,
            at => at?,
        };
        let (subscription, earliest) = (stream.registry.get(name), stream.log.range().start);
        subscription.ok_or(ReadError::NoSuchSubscription)?.resume(last, given, unheard, earliest);
        Ok(())
    }

    /// Stores where a subscription is: durable on return.
    ///
    /// # Errors
    /// When there is no such subscription, or the store fails.
    pub async fn keep_place(&self, (app, stream): (&AppId, Stream), name: &SubscriptionName) -> Result<(), ReadError> {
        let (_, subscription) = self.subscription(app, stream, name)?;
        Ok(subscription.save(&*self.0.parts.store).await?)
    }

    /// Sets a subscription to another place, and says which; durable on return. What is under way to its readers, or
    /// leased to them, is of no account any more.
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
        let (stream, subscription) = self.subscription(app, stream, name)?;
        let at = stream.log.place(to).await?;
        subscription.seek(at, stream.log.store()).await?;
        Ok(stream.log.cursor(at))
    }

    /// The cursor of a place in a stream, such as its end.
    ///
    /// # Errors
    /// When there is no such stream, `at` is no place in the log, or the store fails.
    pub async fn place(&self, app: &AppId, stream: Stream, at: StartAt) -> Result<Cursor, ReadError> {
        let log = &self.stream(app, stream)?.log;
        Ok(log.cursor(log.place(at).await?))
    }

    /// The answers of a stream that could not be read to their end and have numbers below `before`, newest first, at
    /// most `most`.
    ///
    /// # Errors
    /// When there is no such stream, or the store fails.
    pub async fn quarantined(
        &self,
        app: &AppId,
        stream: Stream,
        before: u64,
        most: usize,
    ) -> Result<Vec<QuarantineEntry>, ReadError> {
        let log = &self.stream(app, stream)?.log;
        Ok(log.store().quarantined(log.key(), before, most).await?)
    }

    /// One of these answers by its number, with its body in pieces; `None` when there is none.
    ///
    /// # Errors
    /// When there is no such stream, or the store fails.
    pub async fn quarantined_body(
        &self,
        app: &AppId,
        stream: Stream,
        id: u64,
    ) -> Result<Option<(QuarantineEntry, Vec<Bytes>)>, ReadError> {
        let log = &self.stream(app, stream)?.log;
        Ok(log.store().quarantined_body(log.key(), id).await?)
    }

    /// Reads such an answer again, and appends those of its events that are whole and not in the log yet, as if they
    /// had come now. `None` when there is none.
    ///
    /// # Errors
    /// When there is no such stream, or the store fails.
    pub async fn read_again(&self, app: &AppId, stream: Stream, id: u64) -> Result<Option<ReadAgain>, ReadError> {
        let appender = Arc::clone(&self.stream(app, stream)?.appender);
        Ok(self.0.parts.shared.to_its_end(async move { quarantine::read_again(&appender, id).await }).await?)
    }

    /// What each poller is doing.
    #[must_use]
    pub fn pollers(&self) -> Vec<PollerStatus> {
        lock(&self.0.pollers).values().map(|running| running.target.observe()).collect()
    }

    /// Removes a subscription: its place, its leases and its dead letters. A read of that name begins a new one.
    ///
    /// # Errors
    /// When there is no such subscription, or the store fails.
    pub async fn remove(&self, app: &AppId, stream: Stream, name: &SubscriptionName) -> Result<(), ReadError> {
        let (stream, subscription) = self.subscription(app, stream, name)?;
        stream.registry.remove(subscription, Removal::Asked).await?.map(drop).ok_or(ReadError::BeingRemoved)
    }

    /// Whether one of an app's streams has a subscription of this name.
    #[must_use]
    pub fn has_subscription(&self, app: &AppId, name: &SubscriptionName) -> bool {
        Stream::ALL.iter().any(|&stream| self.subscription(app, stream, name).is_ok())
    }

    /// The subscription of a stream that operators mean by a name: the one of that name, or else the default one of the
    /// client of that name.
    #[must_use]
    pub fn meant_by_operators(&self, app: &AppId, stream: Stream, name: SubscriptionName) -> SubscriptionName {
        let has = |name: &SubscriptionName| self.subscription(app, stream, name).is_ok();
        if has(&name) { name } else { name.default_of_namesake().filter(has).unwrap_or(name) }
    }

    /// How many reads of events are under way: not answered by the vendor, or not stored.
    #[must_use]
    pub fn reads_under_way(&self) -> usize {
        lock(&self.0.pollers).values().map(|running| running.target.reads_under_way()).sum()
    }

    /// Why no poller reads, for `/readyz`: the store can keep nothing. `None` while one does, or where there is none.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        let pollers = lock(&self.0.pollers);
        let paused: Option<Vec<_>> = pollers.values().map(|running| running.target.status.paused()).collect();
        paused?.into_iter().next()
    }

    /// What of it fails, poller by poller.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        let now = self.0.parts.shared.clock.now();
        lock(&self.0.pollers).values().filter_map(|running| running.target.status.trouble(now)).collect()
    }

    /// Renews the metrics that move by themselves: lags, and times left until overflow. Done every few seconds anyway.
    pub fn observe(&self) {
        let _ = self.pollers();
        for stream in self.streams().values() {
            let next = stream.log.range().end;
            for subscription in stream.registry.all() {
                subscription.observe(next);
            }
        }
    }

    /// How much room the store has, as it was found last; `None` before the first look.
    #[must_use]
    pub fn space(&self) -> Option<SpaceReport> {
        self.0.space.report()
    }

    /// Looks how much room there is.
    async fn look_at_space(&self) {
        let streams = self.streams();
        let limits = streams.values().map(|stream| (stream.log.key().clone(), stream.retention().bytes));
        self.0.space.look(limits.collect::<Vec<_>>()).await;
    }

    /// Stores what is still only in memory: what a forced stop left in hand, and cursors. To be called when all tasks
    /// have ended and all responses are done, before the store is closed.
    ///
    /// # Errors
    /// When the store fails: then the stop is not a clean one.
    pub async fn flush(&self) -> Result<(), Error> {
        let cursors = self.save_cursors().await.and(self.keep_owners().await);
        self.0.pending_writes.flush().await.and(cursors)?;
        // After what was left: that may be another region's copy.
        self.save_dropped_copies().await?;
        self.0.parts.ages.keep(&*self.0.parts.store).await
    }

    /// Stores what was dropped as another region's copy, as far as it is not stored yet.
    async fn save_dropped_copies(&self) -> Result<(), Error> {
        let streams: Vec<_> = self.streams().values().map(Arc::clone).collect();
        for some in streams.chunks(KEPT_AT_ONCE) {
            join_all(some.iter().map(|stream| stream.appender.save_dropped_copies()))
                .await
                .into_iter()
                .collect::<Result<(), Error>>()?;
        }
        Ok(())
    }

    /// Stores the cursors as they are now: for a copy of the store that is to hold what was handed over before.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn save_cursors(&self) -> Result<(), Error> {
        let subscriptions: Vec<_> = self.streams().values().flat_map(|stream| stream.registry.all()).collect();
        self.0.parts.shared.saver.save(&subscriptions).await
    }

    /// Stores whose each subscription is and when it was read last, as far as that has changed.
    async fn keep_owners(&self) -> Result<(), Error> {
        let subscriptions: Vec<_> = self.streams().values().flat_map(|stream| stream.registry.all()).collect();
        for some in subscriptions.chunks(KEPT_AT_ONCE) {
            let kept = some.iter().map(|subscription| subscription.keep_owner(&*self.0.parts.store));
            join_all(kept).await.into_iter().collect::<Result<(), Error>>()?;
        }
        Ok(())
    }

    fn stream(&self, app: &AppId, stream: Stream) -> Result<Arc<AppStream>, ReadError> {
        self.streams().get(&LogKey { app: app.clone(), stream }).cloned().ok_or(ReadError::NoSuchStream)
    }

    fn streams(&self) -> Arc<Streams> {
        self.0.streams.load_full()
    }
}

/// Of how many subscriptions, or logs, something is stored together.
const KEPT_AT_ONCE: usize = 256;
