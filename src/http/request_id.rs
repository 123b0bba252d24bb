//! The name of a request: the caller's own if it is sane, else a new one.
//!
//! Invariant: it can stand in a header, a log line or a JSON string without escaping.

use std::fmt;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// The header that carries it, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's, when it sent exactly one of 1 to 128 harmless characters; else a new one of 128 random bits.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut all = headers.get_all(X_REQUEST_ID).iter();
        match (all.next().and_then(|v| v.to_str().ok()), all.next()) {
            (Some(own), None) if is_sane(own) => Self(own.into()),
            _ => Self::random(),
        }
    }

    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as a header's value.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("unprintable"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_sane(text: &str) -> bool {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"._~-+/=:@".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        RequestId::of(&headers).to_string()
    }

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        assert_eq!(of(&[b"abc-1.2_3~x"]), "abc-1.2_3~x");
        assert_eq!(of(&[b"a".repeat(128).as_slice()]).len(), 128);
        let long = b"a".repeat(129);
        for bad in [&b""[..], b"a b", b"a\"b", b"{}", "é".as_bytes(), long.as_slice()] {
            let new = of(&[bad]);
            assert_eq!(new.len(), 32, "{new}");
            assert!(is_sane(&new));
        }
        assert_eq!(of(&[b"a", b"b"]).len(), 32);
        assert_ne!(of(&[]), of(&[]));
    }
}
