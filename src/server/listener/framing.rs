//! Follows the bytes of HTTP/1.1 requests as they come in, beside hyper's own parser.
//!
//! Why: hyper mends some malformed messages without a word, as RFC 9112 lets it. Of `Content-Length` and
//! `Transfer-Encoding` together it takes the first out of the header map (and closes the connection after), of equal
//! `Content-Length` lines it keeps one, a fragment is cut off a target, a line may end in a bare LF, a chunk's size may
//! be followed by anything. Each of these is how a proxy before us and we could read two different requests, so each is
//! to be refused; but the handler cannot see them. What is found in a head goes with the request as a [`Fault`], and the
//! answer is the connection's last. What is found after a head, in a chunked body, breaks the body off: see [`Fed`].
//!
//! It also finds quotation marks in request lines: the vendor's own examples write `destination="userA"` raw, which no
//! URI may hold (RFC 3986, 2) and hyper refuses. The connection's IO escapes them on the way in. Of HTTP/2 it follows
//! the frames, against floods (`frames`).
//!
//! Invariant: it only takes away from what hyper accepts. Where it cannot follow (hyper then refuses, too, or closes
//! the connection), every later request of the connection is at fault.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use super::frames::Frames;
use crate::kernel::conn::Fault;
use crate::kernel::sync::lock;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The bytes of a header line that are looked at: enough for the two names and any sane length.
const LOOKED_AT: usize = 64;
/// The bytes of empty lines before a request line: RFC 9112, 2.2 asks to pass over one at least.
const BLANK: usize = 8;
/// The bytes of a chunk: no body may have more, whatever `request_body_limit` says.
const MAX_OF_CHUNK: u64 = 1 << 30;

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
    /// Whether they end in a head, after so many whole ones.
    in_head: bool,
    heads: u64,
}

/// How far the bytes of a connection have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its protocol is not known.
    Unknown,
    /// HTTP/2.
    Http2,
    /// HTTP/1.1: in a head, after so many.
    Head(u64),
    /// HTTP/1.1: between requests, of which so many were handed to the service.
    Between(u64),
    /// HTTP/1.1: in a body, or not followed any more.
    Elsewhere,
}

impl Watch {
    /// What the connection speaks, as far as its first bytes say.
    pub(super) fn protocol(&self) -> Protocol {
        self.found().protocol
    }

