//! What of a subscription is not in the store yet, and how it gets there.
//!
//! Invariants: all that is said of a subscription goes in one step: its cursor, what is settled above it, what is to
//! wait, what was put back, its dead letters, and whose it is. What is on its way counts as not stored until the store
//! has said so: a caller who leaves meanwhile, and a store that fails, leave it to the next who saves, and the cursor
//! writer sees to it that there is one. Two who save cannot overtake each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::MutexGuard;

use super::notes::{self, Owner};
use super::state::Writes;
use super::unread::UnreadRanges;
use super::{Subscription, meters};
use crate::events::MAX_DEAD_LETTERS;
use crate::kernel::names::SubscriptionName;
use crate::kernel::sync::lock;
use crate::store::{Error, NoteKind, PlaceChange, Sequence, Store};

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
    /// Nobody has read it for long. Not if somebody reads it, or it has dead letters. Where it stood is noted if there
    /// is room for that.
    Idle { leaves_note: bool },
}

/// A subscription that is gone.
pub(in crate::events) struct RemovalOutcome {
    pub(in crate::events) remainder: Remainder,
    /// Whether that is durable: where the store failed and it is gone all the same, it is gone here, too.
    pub(in crate::events) stored: Result<(), Error>,
}

/// What a subscription that is no more left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct Remainder {
    /// How many entries it had not read.
    pub(in crate::events) unread: u64,
    /// Which, as the store says to who comes by its name again.
    pub(in crate::events) noted: Option<UnreadRanges>,
    /// The last entry of the log: its readers may have a place up to there.
    pub(in crate::events) end: u64,
}

/// What is on its way to the store. Dropped before it is there, it is to be written again.
pub(super) struct PendingSave<'s> {
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

/// Writes a subscription to the store.
pub(super) struct SubscriptionWriter<'s> {
    pub(super) subscription: &'s Arc<Subscription>,
    pub(super) store: &'s dyn Store,
}

impl SubscriptionWriter<'_> {
    /// See [`Subscription::save`].
    pub(super) async fn save(self) -> Result<(), Error> {
        let Self { subscription, store } = self;
        // Before waiting for the lock: a save that begins later looks at all that was changed before this.
        let begun = subscription.saves.load(Ordering::SeqCst);
        let stored = subscription.stored.lock().await;
        if stored.save > begun {
            // One that began since has stored it: who waited need not write what others have changed meanwhile.
            subscription.shared.saver.list(subscription);
            return Ok(());
        }
        if let Some((saving, changes)) = PendingSave::begin(subscription, stored) {
            store.change_places(&subscription.log, changes).await?;
            saving.done();
        }
        Ok(())
    }

    /// Stores whose it is and when it was read last, if that has changed.
    pub(super) async fn keep_owner(self) -> Result<(), Error> {
        let subscription = self.subscription;
        let mut stored = subscription.stored.lock().await;
        let read_at = subscription.read_at().0;
        if stored.read_at == Some(read_at) || subscription.is_removed() {
            return Ok(());
        }
        self.store.change_places(&subscription.log, vec![owner_note(subscription)]).await?;
        stored.read_at = Some(read_at);
        Ok(())
    }

    /// Takes dead letters off the list; what is asked is their number, and whether they are being given again. Durable
    /// on return. Says how many. To be done to its end.
    pub(super) async fn forget_letters(self, which: impl Fn(Sequence, bool) -> bool + Send) -> Result<usize, Error> {
        let subscription = self.subscription;
        let mut stored = subscription.stored.lock().await;
        let gone: Vec<u64> = {
            let state = lock(&subscription.state);
            let (letters, again) = (state.letters.listed(&stored.letters), state.letters.given_again());
            letters.into_iter().filter(|at| which(Sequence(*at), again.contains(at))).collect()
        };
        if gone.is_empty() || subscription.is_removed() {
            return Ok(0);
        }
        let forgotten = gone.iter().map(|&at| letter(subscription, at, None)).collect();
        self.store.change_places(&subscription.log, forgotten).await?;
        stored.letters.retain(|at| gone.binary_search(at).is_err());
        count_letters(subscription, &stored);
        Ok(gone.len())
    }

    /// See [`Subscription::remove`].
    pub(super) async fn remove(self, next: Sequence, why: Removal) -> Result<Option<RemovalOutcome>, Error> {
        let subscription = self.subscription;
        // Who saves it waits until this is done, and finds it removed.
        let mut stored = subscription.stored.lock().await;
        // Before it is looked at what it holds: who takes something after that sees that it is being removed, or is
        // seen.
        if subscription.is_removed.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        let end = next.previous().0;
        let remainder = match why {
            Removal::Asked => Remainder { end, ..Remainder::default() },
            Removal::Idle { leaves_note } => {
                let unread = UnreadRanges::of(&lock(&subscription.state));
                let count = unread.count(next.0);
                Remainder { unread: count, noted: (leaves_note && count > 0).then_some(unread), end }
            }
        };
        let is_read = || subscription.readers.load(Ordering::SeqCst) > 0;
        let has_letters = || !lock(&subscription.state).letters.listed(&stored.letters).is_empty();
        if why != Removal::Asked && (is_read() || has_letters()) {
            subscription.is_removed.store(false, Ordering::SeqCst);
            return Ok(None);
        }
        let mut changes = vec![PlaceChange::Removed(subscription.name.clone())];
        let end = Some(remainder.end.to_string().into());
        changes.push(PlaceChange::Note(NoteKind::Subscription, notes::REMOVED.to_owned(), end));
        if let Some(unread) = &remainder.noted {
            let note = Some(unread.note());
            changes.push(PlaceChange::Note(NoteKind::Subscription, notes::left(subscription.name.as_str()), note));
        }
        let removed = self.store.change_places(&subscription.log, changes).await;
        if let Err(why) = &removed
            && !self.is_gone().await
        {
            subscription.is_removed.store(false, Ordering::SeqCst);
            return Err(why.clone());
        }
        *stored = StoredPlace::default();
        {
            let mut state = lock(&subscription.state);
            state.leases.clear();
            state.missed.clear();
        }
        subscription.given_back.notify_waiters();
        meters::remove(&subscription.shared.metrics, &subscription.log, &subscription.name);
        Ok(Some(RemovalOutcome { remainder, stored: removed }))
    }

    /// Whether the store had it and has it no longer, as far as it says: a write that fails may have been done.
    async fn is_gone(&self) -> bool {
        let subscription = self.subscription;
        let was_there = subscription.is_stored.load(Ordering::Acquire);
        let is_there = |all: &[(SubscriptionName, Sequence)]| all.iter().any(|(name, _)| *name == subscription.name);
        was_there && self.store.cursors(&subscription.log).await.is_ok_and(|all| !is_there(&all))
    }
}

