//! Entries as Server-Sent Events (WHATWG HTML, 9.2).
//!
//! Invariants: of an event, `id` is its place, `event` its type on one line, and `data` the vendor's text, line by
//! line: put together again it is the vendor's own JSON (a line break between tokens becomes a line feed). What a
//! parser must not see as a field of its own is not written: no value holds a line break.

use std::fmt::Display;
use std::io::Write as _;

use crate::events::{Cursor, EntryContent, shown};
use crate::request::batch_text::BatchText;
use crate::store::Batch;
use crate::vendor::events::facts;

/// The text of a batch, as all streams of it share it.
pub(crate) fn of_batch(batch: &Batch, epoch: u64) -> BatchText {
    BatchText::of(batch, |out, index| {
        push(out, batch, index, &Cursor { epoch, at: batch.first.plus(index as u64) }, &[]);
    })
}

/// Fields that an event of ours has more than others' have: parsers pass over those they do not know.
pub(crate) type Extra<'a> = (&'static str, &'a dyn Display);

/// Writes an entry.
pub(crate) fn push(out: &mut Vec<u8>, batch: &Batch, index: usize, id: &dyn Display, extra: &[Extra<'_>]) {
    match EntryContent::of(batch, index) {
        EntryContent::Event(text) => push_event(out, &text, id, extra),
        EntryContent::PossibleLoss(record) => {
            // A batch has one text for all who read it, so what is shown of it is not a matter of how it was read.
            if shown(&batch.content, 0..batch.content.len()).contains(&index) {
                push_ours(out, id, "possible_loss", &serde_json::json!(record), extra);
            }
        }
    }
}

/// Writes an event of our own.
pub(crate) fn push_ours(
    out: &mut Vec<u8>,
    id: &dyn Display,
    kind: &str,
    data: &serde_json::Value,
    extra: &[Extra<'_>],
) {
    push_head(out, id, kind, extra);
    let _ = write!(out, "data: {data}\n\n");
}

fn push_event(out: &mut Vec<u8>, text: &[u8], id: &dyn Display, extra: &[Extra<'_>]) {
    let facts = facts(text);
    push_head(out, id, facts.kind.as_deref().unwrap_or_default(), extra);
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        push_line(out, &rest[..at]);
        let is_pair = rest[at..].starts_with(b"\r\n");
        rest = &rest[at + 1 + usize::from(is_pair)..];
    }
    push_line(out, rest);
    out.push(b'\n');
}

fn push_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(line);
    out.push(b'\n');
}

fn push_head(out: &mut Vec<u8>, id: &dyn Display, kind: &str, extra: &[Extra<'_>]) {
    // Writing to a vector cannot fail.
    let _ = writeln!(out, "id: {id}");
    // Without a type of its own it is a `message` to whoever listens.
    if !kind.is_empty() {
        let is_break = |c: char| matches!(c, '\n' | '\r');
        let _ = if kind.contains(is_break) {
            writeln!(out, "event: {}", kind.replace(is_break, " "))
        } else {
            writeln!(out, "event: {kind}")
        };
    }
    for (name, value) in extra {
        let _ = writeln!(out, "{name}: {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::clock::UnixMillis;
    use crate::kernel::names::RegionName;
    use crate::store::{Content, EventText, Sequence};

    fn batch(content: Content) -> Batch {
        let region = RegionName::parse("cn").unwrap();
        Batch { first: Sequence(7), received_at: UnixMillis(0), region, content }
    }

    fn events(texts: &[&str]) -> Batch {
        batch(Content::Events(EventText::join(texts.iter().map(|text| text.as_bytes())).unwrap()))
    }

    fn id(at: u64) -> String {
        Cursor { epoch: 3, at: Sequence(at) }.to_string()
    }

    #[test]
    fn an_event_is_its_place_its_type_and_its_text_line_by_line() {
        let batch = events(&[r#"{"type":"Login"}"#, "{\r\n\"type\":\"a\\nid: 9\",\r\"x\":\n1}", r#"{"a":1}"#]);
        let text = of_batch(&batch, 3);
        let all = format!(
            "id: {}\nevent: Login\ndata: {{\"type\":\"Login\"}}\n\n\
             id: {}\nevent: a id: 9\ndata: {{\ndata: \"type\":\"a\\nid: 9\",\ndata: \"x\":\ndata: 1}}\n\n\
             id: {}\ndata: {{\"a\":1}}\n\n",
            id(7),
            id(8),
            id(9)
        );
        assert_eq!(text.slice(0..3), all);
        assert!(all.ends_with(std::str::from_utf8(&text.slice(2..3)).unwrap()));
        assert_eq!(text.slice(1..1), "");
    }

    #[test]
    fn markers_say_why_and_damaged_entries_have_one() {
        let lost = batch(Content::PossibleLoss("timeout".into()));
        let data = "event: possible_loss\ndata: {\"reason\":\"timeout\"}\n\n";
        assert_eq!(of_batch(&lost, 3).slice(0..1), format!("id: {}\n{data}", id(7)));
        let damaged = batch(Content::Damaged(3));
        let data = data.replace("timeout", "damaged");
        assert_eq!(of_batch(&damaged, 3).slice(0..3), format!("id: {}\n{data}", id(9)));
        assert_eq!(of_batch(&damaged, 3).slice(0..2), "");
    }
}
