//! The embedded engine: one folder, one process, a redb file (measured against others in `docs/store.md`).
//!
//! ```text
//! append, cursors, notes, quarantine, trim -> queue --> writer (one task) --> one commit, synced --> acks
//! read, first_since, cursors, notes, quarantined ----> snapshots of the last commit
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `disk.rs` | the folder, its lock, free space, the place where tests make the disk fail |
//! | `engine.rs` | redb: commits, opening and opening again |
//! | `diff_writer.rs` | of a large page only what differs is written |
//! | `tables.rs` | the list of all tables |
//! | `look.rs` | looking at a data file without changing it |
//! | `trial.rs` | whether a store could be opened, for `check` |
//! | `record.rs` | how values are written: version, checksum, fields |
//! | `readiness.rs` | whether a batch could be kept, found out once for all who ask |
//! | `shared.rs` | the acknowledged state of the logs; setting the file back to it after a failure |
//! | `writer.rs` | group commit |
//! | `trim.rs`, `read.rs` | retention, reading |
//! | `notes.rs` | small things kept beside a log |
//! | `quarantine.rs` | responses that could not be read, in pieces |
//! | `places.rs` | where subscriptions stand: cursors, their names |
//! | `backup.rs` | a consistent copy while the gateway goes on |
//!
//! Invariants, beside the contract's:
//! - Only the writer changes the file. What it has acknowledged is what readers see, never more.
//! - The writer, readers, looks at free space and backups each have threads of their own ([`Lane`]). None of them takes
//!   another's, and nothing else has any: neither what waits for a network, nor the runtime's own blocking work.
//! - Nothing of the store runs, and its folder is free for another, when its group of tasks is finished and the store
//!   was dropped; unless the disk hangs.
//! - After a failure the engine is mended from inside: the next change, or [`Store::ready`], opens the file again.
//!   [`Store::ready`] says yes again only after it has written and synced as much as a large batch takes.
//! - The room of removed batches is used again by later ones, so the free space that counts is the file system's and
//!   the file's own.

mod backup;
mod diff_writer;
mod disk;
mod engine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod look;
mod notes;
mod places;
mod quarantine;
mod read;
mod readiness;
mod record;
mod shared;
mod tables;
mod trial;
mod trim;
mod writer;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use self::disk::Faults;
use self::disk::{Counted, Folder};
use self::engine::{Engine, LastRun};
use self::readiness::Readiness;
use self::record::Row;
use self::shared::{MEASURED_EVERY, Shared};
pub use self::trial::{Trial, is_in_the_way, trial};
use self::writer::{Ack, Change, Command, Outcome, Write};
use super::{Batch, Commit, Content, Error, LogKey, LogState, NoteKind, QuarantineEntry, Sequence, Space, Store};
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::Metrics;
use crate::kernel::names::SubscriptionName;
use crate::kernel::task::{Kind, Lane, Tasks};

/// Changes that wait for the writer, at most; more wait to be queued.
const QUEUE: usize = 1024;

/// Reads of the file at a time, at most; more wait for one to end.
const READERS: usize = 32;

/// How often small things are measured for those who only want to know.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(60);

/// Looks at free space at a time, at most.
const LOOKS: usize = 4;

/// What only tests set otherwise.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that must stay free on the disk for [`Store::ready`] to say yes.
    pub reserve: u64,
    /// Bytes of quarantined responses that a log keeps.
    pub keep_quarantined: u64,
    /// For how long free space that was found counts, if nothing else is heard of it.
    pub look_at_space_every: Duration,
    /// A disk that fails when told to.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reserve: 64 << 20,
            keep_quarantined: 256 << 20,
            look_at_space_every: Duration::from_secs(1),
            faults: Faults::default(),
        }
    }
}

/// A store in a folder of this machine.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    found: LastRun,
    reserve: u64,
    keep_quarantined: u64,
    readiness: Readiness,
    /// One backup at a time.
    backing_up: Arc<tokio::sync::Mutex<()>>,
    /// Each has its own, and so has the writer: none waits for another's work.
    readers: Lane,
    looks: Lane,
    backups: Lane,
    tasks: Tasks,
    clock: Clock,
    metrics: Metrics,
}

