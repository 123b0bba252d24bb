//! A backup: a snapshot of everything, written to a data file of its own while the gateway goes on.
//!
//! Invariants:
//! - The copy is one commit's state: all that was acknowledged before the copying began is in it, no cursor is ahead of
//!   its log, and no change that came later is there in part. (A plain copy of the data file is not so: it takes pages
//!   of many commits.)
//! - It has an epoch of its own. The original goes on to give its numbers to other events, so a cursor that a client
//!   got from it after the copy was made must not be taken for a place in the copy. It says nothing of a clean stop.
//! - A damaged value is copied as it stands, and found damaged in the copy too.
//! - The file has no name any more when it is handed out: it is gone with its last user, also after a crash. So it is
//!   synced once, at its end, and only to know that all of it could be written.
//! - It is no longer than what is kept takes: pages are moved together before it is handed out.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::backends::FileBackend;
use redb::{Database, ReadTransaction, ReadableTable as _, StorageBackend, TableDefinition};

use super::engine::{CACHE, EPOCH_KEY, SPOKEN_OF_STOPS, failed};
use super::record::{Key, encode_number};
use super::shared::Shared;
use super::tables::{self, META, Room, Visitor};
use crate::store::Error;

/// Bytes that one commit of the copy takes, about.
const STEP: usize = 8 << 20;

/// Makes a backup and hands out its file, to be read from its beginning.
pub(super) fn make(shared: &Arc<Shared>, reserve: u64) -> Result<File, Error> {
    let folder = shared.engine.folder();
    let (free, taken) = (folder.free()?, folder.taken());
    if free < taken.saturating_add(reserve) {
        let why = format!("a backup may take {taken} bytes beside the reserve of {reserve}, and {free} are free");
        return Err(Error::Full(why));
    }
    let io = |e: io::Error| Error::Io(format!("the backup's file: {e}"));
    let mut file = folder.nameless()?;
    let below = FileBackend::new(file.try_clone().map_err(io)?).map_err(|e| Error::Io(e.to_string()))?;
    let mut copy = Database::builder()
        .set_cache_size(CACHE)
        .create_with_backend(Nameless { file: below, shared: Arc::clone(shared) })
        .map_err(failed)?;
    shared.engine.read(|tx| Copying { shared, tx, copy: &copy }.all())?;
    // Many large values in one commit leave gaps between them.
    copy.compact().map_err(failed)?;
    // Closing it writes what opening it needs.
    drop(copy);
    is_wanted(shared)?;
    file.sync_all().and_then(|()| file.seek(SeekFrom::Start(0)).map(drop)).map_err(io)?;
    Ok(file)
}

/// The engine cannot be closed or mended while it is copied from.
fn is_wanted(shared: &Shared) -> Result<(), Error> {
    if shared.closed.load(Ordering::Acquire) || shared.is_unwell() {
        Err(Error::Io("the backup was broken off: the store is being closed or repaired".into()))
    } else {
        Ok(())
    }
}

/// The copy's file. Ends all work on it when the store is closed.
#[derive(Debug)]
struct Nameless {
    file: FileBackend,
    shared: Arc<Shared>,
}

impl StorageBackend for Nameless {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(io::Error::other("the store is being closed"));
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

struct Copying<'a> {
    shared: &'a Shared,
    tx: &'a ReadTransaction,
    copy: &'a Database,
}

impl Copying<'_> {
    fn all(&mut self) -> Result<(), Error> {
        tables::each(self)?;
        let epoch = getrandom::u64().map_err(|e| Error::Io(format!("no randomness: {e}")))?;
        let tx = self.copy.begin_write().map_err(failed)?;
        {
            let mut meta = tx.open_table(META).map_err(failed)?;
            meta.insert(EPOCH_KEY, encode_number(Key::Meta(EPOCH_KEY), epoch).as_slice()).map_err(failed)?;
            for key in SPOKEN_OF_STOPS {
                meta.remove(key).map_err(failed)?;
            }
        }
        tx.commit().map_err(failed)
    }
}

impl Visitor for Copying<'_> {
    fn table<K: redb::Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
        _: Room,
    ) -> Result<(), Error> {
        let Some(source) = tables::existing(self.tx, table)? else { return Ok(()) };
        let mut entries = source.iter().map_err(failed)?;
        let mut more = true;
        while more {
            is_wanted(self.shared)?;
            let tx = self.copy.begin_write().map_err(failed)?;
            {
                let mut target = tx.open_table(table).map_err(failed)?;
                let mut bytes = 0;
                more = false;
                for entry in entries.by_ref() {
                    let (key, value) = entry.map_err(failed)?;
                    bytes += value.value().len() + 64;
                    target.insert(key.value(), value.value()).map_err(failed)?;
                    if bytes >= STEP {
                        more = true;
                        break;
                    }
                }
            }
            tx.commit().map_err(failed)?;
        }
        Ok(())
    }
}
