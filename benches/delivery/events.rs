//! The events: of one length, each with the instant at which it occurred.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use memchr::memmem;

/// Bytes of an event.
pub const LENGTH: usize = 120;

/// What all instants are counted from.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

const STAMP: &[u8] = br#""at":""#;
const DIGITS: usize = 15;

/// Since the benchmark began.
pub fn now() -> Duration {
    BEGAN.elapsed()
}

/// The nth event; it occurs at this time.
pub fn event(n: usize, at: Duration) -> String {
    let at = at.as_nanos();
    let head = format!(r#"{{"ms":1476095418189,"type":"Login","user_id":"web{n:08}","at":"{at:0DIGITS$}","x":""#);
    format!("{head}{}\"}}", "x".repeat(LENGTH - head.len() - 2))
}

/// How many events a text holds, in whatever form. When they occurred is added to `stamps`, if that is wanted.
pub fn count(text: &[u8], stamps: Option<&mut Vec<Duration>>) -> usize {
    let found = memmem::find_iter(text, STAMP).map(|at| &text[at + STAMP.len()..][..DIGITS]);
    let Some(stamps) = stamps else { return found.count() };
    let before = stamps.len();
    stamps.extend(found.map(|digits| {
        let nanos = digits.iter().fold(0, |nanos, digit| nanos * 10 + u64::from(digit - b'0'));
        Duration::from_nanos(nanos)
    }));
    stamps.len() - before
}
