//! [`Head`]: what a request's head says of where the request ends, and what is wrong with how it says so.

use super::LOOKED_AT;
use crate::kernel::conn::Fault;

/// The names that are looked for, each of another length.
const KNOWN: [&[u8]; 4] = [b"transfer-encoding", b"content-length", b"content-encoding", b"expect"];

#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) lengths: u32,
    pub(super) length: u64,
    pub(super) codings: u32,
    /// The first fault that is one whatever else is in the head.
    pub(super) fault: Option<Fault>,
}

impl Head {
    pub(super) fn is_at(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    pub(super) fn look_at(&mut self, line: &[u8]) {
        let Some(colon) = memchr::memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // A value that goes on beyond what is kept of the line cannot be judged, so it is never taken for a good one.
        let whole = line.len() < LOOKED_AT;
        let Some(known) = KNOWN.into_iter().find(|known| is_named(name, known)) else { return };
        match known {
            b"transfer-encoding" | b"content-length" if name.contains(&b'_') => self.is_at(Fault::LookAlike),
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

/// Whether a name is this one. Gateway interfaces and some proxies read `_` as `-`.
fn is_named(name: &[u8], known: &[u8]) -> bool {
    let is_same = |(a, b): (&u8, &u8)| a.to_ascii_lowercase() == *b || (*a, *b) == (b'_', b'-');
    name.len() == known.len() && name.iter().zip(known).all(is_same)
}

/// Digits and nothing else, without a leading zero: some read it as the sign of an octal number.
fn plain_number(value: &[u8]) -> Option<u64> {
    let plain = value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || !value.starts_with(b"0"));
    std::str::from_utf8(value).ok().filter(|_| plain)?.parse().ok()
}
