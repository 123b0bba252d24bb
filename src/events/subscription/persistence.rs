//! What of a subscription is not in the store yet, and how it gets there.
//!
//! Invariants: all that is said of a subscription goes in one step: its cursor, what is settled above it, what is to wait,
//! what was put back, its dead letters, and whose it is. What is on its way counts as not stored until the store has said so: a caller who
//! leaves meanwhile, and a store that fails, leave it to the next who saves, and the saver sees to it that there is one.
//! Two who save cannot overtake each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::MutexGuard;

use super::notes::{self, Owner};
use super::state::Writes;
use super::unread::Unread;
use super::{Subscription, SubscriptionMeters};
use crate::events::{MAX_DEAD_LETTERS, lock};
use crate::store::{Error, NoteKind, PlaceChange, Store};

/// What is in the store.
#[derive(Default)]
pub(super) struct StoredPlace {
    pub(super) low: Option<u64>,
    /// When it was read last, as this run has stored it.
    pub(super) read_at: Option<u64>,
    pub(super) letters: BTreeSet<u64>,
    /// The last save that ended well, by its number.
    pub(super) save: u64,
}

/// Why a subscription is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum Removal {
    /// Somebody wants it gone.
    Asked,
    /// Nobody has read it for long. Not if somebody reads it, or it has dead letters. Where it stood is noted if there is
    /// room for that.
    Idle { leaves_note: bool },
}

/// What a subscription that is no more left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct Remainder {
    /// How many entries it had not read.
    pub(in crate::events) unread: u64,
    /// Which, as the store says to who comes by its name again.
    pub(in crate::events) noted: Option<Unread>,
    /// The last entry of the log: its readers may have a place up to there.
    pub(in crate::events) end: u64,
}

/// What is on its way to the store. Dropped before it is there, it is to be written again.
pub(in crate::events) struct PendingSave<'s> {
    subscription: &'s Arc<Subscription>,
    stored: MutexGuard<'s, StoredPlace>,
    writes: Option<Writes>,
    read_at: Option<u64>,
    /// The oldest dead letters, which have to go for new ones.
    too_many: Vec<u64>,
    number: u64,
}

impl StoredPlace {
    /// The oldest dead letters that have to go for those that are new.
    fn too_many(&self, writes: &Writes) -> Vec<u64> {
        let new: BTreeSet<u64> = writes.letters().collect();
        if new.is_empty() {
            return Vec::new();
        }
        let gone: BTreeSet<u64> = writes.acknowledged().collect();
        let is_old = |at: &&u64| !new.contains(at) && !gone.contains(at);
        let old = self.letters.iter().filter(is_old).count();
        let over = (old + new.len()).saturating_sub(MAX_DEAD_LETTERS);
        self.letters.iter().filter(is_old).take(over).copied().collect()
    }
}

impl Subscription {
    /// Stores what has changed. Durable on return, whoever changed it.
    ///
    /// # Errors
    /// When the store fails. Then it is tried again by the saver.
    pub(in crate::events) async fn save(self: &Arc<Self>, store: &dyn Store) -> Result<(), Error> {
        let begun = self.saves.load(Ordering::SeqCst);
        let stored = self.stored.lock().await;
        if stored.save > begun {
            // One that began since has stored it: who waited need not write what others have changed meanwhile.
            self.shared.saver.list(self);
            return Ok(());
        }
        if let Some((saving, changes)) = self.saving(stored) {
            store.change_places(&self.log, changes).await?;
            saving.done();
        }
        Ok(())
    }

    /// What has changed, for a write together with others'. `None` while somebody else writes it.
    pub(in crate::events) fn saving_now(self: &Arc<Self>) -> Option<Option<(PendingSave<'_>, Vec<PlaceChange>)>> {
        Some(self.saving(self.stored.try_lock().ok()?))
    }

