//! [`Log`]: the events of one stream of one app: written by its pollers, read by its subscribers.
//!
//! Invariants: a batch is on stable storage before it is in the tail, and in the tail before readers are woken; so
//! nothing is seen that is not stored. Appends of one log go one at a time (appends of many logs share a sync in the
//! store), so the tail grows in order, and two regions cannot both store an event while each looks for the other's.

pub(super) mod age_guard;
pub(super) mod cursor;
pub(super) mod cursor_pair;
pub(super) mod filter;
pub(super) mod judge;
pub(super) mod loss;
pub(super) mod tail;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use self::age_guard::AgeGuard;
use self::cursor::Origin;
use self::tail::Tail;
use super::delivery::StartAt;
use super::ingest::appender::Writer;
use super::ingest::reorder_task::ReorderTask;
use super::subscription::notes::{Remainders, SubscriptionRecords};
use super::subscription::{Removal, Shared, Subscription, defaults, records};
use super::{Cursor, ReadError, lock};
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::names::{ClientName, SubscriptionName};
use crate::kernel::share;
use crate::store::{Batch, Error, LogKey, Sequence, Store};

/// The most subscriptions of one log: each costs a stored cursor, some memory and a few metrics.
pub(super) const MAX_SUBSCRIPTIONS: usize = 10_000;

/// The events of one stream of one app.
pub(super) struct Log {
    pub(super) key: LogKey,
    pub(super) origin: Origin,
    /// No other log has it.
    pub(super) number: u64,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) witness: Arc<AgeGuard>,
    pub(super) tail: Mutex<Tail>,
    /// The number of the next entry; wakes readers.
    pub(super) next: watch::Sender<u64>,
    /// Had by [`Log::writer`] alone.
    pub(super) appending: tokio::sync::Mutex<Writer>,
    pub(super) sequencer: ReorderTask,
    subscriptions: Mutex<HashMap<SubscriptionName, Arc<Subscription>>>,
    /// Those that are no more, and where they stood.
    left: Mutex<Remainders>,
    /// How many subscriptions each client has, as far as is known.
    begun: Mutex<HashMap<ClientName, usize>>,
    pub(super) shared: Arc<Shared>,
    retention: Mutex<Retention>,
}

/// How much a log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    pub(super) age: Duration,
    pub(super) bytes: u64,
    /// A subscription that nobody reads for so long is removed; never when zero.
    pub(super) subscription_ttl: Duration,
    /// How many subscriptions a client may have.
    pub(super) most_of_client: usize,
}

impl Log {
    /// Opens a log as the store has it: its subscriptions, and its newest entries into memory. `clients` are the names of
    /// those whose own subscriptions may be there.
    pub(super) async fn open(
        key: LogKey,
        store: Arc<dyn Store>,
        witness: Arc<AgeGuard>,
        shared: Arc<Shared>,
        retention: Retention,
        clients: &HashSet<&str>,
    ) -> Result<Arc<Self>, Error> {
        let state = store.log_state(&key).await?;
        let clock = shared.clock.clone();
        let now = (clock.wall_ms(), clock.now());
        let (mut recalled, left) = records::recall(&*store, &key, state.next.0 - 1, now).await?;
        defaults::give(&*store, &key, &mut recalled, clients).await?;
        let (earliest, next) = (state.earliest.0, state.next.0);
        let mut tail = Tail::new(earliest, next);
        if earliest < next {
            for batch in store.read(&key, Sequence((next - 1).saturating_sub(PRELOADED)), PRELOADED as usize).await? {
                tail.push(batch);
            }
        }
        let mut begun = HashMap::new();
        let subscription = |(name, mut recalled): (SubscriptionName, SubscriptionRecords)| {
            recalled.at = recalled.at.min(next - 1);
            recalled.end = next - 1;
            if let Some(by) = &recalled.owner.by {
                *begun.entry(by.clone()).or_default() += 1;
            }
            let subscription = Subscription::new(name.clone(), &key, recalled, &shared);
            subscription.cut(earliest);
            (name, subscription)
        };
        let subscriptions = Mutex::new(recalled.into_iter().map(subscription).collect());
        Ok(Arc::new(Self {
            origin: Origin::new(store.epoch(), &key),
            key,
            number: shared.judge.number(),
            store,
            clock,
            witness,
            tail: Mutex::new(tail),
            next: watch::Sender::new(next),
            appending: tokio::sync::Mutex::default(),
            sequencer: ReorderTask::default(),
            subscriptions,
            left: Mutex::new(left),
            begun: Mutex::new(begun),
            shared,
            retention: Mutex::new(retention),
        }))
    }

