//! The quarantine: responses that could not be read to their end, each in pieces, with a head that says what it is.
//!
//! Invariants: a response, its pieces and its head, is there whole or not at all. Its number is that of its last piece.
//! A piece that no head speaks of is a response of its own: so versions that knew neither pieces nor heads wrote them;
//! to these versions, each piece is one.

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, WriteTransaction};

use super::engine::failed;
use super::record::{
    Key, QuarantineHead, Row, decode_quarantine_head, decode_quarantined, encode_quarantine_head, encode_quarantined,
    room,
};
use super::tables::{self, QUARANTINE, QUARANTINE_HEADS};
use super::trim::{Limits, STEP};
use crate::store::{Error, QuarantineEntry, QuarantineRecord, UnreadableResponse};

/// Bytes of a body in one piece: with what stands beside it, it fits a power of two, as the engine's pages do.
const PIECE: usize = (1 << 20) - (4 << 10);

/// Keeps a response, its body in pieces that fit the engine's pages.
pub(super) fn keep(tx: &WriteTransaction, row: &mut Row, kept: &QuarantineRecord) -> Result<(), Error> {
    let QuarantineRecord { response: UnreadableResponse { received_at, region, why, body }, delivered } = kept;
    let first = row.quarantine_next;
    {
        let mut pieces = tx.open_table(QUARANTINE).map_err(failed)?;
        let mut rest = body.clone();
        loop {
            let piece = rest.split_to(rest.len().min(PIECE));
            let (number, why) = (row.quarantine_next, why.clone());
            let piece = UnreadableResponse { received_at: *received_at, region: region.clone(), why, body: piece };
            let value = encode_quarantined(Key::Quarantine(row.id, number), &piece);
            pieces.insert((row.id, number), value.as_slice()).map_err(failed)?;
            row.quarantine_next += 1;
            row.quarantine_bytes += room(value.len());
            if rest.is_empty() {
                break;
            }
        }
    }
    let head = QuarantineHead {
        first,
        received_at: *received_at,
        region: region.clone(),
        why: why.clone(),
        bytes: body.len() as u64,
        delivered: *delivered,
    };
    put_head(tx, row.id, row.quarantine_next - 1, &head)
}

/// Notes how many of a response's events are delivered by now. One that is gone stays so.
pub(super) fn redelivered(tx: &WriteTransaction, row: &Row, id: u64, delivered: u64) -> Result<(), Error> {
    let head = {
        let pieces = tx.open_table(QUARANTINE).map_err(failed)?;
        let heads = tx.open_table(QUARANTINE_HEADS).map_err(failed)?;
        let there = heads.get((row.id, id)).map_err(failed)?;
        match there {
            Some(value) => decode_quarantine_head(row.id, id, value.value())?,
            None => match pieces.get((row.id, id)).map_err(failed)? {
                Some(value) => alone(row.id, id, value.value())?.0,
                None => return Ok(()),
            },
        }
    };
    put_head(tx, row.id, id, &QuarantineHead { delivered, ..head })
}

fn put_head(tx: &WriteTransaction, log: u32, last: u64, head: &QuarantineHead) -> Result<(), Error> {
    let mut heads = tx.open_table(QUARANTINE_HEADS).map_err(failed)?;
    heads.insert((log, last), encode_quarantine_head(log, last, head).as_slice()).map_err(failed)?;
    Ok(())
}

/// A piece that no head speaks of: what a head would say, and its body.
fn alone(log: u32, number: u64, value: &[u8]) -> Result<(QuarantineHead, Bytes), Error> {
    let UnreadableResponse { received_at, region, why, body } = decode_quarantined(log, number, value)?;
    let bytes = body.len() as u64;
    Ok((QuarantineHead { first: number, received_at, region, why, bytes, delivered: 0 }, body))
}

fn entry(id: u64, head: QuarantineHead) -> QuarantineEntry {
    let QuarantineHead { received_at, region, why, bytes, delivered, .. } = head;
    QuarantineEntry { id, received_at, region, why, bytes, delivered }
}

/// The newest responses of a log before a number.
pub(super) fn newest(tx: &ReadTransaction, row: &Row, before: u64, most: usize) -> Result<Vec<QuarantineEntry>, Error> {
    let log = row.id;
    if row.quarantine_bytes == 0 {
        return Ok(Vec::new());
    }
    let heads = tables::existing(tx, QUARANTINE_HEADS)?;
    let pieces = tx.open_table(QUARANTINE).map_err(failed)?;
    let (mut found, mut before) = (Vec::new(), before);
    if let Some(heads) = &heads
        && let Some((_, head)) = covering(heads, log, before)?
    {
        // The other pieces of that one are before its number, too.
        before = head.first;
    }
    while found.len() < most {
        let head = match &heads {
            Some(heads) => {
                heads.range((log, 0)..(log, before)).map_err(failed)?.next_back().transpose().map_err(failed)?
            }
            None => None,
        };
        let last = head.as_ref().map_or(0, |(key, _)| key.value().1);
        // Above the newest head may be pieces that have none. A look at one reads all of it, so it is spared where it
        // can be.
        let piece = if last + 1 == before {
            None
        } else {
            pieces.range((log, last + 1)..(log, before)).map_err(failed)?.next_back().transpose().map_err(failed)?
        };
        let (id, head) = match (piece, head) {
            (Some((key, value)), _) => (key.value().1, alone(log, key.value().1, value.value())?.0),
            (None, Some((_, value))) => (last, decode_quarantine_head(log, last, value.value())?),
            (None, None) => break,
        };
        before = head.first;
        found.push(entry(id, head));
    }
    Ok(found)
}

