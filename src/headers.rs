//! Headers: which may leave, which come back, and how the few that we read are read.
//!
//! Invariant: what goes to the vendor and what comes back are lists of what is allowed; a header nobody thought of
//! stays.

pub mod accept;
pub mod prefer;

use hyper::HeaderMap;
use hyper::header::{
    ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, COOKIE,
    HeaderName, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT,
};

/// Who decided a response's status: `gateway` or `vendor`.
pub const X_RTM_ORIGIN: HeaderName = HeaderName::from_static("x-rtm-origin");
/// The place after the last event of a response.
pub const X_RTM_CURSOR: HeaderName = HeaderName::from_static("x-rtm-cursor");
/// A caller's key.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What is left of a quota (draft-ietf-httpapi-ratelimit-headers).
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// A quota (draft-ietf-httpapi-ratelimit-headers).
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Of a caller's headers, these may leave. Nothing else does.
const MAY_LEAVE: [HeaderName; 5] = [ACCEPT, CONTENT_TYPE, CONTENT_ENCODING, ACCEPT_LANGUAGE, USER_AGENT];
/// What callers show themselves by, here or elsewhere.
const SECRET: [HeaderName; 4] = [AUTHORIZATION, X_API_KEY, COOKIE, PROXY_AUTHORIZATION];
/// Of the vendor's headers, these come back.
const MAY_COME_BACK: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, RETRY_AFTER];

/// Marks what callers show themselves by, so that no `Debug` prints it.
pub fn mark_credentials(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        if SECRET.contains(name) {
            value.set_sensitive(true);
        }
    }
}

/// The caller's headers that may leave.
#[must_use]
pub fn leaving(from: &HeaderMap) -> HeaderMap {
    only(from, &MAY_LEAVE)
}

/// The vendor's headers that come back.
#[must_use]
pub fn coming_back(from: &HeaderMap) -> HeaderMap {
    only(from, &MAY_COME_BACK)
}

fn only(from: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(names.len());
    for name in names {
        for value in from.get_all(name) {
            kept.append(name, value.clone());
        }
    }
    kept
}

/// Whether a list header (RFC 9110, 5.6.1) of any number of lines holds this token, case-insensitively.
#[must_use]
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Whether the caller wants no kept result (`Cache-Control: no-cache`).
#[must_use]
pub fn wants_fresh(headers: &HeaderMap) -> bool {
    has_token(headers, &CACHE_CONTROL, "no-cache") || has_token(headers, &CACHE_CONTROL, "no-store")
}

/// Whether the body is JSON by its headers: `Content-Type` absent, `application/json` or `…+json`, and no encoding.
#[must_use]
pub fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let json = match (types.next(), types.next()) {
        (None, _) => true,
        (Some(one), None) => one.to_str().is_ok_and(is_json),
        (Some(_), Some(_)) => false,
    };
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    json && encodings.all(|v| v.to_str().is_ok_and(|v| v.trim().eq_ignore_ascii_case("identity")))
}

fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_utf8 = |p: &str| match p.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    let json = essence == "application/json" || (essence.contains('/') && essence.ends_with("+json"));
    json && parts.all(is_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let name = |n: &str| HeaderName::try_from(n).unwrap();
        pairs.iter().map(|(n, v)| (name(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn only_listed_headers_leave() {
        let sent = map(&[
            ("accept", "application/json"),
            ("content-type", "text/plain"),
            ("user-agent", "u"),
            ("authorization", "Basic x"),
            ("cookie", "a=b"),
            ("x-api-key", "k"),
            ("x-ar-token", "t"),
            ("x-agora-uid", "u"),
            ("x-forwarded-for", "1.2.3.4"),
            ("traceparent", "00-"),
            ("connection", "close"),
            ("host", "h"),
        ]);
        let mut left: Vec<String> = leaving(&sent).keys().map(ToString::to_string).collect();
        left.sort();
        assert_eq!(left, ["accept", "content-type", "user-agent"]);
    }

    #[test]
    fn json_is_told_from_what_is_not() {
        for (content_type, json) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/problem+json", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("+json", false),
            ("", false),
        ] {
            assert_eq!(is_plain_json(&map(&[("content-type", content_type)])), json, "{content_type}");
        }
        assert!(is_plain_json(&map(&[])));
        assert!(is_plain_json(&map(&[("content-encoding", "identity")])));
        assert!(!is_plain_json(&map(&[("content-encoding", "gzip")])));
        let mut twice = map(&[("content-type", "application/json")]);
        twice.append(CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(!is_plain_json(&twice));
    }
}