    /// Between two rounds of housekeeping a burst may bring more than is to be kept.
    pub(super) async fn trim_a_burst(&self) {
        let most = self.retention().bytes;
        let is_over = |bytes: u64| bytes > most.saturating_add(most / BURST);
        if self.store.log_state(&self.key).await.is_ok_and(|state| is_over(state.bytes)) {
            self.try_to_trim().await;
        }
    }

    /// [`Log::trim`]. What fails is tried again next time.
    pub(super) async fn try_to_trim(&self) {
        if let Err(error) = self.trim().await {
            tracing::warn!(app = %self.key.app, stream = %self.key.stream, %error, "old events could not be removed");
        }
    }

    /// Changes how much is kept, from the next trimming on.
    pub(super) fn set_retention(&self, retention: Retention) {
        *lock(&self.retention) = retention;
    }

    /// Removes what is older or more than is to be kept.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn trim(&self) -> Result<(), Error> {
        // Or after a kill it would seem that subscriptions have not read what they have. If it fails there may be no room
        // for it, and room is what is made here; it is tried again.
        let unsaved: Vec<_> =
            self.subscriptions().into_iter().filter(|subscription| subscription.is_listed()).collect();
        let _ = self.shared.saver.save(&unsaved).await;
        let retention = *lock(&self.retention);
        let older_than = self.witness.older_than(retention.age);
        let state = self.store.trim(&self.key, older_than, retention.bytes).await?;
        self.trimmed(state.earliest.0);
        Ok(())
    }

    /// All before `earliest` is gone from the store.
    pub(super) fn trimmed(&self, earliest: u64) {
        let (before, _) = self.range();
        if earliest <= before {
            return;
        }
        lock(&self.tail).trimmed(earliest);
        self.subscriptions().iter().for_each(|subscription| subscription.cut(earliest));
    }

    /// The number of the oldest entry, and the number of the next.
    pub(super) fn range(&self) -> (u64, u64) {
        let tail = lock(&self.tail);
        (tail.earliest(), tail.next())
    }

    /// The cursor of a place: `at` is the last entry before it.
    pub(super) fn cursor(&self, at: u64) -> Cursor {
        Cursor { epoch: self.origin.epoch(), at: Sequence(at) }
    }

    /// The subscriptions there are.
    pub(super) fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        lock(&self.subscriptions).values().cloned().collect()
    }

    /// The subscription of that name; a new one begins at `from` and is stored before it is used.
    ///
    /// # Errors
    /// When the store fails, or there are too many, or too many of this client's.
    pub(super) async fn subscription(
        &self,
        name: &SubscriptionName,
        from: StartAt,
        by: &ClientName,
        by_stream: bool,
    ) -> Result<Arc<Subscription>, ReadError> {
        let known = lock(&self.subscriptions).get(name).cloned();
        let subscription = match known {
            Some(subscription) => subscription,
            None => {
                // In a box, as what is stored below: it is done once, and who waits should not hold room for it.
                let at = Box::pin(self.place(from)).await?;
                let mut all = lock(&self.subscriptions);
                // Another reader may have made it meanwhile: then its place counts.
                if !all.contains_key(name) && !name.is_of_webhook() {
                    let most = self.retention().most_of_client;
                    let mut begun = lock(&self.begun);
                    let held = begun.entry(by.clone()).or_default();
                    if *held >= most {
                        return Err(ReadError::TooManyOfClient { most });
                    }
                    if !share::may_take(1, *held, all.len(), MAX_SUBSCRIPTIONS) {
                        return Err(ReadError::TooManySubscriptions);
                    }
                    *held += 1;
                }
                let by = (!name.is_of_webhook()).then(|| by.clone());
                let make = || {
                    let mut recalled = SubscriptionRecords::begun(at, by, self.clock.wall_ms(), self.clock.now());
                    lock(&self.left).come_again(name, by_stream, &mut recalled);
                    Subscription::new(name.clone(), &self.key, recalled, &self.shared)
                };
                Arc::clone(all.entry(name.clone()).or_insert_with(make))
            }
        };
        subscription.make_durable(&*self.store).await?;
        Ok(subscription)
    }

    /// How much is kept.
    pub(super) fn retention(&self) -> Retention {
        *lock(&self.retention)
    }

    /// Removes the subscriptions that nobody has read for so long as they may be idle; webhooks' never.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn remove_idle(self: &Arc<Self>) -> Result<(), Error> {
        let ttl = self.retention().subscription_ttl;
        if ttl.is_zero() {
            return Ok(());
        }
        let older_than = self.witness.older_than(ttl);
        for subscription in self.subscriptions() {
            let is_idle = !subscription.name().is_of_webhook() && subscription.read_at() < older_than;
            let leaves_note = lock(&self.left).len() < MAX_SUBSCRIPTIONS;
            let why = Removal::Idle { leaves_note };
            if is_idle && let Some(unread) = self.remove(Arc::clone(&subscription), why).await? {
                let (app, stream, name) = (&self.key.app, self.key.stream, subscription.name());
                match unread {
                    0 => {
                        tracing::info!(%app, %stream, subscription = %name, "removed: nobody has read it for subscription_ttl")
                    }
                    _ => {
                        tracing::warn!(%app, %stream, subscription = %name, unread, "removed, with unread events: nobody has read it for subscription_ttl")
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes a subscription. Says how many entries it had not read that somebody may miss; `None` when that was not done.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn remove(
        self: &Arc<Self>,
        subscription: Arc<Subscription>,
        why: Removal,
    ) -> Result<Option<u64>, Error> {
        let log = Arc::clone(self);
        let removing = async move {
            let removed = subscription.remove(&*log.store, log.range().1, why).await?;
            let Some((left, is_durable)) = removed else { return Ok(None) };
            lock(&log.left).add(subscription.name(), &left);
            lock(&log.subscriptions).remove(subscription.name());
            let mut begun = lock(&log.begun);
            if let Some(held) = subscription.by().and_then(|by| begun.get_mut(by)) {
                *held = held.saturating_sub(1);
            }
            is_durable.map(|()| Some(left.unread))
        };
        self.shared.to_its_end(removing).await
    }

    /// The subscription of that name, if there is one.
    pub(super) fn known(&self, name: &SubscriptionName) -> Option<Arc<Subscription>> {
        lock(&self.subscriptions).get(name).cloned()
    }

    /// The last entry before the place where a new subscription begins.
    ///
    /// # Errors
    /// When the store fails, or a cursor is no place in this log.
    pub(super) async fn place(&self, from: StartAt) -> Result<u64, ReadError> {
        let (earliest, next) = self.range();
        let first = match from {
            StartAt::Earliest => earliest,
            StartAt::Latest => next,
            StartAt::Since(time) => self.first_since(time).await?.max(earliest).min(next),
            StartAt::After(cursor) => return self.at(cursor),
        };
        Ok(first.saturating_sub(1))
    }

    /// The entry a cursor stands at.
    ///
    /// # Errors
    /// When it is older than what is kept, of another store or stream, or ahead of the log.
    pub(super) fn at(&self, cursor: Cursor) -> Result<u64, ReadError> {
        let (earliest, next) = self.range();
        let at = cursor.at.0;
        if self.origin.is_of_other_stream(cursor) {
            return Err(ReadError::OfAnotherStream);
        }
        // Before the comparison with the end: a cursor of another store says nothing about this one.
        let lost = self.origin.is_of(cursor).then(|| (earliest - 1).saturating_sub(at));
        if lost != Some(0) {
            return Err(ReadError::Expired { earliest: self.cursor(earliest - 1), lost });
        }
        if at >= next { Err(ReadError::Ahead) } else { Ok(at) }
    }

    async fn first_since(&self, time: UnixMillis) -> Result<u64, Error> {
        Ok(self.store.first_since(&self.key, time).await?.0)
    }

    pub(super) fn publish(&self, batch: Arc<Batch>) {
        let next = {
            let mut tail = lock(&self.tail);
            tail.push(batch);
            tail.next()
        };
        self.next.send_replace(next);
    }
}

/// How many entries are taken into memory at start, so that subscribers who had kept up need not ask the store.
const PRELOADED: u64 = 2000;

/// The part of `retention_bytes` by which a log may grow beyond it before it is trimmed at once: an eighth.
const BURST: u64 = 8;
