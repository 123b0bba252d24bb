//! [`CursorPair`]: a place in what a caller reads, be it one stream or both together.
//!
//! Invariants: of one stream the text is that of a [`Cursor`]. Of both it is longer, 39 characters of the same
//! alphabet, so one is never taken for the other; every place has exactly one text, and text that no gateway made is
//! refused.
//!
//! Format of both: base64url, unpadded, of epoch (8 bytes), sequence in `user_events` (8), in `channel_events` (8), a
//! byte that tells from which of the two entries were given (bits 0 and 1), CRC-32 of `"cursor2"` and these 25 bytes;
//! all big-endian. The epoch is that of their cursors less what tells the streams from each other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::events::log::cursor::{check, fold_of};
use crate::events::{Cursor, NotACursor};
use crate::kernel::names::{Stream, Streams};
use crate::store::Sequence;

/// A place in what a caller reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorPair {
    epoch: u64,
    /// By the order of [`Stream::ALL`].
    at: [Sequence; 2],
    /// Whether the reader was given the entry at this place, or something before it, by whoever made the marks. If not,
    /// the place only says that it was given nothing after it.
    given: [bool; 2],
}

impl CursorPair {
    /// Reads a text.
    ///
    /// # Errors
    /// When it is none for these streams.
    pub fn read(text: &str, streams: Streams) -> Result<Self, NotACursor> {
        if let Streams::One(stream) = streams {
            let mut marks = Self::default();
            marks.give(stream, text.parse()?);
            return Ok(marks);
        }
        let mut bytes = [0; 29];
        // Strict as for a cursor; nor may a bit be set that says nothing, so each place has one text.
        if text.len() != TEXT_LENGTH || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(bytes.len()) {
            return Err(NotACursor);
        }
        let (place, stated) = bytes.split_at(25);
        if check(VERSION, place) != stated || place[24] > 3 {
            return Err(NotACursor);
        }
        let number = |at: usize| bytes[at..at + 8].iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        let given = [place[24] & 1 != 0, place[24] & 2 != 0];
        Ok(Self { epoch: number(0), at: [Sequence(number(8)), Sequence(number(16))], given })
    }

    /// What a client is given of it.
    #[must_use]
    pub fn text(&self, streams: Streams) -> String {
        if let Streams::One(stream) = streams {
            return self.of(stream).to_string();
        }
        let mut bytes = [0; 29];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.at[0].0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.at[1].0.to_be_bytes());
        bytes[24] = u8::from(self.given[0]) | u8::from(self.given[1]) << 1;
        let check = check(VERSION, &bytes[..25]);
        bytes[25..].copy_from_slice(&check);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place in one of the streams.
    #[must_use]
    pub fn of(&self, stream: Stream) -> Cursor {
        Cursor { epoch: self.epoch ^ fold_of(stream), at: self.at[stream as usize] }
    }

    /// Whether the reader was given something up to that place.
    #[must_use]
    pub fn was_given(&self, stream: Stream) -> bool {
        self.given[stream as usize]
    }

    /// The reader stands here, and is given what lies before.
    pub fn give(&mut self, stream: Stream, at: Cursor) {
        self.renew(stream, at);
        self.at[stream as usize] = at.at;
        self.given[stream as usize] = true;
    }

    /// These are places in the log of this cursor, whatever they were taken from: an older gateway's text says less.
    pub fn renew(&mut self, stream: Stream, of: Cursor) {
        self.epoch = of.epoch ^ fold_of(stream);
    }

    /// The reader was given nothing after this place.
    pub fn begin(&mut self, stream: Stream, at: Cursor) {
        self.renew(stream, at);
        if !self.given[stream as usize] {
            self.at[stream as usize] = at.at;
        }
    }
}

const VERSION: &[u8; 7] = b"cursor2";
const TEXT_LENGTH: usize = 39;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    properties! {
        #[test]
        fn text_and_marks_are_one_to_one(epoch: u64, user: u64, channel: u64, given: [bool; 2]) {
            let marks = CursorPair { epoch, at: [Sequence(user), Sequence(channel)], given };
            let text = marks.text(Streams::All);
            prop_assert_eq!(CursorPair::read(&text, Streams::All), Ok(marks));
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            for stream in Stream::ALL {
                let one = marks.text(Streams::One(stream));
                prop_assert_eq!(CursorPair::read(&one, Streams::One(stream)).unwrap().of(stream), marks.of(stream));
                prop_assert_eq!(CursorPair::read(&one, Streams::All), Err(NotACursor));
                prop_assert_eq!(CursorPair::read(&text, Streams::One(stream)), Err(NotACursor));
            }
        }

        #[test]
        fn text_of_others_is_refused(text in "\\PC{0,45}", cut in 0..TEXT_LENGTH, with in "[A-Za-z0-9_-]") {
            prop_assert_eq!(CursorPair::read(&text, Streams::All), Err(NotACursor));
            let good = CursorPair { epoch: 7, at: [Sequence(9), Sequence(2)], given: [true, false] }.text(Streams::All);
            let mut bad = good.clone();
            bad.replace_range(cut..=cut, &with);
            prop_assert!(bad == good || CursorPair::read(&bad, Streams::All).is_err());
        }
    }
}
