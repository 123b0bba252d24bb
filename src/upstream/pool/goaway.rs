//! HTTP/2's GOAWAY, given to the library as what it says of each request (RFC 9113 section 6.8).
//!
//! The library ends a connection with one error when a GOAWAY comes. The request that it is about to send then ends
//! without a word on whether it was sent, although the vendor may have answered it or turned it away. So the library
//! gets no GOAWAY: the requests above the last that the vendor may process get the RST_STREAM with REFUSED_STREAM that
//! says the same of each; those below go on; and whoever uses the connection is told to begin no more on it.
//!
//! Invariants: all else passes unchanged, in its order. A request above the last that is sent after the GOAWAY is
//! turned away like one before it. Nothing is put into a frame or a block of header fields. What is kept is bounded by
//! the requests under way and by what was read at a time. A GOAWAY of a length that none has passes, too: the library
//! ends the connection with it.

use crate::http::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameReader, GOAWAY, HEAD, HEADERS, Head, LARGEST, PUSH_PROMISE, Part,
    RST_STREAM,
};

const REFUSED_STREAM: u32 = 7;
/// Bytes of a GOAWAY before what it may say for people.
const MIN_LENGTH: usize = 8;

/// The requests of a connection, as its frames tell of them, and what the library is to read.
#[derive(Debug)]
pub(super) struct Requests {
    incoming: FrameReader,
    outgoing: FrameReader,
    /// Their streams, those first that were sent first.
    open: Vec<u32>,
    /// The last stream that was begun.
    newest: u32,
    /// The last that the vendor may process, once it goes away. Never rises.
    last: Option<u32>,
    /// Of a GOAWAY of which more is to come: the stream it names, as far as that has come.
    named: Option<Vec<u8>>,
    /// Whether a block of header fields has begun and not ended.
    in_block: bool,
    /// What turns requests away, until it may stand between two frames.
    turned_away: Vec<u8>,
    /// What the library is to read, from `read` on.
    unread: Vec<u8>,
    read: usize,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            incoming: FrameReader::default(),
            outgoing: FrameReader::after_preface(),
            open: Vec::new(),
            newest: 0,
            last: None,
            named: None,
            in_block: false,
            turned_away: Vec::new(),
            unread: Vec::new(),
            read: 0,
        }
    }

    /// What the vendor sent. Tells if it goes away with that.
    pub(super) fn came(&mut self, mut bytes: &[u8]) -> bool {
        let before = self.last;
        while let Some(part) = self.incoming.next(&mut bytes) {
            match part {
                Part::Head(head) => self.begins(head),
                Part::Piece(piece) => match &mut self.named {
                    None => self.unread.extend_from_slice(piece),
                    Some(named) => {
                        named.extend(piece.iter().take(size_of::<u32>().saturating_sub(named.len())));
                        self.go_away();
                    }
                },
            }
        }
        self.put_between();
        before.is_none() && self.last.is_some()
    }

    /// A frame of the vendor's begins.
    fn begins(&mut self, head: Head) {
        self.put_between();
        self.named = None;
        match head {
            Head { kind: GOAWAY, stream: 0, length: MIN_LENGTH..=LARGEST, .. } => {
                self.named = Some(Vec::with_capacity(size_of::<u32>()));
                return;
            }
            Head { kind: RST_STREAM, .. } => self.ends(head.stream),
            Head { kind: DATA | HEADERS, flags, .. } if flags & END_STREAM != 0 => self.ends(head.stream),
            _ => {}
        }
        if matches!(head.kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.in_block = head.flags & END_HEADERS == 0;
        }
        self.unread.extend_from_slice(&head.bytes);
    }

    /// Turns away what is above the last, once that is known.
    fn go_away(&mut self) {
        let Some(Ok(named)) = self.named.as_deref().map(<[u8; 4]>::try_from) else { return };
        let named = u32::from_be_bytes(named) & (u32::MAX >> 1);
        let last = self.last.map_or(named, |before| before.min(named));
        self.last = Some(last);
        let kept = self.open.partition_point(|stream| *stream <= last);
        for stream in self.open.split_off(kept) {
            self.turn_away(stream);
        }
    }

    fn turn_away(&mut self, stream: u32) {
        let mut frame = [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[5..HEAD].copy_from_slice(&stream.to_be_bytes());
        frame[HEAD..].copy_from_slice(&REFUSED_STREAM.to_be_bytes());
        self.turned_away.extend_from_slice(&frame);
    }

    /// Gives the library what turns requests away, if it is not in the middle of something.
    fn put_between(&mut self) {
        if !self.in_block && (self.named.is_some() || self.incoming.is_between()) {
            self.unread.append(&mut self.turned_away);
        }
    }

    fn ends(&mut self, stream: u32) {
        self.open.retain(|open| *open != stream);
    }

    /// What was sent to the vendor. Tells if the library has something to read because of that.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(part) = self.outgoing.next(&mut bytes) {
            let Part::Head(head) = part else { continue };
            match head.kind {
                HEADERS if head.stream > self.newest => {
                    self.newest = head.stream;
                    if self.last.is_some_and(|last| last < head.stream) {
                        self.turn_away(head.stream);
                    } else {
                        self.open.push(head.stream);
                    }
                }
                RST_STREAM => self.ends(head.stream),
                _ => {}
            }
        }
        self.put_between();
        self.has_unread()
    }

    /// Whether there is something for the library to read.
    pub(super) fn has_unread(&self) -> bool {
        self.read < self.unread.len()
    }

    /// Takes at most so many bytes of it.
    pub(super) fn read(&mut self, most: usize) -> &[u8] {
        if !self.has_unread() {
            self.unread.clear();
            self.read = 0;
        }
        let from = self.read;
        self.read = self.unread.len().min(from.saturating_add(most));
        self.unread.get(from..self.read).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags], &stream.to_be_bytes()[..], payload].concat()
    }

    fn goaway(last: u32) -> Vec<u8> {
        frame(GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0, 0, 0, 0], b"why"].concat())
    }

    fn refused(stream: u32) -> Vec<u8> {
        frame(RST_STREAM, 0, stream, &[0, 0, 0, 7])
    }

    fn sending(requests: &mut Requests, streams: &[u32]) {
        for stream in streams {
            requests.sent(&frame(HEADERS, END_HEADERS, *stream, b"head"));
            requests.sent(&frame(DATA, END_STREAM, *stream, b"body"));
        }
    }

    fn all(requests: &mut Requests) -> Vec<u8> {
        requests.read(usize::MAX).to_vec()
    }

    /// A connection on which these were sent.
    fn with(streams: &[u32]) -> Requests {
        let mut requests = Requests::new();
        requests.sent(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        sending(&mut requests, streams);
        requests
    }

    #[test]
    fn a_goaway_is_what_it_says_of_each_request_however_it_is_cut() {
        let answer = [frame(HEADERS, END_HEADERS, 3, b"200"), frame(DATA, END_STREAM, 3, b"hi")].concat();
        let bytes = [&answer[..], &goaway(5), &frame(6, 0, 0, &[1; 8])].concat();
        for size in 1..=bytes.len() {
            let mut requests = with(&[1, 3, 5, 7, 9]);
            let goes: Vec<bool> = bytes.chunks(size).map(|cut| requests.came(cut)).collect();
            assert_eq!(goes.iter().filter(|goes| **goes).count(), 1, "{size}");
            let expected = [&answer[..], &refused(7), &refused(9), &frame(6, 0, 0, &[1; 8])].concat();
            assert_eq!(all(&mut requests), expected, "{size}");
            assert_eq!(requests.open, [1, 5]);
        }
    }

    #[test]
    fn what_is_sent_after_it_is_turned_away_and_a_second_one_turns_away_more() {
        let mut requests = with(&[1, 3]);
        assert!(requests.came(&goaway(u32::MAX >> 1)), "as servers begin to stop");
        assert_eq!(all(&mut requests), [0; 0]);
        sending(&mut requests, &[5, 7]);
        assert!(!requests.came(&goaway(5)), "it was told");
        assert_eq!(all(&mut requests), refused(7));
        assert!(requests.sent(&frame(HEADERS, END_HEADERS | END_STREAM, 9, b"")));
        assert_eq!(all(&mut requests), refused(9));
        requests.came(&goaway(1));
        assert_eq!(all(&mut requests), [refused(3), refused(5)].concat());
        // It never rises.
        requests.came(&goaway(11));
        requests.sent(&frame(HEADERS, END_HEADERS, 11, b""));
        assert_eq!(all(&mut requests), refused(11));
    }

    #[test]
    fn nothing_is_put_into_a_frame_or_a_block_of_fields() {
        let answers =
            [frame(HEADERS, 0, 1, b"a"), frame(CONTINUATION, END_HEADERS, 1, b"b"), frame(DATA, END_STREAM, 1, b"c")];
        let mut requests = with(&[1]);
        requests.came(&goaway(1));
        let bytes = answers.concat();
        let (in_block, in_data) = (answers[0].len(), answers[0].len() + answers[1].len());
        for (at, byte) in bytes.iter().enumerate() {
            let stream = 3 + 2 * u32::try_from(at).unwrap();
            requests.came(&[*byte]);
            requests.sent(&frame(HEADERS, END_HEADERS, stream, b""));
            let read = all(&mut requests);
            let begun = at + 1 >= HEAD && at + 1 < in_data || at + 1 >= in_data + HEAD && at + 1 < bytes.len();
            let waits = begun || (in_block..in_data).contains(&(at + 1));
            assert_eq!(read.windows(4).any(|w| w == [0, 0, 4, RST_STREAM]), !waits, "{at}: {read:?}");
        }
    }

    #[test]
    fn requests_that_have_ended_are_forgotten_and_odd_frames_pass() {
        let mut requests = with(&[1, 3, 5, 7]);
        let ends = [
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"204"),
            frame(DATA, END_STREAM, 3, b""),
            frame(RST_STREAM, 0, 5, &[0; 4]),
        ];
        // Too short, and of a stream.
        let odd = [frame(GOAWAY, 0, 0, &[0; 7]), frame(GOAWAY, 0, 1, &[0; 8])];
        let bytes = [ends.concat(), odd.concat()].concat();
        assert!(!requests.came(&bytes));
        assert_eq!(all(&mut requests), bytes);
        requests.sent(&frame(RST_STREAM, 0, 7, &[0; 4]));
        assert_eq!(requests.open, [0; 0]);
        assert!(requests.came(&goaway(0)));
        assert_eq!(all(&mut requests), [0; 0]);
    }
}
