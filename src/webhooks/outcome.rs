//! What came of a try, and what follows from it. The rules are those of Standard Webhooks, "Delivery success and
//! failure".
//!
//! Invariant: only a 2xx is a delivery. No text of an endpoint's answer gets into a log or a metric.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode};

use crate::kernel::clock::UnixMillis;
use crate::upstream::pool::retry_after;

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Outcome {
    #[error("delivered")]
    Delivered,
    #[error("the endpoint answered 410: it wants no more events")]
    Gone,
    #[error("the endpoint answered {status}: it has too much to do")]
    SlowDown {
        status: u16,
        /// What it said of how long to wait.
        after: Option<Duration>,
    },
    #[error("the endpoint answered {0}, and redirects are not followed: write the address it points to")]
    Redirected(u16),
    #[error("the endpoint answered {0}")]
    Refused(u16),
    #[error("the endpoint did not answer within {0:?}")]
    Slow(Duration),
    #[error("the endpoint cannot be reached: {0}")]
    Unreachable(String),
    #[error("the endpoint may not be asked: {0}")]
    Forbidden(crate::kernel::targets::TargetRefused),
}

impl Outcome {
    /// Of an answer that came at `now`.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, now: UnixMillis) -> Self {
        match status.as_u16() {
            200..300 => Self::Delivered,
            410 => Self::Gone,
            status @ (429 | 502..=504) => Self::SlowDown { status, after: retry_after::of(headers, || now) },
            status @ 300..400 => Self::Redirected(status),
            status => Self::Refused(status),
        }
    }

    /// The answer's status; `None` where there was no answer. A delivery's is not kept.
    pub(super) fn status(&self) -> Option<u16> {
        match *self {
            Self::Gone => Some(410),
            Self::SlowDown { status, .. } | Self::Redirected(status) | Self::Refused(status) => Some(status),
            Self::Delivered | Self::Slow(_) | Self::Unreachable(_) | Self::Forbidden(_) => None,
        }
    }

    /// All labels that there are.
    pub(super) const LABELS: [&str; 8] =
        ["delivered", "gone", "slow_down", "redirected", "refused", "timeout", "unreachable", "forbidden"];

    /// The metric's label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::SlowDown { .. } => "slow_down",
            Self::Redirected(_) => "redirected",
            Self::Refused(_) => "refused",
            Self::Slow(_) => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Forbidden(_) => "forbidden",
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderValue, RETRY_AFTER};

    use super::*;

    #[test]
    fn every_status_has_one_meaning() {
        let of = |status: u16| Outcome::of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), UnixMillis(0));
        for status in 200..600 {
            let label = match status {
                200..=299 => "delivered",
                300..=399 => "redirected",
                410 => "gone",
                429 | 502 | 503 | 504 => "slow_down",
                _ => "refused",
            };
            assert_eq!(of(status).label(), label, "{status}");
        }
    }

    #[test]
    fn an_endpoint_may_say_when_to_come_again_in_seconds_or_as_a_date() {
        let now = UnixMillis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, seconds) in [("7", Some(7)), ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)), ("soon", None)] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            let after = seconds.map(Duration::from_secs);
            for status in [429, 502, 503, 504] {
                let outcome = Outcome::of(StatusCode::from_u16(status).unwrap(), &headers, now);
                assert_eq!(outcome, Outcome::SlowDown { status, after }, "{text}");
            }
        }
    }
}
