//! Stable storage: one contract, one conformance suite, an embedded engine now and a shared one later.
//!
//! Invariants of the contract, which every engine must keep:
//! - [`Store::commit_all`] returns only when all of it is on stable storage; what it returns survives `kill -9` and
//!   power loss.
//! - Sequence numbers of a log rise by one for each entry, without a hole, and never go back, also after trimming all.
//! - A batch is there whole or not at all.
//! - Many logs share syncs (group commit): appends that wait together are synced together.
//! - An error leaves the store as it was; a later call may succeed (a disk that was full has room again).

pub mod batch;
mod commit;
pub mod embedded;
mod space;
#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::SubscriptionName;
pub use batch::{Batch, Content, EventText, LogKey, NewBatch, Sequence};
pub use commit::{Commit, NoteKind, Notes, PlaceChange};
pub use space::{Space, SpaceHistory};

/// Why the store could not do it. For operators; callers read 503.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No room: disk or quota full, or less free than the reserve.
    #[error("the store is short of space: {0}")]
    Full(String),
    /// Read-only, I/O error, gone.
    #[error("the store cannot be used: {0}")]
    Io(String),
    /// What was read back is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Another version's. It was left untouched.
    #[error(
        "the store has format {found}, and this version of the gateway reads format {known} alone; it was left untouched: \
         start the version that wrote it, or give this one another store.path"
    )]
    Format {
        /// The format that it has.
        found: u64,
        /// The format that this version writes.
        known: u64,
    },
    /// The store was closed (shutdown).
    #[error("the store is closed")]
    Closed,
}

/// What a log looks like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The number of the oldest entry kept; `next` when none is.
    pub earliest: Sequence,
    /// The number the next entry will get.
    pub next: Sequence,
    pub bytes: u64,
}

/// A response that could not be read to its end, kept whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableResponse {
    pub received_at: UnixMillis,
    pub region: crate::kernel::names::RegionName,
    /// What was wrong with it.
    pub why: String,
    pub body: Bytes,
}

/// A response for the quarantine, and how many of its events are delivered all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineRecord {
    pub response: UnreadableResponse,
    /// So many of its events, from the first on, are in the log.
    pub delivered: u64,
}

/// What the quarantine says of a response, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Its number in its log; later ones have greater ones.
    pub id: u64,
    pub received_at: UnixMillis,
    pub region: crate::kernel::names::RegionName,
    /// What was wrong with it.
    pub why: String,
    /// Bytes of its body.
    pub bytes: u64,
    /// So many of its events, from the first on, are in the log.
    pub delivered: u64,
}

