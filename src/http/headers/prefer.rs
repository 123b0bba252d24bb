//! `Prefer` (RFC 7240): how long a caller would wait, and whether at all.
//!
//! Invariant: reading is tolerant. A preference that is unknown or malformed is as if it had not been sent (section 2).

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::list;

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preferences were honoured (section 3).
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preferences we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    pub wait: Option<Duration>,
    pub respond_async: bool,
}

impl Prefer {
    /// Reads all `Prefer` lines. Of a preference given twice the first counts (section 2).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        for preference in list::items(headers, &PREFER) {
            // Parameters after `;` mean nothing for the preferences we know.
            let (name, value) = list::named(preference);
            if name.eq_ignore_ascii_case("respond-async") {
                // It has no value (section 4.1): with one it is another's, or malformed.
                prefer.respond_async |= value.is_empty();
            } else if name.eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                prefer.wait = value.parse().ok().filter(|_| is_number).map(Duration::from_secs);
            }
        }
        prefer
    }

    /// How long to wait: what the caller would, or `cap` if that is less.
    #[must_use]
    pub fn within(&self, cap: Duration) -> Duration {
        self.wait.map_or(cap, |wait| wait.min(cap))
    }

    /// The header that says what was honoured, when something was: `wait` as it was applied.
    #[must_use]
    pub fn applied(&self, cap: Duration) -> Option<HeaderValue> {
        let mut words = Vec::new();
        if self.respond_async {
            words.push("respond-async".to_owned());
        }
        if self.wait.is_some() {
            words.push(format!("wait={}", self.within(cap).as_secs()));
        }
        HeaderValue::try_from(words.join(", ")).ok().filter(|v| !v.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_preferences_are_read_and_others_ignored() {
        let of =
            |lines: &[&str]| Prefer::of(&lines.iter().map(|l| (PREFER, HeaderValue::from_str(l).unwrap())).collect());
        let wait = |s| Some(Duration::from_secs(s));
        for (lines, expected) in [
            (&["wait=10"][..], Prefer { wait: wait(10), respond_async: false }),
            (&["respond-async, wait=\"5\""], Prefer { wait: wait(5), respond_async: true }),
            (&["Respond-Async;x=y", "foo; bar=1, WAIT = 7"], Prefer { wait: wait(7), respond_async: true }),
            (&["wait=3, wait=9"], Prefer { wait: wait(3), respond_async: false }),
            (&["wait=-1, wait=+1, wait=soon, wait, wait=1e9"], Prefer::default()),
            (&["wait=99999999999999999999999"], Prefer::default()),
            (&["", ",,;=;"], Prefer::default()),
            (&["respond-async=false, respond-async=\"yes\""], Prefer::default()),
            (&["respond-async=\"\""], Prefer { wait: None, respond_async: true }),
            (&["x=\"a, respond-async, wait=5\", wait=7"], Prefer { wait: wait(7), respond_async: false }),
        ] {
            assert_eq!(of(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_wait_is_capped_and_said_as_applied() {
        let cap = Duration::from_secs(30);
        let prefer = Prefer { wait: Some(Duration::from_secs(100)), respond_async: true };
        assert_eq!(prefer.within(cap), cap);
        assert_eq!(prefer.applied(cap).unwrap(), "respond-async, wait=30");
        assert_eq!(Prefer::default().within(cap), cap);
        assert_eq!(Prefer::default().applied(cap), None);
    }
}
