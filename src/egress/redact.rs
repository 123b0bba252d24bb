//! The vendor's answer without what it repeats of the gateway's credential.
//!
//! Invariants: nothing of an answer goes on but through [`clean`], so neither callers, logs, the store nor the quarantine
//! ever hold a credential that the vendor repeated. Data without one are passed on uncopied. A body that came encoded
//! (nobody asked for that) cannot be searched: it is withheld, but for an events read, which must not lose what it has
//! removed and which nobody sees but the quarantine.

use bytes::Bytes;
use hyper::header::CONTENT_ENCODING;
use hyper::{HeaderMap, StatusCode};

use crate::order::Safety;
use crate::secret::redact::{Redactor, Text};
use crate::upstream::BodyFault;

/// Cleans an answer: its headers in place, and its body, whole or in part.
pub(super) fn clean(
    redactor: &Redactor,
    (status, safety): (StatusCode, Safety),
    headers: &mut HeaderMap,
    body: Result<Bytes, BodyFault>,
) -> Result<Bytes, BodyFault> {
    let tainted: Vec<_> =
        headers.iter().filter(|(_, v)| redactor.is_in(v.as_bytes())).map(|(n, _)| n.clone()).collect();
    for name in tainted {
        headers.remove(name);
    }
    if safety != Safety::Destructive && is_encoded(headers) {
        headers.remove(CONTENT_ENCODING);
        return body.map(|_| Bytes::new()).map_err(|fault| with_partial(fault, |_| Bytes::new()));
    }
    let kind = if status.is_success() { Text::Data } else { Text::Words };
    body.map(|body| redactor.clean(body, kind))
        .map_err(|fault| with_partial(fault, |partial| redactor.clean(partial, Text::Cut)))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn with_partial(fault: BodyFault, change: impl FnOnce(Bytes) -> Bytes) -> BodyFault {
    match fault {
        BodyFault::Cut { why, partial } => BodyFault::Cut { why, partial: change(partial) },
        BodyFault::Slow { partial } => BodyFault::Slow { partial: change(partial) },
        BodyFault::TooLarge => BodyFault::TooLarge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "006the-token-of-the-app";

    fn cleaned(status: u16, safety: Safety, encoding: &str, body: Result<&str, BodyFault>) -> (HeaderMap, String) {
        let redactor = Redactor::new([TOKEN.as_bytes()]);
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", encoding.parse().unwrap());
        headers.insert("retry-after", format!("7; {TOKEN}").parse().unwrap());
        headers.insert("content-type", "text/plain".parse().unwrap());
        let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
        let status = StatusCode::from_u16(status).unwrap();
        let body = match clean(&redactor, (status, safety), &mut headers, body) {
            Ok(whole) | Err(BodyFault::Cut { partial: whole, .. } | BodyFault::Slow { partial: whole }) => whole,
            Err(BodyFault::TooLarge) => Bytes::new(),
        };
        (headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn whatever_the_status_a_repeated_credential_goes_no_further() {
        let echo = format!("bad token {TOKEN}!");
        for status in [200, 400, 404, 500] {
            for safety in [Safety::Destructive, Safety::Idempotent, Safety::Once] {
                let (headers, body) = cleaned(status, safety, "identity", Ok(&echo));
                assert_eq!(body, "bad token <redacted>!");
                let names: Vec<_> = headers.keys().map(hyper::header::HeaderName::as_str).collect();
                assert_eq!(names.len(), 2, "{names:?}");
                assert!(!names.contains(&"retry-after"));
            }
        }
        let partial = Bytes::copy_from_slice(format!("bad {}", &TOKEN[..9]).as_bytes());
        let cut = BodyFault::Cut { why: "reset".into(), partial: partial.clone() };
        assert_eq!(cleaned(200, Safety::Destructive, "identity", Err(cut)).1, "bad <redacted>");
        assert_eq!(cleaned(200, Safety::Once, "identity", Err(BodyFault::Slow { partial })).1, "bad <redacted>");
    }

    #[test]
    fn what_cannot_be_searched_is_withheld_unless_events_would_be_lost() {
        let (headers, body) = cleaned(400, Safety::Once, "gzip", Ok("packed"));
        assert_eq!((body.as_str(), headers.get("content-encoding")), ("", None));
        let (headers, body) = cleaned(200, Safety::Destructive, "gzip", Ok("packed"));
        assert_eq!((body.as_str(), headers.get("content-encoding").is_some()), ("packed", true));
    }
}