    fn saving<'s>(
        self: &'s Arc<Self>,
        stored: MutexGuard<'s, StoredPlace>,
    ) -> Option<(PendingSave<'s>, Vec<PlaceChange>)> {
        if self.is_removed() {
            return None;
        }
        // Before it is looked at what there is to write: it holds all that was changed before.
        let number = self.saves.fetch_add(1, Ordering::SeqCst) + 1;
        let (writes, mut changes) = lock(&self.state).writes(&self.name, stored.low, self.shared.now());
        // A new one is stored with whose it is, and in the place of one that was there before.
        let read_at = stored.low.is_none().then(|| self.read_at().0);
        if read_at.is_some() {
            let left = notes::left(self.name.as_str());
            changes.extend([self.owner_note(), PlaceChange::Note(NoteKind::Subscription, left, None)]);
        }
        let too_many = stored.too_many(&writes);
        changes.extend(too_many.iter().map(|&at| self.letter(at, None)));
        let saving = PendingSave { subscription: self, stored, writes: Some(writes), read_at, too_many, number };
        if changes.is_empty() {
            saving.done();
            return None;
        }
        Some((saving, changes))
    }

    /// Makes sure that a new subscription outlives a restart, so that it keeps where it began and whose it is.
    pub(in crate::events) async fn make_durable(self: &Arc<Self>, store: &dyn Store) -> Result<(), Error> {
        if self.is_stored.load(Ordering::Acquire) { Ok(()) } else { Box::pin(self.save(store)).await }
    }

    /// Stores whose it is and when it was read last, if that has changed.
    pub(in crate::events) async fn keep_owner(&self, store: &dyn Store) -> Result<(), Error> {
        let mut stored = self.stored.lock().await;
        let read_at = self.read_at().0;
        if stored.read_at == Some(read_at) || self.is_removed() {
            return Ok(());
        }
        store.change_places(&self.log, vec![self.owner_note()]).await?;
        stored.read_at = Some(read_at);
        Ok(())
    }

    fn owner_note(&self) -> PlaceChange {
        let owner = Owner { by: self.by.clone(), read_at: self.read_at() };
        PlaceChange::Note(NoteKind::Subscription, self.name.to_string(), Some(owner.note()))
    }

    /// Its dead letters, and which are being given again.
    pub(in crate::events) async fn listed(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let stored = self.stored.lock().await;
        let state = lock(&self.state);
        (state.dead_letters(&stored.letters), state.given_again())
    }

    /// Takes dead letters off the list; what is asked is their number, and whether they are being given again. Durable on
    /// return. Says how many. To be done to its end.
    pub(in crate::events) async fn forget_letters(
        &self,
        which: impl Fn(u64, bool) -> bool + Send,
        store: &dyn Store,
    ) -> Result<usize, Error> {
        let mut stored = self.stored.lock().await;
        let gone: Vec<u64> = {
            let state = lock(&self.state);
            let (letters, again) = (state.dead_letters(&stored.letters), state.given_again());
            letters.into_iter().filter(|at| which(*at, again.contains(at))).collect()
        };
        if gone.is_empty() || self.is_removed() {
            return Ok(0);
        }
        store.change_places(&self.log, gone.iter().map(|&at| self.letter(at, None)).collect()).await?;
        stored.letters.retain(|at| gone.binary_search(at).is_err());
        self.count_letters(&stored);
        Ok(gone.len())
    }

    /// Removes it from the store; the log's next entry is `next`. Nothing of it is stored after that, but where it stood if
    /// that is worth a word. `None` when it was not done. Also says whether that is durable: where the store failed and it is
    /// gone all the same, it is gone here, too. To be done to its end.
    ///
    /// # Errors
    /// When the store fails, and it is as it was.
    pub(in crate::events) async fn remove(
        self: &Arc<Self>,
        store: &dyn Store,
        next: u64,
        why: Removal,
    ) -> Result<Option<(Remainder, Result<(), Error>)>, Error> {
        let mut stored = self.stored.lock().await;
        if self.is_removed.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        let end = next.saturating_sub(1);
        let left = match why {
            Removal::Asked => Remainder { end, ..Remainder::default() },
            Removal::Idle { leaves_note } => {
                let unread = Unread::of(&lock(&self.state));
                let count = unread.count(next);
                Remainder { unread: count, noted: (leaves_note && count > 0).then_some(unread), end }
            }
        };
        let is_wanted = why != Removal::Asked && (self.readers.load(Ordering::SeqCst) > 0 || self.has_letters(&stored));
        if is_wanted {
            self.is_removed.store(false, Ordering::SeqCst);
            return Ok(None);
        }
        let mut changes = vec![PlaceChange::Removed(self.name.clone())];
        let end = Some(left.end.to_string().into());
        changes.push(PlaceChange::Note(NoteKind::Subscription, notes::REMOVED.to_owned(), end));
        if let Some(unread) = &left.noted {
            let note = Some(unread.note());
            changes.push(PlaceChange::Note(NoteKind::Subscription, notes::left(self.name.as_str()), note));
        }
        let removed = store.change_places(&self.log, changes).await;
        if let Err(why) = &removed
            && !self.is_gone(store).await
        {
            self.is_removed.store(false, Ordering::SeqCst);
            return Err(why.clone());
        }
        *stored = StoredPlace::default();
        {
            let mut state = lock(&self.state);
            state.leases.clear();
            state.missed.clear();
        }
        self.given_back.notify_waiters();
        SubscriptionMeters::remove(&self.shared.metrics, &self.log, &self.name);
        Ok(Some((left, removed)))
    }

    /// Whether the store had it and has it no longer, as far as it says.
    async fn is_gone(&self, store: &dyn Store) -> bool {
        let was_there = self.is_stored.load(Ordering::Acquire);
        was_there && store.cursors(&self.log).await.is_ok_and(|all| all.iter().all(|(name, _)| *name != self.name))
    }

    fn has_letters(&self, stored: &StoredPlace) -> bool {
        !lock(&self.state).dead_letters(&stored.letters).is_empty()
    }

    fn letter(&self, at: u64, note: Option<Bytes>) -> PlaceChange {
        PlaceChange::Note(NoteKind::DeadLetter, notes::letter(&self.name, at), note)
    }

    /// So many dead letters are new in the store, and so many of the oldest are gone for them.
    fn died(&self, new: usize, forgotten: usize) {
        self.meters.dead_lettered.inc_by(new as u64);
        let (app, stream, name) = (&self.log.app, self.log.stream, &self.name);
        if forgotten > 0 {
            tracing::error!(%app, %stream, subscription = %name, forgotten, "too many dead letters; the oldest are gone");
        }
        if new > 0 {
            tracing::warn!(%app, %stream, subscription = %name, events = new, "given up; see the subscription's dead letters");
        }
    }

    fn count_letters(&self, stored: &StoredPlace) {
        self.letters.store(stored.letters.len(), Ordering::Relaxed);
    }
}

impl PendingSave<'_> {
    /// All of it is in the store.
    pub(in crate::events) fn done(mut self) {
        let Some(writes) = self.writes.take() else { return };
        self.stored.low = Some(writes.low());
        self.stored.save = self.number;
        self.stored.read_at = self.read_at.or(self.stored.read_at);
        for at in writes.acknowledged() {
            self.stored.letters.remove(&at);
        }
        let new = writes.letters().filter(|&at| self.stored.letters.insert(at)).count();
        self.stored.letters.retain(|at| self.too_many.binary_search(at).is_err());
        self.subscription.count_letters(&self.stored);
        self.subscription.died(new, self.too_many.len());
        self.subscription.is_stored.store(true, Ordering::Release);
        lock(&self.subscription.state).written(&writes);
    }
}

impl Drop for PendingSave<'_> {
    fn drop(&mut self) {
        if let Some(writes) = self.writes.take() {
            lock(&self.subscription.state).failed(writes);
            // It may be there all the same.
            self.stored.low = None;
            self.subscription.shared.saver.list(self.subscription);
        }
    }
}
