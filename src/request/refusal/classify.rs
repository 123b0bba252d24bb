//! Where the services' failures become refusals: each is classified once, here, where it enters the request path.
//!
//! Invariant: no wildcard. A new way to fail does not compile until somebody has said what its caller is told.

use hyper::StatusCode;

use super::Shed;
use crate::events::{AckError, ReadError};
use crate::history;
use crate::kernel::proof::Ended;
use crate::request::refusal::Refusal;
use crate::upstream::egress::{Failure, Reply};

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let cause = failure.to_string();
        match failure {
            Failure::QuotaSpent { bucket, limit, retry_after, vendor } => {
                let in_force = vendor.map(|vendor| vendor.in_force);
                Self::QuotaExceeded { bucket, limit, retry_after, in_force, cause }
            }
            Failure::CredentialUnavailable(_) => Self::CredentialUnavailable(cause),
            Failure::Lost { .. } | Failure::TooLarge | Failure::Overlong { .. } | Failure::Undecodable { .. } => {
                Self::BadUpstream(cause)
            }
            Failure::CredentialRefused => Self::CredentialRefused,
            // Nothing was sent, so asking again is safe: 503, as Envoy answers it.
            Failure::Crowded(_) => Self::shed(Shed::QuotaLine),
            Failure::NoRoom => Self::shed(Shed::ResponseMemory),
            Failure::RegionDown { retry_after, .. } | Failure::AskedToWait { retry_after, .. } => {
                Self::RegionDown { cause, retry_after }
            }
            Failure::Unreachable(_) | Failure::Unprocessed(_) | Failure::Stopping => Self::Unavailable(cause),
            Failure::TimedOut { sent } => Self::UpstreamTimeout { cause, sent },
            // It was there when the request was granted: a reload took it away.
            Failure::NoSuchApp => Self::Forbidden,
            Failure::Unproven(how) => how.into(),
        }
    }
}

impl From<Ended> for Refusal {
    fn from(how: Ended) -> Self {
        match how {
            Ended::Expired | Ended::Withdrawn => Self::Unauthenticated,
            Ended::Forbidden => Self::Forbidden,
        }
    }
}

impl From<AckError> for Refusal {
    fn from(error: AckError) -> Self {
        match error {
            AckError::LeaseExpired => Self::LeaseExpired,
            AckError::NoSuchStream => Self::NoSuchRoute,
            AckError::Store(why) => Self::Unavailable(why.to_string()),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let cause = error.to_string();
        match error {
            ReadError::Expired { earliest, lost } => Self::CursorExpired { earliest: earliest.to_string(), lost },
            ReadError::Ahead => Self::bad("after, from or Last-Event-ID: the cursor is no place in this stream"),
            ReadError::OfAnotherStream => {
                Self::bad("after, from or Last-Event-ID: the cursor is of the app's other stream")
            }
            ReadError::NoSuchStream | ReadError::NoSuchSubscription | ReadError::NoSuchDeadLetter => Self::NoSuchRoute,
            ReadError::TooManySubscriptions => Self::TooManySubscriptions { most: None },
            ReadError::TooManyOfClient { most } => Self::TooManySubscriptions { most: Some(most) },
            ReadError::BeingRemoved => Self::Unavailable(cause),
            ReadError::Store(_) => Self::Unavailable(cause),
        }
    }
}

impl From<history::Error> for Refusal {
    fn from(error: history::Error) -> Self {
        use history::Error;

        let cause = error.to_string();
        let answered = |reply: &Reply| format!("the vendor answered {}", reply.status);
        match error {
            Error::BadRequest(detail) => Self::BadRequest(detail),
            Error::StillRunning { location } => Self::StillRunning { location },
            Error::NoSuchHandle => Self::NoSuchHandle,
            Error::AppRefused => Self::AppRefused,
            // Where the answer has begun, so that the vendor's own can no longer be passed on.
            Error::Refused(reply) if reply.status == StatusCode::SERVICE_UNAVAILABLE => {
                Self::Unavailable(answered(&reply))
            }
            Error::Refused(reply) => Self::BadUpstream(answered(&reply)),
            Error::BadUpstream(_) | Error::Failing { .. } => Self::BadUpstream(cause),
            Error::Egress(failure) => failure.into(),
            Error::Crowded => Self::shed(Shed::HistoryJobs),
        }
    }
}
