//! Looking at a data file without changing a byte of it: whether it is a store, and of a format that this code knows.
//!
//! To open a redb file for writing changes it, and one whose gateway was killed cannot be opened for reading alone: it
//! must be repaired first. So it is opened for writing over a layer that keeps in memory what would be written.
//!
//! Invariant: the file is only read. The layer holds as much as opening and closing write: some pages.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};

use redb::{Database, ReadTransaction, ReadableDatabase as _, StorageBackend};

use super::engine::{CACHE, FIRST_FORMAT, FORMAT, FORMAT_KEY, failed, number};
use super::shared::whole_rows;
use super::{places, tables};
use crate::kernel::sync::lock;
use crate::store::Error;

/// What the layer keeps as one.
const BLOCK: usize = 4096;

/// Whether this is a store that can be opened, as far as its head, its tables, its facts, its list of logs and their
/// cursors say.
///
/// # Errors
/// It is none, is damaged, or has another format.
pub(super) fn look(file: impl StorageBackend) -> Result<(), Error> {
    // The engine panics over pages that contradict each other. Nothing that it had in hand then is used.
    let looked = catch_unwind(AssertUnwindSafe(|| read(file)));
    looked.unwrap_or_else(|_| Err(Error::Damaged("its pages contradict each other".into())))
}

fn read(file: impl StorageBackend) -> Result<(), Error> {
    let len = file.len().map_err(|why| Error::Io(why.to_string()))?;
    let layer = Overlay { below: file, above: Mutex::new(OverlayBlocks { len, kept: len, blocks: BTreeMap::new() }) };
    let database = Database::builder().set_cache_size(CACHE).create_with_backend(layer).map_err(failed)?;
    let tx = database.begin_read().map_err(failed)?;
    check_format(&tx)?;
    tables::check(&tx)?;
    for row in whole_rows(&tx)?.values() {
        places::all(&tx, row.id)?;
    }
    Ok(())
}

/// Whether this code knows the store's format.
///
/// # Errors
/// It does not, or none is recorded.
pub(super) fn check_format(tx: &ReadTransaction) -> Result<(), Error> {
    match number(tx, FORMAT_KEY)? {
        Some(FIRST_FORMAT..=FORMAT) => Ok(()),
        Some(found) => Err(Error::Format { found, known: FORMAT }),
        None => Err(Error::Damaged("its format is not recorded".into())),
    }
}

/// A file, and above it what was written since.
#[derive(Debug)]
struct Overlay<B> {
    below: B,
    above: Mutex<OverlayBlocks>,
}

#[derive(Debug)]
struct OverlayBlocks {
    len: u64,
    /// How much of the file still shows: what was cut off and grown again is zeros.
    kept: u64,
    /// Whole blocks by their numbers.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl<B: StorageBackend> Overlay<B> {
    fn above(&self) -> MutexGuard<'_, OverlayBlocks> {
        lock(&self.above)
    }

    /// What the file has there; zeros behind its end.
    fn read_below(&self, kept: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = usize::try_from(kept.saturating_sub(offset)).map_or(out.len(), |there| there.min(out.len()));
        if there > 0 { self.below.read(offset, &mut out[..there]) } else { Ok(()) }
    }
}

/// The blocks that a range touches: each one's number, and which bytes of it.
fn touched(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let (mut at, end) = (offset, offset + len as u64);
    std::iter::from_fn(move || {
        let (number, begin) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
        let taken = (BLOCK - begin).min((end - at) as usize);
        at += taken as u64;
        (taken > 0).then_some((number, begin..begin + taken))
    })
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let above = self.above();
        if offset.saturating_add(out.len() as u64) > above.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(above.kept, offset, out)?;
        let mut rest = out;
        for (number, bytes) in touched(offset, rest.len()) {
            let (here, behind) = rest.split_at_mut(bytes.len());
            if let Some(block) = above.blocks.get(&number) {
                here.copy_from_slice(&block[bytes]);
            }
            rest = behind;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut above = self.above();
        above.kept = above.kept.min(len);
        above.blocks.split_off(&len.div_ceil(BLOCK as u64));
        let (last, tail) = (len / BLOCK as u64, (len % BLOCK as u64) as usize);
        if let Some(block) = above.blocks.get_mut(&last) {
            block[tail..].fill(0);
        }
        above.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut above = self.above();
        let mut rest = data;
        for (number, bytes) in touched(offset, data.len()) {
            let (here, behind) = rest.split_at(bytes.len());
            if !above.blocks.contains_key(&number) {
                let mut block = vec![0; BLOCK];
                self.read_below(above.kept, number * BLOCK as u64, &mut block)?;
                above.blocks.insert(number, block);
            }
            if let Some(block) = above.blocks.get_mut(&number) {
                block[bytes].copy_from_slice(here);
            }
            rest = behind;
        }
        above.len = above.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    properties! {
        #[test]
        fn a_layer_reads_as_the_file_would_that_had_been_written_and_the_file_stays(
            steps in prop::collection::vec((0..4_u8, 0..20_000_u64, 1..9_000_usize, any::<u8>()), 1..40)
        ) {
            let (model, below) = (InMemoryBackend::new(), InMemoryBackend::new());
            for file in [&model, &below] {
                file.set_len(10_000).unwrap();
                file.write(0, &[7; 10_000]).unwrap();
            }
            let above = Mutex::new(OverlayBlocks { len: 10_000, kept: 10_000, blocks: BTreeMap::new() });
            let layer = Overlay { below, above };
            for (what, offset, len, byte) in steps {
                let size = model.len().unwrap();
                match what {
                    0 => for file in [&model as &dyn StorageBackend, &layer] { file.set_len(offset).unwrap() },
                    1 if offset + len as u64 <= size => {
                        for file in [&model as &dyn StorageBackend, &layer] { file.write(offset, &vec![byte; len]).unwrap() }
                    }
                    _ => {}
                }
                let size = model.len().unwrap();
                prop_assert_eq!(layer.len().unwrap(), size);
                let (mut wanted, mut found) = (vec![0; size as usize], vec![1; size as usize]);
                model.read(0, &mut wanted).unwrap();
                layer.read(0, &mut found).unwrap();
                prop_assert!(wanted == found);
            }
            let mut kept = vec![0; 10_000];
            layer.below.read(0, &mut kept).unwrap();
            prop_assert!(kept.iter().all(|byte| *byte == 7) && layer.below.len().unwrap() == 10_000);
        }
    }
}
