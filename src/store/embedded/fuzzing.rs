//! Doors for the fuzz targets (`fuzz/`) and the corpus test: values as they stand in the file.
//!
//! Invariant: only what the engine itself calls is called here; nothing is decided.

use super::record::{self, Key};
use crate::store::{Batch, Error, UnreadableResponse};

/// A batch's value under its key, which is the log and the number of its last entry.
#[must_use]
pub fn encode_batch(log: u32, batch: &Batch, high: u64) -> Vec<u8> {
    record::encode_batch(Key::Batch(log, batch.last().0), batch, high)
}

/// The batch of a value.
///
/// # Errors
/// When the value is not what was written under this key.
pub fn decode_batch(log: u32, last: u64, value: &[u8]) -> Result<Batch, Error> {
    record::decode_batch(log, last, value)
}

/// The first entry, the time of receipt and the greatest such time of a batch's value.
///
/// # Errors
/// When the value is not what was written under this key.
pub fn decode_batch_head(log: u32, last: u64, value: &[u8]) -> Result<[u64; 3], Error> {
    record::decode_batch_head(log, last, value).map(|head| [head.first, head.received, head.high])
}

/// A log's row, read and written again.
///
/// # Errors
/// When the value is not what was written under this key.
pub fn recode_row(name: &str, value: &[u8]) -> Result<Vec<u8>, Error> {
    record::decode_row(Key::Log(name), value).map(|row| record::encode_row(Key::Log(name), &row))
}

/// A new log's row.
#[must_use]
pub fn encode_new_row(name: &str, id: u32) -> Vec<u8> {
    record::encode_row(Key::Log(name), &record::Row::empty(id))
}

/// A cursor's value.
#[must_use]
pub fn encode_cursor(log: u32, name: &str, at: u64) -> Vec<u8> {
    record::encode_number(Key::Cursor(log, name), at)
}

/// The cursor of a value.
///
/// # Errors
/// When the value is not what was written under this key.
pub fn decode_cursor(log: u32, name: &str, value: &[u8]) -> Result<u64, Error> {
    record::decode_number(Key::Cursor(log, name), value)
}

/// A quarantined response's value.
#[must_use]
pub fn encode_quarantined(log: u32, number: u64, response: &UnreadableResponse) -> Vec<u8> {
    record::encode_quarantined(Key::Quarantine(log, number), response)
}

/// The quarantined response of a value.
///
/// # Errors
/// When the value is not what was written under this key.
pub fn decode_quarantined(log: u32, number: u64, value: &[u8]) -> Result<UnreadableResponse, Error> {
    record::decode_quarantined(log, number, value)
}

/// A value of this body under a batch's key, its version and checksum right: what only a fault of this code, or a
/// forger, would have written.
#[must_use]
pub fn seal_batch(log: u32, last: u64, body: &[u8]) -> Vec<u8> {
    let mut value = record::begin();
    value.extend_from_slice(body);
    record::seal(Key::Batch(log, last), value)
}
