//! The engine: redb's tables, one commit at a time, opened again after it failed.
//!
//! Invariants:
//! - All of a commit is on stable storage when [`Engine::commit`] returns `Ok`. After an `Err` the caller must call
//!   [`Engine::reopen`] before it relies on what the tables hold: the commit may have happened all the same (its last
//!   sync failed after it had taken effect).
//! - Commits are two-phase and carry the allocator's state (redb's quick repair): opening after a crash takes
//!   milliseconds, whatever the size, and an old state stays whole until the new one is synced.
//! - redb refuses all work after an I/O error until its file is opened anew. No two openings of the file overlap:
//!   whoever uses the database holds the lock's read side, reopening takes the write side.

use std::borrow::Cow;
use std::io::ErrorKind::{InvalidData, UnexpectedEof};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};

use super::diff_writer::DiffWriter;
use super::disk::{Backend, Folder, is_full};
use super::look::{check_format, look};
use super::record::{Key, decode_number, encode_number};
use super::tables::{self, META, Room, Visitor};
use crate::store::Error;

/// Its pages in memory, at most.
pub(super) const CACHE: usize = 16 << 20;
/// The layout of tables, keys and values; the newest that this code knows. A change that old code would misread gets a
/// new number, and a store kept as a fixture of the old one (`tests/fixtures/`).
pub(super) const FORMAT: u64 = 2;
/// Without subscriptions called `$client.NAME`: see [`with_names_of_clients`]. Older code reads it, so a store begins
/// with it.
pub(super) const FIRST_FORMAT: u64 = 1;

pub(super) const FORMAT_KEY: &str = "format";
pub(super) const EPOCH_KEY: &str = "epoch";
const CLEAN_STOP_KEY: &str = "clean stop";
const PROBE_KEY: &str = "probe";

/// What a copy must not have.
pub(super) const SPOKEN_OF_STOPS: [&str; 2] = [CLEAN_STOP_KEY, PROBE_KEY];

/// The open database, or none while it is broken or closed.
#[derive(Debug)]
pub(super) struct Engine {
    folder: Folder,
    database: RwLock<Option<Database>>,
}

/// What was found of the last run when the file was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastRun {
    pub(super) epoch: u64,
    pub(super) is_new: bool,
    pub(super) clean_stop: Option<u64>,
}

impl Engine {
    /// Opens the folder's database, or makes it. Takes the record of the last clean stop out, durably. A database of
    /// another format is left as it is, byte for byte.
    pub(super) fn open(folder: Folder) -> Result<(Self, LastRun), Error> {
        if let Some(file) = folder.existing()? {
            look(file)?;
        }
        let (database, is_new) = match folder.existing()? {
            Some(file) => (open(file)?, false),
            None => (create(&folder)?, true),
        };
        let engine = Self { folder, database: RwLock::new(Some(database)) };
        let (epoch, clean_stop) = engine.read(|tx| {
            check_format(tx)?;
            let epoch = number(tx, EPOCH_KEY)?.ok_or_else(|| Error::Damaged("its epoch is not recorded".into()))?;
            Ok((epoch, number(tx, CLEAN_STOP_KEY)?))
        })?;
        // Taken away at once: if this run ends by a crash, the next must not read the word of the one before.
        if clean_stop.is_some() {
            engine.commit(|tx| {
                tx.open_table(META).map_err(failed)?.remove(CLEAN_STOP_KEY).map_err(failed)?;
                Ok(())
            })?;
        }
        Ok((engine, LastRun { epoch, is_new, clean_stop }))
    }

