//! The pieces that a stream of events consists of: text of what was read, and what is to be told when it has arrived.
//!
//! Invariants: a piece ends where a read does, or before, so one read has one flush by which it is known. The text of a
//! batch that many read is shared; what is one reader's own is made for it, a part at a time.

use bytes::Bytes;

use crate::events::{Cursor, Delivery, Leased, MergedReader, MergedRun};
use crate::http::body::Piece;
use crate::kernel::names::{Stream, Streams};
use crate::request::batch_text::{TextCache, is_shared};
use crate::request::sse_text::{self, Extra};
use crate::store::Content;

/// What a stream begins with: how many milliseconds a reader waits before it comes again.
pub(super) const BEGINNING: &[u8] = b"retry: 2000\n";
/// A comment. Neither has an empty line after it: there are readers that take each of those for an event.
pub(super) const BEAT: Bytes = Bytes::from_static(b":\n");

/// Bytes of events that a stream holds of what it has read, at most (one event at least): a thousand of 180 bytes. So
/// much a reader that does not take them costs, beside what the system holds for it; all who keep up share theirs.
pub(super) const MAX_HELD: usize = 176 << 10;
/// Bytes of a piece that is made for one reader: more begin another piece.
const MAX_PIECE: usize = 32 << 10;
/// A shared text is a piece of its own from this size; smaller ones are copied together.
const MIN_SHARED: usize = 1024;

/// A piece of what was read and is settled when it was handed over.
pub(super) fn of_runs(reader: &mut MergedReader, cache: &TextCache) -> Option<Piece> {
    let mut made = Vec::new();
    while made.len() < MAX_PIECE {
        let Some(run) = reader.peek() else { break };
        // In a stream of both, an event's id tells of both places: nobody else's text has the same.
        let is_shared = reader.streams() != Streams::All && is_shared(&run.batch, reader.lag());
        let max = match &run.batch.content {
            Content::Events(events) if !is_shared => events.fit(run.entries.start, MAX_PIECE),
            _ => usize::MAX,
        };
        let Some(given) = reader.give(max) else { break };
        // A marker of what retention took is nobody else's.
        if is_shared && given.lost == 0 {
            let epoch = given.before.of(given.stream).epoch;
            let shared = cache.of(&given.run.batch, epoch).slice(given.run.entries.clone());
            if made.is_empty() && shared.len() >= MIN_SHARED {
                return Some(ended_by(reader, &given, shared));
            }
            made.extend_from_slice(&shared);
        } else {
            push(&mut made, reader.streams(), &given);
        }
        if given.is_last {
            return Some(ended_by(reader, &given, made.into()));
        }
    }
    (!made.is_empty()).then(|| Bytes::from(made).into())
}

/// A piece of what was leased.
pub(super) fn of_lease(delivery: Delivery, leased: &Leased) -> Piece {
    let Delivery { runs, next, lost, receipt, .. } = delivery;
    let mut bytes = Vec::new();
    let entries = runs.iter().flat_map(|run| run.entries.clone().map(move |index| (&run.batch, index)));
    for (number, ((batch, index), attempt)) in entries.zip(&leased.attempts).enumerate() {
        let id = Cursor { at: batch.first.plus(index as u64), ..next };
        if number == 0 && lost > 0 {
            push_reset(&mut bytes, &id.to_string(), Some(lost), &[]);
        } else {
            sse_text::push(&mut bytes, batch, index, &id, &[("lease", &leased.name), ("attempt", attempt)]);
        }
    }
    Piece { bytes: bytes.into(), ending: Some(Box::new(receipt)) }
}

/// A piece that tells where reading goes on, since so many entries before are gone.
pub(super) fn reset(reader: &MergedReader, stream: Stream, lost: Option<u64>) -> Piece {
    let mut bytes = Vec::new();
    let (streams, earliest) = (reader.streams(), reader.cursor());
    push_reset(&mut bytes, &earliest.text(streams), lost, &extra(streams, &stream));
    Bytes::from(bytes).into()
}

/// The piece that a run ends. Without a subscription there is nothing to be told of its flush.
fn ended_by(reader: &MergedReader, given: &MergedRun, bytes: Bytes) -> Piece {
    let session = reader.session().filter(|_| given.is_last);
    Piece { bytes, ending: session.map(|session| session.written(given.stream)) }
}

fn push(out: &mut Vec<u8>, streams: Streams, given: &MergedRun) {
    let (stream, batch) = (given.stream, &given.run.batch);
    let mut cursor = given.before;
    for index in given.run.entries.clone() {
        cursor.give(stream, Cursor { epoch: cursor.of(stream).epoch, at: batch.first.plus(index as u64) });
        let (id, extra) = (cursor.text(streams), extra(streams, &stream));
        if given.lost > 0 {
            push_reset(out, &id, Some(given.lost), &extra);
        } else {
            sse_text::push(out, batch, index, &id, &extra);
        }
    }
}

fn push_reset(out: &mut Vec<u8>, earliest: &str, lost: Option<u64>, extra: &[Extra<'_>]) {
    let data = serde_json::json!({ "earliest": earliest, "lost": lost });
    sse_text::push_ours(out, &earliest, "reset", &data, extra);
}

/// The fields that an event of this stream has more.
fn extra<'a>(streams: Streams, stream: &'a Stream) -> Vec<Extra<'a>> {
    match streams {
        Streams::All => vec![("stream", stream)],
        Streams::One(_) => Vec::new(),
    }
}
