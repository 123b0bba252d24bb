//! [`Subscription`]: a reader's place in a log, shared by all who name it.
//!
//! | file | what |
//! |---|---|
//! | `state` | the one state: what is handed over, under way, leased, settled; one value under one lock |
//! | `claim` | entries that a reader has taken, and gives back unless they are handed over |
//! | `holding` | acknowledging, prolonging, giving back, burying |
//! | `loss_marker` | the marker of what retention took, on its way by itself |
//! | `registry` | all of one log: how many there may be, whose they are, their beginning and end |
//! | `leases` | how a reader acknowledges, and what it names when it does |
//! | `lease_name`, `lease_timer` | what a lease is known by; who ends it when its time is over |
//! | `in_hand` | reading for who passes events on, as webhooks do |
//! | `dead_letters` | what was given up |
//! | `persistence`, `cursor_writer` | what is not in the store yet, and how it gets there; for all subscriptions together |
//! | `notes` | what the store holds of it beside its cursor |
//! | `records`, `defaults` | what older gateways stored: how far webhooks were, places under the client's own name |
//! | `unread` | what it had not read when it was removed because nobody reads it |
//! | `lag`, `meters` | how far behind it is, and whether retention is about to cut it off; its metrics |
//!
//! Invariants: the state changes under one short lock, never held across an await. What is stored is never ahead of
//! what is true: the stored cursor follows the low-water mark, and the stored marks say of single entries above it that
//! they are settled. [`Subscription::save`] returns when all that was true at its call is durable.

mod claim;
mod cursor_writer;
pub(super) mod dead_letters;
pub(super) mod defaults;
pub(super) mod holding;
pub(super) mod in_hand;
pub(super) mod lag;
mod lease_name;
mod lease_timer;
pub(super) mod leases;
mod loss_marker;
mod meters;
pub(super) mod notes;
mod persistence;
pub(super) mod records;
pub(super) mod registry;
mod state;
mod unread;

use std::collections::BTreeSet;
use std::hash::RandomState;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::lag::LagSample;
use self::notes::SubscriptionRecords;
use self::persistence::{RemovalOutcome, StoredPlace, SubscriptionWriter};
use self::state::SubscriptionState;
use super::log::ReadError;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::{Metrics, SubscriptionSeries};
use crate::kernel::names::{ClientName, SubscriptionName};
use crate::kernel::sync::lock;
use crate::kernel::task::{Kind, Tasks};
use crate::store::{Error, LogKey, Sequence, Store};

pub(super) use self::claim::{Claim, LeasedEntries, LogRange, MAX_OPEN};
pub(super) use self::cursor_writer::CursorWriter;
use self::in_hand::InHand;
pub(super) use self::lease_timer::LeaseTimer;
pub(super) use self::loss_marker::LossMarker;
pub(super) use self::persistence::Removal;
pub(super) use self::state::{Hold, Selection, UnknownLease, own_key};

pub(super) use self::state::loss_history::LossSpan;
use self::state::place::PlaceId;

/// Which open stream reads: no other of this run has or had its number.
pub type StreamNumber = NonZeroU64;

/// A subscription of a log.
pub(super) struct Subscription {
    name: SubscriptionName,
    log: LogKey,
    /// Whose it is, as far as is known.
    by: Option<ClientName>,
    state: Mutex<SubscriptionState>,
    /// Wakes waiting readers when entries can be had again.
    pub(super) given_back: Notify,
    /// Held by the explicit reader who looks at what is next: so that keys stay in order.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Held while its dead letters change: by burying, giving again and clearing, one at a time.
    pub(super) letters_turn: tokio::sync::Mutex<()>,
    /// What is in the store; locked while it is being written.
    stored: tokio::sync::Mutex<StoredPlace>,
    /// How many saves have begun.
    saves: AtomicU64,
    /// Whether it was ever in the store.
    is_stored: AtomicBool,
    /// Whether it is being removed, or is.
    is_removed: AtomicBool,
    /// Whether it is the place of a webhook that is not configured: nobody is to read it.
    is_orphan: AtomicBool,
    /// Whether the saver has it on its list.
    pub(super) listed: AtomicBool,
    /// Whether the saver has it on the list of those that may wait.
    pub(super) listed_for_later: AtomicBool,
    /// Reads that go on.
    readers: AtomicU32,
    /// When the last read began or ended, in milliseconds since 1970.
    read_at: AtomicU64,
    /// How many dead letters the store has of it.
    letters: AtomicUsize,
    /// What was last seen of how far behind it is.
    pub(super) seen: Mutex<Box<LagSample>>,
    shared: Arc<Shared>,
    pub(super) meters: Arc<SubscriptionSeries>,
}

