//! A number that is kept of some open entries, as it is stored: until when they are not to be handed out again
//! (milliseconds since 1970), or which unit they are in. A note for each segment of entries that has some. Older
//! gateways pass it over, and hand these out at once.
//!
//! A note's bytes: the version (1), and for each entry its place in the segment (2 bytes) and the number (8 bytes),
//! big-endian. It is on disk: change it only with a new version.

use bytes::Bytes;

use super::ack_bitmap::SEGMENT;

const VERSION: u8 = 1;

/// A segment's note; `None` when there is nothing to say.
pub(in crate::events) fn note(numbers: impl Iterator<Item = (u64, u64)>) -> Option<Bytes> {
    let mut note = vec![VERSION];
    for (at, number) in numbers {
        // A place in a segment fits.
        note.extend_from_slice(&((at % SEGMENT) as u16).to_be_bytes());
        note.extend_from_slice(&number.to_be_bytes());
    }
    (note.len() > 1).then(|| note.into())
}

/// Reads a segment's note; `None` when it is not one.
pub(in crate::events) fn parse(segment: u64, note: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (&version, rest) = note.split_first()?;
    let (entries, []) = rest.as_chunks::<10>() else { return None };
    let entry = |&[a, b, number @ ..]: &[u8; 10]| {
        (segment * SEGMENT + u64::from(u16::from_be_bytes([a, b])), u64::from_be_bytes(number))
    };
    (version == VERSION).then(|| entries.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::events::subscription::state::ack_bitmap::entries;

    properties! {
        #[test]
        fn what_a_note_says_is_read_again(
            segment in 0..1000u64,
            numbers in prop::collection::btree_map(0..SEGMENT, any::<u64>(), 0..20),
        ) {
            let numbers: Vec<_> =
                numbers.into_iter().map(|(at, number)| (entries(segment).start + at, number)).collect();
            let read = note(numbers.iter().copied()).map(|note| parse(segment, &note).unwrap());
            prop_assert_eq!(read.unwrap_or_default(), numbers);
        }

        #[test]
        fn no_note_makes_reading_it_fail(note in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(3, &note);
        }
    }
}
