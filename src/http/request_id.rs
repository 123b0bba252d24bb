//! The name of a request: the caller's own if it is sane, else a new one.
//!
//! Invariant: it can stand in a header, a log line or a JSON string without escaping.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// The header that carries it, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's name: text that is a header's value already. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's, when it sent exactly one of 1 to 128 harmless characters; else a new one of 128 random bits.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut all = headers.get_all(X_REQUEST_ID).iter();
        match (all.next(), all.next()) {
            // Copied: it would keep the whole buffer that the head was read into.
            (Some(own), None) if is_sane(own.as_bytes()) => Self::of_text(own.as_bytes()),
            _ => Self::random(),
        }
    }

    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let random = rand::random::<u128>().to_be_bytes();
        let mut text = [0; 32];
        for (two, byte) in text.chunks_exact_mut(2).zip(random) {
            two.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        Self::of_text(&text)
    }

    /// Harmless characters are a header's value.
    fn of_text(text: &[u8]) -> Self {
        Self(HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("unprintable")))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("unprintable")
    }

    /// The text as a header's value.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_sane(text: &[u8]) -> bool {
    let harmless = |b: &u8| b.is_ascii_alphanumeric() || b"._~-+/=:@".contains(b);
    (1..=128).contains(&text.len()) && text.iter().all(harmless)
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
            assert!(is_sane(new.as_bytes()));
        }
        assert_eq!(of(&[b"a", b"b"]).len(), 32);
        assert_ne!(of(&[]), of(&[]));
    }
}
