//! A path's segments, decoded, or a refusal.
//!
//! Invariant: a segment that comes out is never empty, never `.` or `..`, holds no `/`, no `\`, no control character,
//! and is UTF-8. So a value taken from a path can be put into another path without leaving its place, and no two
//! readers of the raw path can see different segments.

use std::borrow::Cow;

use memchr::memchr_iter;
use percent_encoding::percent_decode_str;

use crate::request::refusal::Refusal;

/// The decoded segments of a path in origin form.
pub(crate) fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, Refusal> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(Refusal::bad("path: must begin with a slash"));
    };
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    // Room for those of the longest route: a collection would begin with less, and grow.
    let mut all = Vec::with_capacity(8);
    let mut begin = 0;
    for end in memchr_iter(b'/', rest.as_bytes()).chain([rest.len()]) {
        // A slash is a character of its own, so what lies between two is text.
        all.push(segment(rest.get(begin..end).unwrap_or_default())?);
        begin = end + 1;
    }
    Ok(all)
}

fn segment(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    // Most are words: those say themselves, and are looked at once.
    if is_word(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    if raw.is_empty() {
        return Err(Refusal::bad("path: holds an empty segment"));
    }
    // RFC 3986 has no such characters in a path; software that lets them pass reads them in different ways.
    if raw.bytes().any(|b| b == b'\\' || b == b'#' || !b.is_ascii_graphic()) {
        return Err(Refusal::bad("path: holds a character that must be percent-encoded"));
    }
    let value = decode(raw).ok_or_else(|| Refusal::bad("path: holds a bad percent-encoding"))?;
    if value.contains(['/', '\\']) {
        return Err(Refusal::bad("path: holds an encoded slash"));
    }
    if matches!(value.as_ref(), "." | "..") {
        return Err(Refusal::bad("path: holds a dot segment"));
    }
    if value.chars().any(char::is_control) {
        return Err(Refusal::bad("path: holds a control character"));
    }
    Ok(value)
}

/// Whether a segment is what it looks like: something, without a character that means more than itself, and no dot.
fn is_word(raw: &str) -> bool {
    !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Percent-decodes; `None` when a `%` is not followed by two hexadecimal digits or the result is not UTF-8.
pub(super) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let bytes = raw.as_bytes();
    let whole = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    let escapes_are_whole = bytes.iter().enumerate().all(|(at, &b)| b != b'%' || whole(at));
    if escapes_are_whole { percent_decode_str(raw).decode_utf8().ok() } else { None }
}
