//! Retention: one bounded step of removing a log's oldest batches.
//!
//! Invariants: whole batches go, oldest first, without a gap; numbers are not used again. A step touches at most
//! [`STEP`] batches, so that appends which wait behind it wait about a millisecond. A batch that cannot be read any
//! more has no known age: it goes together with the next one that does.

use redb::{ReadTransaction, ReadableTable as _, WriteTransaction};

use super::engine::failed;
use super::quarantine;
use super::record::{Row, decode_batch_head, room};
use super::tables::BATCHES;
use crate::store::Error;

/// Batches that one step removes, at most.
pub(super) const STEP: usize = 256;

/// Which batches are to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Those received before this, as milliseconds since 1970.
    pub(super) older_than: u64,
    /// As many as bring the log down to these bytes.
    pub(super) keep_bytes: u64,
    /// As many quarantined responses, oldest first, as bring them down to these bytes.
    pub(super) keep_quarantined: u64,
}

/// Whether there is anything to remove: spares the commit when there is not.
pub(super) fn is_due(tx: &ReadTransaction, row: &Row, limits: Limits) -> Result<bool, Error> {
    if row.bytes > limits.keep_bytes || row.quarantine_bytes > 0 {
        return Ok(true);
    }
    let table = tx.open_table(BATCHES).map_err(failed)?;
    // Past batches that cannot be read, which go with the next.
    for entry in table.range((row.id, 0)..=(row.id, u64::MAX)).map_err(failed)?.take(STEP) {
        let (key, value) = entry.map_err(failed)?;
        if let Ok(head) = decode_batch_head(row.id, key.value().1, value.value()) {
            return Ok(head.received < limits.older_than);
        }
    }
    Ok(false)
}

/// Removes what one step may; says whether more is to go.
pub(super) fn step(tx: &WriteTransaction, row: &mut Row, limits: Limits) -> Result<bool, Error> {
    let more_batches = batches(tx, row, limits)?;
    let more_quarantined = quarantine::trim(tx, row, limits)?;
    Ok(more_batches || more_quarantined)
}

fn batches(tx: &WriteTransaction, row: &mut Row, limits: Limits) -> Result<bool, Error> {
    let mut table = tx.open_table(BATCHES).map_err(failed)?;
    let mut found = Vec::new();
    // How many of the found go, and the bytes that are left then.
    let (mut go, mut left, mut more) = (0, row.bytes, false);
    let mut seen = row.bytes;
    for entry in table.range((row.id, 0)..=(row.id, u64::MAX)).map_err(failed)? {
        if found.len() == STEP {
            more = true;
            break;
        }
        let (key, value) = entry.map_err(failed)?;
        let last = key.value().1;
        let is_old = match decode_batch_head(row.id, last, value.value()) {
            Ok(head) => Some(head.received < limits.older_than),
            Err(error) => {
                tracing::error!(%error, "a stored batch cannot be read");
                None
            }
        };
        // Ages do not rise evenly, as clocks go back: what is younger stops it, even where older ones stand behind.
        if is_old == Some(false) && seen <= limits.keep_bytes {
            break;
        }
        found.push(last);
        let over = seen > limits.keep_bytes;
        seen = seen.saturating_sub(room(value.value().len()));
        if over || is_old == Some(true) {
            (go, left) = (found.len(), seen);
        }
    }
    for last in &found[..go] {
        table.remove((row.id, *last)).map_err(failed)?;
        row.earliest = last + 1;
    }
    row.bytes = if row.earliest == row.next { 0 } else { left };
    Ok(more && go > 0)
}
