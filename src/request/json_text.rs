//! Entries in the native form of one answer (JSON): each with its cursor, where and when it came, and the vendor's
//! spellings evened out; possible losses as entries of their own.
//!
//! Invariants: `event` is the vendor's text, byte for byte. What one reader alone is told of an entry stands right
//! behind its cursor, so that the text of a batch, which all its readers share, is the same but for that.

use std::fmt::Display;
use std::io::Write as _;

use serde::Serialize;

use crate::events::{Cursor, EntryContent};
use crate::kernel::names::Stream;
use crate::request::batch_text::BatchText;
use crate::store::Batch;
use crate::vendor::events::facts;

/// What an entry says of itself beside what the log has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Labels {
    pub(crate) stream: Option<Stream>,
    pub(crate) attempt: Option<u32>,
}

/// What all entries of a batch say alike.
pub(crate) struct EntryOrigin(String);

impl EntryOrigin {
    pub(crate) fn of(batch: &Batch) -> Self {
        // Times and names need no escaping.
        Self(format!(r#""received_at":"{}","region":"{}","type":"#, batch.received_at, batch.region))
    }
}

/// The text of a batch, as all readers of it share it: entries without labels, each with a comma after it.
pub(crate) fn of_batch(batch: &Batch, epoch: u64) -> BatchText {
    let origin = EntryOrigin::of(batch);
    BatchText::of(batch, |out, index| {
        let cursor = Cursor { epoch, at: batch.first.plus(index as u64) };
        push(out, &cursor, Labels::default(), (&origin, batch), index);
        out.push(b',');
    })
}

/// Writes an entry.
pub(crate) fn push(
    out: &mut Vec<u8>,
    cursor: &impl Display,
    labels: Labels,
    (origin, batch): (&EntryOrigin, &Batch),
    index: usize,
) {
    // Cursors need no escaping, and writing to a vector cannot fail.
    let _ = write!(out, r#"{{"cursor":"{cursor}","#);
    push_labels(out, labels);
    out.extend_from_slice(origin.0.as_bytes());
    match EntryContent::of(batch, index) {
        EntryContent::Event(text) => {
            let facts = facts(&text);
            push_json(out, &facts.kind);
            out.extend_from_slice(br#","user_id":"#);
            push_json(out, &facts.user_id);
            out.extend_from_slice(br#","group_id":"#);
            push_json(out, &facts.group_id);
            out.extend_from_slice(br#","ms":"#);
            push_json(out, &facts.ms);
            out.extend_from_slice(br#","event":"#);
            out.extend_from_slice(&text);
        }
        EntryContent::PossibleLoss(record) => {
            out.extend_from_slice(br#""possible_loss","#);
            // Its members, without the braces around them.
            let members = serde_json::to_string(&record).unwrap_or_default();
            out.extend_from_slice(members.trim_matches(['{', '}']).as_bytes());
        }
    }
    out.push(b'}');
}

/// Writes an entry of a batch's text, which has a comma after it, with labels of its own.
pub(crate) fn push_labelled(out: &mut Vec<u8>, entry: &[u8], labels: Labels) {
    let (cursor, rest) = entry.split_at(BEFORE_LABELS.min(entry.len()));
    out.extend_from_slice(cursor);
    push_labels(out, labels);
    out.extend_from_slice(rest);
}

fn push_labels(out: &mut Vec<u8>, Labels { stream, attempt }: Labels) {
    if let Some(stream) = stream {
        let _ = write!(out, r#""stream":"{stream}","#);
    }
    if let Some(attempt) = attempt {
        let _ = write!(out, r#""attempt":{attempt},"#);
    }
}

/// Writes a value of ours.
pub(crate) fn push_json(out: &mut Vec<u8>, value: &impl Serialize) {
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

/// `{"cursor":"…",` with a cursor of one stream.
const BEFORE_LABELS: usize = br#"{"cursor":"","#.len() + Cursor::LENGTH;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::clock::UnixMillis;
    use crate::kernel::names::RegionName;
    use crate::store::{Content, EventText, Sequence};

    #[test]
    fn a_batch_s_text_with_labels_is_what_each_entry_would_be_by_itself() {
        let texts = [r#"{"type":"Login","user_id":"a\"b","ts":"7"}"#, r#"{"channel_id":9}"#, "{}"];
        let content = Content::Events(EventText::join(texts.iter().map(|text| text.as_bytes())).unwrap());
        let region = RegionName::parse("cn").unwrap();
        let batch = Batch { first: Sequence(7), received_at: UnixMillis(0), region, content };
        let (shared, origin) = (of_batch(&batch, 3), EntryOrigin::of(&batch));
        for attempt in [None, Some(1), Some(1000)] {
            let labels = Labels { stream: None, attempt };
            for index in 0..texts.len() {
                let (mut by_itself, mut of_shared) = (Vec::new(), Vec::new());
                let cursor = Cursor { epoch: 3, at: Sequence(7 + index as u64) };
                push(&mut by_itself, &cursor, labels, (&origin, &batch), index);
                by_itself.push(b',');
                push_labelled(&mut of_shared, shared.entry(index), labels);
                assert_eq!(String::from_utf8(of_shared).unwrap(), String::from_utf8(by_itself).unwrap());
            }
        }
        let first: serde_json::Value = serde_json::from_slice(shared.entry(0).strip_suffix(b",").unwrap()).unwrap();
        assert_eq!((&first["user_id"], &first["ms"], &first["group_id"]), (&"a\"b".into(), &7.into(), &().into()));
        assert_eq!(first["event"], serde_json::from_str::<serde_json::Value>(texts[0]).unwrap());
    }
}
