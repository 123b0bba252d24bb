//! [`AckBitmap`]: which entries above a subscription's low-water mark are settled, in memory and as it is stored.
//!
//! The cursor says that all up to it is settled; a mark says it of one entry above. So an acknowledgement is durable
//! when either is, and each is true whether or not the other was written. Marks are kept in segments of 1024 entries, a
//! note each, so that an acknowledgement writes what it touched, not all that is out of order.
//!
//! Invariants: a segment that holds no entry above the low-water mark is not in memory; its note is removed after the
//! cursor that makes it needless is durable. A segment that changed is dirty until a write that began later has ended
//! well.
//!
//! A note's bytes: the version (1), the 1024 bits (bit n of byte m is entry 8m + n), and for each open entry that was
//! handed out before: its place in the segment (2 bytes) and how often (4 bytes), big-endian. It is on disk: change it
//! only with a new version.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

/// What is settled out of order.
#[derive(Clone, Debug, Default)]
pub(in crate::events) struct AckBitmap {
    segments: BTreeMap<u64, Bits>,
    dirty: BTreeSet<u64>,
    /// Segments that have a note.
    stored: BTreeSet<u64>,
}

type Bits = [u8; BYTES];

/// Entries of a segment.
pub(in crate::events) const SEGMENT: u64 = 1024;
const BYTES: usize = SEGMENT as usize / 8;
const VERSION: u8 = 1;

/// A segment as a note says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) struct StoredSegment {
    bits: Bits,
    /// Open entries that were handed out, and how often.
    pub(in crate::events) attempts: Vec<(u64, u32)>,
}

impl AckBitmap {
    /// An entry is settled.
    pub(in crate::events) fn mark(&mut self, at: u64) {
        let (segment, byte, bit) = place(at);
        self.segments.entry(segment).or_insert([0; BYTES])[byte] |= bit;
        self.dirty.insert(segment);
    }

    /// Entries are settled.
    pub(in crate::events) fn mark_all(&mut self, entries: Range<u64>) {
        entries.for_each(|at| self.mark(at));
    }

    /// Entries are not settled any more.
    pub(in crate::events) fn unmark(&mut self, entries: Range<u64>) {
        for segment in entries.start / SEGMENT..entries.end.div_ceil(SEGMENT) {
            let Some(bits) = self.segments.get_mut(&segment) else { continue };
            let of_both = entries.start.max(segment * SEGMENT)..entries.end.min((segment + 1) * SEGMENT);
            for at in of_both {
                let (_, byte, bit) = place(at);
                bits[byte] &= !bit;
            }
            // It stays though it may be empty: a note says otherwise until it is written.
            self.dirty.insert(segment);
        }
    }

    /// Whether nothing is marked.
    pub(in crate::events) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// A segment has a note, of whatever kind.
    pub(in crate::events) fn noted(&mut self, segment: u64) {
        self.stored.insert(segment);
    }

    /// What is said of an entry has changed: how often it was handed out.
    pub(in crate::events) fn touch(&mut self, at: u64) {
        self.dirty.insert(at / SEGMENT);
    }

    /// Whether an entry of a segment is marked as settled.
    pub(in crate::events) fn has(&self, segment: u64) -> bool {
        self.segments.contains_key(&segment)
    }

    /// Whether an entry is marked as settled.
    pub(in crate::events) fn is_marked(&self, at: u64) -> bool {
        let (segment, byte, bit) = place(at);
        self.segments.get(&segment).is_some_and(|bits| bits[byte] & bit != 0)
    }

