//! Headers: which may leave, which come back, and how the few that we read are read.
//!
//! Invariant: what goes to the vendor and what comes back are lists of what is allowed; a header nobody thought of
//! stays.

pub mod accept;
mod list;
pub mod prefer;

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{
    ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, COOKIE,
    HeaderName, HeaderValue, PRAGMA, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT,
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

/// Whether a caller's header of this name may leave.
#[must_use]
pub fn may_leave(name: &HeaderName) -> bool {
    MAY_LEAVE.contains(name)
}

/// The caller's headers that may leave, in the order in which they came.
#[must_use]
pub fn leaving(from: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    from.iter().filter(|(name, _)| may_leave(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The vendor's headers that come back.
#[must_use]
pub fn coming_back(mut from: HeaderMap) -> HeaderMap {
    // What egress hands on has few that do not.
    while let Some(name) = from.keys().find(|name| !MAY_COME_BACK.contains(name)).cloned() {
        from.remove(name);
    }
    from
}

/// Whether a list header (RFC 9110, 5.6.1) of any number of lines holds this token, case-insensitively.
#[must_use]
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    list::items(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

/// How old a kept result may be that the caller is given; `None`: that is left to us (RFC 9111, 5.2.1 and 5.4).
/// `no-cache` and `no-store` have no argument, so one that is there is passed over; an age that is no number is none.
#[must_use]
pub fn max_age(headers: &HeaderMap) -> Option<Duration> {
    // `Pragma` is only for those who know no `Cache-Control` (RFC 9111, 5.4).
    if !headers.contains_key(CACHE_CONTROL) {
        return has_token(headers, &PRAGMA, "no-cache").then_some(Duration::ZERO);
    }
    let age = |item| {
        let (name, value) = list::named(item);
        match name.to_ascii_lowercase().as_str() {
            "no-cache" | "no-store" => Some(0),
            "max-age" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                // What does not fit is a very long time (1.2.2).
                Some(value.parse().unwrap_or(u64::MAX))
            }
            // One that cannot be read is taken for stale (4.2.1).
            "max-age" => Some(0),
            _ => None,
        }
    };
    list::items(headers, &CACHE_CONTROL).filter_map(age).min().map(Duration::from_secs)
}

/// Whether the body is JSON by its headers: `Content-Type` absent, `application/json` or `…+json`, and no encoding.
#[must_use]
pub fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let json = match (types.next(), types.next()) {
        (None, _) => true,
        (Some(one), None) => one.to_str().is_ok_and(is_json),
        // Which of two the vendor would go by is not known.
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
        let mut left: Vec<String> = leaving(&sent).iter().map(|(name, _)| name.to_string()).collect();
        left.sort();
        assert_eq!(left, ["accept", "content-type", "user-agent"]);
    }

    #[test]
    fn only_listed_headers_come_back() {
        let mut said =
            map(&[("content-type", "text/plain"), ("date", "d"), ("set-cookie", "a=b"), ("retry-after", "1")]);
        said.append(CONTENT_LANGUAGE, "de".parse().unwrap());
        said.append(CONTENT_LANGUAGE, "en".parse().unwrap());
        let back = coming_back(said);
        let mut names: Vec<_> = back.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-language", "content-type", "retry-after"]);
        assert_eq!(back.get_all(CONTENT_LANGUAGE).iter().count(), 2);
    }

    #[test]
    fn how_old_a_kept_result_may_be_is_read_as_the_rfc_says() {
        let of = |pairs: &[(&str, &str)]| max_age(&map(pairs)).map(|age| age.as_secs());
        for (cache_control, age) in [
            ("no-cache", Some(0)),
            ("No-Store", Some(0)),
            ("no-cache=\"x\"", Some(0)),
            ("max-age=0", Some(0)),
            ("max-stale, max-age=\"10\"", Some(10)),
            ("max-age=10, no-cache", Some(0)),
            ("max-age=99999999999999999999", Some(u64::MAX)),
            ("max-age=soon", Some(0)),
            ("private=\"a, no-cache\"", None),
            ("", None),
        ] {
            assert_eq!(of(&[("cache-control", cache_control)]), age, "{cache_control}");
            // Which is for those who know no better.
            assert_eq!(of(&[("cache-control", cache_control), ("pragma", "no-cache")]), age, "{cache_control}");
        }
        assert_eq!((of(&[("pragma", "No-Cache")]), of(&[("pragma", "x")]), of(&[])), (Some(0), None, None));
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