/// What a subscription looks like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) struct Backlog {
    /// The last entry up to which all are settled.
    pub(in crate::events) low: Sequence,
    /// Entries that are not settled.
    pub(in crate::events) lag: u64,
    /// Of those, the ones in a response or under a lease.
    pub(in crate::events) in_flight: u64,
    /// Of those that are not settled, the ones that were handed out to be acknowledged.
    pub(in crate::events) unacknowledged: u64,
}

/// What all logs and subscriptions share.
pub(super) struct Shared {
    pub(super) tasks: Tasks,
    pub(super) saver: CursorWriter,
    pub(super) timer: LeaseTimer,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    /// Makes keys of users and channels; random, so that nobody can make users who wait for each other.
    pub(super) keys: RandomState,
}

impl Shared {
    /// The time, by both clocks.
    pub(super) fn now(&self) -> (Instant, UnixMillis) {
        (self.clock.now(), self.clock.wall_ms())
    }

    /// Does this to its end, also when who asked for it has left: what changes the store and what is known of it must
    /// not stop between the two.
    ///
    /// # Errors
    /// Those of the work; and when the gateway ends meanwhile.
    pub(super) async fn to_its_end<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        let (tell, told) = oneshot::channel();
        self.tasks.spawn(Kind::StoreWriter, async move {
            // Who asked may have left.
            let _ = tell.send(work.await);
        });
        told.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }
}

impl Subscription {
    /// A subscription as it was recalled, or a new one.
    pub(super) fn new(
        name: SubscriptionName,
        log: &LogKey,
        recalled: SubscriptionRecords,
        shared: &Arc<Shared>,
    ) -> Arc<Self> {
        let meters = meters::enter(&shared.metrics, log, &name);
        let read_at = recalled.owner.read_at;
        let stored = StoredPlace {
            low: recalled.stored.then_some(recalled.at),
            read_at: None,
            letters: recalled.letters.clone(),
            save: 0,
        };
        let subscription = Arc::new(Self {
            name,
            log: log.clone(),
            by: recalled.owner.by.clone(),
            is_stored: AtomicBool::new(recalled.stored),
            letters: AtomicUsize::new(stored.letters.len()),
            seen: Mutex::default(),
            state: Mutex::new(SubscriptionState::new(recalled)),
            given_back: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            letters_turn: tokio::sync::Mutex::default(),
            stored: tokio::sync::Mutex::new(stored),
            saves: AtomicU64::new(0),
            is_removed: AtomicBool::new(false),
            is_orphan: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            listed_for_later: AtomicBool::new(false),
            readers: AtomicU32::new(0),
            read_at: AtomicU64::new(read_at.0),
            shared: Arc::clone(shared),
            meters,
        });
        // What was put back may have to wait.
        subscription.arm();
        subscription
    }

    pub(super) fn name(&self) -> &SubscriptionName {
        &self.name
    }

    /// Whose it is, as far as is known.
    pub(super) fn by(&self) -> Option<&ClientName> {
        self.by.as_ref()
    }

    /// Says that a read goes on, until the guard is dropped.
    ///
    /// # Errors
    /// When the subscription is being removed.
    pub(super) fn reading(self: &Arc<Self>, now: UnixMillis) -> Result<Reading, ReadError> {
        self.readers.fetch_add(1, Ordering::SeqCst);
        self.read_at.fetch_max(now.0, Ordering::Relaxed);
        let reading = Reading(Arc::clone(self));
        if self.is_removed.load(Ordering::SeqCst) { Err(ReadError::BeingRemoved) } else { Ok(reading) }
    }

