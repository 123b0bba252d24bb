//! Entries as Server-Sent Events (WHATWG HTML, 9.2): their text, made once for all who read them.
//!
//! Invariants: of an event, `id` is its place, `event` its type on one line, and `data` the vendor's text, line by
//! line: put together again it is the vendor's own JSON (a line break between tokens becomes a line feed). What a
//! parser must not see as a field of its own is not written: no value holds a line break.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;

use crate::events::{Cursor, EntryContent, shown};
use crate::kernel::sync::lock;
use crate::store::{Batch, Content};
use crate::vendor::events::facts;

/// Batches whose text is cached at a time, and bytes of one that is.
const MAX_CACHED: usize = 32;
const MAX_BYTES: usize = 512 << 10;

/// The texts of the newest batches: a thousand streams that keep up share one.
#[derive(Debug, Default)]
pub(crate) struct SseCache(Mutex<VecDeque<CachedBatch>>);

#[derive(Debug)]
struct CachedBatch {
    /// Held, though weakly: so its address is not another's meanwhile.
    batch: Weak<Batch>,
    text: Arc<OnceLock<BatchText>>,
}

/// The text of a batch.
#[derive(Debug)]
struct BatchText {
    bytes: Bytes,
    /// Where each entry's ends.
    ends: Box<[usize]>,
}

impl SseCache {
    /// The text of some of a batch's entries, shared.
    pub(crate) fn of(&self, batch: &Arc<Batch>, entries: Range<usize>, epoch: u64) -> Bytes {
        let text = self.place(batch);
        text.get_or_init(|| BatchText::of(batch, epoch)).slice(entries)
    }

    fn place(&self, batch: &Arc<Batch>) -> Arc<OnceLock<BatchText>> {
        let mut cached = lock(&self.0);
        let is_it = |cached: &&CachedBatch| std::ptr::eq(cached.batch.as_ptr(), Arc::as_ptr(batch));
        // The newest first: that is what who keeps up asks for.
        if let Some(cached) = cached.iter().rev().find(is_it) {
            return Arc::clone(&cached.text);
        }
        if cached.len() == MAX_CACHED {
            cached.pop_front();
        }
        let text = Arc::default();
        cached.push_back(CachedBatch { batch: Arc::downgrade(batch), text: Arc::clone(&text) });
        text
    }
}

impl BatchText {
    fn of(batch: &Batch, epoch: u64) -> Self {
        let mut out = Vec::with_capacity(2 * size(batch));
        let mut ends = Vec::with_capacity(batch.content.len());
        for index in 0..batch.content.len() {
            push(&mut out, batch, index, &Cursor { epoch, at: batch.first.plus(index as u64) }, &[]);
            ends.push(out.len());
        }
        Self { bytes: out.into(), ends: ends.into() }
    }

    fn slice(&self, entries: Range<usize>) -> Bytes {
        let end_of = |count: usize| count.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.bytes.slice(end_of(entries.start)..end_of(entries.end))
    }
}

/// Whether a batch is one whose text is cached.
pub(crate) fn is_cached(batch: &Batch) -> bool {
    size(batch) <= MAX_BYTES
}

fn size(batch: &Batch) -> usize {
    match &batch.content {
        Content::Events(events) => events.text().len() + 64 * events.len(),
        Content::PossibleLoss(_) | Content::Damaged(_) => 0,
    }
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
    use crate::store::{EventText, Sequence};

    fn batch(content: Content) -> Arc<Batch> {
        let region = RegionName::parse("cn").unwrap();
        Arc::new(Batch { first: Sequence(7), received_at: UnixMillis(0), region, content })
    }

    fn events(texts: &[&str]) -> Arc<Batch> {
        batch(Content::Events(EventText::join(texts.iter().map(|text| text.as_bytes())).unwrap()))
    }

    fn id(at: u64) -> String {
        Cursor { epoch: 3, at: Sequence(at) }.to_string()
    }

    #[test]
    fn an_event_is_its_place_its_type_and_its_text_line_by_line() {
        let batch = events(&[r#"{"type":"Login"}"#, "{\r\n\"type\":\"a\\nid: 9\",\r\"x\":\n1}", r#"{"a":1}"#]);
        let cache = SseCache::default();
        let all = format!(
            "id: {}\nevent: Login\ndata: {{\"type\":\"Login\"}}\n\n\
             id: {}\nevent: a id: 9\ndata: {{\ndata: \"type\":\"a\\nid: 9\",\ndata: \"x\":\ndata: 1}}\n\n\
             id: {}\ndata: {{\"a\":1}}\n\n",
            id(7),
            id(8),
            id(9)
        );
        assert_eq!(cache.of(&batch, 0..3, 3), all);
        assert!(all.ends_with(std::str::from_utf8(&cache.of(&batch, 2..3, 3)).unwrap()));
        assert_eq!(cache.of(&batch, 1..1, 3), "");
    }

    #[test]
    fn a_batch_has_one_text_however_many_read_it_and_few_are_kept() {
        let cache = SseCache::default();
        let first = events(&["1"]);
        let text = cache.of(&first, 0..1, 3);
        assert_eq!(cache.of(&first, 0..1, 3).as_ptr(), text.as_ptr());
        for _ in 0..MAX_CACHED {
            cache.of(&events(&["2"]), 0..1, 3);
        }
        assert_eq!(cache.0.lock().unwrap().len(), MAX_CACHED);
        assert_eq!(cache.of(&first, 0..1, 3), text);
    }

    #[test]
    fn markers_say_why_and_damaged_entries_have_one() {
        let cache = SseCache::default();
        let lost = batch(Content::PossibleLoss("timeout".into()));
        let data = "event: possible_loss\ndata: {\"reason\":\"timeout\"}\n\n";
        assert_eq!(cache.of(&lost, 0..1, 3), format!("id: {}\n{data}", id(7)));
        let damaged = batch(Content::Damaged(3));
        let data = data.replace("timeout", "damaged");
        assert_eq!(cache.of(&damaged, 0..3, 3), format!("id: {}\n{data}", id(9)));
        assert_eq!(cache.of(&damaged, 0..2, 3), "");
    }
}
