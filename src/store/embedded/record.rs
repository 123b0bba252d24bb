//! How values are written: every value in every table carries a version and a checksum.
//!
//! Invariants: a value decodes only under the key it was written for, unchanged, in a version this code knows;
//! anything else is an [`Error::Damaged`], never a panic and never a wrong value. Integers are little-endian.
//!
//! ```text
//! value      = version u8 (1) | crc32 u32 of (tag u8, key, body) | body
//! tag, key     B: log u32, last u64    L: "app/stream"    C: log u32, name    Q, H: log u32, number u64    M: name
//!              N: log u32, kind u8, name
//! body B       first u64 | received u64 | high u64 | region str8 | 0 | count u32 | count x end u32 | text
//!            | first u64 | received u64 | high u64 | region str8 | 1 | reason
//!            | first u64 | received u64 | high u64 | region str8 | 2 | entries u64
//! body L       log u32 | earliest u64 | next u64 | bytes u64 | high u64 | quarantine next u64 | quarantine bytes u64
//! body C, M    u64
//! body N       bytes, as its keeper wrote them
//! body Q       received u64 | region str8 | why length u32 | why | response body, or a piece of it
//! body H       received u64 | region str8 | first piece u64 | bytes u64 | delivered u64 | why
//! str8         length u8 | UTF-8
//! ```
//!
//! `received` is the gateway's wall clock, which can go back; `high` is the greatest `received` of the log so far,
//! which cannot, so where to look for the first batch received at or after a time is found by bisection.

use std::sync::Arc;

use bytes::Bytes;

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Batch, Content, Error, EventText, Sequence, UnreadableResponse};

const VERSION: u8 = 1;
const HEAD: usize = 5;

/// The key a value stands under, as its checksum takes it in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key<'a> {
    /// A batch: its log and the number of its last entry.
    Batch(u32, u64),
    /// A log's row, by `app/stream`.
    Log(&'a str),
    Cursor(u32, &'a str),
    /// A piece of a quarantined response.
    Quarantine(u32, u64),
    /// What is said of a quarantined response: its log and the number of its last piece.
    QuarantineHead(u32, u64),
    /// A note: its log, kind and name.
    Note(u32, u8, &'a str),
    /// One of the store's own facts.
    Meta(&'a str),
}

/// What is kept about a log beside its batches. Do not reorder or retype: it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The log's short name in keys.
    pub(super) id: u32,
    /// The number of the oldest entry kept; `next` when none is.
    pub(super) earliest: u64,
    /// The number the next entry will get.
    pub(super) next: u64,
    /// Room that the batches take, about.
    pub(super) bytes: u64,
    /// The greatest time a batch was received at.
    pub(super) high: u64,
    /// The number the next quarantined response will get.
    pub(super) quarantine_next: u64,
    /// Room that the quarantined responses take, about.
    pub(super) quarantine_bytes: u64,
}

impl Row {
    /// A log without entries.
    pub(super) fn empty(id: u32) -> Self {
        Self { id, earliest: 1, next: 1, bytes: 0, high: 0, quarantine_next: 1, quarantine_bytes: 0 }
    }
}

/// What is said of a quarantined response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QuarantineHead {
    /// The number of its first piece.
    pub(super) first: u64,
    pub(super) received_at: UnixMillis,
    pub(super) region: RegionName,
    pub(super) why: String,
    /// Bytes of its body.
    pub(super) bytes: u64,
    /// How many of its events are in the log.
    pub(super) delivered: u64,
}

/// A batch's value without its content: enough to find and to trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHead {
    pub(super) first: u64,
    pub(super) received: u64,
    pub(super) high: u64,
}

pub(super) fn encode_batch(key: Key<'_>, batch: &Batch, high: u64) -> Vec<u8> {
    let mut value = begin();
    for number in [batch.first.0, batch.received_at.0, high] {
        value.extend_from_slice(&number.to_le_bytes());
    }
    put_region(&mut value, &batch.region);
    match &batch.content {
        Content::Events(events) => {
            value.push(0);
            put_length(&mut value, events.len());
            value.reserve(events.len() * 4 + events.text().len());
            for end in events.ends() {
                value.extend_from_slice(&end.to_le_bytes());
            }
            value.extend_from_slice(events.text());
        }
        Content::PossibleLoss(reason) => {
            value.push(1);
            value.extend_from_slice(reason.as_bytes());
        }
        Content::Damaged(entries) => {
            value.push(2);
            value.extend_from_slice(&entries.to_le_bytes());
        }
    }
    seal(key, value)
}

