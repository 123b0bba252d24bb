//! What the writer and the readers share: the engine, the acknowledged state of each log, and the store's health.
//!
//! Invariants: `logs` holds exactly what was acknowledged; only the writer changes it. It is the truth to which the
//! file is set back after a commit that failed. While `broken`, the engine must be opened anew before it is used.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};
use tokio::time::Instant;

use super::engine::{Engine, failed};
use super::record::{Key, Row, decode_row, encode_row, room};
use super::tables::{self, BATCHES, LOGS, QUARANTINE, QUARANTINE_HEADS};
use super::writer::name;
use crate::kernel::names::{AppId, Stream};
use crate::kernel::sync::lock;
use crate::store::{Error, LogKey, Sequence};

/// How often small things are measured, at most: that takes a read of all of them.
pub(super) const MEASURED_EVERY: Duration = Duration::from_secs(5);
/// Damaged batches that are told of, at most.
const MAX_TOLD: usize = 10_000;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Engine,
    logs: Mutex<HashMap<LogKey, Row>>,
    /// Why the last change failed, until a probe has passed.
    unwell: Mutex<Option<Error>>,
    broken: AtomicBool,
    pub(super) closed: AtomicBool,
    /// The damaged batches that were told of, by their last entries.
    damaged: Mutex<HashSet<(LogKey, Sequence)>>,
    /// The room that small things take, and when that was measured.
    measured: Mutex<Option<(Instant, u64)>>,
}

impl Shared {
    /// Takes the logs' state from the engine, and checks that it fits their batches.
    pub(super) fn load(engine: Engine) -> Result<Self, Error> {
        let logs = engine.read(whole_rows)?;
        Ok(Self {
            engine,
            logs: Mutex::new(logs),
            unwell: Mutex::new(None),
            broken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            damaged: Mutex::default(),
            measured: Mutex::default(),
        })
    }

    /// The acknowledged state of a log.
    pub(super) fn row(&self, log: &LogKey) -> Option<Row> {
        self.logs().get(log).copied()
    }

    /// Whether a damaged batch was not told of before. (Of endless damage only the beginning is.)
    pub(super) fn is_news(&self, log: &LogKey, last: Sequence) -> bool {
        let mut damaged = lock(&self.damaged);
        damaged.len() < MAX_TOLD && damaged.insert((log.clone(), last))
    }

    /// The least id above all that are taken.
    pub(super) fn free_id(&self) -> u32 {
        self.logs().values().map(|row| row.id + 1).max().unwrap_or(0)
    }

    /// The room that everything kept takes, about. What small things take of it was measured so long ago at most.
    pub(super) fn kept(&self, now: Instant, fresh: Duration) -> Result<u64, Error> {
        let in_rows: u64 = self.logs().values().map(|row| row.bytes.saturating_add(row.quarantine_bytes)).sum();
        let mut measured = lock(&self.measured);
        let fresh = measured.filter(|(at, _)| now.saturating_duration_since(*at) < fresh);
        // Measured under the lock: of many who ask for room at a time one reads, and the others use what it found.
        let beside = match fresh {
            Some((_, bytes)) => bytes,
            None => self.engine.read(tables::measured)?,
        };
        *measured = fresh.or(Some((now, beside)));
        Ok(in_rows.saturating_add(beside))
    }

    /// Makes a commit visible.
    pub(super) fn publish(&self, rows: HashMap<LogKey, Row>) {
        self.logs().extend(rows);
    }

    /// Runs a commit; if it fails, mends the engine and runs it once more. Keeps note of a failure.
    pub(super) fn twice<T>(&self, work: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        let again = |_| {
            self.broken.store(true, Ordering::Release);
            self.mend()?;
            work()
        };
        let done = self.mend().and_then(|()| work()).or_else(again);
        if let Err(error) = &done {
            self.note(error.clone());
            // What was kept should stay readable.
            if let Err(error) = self.mend() {
                tracing::warn!(%error, "the store could not be opened again yet");
            }
        }
        done
    }

    /// Notes that the engine failed: it is opened anew before its next use, and probed before it is called ready.
    pub(super) fn note(&self, error: Error) {
        self.broken.store(true, Ordering::Release);
        let mut unwell = lock(&self.unwell);
        if unwell.as_ref() != Some(&error) {
            tracing::warn!(%error, "the store failed");
        }
        *unwell = Some(error);
    }

    /// A probe has passed.
    pub(super) fn well(&self) {
        if let Some(error) = lock(&self.unwell).take() {
            tracing::warn!(was = %error, "the store works again");
        }
    }

    /// Whether it must be probed before it can be called ready.
    pub(super) fn is_unwell(&self) -> bool {
        lock(&self.unwell).is_some()
    }