    /// When it was read last.
    pub(super) fn read_at(&self) -> UnixMillis {
        UnixMillis(self.read_at.load(Ordering::Relaxed))
    }

    pub(super) fn log(&self) -> &LogKey {
        &self.log
    }

    /// How many dead letters it has.
    pub(super) fn letters(&self) -> usize {
        self.letters.load(Ordering::Relaxed)
    }

    /// How many entries retention took before they were read, so far.
    pub(super) fn lost(&self) -> u64 {
        lock(&self.state).lost.events()
    }

    /// The last times that it did, oldest first.
    pub(super) fn loss_spans(&self) -> Vec<LossSpan> {
        lock(&self.state).lost.spans().collect()
    }

    /// How many reads go on.
    pub(super) fn readers(&self) -> u32 {
        self.readers.load(Ordering::Relaxed)
    }

    /// The last entry ever claimed.
    pub(super) fn claimed(&self) -> Sequence {
        Sequence(lock(&self.state).ranges.claimed())
    }

    /// The first entry that was cut off by retention of which no reader was told for sure, where that is known.
    pub(super) fn lost_from(&self) -> Option<Sequence> {
        lock(&self.state).missed.first()
    }

    /// Retention removed all before `earliest`.
    pub(super) fn cut(self: &Arc<Self>, Sequence(earliest): Sequence) {
        if lock(&self.state).is_within(earliest) {
            return;
        }
        let now = self.shared.now();
        let ((lost, is_news), has_marks) = {
            let mut state = lock(&self.state);
            (state.cut(earliest, now), state.has_marks())
        };
        // Otherwise it is not to be stored: it follows from what is, but for when it was.
        if has_marks {
            self.shared.saver.list(self);
        } else if is_news {
            self.shared.saver.list_for_later(self, now.0);
        }
        self.meters.cut_off.inc_by(lost);
    }

    /// A reader says that it has all up to `last` that it was given, or if `given` is not said, that it was given
    /// nothing after `last`; and nothing of `unheard`. `earliest` is the first entry that is kept. What it has is
    /// settled, and of the rest what was handed over plainly is given again.
    pub(super) fn resume(
        self: &Arc<Self>,
        Sequence(last): Sequence,
        given: bool,
        unheard: &[Range<u64>],
        Sequence(earliest): Sequence,
    ) {
        let wall = self.shared.clock.wall_ms();
        let lost = self.change(|state| {
            if given {
                state.hear(last);
            }
            state.give_again(last, unheard, earliest, wall)
        });
        self.meters.cut_off.inc_by(lost);
        self.given_back.notify_waiters();
    }

    /// Goes to another place: all up to `at` is settled, and nothing after it. What is under way or leased is of no
    /// account any more, whatever becomes of it. Durable on return.
    ///
    /// # Errors
    /// When the store fails. Then the place has changed, and is stored when the store recovers.
    pub(super) async fn seek(self: &Arc<Self>, Sequence(at): Sequence, store: &dyn Store) -> Result<(), Error> {
        {
            // None is buried, or cleared, meanwhile.
            let _turn = self.letters_turn.lock().await;
            let (letters, _) = self.listed_letters().await;
            self.change(|state| state.seek(at, letters));
        }
        self.given_back.notify_waiters();
        self.save(store).await
    }

    /// What it looks like in a log whose next entry is `next`. Sets the metrics too.
    pub(in crate::events) fn observe(self: &Arc<Self>, Sequence(next): Sequence) -> Backlog {
        let standing = {
            let state = lock(&self.state);
            Backlog {
                low: Sequence(state.low()),
                lag: state.ranges.lag(next) + state.leases.len() as u64,
                in_flight: state.ranges.in_flight() + state.leases.held() as u64,
                unacknowledged: state.leases.tried() as u64,
            }
        };
        // What nobody is to read is behind for ever: no alarm should ring for that.
        let is_orphan = self.is_orphan();
        let shown = |n: u64| if is_orphan { 0 } else { i64::try_from(n).unwrap_or(i64::MAX) };
        if !self.is_removed() {
            self.meters.lag.set(shown(standing.lag));
            self.meters.unacknowledged.set(shown(standing.unacknowledged));
        }
        standing
    }

