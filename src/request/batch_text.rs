//! [`TextCache`]: the text of batches in one form, made once for all who read them.
//!
//! Invariants: a batch has one text for all who read it, whatever part of it each wants: so only what is nobody's own
//! is in it. Few are kept, the newest; a reader that is far behind makes its own.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;

use crate::kernel::sync::lock;
use crate::store::{Batch, Content};

/// Batches whose text is cached at a time, and bytes of one that is.
const MAX_CACHED: usize = 32;
const MAX_BYTES: usize = 512 << 10;

/// A reader that is not further behind than so many entries reads what others read, too: its texts are cached.
pub(crate) const MAX_SHARED_LAG: u64 = 4000;

/// The texts of the newest batches in one form: a thousand readers that keep up share one.
#[derive(Debug)]
pub(crate) struct TextCache {
    make: MakeText,
    cached: Mutex<VecDeque<CachedBatch>>,
}

/// Writes a batch whose cursors have this epoch.
pub(crate) type MakeText = fn(&Batch, u64) -> BatchText;

#[derive(Debug)]
struct CachedBatch {
    /// Held, though weakly: so its address is not another's meanwhile.
    batch: Weak<Batch>,
    text: Arc<OnceLock<BatchText>>,
}

/// The text of a batch. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BatchText {
    bytes: Bytes,
    /// Where each entry's ends.
    ends: Arc<[usize]>,
}

impl TextCache {
    /// An empty one, of texts that are made so.
    pub(crate) fn new(make: MakeText) -> Self {
        Self { make, cached: Mutex::default() }
    }

    /// The text of a batch, shared.
    pub(crate) fn of(&self, batch: &Arc<Batch>, epoch: u64) -> BatchText {
        let text = self.place(batch);
        text.get_or_init(|| (self.make)(batch, epoch)).clone()
    }

    fn place(&self, batch: &Arc<Batch>) -> Arc<OnceLock<BatchText>> {
        let mut cached = lock(&self.cached);
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
    /// Of entries that are written one after the other.
    pub(crate) fn of(batch: &Batch, mut write: impl FnMut(&mut Vec<u8>, usize)) -> Self {
        let mut out = Vec::with_capacity(2 * size(batch));
        let mut ends = Vec::with_capacity(batch.content.len());
        for index in 0..batch.content.len() {
            write(&mut out, index);
            ends.push(out.len());
        }
        Self { bytes: out.into(), ends: ends.into() }
    }

    /// Of some of the entries.
    pub(crate) fn slice(&self, entries: Range<usize>) -> Bytes {
        self.bytes.slice(self.end_of(entries.start)..self.end_of(entries.end))
    }

    /// Of one of the entries.
    pub(crate) fn entry(&self, index: usize) -> &[u8] {
        &self.bytes[self.end_of(index)..self.end_of(index + 1)]
    }

    /// Where the first so many end.
    fn end_of(&self, count: usize) -> usize {
        count.checked_sub(1).map_or(0, |last| self.ends[last])
    }
}

/// Whether a batch is one whose text is cached, for a reader that is so far behind.
pub(crate) fn is_shared(batch: &Batch, lag: u64) -> bool {
    lag <= MAX_SHARED_LAG && size(batch) <= MAX_BYTES
}

fn size(batch: &Batch) -> usize {
    match &batch.content {
        Content::Events(events) => events.text().len() + 64 * events.len(),
        Content::PossibleLoss(_) | Content::Damaged(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::clock::UnixMillis;
    use crate::kernel::names::RegionName;
    use crate::store::{EventText, Sequence};

    fn batch(texts: &[&str]) -> Arc<Batch> {
        let region = RegionName::parse("cn").unwrap();
        let content = Content::Events(EventText::join(texts.iter().map(|text| text.as_bytes())).unwrap());
        Arc::new(Batch { first: Sequence(7), received_at: UnixMillis(0), region, content })
    }

    fn make(batch: &Batch, epoch: u64) -> BatchText {
        BatchText::of(batch, |out, index| out.extend_from_slice(format!("{epoch}.{index};").as_bytes()))
    }

    #[test]
    fn a_batch_has_one_text_however_many_read_it_and_few_are_kept() {
        let cache = TextCache::new(make);
        let first = batch(&["1", "2", "3"]);
        let text = cache.of(&first, 3);
        assert_eq!(
            (text.slice(0..3), text.slice(1..2), text.slice(2..2)),
            ("3.0;3.1;3.2;".into(), "3.1;".into(), "".into())
        );
        assert_eq!((text.entry(0), text.entry(2)), (&b"3.0;"[..], &b"3.2;"[..]));
        assert_eq!(cache.of(&first, 3).bytes.as_ptr(), text.bytes.as_ptr());
        for _ in 0..MAX_CACHED {
            cache.of(&batch(&["2"]), 3);
        }
        assert_eq!(cache.cached.lock().unwrap().len(), MAX_CACHED);
        assert_eq!(cache.of(&first, 3).bytes, text.bytes);
    }
}