impl EmbeddedStore {
    /// Opens the store in a folder, which is made if it is not there.
    ///
    /// The writer runs in `tasks` until [`Store::close`], or until the store is dropped; a stop of `tasks` alone does
    /// not end it, because the last appends come from tasks that are stopping. So give the store a group of its own,
    /// and finish that group after `close`.
    ///
    /// # Errors
    /// The folder is in use, cannot be used, or holds a damaged store.
    pub async fn open(
        path: impl Into<PathBuf>,
        tasks: Tasks,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Arc<Self>, Error> {
        Self::open_with(path, Options::default(), tasks, clock, metrics).await
    }

    /// [`EmbeddedStore::open`], with options.
    ///
    /// # Errors
    /// As for `open`.
    pub async fn open_with(
        path: impl Into<PathBuf>,
        options: Options,
        tasks: Tasks,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Arc<Self>, Error> {
        let (path, Options { reserve, keep_quarantined, look_at_space_every, faults }) = (path.into(), options);
        let counted = Counted { written: metrics.store_written.clone(), syncs: metrics.store_syncs.clone() };
        let opening = move || {
            let (engine, found) = Engine::open(Folder::lock(&path, faults, counted)?)?;
            Ok((Shared::load(engine)?, found))
        };
        // By a thread of the readers', which stays.
        let readers = Lane::new("store-readers", READERS);
        let (shared, found) = tasks.blocking(&readers, opening).await.unwrap_or_else(|_| Err(panicked()))?;
        let shared = Arc::new(shared);
        let (queue, commands) = mpsc::channel(QUEUE);
        tasks.spawn(Kind::StoreWriter, writer::run(shared.clone(), commands, tasks.clone()));
        let backing_up = Arc::default();
        Ok(Arc::new(Self {
            shared,
            queue,
            found,
            reserve,
            keep_quarantined,
            readiness: Readiness::new(look_at_space_every),
            backing_up,
            readers,
            looks: Lane::new("store-looks", LOOKS),
            backups: Lane::new("store-backup", 1),
            tasks,
            clock,
            metrics,
        }))
    }

    /// Sends a command to the writer and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(Ack<T>) -> Command) -> Result<T, Error> {
        let (ack, answer) = oneshot::channel();
        self.open_or_closed()?;
        self.queue.send(command(ack)).await.map_err(|_| self.gone())?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    async fn change(&self, change: Change) -> Result<Outcome, Error> {
        self.counted(self.ask(|ack| Command::Write(Write { change, ack })).await)
    }

    /// Reads from a snapshot. If the engine had failed before, it is mended first.
    async fn view<T: Send + 'static>(
        &self,
        log: &LogKey,
        work: impl Fn(&redb::ReadTransaction, Row) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<Option<T>, Error> {
        self.open_or_closed()?;
        if self.shared.row(log).is_none() {
            return Ok(None);
        }
        let read = || {
            let (shared, log, work) = (self.shared.clone(), log.clone(), work.clone());
            // The row is taken before the snapshot, which so holds at least what the row says.
            let view = move || shared.row(&log).map(|row| shared.engine.read(|tx| work(tx, row))).transpose();
            self.tasks.blocking(&self.readers, view)
        };
        let seen = match read().await {
            Ok(Err(Error::Io(_) | Error::Full(_))) => {
                self.shared.note(Error::Io("reading failed".into()));
                self.ask(Command::Mend).await?;
                read().await
            }
            seen => seen,
        };
        self.counted(seen.unwrap_or_else(|_| Err(panicked())))
    }

    fn counted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| {
            if *error != Error::Closed {
                self.metrics.store_errors.inc();
            }
        })
    }

