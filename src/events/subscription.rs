//! [`Subscription`]: a reader's place in a log, shared by all who name it.
//!
//! | file | what |
//! |---|---|
//! | `state` | what is handed over, under way, open, settled: one value under one lock |
//! | `claim` | a run of entries on its way to a plain reader |
//! | `held` | entries under a lease; acknowledging, extending, giving back |
//! | `recalled` | what an earlier run has stored of it |
//! | `defaults` | places of clients that an older gateway stored under the client's name |
//! | `standing` | how far behind it is; its meters |
//!
//! Invariants: the state changes under one short lock, never held across an await. What is stored is never ahead of what
//! is true: the stored cursor follows the low-water mark, and the stored marks say of single entries above it that they
//! are settled. [`Subscription::save`] returns when all that was true at its call is durable; calls that wait for each
//! other share a write.

mod claim;
pub(super) mod defaults;
mod held;
pub(super) mod recalled;
mod standing;
mod state;

use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use self::recalled::{Owner, Recalled};
use self::standing::Meters;
use self::state::State;
use super::judge::Judge;
use super::lag::Seen;
use super::leases::Timer;
use super::saver::Saver;
use super::{ReadError, lock};
use crate::clock::{Clock, UnixMillis};
use crate::metrics::Metrics;
use crate::names::{ClientName, SubscriptionName};
use crate::store::{Error, LogKey, NoteKind, Sequence, Store};

pub(super) use self::claim::Claim;
pub(super) use self::held::{Held, NotSettled};
pub(super) use self::state::own_key;

/// A subscription of a log.
pub(super) struct Subscription {
    name: SubscriptionName,
    log: LogKey,
    /// Whose it is, as far as is known.
    by: Option<ClientName>,
    state: Mutex<State>,
    /// Wakes waiting readers when entries can be had again.
    pub(super) given_back: Notify,
    /// Held by the explicit reader who looks at what is next: so that keys stay in order.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Held while its list of dead letters grows.
    pub(super) burying: tokio::sync::Mutex<()>,
    /// What is in the store; locked while it is being written.
    stored: tokio::sync::Mutex<Stored>,
    /// Whether it was ever in the store.
    is_stored: AtomicBool,
    /// Whether it is being removed, or is.
    is_removed: AtomicBool,
    /// Whether the saver has it on its list.
    pub(super) listed: AtomicBool,
    /// Reads that go on.
    readers: AtomicUsize,
    /// When the last read began or ended, in milliseconds since 1970.
    read_at: AtomicU64,
    /// Its dead letters.
    pub(super) letters: AtomicUsize,
    /// What was last seen of how far behind it is.
    pub(super) seen: Mutex<Seen>,
    shared: Arc<Shared>,
    pub(super) meters: Meters,
}

/// What all logs and subscriptions share.
pub(super) struct Shared {
    pub(super) saver: Saver,
    pub(super) timer: Timer,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    /// Makes keys of users and channels; random, so that nobody can make users who wait for each other.
    pub(super) keys: RandomState,
    /// Holds filters against events.
    pub(super) judge: Judge,
}

/// What is in the store.
#[derive(Default)]
struct Stored {
    low: Option<u64>,
    read_at: Option<u64>,
}