pub(super) fn decode_batch(log: u32, last: u64, value: &[u8]) -> Result<Batch, Error> {
    let key = Key::Batch(log, last);
    let batch = batch(open(key, value)?).ok_or_else(|| damaged(key, "its parts do not fit"))?;
    let length = batch.content.len() as u64;
    let fits = batch.first.0 >= 1 && batch.first.0.checked_add(length - 1) == Some(last);
    if fits { Ok(batch) } else { Err(damaged(key, "its length does not fit its place")) }
}

fn batch(mut body: Fields<'_>) -> Option<Batch> {
    let first = Sequence(body.u64()?);
    let received_at = UnixMillis(body.u64()?);
    let _high = body.u64()?;
    let region = body.region()?;
    let content = match body.u8()? {
        0 => {
            let count = body.u32()? as usize;
            let ends: Arc<[u32]> =
                body.take(count.checked_mul(4)?)?.as_chunks().0.iter().map(|end| u32::from_le_bytes(*end)).collect();
            Content::Events(EventText::from_parts(Bytes::copy_from_slice(body.0), ends)?)
        }
        1 => Content::PossibleLoss(str::from_utf8(body.0).ok()?.to_owned()),
        2 => Content::Damaged(body.u64().filter(|entries| *entries > 0 && body.0.is_empty())?),
        _ => return None,
    };
    Some(Batch { first, received_at, region, content })
}

pub(super) fn decode_batch_head(log: u32, last: u64, value: &[u8]) -> Result<BatchHead, Error> {
    let key = Key::Batch(log, last);
    let mut body = open(key, value)?;
    let mut head = || Some(BatchHead { first: body.u64()?, received: body.u64()?, high: body.u64()? });
    head().filter(|head| head.first >= 1 && head.first <= last).ok_or_else(|| damaged(key, "its head does not fit"))
}

pub(super) fn encode_row(key: Key<'_>, row: &Row) -> Vec<u8> {
    let mut value = begin();
    value.extend_from_slice(&row.id.to_le_bytes());
    for number in [row.earliest, row.next, row.bytes, row.high, row.quarantine_next, row.quarantine_bytes] {
        value.extend_from_slice(&number.to_le_bytes());
    }
    seal(key, value)
}

pub(super) fn decode_row(key: Key<'_>, value: &[u8]) -> Result<Row, Error> {
    let mut body = open(key, value)?;
    let mut row = || {
        Some(Row {
            id: body.u32()?,
            earliest: body.u64()?,
            next: body.u64()?,
            bytes: body.u64()?,
            high: body.u64()?,
            quarantine_next: body.u64()?,
            quarantine_bytes: body.u64()?,
        })
    };
    let row = row().filter(|row| 1 <= row.earliest && row.earliest <= row.next);
    row.filter(|_| body.0.is_empty()).ok_or_else(|| damaged(key, "it is impossible"))
}

pub(super) fn encode_number(key: Key<'_>, number: u64) -> Vec<u8> {
    let mut value = begin();
    value.extend_from_slice(&number.to_le_bytes());
    seal(key, value)
}

pub(super) fn decode_number(key: Key<'_>, value: &[u8]) -> Result<u64, Error> {
    let mut body = open(key, value)?;
    body.u64().filter(|_| body.0.is_empty()).ok_or_else(|| damaged(key, "it is not one number"))
}

pub(super) fn encode_note(key: Key<'_>, note: &[u8]) -> Vec<u8> {
    let mut value = begin();
    value.extend_from_slice(note);
    seal(key, value)
}

pub(super) fn decode_note(key: Key<'_>, value: &[u8]) -> Result<Bytes, Error> {
    Ok(Bytes::copy_from_slice(open(key, value)?.0))
}

pub(super) fn encode_quarantined(key: Key<'_>, response: &UnreadableResponse) -> Vec<u8> {
    let mut value = begin();
    value.extend_from_slice(&response.received_at.0.to_le_bytes());
    put_region(&mut value, &response.region);
    put_length(&mut value, response.why.len());
    value.extend_from_slice(response.why.as_bytes());
    value.extend_from_slice(&response.body);
    seal(key, value)
}

