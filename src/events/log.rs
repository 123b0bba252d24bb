//! [`Log`]: the stored entries of one stream of one app, and the newest of them in memory.
//!
//! ```text
//! entry    1 ..... earliest ...................... oldest in memory ....... next
//!          trimmed │ in the store alone            │ in the tail, too       │ not there yet
//! ```
//!
//! Invariants: a batch is on stable storage before it is in the tail, and in the tail before readers are woken; so
//! nothing is seen that is not stored. Appends of one log go one at a time (appends of many logs share a sync in the
//! store), so the tail grows in order, and two regions cannot both store an event while each looks for the other's. The
//! log's beginning and its end never go back.

pub(super) mod age_guard;
pub(super) mod cursor;
pub(super) mod cursor_pair;
pub(super) mod filter;
mod found;
pub(super) mod judge;
pub(super) mod loss;
pub(super) mod loss_index;
pub(super) mod outage;
mod read_error;
mod run;
mod tail;

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use self::cursor::{Cursor, Origin};
pub(super) use self::found::{Found, ReadFilter};
use self::judge::Judge;
pub use self::read_error::ReadError;
pub(super) use self::run::Room;
pub use self::run::Run;
pub(crate) use self::run::shown;
use self::tail::Tail;
use crate::kernel::clock::UnixMillis;
use crate::kernel::sync::lock;
use crate::store::{Batch, Error, LogKey, Sequence, Store};

/// The stored entries of one stream of one app.
pub(super) struct Log {
    key: LogKey,
    origin: Origin,
    store: Arc<dyn Store>,
    judge: Arc<Judge>,
    /// What the judge knows it by.
    number: u64,
    tail: Mutex<Tail>,
    /// The number of the next entry; wakes readers.
    next: watch::Sender<Sequence>,
}

/// How much a log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    pub(super) age: Duration,
    pub(super) bytes: u64,
}

/// A place in a log, as one says it who has not been there: where a new subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    Since(UnixMillis),
    After(Cursor),
}

/// What came of looking for entries.
pub(super) enum Fetched {
    Found(Found),
    /// Retention has removed the first of them meanwhile: the log begins here now.
    Trimmed(Sequence),
}