    /// All marked entries, in order.
    pub(in crate::events) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.iter().flat_map(|(&segment, bits)| {
            (0..SEGMENT).map(move |n| segment * SEGMENT + n).filter(move |&at| {
                let (_, byte, bit) = place(at);
                bits[byte] & bit != 0
            })
        })
    }

    /// All up to `low` is settled: what only said that is forgotten.
    pub(in crate::events) fn settled_to(&mut self, low: u64) {
        // The segment that `low` lies in may say something of entries above.
        let first = low.saturating_add(1) / SEGMENT;
        if self.segments.first_key_value().is_some_and(|(&segment, _)| segment < first) {
            self.segments = self.segments.split_off(&first);
        }
        if self.dirty.first().is_some_and(|&segment| segment < first) {
            self.dirty = self.dirty.split_off(&first);
        }
    }

    /// The segments to be written, which are clean from now on; see [`AckBitmap::failed`]. Not those of which there is
    /// nothing to say, and nothing was said: most leases end before anything of them is stored.
    pub(in crate::events) fn take_dirty(&mut self, says_something: impl Fn(&Self, u64) -> bool) -> Vec<u64> {
        let mut dirty: Vec<u64> = std::mem::take(&mut self.dirty).into_iter().collect();
        dirty.retain(|&segment| self.stored.contains(&segment) || says_something(self, segment));
        // Also if the write fails: it may be there all the same, and to remove what is not there does no harm.
        self.stored.extend(&dirty);
        dirty
    }

    /// These could not be written.
    pub(in crate::events) fn failed(&mut self, segments: &[u64]) {
        self.dirty.extend(segments);
    }

    /// The notes that are needless now that the stored cursor stands at `at`; they count as removed.
    pub(in crate::events) fn take_needless(&mut self, at: u64) -> Vec<u64> {
        let kept = self.stored.split_off(&(at.saturating_add(1) / SEGMENT));
        std::mem::replace(&mut self.stored, kept).into_iter().collect()
    }

    /// All notes that there are, to be removed; nothing is marked any more.
    pub(in crate::events) fn clear(&mut self) {
        self.segments.clear();
        // A note that stayed would settle entries that are open again.
        self.dirty = self.stored.clone();
    }

    /// Whether there is anything to write.
    pub(in crate::events) fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// A segment's note.
    pub(in crate::events) fn note(&self, segment: u64, attempts: impl Iterator<Item = (u64, u32)>) -> Bytes {
        let mut note = vec![VERSION];
        note.extend_from_slice(self.segments.get(&segment).unwrap_or(&[0; BYTES]));
        for (at, attempts) in attempts {
            // A place in a segment fits.
            note.extend_from_slice(&((at % SEGMENT) as u16).to_be_bytes());
            note.extend_from_slice(&attempts.to_be_bytes());
        }
        note.into()
    }

    /// Takes over what a note says.
    pub(in crate::events) fn recall(&mut self, segment: u64, stored: &StoredSegment) {
        self.segments.insert(segment, stored.bits);
        self.stored.insert(segment);
    }
}

impl StoredSegment {
    /// Reads a segment's note; `None` when it is not one.
    pub(in crate::events) fn parse(segment: u64, note: &[u8]) -> Option<Self> {
        let (&version, rest) = note.split_first()?;
        let (bits, rest) = rest.split_first_chunk::<BYTES>()?;
        if version != VERSION || !rest.len().is_multiple_of(6) {
            return None;
        }
        let attempts = rest.chunks_exact(6).map(|entry| {
            let at = u64::from(u16::from_be_bytes([entry[0], entry[1]]));
            (segment * SEGMENT + at, u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
        });
        Some(Self { bits: *bits, attempts: attempts.collect() })
    }
}

/// The entries of a segment.
pub(in crate::events) fn entries(segment: u64) -> Range<u64> {
    segment * SEGMENT..(segment + 1) * SEGMENT
}

/// Segment, byte and bit of an entry.
fn place(at: u64) -> (u64, usize, u8) {
    // Both fit.
    (at / SEGMENT, (at % SEGMENT / 8) as usize, 1 << (at % 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    properties! {
        #[test]
        fn what_is_marked_is_told_again_by_the_notes(
            marked in prop::collection::btree_set(0..5000u64, 0..200),
            attempts in prop::collection::btree_map(0..5000u64, any::<u32>(), 0..20),
            low in 0..5000u64,
        ) {
            let mut acks = AckBitmap::default();
            marked.iter().for_each(|&at| acks.mark(at));
            attempts.keys().for_each(|&at| acks.touch(at));
            acks.settled_to(low);
            let above = |at: &u64| *at / SEGMENT >= (low + 1) / SEGMENT;
            prop_assert!(acks.iter().eq(marked.iter().copied().filter(above)));
            let (mut recalled, mut tried) = (AckBitmap::default(), Vec::new());
            for segment in acks.take_dirty(|_, _| true) {
                let of = attempts.range(entries(segment)).map(|(&at, &n)| (at, n));
                let stored = StoredSegment::parse(segment, &acks.note(segment, of)).unwrap();
                tried.extend(stored.attempts.clone());
                recalled.recall(segment, &stored);
            }
            prop_assert!(recalled.iter().eq(acks.iter()));
            prop_assert!(tried.into_iter().eq(attempts.into_iter().filter(|(at, _)| above(at))));
        }

        #[test]
        fn what_was_never_said_is_not_unsaid(
            touched in prop::collection::btree_set(0..5000u64, 0..20),
            said in prop::collection::btree_set(0..5u64, 0..5),
        ) {
            let mut acks = AckBitmap::default();
            let touch = |acks: &mut AckBitmap| touched.iter().for_each(|&at| acks.touch(at));
            let segments: BTreeSet<u64> = touched.iter().map(|at| at / SEGMENT).collect();
            let stored: Vec<u64> = segments.intersection(&said).copied().collect();
            touch(&mut acks);
            prop_assert_eq!(&acks.take_dirty(|_, segment| said.contains(&segment)), &stored);
            prop_assert!(acks.is_clean());
            // Nothing is to be said any more: that is written where something was, whether or not that has arrived.
            touch(&mut acks);
            prop_assert_eq!(acks.take_dirty(|_, _| false), stored);
        }

        #[test]
        fn no_note_makes_reading_it_fail(note in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = StoredSegment::parse(3, &note);
        }
    }
}
