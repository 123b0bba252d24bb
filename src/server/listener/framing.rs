//! Follows the bytes of HTTP/1.1 requests as they come in, beside hyper's own parser.
//!
//! Why: hyper mends some malformed messages without a word, as RFC 9112 lets it. Of `Content-Length` and
//! `Transfer-Encoding` together it takes the first out of the header map (and closes the connection after), of equal
//! `Content-Length` lines it keeps one, a fragment is cut off a target, a line may end in a bare LF, a chunk's size may
//! be followed by anything. Each of these is how a proxy before us and we could read two different requests, so each is
//! to be refused; but the handler cannot see them. What is found in a head goes with the request as a [`Fault`], and
//! the answer is the connection's last. What is found after a head, in a chunked body, breaks the body off: see
//! [`FeedResult`].
//!
//! It also finds quotation marks in request lines: the vendor's own examples write `destination="userA"` raw, which no
//! URI may hold (RFC 3986, 2) and hyper refuses. The connection's IO escapes them on the way in. Of HTTP/2 it follows
//! the frames, against floods (`http2_flood`).
//!
//! Invariant: it only takes away from what hyper accepts. Where it cannot follow (hyper then refuses, too, or closes
//! the connection), every later request of the connection is at fault.

mod head;
mod watch;

use super::http2_flood::FloodGuard;
use crate::kernel::conn::Fault;
use head::Head;
pub(super) use watch::{Protocol, Stage, Watch};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The bytes of a header line that are looked at: enough for the two names and any sane length.
const LOOKED_AT: usize = 64;
/// The bytes of empty lines before a request line: RFC 9112, 2.2 asks to pass over one at least.
const BLANK: usize = 8;
/// The bytes of a chunk: no body may have more, whatever `request_body_limit` says.
const MAX_OF_CHUNK: u64 = 1 << 30;

/// The follower.
#[derive(Debug)]
pub(super) struct Framing {
    watch: Watch,
    state: State,
    /// Heads that ended so far.
    heads: u64,
    head: Head,
    /// What is looked at of the line that the bytes so far end in. Empty where a line came whole: it is looked at where
    /// it lies.
    seen: Vec<u8>,
    /// Bytes of the preface seen so far.
    preface: usize,
    /// The last byte fed.
    last: u8,
}

/// What was found in the bytes fed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FeedResult {
    /// Where request lines hold a quotation mark.
    pub(super) quotes: Vec<usize>,
    /// From where on nothing may be believed, and why: the bytes before go to hyper, the connection's input ends.
    pub(super) broken: Option<(usize, &'static str)>,
}

#[derive(Debug)]
enum State {
    /// Before a request line, after so many bytes of empty lines.
    Start(usize),
    RequestLine,
    /// In a header line.
    Header,
    /// So many bytes of a body.
    Body(u64),
    /// In a chunk's size line.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line break after a chunk.
    ChunkEnd,
    /// In a trailer line that has (or has not) bytes.
    Trailer(bool),
    Http2(Box<FloodGuard>),
    Off,
}

impl Framing {
    pub(super) fn new(watch: Watch) -> Self {
        let (state, head, seen) = (State::Start(0), Head::default(), Vec::new());
        Self { watch, state, heads: 0, head, seen, preface: 0, last: 0 }
    }

