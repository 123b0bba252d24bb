//! The streams of an HTTP/2 connection as they stand on the wire (RFC 9113 section 5.1): a client has no more of them
//! open than the SETTINGS allow.
//!
//! Invariants: a stream is open from the client's HEADERS until both sides have ended it, or one has reset it, or a
//! GOAWAY has turned it away. It is counted by the frames themselves, so one that the library refuses is counted, too.

use std::collections::HashMap;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
/// On DATA and HEADERS.
const END_STREAM: u8 = 1;
/// What a client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of it that tell it from a request of HTTP/1.
const TELLING: usize = 3;

/// Told how many are open, when these are too many.
pub(super) type TooMany = Box<dyn Fn(usize) + Send>;

/// A connection's streams.
pub(super) struct OpenStreams {
    /// Whether it speaks HTTP/2, once it has spoken.
    is_http_2: Option<bool>,
    incoming: Frames,
    outgoing: Frames,
    /// Those that are open, and which sides have ended them: the client, the vendor.
    open: HashMap<u32, [bool; 2]>,
    newest: u32,
    /// Those above are turned away.
    last: u32,
    most: usize,
    too_many: TooMany,
}

impl OpenStreams {
    pub(super) fn new(most: u32, too_many: TooMany) -> Self {
        Self {
            is_http_2: None,
            incoming: Frames { left: PREFACE.len(), ..Frames::default() },
            outgoing: Frames::default(),
            open: HashMap::new(),
            newest: 0,
            last: u32::MAX,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            too_many,
        }
    }

    /// The client sent this.
    pub(super) fn came(&mut self, bytes: &[u8]) {
        // Of HTTP/1 there are no frames. The first bytes tell: no method begins as HTTP/2's preface does (RFC 9113
        // section 3.4).
        if bytes.is_empty() || !*self.is_http_2.get_or_insert_with(|| bytes.starts_with(&PREFACE[..TELLING])) {
            return;
        }
        for (kind, flags, stream) in self.incoming.heads(bytes) {
            if kind == HEADERS && stream > self.newest {
                self.newest = stream;
                // Those above what a GOAWAY named were never taken on, so they count for nobody.
                if stream <= self.last {
                    self.open.insert(stream, [false; 2]);
                }
                if self.open.len() > self.most {
                    (self.too_many)(self.open.len());
                }
            }
            self.note(0, kind, flags, stream);
        }
    }

    /// The vendor sent this.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        if self.is_http_2 == Some(true) {
            for (kind, flags, stream) in self.outgoing.heads(bytes) {
                self.note(1, kind, flags, stream);
            }
        }
    }

    /// The vendor turned away those above.
    pub(super) fn went_away(&mut self, last: u32) {
        self.last = self.last.min(last);
        self.open.retain(|stream, _| *stream <= last);
    }

    fn note(&mut self, side: usize, kind: u8, flags: u8, stream: u32) {
        let ended = match self.open.get_mut(&stream) {
            Some(ends) if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 => {
                ends[side] = true;
                *ends == [true; 2]
            }
            // Either side's reset ends it for both (RFC 9113 section 5.4.2).
            Some(_) => kind == RST_STREAM,
            None => false,
        };
        if ended {
            self.open.remove(&stream);
        }
    }
}

/// Finds the heads of a direction's frames.
#[derive(Default)]
struct Frames {
    head: [u8; 9],
    have: usize,
    left: usize,
}

impl Frames {
    /// Kind, flags and stream of the frames that begin in these bytes.
    fn heads(&mut self, bytes: &[u8]) -> Vec<(u8, u8, u32)> {
        let mut heads = Vec::new();
        let mut rest = bytes.iter();
        while !rest.as_slice().is_empty() {
            let skipped = self.left.min(rest.len());
            rest = rest.as_slice()[skipped..].iter();
            self.left -= skipped;
            if self.left > 0 {
                break;
            }
            for byte in rest.by_ref().take(self.head.len() - self.have) {
                self.head[self.have] = *byte;
                self.have += 1;
            }
            if self.have == self.head.len() {
                // Length (24 bits), kind, flags, stream: RFC 9113 section 4.1.
                let [high, middle, low, kind, flags, stream @ ..] = self.head;
                heads.push((kind, flags, u32::from_be_bytes(stream)));
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.have = 0;
            }
        }
        heads
    }
}