/// Stable storage for event logs, subscriptions' cursors, notes, quarantine and the record of clean stops.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Names this store's contents: differs when the folder was made anew. Cursors carry it.
    fn epoch(&self) -> u64;

    /// When the last run ended in order; `None` when it did not, or there was none. Taken once, at opening.
    fn last_clean_stop(&self) -> Option<UnixMillis>;

    /// Whether this folder held no store before.
    fn is_new(&self) -> bool;

    /// The state of a log; an unknown log is an empty one.
    async fn log_state(&self, log: &LogKey) -> Result<LogState, Error>;

    /// Stores all of it, of whatever logs, in one step: all or none; durable on return. Shares syncs with others. Gives
    /// the batches of each part with their places. After an error neither a batch nor a response for the quarantine is
    /// there, but the notes, what changed of subscriptions, and the word on what was redelivered, may be.
    async fn commit_all(&self, all: Vec<(LogKey, Commit)>) -> Result<Vec<Vec<Arc<Batch>>>, Error>;

    /// [`Store::commit_all`] for one log.
    async fn commit(&self, log: &LogKey, all: Commit) -> Result<Vec<Arc<Batch>>, Error> {
        Ok(self.commit_all(vec![(log.clone(), all)]).await?.pop().unwrap_or_default())
    }

    /// [`Store::commit`] for one batch alone.
    async fn append(&self, log: &LogKey, batch: NewBatch) -> Result<Arc<Batch>, Error> {
        let stored = self.commit(log, Commit { batches: vec![batch], ..Commit::default() }).await?;
        stored.into_iter().next().ok_or_else(|| Error::Damaged("a batch was stored and has no place".into()))
    }

    /// The batches that hold entries after `after`, oldest first, until at least `entries` entries after it are covered
    /// (or the log ends). The first batch may begin at or before `after`. Trimmed entries are skipped.
    async fn read(&self, log: &LogKey, after: Sequence, entries: usize) -> Result<Vec<Arc<Batch>>, Error>;

    /// The number of the first entry received at or after `time`; `next` when there is none.
    async fn first_since(&self, log: &LogKey, time: UnixMillis) -> Result<Sequence, Error>;

    /// Removes whole batches, oldest first: those received before `older_than`, and then as many as bring the log's
    /// bytes down to `keep_bytes`. The newest batch may go too. Works in bounded steps. Returns the state after.
    async fn trim(&self, log: &LogKey, older_than: UnixMillis, keep_bytes: u64) -> Result<LogState, Error>;

    /// All stored cursors of a log: the last entry handed over, for each subscription.
    async fn cursors(&self, log: &LogKey) -> Result<Vec<(SubscriptionName, Sequence)>, Error>;

    /// [`Store::commit`] for what changes of a log's subscriptions alone.
    async fn change_places(&self, log: &LogKey, places: Vec<PlaceChange>) -> Result<(), Error> {
        self.commit(log, Commit { places, ..Commit::default() }).await.map(drop)
    }

    /// Stores a cursor alone: see [`Store::change_places`].
    async fn save_cursor(&self, log: &LogKey, name: &SubscriptionName, at: Sequence) -> Result<(), Error> {
        self.change_places(log, vec![PlaceChange::Cursor(name.clone(), at)]).await
    }

    /// Renames a subscription: its cursor and all notes on it (of the kinds [`NoteKind::of_subscriptions`], called
    /// `from` or `from/…`), all or none; durable on return. Does nothing when `from` has no cursor: so it can be done
    /// again.
    async fn rename_subscription(
        &self,
        log: &LogKey,
        from: &SubscriptionName,
        to: &SubscriptionName,
    ) -> Result<(), Error>;

    /// The notes of a log and kind whose names begin with `prefix` and come after `after`, in order of their names'
    /// bytes, at most `most`.
    async fn notes(
        &self,
        log: &LogKey,
        kind: NoteKind,
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<(String, Bytes)>, Error>;

    /// The note of that name; `None` when there is none.
    async fn note(&self, log: &LogKey, kind: NoteKind, name: &str) -> Result<Option<Bytes>, Error> {
        // The name itself comes before all that only begin with it.
        let notes = self.notes(log, kind, name, "", 1).await?;
        Ok(notes.into_iter().find(|(found, _)| found == name).map(|(_, note)| note))
    }

    /// Keeps small things beside a log, by name, and removes those for which there is `None`: [`Store::commit`] for
    /// these alone. Notes are not trimmed: whoever keeps them bounds them.
    async fn keep_notes(&self, log: &LogKey, kind: NoteKind, notes: Notes) -> Result<(), Error> {
        self.commit(log, Commit { notes: Some((kind, notes)), ..Commit::default() }).await.map(drop)
    }

    /// The quarantined responses of a log with numbers below `before`, newest first, at most `most`.
    async fn quarantined(&self, log: &LogKey, before: u64, most: usize) -> Result<Vec<QuarantineEntry>, Error>;

    /// A quarantined response by its number, and its body in pieces that follow each other; `None` when it is not
    /// there.
    async fn quarantined_body(&self, log: &LogKey, id: u64) -> Result<Option<(QuarantineEntry, Vec<Bytes>)>, Error>;

    /// A number that was kept under this name; `None` when none was.
    async fn fact(&self, name: &'static str) -> Result<Option<u64>, Error>;

    /// The numbers that are kept under names that begin with `prefix`, and their names.
    async fn facts(&self, prefix: &'static str) -> Result<Vec<(String, u64)>, Error>;

    /// Keeps numbers under names, and removes those for which there is `None`: all or none; durable on return. They are
    /// not trimmed: whoever keeps them bounds them.
    async fn change_facts(&self, facts: Vec<(Cow<'static, str>, Option<u64>)>) -> Result<(), Error>;

    /// Keeps numbers under names, all or none; durable on return.
    async fn keep_facts(&self, facts: &[(&'static str, u64)]) -> Result<(), Error> {
        self.change_facts(facts.iter().map(|(name, number)| (Cow::Borrowed(*name), Some(*number))).collect()).await
    }

    /// Whether a batch of the largest size could be kept now: writable, and more free space than the reserve.
    /// The poller asks before each read. Cheap when all is well.
    async fn ready(&self) -> Result<(), Error>;

    /// How much room there is. It asks the disk, which may hang.
    async fn space(&self) -> Result<Space, Error>;

    /// A consistent copy of everything, as a data file that can be put in the place of this store's own: to be read
    /// from its beginning. All that was acknowledged before the call is in it. It has an epoch of its own.
    async fn backup(&self) -> Result<std::fs::File, Error>;

    /// Records a clean stop and closes. Later calls answer [`Error::Closed`].
    async fn close(&self, now: UnixMillis) -> Result<(), Error>;
}