    fn open_or_closed(&self) -> Result<(), Error> {
        if self.shared.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Why the writer did not answer.
    fn gone(&self) -> Error {
        self.open_or_closed().err().unwrap_or_else(panicked)
    }

    /// The room there is. What small things take of it was measured so long ago at most.
    fn measured(shared: &Shared, reserve: u64, now: Instant, fresh: Duration) -> Result<Space, Error> {
        let folder = shared.engine.folder();
        let (free, taken, kept) = (folder.free()?, folder.taken(), shared.kept(now, fresh)?);
        // What the tables' inner pages take is not counted as kept.
        let used = (kept + kept / 8 + (4 << 20)).min(taken);
        Ok(Space { taken, used, free, reserve })
    }

    /// Whether there is room: free on the disk, or in the file. Says how much more is free on the disk than must be.
    fn room(shared: &Shared, reserve: u64, now: Instant) -> Result<u64, Error> {
        let folder = shared.engine.folder();
        let free = folder.free()?;
        if free >= reserve {
            return Ok(free - reserve);
        }
        let Space { taken, used, .. } = Self::measured(shared, reserve, now, MEASURED_EVERY)?;
        if free.saturating_add(taken - used) >= reserve {
            return Ok(0);
        }
        Err(Error::Full(format!("{free} bytes are free, {reserve} are kept in reserve")))
    }
}

fn panicked() -> Error {
    Error::Damaged("the engine panicked".into())
}

fn state(row: Option<Row>) -> LogState {
    let row = row.unwrap_or(Row::empty(0));
    LogState { earliest: Sequence(row.earliest), next: Sequence(row.next), bytes: row.bytes }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn epoch(&self) -> u64 {
        self.found.epoch
    }

    fn last_clean_stop(&self) -> Option<UnixMillis> {
        self.found.clean_stop.map(UnixMillis)
    }

    fn is_new(&self) -> bool {
        self.found.is_new
    }

    async fn log_state(&self, log: &LogKey) -> Result<LogState, Error> {
        self.open_or_closed()?;
        Ok(state(self.shared.row(log)))
    }

    async fn commit_all(&self, all: Vec<(LogKey, Commit)>) -> Result<Vec<Vec<Arc<Batch>>>, Error> {
        let began = self.clock.now();
        // Cursors and notes alone would draw the figure down to what a small commit takes.
        let appends = all.iter().any(|(_, all)| !all.batches.is_empty());
        let Outcome::Stored(batches) = self.change(Change::All(all)).await? else { return Err(panicked()) };
        if appends {
            self.metrics.store_append.observe(began.elapsed().as_secs_f64());
        }
        Ok(batches)
    }

    async fn read(&self, log: &LogKey, after: Sequence, entries: usize) -> Result<Vec<Arc<Batch>>, Error> {
        let name = writer::name(log);
        let view = move |tx: &_, row: Row| {
            let earliest = read::earliest(tx, &name)?;
            read::batches(tx, row.id, after.0, (earliest, row.next), entries)
        };
        let found = self.view(log, view).await?.unwrap_or_default();
        for batch in found.iter().filter(|batch| matches!(batch.content, Content::Damaged(_))) {
            if self.shared.is_news(log, batch.last()) {
                self.metrics.store_damaged.inc();
                let (first, last) = (batch.first.0, batch.last().0);
                tracing::error!(app = %log.app, stream = %log.stream, first, last, "stored entries are damaged; readers pass over them");
            }
        }
        Ok(found)
    }

    async fn first_since(&self, log: &LogKey, time: UnixMillis) -> Result<Sequence, Error> {
        let view = move |tx: &_, row: Row| read::first_since(tx, row.id, (row.earliest, row.next), time.0);
        Ok(self.view(log, view).await?.unwrap_or(Sequence(1)))
    }

    async fn trim(&self, log: &LogKey, older_than: UnixMillis, keep_bytes: u64) -> Result<LogState, Error> {
        let limits = trim::Limits { older_than: older_than.0, keep_bytes, keep_quarantined: self.keep_quarantined };
        let mut more = self.view(log, move |tx, row| trim::is_due(tx, &row, limits)).await?.unwrap_or(false);
        while more {
            more = matches!(self.change(Change::Trim(log.clone(), limits)).await?, Outcome::Trimmed { more: true });
        }
        self.log_state(log).await
    }

    async fn cursors(&self, log: &LogKey) -> Result<Vec<(SubscriptionName, Sequence)>, Error> {
        Ok(self.view(log, |tx, row| places::all(tx, row.id)).await?.unwrap_or_default())
    }

    async fn rename_subscription(
        &self,
        log: &LogKey,
        from: &SubscriptionName,
        to: &SubscriptionName,
    ) -> Result<(), Error> {
        self.change(Change::Rename(log.clone(), from.clone(), to.clone())).await.map(drop)
    }

    async fn notes(
        &self,
        log: &LogKey,
        kind: NoteKind,
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<(String, Bytes)>, Error> {
        let wanted = notes::NoteQuery { kind, prefix: prefix.to_owned(), after: after.to_owned(), most };
        Ok(self.view(log, move |tx, row| notes::read(tx, row.id, &wanted)).await?.unwrap_or_default())
    }

    async fn quarantined(&self, log: &LogKey, before: u64, most: usize) -> Result<Vec<QuarantineEntry>, Error> {
        Ok(self.view(log, move |tx, row| quarantine::newest(tx, &row, before, most)).await?.unwrap_or_default())
    }

    async fn quarantined_body(&self, log: &LogKey, id: u64) -> Result<Option<(QuarantineEntry, Vec<Bytes>)>, Error> {
        Ok(self.view(log, move |tx, row| quarantine::whole(tx, row.id, id)).await?.flatten())
    }

    async fn fact(&self, name: &'static str) -> Result<Option<u64>, Error> {
        self.open_or_closed()?;
        let shared = self.shared.clone();
        let read = self.tasks.blocking(&self.readers, move || shared.engine.fact(name)).await;
        self.counted(read.unwrap_or_else(|_| Err(panicked())))
    }

    async fn facts(&self, prefix: &'static str) -> Result<Vec<(String, u64)>, Error> {
        self.open_or_closed()?;
        let shared = self.shared.clone();
        let read = self.tasks.blocking(&self.readers, move || shared.engine.facts(prefix)).await;
        self.counted(read.unwrap_or_else(|_| Err(panicked())))
    }

    async fn change_facts(&self, facts: Vec<(Cow<'static, str>, Option<u64>)>) -> Result<(), Error> {
        self.counted(self.ask(|ack| Command::Facts(facts, ack)).await)
    }

    async fn ready(&self) -> Result<(), Error> {
        self.open_or_closed()?;
        let (now, written) = (self.clock.now(), self.metrics.store_written.get());
        if !self.shared.is_unwell() && self.readiness.is_known(now, written) {
            return Ok(());
        }
        let (shared, reserve) = (self.shared.clone(), self.reserve);
        let look = async {
            let room = self.tasks.blocking(&self.looks, move || Self::room(&shared, reserve, now)).await;
            let spare = room.unwrap_or_else(|_| Err(panicked()))?;
            if self.shared.is_unwell() {
                self.ask(Command::Probe).await?;
            }
            Ok(spare)
        };
        self.readiness.find_out(now, written, look).await
    }

    async fn space(&self) -> Result<Space, Error> {
        self.open_or_closed()?;
        let (shared, reserve, now) = (self.shared.clone(), self.reserve, self.clock.now());
        let look = move || Self::measured(&shared, reserve, now, LOOKED_AT_EVERY);
        self.tasks.blocking(&self.looks, look).await.unwrap_or_else(|_| Err(panicked()))
    }

    async fn backup(&self) -> Result<std::fs::File, Error> {
        self.open_or_closed()?;
        let Ok(one) = self.backing_up.clone().try_lock_owned() else {
            return Err(Error::Io("another backup is being made".into()));
        };
        let (shared, reserve) = (self.shared.clone(), self.reserve);
        let making = move || {
            // Until it is made, also when who asked has left.
            let _one = one;
            backup::make(&shared, reserve)
        };
        let made = self.tasks.blocking(&self.backups, making).await;
        self.counted(made.unwrap_or_else(|_| Err(panicked())))
    }

    async fn close(&self, now: UnixMillis) -> Result<(), Error> {
        self.counted(self.ask(|ack| Command::Close(now.0, ack)).await)
    }
}

#[cfg(test)]
mod tests;
