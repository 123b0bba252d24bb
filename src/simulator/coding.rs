//! Content codings, as a vendor's edge may put them on answers unasked.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde::Deserialize;

/// A coding of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    Gzip,
    /// `deflate`, as RFC 9110 means it: zlib's format.
    Deflate,
    /// `deflate`, as some servers send it: without zlib's frame.
    RawDeflate,
    /// `br`. Nothing is made smaller.
    Brotli,
    /// `zstd` by its name alone: nobody can read it.
    Unknown,
}

/// Bytes in one of Brotli's blocks.
const BLOCK: usize = 1 << 16;

impl Coding {
    /// Its name in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate | Self::RawDeflate => "deflate",
            Self::Brotli => "br",
            Self::Unknown => "zstd",
        }
    }

    /// A body in it.
    pub(super) fn encode(self, body: &Bytes) -> Bytes {
        let level = Compression::fast();
        let encoded = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::RawDeflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Brotli => Ok(brotli(body)),
            Self::Unknown => Ok(body.iter().map(|byte| !byte).collect()),
        };
        encoded.expect("writing to memory does not fail").into()
    }
}

/// Blocks that are not compressed (RFC 7932, section 9.2).
fn brotli(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / BLOCK * 3 + 4);
    for (n, block) in body.chunks(BLOCK).enumerate() {
        // From the lowest bit on: before the first block, a window of 64 KiB (0); not the last (0); its length in four
        // nibbles (00), less one; not compressed (1).
        let length = (block.len() - 1) as u32;
        let bits = (length << 3) | (1 << 19);
        let bits = if n == 0 { bits << 1 } else { bits };
        out.extend_from_slice(&bits.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    // The last block, an empty one; where it is the only one, behind the window.
    out.push(if body.is_empty() { 0b110 } else { 0b11 });
    out
}