impl Subscription {
    /// A subscription as it was recalled, or a new one.
    pub(super) fn new(name: SubscriptionName, log: &LogKey, recalled: Recalled, shared: &Arc<Shared>) -> Arc<Self> {
        let meters = Meters::new(&shared.metrics, log, &name);
        let stored = Stored { low: recalled.stored.then_some(recalled.at), read_at: None };
        let read_at = recalled.owner.read_at;
        Arc::new(Self {
            name,
            log: log.clone(),
            by: recalled.owner.by.clone(),
            is_stored: AtomicBool::new(recalled.stored),
            letters: AtomicUsize::new(recalled.letters),
            seen: Mutex::default(),
            state: Mutex::new(State::new(recalled)),
            given_back: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            burying: tokio::sync::Mutex::default(),
            stored: tokio::sync::Mutex::new(stored),
            is_removed: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            readers: AtomicUsize::new(0),
            read_at: AtomicU64::new(read_at.0),
            shared: Arc::clone(shared),
            meters,
        })
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

    /// How many dead letters it has.
    pub(super) fn letters(&self) -> usize {
        self.letters.load(Ordering::Relaxed)
    }

    /// The last entry ever claimed.
    pub(super) fn claimed(&self) -> u64 {
        lock(&self.state).claims.claimed()
    }

    /// Retention removed all before `earliest`.
    pub(super) fn cut(self: &Arc<Self>, earliest: u64) {
        if lock(&self.state).is_within(earliest) {
            return;
        }
        let now = self.shared.clock.now();
        let lost = self.change(|state| state.cut(earliest, now));
        self.meters.cut_off.inc_by(lost);
    }

    /// A reader says that it has all up to `last` that it was given: see
    /// [`Claims::resume`](super::claims::Claims::resume).
    pub(super) fn resume(self: &Arc<Self>, last: u64) {
        self.change(|state| state.claims.resume(last));
        self.given_back.notify_waiters();
    }

    /// A reader says that it was given nothing after `last`: see
    /// [`Claims::give_again_after`](super::claims::Claims::give_again_after).
    pub(super) fn give_again_after(self: &Arc<Self>, last: u64) {
        self.change(|state| state.claims.give_again_after(last));
        self.given_back.notify_waiters();
    }

    /// Goes to another place: all up to `at` is settled, and nothing after it. What is under way or leased is of no
    /// account any more, whatever becomes of it. Durable on return.
    ///
    /// # Errors
    /// When the store fails. Then the place has changed until the gateway ends.
    pub(super) async fn seek(self: &Arc<Self>, at: u64, store: &dyn Store) -> Result<(), Error> {
        lock(&self.state).seek(at);
        self.given_back.notify_waiters();
        self.save_or_list(store).await
    }

    /// Makes sure that a new subscription outlives a restart, so that it keeps where it began and whose it is.
    pub(super) async fn make_durable(&self, store: &dyn Store) -> Result<(), Error> {
        if self.is_stored.load(Ordering::Acquire) {
            return Ok(());
        }
        self.keep_owner(store).await?;
        self.save(store).await
    }

    /// Stores whose it is and when it was read last, if that has changed.
    pub(super) async fn keep_owner(&self, store: &dyn Store) -> Result<(), Error> {
        let mut stored = self.stored.lock().await;
        let read_at = self.read_at();
        if stored.read_at == Some(read_at.0) || self.is_removed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let owner = Owner { by: self.by.clone(), read_at };
        let note = (self.name.to_string(), Some(owner.note()));
        store.keep_notes(&self.log, NoteKind::Subscription, vec![note]).await?;
        stored.read_at = Some(read_at.0);
        Ok(())
    }

    /// Stores what has changed: the cursor, and what is settled out of order. Two savers cannot overtake each other.
    pub(super) async fn save(&self, store: &dyn Store) -> Result<(), Error> {
        let mut stored = self.stored.lock().await;
        if self.is_removed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let writes = lock(&self.state).writes(self.name.as_str(), stored.low);
        let cursor = async {
            match stored.low == Some(writes.low) {
                true => Ok(()),
                false => store.save_cursor(&self.log, &self.name, Sequence(writes.low)).await,
            }
        };
        let notes = async {
            match writes.notes.is_empty() {
                true => Ok(()),
                false => store.keep_notes(&self.log, NoteKind::Subscription, writes.notes.clone()).await,
            }
        };
        let (cursor, notes) = tokio::join!(cursor, notes);
        if cursor.is_ok() {
            stored.low = Some(writes.low);
            self.is_stored.store(true, Ordering::Release);
        }
        let notes = match notes {
            Ok(()) => self.forget_letters(store, &writes.letters).await,
            Err(error) => Err(error),
        };
        if notes.is_err() {
            lock(&self.state).failed(writes);
        }
        cursor.and(notes)
    }

    /// Removes it from the store: cursor, notes and dead letters. Nothing of it is stored after that.
    ///
    /// # Errors
    /// When the store fails: then it is as it was, but for what was removed.
    pub(super) async fn remove(self: &Arc<Self>, store: &dyn Store, even_if_read: bool) -> Result<bool, Error> {
        let _stored = self.stored.lock().await;
        if self.is_removed.swap(true, Ordering::SeqCst) {
            return Ok(false);
        }
        if !even_if_read && self.readers.load(Ordering::SeqCst) > 0 {
            self.is_removed.store(false, Ordering::SeqCst);
            return Ok(false);
        }
        let removed = recalled::remove(store, &self.log, &self.name).await;
        if removed.is_err() {
            self.is_removed.store(false, Ordering::SeqCst);
            return removed.map(|()| true);
        }
        lock(&self.state).book.clear();
        self.given_back.notify_waiters();
        Meters::remove(&self.shared.metrics, &self.log, &self.name);
        Ok(true)
    }

    /// Whether it is being removed, or is.
    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::SeqCst)
    }

    async fn save_or_list(self: &Arc<Self>, store: &dyn Store) -> Result<(), Error> {
        let saved = self.save(store).await;
        if saved.is_err() {
            self.shared.saver.list(self);
        }
        saved
    }

    /// The dead letters of these were acknowledged when they were handed out again.
    async fn forget_letters(&self, store: &dyn Store, letters: &[u64]) -> Result<(), Error> {
        if letters.is_empty() {
            return Ok(());
        }
        let names = letters.iter().map(|&at| (recalled::letter(&self.name, at), None)).collect();
        store.keep_notes(&self.log, NoteKind::DeadLetter, names).await?;
        self.letters.fetch_sub(letters.len(), Ordering::Relaxed);
        Ok(())
    }

    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (moved, done) = {
            let mut state = lock(&self.state);
            let before = state.low();
            let done = change(&mut state);
            (state.settle_low() != before || state.has_writes(), done)
        };
        if moved {
            self.shared.saver.list(self);
        }
        done
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
