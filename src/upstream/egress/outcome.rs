//! How an attempt at an order ended.

use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};

use super::Failure;
use crate::kernel::names::RegionName;

/// An answer without its costs.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) region: RegionName,
    /// The vendor's wish before another try; zero when it gave none.
    pub(super) retry_after: Duration,
}

pub(super) enum AttemptOutcome {
    /// With an answer for whoever ordered.
    Answered(Answer),
    /// With a 429: not processed. The bucket knows.
    OverLimit,
    /// With a 401: not processed. The credential's breaker knows.
    Unauthorized,
    Failed(Failure),
}

impl AttemptOutcome {
    /// How long the vendor wants to be left alone before this order is sent there again.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Answered(answer) if is_vendors_failure(answer.status) => answer.retry_after,
            Self::Answered(_) | Self::OverLimit | Self::Unauthorized | Self::Failed(_) => Duration::ZERO,
        }
    }

    /// How long it wants to be left alone by all orders of the kind.
    pub(super) fn hold(&self) -> Option<Duration> {
        let is_503 = matches!(self, Self::Answered(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE);
        is_503.then(|| self.retry_after()).filter(|asked| !asked.is_zero())
    }

    /// What came, in words.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Failed(why) => why.to_string(),
            Self::Answered(answer) => format!("it answered {}", answer.status.as_u16()),
            Self::OverLimit => "it answered 429".to_owned(),
            Self::Unauthorized => "it answered 401".to_owned(),
        }
    }
}

/// 408 is the vendor's word for its own time-out (its page).
pub(super) fn is_vendors_failure(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}
