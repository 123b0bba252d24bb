//! What is written, packed or not.
//!
//! Invariant: packed text is a row of gzip members (RFC 1952, 2.2), each whole once it was ended: what is cut off at a
//! member's end can be unpacked, and gone on with.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Makes the bytes of an output.
#[derive(Debug)]
pub(super) struct Packer {
    is_packed: bool,
    member: Option<GzEncoder<Vec<u8>>>,
}

impl Packer {
    /// Packs, or passes on.
    pub(super) fn new(is_packed: bool) -> Self {
        Self { is_packed, member: None }
    }

    /// Whether it packs.
    pub(super) fn is_packed(&self) -> bool {
        self.is_packed
    }

    /// The bytes to be written for these; some may follow later.
    pub(super) fn push(&mut self, text: Vec<u8>) -> Vec<u8> {
        if !self.is_packed {
            return text;
        }
        let member = self.member();
        // A vector takes all.
        let _ = member.write_all(&text);
        std::mem::take(member.get_mut())
    }

    /// The bytes up to which all that was pushed can be unpacked; the member goes on.
    pub(super) fn flush(&mut self) -> Vec<u8> {
        let Some(member) = &mut self.member else { return Vec::new() };
        // A vector takes all.
        let _ = member.flush();
        std::mem::take(member.get_mut())
    }

    /// The bytes that end the member, if one is open.
    pub(super) fn end(&mut self) -> Vec<u8> {
        self.member.take().and_then(|member| member.finish().ok()).unwrap_or_default()
    }

    /// What an output is that nothing was written to: an empty member, since no text at all is no gzip.
    pub(super) fn empty(&mut self) -> Vec<u8> {
        if self.is_packed {
            self.member();
        }
        self.end()
    }

    fn member(&mut self) -> &mut GzEncoder<Vec<u8>> {
        self.member.get_or_insert_with(|| GzEncoder::new(Vec::new(), Compression::default()))
    }
}
