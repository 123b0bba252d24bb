//! [`DiffWriter`]: a file below the engine, of which nothing is written anew that is there already.
//!
//! With each commit the engine writes where its free pages are: 83 KB for each GB of the file, as one large page. It
//! takes the place of the one of two commits ago, and hardly differs from it. So the blocks of a large page that are as
//! they are to be are left alone, and a commit does not grow with the file.
//!
//! Invariants: a block is left out only if this opening of the file wrote it, no write or sync of this opening has
//! failed since, and it reads as the very bytes that were to be written. So it is on stable storage, or the next sync
//! brings it there. (After a sync that failed a block may read as what never reached the disk. Then all is written, and
//! so does the next opening, which knows nothing of this one's writes.) Only places that were written lately are
//! remembered, so what is compared is in the system's cache.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use redb::StorageBackend;

use super::disk;
use crate::kernel::sync::lock;

const BLOCK: usize = disk::BLOCK as usize;
/// Smaller writes are passed on: what is small differs.
const LARGE: usize = 2 * BLOCK;
/// Large writes that are remembered.
const REMEMBERED: usize = 64;
/// So much is compared at a time: a whole number of blocks.
const COMPARED: usize = 16 * BLOCK;

#[derive(Debug)]
pub(super) struct DiffWriter<B> {
    below: B,
    lately: Mutex<RecentWrites>,
}

#[derive(Debug, Default)]
struct RecentWrites {
    /// Where this opening wrote, oldest first.
    written: VecDeque<Range<u64>>,
    /// Whether a write or a sync has failed.
    failed: bool,
}

impl<B> DiffWriter<B> {
    pub(super) fn new(below: B) -> Self {
        Self { below, lately: Mutex::default() }
    }

    fn lately(&self) -> MutexGuard<'_, RecentWrites> {
        lock(&self.lately)
    }

    /// Passes the outcome of a change on. Of a file of which one failed nothing is known any more.
    fn noted<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if done.is_err() {
            *self.lately() = RecentWrites { written: VecDeque::new(), failed: true };
        }
        done
    }
}

impl RecentWrites {
    /// Whether all of it was written; forgets it until it is so again.
    fn take(&mut self, range: &Range<u64>) -> bool {
        let found = self.written.iter().position(|known| known.start <= range.start && range.end <= known.end);
        found.and_then(|at| self.written.remove(at)).is_some()
    }

    fn put(&mut self, range: Range<u64>) {
        if self.failed {
            return;
        }
        if self.written.len() == REMEMBERED {
            self.written.pop_front();
        }
        self.written.push_back(range);
    }
}

impl<B: StorageBackend> DiffWriter<B> {
    /// Writes the blocks that differ from what is there.
    fn write_differing(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut there = vec![0; COMPARED.min(data.len())];
        // Where those begin that differ and are not written yet.
        let mut from = None;
        for (n, part) in data.chunks(COMPARED).enumerate() {
            let begin = n * COMPARED;
            let there = &mut there[..part.len()];
            self.below.read(offset + begin as u64, there)?;
            for (k, (new, old)) in part.chunks(BLOCK).zip(there.chunks(BLOCK)).enumerate() {
                let at = begin + k * BLOCK;
                if new != old {
                    from.get_or_insert(at);
                } else if let Some(from) = from.take() {
                    self.below.write(offset + from as u64, &data[from..at])?;
                }
            }
        }
        match from {
            Some(from) => self.below.write(offset + from as u64, &data[from..]),
            None => Ok(()),
        }
    }
}

