//! Why a request to a gateway came to nothing, and whether another try may come to something.
//!
//! Invariant: what a server says is shown without control characters and in part only: it cannot write to a terminal
//! what it likes.

use std::error::Error;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

/// Why a request came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::cli) enum Fault {
    /// The connection was not made, or was cut.
    #[error("{0}")]
    Lost(String),
    /// The gateway cannot now.
    #[error("{said}")]
    Busy { said: String, after: Option<Duration> },
    /// The gateway does not.
    #[error("refused: {0}")]
    Refused(String),
    /// It is not the gateway that it should be, as far as its certificate shows.
    #[error("the gateway's certificate is not trusted: {0}; see --ca-file")]
    Untrusted(String),
    /// The request cannot be written down.
    #[error("{0}")]
    Impossible(String),
}

#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
}

impl Fault {
    /// Whether another try may come to something.
    pub(in crate::cli) fn may_pass(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Busy { .. })
    }

    /// How long the gateway asked us to stay away.
    pub(in crate::cli) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }

    /// What became of a connection.
    pub(super) fn of(why: &(dyn Error + 'static)) -> Self {
        let mut all = String::new();
        let mut next = Some(why);
        while let Some(why) = next {
            if let Some(rustls::Error::InvalidCertificate(why)) = why.downcast_ref() {
                return Self::Untrusted(plain(&why.to_string()));
            }
            // An I/O error says what the one within says.
            let said = why.to_string();
            if !all.ends_with(&said) {
                all = if all.is_empty() { said } else { format!("{all}: {said}") };
            }
            next = cause(why);
        }
        Self::Lost(plain(&all))
    }

    /// What an answer that is not 200 says.
    pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self::said(status, &problem.detail, after.map(Duration::from_secs))
    }

    /// What the gateway says of a request, in an answer's head or in a stream.
    pub(in crate::cli) fn said(status: StatusCode, detail: &str, after: Option<Duration>) -> Self {
        let detail = plain(detail);
        let said = if detail.is_empty() { status.to_string() } else { format!("{}: {detail}", status.as_u16()) };
        match status.as_u16() {
            // What the gateway itself calls passing. 501 and 505 and up are not: they will be the same the next time.
            408 | 425 | 429 | 500 | 502..=504 => Self::Busy { said, after },
            _ => Self::Refused(said),
        }
    }
}

/// What an error wraps. `source` of an I/O error passes over the error within, and gives what is behind that.
fn cause<'a>(why: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match why.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(within) => Some(within),
        None => why.source(),
    }
}

/// Text that is somebody else's, as it may be shown.
pub(in crate::cli) fn plain(text: &str) -> String {
    // ESC alone can move a terminal's cursor or rename its window; five hundred characters say what is wrong.
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        let said = |status: u16, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, "7".parse().unwrap());
            Fault::refused(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
        };
        for status in [400, 401, 403, 404, 406, 410, 302] {
            assert!(!said(status, "{}").may_pass(), "{status}");
        }
        for status in [429, 500, 502, 503, 504] {
            assert!(said(status, "<html>").may_pass(), "{status}");
        }
        assert_eq!(said(503, "").retry_after(), Some(Duration::from_secs(7)));
        let refused = said(400, "{\"detail\":\"from: not under\\u001b[31mstood\",\"x\":1}");
        assert_eq!(refused.to_string(), "refused: 400: from: not under [31mstood");
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_found_however_deep_and_is_final() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let deep = std::io::Error::other(std::io::Error::new(std::io::ErrorKind::InvalidData, tls));
        let fault = Fault::of(&deep);
        assert!(matches!(fault, Fault::Untrusted(_)) && !fault.may_pass(), "{fault:?}");
        assert!(Fault::of(&std::io::Error::other("reset")).may_pass());
    }
}
