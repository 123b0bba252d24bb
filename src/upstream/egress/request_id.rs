//! The vendor's `request_id`, for the log, found without parsing the answer.
//!
//! Invariants: looks at a bounded part of the body; what it returns is short, printable ASCII, so no answer can write
//! into the log's structure or fill it.

use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;

/// The vendor puts it at the start (events) or near the end (history), within this many bytes.
const REACH: usize = 512;

/// The vendor's are some 24 characters.
const MAX_LENGTH: usize = 96;

const KEY: &[u8] = br#""request_id""#;

/// Made once: making it costs more than a search.
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));

/// The `request_id` of a JSON answer.
pub(super) fn find(body: &[u8]) -> Option<Arc<str>> {
    let head = body.get(..REACH).unwrap_or(body);
    let tail = body.get(body.len().saturating_sub(REACH)..).unwrap_or_default();
    value(head).or_else(|| value(tail)).map(Arc::from)
}

fn value(part: &[u8]) -> Option<&str> {
    // Inside a JSON string the key's quotes would be escaped, so this is a member's name, of whatever object.
    let at = FINDER.find(part)?;
    let rest = part.get(at + KEY.len()..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"")?;
    let end = rest.iter().take(MAX_LENGTH + 1).position(|b| *b == b'"')?;
    let id = rest.get(..end)?;
    if id.is_empty() || !id.iter().all(|b| b.is_ascii_graphic() && *b != b'\\') {
        return None;
    }
    std::str::from_utf8(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_at_either_end_and_only_when_it_is_sane() {
        let far = format!(r#"{{"messages":["{}"],"request_id":"12_34","result":"success"}}"#, "x".repeat(5000));
        let long = format!(r#"{{"request_id":"{}"}}"#, "9".repeat(200));
        let cases = [
            (r#"{"result":"success","request_id":"123","events":[]}"#, Some("123")),
            (r#"{"request_id" : "a-b"}"#, Some("a-b")),
            (far.as_str(), Some("12_34")),
            (r#"{"payload":"\"request_id\":\"no\""}"#, None),
            (r#"{"request_id":7}"#, None),
            (r#"{"request_id":""}"#, None),
            (r#"{"request_id":"a b"}"#, None),
            (r#"{"request_id":"a\"b"}"#, None),
            (r#"{"request_id":"cut"#, None),
            (long.as_str(), None),
            ("", None),
        ];
        for (body, id) in cases {
            assert_eq!(find(body.as_bytes()).as_deref(), id, "{body:.60}");
        }
    }
}
