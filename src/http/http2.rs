//! The frames of one direction of an HTTP/2 connection (RFC 9113 section 4.1), found in its bytes however they are cut.
//!
//! Invariant: what goes in comes out again, in its order: as heads and as pieces of what follows them.

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
/// On DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 1;
/// On what carries header fields.
pub(crate) const END_HEADERS: u8 = 4;

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// No frame is larger before our own SETTINGS say so (RFC 9113 section 4.2).
pub(crate) const LARGEST: usize = 16 << 10;
/// What a client sends before its first frame.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) bytes: [u8; HEAD],
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// A frame begins.
    Head(Head),
    /// A piece of what follows its head.
    Piece(&'a [u8]),
}

/// Where a direction stands.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    head: [u8; HEAD],
    /// So many bytes of the next head have come.
    have: usize,
    /// So many bytes are left of the frame before it.
    left: usize,
}

impl FrameReader {
    /// Of a client.
    pub(crate) fn after_preface() -> Self {
        Self { left: PREFACE, ..Self::default() }
    }

    /// Whether the last frame that began has come whole.
    pub(crate) fn is_between(&self) -> bool {
        self.left == 0
    }

    /// Takes the next part off the bytes; `None`: they are used up.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        if self.left > 0 {
            let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            (*bytes, self.left) = (rest, self.left - piece.len());
            return (!piece.is_empty()).then_some(Part::Piece(piece));
        }
        let (more, rest) = bytes.split_at((HEAD - self.have).min(bytes.len()));
        self.head.iter_mut().skip(self.have).zip(more).for_each(|(to, from)| *to = *from);
        (*bytes, self.have) = (rest, self.have + more.len());
        if self.have < HEAD {
            return None;
        }
        let head = Head::read(self.head);
        (self.have, self.left) = (0, head.length);
        Some(Part::Head(head))
    }
}

impl Head {
    pub(crate) fn read(bytes: [u8; HEAD]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = bytes;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        // The stream's highest bit is reserved, and to be passed over (RFC 9113 section 4.1).
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1), bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let frames =
            [&[0, 0, 3, 1, 5, 0x80, 0, 0, 9][..], b"abc", &[0, 0, 0, 4, 1, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0, 9]];
        let bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frames.concat(), &[7; 256]].concat();
        for size in 1..=bytes.len() {
            let (mut found, mut again, mut direction) = (Vec::new(), Vec::new(), FrameReader::after_preface());
            for mut cut in bytes.chunks(size) {
                while let Some(part) = direction.next(&mut cut) {
                    match part {
                        Part::Head(head) => {
                            found.push((head.length, head.kind, head.flags, head.stream));
                            again.extend_from_slice(&head.bytes);
                        }
                        Part::Piece(piece) => again.extend_from_slice(piece),
                    }
                }
                assert_eq!(cut, [0; 0]);
            }
            assert_eq!(found, [(3, 1, 5, 9), (0, 4, 1, 0), (256, 0, 0, 9)], "{size}");
            assert_eq!(again, bytes, "{size}");
            assert!(direction.is_between());
        }
    }
}
