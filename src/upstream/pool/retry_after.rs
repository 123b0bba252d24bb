//! `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date in any of the three forms of section 5.6.7.

use std::time::{Duration, UNIX_EPOCH};

use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use crate::config::values;
use crate::kernel::clock::UnixMillis;

/// Longer waits are taken for this one, so that no sum can overflow. Whoever uses the value clamps it further, by
/// `upstream.max_retry_after` mostly, which cannot be longer.
const MAX_WAIT: Duration = values::LONGEST;

/// How long an answer asks to wait: of several wishes the longest that is understood.
pub(crate) fn of(headers: &HeaderMap, now: impl Fn() -> UnixMillis) -> Option<Duration> {
    headers.get_all(RETRY_AFTER).iter().filter_map(|value| parse(value, now())).max()
}

/// How long one asks to wait. `None` when it cannot be understood.
pub(crate) fn parse(value: &HeaderValue, now: UnixMillis) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Too many digits for a number are still a long wait.
        return Some(text.parse().map_or(MAX_WAIT, Duration::from_secs).min(MAX_WAIT));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let until = UnixMillis(u64::try_from(date.as_millis()).ok()?);
    Some(until.since(now).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_nonsense_is_not() {
        let now = UnixMillis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example
        let cases = [
            ("0", Some(0)),
            ("3", Some(3)),
            ("172800", Some(172_800)),
            ("Tue, 08 Nov 1994 08:49:37 GMT", Some(172_800)),
            ("99999999999999999999999999", Some(MAX_WAIT.as_secs())),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("Sun Nov  6 08:49:47 1994", Some(10)),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ];
        for (text, seconds) in cases {
            let parsed = parse(&HeaderValue::from_static(text), now);
            assert_eq!(parsed, seconds.map(Duration::from_secs), "{text:?}");
        }
        let several = ["soon", "5", "Sun, 06 Nov 1994 08:49:47 GMT", "-1"];
        let several = several.map(|text| (RETRY_AFTER, HeaderValue::from_static(text))).into_iter().collect();
        assert_eq!(of(&several, || now), Some(Duration::from_secs(10)));
        assert_eq!(of(&HeaderMap::new(), || now), None);
    }
}