    /// Whether something of it is known that waits to be stored.
    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire) || self.listed_for_later.load(Ordering::Acquire)
    }

    /// Stores what has changed. Durable on return, whoever changed it.
    ///
    /// # Errors
    /// When the store fails. Then it is tried again by the cursor writer.
    pub(super) fn save<'s>(self: &'s Arc<Self>, store: &'s dyn Store) -> impl Future<Output = Result<(), Error>> {
        SubscriptionWriter { subscription: self, store }.save()
    }

    /// Makes sure that a new subscription outlives a restart, so that it keeps where it began and whose it is.
    pub(super) async fn make_durable(self: &Arc<Self>, store: &dyn Store) -> Result<(), Error> {
        if self.is_stored.load(Ordering::Acquire) { Ok(()) } else { Box::pin(self.save(store)).await }
    }

    /// Stores whose it is and when it was read last, if that has changed.
    pub(super) fn keep_owner<'s>(self: &'s Arc<Self>, store: &'s dyn Store) -> impl Future<Output = Result<(), Error>> {
        SubscriptionWriter { subscription: self, store }.keep_owner()
    }

    /// Removes it from the store; the log's next entry is `next`. Nothing of it is stored after that, but where it
    /// stood if that is worth a word. `None` when it was not done. To be done to its end.
    ///
    /// # Errors
    /// When the store fails, and it is as it was.
    pub(super) fn remove<'s>(
        self: &'s Arc<Self>,
        store: &'s dyn Store,
        next: Sequence,
        why: Removal,
    ) -> impl Future<Output = Result<Option<RemovalOutcome>, Error>> {
        SubscriptionWriter { subscription: self, store }.remove(next, why)
    }

    /// Its dead letters, and which are being given again.
    pub(super) async fn listed_letters(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let stored = self.stored.lock().await;
        let state = lock(&self.state);
        (state.letters.listed(&stored.letters), state.letters.given_again().clone())
    }

    /// Whether it is being removed, or is.
    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::SeqCst)
    }

    /// Whether it is the place of a webhook that is not configured.
    pub(super) fn is_orphan(&self) -> bool {
        self.is_orphan.load(Ordering::Relaxed)
    }

    /// Says whether it is the place of a webhook that is not configured.
    pub(super) fn set_orphan(&self, is_orphan: bool) {
        self.is_orphan.store(is_orphan, Ordering::Relaxed);
    }

    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut SubscriptionState) -> T) -> T {
        let (done, moved, has_writes) = self.changed(change);
        if moved.is_some() || has_writes {
            self.shared.saver.list(self);
        }
        done
    }

    /// [`Subscription::change`] of entries before `end` that are given to nobody. To be stored at once if the low-water
    /// mark moves past others, too, that were given to somebody before.
    fn change_unseen(self: &Arc<Self>, end: u64, change: impl FnOnce(&mut SubscriptionState)) {
        let ((), moved, has_writes) = self.changed(change);
        match moved {
            Some(low) if low < end && !has_writes => {
                self.shared.saver.list_for_later(self, self.shared.clock.now());
            }
            None if !has_writes => {}
            _ => self.shared.saver.list(self),
        }
    }

    /// Says where the low-water mark is if it moved, and whether there is something to write beside it.
    fn changed<T>(&self, change: impl FnOnce(&mut SubscriptionState) -> T) -> (T, Option<u64>, bool) {
        let mut state = lock(&self.state);
        let before = state.low();
        let done = change(&mut state);
        let low = state.settle_low();
        (done, (low != before).then_some(low), state.has_writes())
    }
}

/// That a read goes on.
pub(super) struct Reading(Arc<Subscription>);

impl Drop for Reading {
    fn drop(&mut self) {
        let now = self.0.shared.clock.wall_ms();
        self.0.read_at.fetch_max(now.0, Ordering::Relaxed);
        self.0.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_that_nobody_reads_holds_little() {
        // With what an `Arc` counts.
        let size = size_of::<Subscription>() + 2 * size_of::<usize>();
        assert!(size <= MOST, "{size} bytes: {} of its state", size_of::<SubscriptionState>());
    }

    /// Bytes: more would have 1280 of the allocator.
    const MOST: usize = 1024;
}
