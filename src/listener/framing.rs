//! Follows the heads of HTTP/1.1 requests as their bytes come in, beside hyper's own parser.
//!
//! Why: hyper mends some malformed heads without a word. Of `Content-Length` and `Transfer-Encoding` together it
//! takes the first out of the header map (and closes the connection after), of equal `Content-Length` lines it keeps
//! one, and a fragment is cut off a target. Each of these is how a proxy before us and we could read two different
//! requests, so each is to be refused; but the handler cannot see them. What is found here goes with the request as a
//! [`Fault`].
//!
//! It also finds quotation marks in request lines: the vendor's own examples write `destination="userA"` raw, which no
//! URI may hold (RFC 3986, 2) and hyper refuses. The connection's IO escapes them on the way in.
//!
//! Invariant: this decides nothing about what hyper accepts. Where it cannot follow (hyper then refuses, too, or closes
//! the connection), every later request of the connection is at fault.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::conn::Fault;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The bytes of a header line that are looked at: enough for the two names and any sane length.
const LOOKED_AT: usize = 64;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    #[default]
    Unknown,
    Http1,
    Http2,
}

/// What was found, for the connection's service. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    protocol: Protocol,
    /// Heads handed to the service so far.
    served: u64,
    faults: VecDeque<(u64, Fault)>,
    /// From this head on nothing is known.
    lost_from: Option<u64>,
    /// Whether the bytes so far end between two requests.
    between: bool,
}

impl Watch {
    /// What the connection speaks, as far as its first bytes say.
    pub(super) fn protocol(&self) -> Protocol {
        self.found().protocol
    }

    /// The service got the next head: what is wrong with it?
    pub(super) fn next_head(&self) -> Option<Fault> {
        let mut found = self.found();
        let head = found.served;
        found.served += 1;
        match found.faults.front() {
            Some(&(at, fault)) if at == head => {
                found.faults.pop_front();
                Some(fault)
            }
            _ => found.lost_from.filter(|&from| head >= from).map(|_| Fault::Unfollowed),
        }
    }

    /// Whether the bytes so far end between two requests: the caller is not in the middle of sending one.
    pub(super) fn is_between_requests(&self) -> bool {
        self.found().between
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The follower.
#[derive(Debug)]
pub(super) struct Framing {
    watch: Watch,
    state: State,
    /// Heads that ended so far.
    heads: u64,
    head: Head,
    /// Bytes of the preface seen so far.
    preface: usize,
}

#[derive(Debug, Default)]
struct Head {
    lengths: u32,
    length: u64,
    encoded: bool,
    fragment: bool,
    /// A length that is no number: hyper refuses it.
    bad_length: bool,
}

#[derive(Debug)]
enum State {
    /// Before a request line. Empty lines are passed over, as hyper does.
    Start,
    RequestLine,
    /// In a header line: its first bytes.
    Header(Vec<u8>),
    /// So many bytes of a body.
    Body(u64),
    /// In a chunk's size line: its digits.
    ChunkSize(Vec<u8>),
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line break after a chunk.
    ChunkEnd,
    /// In a trailer line that has (or has not) bytes.
    Trailer(bool),
    /// Not followed.
    Off,
}

impl Framing {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, state: State::Start, heads: 0, head: Head::default(), preface: 0 }
    }

