//! Until when open entries are not to be handed out again, as it is stored: a note for each segment of entries that has
//! some. Older gateways pass it over, and hand these out at once.
//!
//! A note's bytes: the version (1), and for each entry its place in the segment (2 bytes) and the time (8 bytes, in
//! milliseconds since 1970), big-endian. It is on disk: change it only with a new version.

use bytes::Bytes;

use super::settled::SEGMENT;
use crate::clock::UnixMillis;

const VERSION: u8 = 1;

/// A segment's note; `None` when there is nothing to say.
pub(in crate::events) fn note(delays: impl Iterator<Item = (u64, UnixMillis)>) -> Option<Bytes> {
    let mut note = vec![VERSION];
    for (at, until) in delays {
        // A place in a segment fits.
        note.extend_from_slice(&((at % SEGMENT) as u16).to_be_bytes());
        note.extend_from_slice(&until.0.to_be_bytes());
    }
    (note.len() > 1).then(|| note.into())
}

/// Reads a segment's note; `None` when it is not one.
pub(in crate::events) fn parse(segment: u64, note: &[u8]) -> Option<Vec<(u64, UnixMillis)>> {
    let (&version, rest) = note.split_first()?;
    let (entries, []) = rest.as_chunks::<10>() else { return None };
    let entry = |&[a, b, until @ ..]: &[u8; 10]| {
        (segment * SEGMENT + u64::from(u16::from_be_bytes([a, b])), UnixMillis(u64::from_be_bytes(until)))
    };
    (version == VERSION).then(|| entries.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::events::leases::settled::entries;

    proptest! {
        #[test]
        fn what_a_note_says_is_read_again(
            segment in 0..1000u64,
            delays in prop::collection::btree_map(0..SEGMENT, any::<u64>(), 0..20),
        ) {
            let delays: Vec<_> =
                delays.into_iter().map(|(at, until)| (entries(segment).start + at, UnixMillis(until))).collect();
            let read = note(delays.iter().copied()).map(|note| parse(segment, &note).unwrap());
            prop_assert_eq!(read.unwrap_or_default(), delays);
        }

        #[test]
        fn no_note_makes_reading_it_fail(note in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(3, &note);
        }
    }
}