/// So many dead letters are new in the store, and so many of the oldest are gone for them.
fn letters_changed(of: &Subscription, new: usize, forgotten: usize) {
    of.meters.dead_lettered.inc_by(new as u64);
    let (app, stream, name) = (&of.log.app, of.log.stream, &of.name);
    if forgotten > 0 {
        tracing::error!(%app, %stream, subscription = %name, forgotten, "too many dead letters; the oldest are gone");
    }
    if new > 0 {
        tracing::warn!(%app, %stream, subscription = %name, events = new, "given up; see the subscription's dead letters");
    }
}

fn count_letters(of: &Subscription, stored: &StoredPlace) {
    of.letters.store(stored.letters.len(), Ordering::Relaxed);
}

fn owner_note(of: &Subscription) -> PlaceChange {
    let owner = Owner { by: of.by.clone(), read_at: of.read_at() };
    PlaceChange::Note(NoteKind::Subscription, of.name.to_string(), Some(owner.note()))
}

fn letter(of: &Subscription, at: u64, note: Option<Bytes>) -> PlaceChange {
    PlaceChange::Note(NoteKind::DeadLetter, notes::letter(&of.name, at), note)
}

impl<'s> PendingSave<'s> {
    /// What has changed, for a write together with others'. `None` while somebody else writes it.
    pub(super) fn begin_now(subscription: &'s Arc<Subscription>) -> Option<Option<(Self, Vec<PlaceChange>)>> {
        Some(Self::begin(subscription, subscription.stored.try_lock().ok()?))
    }

    fn begin(
        subscription: &'s Arc<Subscription>,
        stored: MutexGuard<'s, StoredPlace>,
    ) -> Option<(Self, Vec<PlaceChange>)> {
        if subscription.is_removed() {
            return None;
        }
        // Before it is looked at what there is to write: it holds all that was changed before.
        let number = subscription.saves.fetch_add(1, Ordering::SeqCst) + 1;
        let now = subscription.shared.now();
        let (writes, mut changes) = Writes::of(&mut lock(&subscription.state), &subscription.name, stored.low, now);
        // A new one is stored with whose it is, and in the place of one that was there before.
        let read_at = stored.low.is_none().then(|| subscription.read_at().0);
        if read_at.is_some() {
            let left = notes::left(subscription.name.as_str());
            changes.extend([owner_note(subscription), PlaceChange::Note(NoteKind::Subscription, left, None)]);
        }
        let too_many = stored.too_many(&writes);
        changes.extend(too_many.iter().map(|&at| letter(subscription, at, None)));
        let saving = Self { subscription, stored, writes: Some(writes), read_at, too_many, number };
        if changes.is_empty() {
            saving.done();
            return None;
        }
        Some((saving, changes))
    }

    /// All of it is in the store.
    pub(super) fn done(mut self) {
        let Some(writes) = self.writes.take() else { return };
        self.stored.low = Some(writes.low());
        self.stored.save = self.number;
        self.stored.read_at = self.read_at.or(self.stored.read_at);
        for at in writes.acknowledged() {
            self.stored.letters.remove(&at);
        }
        let new = writes.letters().filter(|&at| self.stored.letters.insert(at)).count();
        self.stored.letters.retain(|at| self.too_many.binary_search(at).is_err());
        count_letters(self.subscription, &self.stored);
        letters_changed(self.subscription, new, self.too_many.len());
        self.subscription.is_stored.store(true, Ordering::Release);
        writes.written(&mut lock(&self.subscription.state));
    }
}

impl Drop for PendingSave<'_> {
    fn drop(&mut self) {
        if let Some(writes) = self.writes.take() {
            writes.failed(&mut lock(&self.subscription.state));
            // It may be there all the same.
            self.stored.low = None;
            self.subscription.shared.saver.list(self.subscription);
        }
    }
}