/// A response by its number, and its body in pieces.
pub(super) fn whole(tx: &ReadTransaction, log: u32, id: u64) -> Result<Option<(QuarantineEntry, Vec<Bytes>)>, Error> {
    let pieces = tx.open_table(QUARANTINE).map_err(failed)?;
    let head = match tables::existing(tx, QUARANTINE_HEADS)? {
        Some(heads) => covering(&heads, log, id)?,
        None => None,
    };
    let Some((last, head)) = head else {
        let Some(value) = pieces.get((log, id)).map_err(failed)? else { return Ok(None) };
        let (head, body) = alone(log, id, value.value())?;
        return Ok(Some((entry(id, head), vec![body])));
    };
    if last != id {
        return Ok(None);
    }
    let mut bodies = Vec::new();
    for entry in pieces.range((log, head.first)..=(log, id)).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        bodies.push(decode_quarantined(log, key.value().1, value.value())?.body);
    }
    if bodies.iter().map(|body| body.len() as u64).sum::<u64>() != head.bytes {
        return Err(Error::Damaged(format!("pieces of the quarantined response {id} are missing")));
    }
    Ok(Some((entry(id, head), bodies)))
}

/// What is said of the response that has a piece of this number, and the number of its last.
fn covering(
    heads: &ReadOnlyTable<(u32, u64), &'static [u8]>,
    log: u32,
    number: u64,
) -> Result<Option<(u64, QuarantineHead)>, Error> {
    let next = heads.range((log, number)..=(log, u64::MAX)).map_err(failed)?.next().transpose().map_err(failed)?;
    let Some((key, value)) = next else { return Ok(None) };
    let last = key.value().1;
    Ok(Some((last, decode_quarantine_head(log, last, value.value())?)).filter(|(_, head)| head.first <= number))
}

/// Removes responses by age, and the oldest when there are too many: a vendor that answers garbage for days must not
/// fill the disk, which would stop reading. Says whether more is to go.
pub(super) fn trim(tx: &WriteTransaction, row: &mut Row, limits: Limits) -> Result<bool, Error> {
    let mut removed = 0;
    while row.quarantine_bytes > 0 && removed < STEP {
        let Some((first, last, received)) = oldest(tx, row.id)? else {
            row.quarantine_bytes = 0;
            break;
        };
        forget_heads(tx, row.id, first)?;
        // One that cannot be read helps nobody.
        if received.is_some_and(|at| at >= limits.older_than) && row.quarantine_bytes <= limits.keep_quarantined {
            return Ok(false);
        }
        let mut pieces = tx.open_table(QUARANTINE).map_err(failed)?;
        for number in first..=last {
            if let Some(value) = pieces.remove((row.id, number)).map_err(failed)? {
                row.quarantine_bytes = row.quarantine_bytes.saturating_sub(room(value.value().len()));
            }
            removed += 1;
        }
        tx.open_table(QUARANTINE_HEADS).map_err(failed)?.remove((row.id, last)).map_err(failed)?;
    }
    Ok(removed >= STEP)
}

/// Removes the heads of responses whose pieces are gone: a version that knows no heads leaves them.
fn forget_heads(tx: &WriteTransaction, log: u32, before: u64) -> Result<(), Error> {
    let mut heads = tx.open_table(QUARANTINE_HEADS).map_err(failed)?;
    heads.retain_in((log, 0)..(log, before), |_, _| false).map_err(failed)
}

/// The numbers of the oldest response's pieces, and when it came, if that can be read.
fn oldest(tx: &WriteTransaction, log: u32) -> Result<Option<(u64, u64, Option<u64>)>, Error> {
    let pieces = tx.open_table(QUARANTINE).map_err(failed)?;
    let heads = tx.open_table(QUARANTINE_HEADS).map_err(failed)?;
    let Some((key, piece)) =
        pieces.range((log, 0)..=(log, u64::MAX)).map_err(failed)?.next().transpose().map_err(failed)?
    else {
        return Ok(None);
    };
    let first = key.value().1;
    let head = heads.range((log, first)..=(log, u64::MAX)).map_err(failed)?.next().transpose().map_err(failed)?;
    if let Some((key, value)) = head {
        let last = key.value().1;
        match decode_quarantine_head(log, last, value.value()) {
            Ok(head) if head.first <= first => return Ok(Some((first, last, Some(head.received_at.0)))),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "what is said of a quarantined response cannot be read"),
        }
    }
    let received = alone(log, first, piece.value()).ok().map(|(head, _)| head.received_at.0);
    Ok(Some((first, first, received)))
}