    /// How far the bytes have come.
    pub(super) fn stage(&self) -> Stage {
        let found = self.found();
        match found.protocol {
            Protocol::Unknown => Stage::Unknown,
            Protocol::Http2 => Stage::Http2,
            Protocol::Http1 if found.in_head => Stage::Head(found.heads),
            Protocol::Http1 if found.between => Stage::Between(found.served),
            Protocol::Http1 => Stage::Elsewhere,
        }
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
        lock(&self.0)
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
    /// The last byte fed.
    last: u8,
}

/// What was found in the bytes fed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fed {
    /// Where request lines hold a quotation mark.
    pub(super) quotes: Vec<usize>,
    /// From where on nothing may be believed, and why: the bytes before go to hyper, the connection's input ends.
    pub(super) broken: Option<(usize, &'static str)>,
}

#[derive(Debug, Default)]
struct Head {
    lengths: u32,
    length: u64,
    codings: u32,
    /// The first fault that is one whatever else is in the head.
    fault: Option<Fault>,
}

#[derive(Debug)]
enum State {
    /// Before a request line, after so many bytes of empty lines.
    Start(usize),
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
    /// HTTP/2.
    Frames(Box<Frames>),
    /// Not followed.
    Off,
}

impl Framing {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, state: State::Start(0), heads: 0, head: Head::default(), preface: 0, last: 0 }
    }

    /// The next bytes of the connection.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Fed {
        let mut fed = Fed::default();
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
                fed.quotes.extend((0..used).filter(|&at| rest[at] == b'"').map(|at| start + at));
            }
            if let Some(&last) = rest[..used].last() {
                self.last = last;
            }
            rest = &rest[used..];
        }
        let mut found = self.watch.found();
        found.between = matches!(self.state, State::Start(_));
        found.in_head = matches!(self.state, State::RequestLine | State::Header(_));
        found.heads = self.heads;
        drop(found);
        fed
    }

    /// So many bytes were taken of what we wrote.
    pub(super) fn wrote(&mut self, bytes: usize) {
        if let State::Frames(frames) = &mut self.state {
            frames.wrote(bytes);
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
                self.state = State::Frames(Box::new(Frames::new()));
                return at + 1;
            }
        }
        0
    }

    /// Takes some of the bytes; says how many (none at most once in a row), or what is wrong with them.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let (line, used, ends) = match bytes.iter().position(|&b| b == b'\n') {
            Some(at) => (&bytes[..at], at + 1, true),
            None => (bytes, bytes.len(), false),
        };
        // RFC 9112, 2.2 lets a bare LF end a line; who else reads the connection may not.
        let is_bare = ends && line.last().copied().unwrap_or(self.last) != b'\r';
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
                return Ok(some);
            }
            State::RequestLine => {
                if line.contains(&b'#') {
                    self.head.is_at(Fault::Fragment);
                }
                if ends {
                    self.state = State::Header(Vec::new());
                }
            }
            State::Header(seen) => {
                seen.extend_from_slice(&line[..line.len().min(LOOKED_AT - seen.len())]);
                if ends {
                    let seen = std::mem::take(seen);
                    if is_bare {
                        self.head.is_at(Fault::BareLineFeed);
                    }
                    if seen.is_empty() || seen == b"\r" {
                        self.head_ended();
                    } else {
                        self.head.look_at(&seen);
                    }
                    return Ok(used);
                }
            }
            State::Body(left) | State::Chunk(left) => {
                let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                if *left == 0 {
                    self.state = if matches!(self.state, State::Body(_)) { State::Start(0) } else { State::ChunkEnd };
                }
                return Ok(used);
            }
            State::ChunkSize(seen) => {
                if line.iter().any(|b| b.is_ascii_control() && !matches!(b, b'\t' | b'\r')) || is_bare {
                    return Err("a chunk's size is malformed");
                }
                seen.extend_from_slice(&line[..line.len().min(LOOKED_AT - seen.len())]);
                if ends {
                    self.state = chunk(seen).ok_or("a chunk's size is malformed")?;
                }
                return Ok(used);
            }
            State::ChunkEnd => {
                if ends {
                    self.state = State::ChunkSize(Vec::new());
                }
                return Ok(used);
            }
            State::Trailer(has_bytes) => {
                if is_bare {
                    return Err("a trailer ends without CR");
                }
                *has_bytes |= line.iter().any(|&b| b != b'\r');
                if ends {
                    self.state = if *has_bytes { State::Trailer(false) } else { State::Start(0) };
                }
                return Ok(used);
            }
            State::Frames(frames) => {
                frames.feed(bytes).map_err(|_| "a flood of frames that do no work")?;
                return Ok(bytes.len());
            }
            State::Off => return Ok(bytes.len()),
        }
        if is_bare {
            self.head.is_at(Fault::BareLineFeed);
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
            // The answer is the connection's last, or hyper's own.
            _ if fault.is_some() => State::Off,
            Head { codings: 1.., .. } => State::ChunkSize(Vec::new()),
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

impl Head {
    fn is_at(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    fn look_at(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|&b| b == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let whole = line.len() < LOOKED_AT;
        let name: Vec<u8> = name.iter().map(|b| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() }).collect();
        match name.as_slice() {
            // Gateway interfaces and some proxies read `_` as `-`.
            b"transfer-encoding" | b"content-length" if line[..colon].contains(&b'_') => self.is_at(Fault::LookAlike),
            b"transfer-encoding" => {
                self.codings += 1;
                if !whole || !value.eq_ignore_ascii_case(b"chunked") {
                    self.is_at(Fault::Coding);
                }
            }
            b"content-length" => {
                self.lengths += 1;
                match plain_number(value).filter(|_| whole) {
                    Some(length) => self.length = length,
                    None => self.is_at(Fault::LengthOdd),
                }
            }
            // A transfer coding where a content coding stands.
            b"content-encoding" if value.to_ascii_lowercase().starts_with(b"chunk") => self.is_at(Fault::LookAlike),
            b"expect" if !value.eq_ignore_ascii_case(b"100-continue") => self.is_at(Fault::Expectation),
            _ => {}
        }
    }
}

/// Digits and nothing else, without a leading zero: some read it as the sign of an octal number.
fn plain_number(value: &[u8]) -> Option<u64> {
    let plain = value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || !value.starts_with(b"0"));
    std::str::from_utf8(value).ok().filter(|_| plain)?.parse().ok()
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