pub(super) fn decode_quarantined(log: u32, number: u64, value: &[u8]) -> Result<UnreadableResponse, Error> {
    let key = Key::Quarantine(log, number);
    let mut body = open(key, value)?;
    let mut response = || {
        let received_at = UnixMillis(body.u64()?);
        let region = body.region()?;
        let length = body.u32()? as usize;
        let why = str::from_utf8(body.take(length)?).ok()?.to_owned();
        Some(UnreadableResponse { received_at, region, why, body: Bytes::copy_from_slice(body.0) })
    };
    response().ok_or_else(|| damaged(key, "its parts do not fit"))
}

pub(super) fn encode_quarantine_head(log: u32, last: u64, head: &QuarantineHead) -> Vec<u8> {
    let mut value = begin();
    value.extend_from_slice(&head.received_at.0.to_le_bytes());
    put_region(&mut value, &head.region);
    for number in [head.first, head.bytes, head.delivered] {
        value.extend_from_slice(&number.to_le_bytes());
    }
    value.extend_from_slice(head.why.as_bytes());
    seal(Key::QuarantineHead(log, last), value)
}

pub(super) fn decode_quarantine_head(log: u32, last: u64, value: &[u8]) -> Result<QuarantineHead, Error> {
    let key = Key::QuarantineHead(log, last);
    let mut body = open(key, value)?;
    let mut head = || {
        let (received_at, region) = (UnixMillis(body.u64()?), body.region()?);
        let (first, bytes, delivered) = (body.u64()?, body.u64()?, body.u64()?);
        let why = str::from_utf8(body.0).ok()?.to_owned();
        Some(QuarantineHead { first, received_at, region, why, bytes, delivered })
    };
    head().filter(|head| head.first <= last).ok_or_else(|| damaged(key, "its parts do not fit"))
}

/// The room a value takes in the file, about: the engine gives large values whole powers of two of its pages, and
/// small ones share a page that is two thirds full on average.
pub(super) fn room(value: usize) -> u64 {
    let value = value as u64 + 32;
    if value > 4096 / 2 { value.next_power_of_two().max(4096) } else { value + value / 2 }
}

pub(super) fn begin() -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    value.push(VERSION);
    value.extend_from_slice(&[0; HEAD - 1]);
    value
}

pub(super) fn seal(key: Key<'_>, mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(key, &value[HEAD..]);
    value[1..HEAD].copy_from_slice(&sum.to_le_bytes());
    value
}

fn open<'a>(key: Key<'_>, value: &'a [u8]) -> Result<Fields<'a>, Error> {
    let mut fields = Fields(value);
    let (Some(version), Some(sum)) = (fields.u8(), fields.u32()) else {
        return Err(damaged(key, "it is too short"));
    };
    if version != VERSION {
        return Err(damaged(key, "its version is unknown"));
    }
    if sum != checksum(key, fields.0) {
        return Err(damaged(key, "its checksum differs"));
    }
    Ok(fields)
}

fn checksum(key: Key<'_>, body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    match key {
        Key::Batch(log, number) | Key::Quarantine(log, number) | Key::QuarantineHead(log, number) => {
            sum.update(match key {
                Key::Batch(..) => b"B",
                Key::Quarantine(..) => b"Q",
                _ => b"H",
            });
            sum.update(&log.to_le_bytes());
            sum.update(&number.to_le_bytes());
        }
        Key::Log(name) => {
            sum.update(b"L");
            sum.update(name.as_bytes());
        }
        Key::Cursor(log, name) => {
            sum.update(b"C");
            sum.update(&log.to_le_bytes());
            sum.update(name.as_bytes());
        }
        Key::Note(log, kind, name) => {
            sum.update(b"N");
            sum.update(&log.to_le_bytes());
            sum.update(&[kind]);
            sum.update(name.as_bytes());
        }
        Key::Meta(name) => {
            sum.update(b"M");
            sum.update(name.as_bytes());
        }
    }
    sum.update(body);
    sum.finalize()
}

fn damaged(key: Key<'_>, what: &str) -> Error {
    Error::Damaged(format!("{key:?}: {what}"))
}

fn put_region(value: &mut Vec<u8>, region: &RegionName) {
    let text = region.as_str();
    // A region's name is at most 64 bytes long, by its own rule.
    value.push(text.len() as u8);
    value.extend_from_slice(text.as_bytes());
}

fn put_length(value: &mut Vec<u8>, length: usize) {
    value.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

/// What is left of a body while its fields are taken off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn region(&mut self) -> Option<RegionName> {
        let length = usize::from(self.u8()?);
        RegionName::parse(str::from_utf8(self.take(length)?).ok()?).ok()
    }
}
