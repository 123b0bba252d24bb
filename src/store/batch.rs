//! A [`Batch`]: what one read brought, stored and delivered as one thing.
//!
//! Invariants: a batch holds at least one entry; its entries have consecutive sequence numbers from `first`. The text
//! of its events is one buffer, joined by commas, so any run of them is a slice of it: a thousand readers of a batch
//! share one copy. Event text is the vendor's own, byte for byte.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{AppId, RegionName, Stream};

/// Which log: one for each app and stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogKey {
    pub app: AppId,
    pub stream: Stream,
}

/// The number of an entry in its log. The first entry has 1; 0 stands before it.
///
/// A `Range<Sequence>` means entries as any range does: from `start` on, without `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The first entry's.
    pub const FIRST: Self = Self(1);

    /// The number `n` places on.
    #[must_use]
    pub fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// The number `n` places back, but not before 0.
    #[must_use]
    pub fn minus(self, n: u64) -> Self {
        Self(self.0.saturating_sub(n))
    }

    /// The next entry's number.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The number of the entry before it, or 0.
    #[must_use]
    pub fn previous(self) -> Self {
        self.minus(1)
    }

    /// How many places this is after `earlier`; 0 when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A batch before the log has given it its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// When the gateway received it.
    pub received_at: UnixMillis,
    /// Where it was read.
    pub region: RegionName,
    pub content: Content,
}

/// A batch with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The number of its first entry.
    pub first: Sequence,
    /// When the gateway received it.
    pub received_at: UnixMillis,
    /// Where it was read.
    pub region: RegionName,
    pub content: Content,
}

/// What a batch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Events, as the vendor wrote them.
    Events(EventText),
    /// A marker, one entry: events may have been lost here, and why.
    PossibleLoss(String),
    /// So many entries that were stored and cannot be read any more: what stands in the place of a damaged batch.
    Damaged(u64),
}

/// The texts of one or more events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    /// The events, joined by commas.
    text: Bytes,
    /// Where each event ends in `text`. Never empty.
    ends: Arc<[u32]>,
}

impl EventText {
    /// Joins event texts. `None` when there are none, or they are 4 GiB or more.
    pub fn join<'a>(events: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let events: Vec<_> = events.into_iter().collect();
        // No more room than that: the newest batches stay in memory.
        let mut text = Vec::with_capacity(events.iter().map(|event| event.len() + 1).sum::<usize>().saturating_sub(1));
        let mut ends = Vec::with_capacity(events.len());
        for event in events {
            if !ends.is_empty() {
                text.push(b',');
            }
            text.extend_from_slice(event);
            ends.push(u32::try_from(text.len()).ok()?);
        }
        Self::from_parts(text.into(), ends.into())
    }

    /// Takes text and ends as they were stored. `None` when they do not fit each other.
    #[must_use]
    pub fn from_parts(text: Bytes, ends: Arc<[u32]>) -> Option<Self> {
        let last = *ends.last()?;
        // No event is empty, and a comma stands between two.
        let rising = ends[0] > 0 && ends.windows(2).all(|w| w[1] > w[0].saturating_add(1));
        let commas = ends[..ends.len() - 1].iter().all(|&end| text.get(end as usize) == Some(&b','));
        (last as usize == text.len() && rising && commas).then_some(Self { text, ends })
    }

    /// The text of all events, one after another.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The ends, as to be stored.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// How many events.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The events of a range, joined by commas; shares the buffer. Empty when the range is empty or outside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        if range.is_empty() || range.end > self.ends.len() {
            return Bytes::new();
        }
        self.text.slice(self.start(range.start)..self.ends[range.end - 1] as usize)
    }

    /// The bytes that the events of a range have, with the commas between them.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> usize {
        range.end.checked_sub(1).map_or(0, |last| (self.ends[last] as usize).saturating_sub(self.start(range.start)))
    }

    /// Where an event starts.
    fn start(&self, event: usize) -> usize {
        event.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1)
    }

    /// How many events from one on have so many bytes; one at least.
    #[must_use]
    pub fn fit(&self, from: usize, bytes: usize) -> usize {
        let start = self.start(from);
        self.ends[from..].partition_point(|&end| end as usize <= start.saturating_add(bytes)).max(1)
    }

    /// The events of a range in memory of their own, so that they do not hold the others. `None` when there are none.
    #[must_use]
    pub fn apart(&self, range: Range<usize>) -> Option<Self> {
        let events: Vec<Bytes> = range.map(|i| self.slice(i..i + 1)).collect();
        Self::join(events.iter().map(|event| &event[..]))
    }

    /// The text of each event, without a copy.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        (0..self.len()).map(|i| self.slice(i..i + 1))
    }
}

