//! Reading: from snapshots, so that appends go on meanwhile.
//!
//! Invariants: nothing is returned that was not acknowledged (a snapshot may hold a commit a moment before its
//! appends are answered: the caller's `next` bounds it). Batches come without a hole, or [`Error::Damaged`] does.

use std::sync::Arc;

use redb::ReadTransaction;

use super::engine::{BATCHES, CURSORS, QUARANTINE, failed};
use super::record::{Key, decode_batch, decode_batch_head, decode_number, decode_quarantined};
use crate::names::SubscriptionName;
use crate::store::{Batch, Error, Quarantined, Sequence};

/// The batches that hold entries after `after` and before `next`, until `entries` of them are covered.
pub(super) fn batches(
    tx: &ReadTransaction,
    log: u32,
    (after, next): (u64, u64),
    entries: usize,
) -> Result<Vec<Arc<Batch>>, Error> {
    let mut found: Vec<Arc<Batch>> = Vec::new();
    let table = tx.open_table(BATCHES).map_err(failed)?;
    let from = after.saturating_add(1);
    if from >= next || entries == 0 {
        return Ok(found);
    }
    let mut covered = 0;
    for entry in table.range((log, from)..(log, next)).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let last = key.value().1;
        let batch = decode_batch(log, last, value.value())?;
        if let Some(before) = found.last()
            && before.last().plus(1) != batch.first
        {
            return Err(Error::Damaged(format!("entries are missing before {}", batch.first.0)));
        }
        covered += last + 1 - batch.first.0.max(from);
        found.push(Arc::new(batch));
        if covered >= entries as u64 {
            return Ok(found);
        }
    }
    // Only whole commits are seen, so the last batch must end where the log does.
    match found.last() {
        Some(batch) if batch.last().0 + 1 != next => {
            Err(Error::Damaged(format!("entries are missing after {}", batch.last().0)))
        }
        _ => Ok(found),
    }
}

/// The number of the first entry in `earliest..next` received at or after `time`; `next` when there is none.
pub(super) fn first_since(
    tx: &ReadTransaction,
    log: u32,
    (earliest, next): (u64, u64),
    time: u64,
) -> Result<Sequence, Error> {
    let table = tx.open_table(BATCHES).map_err(failed)?;
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
    // Those found were received after one that was, which may be trimmed by now: they follow a clock that went back.
    for entry in table.range((log, low)..(log, next)).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let last = key.value().1;
        let head = decode_batch_head(log, last, value.value())?;
        if head.received >= time {
            return Ok(Sequence(head.first));
        }
    }
    Ok(Sequence(next))
}

/// All cursors of a log.
pub(super) fn cursors(tx: &ReadTransaction, log: u32) -> Result<Vec<(SubscriptionName, Sequence)>, Error> {
    let table = tx.open_table(CURSORS).map_err(failed)?;
    let mut found = Vec::new();
    for entry in table.range((log, "")..).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let (of, name) = key.value();
        if of != log {
            break;
        }
        let at = Sequence(decode_number(Key::Cursor(log, name), value.value())?);
        let name = SubscriptionName::parse(name).map_err(|e| Error::Damaged(format!("a subscription's name {e}")))?;
        found.push((name, at));
    }
    Ok(found)
}

/// The newest quarantined responses of a log.
pub(super) fn quarantined(tx: &ReadTransaction, log: u32, most: usize) -> Result<Vec<Quarantined>, Error> {
    let table = tx.open_table(QUARANTINE).map_err(failed)?;
    let newest = table.range((log, 0)..=(log, u64::MAX)).map_err(failed)?.rev();
    let mut found = Vec::new();
    for entry in newest.take(most) {
        let (key, value) = entry.map_err(failed)?;
        found.push(decode_quarantined(log, key.value().1, value.value())?);
    }
    Ok(found)
}
