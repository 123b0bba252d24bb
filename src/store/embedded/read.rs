//! Reading: from snapshots, so that appends go on meanwhile.
//!
//! Invariants: nothing is returned that was not acknowledged (a snapshot may hold a commit a moment before its appends
//! are answered: the caller's `next` bounds it). Batches come without a hole: where one is damaged, or missing,
//! [`Content::Damaged`] stands for its entries, so that readers learn of it and go on. Nothing damaged is ever
//! returned.

use std::sync::Arc;

use redb::ReadTransaction;

use super::engine::failed;
use super::record::{Key, decode_batch, decode_batch_head, decode_row};
use super::tables::{BATCHES, LOGS};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Batch, Content, Error, Sequence};

/// The number of a log's oldest entry in this snapshot: retention may have gone on since the row was looked up.
pub(super) fn earliest(tx: &ReadTransaction, name: &str) -> Result<u64, Error> {
    let table = tx.open_table(LOGS).map_err(failed)?;
    let Some(value) = table.get(name).map_err(failed)? else { return Ok(1) };
    Ok(decode_row(Key::Log(name), value.value())?.earliest)
}

/// The batches that hold entries after `after` of `earliest..next`, until `entries` of them are covered.
pub(super) fn batches(
    tx: &ReadTransaction,
    log: u32,
    after: u64,
    (earliest, next): (u64, u64),
    entries: usize,
) -> Result<Vec<Arc<Batch>>, Error> {
    let table = tx.open_table(BATCHES).map_err(failed)?;
    let from = after.saturating_add(1).max(earliest);
    let mut run = Run { found: Vec::new(), from, expected: from, covered: 0, wanted: entries as u64 };
    if from >= next {
        return Ok(run.found);
    }
    for entry in table.range((log, from)..(log, next)).map_err(failed)? {
        if run.is_enough() {
            return Ok(run.found);
        }
        let (key, value) = entry.map_err(failed)?;
        let last = key.value().1;
        match decode_batch(log, last, value.value()) {
            // Whatever lies between two sound batches was one, or more.
            Ok(batch) if batch.first.0 >= run.expected || run.found.is_empty() => {
                run.fill(batch.first.0);
                run.push(batch);
            }
            Ok(_) | Err(_) => run.fill(last + 1),
        }
    }
    if !run.is_enough() {
        // Only whole commits are seen, so the last batch should end where the log does.
        run.fill(next);
    }
    Ok(run.found)
}

/// A run of batches without a hole.
struct Run {
    found: Vec<Arc<Batch>>,
    /// The first entry wanted.
    from: u64,
    /// The entry that comes next.
    expected: u64,
    covered: u64,
    wanted: u64,
}

impl Run {
    fn is_enough(&self) -> bool {
        self.covered >= self.wanted
    }

    fn push(&mut self, batch: Batch) {
        let (first, end) = (batch.first.0, batch.last().0 + 1);
        self.covered += end - first.max(self.from);
        self.expected = end;
        self.found.push(Arc::new(batch));
    }

    /// Puts what stands for damage before `end`, if entries are missing there.
    fn fill(&mut self, end: u64) {
        if end <= self.expected {
            return;
        }
        let received_at = self.found.last().map_or_else(UnixMillis::default, |before| before.received_at);
        let region = self.found.last().map_or_else(nowhere, |before| before.region.clone());
        let content = Content::Damaged(end - self.expected);
        self.push(Batch { first: Sequence(self.expected), received_at, region, content });
    }
}

/// The region of what cannot be read.
fn nowhere() -> RegionName {
    RegionName::parse("unknown").expect("the literal keeps the rule of names")
}

/// The number of the first entry in `earliest..next` received at or after `time`; `next` when there is none.
pub(super) fn first_since(
    tx: &ReadTransaction,
    log: u32,
    (earliest, next): (u64, u64),
    time: u64,
) -> Result<Sequence, Error> {
    let table = tx.open_table(BATCHES).map_err(failed)?;
    let low = match bisect(&table, log, (earliest, next), time) {
        Err(Error::Damaged(_)) => earliest,
        low => low?,
    };
    // Those found were received after one that was, which may be trimmed by now: they follow a clock that went back.
    for entry in table.range((log, low)..(log, next)).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let last = key.value().1;
        // One that is damaged has no known time.
        if let Ok(head) = decode_batch_head(log, last, value.value())
            && head.received >= time
        {
            return Ok(Sequence(head.first));
        }
    }
    Ok(Sequence(next))
}

/// Where the first batch begins from which on one was received at or after `time`.
fn bisect(
    table: &redb::ReadOnlyTable<(u32, u64), &'static [u8]>,
    log: u32,
    (earliest, next): (u64, u64),
    time: u64,
) -> Result<u64, Error> {
    // Both always stand where a batch begins, or at the end.
    let (mut low, mut high) = (earliest, next);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(entry) = table.range((log, middle)..(log, high)).map_err(failed)?.next() else {
            return Err(Error::Damaged(format!("entries are missing after {middle}")));
        };
        let (key, value) = entry.map_err(failed)?;
        let last = key.value().1;
        let head = decode_batch_head(log, last, value.value())?;
        if head.high < time {
            low = last + 1;
        } else if head.first > low {
            high = head.first;
        } else {
            high = low;
        }
    }
    Ok(low)
}