    /// The next bytes of the connection.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> FeedResult {
        let mut fed = FeedResult::default();
        let mut rest = bytes;
        if self.watch.protocol() == Protocol::Unknown {
            rest = &bytes[self.tell_protocol(bytes)..];
        }
        while !rest.is_empty() && !matches!(self.state, State::Off) {
            let start = bytes.len() - rest.len();
            let is_request_line = matches!(self.state, State::RequestLine);
            let used = match self.step(rest) {
                Ok(used) => used,
                Err(why) => {
                    self.state = State::Off;
                    self.lose(self.heads);
                    fed.broken = Some((start, why));
                    break;
                }
            };
            if is_request_line {
                fed.quotes.extend(memchr::memchr_iter(b'"', &rest[..used]).map(|at| start + at));
            }
            if let Some(&last) = rest[..used].last() {
                self.last = last;
            }
            rest = &rest[used..];
        }
        let mut found = self.watch.found();
        found.between = matches!(self.state, State::Start(_));
        found.in_head = matches!(self.state, State::RequestLine | State::Header);
        found.heads = self.heads;
        drop(found);
        fed
    }

    /// Whether the next byte is a request's first, after so many requests at least.
    pub(super) fn begins_head_after(&self, requests: u64) -> bool {
        matches!(self.state, State::Start(_)) && self.heads >= requests
    }

    /// So many bytes were taken of what we wrote.
    pub(super) fn wrote(&mut self, bytes: usize) {
        if let State::Http2(http2_flood) = &mut self.state {
            http2_flood.wrote(bytes);
        }
    }

    /// Says how many of the bytes end the preface of HTTP/2; none when they do not.
    fn tell_protocol(&mut self, bytes: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            if byte != PREFACE[self.preface] {
                self.watch.found().protocol = Protocol::Http1;
                return 0;
            }
            self.preface += 1;
            if self.preface == PREFACE.len() {
                self.watch.found().protocol = Protocol::Http2;
                self.state = State::Http2(Box::new(FloodGuard::new()));
                return at + 1;
            }
        }
        0
    }

    /// Takes some of the bytes; says how many (none at most once in a row), or what is wrong with them.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        match &mut self.state {
            State::Start(blank) => {
                let some = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
                *blank += some;
                if *blank > BLANK {
                    return Err("empty lines instead of a request");
                }
                if some == 0 {
                    self.head = Head::default();
                    self.state = State::RequestLine;
                } else if bytes[..some].iter().enumerate().any(|(at, &b)| {
                    let before = if at == 0 { self.last } else { bytes[at - 1] };
                    b == b'\n' && before != b'\r'
                }) {
                    return Err("an empty line ends without CR");
                }
                Ok(some)
            }
            State::Body(left) | State::Chunk(left) => {
                let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                if *left == 0 {
                    self.state = if matches!(self.state, State::Body(_)) { State::Start(0) } else { State::ChunkEnd };
                }
                Ok(used)
            }
            State::Http2(http2_flood) => {
                http2_flood.feed(bytes).map_err(|_| "a flood of frames that do no work")?;
                Ok(bytes.len())
            }
            State::Off => Ok(bytes.len()),
            State::RequestLine | State::Header | State::ChunkSize | State::ChunkEnd | State::Trailer(_) => {
                self.step_in_line(bytes)
            }
        }
    }

    /// Takes the bytes up to the end of the line, if it is among them.
    fn step_in_line(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let (line, used, ends) = match memchr::memchr(b'\n', bytes) {
            Some(at) => (&bytes[..at], at + 1, true),
            None => (bytes, bytes.len(), false),
        };
        // RFC 9112, 2.2 lets a bare LF end a line; a proxy before us need not, and would see another request.
        let is_bare = ends && line.last().copied().unwrap_or(self.last) != b'\r';
        match &mut self.state {
            State::RequestLine => {
                if line.contains(&b'#') {
                    self.head.is_at(Fault::Fragment);
                }
                if is_bare {
                    self.head.is_at(Fault::BareLineFeed);
                }
                if ends {
                    self.state = State::Header;
                }
            }
            State::Header => {
                let seen = looked_at(&mut self.seen, line, ends);
                if ends {
                    if is_bare {
                        self.head.is_at(Fault::BareLineFeed);
                    }
                    let is_last = matches!(seen, b"" | b"\r");
                    self.head.look_at(seen);
                    self.seen.clear();
                    if is_last {
                        self.head_ended();
                    }
                }
            }
            // RFC 9112, 7.1: digits, an extension that nobody needs, CR LF. What else stands there one reader skips and
            // another takes for the size.
            State::ChunkSize => {
                if line.iter().any(|b| b.is_ascii_control() && !matches!(b, b'\t' | b'\r')) || is_bare {
                    return Err("a chunk's size is malformed");
                }
                let seen = looked_at(&mut self.seen, line, ends);
                if ends {
                    self.state = chunk(seen).ok_or("a chunk's size is malformed")?;
                    self.seen.clear();
                }
            }
            // hyper refuses all but CR LF here, so only where the line ends must be known.
            State::ChunkEnd if ends => self.state = State::ChunkSize,
            State::Trailer(has_bytes) => {
                if is_bare {
                    return Err("a trailer ends without CR");
                }
                *has_bytes |= line.iter().any(|&b| b != b'\r');
                if ends {
                    self.state = if *has_bytes { State::Trailer(false) } else { State::Start(0) };
                }
            }
            _ => {}
        }
        Ok(used)
    }

    fn head_ended(&mut self) {
        let head = self.heads;
        self.heads += 1;
        let fault = match &self.head {
            Head { codings: 1.., lengths: 1.., .. } => Some(Fault::TwoLengths),
            Head { lengths: 2.., .. } => Some(Fault::LengthTwice),
            Head { codings: 2.., .. } => Some(Fault::Coding),
            Head { fault, .. } => *fault,
        };
        if let Some(fault) = fault {
            self.watch.found().faults.push_back((head, fault));
        }
        self.state = match &self.head {
            // The answer is the connection's last, or hyper's own: where the next head would begin is in doubt.
            _ if fault.is_some() => State::Off,
            Head { codings: 1.., .. } => State::ChunkSize,
            Head { length: 0, .. } => State::Start(0),
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

/// What is looked at of a line: the beginning of what came of it before and of these bytes. Not all of it unless it
/// ends.
fn looked_at<'a>(before: &'a mut Vec<u8>, line: &'a [u8], ends: bool) -> &'a [u8] {
    let line = &line[..line.len().min(LOOKED_AT - before.len())];
    if ends && before.is_empty() {
        return line;
    }
    before.extend_from_slice(line);
    before
}

/// The state after a chunk's size line: hexadecimal digits, then CR or an extension with a name (RFC 9112, 7.1.1) and
/// nothing else. (That the line holds no other CR hyper sees to.)
fn chunk(line: &[u8]) -> Option<State> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let goes_on_well = match line.get(digits..)? {
        [b'\r'] => true,
        [b';', name, ..] => name.is_ascii_alphanumeric(),
        _ => false,
    };
    let size = std::str::from_utf8(&line[..digits]).ok().and_then(|d| u64::from_str_radix(d, 16).ok());
    match size.filter(|_| goes_on_well)? {
        0 => Some(State::Trailer(false)),
        size @ 1..=MAX_OF_CHUNK => Some(State::Chunk(size)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