    /// The folder it is in.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Runs `work` on a snapshot of the last commit.
    pub(super) fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        let guard = self.guard();
        let database = guard.as_ref().ok_or_else(broken)?;
        work(&database.begin_read().map_err(failed)?)
    }

    /// Runs `work` and commits what it did. Writers take turns.
    pub(super) fn commit<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
        let guard = self.guard();
        let database = guard.as_ref().ok_or_else(broken)?;
        let mut tx = database.begin_write().map_err(failed)?;
        // Costs a second sync for each commit, and opening after a crash takes milliseconds instead of a walk through
        // the file.
        tx.set_quick_repair(true);
        let done = work(&tx)?;
        tx.commit().map_err(failed)?;
        Ok(done)
    }

    /// Lets the database go and opens it anew, waiting for reads that run.
    pub(super) fn reopen(&self) -> Result<(), Error> {
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one must have let go of the file first.
        *guard = None;
        let file = self.folder.existing()?.ok_or_else(|| Error::Io("the data file is gone".into()))?;
        *guard = Some(open(file)?);
        Ok(())
    }

    /// Lets the database go for good.
    pub(super) fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A number kept under a name.
    pub(super) fn fact(&self, name: &str) -> Result<Option<u64>, Error> {
        self.read(|tx| number(tx, &fact_key(name)))
    }

    /// The numbers kept under names that begin so.
    pub(super) fn facts(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let first = fact_key(prefix);
        self.read(|tx| {
            let meta = tx.open_table(META).map_err(failed)?;
            let mut found = Vec::new();
            for entry in meta.range(first.as_str()..).map_err(failed)? {
                let (key, value) = entry.map_err(failed)?;
                let Some(rest) = key.value().strip_prefix(first.as_str()) else { break };
                found.push((format!("{prefix}{rest}"), decode_number(Key::Meta(key.value()), value.value())?));
            }
            Ok(found)
        })
    }

    /// Keeps numbers under names, or removes them.
    pub(super) fn change_facts(&self, facts: &[(Cow<'static, str>, Option<u64>)]) -> Result<(), Error> {
        self.commit(|tx| {
            let mut meta = tx.open_table(META).map_err(failed)?;
            for (name, number) in facts {
                let key = fact_key(name);
                match number {
                    Some(number) => {
                        let value = encode_number(Key::Meta(&key), *number);
                        meta.insert(key.as_str(), value.as_slice()).map_err(failed)?;
                    }
                    None => drop(meta.remove(key.as_str()).map_err(failed)?),
                }
            }
            Ok(())
        })
    }

    /// Records when the gateway stopped in order.
    pub(super) fn record_clean_stop(&self, now: u64) -> Result<(), Error> {
        self.commit(|tx| {
            let mut meta = tx.open_table(META).map_err(failed)?;
            let value = encode_number(Key::Meta(CLEAN_STOP_KEY), now);
            meta.insert(CLEAN_STOP_KEY, value.as_slice()).map_err(failed)?;
            Ok(())
        })
    }

    /// Writes `size` bytes and removes them again, both durably: whether a batch of that size could be kept.
    pub(super) fn probe(&self, size: usize) -> Result<(), Error> {
        self.commit(|tx| {
            let mut meta = tx.open_table(META).map_err(failed)?;
            meta.insert(PROBE_KEY, vec![0x5a; size].as_slice()).map_err(failed)?;
            Ok(())
        })?;
        self.commit(|tx| {
            tx.open_table(META).map_err(failed)?.remove(PROBE_KEY).map_err(failed)?;
            Ok(())
        })
    }

    /// As a later version might leave it.
    #[cfg(test)]
    pub(super) fn raise_format(&self) -> Result<(), Error> {
        self.commit(|tx| {
            let value = encode_number(Key::Meta(FORMAT_KEY), FORMAT + 1);
            tx.open_table(META).map_err(failed)?.insert(FORMAT_KEY, value.as_slice()).map_err(failed)?;
            Ok(())
        })
    }

    fn guard(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Apart from the store's own.
fn fact_key(name: &str) -> String {
    format!("fact {name}")
}

/// One of the store's own facts.
pub(super) fn number(tx: &ReadTransaction, key: &str) -> Result<Option<u64>, Error> {
    let meta = tx.open_table(META).map_err(failed)?;
    let value = meta.get(key).map_err(failed)?;
    value.map(|value| decode_number(Key::Meta(key), value.value())).transpose()
}

/// There is a subscription that is called `$client.NAME`: versions that do not know such names must not open the store.
pub(super) fn with_names_of_clients(tx: &WriteTransaction) -> Result<(), Error> {
    let value = encode_number(Key::Meta(FORMAT_KEY), FORMAT);
    let mut meta = tx.open_table(META).map_err(failed)?;
    let is_known = meta.get(FORMAT_KEY).map_err(failed)?.is_some_and(|there| there.value() == value.as_slice());
    if !is_known {
        meta.insert(FORMAT_KEY, value.as_slice()).map_err(failed)?;
    }
    Ok(())
}

fn open(file: Backend) -> Result<Database, Error> {
    Database::builder().set_cache_size(CACHE).create_with_backend(DiffWriter::new(file)).map_err(failed)
}

/// Makes each table, so that readers find it there.
struct Making<'a>(&'a WriteTransaction);

impl Visitor for Making<'_> {
    fn table<K: redb::Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
        _: Room,
    ) -> Result<(), Error> {
        self.0.open_table(table).map(drop).map_err(failed)
    }
}

fn create(folder: &Folder) -> Result<Database, Error> {
    let epoch = getrandom::u64().map_err(|e| Error::Io(format!("no randomness: {e}")))?;
    let database = open(folder.begin()?)?;
    let tx = database.begin_write().map_err(failed)?;
    tables::each(&mut Making(&tx))?;
    {
        let mut meta = tx.open_table(META).map_err(failed)?;
        for (key, number) in [(FORMAT_KEY, FIRST_FORMAT), (EPOCH_KEY, epoch)] {
            meta.insert(key, encode_number(Key::Meta(key), number).as_slice()).map_err(failed)?;
        }
    }
    tx.commit().map_err(failed)?;
    folder.finish()?;
    Ok(database)
}

fn broken() -> Error {
    Error::Io("the data file could not be opened again after an error".into())
}

/// Sorts the engine's errors: no room, damage, all else.
pub(super) fn failed(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(e) if is_full(&e) => Error::Full(e.to_string()),
        // So read a file that is not redb's, and one too short for what its pages say.
        redb::Error::Io(e) if matches!(e.kind(), InvalidData | UnexpectedEof) => Error::Damaged(e.to_string()),
        redb::Error::Io(e) => Error::Io(e.to_string()),
        e @ (redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableIsMultimap(_)) => Error::Damaged(e.to_string()),
        // `redb::Error` is open to new variants, so the rest cannot be named.
        e => Error::Io(e.to_string()),
    }
}