impl Log {
    /// Opens a log as the store has it, its newest entries in memory.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn open(key: LogKey, store: Arc<dyn Store>, judge: Arc<Judge>) -> Result<Arc<Self>, Error> {
        let state = store.log_state(&key).await?;
        let mut tail = Tail::new(state.earliest, state.next);
        if state.earliest < state.next {
            let after = state.next.previous().minus(PRELOADED as u64);
            store.read(&key, after, PRELOADED).await?.into_iter().for_each(|batch| tail.push(batch));
        }
        Ok(Arc::new(Self {
            origin: Origin::new(store.epoch(), &key),
            number: judge.number(),
            tail: Mutex::new(tail),
            next: watch::Sender::new(state.next),
            key,
            store,
            judge,
        }))
    }

    pub(super) fn key(&self) -> &LogKey {
        &self.key
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The entries that are kept: from the oldest to the one that comes next, which is not there yet.
    pub(super) fn range(&self) -> Range<Sequence> {
        let tail = lock(&self.tail);
        tail.earliest()..tail.next()
    }

    /// Changes with each entry that comes.
    pub(super) fn changes(&self) -> watch::Receiver<Sequence> {
        self.next.subscribe()
    }

    /// The cursor of a place: `at` is the last entry before it.
    pub(super) fn cursor(&self, at: Sequence) -> Cursor {
        Cursor { epoch: self.origin.epoch(), at }
    }

    /// Whether a cursor may be of this log.
    pub(super) fn has_made(&self, cursor: Cursor) -> bool {
        self.origin.is_of(cursor)
    }

    /// The last entry before the place where a new subscription begins.
    ///
    /// # Errors
    /// When the store fails, or a cursor is no place in this log.
    pub(super) async fn place(&self, from: StartAt) -> Result<Sequence, ReadError> {
        let Range { start, end } = self.range();
        let first = match from {
            StartAt::Earliest => start,
            StartAt::Latest => end,
            StartAt::Since(time) => self.store.first_since(&self.key, time).await?.max(start).min(end),
            StartAt::After(cursor) => return self.at(cursor),
        };
        Ok(first.previous())
    }

    /// The entry a cursor stands at.
    ///
    /// # Errors
    /// When it is older than what is kept, of another store or stream, or ahead of the log.
    pub(super) fn at(&self, cursor: Cursor) -> Result<Sequence, ReadError> {
        let Range { start, end } = self.range();
        if self.origin.is_of_other_stream(cursor) {
            return Err(ReadError::OfAnotherStream);
        }
        // Before the comparison with the end: a cursor of another store says nothing about this one.
        let before = start.previous();
        let lost = self.origin.is_of(cursor).then(|| before.since(cursor.at));
        if lost != Some(0) {
            return Err(ReadError::Expired { earliest: self.cursor(before), lost });
        }
        if cursor.at >= end { Err(ReadError::Ahead) } else { Ok(cursor.at) }
    }

    /// The newest batches, as far as they are in memory, oldest first.
    pub(super) fn newest(&self) -> Vec<Arc<Batch>> {
        lock(&self.tail).batches().cloned().collect()
    }

    /// Shows a batch that was stored to readers.
    pub(super) fn publish(&self, batch: Arc<Batch>) {
        let next = {
            let mut tail = lock(&self.tail);
            tail.push(batch);
            tail.next()
        };
        // Only now: who is woken looks into the tail.
        self.next.send_replace(next);
    }

    /// Removes from the store what is older than that or more than so many bytes. Says where the log begins now; for
    /// readers it does so with [`Log::trimmed`].
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn trim(&self, older_than: UnixMillis, keep_bytes: u64) -> Result<Sequence, Error> {
        Ok(self.store.trim(&self.key, older_than, keep_bytes).await?.earliest)
    }

    /// All before `earliest` is gone from the store. Whether that was not known.
    pub(super) fn trimmed(&self, earliest: Sequence) -> bool {
        let mut tail = lock(&self.tail);
        let is_new = earliest > tail.earliest();
        if is_new {
            tail.trimmed(earliest);
        }
        is_new
    }

    /// Where the log begins by the store, which may have removed more than is known here.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn stored_beginning(&self) -> Result<Sequence, Error> {
        Ok(self.store.log_state(&self.key).await?.earliest)
    }

    /// Gets the entries of a range that is not empty, as far as there is room.
    ///
    /// # Errors
    /// When the store fails, or has a hole where the range begins.
    pub(super) async fn fetch(
        &self,
        wanted: &Range<Sequence>,
        filter: &ReadFilter,
        room: Room,
    ) -> Result<Fetched, Error> {
        let in_memory = lock(&self.tail).get(wanted);
        let is_shared = in_memory.is_some();
        let judges = !filter.admits_all();
        let batches = match in_memory {
            Some(batches) => batches,
            None => {
                let most = usize::try_from(wanted.end.since(wanted.start)).unwrap_or(usize::MAX);
                // One at a time: a filtered read gets up to a thousand entries for the few that it hands over.
                let _turn = match judges {
                    true => Some(Box::pin(self.judge.fetching(&filter.client)).await),
                    false => None,
                };
                self.store.read(&self.key, wanted.start.previous(), most).await?
            }
        };
        let mut judging = judges.then(|| self.judge.hold(self.number, &filter.filter, &filter.client));
        let mut found = Found::in_batches(&batches, wanted, filter, room, judging.as_mut()).await;
        if !is_shared {
            found.runs.iter_mut().for_each(Run::keep_apart);
        }
        if judges {
            // Where all is known already nothing else lets others go.
            tokio::task::yield_now().await;
        }
        drop(judging);
        if found.end > wanted.start {
            return Ok(Fetched::Found(found));
        }
        let earliest = self.stored_beginning().await?;
        if earliest <= wanted.start {
            return Err(Error::Damaged(format!("entry {} of {:?} is missing", wanted.start, self.key)));
        }
        Ok(Fetched::Trimmed(earliest))
    }

    /// Gets entries, given in order, one by one: from these batches, from memory, or from the store. Also returns those
    /// that are not there any more.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn collect(
        &self,
        entries: &[Sequence],
        near: Vec<Arc<Batch>>,
    ) -> Result<(Vec<Run>, Vec<Sequence>), Error> {
        let (mut runs, mut gone): (Vec<Run>, Vec<Sequence>) = (Vec::new(), Vec::new());
        let mut source = near;
        for (index, &at) in entries.iter().enumerate() {
            if holding(&source, at).is_none() {
                let near = entries[index..].iter().take_while(|&&next| next.since(at) < READ_AT_ONCE);
                let last = near.last().copied().unwrap_or(at);
                source = self.batches(&(at..last.next())).await?;
            }
            let Some(batch) = holding(&source, at) else {
                gone.push(at);
                continue;
            };
            // A batch has less than 2^32 entries.
            let entry = at.since(batch.first) as usize;
            match runs.last_mut() {
                Some(run) if Arc::ptr_eq(&run.batch, batch) && run.entries.end == entry => run.entries.end += 1,
                _ => runs.push(Run { batch: Arc::clone(batch), entries: entry..entry + 1 }),
            }
        }
        Ok((runs, gone))
    }

    /// The batches that hold the entries of a small range, from memory or from the store; without those that are gone.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn batches(&self, range: &Range<Sequence>) -> Result<Vec<Arc<Batch>>, Error> {
        let in_memory = lock(&self.tail).get(range);
        match in_memory {
            Some(batches) => Ok(batches),
            None => {
                let entries = usize::try_from(range.end.since(range.start)).unwrap_or(usize::MAX);
                self.store.read(&self.key, range.start.previous(), entries).await
            }
        }
    }

    /// Whether the batch of an entry is in memory, shared by all readers.
    pub(super) fn is_in_memory(&self, at: Sequence) -> bool {
        lock(&self.tail).holds(at)
    }

    /// How many bytes an event has, as the newest say.
    pub(super) fn usual_bytes(&self) -> usize {
        lock(&self.tail).usual_bytes()
    }

    /// What judging filters has taken, of all logs.
    #[cfg(test)]
    pub(super) fn judge(&self) -> &Judge {
        &self.judge
    }
}

/// The batch that holds an entry; batches are in order.
fn holding(batches: &[Arc<Batch>], at: Sequence) -> Option<&Arc<Batch>> {
    let batch = batches.get(batches.partition_point(|batch| batch.last() < at))?;
    (batch.first <= at).then_some(batch)
}

/// How many entries are taken into memory at start, so that subscribers who had kept up need not ask the store.
const PRELOADED: usize = 2000;

/// How far apart entries may be that are read from the store at once.
const READ_AT_ONCE: u64 = 1000;

/// What is said of a log as a whole is filtered by this, whichever file says it.
pub(super) const LOG_TARGET: &str = "rtm_gateway::events::log";