impl Content {
    /// How many entries.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            Self::PossibleLoss(_) => 1,
            Self::Damaged(entries) => usize::try_from(*entries).unwrap_or(usize::MAX),
        }
    }
}

impl Batch {
    /// The number of its last entry.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.first.plus(self.content.len() as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_run_of_events_is_a_slice_of_the_text() {
        let text = EventText::join([&b"{\"a\":1}"[..], b"{}", b"{\"b\":\",\"}"]).unwrap();
        assert_eq!(text.slice(0..3), text.text());
        assert_eq!(text.slice(1..2), "{}");
        assert_eq!(text.slice(1..3), "{},{\"b\":\",\"}");
        assert_eq!(text.slice(3..3), "");
        assert_eq!(text.slice(2..4), "");
        assert_eq!(EventText::join([]), None);
    }

    #[test]
    fn so_many_fit_as_have_the_bytes_and_one_at_least() {
        let text = EventText::join([&b"12"[..], b"345", b"6", b"7890"]).unwrap();
        let fit = |from, bytes| text.fit(from, bytes);
        assert_eq!([fit(0, 0), fit(0, 2), fit(0, 6), fit(0, 8), fit(0, 99)], [1, 1, 2, 3, 4]);
        assert_eq!([fit(1, 3), fit(1, 4), fit(1, 5), fit(3, 1)], [1, 1, 2, 1]);
        assert_eq!([text.bytes(0..4), text.bytes(1..3), text.bytes(3..4), text.bytes(0..0)], [13, 5, 4, 0]);
    }

    #[test]
    fn events_apart_hold_nothing_of_the_others() {
        let text = EventText::join([&b"12"[..], b"345", b"6"]).unwrap();
        let apart = text.apart(1..3).unwrap();
        assert_eq!((apart.text().as_ref(), apart.ends()), (&b"345,6"[..], &[3, 5][..]));
        assert_eq!(apart.text.try_into_mut().unwrap().capacity(), 5);
        assert_eq!(text.apart(1..1), None);
    }

    #[test]
    fn joined_events_take_no_more_room_than_their_text() {
        for count in [1, 2, 3, 100, 1000] {
            let joined = EventText::join(std::iter::repeat_n(&b"{\"type\":\"Login\"}"[..], count)).unwrap();
            let length = joined.text.len();
            assert_eq!(joined.text.try_into_mut().unwrap().capacity(), length, "{count} events");
        }
    }

    #[test]
    fn stored_parts_that_do_not_fit_are_refused() {
        let whole = EventText::join([&b"{}"[..], b"[]"]).unwrap();
        let text = whole.text().clone();
        assert_eq!(EventText::from_parts(text.clone(), whole.ends().into()), Some(whole));
        for ends in [&[][..], &[2], &[1, 5], &[5, 2], &[2, 6], &[2, 2, 5]] {
            assert_eq!(EventText::from_parts(text.clone(), ends.into()), None, "{ends:?}");
        }
        for (text, ends) in [("", &[0][..]), ("{},", &[2, 3]), (",{}", &[0, 3]), ("{},", &[2, 0])] {
            assert_eq!(EventText::from_parts(text.into(), ends.into()), None, "an empty event: {text:?}");
        }
    }
}