    /// The next bytes of the connection. Says where in them request lines hold a quotation mark.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<usize> {
        if self.watch.protocol() == Protocol::Unknown {
            self.tell_protocol(bytes);
        }
        let mut quotes = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() && !matches!(self.state, State::Off) {
            let is_request_line = matches!(self.state, State::RequestLine);
            let used = self.step(rest);
            if is_request_line {
                let start = bytes.len() - rest.len();
                quotes.extend((0..used).filter(|&at| rest[at] == b'"').map(|at| start + at));
            }
            rest = &rest[used..];
        }
        self.watch.found().between = matches!(self.state, State::Start);
        quotes
    }

    fn tell_protocol(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != PREFACE[self.preface] {
                self.watch.found().protocol = Protocol::Http1;
                return;
            }
            self.preface += 1;
            if self.preface == PREFACE.len() {
                self.watch.found().protocol = Protocol::Http2;
                self.state = State::Off;
                return;
            }
        }
    }

    /// Takes some of the bytes; says how many, at least one.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let (line, used, ends) = match bytes.iter().position(|&b| b == b'\n') {
            Some(at) => (&bytes[..at], at + 1, true),
            None => (bytes, bytes.len(), false),
        };
        match &mut self.state {
            State::Start => {
                let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
                if blank == 0 {
                    self.head = Head::default();
                    self.state = State::RequestLine;
                }
                blank
            }
            State::RequestLine => {
                self.head.fragment |= line.contains(&b'#');
                if ends {
                    self.state = State::Header(Vec::new());
                }
                used
            }
            State::Header(seen) => {
                seen.extend_from_slice(&line[..line.len().min(LOOKED_AT - seen.len())]);
                if ends {
                    let seen = std::mem::take(seen);
                    if seen.is_empty() || seen == b"\r" {
                        self.head_ended();
                    } else {
                        self.head.look_at(&seen);
                    }
                }
                used
            }
            State::Body(left) | State::Chunk(left) => {
                let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                if *left == 0 {
                    self.state = if matches!(self.state, State::Body(_)) { State::Start } else { State::ChunkEnd };
                }
                used
            }
            State::ChunkSize(digits) => {
                digits.extend_from_slice(&line[..line.len().min(LOOKED_AT - digits.len())]);
                if ends {
                    self.state = chunk(digits);
                    if matches!(self.state, State::Off) {
                        self.lose(self.heads);
                    }
                }
                used
            }
            State::ChunkEnd => {
                if ends {
                    self.state = State::ChunkSize(Vec::new());
                }
                used
            }
            State::Trailer(has_bytes) => {
                *has_bytes |= line.iter().any(|&b| b != b'\r');
                if ends {
                    self.state = if *has_bytes { State::Trailer(false) } else { State::Start };
                }
                used
            }
            State::Off => bytes.len(),
        }
    }

    fn head_ended(&mut self) {
        let head = self.heads;
        self.heads += 1;
        let fault = match &self.head {
            Head { encoded: true, lengths: 1.., .. } => Some(Fault::TwoLengths),
            Head { lengths: 2.., .. } => Some(Fault::LengthTwice),
            Head { fragment: true, .. } => Some(Fault::Fragment),
            _ => None,
        };
        if let Some(fault) = fault {
            self.watch.found().faults.push_back((head, fault));
        }
        self.state = match &self.head {
            // hyper reads no other request after this one.
            Head { encoded: true, lengths: 1.., .. } | Head { bad_length: true, .. } => State::Off,
            Head { encoded: true, .. } => State::ChunkSize(Vec::new()),
            Head { length: 0, .. } => State::Start,
            Head { length, .. } => State::Body(*length),
        };
        if matches!(self.state, State::Off) {
            self.lose(head + u64::from(fault.is_some()));
        }
    }

    fn lose(&mut self, from: u64) {
        self.watch.found().lost_from = Some(from);
    }
}

impl Head {
    fn look_at(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|&b| b == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            let whole = line.len() < LOOKED_AT;
            match std::str::from_utf8(value).ok().filter(|_| whole).and_then(|v| v.parse().ok()) {
                Some(length) => self.length = length,
                None => self.bad_length = true,
            }
        }
    }
}

