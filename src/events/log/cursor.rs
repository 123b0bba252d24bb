//! A [`Cursor`]: a place in a log as a client holds it.
//!
//! Invariants: its text is opaque, 27 characters of A-Z a-z 0-9 - _ (so it needs no escaping in a URL, a header or an
//! SSE id), and every cursor has exactly one text. Text that no gateway made is refused: it carries a check.
//!
//! Format: base64url, unpadded, of epoch (8 bytes), sequence (8 bytes), CRC-32 of `"cursor1"` and these 16 bytes; all
//! big-endian. The seven letters are the format's version. The epoch says of which store, app and stream it is: see
//! [`Origin`].

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::kernel::names::Stream;
use crate::store::{LogKey, Sequence};

/// A place in a log as a client holds it: opaque, names the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which store's, app's and stream's it is.
    pub epoch: u64,
    /// The last entry read.
    pub at: Sequence,
}

/// A log, as its cursors name it: the store's epoch, with the app and the stream folded in.
///
/// Older gateways wrote the store's epoch alone, so their cursors fit every stream; they stay good.
#[derive(Clone, Copy, Debug)]
pub(in crate::events) struct Origin {
    store: u64,
    app: u64,
    stream: Stream,
}

impl Origin {
    pub(in crate::events) fn new(store: u64, log: &LogKey) -> Self {
        let digest = Sha256::digest(log.app.as_str());
        let app = digest.iter().take(8).fold(0, |n, &byte| n << 8 | u64::from(byte));
        Self { store, app, stream: log.stream }
    }

    /// The epoch of its cursors.
    pub(in crate::events) fn epoch(self) -> u64 {
        self.store ^ self.app ^ fold_of(self.stream)
    }

    /// Whether a cursor may be of this log.
    pub(in crate::events) fn is_of(self, cursor: Cursor) -> bool {
        let of_old = [self.store, self.store ^ fold_of(self.stream)];
        cursor.epoch == self.epoch() || of_old.contains(&cursor.epoch)
    }

    /// Whether a cursor is of another stream of the same app.
    pub(in crate::events) fn is_of_other_stream(self, cursor: Cursor) -> bool {
        let others = Stream::ALL.into_iter().filter(|&stream| stream != self.stream);
        others.into_iter().any(|stream| cursor.epoch == Self { stream, ..self }.epoch())
    }
}

/// What a stream folds into the epoch. Without it, it is that of the app's streams together: see `CursorPair`.
pub(in crate::events) fn fold_of(stream: Stream) -> u64 {
    match stream {
        Stream::UserEvents => 0x5b1c_e9a7_44d0_3f62,
        Stream::ChannelEvents => 0xc63f_0d58_912e_b7a4,
    }
}

/// Text that is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct NotACursor;

impl Cursor {
    /// Bytes of its text.
    pub(crate) const LENGTH: usize = 27;
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.at.0.to_be_bytes());
        let check = check(VERSION, &bytes[..16]);
        bytes[16..].copy_from_slice(&check);
        let mut text = [0; Self::LENGTH];
        let length = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..length]).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut bytes = [0; 20];
        // The decoder refuses bits that no byte needs, so no second text names the same place.
        if text.len() != Self::LENGTH || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(bytes.len()) {
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
pub(in crate::events) fn check(version: &[u8; 7], place: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(version);
    crc.update(place);
    crc.finalize().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::names::AppId;

    #[test]
    fn a_cursor_is_of_one_log_and_older_ones_are_of_any_of_their_store() {
        let log = |app: &str, stream| LogKey { app: AppId::parse(app).unwrap(), stream };
        let logs: Vec<_> =
            ["a", "b"].iter().flat_map(|app| Stream::ALL.map(|stream| Origin::new(7, &log(app, stream)))).collect();
        for (n, origin) in logs.iter().enumerate() {
            let cursor = Cursor { epoch: origin.epoch(), at: Sequence(1) };
            let of: Vec<_> = (0..logs.len()).filter(|&other| logs[other].is_of(cursor)).collect();
            assert_eq!(of, [n]);
            assert!(origin.is_of(Cursor { epoch: 7, ..cursor }) && !origin.is_of(Cursor { epoch: 8, ..cursor }));
        }
    }

    properties! {
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
