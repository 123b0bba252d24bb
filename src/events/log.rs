//! [`Log`]: the events of one stream of one app: written by its pollers, read by its subscribers.
//!
//! Invariants: a batch is on stable storage before it is in the tail, and in the tail before readers are woken; so
//! nothing is seen that is not stored. Appends of one log go one at a time (appends of many logs share a sync in the
//! store), so the tail grows in order, and two regions cannot both store an event while each looks for the other's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::cursor::Origin;
use super::dedup::{Dedup, Fingerprint};
use super::delivery::From;
use super::dropped::{self, Dropped};
use super::sequencer::Sequencer;
use super::subscription::recalled::{LeftBehind, Recalled};
use super::subscription::{Removal, Shared, Subscription, defaults, records};
use super::tail::Tail;
use super::waiting::Waiting;
use super::witness::Witness;
use super::{Cursor, ReadError, lock};
use crate::clock::{Clock, UnixMillis};
use crate::names::{ClientName, RegionName, SubscriptionName};
use crate::share;
use crate::store::{Batch, Content, Error, EventText, Kept, LogKey, NewBatch, NoteKind, Sequence, Store, Together};

/// The most subscriptions of one log: each costs a stored cursor, some memory and a few metrics.
pub(super) const MOST_SUBSCRIPTIONS: usize = 10_000;

/// The events of one stream of one app.
pub(super) struct Log {
    pub(super) key: LogKey,
    pub(super) origin: Origin,
    /// No other log has it.
    pub(super) number: u64,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) witness: Arc<Witness>,
    pub(super) tail: Mutex<Tail>,
    /// The number of the next entry; wakes readers.
    pub(super) next: watch::Sender<u64>,
    /// Held while appending.
    pub(super) writer: tokio::sync::Mutex<Writer>,
    pub(super) sequencer: Sequencer,
    subscriptions: Mutex<HashMap<SubscriptionName, Arc<Subscription>>>,
    /// Those that are no more, and where they stood.
    left: Mutex<LeftBehind>,
    /// How many subscriptions each client has, as far as is known.
    begun: Mutex<HashMap<ClientName, usize>>,
    pub(super) shared: Arc<Shared>,
    retention: Mutex<Retention>,
}

/// What stands between the pollers and the log. `None`, and nothing, while there is but one region.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) dedup: Option<Dedup>,
    /// What that has dropped.
    pub(super) dropped: Dropped,
    /// What waits for its turn, when there is an `order_window`.
    pub(super) waiting: Option<Waiting>,
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

/// What a read brought, which is stored in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Brought {
    /// Events and markers, all of one region.
    pub(super) batches: Vec<NewBatch>,
    /// An answer that could not be read to its end.
    pub(super) quarantined: Option<Kept>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Appended {
    /// Events stored.
    pub(super) kept: u64,
    /// Events dropped because another region had returned them.
    pub(super) duplicates: u64,
    /// Events that came after later ones of other regions had gone into the log.
    pub(super) late: u64,
}

