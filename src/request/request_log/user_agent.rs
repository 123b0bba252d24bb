//! What the access log repeats of a caller's `User-Agent`.
//!
//! Invariants: at most [`MOST`] bytes, of printable ASCII. It is the caller's own text, so it may hold anything, a key
//! that was put into the wrong header included: what is as long as a key and is no `product/version` is left out, and
//! so is all of it where it holds what the request shows as its credential. A short password by itself cannot be told
//! from a word.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, USER_AGENT};

use crate::http::headers::X_API_KEY;

/// Bytes that are shown.
const MOST: usize = 256;

/// The longest word that is taken for one. Keys that the gateway makes have 48 characters, those of other makers 32.
const WORD: usize = 24;

/// Where credentials are shown.
const CREDENTIALS: [HeaderName; 2] = [AUTHORIZATION, X_API_KEY];

/// The shortest credential that is looked for: a shorter one is in any text.
const CREDENTIAL: usize = 6;

/// What is left out.
const LEFT_OUT: &str = "…";

/// What the log may repeat of who says to be calling; empty when nothing is said, or nothing that is text.
pub(super) fn user_agent(headers: &HeaderMap) -> String {
    let Some(said) = headers.get(USER_AGENT).map(|value| value.as_bytes()) else { return String::new() };
    if CREDENTIALS.iter().flat_map(|name| headers.get_all(name)).any(|shown| holds(said, shown.as_bytes())) {
        return LEFT_OUT.to_owned();
    }
    let mut shown = String::with_capacity(said.len().min(MOST));
    for part in said.split_inclusive(|byte| is_between(*byte)) {
        let (word, between) = match part.split_last() {
            Some((last, word)) if is_between(*last) => (word, Some(*last)),
            _ => (part, None),
        };
        let word = if is_word(word) { std::str::from_utf8(word).unwrap_or(LEFT_OUT) } else { LEFT_OUT };
        if shown.len() + word.len() + LEFT_OUT.len() > MOST {
            shown.push_str(LEFT_OUT);
            break;
        }
        shown.push_str(word);
        shown.extend(between.map(|byte| if byte.is_ascii_graphic() { char::from(byte) } else { ' ' }));
    }
    shown
}

/// Whether the text holds what a header shows: the key, or what stands behind the scheme.
fn holds(text: &[u8], shown: &[u8]) -> bool {
    let credential = shown.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    credential.len() >= CREDENTIAL && memchr::memmem::find(text, credential).is_some()
}

/// Whether this stands between two words, or is nothing that is printed.
fn is_between(byte: u8) -> bool {
    !byte.is_ascii_graphic() || b"(),;\"".contains(&byte)
}

/// Whether this is a word, or a product and its version.
fn is_word(word: &[u8]) -> bool {
    let is_version = |version: &[u8]| {
        let begins = version.first().is_some_and(|first| first.is_ascii_digit() || *first == b'v');
        begins && version.len() <= WORD && !version.contains(&b'/')
    };
    let slash = word.iter().position(|byte| *byte == b'/');
    word.len() <= WORD || slash.is_some_and(|at| at <= WORD && is_version(&word[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(user_agent: &[u8], credentials: &[(HeaderName, &str)]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, hyper::header::HeaderValue::from_bytes(user_agent).unwrap());
        for (name, value) in credentials {
            headers.append(name, value.parse().unwrap());
        }
        super::user_agent(&headers)
    }

    #[test]
    fn what_software_says_of_itself_is_shown_as_it_is() {
        for said in [
            "curl/8.5.0",
            "python-requests/2.31.0",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            "aws-sdk-java/2.20.1 Linux/5.10 OpenJDK_64-Bit_Server_VM/11.0.18+10-LTS",
            "kube-probe/1.29",
            "Go-http-client/1.1",
            "billing (+https://a.example/b)",
        ] {
            assert_eq!(shown(said.as_bytes(), &[]), said);
        }
    }

    #[test]
    fn what_may_be_a_key_is_left_out_and_so_is_what_the_request_shows() {
        let key = "rtmk_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFy";
        for (said, expected) in [
            (format!("billing/2 {key} (x; key={key})"), "billing/2 … (x; …)".to_owned()),
            (format!("{}/+&=~{}", &key[5..21], &key[21..37]), "…".to_owned()),
            (format!("a/{key}"), "…".to_owned()),
            (format!("{key}/1.0"), "…".to_owned()),
            ("0123456789abcdef0123456789abcdef".to_owned(), "…".to_owned()),
            ("https://user:QWxhZGRpbjpvcGVuIHNlc2FtZQ@host/".to_owned(), "…".to_owned()),
        ] {
            assert_eq!(shown(said.as_bytes(), &[]), expected);
        }
        assert_eq!(shown(b"x s3cret-key y", &[(X_API_KEY, "s3cret-key")]), "…");
        assert_eq!(shown(b"x s3cret-key y", &[(AUTHORIZATION, "Bearer s3cret-key")]), "…");
        assert_eq!(shown(b"curl/8", &[(AUTHORIZATION, "Bearer 8")]), "curl/8");
    }

    #[test]
    fn it_is_bounded_and_of_printable_characters() {
        assert_eq!(shown("a\u{e9}\tb".as_bytes(), &[]), "a   b");
        let long = shown("word/1 ".repeat(100).as_bytes(), &[]);
        assert!(long.len() <= MOST && long.ends_with('…'), "{long}");
        assert_eq!(super::user_agent(&HeaderMap::new()), "");
    }
}