    /// Opens the engine anew if it is broken, and sets the file back to what was acknowledged.
    pub(super) fn mend(&self) -> Result<(), Error> {
        if self.broken.load(Ordering::Acquire) {
            self.engine.reopen()?;
            self.set_back()?;
            self.broken.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Undoes what a failed commit did all the same: its batches were answered with an error.
    fn set_back(&self) -> Result<(), Error> {
        let found = self.engine.read(rows)?;
        let mut known = self.logs().clone();
        for (log, row) in &known {
            // Lost, not only unpublished: to go on would give the same numbers to other events.
            if found.get(log).is_none_or(|found| found.next < row.next) {
                return Err(Error::Damaged(format!("acknowledged entries of {} are missing", name(log))));
            }
        }
        let ahead: Vec<_> = found
            .iter()
            .filter(|(log, found)| {
                let known = known.get(log).copied().unwrap_or(Row::empty(found.id));
                found.next > known.next || found.quarantine_next > known.quarantine_next
            })
            .map(|(log, row)| (log.clone(), *row))
            .collect();
        // What it trimmed is gone; a cursor that it stored may stay.
        known.extend(found);
        if !ahead.is_empty() {
            let undone = self.engine.commit(|tx| {
                let undo = |(log, row): &(LogKey, Row)| Ok((log.clone(), self.undo(tx, log, *row)?));
                ahead.iter().map(undo).collect::<Result<Vec<_>, Error>>()
            })?;
            known.extend(undone);
        }
        *self.logs() = known;
        Ok(())
    }

    fn undo(&self, tx: &WriteTransaction, log: &LogKey, mut row: Row) -> Result<Row, Error> {
        let known = self.row(log).unwrap_or(Row::empty(row.id));
        row.bytes = row.bytes.saturating_sub(remove(tx, BATCHES, (row.id, known.next))?);
        let from = (row.id, known.quarantine_next);
        row.quarantine_bytes = row.quarantine_bytes.saturating_sub(remove(tx, QUARANTINE, from)?);
        remove(tx, QUARANTINE_HEADS, from)?;
        row.quarantine_next = known.quarantine_next;
        row.next = known.next;
        // It may have appended and trimmed past what was acknowledged. What it trimmed does not come back.
        row.earliest = row.earliest.min(row.next);
        row.high = known.high;
        let name = name(log);
        let mut logs = tx.open_table(LOGS).map_err(failed)?;
        logs.insert(name.as_str(), encode_row(Key::Log(&name), &row).as_slice()).map_err(failed)?;
        Ok(row)
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<LogKey, Row>> {
        lock(&self.logs)
    }
}

/// Removes what a log has in a table from a number on; says how much room that took.
fn remove(
    tx: &WriteTransaction,
    table: TableDefinition<'_, (u32, u64), &'static [u8]>,
    from: (u32, u64),
) -> Result<u64, Error> {
    let mut table = tx.open_table(table).map_err(failed)?;
    let mut gone = Vec::new();
    for entry in table.range(from..=(from.0, u64::MAX)).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        gone.push((key.value(), room(value.value().len())));
    }
    for (key, _) in &gone {
        table.remove(*key).map_err(failed)?;
    }
    Ok(gone.iter().map(|(_, bytes)| bytes).sum())
}

/// The logs' state, where it fits their batches.
pub(super) fn whole_rows(tx: &ReadTransaction) -> Result<HashMap<LogKey, Row>, Error> {
    let logs = rows(tx)?;
    for (log, row) in &logs {
        check(tx, log, row)?;
    }
    Ok(logs)
}

fn rows(tx: &ReadTransaction) -> Result<HashMap<LogKey, Row>, Error> {
    let table = tx.open_table(LOGS).map_err(failed)?;
    let mut rows = HashMap::new();
    for entry in table.iter().map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let name = key.value();
        let row = decode_row(Key::Log(name), value.value())?;
        let log = log_key(name).ok_or_else(|| Error::Damaged(format!("{name:?} names no log")))?;
        rows.insert(log, row);
    }
    Ok(rows)
}

fn log_key(name: &str) -> Option<LogKey> {
    let (app, stream) = name.split_once('/')?;
    Some(LogKey { app: AppId::parse(app).ok()?, stream: Stream::parse(stream)? })
}

/// Rows and batches are committed together, so they disagree only when the file was damaged.
fn check(tx: &ReadTransaction, log: &LogKey, row: &Row) -> Result<(), Error> {
    let table = tx.open_table(BATCHES).map_err(failed)?;
    let mut range = table.range((row.id, 0)..=(row.id, u64::MAX)).map_err(failed)?;
    let newest = range.next_back().transpose().map_err(failed)?.map(|(key, _)| key.value().1);
    let fits = match newest {
        Some(last) => row.earliest <= last && row.next == last + 1,
        None => row.earliest == row.next,
    };
    if fits { Ok(()) } else { Err(Error::Damaged(format!("the log {} and its batches disagree", name(log)))) }
}
