//! Values as they stand in the store's file: read as they were written, or known to be damaged.
//!
//! Input: raw bytes as a value and as the body of one; also, as what [`arbitrary`] makes values and their wounds of.

use std::ops::ControlFlow;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use rtm_gateway::kernel::clock::UnixMillis;
use rtm_gateway::kernel::names::RegionName;
use rtm_gateway::store::embedded::fuzzing::*;
use rtm_gateway::store::{Batch, Content, EventText, Sequence, UnreadableResponse};

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let place = data.first_chunk::<4>().map_or(7, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    // Not sealed: a checksum of 32 bits is not hit by chance, but found by a fuzzer that sees it compared.
    what_decodes_is_canonical(1, place, data);
    what_decodes_is_canonical(1, place, &seal_batch(1, place, data.get(4..).unwrap_or_default()));
    if let Ok(again) = recode_row("a1/user_events", data) {
        assert_eq!(again, data);
    }
    if let Ok(at) = decode_cursor(1, "s", data) {
        assert_eq!(encode_cursor(1, "s", at), data);
    }
    if let Ok(response) = decode_quarantined(1, place, data) {
        assert_eq!(encode_quarantined(1, place, &response), data);
    }
    // Too few bytes for a value are no finding.
    let _ = written_values(&mut Unstructured::new(data));
}

fn what_decodes_is_canonical(log: u32, last: u64, value: &[u8]) {
    let Ok(batch) = decode_batch(log, last, value) else { return };
    let [first, received, high] = decode_batch_head(log, last, value).expect("a batch that cannot be found again");
    assert_eq!((batch.first.0, batch.received_at.0), (first, received));
    assert!(batch.content.len() >= 1 && batch.last().0 == last && last - first == batch.content.len() as u64 - 1);
    if let Content::Events(events) = &batch.content {
        assert!(events.iter().all(|event| !event.is_empty()), "an empty event");
    }
    assert_eq!(encode_batch(log, &batch, high), value, "two values for one batch");
}

fn written_values(u: &mut Unstructured<'_>) -> Result<()> {
    let (log, high, wound) = (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
    let batch = batch(u)?;
    let last = batch.last().0;
    let value = encode_batch(log, &batch, high);
    assert_eq!(decode_batch(log, last, &value).ok().as_ref(), Some(&batch));
    assert_eq!(decode_batch_head(log, last, &value).ok(), Some([batch.first.0, batch.received_at.0, high]));
    a_wound_is_seen(&value, wound, |value| decode_batch(log, last, value).is_err());
    assert!(decode_batch(log ^ 1 << (wound % 32), last, &value).is_err(), "another log's");
    assert!(decode_batch(log, last ^ 1 << (wound % 64), &value).is_err(), "another place's");
    assert!(decode_quarantined(log, last, &value).is_err(), "another table's");

    let (name, at) = (name(u)?, u.arbitrary()?);
    let cursor = encode_cursor(log, &name, at);
    assert_eq!(decode_cursor(log, &name, &cursor).ok(), Some(at));
    a_wound_is_seen(&cursor, wound, |value| decode_cursor(log, &name, value).is_err());
    let row = encode_new_row(&name, log);
    assert_eq!(recode_row(&name, &row).ok().as_ref(), Some(&row));
    a_wound_is_seen(&row, wound, |value| recode_row(&name, value).is_err());

    let (received_at, region, why) = (UnixMillis(u.arbitrary()?), region(u)?, u.arbitrary()?);
    let body = Bytes::copy_from_slice(u.peek_bytes(u.len().min(64)).unwrap_or_default());
    let response = UnreadableResponse { received_at, region, why, body };
    let value = encode_quarantined(log, at, &response);
    assert_eq!(decode_quarantined(log, at, &value).ok().as_ref(), Some(&response));
    a_wound_is_seen(&value, wound, |value| decode_quarantined(log, at, value).is_err());
    Ok(())
}

/// One bit turned, or the end torn off.
fn a_wound_is_seen(value: &[u8], wound: usize, is_refused: impl Fn(&[u8]) -> bool) {
    let mut turned = value.to_vec();
    turned[wound / 8 % value.len()] ^= 1 << (wound % 8);
    assert!(is_refused(&turned), "bit {} of byte {}", wound % 8, wound / 8 % value.len());
    assert!(is_refused(&value[..wound % value.len()]), "torn at {}", wound % value.len());
}

fn batch(u: &mut Unstructured<'_>) -> Result<Batch> {
    let content = if u.ratio(1, 4)? {
        Content::PossibleLoss(u.arbitrary()?)
    } else {
        let mut events: Vec<&[u8]> = Vec::new();
        u.arbitrary_loop(Some(1), Some(8), |u| {
            let event: &[u8] = u.arbitrary()?;
            events.push(if event.is_empty() { b"{}" } else { event });
            Ok(ControlFlow::Continue(()))
        })?;
        Content::Events(EventText::join(events).ok_or(arbitrary::Error::NotEnoughData)?)
    };
    let first = Sequence(u.int_in_range(1..=u64::MAX - 8)?);
    Ok(Batch { first, received_at: UnixMillis(u.arbitrary()?), region: region(u)?, content })
}

fn region(u: &mut Unstructured<'_>) -> Result<RegionName> {
    RegionName::parse(&name(u)?).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn name(u: &mut Unstructured<'_>) -> Result<String> {
    let length = u.int_in_range(1..=64)?;
    let letter = |u: &mut Unstructured<'_>| u.choose(b"abcxyzAZ019_-").map(|&b| char::from(b));
    (0..length).map(|_| letter(u)).collect()
}