/// The state after a chunk's size line.
fn chunk(line: &[u8]) -> State {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let size = std::str::from_utf8(&line[..digits]).ok().and_then(|d| u64::from_str_radix(d, 16).ok());
    match size {
        None => State::Off,
        Some(0) => State::Trailer(false),
        Some(size) => State::Chunk(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// The faults of the heads in these bytes, fed in pieces of `piece`.
    fn faults(bytes: &str, piece: usize, heads: usize) -> (Vec<Option<Fault>>, bool) {
        let watch = Watch::default();
        let mut framing = Framing::new(watch.clone());
        bytes.as_bytes().chunks(piece).for_each(|piece| drop(framing.feed(piece)));
        ((0..heads).map(|_| watch.next_head()).collect(), watch.is_between_requests())
    }

    #[test]
    fn quotation_marks_are_found_in_request_lines_and_nowhere_else() {
        let post = "POST /a?\"b\"=c HTTP/1.1\r\nContent-Length: 3\r\nX: \"\r\n\r\n\"\"\"";
        let bytes = format!("{post}{GOOD}GET /\" HTTP/1.1\r\n");
        let last = bytes.rfind('"').unwrap();
        for piece in [1, 3, 7, 1000] {
            let mut framing = Framing::new(Watch::default());
            let mut found = Vec::new();
            for (n, part) in bytes.as_bytes().chunks(piece).enumerate() {
                found.extend(framing.feed(part).iter().map(|at| n * piece + at));
            }
            assert_eq!(found, [8, 10, last], "in pieces of {piece}");
        }
    }

    #[test]
    fn what_hyper_mends_is_found_wherever_the_bytes_are_cut() {
        let post = |headers: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}");
        let both = post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n");
        let turned = post("transfer-encoding:chunked\r\nCONTENT-LENGTH:3\r\n", "");
        let twice = post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc");
        let sized = post("content-length:  27 \r\n", &GOOD.replace("Host", "Cook"));
        let chunked =
            post("Transfer-Encoding: chunked\r\n", "1a;x=y\r\nGET /#x HTTP/1.1\r\n\r\nabcdef\r\n0\r\nT: v\r\n\r\n");
        let fragment = "\r\n\r\nGET /x#y HTTP/1.1\nHost: a\n\n";
        for (bytes, expected, between) in [
            (GOOD.to_owned(), vec![None], true),
            (format!("{sized}{fragment}"), vec![None, Some(Fault::Fragment)], true),
            (format!("{chunked}{twice}{GOOD}"), vec![None, Some(Fault::LengthTwice), None], true),
            (format!("{GOOD}{both}{GOOD}"), vec![None, Some(Fault::TwoLengths), Some(Fault::Unfollowed)], false),
            (turned, vec![Some(Fault::TwoLengths)], false),
            (post("Content-Length: 5\r\n", "abc"), vec![None], false),
            ("GET / HT".to_owned(), vec![None], false),
            (post("Transfer-Encoding: chunked\r\n", "zz\r\n"), vec![None, Some(Fault::Unfollowed)], false),
        ] {
            for piece in [1, 2, 3, 7, bytes.len()] {
                assert_eq!(faults(&bytes, piece, expected.len()), (expected.clone(), between), "{bytes:?} by {piece}");
            }
        }
    }

    #[test]
    fn http2_is_told_by_its_preface_and_not_followed() {
        let watch = Watch::default();
        let mut framing = Framing::new(watch.clone());
        framing.feed(&PREFACE[..10]);
        assert_eq!(watch.protocol(), Protocol::Unknown);
        framing.feed(&PREFACE[10..]);
        framing.feed(b"\0\0\x06\x04#\r\n\r\n");
        assert_eq!((watch.protocol(), watch.next_head()), (Protocol::Http2, None));
        let watch = Watch::default();
        Framing::new(watch.clone()).feed(b"PRIX");
        assert_eq!(watch.protocol(), Protocol::Http1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Bytes of a body never count as a head, however they look.
        #[test]
        fn a_body_is_passed_over(body in "[GETPOS /#:\\r\\nContent\\-Lengthcdx0-9]{0,80}", chunk in 1..20usize, piece in 1..40usize) {
            let sized = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}{GOOD}", body.len());
            prop_assert_eq!(faults(&sized, piece, 2), (vec![None, None], true));
            let mut chunks = String::new();
            for part in body.as_bytes().chunks(chunk) {
                chunks += &format!("{:X}\r\n{}\r\n", part.len(), std::str::from_utf8(part).unwrap());
            }
            let chunked = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n{GOOD}");
            prop_assert_eq!(faults(&chunked, piece, 2), (vec![None, None], true));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1..50usize) {
            let mut framing = Framing::new(Watch::default());
            bytes.chunks(piece).for_each(|piece| drop(framing.feed(piece)));
        }
    }
}
