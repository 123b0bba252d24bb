//! The few headers that are read: `Retry-After` of the vendor; `Prefer`, `Cache-Control`, `Content-Type` and
//! `X-Request-Id` of callers.
//!
//! Input: a header a line.

use std::time::{Duration, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use rtm_gateway::http::headers::prefer::Prefer;
use rtm_gateway::http::headers::{coming_back, is_plain_json, leaving, max_age};
use rtm_gateway::http::request_id::{RequestId, X_REQUEST_ID};
use rtm_gateway::kernel::clock::UnixMillis;
use rtm_gateway::upstream::pool::fuzzing::retry_after;

/// 6 November 1994, 08:49:37 UTC: RFC 9110's own example.
const NOW: u64 = 784_111_777_000;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&b| b == b'\n') {
        let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    for value in headers.get_all(RETRY_AFTER) {
        a_wait_is_what_the_rfc_says(value);
    }
    a_preference_is_applied_as_said(&headers);
    a_request_id_needs_no_escaping(&headers);
    let _ = max_age(&headers);
    if is_plain_json(&headers) && headers.contains_key(CONTENT_TYPE) {
        let text = headers[CONTENT_TYPE].to_str().expect("text").to_ascii_lowercase();
        let essence = text.split(';').next().unwrap_or_default().trim();
        assert!(essence == "application/json" || essence.ends_with("+json"), "{text}");
    }
    for secret in ["authorization", "cookie", "x-api-key", "x-ar-token", "x-agora-token", "host", "connection"] {
        assert!(leaving(&headers).iter().all(|(name, _)| name != secret));
        assert!(!coming_back(headers.clone()).contains_key(secret));
    }
}

fn a_wait_is_what_the_rfc_says(value: &HeaderValue) {
    // As long as any duration of the configuration may be: `upstream.max_retry_after` decides.
    let longest = Duration::from_secs(3650 * 24 * 3600);
    let wait = retry_after(value, UnixMillis(NOW));
    assert!(wait.is_none_or(|wait| wait <= longest));
    let Ok(text) = value.to_str() else { return assert_eq!(wait, None) };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = text.trim_start_matches('0').parse::<u64>().unwrap_or(if text.contains(|c| c != '0') {
            u64::MAX
        } else {
            0
        });
        assert_eq!(wait, Some(Duration::from_secs(seconds).min(longest)));
    } else if let Ok(date) = httpdate::parse_http_date(text) {
        // All three forms of a date (RFC 9110, 5.6.7).
        let until = date.duration_since(UNIX_EPOCH).unwrap_or_default();
        assert_eq!(wait, Some(until.saturating_sub(Duration::from_millis(NOW)).min(longest)), "{text}");
    }
}

fn a_preference_is_applied_as_said(headers: &HeaderMap) {
    let cap = Duration::from_secs(30);
    let prefer = Prefer::of(headers);
    assert!(prefer.within(cap) <= cap);
    let Some(applied) = prefer.applied(cap) else { return assert_eq!(prefer, Prefer::default()) };
    let again = Prefer::of(&HeaderMap::from_iter([(HeaderName::from_static("prefer"), applied)]));
    assert_eq!(again, Prefer { wait: prefer.wait.map(|wait| wait.min(cap)), ..prefer });
}

fn a_request_id_needs_no_escaping(headers: &HeaderMap) {
    let id = RequestId::of(headers);
    assert_eq!(serde_json::to_string(id.as_str()).ok(), Some(format!("\"{id}\"")));
    assert_eq!(id.header_value(), *id.as_str());
    if let Some(own) = headers.get(X_REQUEST_ID)
        && own.as_bytes() != id.as_str().as_bytes()
    {
        assert_eq!(id.as_str().len(), 32, "neither the caller's nor a new one");
    }
}