impl Log {
    /// Opens a log as the store has it: its subscriptions, and its newest entries into memory. `clients` are the names of
    /// those whose own subscriptions may be there.
    pub(super) async fn open(
        key: LogKey,
        store: Arc<dyn Store>,
        witness: Arc<Witness>,
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
        let subscription = |(name, mut recalled): (SubscriptionName, Recalled)| {
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
            writer: tokio::sync::Mutex::default(),
            sequencer: Sequencer::default(),
            subscriptions,
            left: Mutex::new(left),
            begun: Mutex::new(begun),
            shared,
            retention: Mutex::new(retention),
        }))
    }

    /// Appends what a read brought, less what another region had returned already; or keeps it for its turn. Its entries are
    /// seen once they are stored, and all of it is stored in one step.
    ///
    /// # Errors
    /// When the store fails: nothing has changed, and the same may be tried again.
    pub(super) async fn keep(&self, brought: &Brought) -> Result<Appended, Error> {
        let Brought { batches, quarantined } = brought;
        let all = Together { batches: batches.clone(), quarantined: quarantined.clone(), ..Together::default() };
        let appended = self.keep_in(&mut *self.writer.lock().await, all).await?;
        self.trim_a_burst().await;
        Ok(appended)
    }

    /// Between two rounds of housekeeping a burst may bring more than is to be kept.
    async fn trim_a_burst(&self) {
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

    /// [`Log::keep`], by whoever holds the writer.
    pub(super) async fn keep_in(&self, writer: &mut Writer, mut all: Together) -> Result<Appended, Error> {
        let Writer { dedup, dropped, waiting } = writer;
        let came: u64 = all.batches.iter().map(events_in).sum();
        let region = all.batches.first().map(|batch| batch.region.clone());
        let mut seen = None;
        if let (Some(dedup), Some(region)) = (&mut *dedup, region) {
            let prints: Vec<_> = all.batches.iter().flat_map(prints).collect();
            let fresh = dedup.fresh(&region, &prints, self.clock.now());
            all.batches = only(all.batches, &fresh);
            let copies = prints.iter().zip(fresh).filter_map(|(&event, fresh)| (!fresh).then_some(event)).collect();
            seen = Some((prints, dropped::Read { region, at: self.clock.wall_ms(), events: copies }));
        }
        let kept = all.batches.iter().map(events_in).sum();
        let mut late = 0;
        // Most reads bring nothing, or nothing that another region had not returned.
        let stores = !all.is_empty();
        if stores {
            let mut plan = dropped.plan(seen.as_ref().map(|(_, copies)| copies));
            let notes = std::mem::take(&mut plan.notes);
            all.notes = (!notes.is_empty()).then_some((NoteKind::Waiting, notes));
            match waiting {
                Some(waiting) => late = self.take_in(waiting, all).await?,
                None => self.store.commit(&self.key, all).await?.into_iter().for_each(|batch| self.publish(batch)),
            }
            dropped.done(plan);
        }
        if let (Some(dedup), Some((prints, copies))) = (dedup, seen) {
            dedup.record(&copies.region, &prints, self.clock.now());
            if !stores {
                dropped.add(copies);
            }
        }
        Ok(Appended { kept, duplicates: came - kept, late })
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

    /// Takes over what the store holds beyond what this log knows of: an append that was cut short may have reached it.
    /// Returns when and where that was read.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn catch_up(&self) -> Result<Vec<(UnixMillis, RegionName)>, Error> {
        let mut writer = self.writer.lock().await;
        let known = self.range().1;
        let unseen = usize::try_from(self.store.log_state(&self.key).await?.next.0.saturating_sub(known));
        let batches = match unseen {
            Ok(0) => Vec::new(),
            _ => self.store.read(&self.key, Sequence(known - 1), unseen.unwrap_or(usize::MAX)).await?,
        };
        batches.iter().for_each(|batch| self.publish(Arc::clone(batch)));
        let mut unseen: Vec<_> = batches.iter().map(|batch| (batch.received_at, batch.region.clone())).collect();
        if let Some(waiting) = &mut writer.waiting {
            unseen.extend(self.look_again(waiting).await?);
        }
        // So it is known to other regions' reads, too.
        if !unseen.is_empty()
            && let Some(window) = writer.dedup.as_ref().map(Dedup::window)
        {
            self.recall_sightings(&mut writer, window).await?;
        }
        Ok(unseen)
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
        from: From,
        by: &ClientName,
        by_stream: bool,
    ) -> Result<Arc<Subscription>, ReadError> {
        let known = lock(&self.subscriptions).get(name).cloned();
        let subscription = match known {
            Some(subscription) => subscription,
            None => {
                let at = self.place(from).await?;
                let mut all = lock(&self.subscriptions);
                // Another reader may have made it meanwhile: then its place counts.
                if !all.contains_key(name) && !name.is_of_webhook() {
                    let most = self.retention().most_of_client;
                    let mut begun = lock(&self.begun);
                    let held = begun.entry(by.clone()).or_default();
                    if *held >= most {
                        return Err(ReadError::TooManyOfClient { most });
                    }
                    if !share::may_take(1, *held, all.len(), MOST_SUBSCRIPTIONS) {
                        return Err(ReadError::TooManySubscriptions);
                    }
                    *held += 1;
                }
                let by = (!name.is_of_webhook()).then(|| by.clone());
                let make = || {
                    let mut recalled = Recalled::begun(at, by, self.clock.wall_ms(), self.clock.now());
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
            let leaves_note = lock(&self.left).len() < MOST_SUBSCRIPTIONS;
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
            let Some(left) = subscription.remove(&*log.store, log.range().1, why).await? else { return Ok(None) };
            lock(&log.left).add(subscription.name(), &left);
            lock(&log.subscriptions).remove(subscription.name());
            let mut begun = lock(&log.begun);
            if let Some(held) = subscription.by().and_then(|by| begun.get_mut(by)) {
                *held = held.saturating_sub(1);
            }
            Ok(Some(left.unread))
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
    pub(super) async fn place(&self, from: From) -> Result<u64, ReadError> {
        let (earliest, next) = self.range();
        let first = match from {
            From::Earliest => earliest,
            From::Latest => next,
            From::Since(time) => self.first_since(time).await?.max(earliest).min(next),
            From::After(cursor) => return self.at(cursor),
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

/// How many events a batch has.
fn events_in(batch: &NewBatch) -> u64 {
    if let Content::Events(events) = &batch.content { events.len() as u64 } else { 0 }
}

/// What the events of a batch are known by.
fn prints(batch: &NewBatch) -> Vec<Fingerprint> {
    let Content::Events(events) = &batch.content else { return Vec::new() };
    events.iter().map(|event| Fingerprint::of(&event)).collect()
}

/// The batches with those events alone that are fresh.
fn only(batches: Vec<NewBatch>, fresh: &[bool]) -> Vec<NewBatch> {
    let mut rest = fresh;
    let fresh_of = |batch: NewBatch| {
        let Content::Events(events) = &batch.content else { return Some(batch) };
        let fresh = rest.split_off(..events.len()).unwrap_or_default();
        if fresh.iter().all(|&fresh| fresh) {
            return Some(batch);
        }
        let kept: Vec<_> = events.iter().zip(fresh).filter_map(|(event, &fresh)| fresh.then_some(event)).collect();
        let kept = EventText::join(kept.iter().map(|event| &event[..]))?;
        Some(NewBatch { content: Content::Events(kept), ..batch })
    };
    batches.into_iter().filter_map(fresh_of).collect()
}

/// How many entries are taken into memory at start, so that subscribers who had kept up need not ask the store.
const PRELOADED: u64 = 2000;

/// The part of `retention_bytes` by which a log may grow beyond it before it is trimmed at once: an eighth.
const BURST: u64 = 8;