impl<B: StorageBackend> StorageBackend for DiffWriter<B> {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.below.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // What was cut off reads as zeros when it is there again.
        self.lately().written.retain(|range| range.end <= len);
        self.noted(self.below.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noted(self.below.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.len() < LARGE || !offset.is_multiple_of(BLOCK as u64) {
            return self.noted(self.below.write(offset, data));
        }
        let range = offset..offset + data.len() as u64;
        // Taken out before it is written: if the write fails half-way, the place is not known until it was written
        // whole again.
        let is_known = self.lately().take(&range);
        let written = if is_known { self.write_differing(offset, data) } else { self.below.write(offset, data) };
        self.noted(written)?;
        self.lately().put(range);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    /// Counts what is written, fails when told to, and may forget a part of what was not synced when it fails.
    #[derive(Debug, Default, Clone)]
    struct Counting(Arc<Counted>);

    #[derive(Debug, Default)]
    struct Counted {
        file: InMemoryBackend,
        written: AtomicU64,
        fails: AtomicBool,
    }

    impl Counting {
        fn may(&self) -> io::Result<()> {
            if self.0.fails.load(Ordering::Relaxed) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        }

        fn content(&self) -> Vec<u8> {
            let mut all = vec![0; self.0.file.len().unwrap() as usize];
            self.0.file.read(0, &mut all).unwrap();
            all
        }
    }

    impl StorageBackend for Counting {
        fn len(&self) -> io::Result<u64> {
            self.0.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.may().and_then(|()| self.0.file.set_len(len))
        }

        fn sync_data(&self) -> io::Result<()> {
            self.may()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.may()?;
            self.0.written.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.0.file.write(offset, data)
        }
    }

    const LARGE_PAGE: usize = 32 * BLOCK;

    fn with_room() -> (Counting, DiffWriter<Counting>) {
        let below = Counting::default();
        below.0.file.set_len(4 * LARGE_PAGE as u64).unwrap();
        (below.clone(), DiffWriter::new(below))
    }

    #[test]
    fn of_a_page_that_was_written_before_only_the_blocks_that_differ_are_written() {
        let (below, file) = with_room();
        let mut page = vec![1; LARGE_PAGE];
        file.write(0, &page).unwrap();
        assert_eq!(below.0.written.swap(0, Ordering::Relaxed), LARGE_PAGE as u64);
        page[3 * BLOCK + 7] = 2;
        page[4 * BLOCK] = 2;
        page[LARGE_PAGE - 1] = 2;
        file.write(0, &page).unwrap();
        assert_eq!(below.0.written.swap(0, Ordering::Relaxed), 3 * BLOCK as u64);
        assert!(below.content()[..LARGE_PAGE] == page);
    }

    #[test]
    fn what_this_opening_did_not_write_is_written_though_it_reads_the_same() {
        let (below, file) = with_room();
        file.write(0, &vec![1; LARGE_PAGE]).unwrap();
        let again = DiffWriter::new(below.clone());
        below.0.written.store(0, Ordering::Relaxed);
        again.write(0, &vec![1; LARGE_PAGE]).unwrap();
        assert_eq!(below.0.written.load(Ordering::Relaxed), LARGE_PAGE as u64);
    }

    #[test]
    fn after_a_failure_all_is_written() {
        type Change = fn(&DiffWriter<Counting>) -> io::Result<()>;
        let failing: [Change; 4] = [
            |file| file.sync_data(),
            |file| file.write(0, &[1; 16]),
            |file| file.write(0, &vec![2; LARGE_PAGE]),
            |file| file.set_len(8 * LARGE_PAGE as u64),
        ];
        for fail in failing {
            let (below, file) = with_room();
            file.write(0, &vec![1; LARGE_PAGE]).unwrap();
            below.0.fails.store(true, Ordering::Relaxed);
            assert!(fail(&file).is_err());
            below.0.fails.store(false, Ordering::Relaxed);
            for _ in 0..2 {
                below.0.written.store(0, Ordering::Relaxed);
                file.write(0, &vec![1; LARGE_PAGE]).unwrap();
                assert_eq!(below.0.written.load(Ordering::Relaxed), LARGE_PAGE as u64);
            }
        }
    }

    properties! {
        #[test]
        fn it_is_the_same_file_for_whoever_reads_it(
            steps in prop::collection::vec((0..5_u8, 0..12_u64, 1..40_usize, 0..3_u8), 1..80)
        ) {
            let (model, below) = (InMemoryBackend::new(), Counting::default());
            let file = DiffWriter::new(below.clone());
            for (what, at, blocks, byte) in steps {
                let (offset, size) = (at * BLOCK as u64, model.len().unwrap());
                let mut data = vec![byte; blocks * BLOCK / 2];
                if let Some(one) = data.get_mut(blocks * 97) {
                    *one = 9;
                }
                let end = offset + data.len() as u64;
                if what == 0 {
                    model.set_len(offset).unwrap();
                    file.set_len(offset).unwrap();
                } else {
                    if size < end {
                        model.set_len(end).unwrap();
                        file.set_len(end).unwrap();
                    }
                    model.write(offset, &data).unwrap();
                    file.write(offset, &data).unwrap();
                }
                let mut wanted = vec![0; model.len().unwrap() as usize];
                model.read(0, &mut wanted).unwrap();
                prop_assert!(wanted == below.content());
            }
        }
    }
}
