//! A [`Cursor`]: a place in a log as a client holds it.
//!
//! Invariants: its text is opaque, 27 characters of A-Z a-z 0-9 - _ (so it needs no escaping in a URL, a header or an SSE
//! id), and every cursor has exactly one text. Text that no gateway made is refused: it carries a check.
//!
//! Format: base64url, unpadded, of epoch (8 bytes), sequence (8 bytes), CRC-32 of `"cursor1"` and these 16 bytes; all
//! big-endian. The seven letters are the format's version.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::store::Sequence;

/// A place in a log as a client holds it: opaque, names the store's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The store's epoch.
    pub epoch: u64,
    /// The last entry read.
    pub at: Sequence,
}

/// Text that is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.at.0.to_be_bytes());
        let check = check(VERSION, &bytes[..16]);
        bytes[16..].copy_from_slice(&check);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut bytes = [0; 20];
        if text.len() != TEXT_LENGTH || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(bytes.len()) {
            return Err(NotACursor);
        }
        let (place, stated) = bytes.split_at(16);
        if check(VERSION, place) != stated {
            return Err(NotACursor);
        }
        let number = |at: usize| bytes[at..at + 8].iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        Ok(Self { epoch: number(0), at: Sequence(number(8)) })
    }
}

const VERSION: &[u8; 7] = b"cursor1";

/// What tells a text that a gateway made, in this version of the format, from any other.
pub(super) fn check(version: &[u8; 7], place: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(version);
    crc.update(place);
    crc.finalize().to_be_bytes()
}

const TEXT_LENGTH: usize = 27;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_and_cursor_are_one_to_one(epoch: u64, at: u64) {
            let cursor = Cursor { epoch, at: Sequence(at) };
            let text = cursor.to_string();
            prop_assert_eq!(text.parse(), Ok(cursor));
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        }

        #[test]
        fn text_of_others_is_refused(text in "\\PC{0,40}", cut in 0..27usize, with in "[A-Za-z0-9_-]") {
            prop_assert_eq!(text.parse::<Cursor>(), Err(NotACursor));
            let good = Cursor { epoch: 7, at: Sequence(9) }.to_string();
            let mut bad = good.clone();
            bad.replace_range(cut..=cut, &with);
            prop_assert!(bad == good || bad.parse::<Cursor>().is_err());
            prop_assert!(good[..cut].parse::<Cursor>().is_err());
        }
    }
}
