//! Which headers may reach the vendor. All others are a leak.

use hyper::http::request::Parts;
use hyper::{HeaderMap, Version};

use super::app::Dialect;

/// What a request may carry besides its credential.
const KNOWN: [&str; 8] = [
    "host",
    "accept",
    "accept-language",
    "content-encoding",
    "content-length",
    "content-type",
    "transfer-encoding",
    "user-agent",
];

/// The names of headers that have no business at the vendor.
pub(super) fn leaks(headers: &HeaderMap, dialect: Dialect) -> Vec<String> {
    let (token, uid) = dialect.token_headers();
    let known = |name: &str| KNOWN.contains(&name) || name == "authorization" || name == token || name == uid;
    headers
        .iter()
        .filter(|(name, value)| match name.as_str() {
            // Of the connection itself and no further.
            "connection" => !matches!(value.as_bytes(), b"close" | b"keep-alive"),
            // What the gateway says of its own reads, and no caller's.
            "accept-encoding" => value.as_bytes() != b"identity",
            name => !known(name),
        })
        .map(|(name, _)| name.as_str().to_owned())
        .collect()
}

/// What is wrong with the head besides its headers' names.
pub(super) fn oddities(head: &Parts) -> Option<&'static str> {
    if head.version < Version::HTTP_2 && head.uri.authority().is_some() {
        return Some("a target in absolute form");
    }
    if head.version < Version::HTTP_2 && head.headers.get_all("host").iter().count() != 1 {
        return Some("not exactly one Host");
    }
    if head.headers.contains_key("content-length") && head.headers.contains_key("transfer-encoding") {
        return Some("both Content-Length and Transfer-Encoding");
    }
    None
}
