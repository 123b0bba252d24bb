//! HTTP/2 by hand: frames as bytes, headers without compression, and what comes back.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::front::stage::{DEADLINE, Stage};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITIZED: u8 = 0x20;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header, as a literal that is not indexed and not compressed (RFC 7541, 6.2.2).
pub(super) fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0], string(name), string(value)].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    [integer(7, text.len()), text.to_vec()].concat()
}

/// An integer with a prefix of so many bits (RFC 7541, 5.1).
pub(super) fn integer(prefix: u8, value: usize) -> Vec<u8> {
    let most = (1 << prefix) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![u8::try_from(most).unwrap()];
    let mut left = value - most;
    while left >= 128 {
        bytes.push(u8::try_from(left % 128).unwrap() | 128);
        left /= 128;
    }
    bytes.push(u8::try_from(left).unwrap());
    bytes
}

/// A block of headers.
pub(super) fn block(headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    headers.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The status of each stream that was answered.
    pub(super) statuses: BTreeMap<u32, u16>,
    /// The reason of each stream that was reset.
    pub(super) resets: BTreeMap<u32, u32>,
    pub(super) goaway: Option<u32>,
    pub(super) closed: bool,
    /// Bytes of DATA.
    pub(super) data: usize,
    /// Streams that ended whole.
    pub(super) whole: Vec<u32>,
}

/// One connection.
pub(super) struct Caller {
    pub(super) reading: OwnedReadHalf,
    pub(super) writing: OwnedWriteHalf,
    pub(super) heard: Heard,
    /// Whether SETTINGS and PING are acknowledged.
    pub(super) polite: bool,
    pending: Vec<u8>,
}

impl Caller {
    /// Connects, and says these settings. With no dynamic table at our side, every answer's status can be read alone.
    pub(super) async fn connect(stage: &Stage, settings: &[(u16, u32)]) -> Self {
        Self::over(stage.connect().await, settings).await
    }

    pub(super) async fn over(stream: TcpStream, settings: &[(u16, u32)]) -> Self {
        let (reading, writing) = stream.into_split();
        let mut caller = Self { reading, writing, heard: Heard::default(), polite: true, pending: Vec::new() };
        let no_table = [&[(1, 0)], settings].concat();
        let payload: Vec<u8> =
            no_table.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        caller.send(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()).await;
        caller
    }

    /// Writes, if the other side still takes it.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.writing.write_all(bytes).await.is_ok()
    }

    /// Reads until it is so, or the connection ended.
    pub(super) async fn hear(&mut self, so: impl Fn(&Heard) -> bool) -> &Heard {
        let hearing = async {
            while !self.heard.closed && !so(&self.heard) {
                self.next().await;
            }
        };
        let ended = tokio::time::timeout(DEADLINE, hearing).await;
        assert!(ended.is_ok(), "nothing more came: {:?}", self.heard);
        &self.heard
    }

    async fn next(&mut self) {
        match self.reading.read_buf(&mut self.pending).await {
            Ok(0) | Err(_) => self.heard.closed = true,
            Ok(_) => {}
        }
        while let Some(length) =
            self.pending.get(..9).map(|h| usize::from(h[0]) << 16 | usize::from(h[1]) << 8 | usize::from(h[2]))
            && self.pending.len() >= 9 + length
        {
            let whole: Vec<u8> = self.pending.drain(..9 + length).collect();
            self.took(&whole).await;
        }
    }

    async fn took(&mut self, whole: &[u8]) {
        let (kind, flags) = (whole[3], whole[4]);
        let word = |at: usize| u32::from_be_bytes(whole[at..at + 4].try_into().unwrap());
        let (stream, payload) = (word(5), &whole[9..]);
        match kind {
            HEADERS => drop(self.heard.statuses.insert(stream, status(payload))),
            DATA => self.heard.data += payload.len(),
            RST_STREAM => drop(self.heard.resets.insert(stream, word(9))),
            GOAWAY => self.heard.goaway = Some(word(13)),
            SETTINGS if flags & ACK == 0 && self.polite => drop(self.send(&frame(SETTINGS, ACK, 0, &[])).await),
            PING if flags & ACK == 0 && self.polite => drop(self.send(&frame(PING, ACK, 0, payload)).await),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.heard.whole.push(stream);
        }
    }
}

/// The status at the beginning of a block: in the static table, or a literal of digits.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size comes first (RFC 7541, 4.2).
    let at = block.iter().position(|b| b & 0xe0 != 0x20).unwrap();
    match block[at] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        _ => {
            let (length, text) = (block[at + 1], &block[at + 2..]);
            let text = &text[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 { std::str::from_utf8(text).unwrap().parse().unwrap() } else { digits(text) }
        }
    }
}

/// Digits in the Huffman code of RFC 7541, appendix B: `0` to `2` have five bits, the others six.
fn digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u16> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| u16::from(byte >> n & 1))).collect();
    let take = |at: usize, n: usize| bits[at..at + n].iter().fold(0, |sum, bit| sum * 2 + bit);
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = take(at, 5);
        let (digit, used) = if short < 3 { (short, 5) } else { (take(at, 6) - 0b01_1001 + 3, 6) };
        number = number * 10 + digit;
        at += used;
    }
    number
}

#[test]
fn a_status_is_read_from_a_block() {
    assert_eq!(status(&[0x20, 0x8c]), 400);
    assert_eq!(status(&[0x48, 3, b'4', b'0', b'1']), 401);
    assert_eq!(status(&[0x08, 0x82, 0b0110_1000, 0b0000_0001]), 401);
    assert_eq!(integer(7, 1337 + 127)[..2], [127, 0xb9]);
}
