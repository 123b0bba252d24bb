//! Why a request is refused: the one error type of the request path.
//!
//! Invariants: every refusal has one status and one code, by a table without a wildcard, so a new variant does not
//! compile until it has both. What the caller reads ([`Refusal::detail`]) is made of our own words and of values the
//! caller sent or may see; what went wrong inside ([`Refusal::cause`]) goes to the log only.
//!
//! | file | what |
//! | --- | --- |
//! | `classify` | which refusal a failure of a service is |
//! | `problem` | what the caller reads: body and headers |
//! | `limits` | what may be used up |

mod classify;
mod limits;
mod problem;

use std::time::Duration;

use hyper::StatusCode;

use crate::config::Limit;
use crate::kernel::names::BucketName;
pub use limits::{Ceiling, Shed};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Malformed; the text names what. Never costs the vendor's quota.
    BadRequest(String),
    /// Not known who calls.
    Unauthenticated,
    /// Nothing was shown, and the host that is named is not ours: a page may have led a browser here.
    Misdirected,
    /// Nothing was shown, and a browser says that another site's page asks.
    CrossSite,
    /// Known, but may not do this, or the app does not exist: the same answer for both.
    Forbidden,
    NoSuchRoute,
    /// A place that does not take this method.
    MethodNotAllowed {
        /// The methods it takes, as `Allow` lists them.
        allow: &'static str,
    },
    /// The caller takes no answer of the kind there is.
    NotAcceptable {
        /// The media type there is.
        kind: &'static str,
    },
    /// The caller's body did not come in time.
    RequestTimeout,
    /// The cursor is older than retention.
    CursorExpired {
        /// The place before the oldest event kept.
        earliest: String,
        /// How many entries after the cursor are gone, as far as that is known.
        lost: Option<u64>,
    },
    /// The lease has run out, was given back, or never was.
    LeaseExpired,
    /// No more subscriptions can begin.
    TooManySubscriptions {
        /// How many the client may have; `None` when it is the stream that has as many as it may.
        most: Option<usize>,
    },
    /// No such history handle, or not this client's, or expired.
    NoSuchHandle,
    /// The body is larger than allowed.
    BodyTooLarge {
        /// In bytes, as configured.
        limit: usize,
    },
    /// The body is not of a kind we take.
    UnsupportedMediaType,
    /// The head is larger than allowed.
    HeadersTooLarge,
    /// No quota within the deadline.
    QuotaExceeded {
        bucket: BucketName,
        limit: Limit,
        /// When to ask again.
        retry_after: Duration,
        /// How many of `limit` are sent for now, where the vendor's own 429 is why; `None`: the gateway's count is.
        in_force: Option<u32>,
        /// For the log.
        cause: String,
    },
    /// The client has reached one of its ceilings.
    ClientLimit {
        ceiling: Ceiling,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The gateway has no room. Nothing was done, unless the room is for the vendor's answer.
    Shed {
        what: Shed,
        /// When to ask again: not the same for everybody, so that they do not all come back at once.
        retry_after: Duration,
    },
    /// The gateway's own fault: a panic. The text is for the log.
    Internal(String),
    /// The vendor answered what cannot be understood, or was cut off, or refused the gateway's credential.
    BadUpstream(String),
    /// The vendor answers 403: it has switched the App ID off, or the feature that was asked for.
    AppRefused,
    /// The vendor refuses the gateway's own credential.
    CredentialRefused,
    /// Draining, overloaded, the store not writable, the vendor not reachable: nothing was done, asking again is safe.
    Unavailable(String),
    /// The vendor's region is left alone for a while: nothing was done, asking again then is safe.
    RegionDown {
        /// For the log, not for the caller.
        cause: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// No credential can be had for the vendor.
    CredentialUnavailable(String),
    /// The vendor did not answer in time.
    UpstreamTimeout {
        /// Why, for the log.
        cause: String,
        /// Whether the request may have left.
        sent: bool,
    },
    /// The deadline passed while the work goes on.
    StillRunning {
        /// Where the result will be, when it can be fetched.
        location: Option<String>,
    },
}

impl Refusal {
    /// A [`Refusal::BadRequest`].
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::BadRequest(detail.into())
    }

    /// A [`Refusal::Shed`], with a random time to come back.
    #[must_use]
    pub fn shed(what: Shed) -> Self {
        Self::Shed { what, retry_after: Duration::from_secs(rand::random_range(1..=3)) }
    }

    /// Whether the request was refused for what it is or for want of room, so that nothing was done for it: then it
    /// costs its client nothing.
    #[must_use]
    pub fn cost_nothing(&self) -> bool {
        match self {
            // The vendor was asked, and has answered.
            Self::Shed { what: Shed::ResponseMemory, .. } => false,
            Self::BadRequest(_)
            | Self::Unauthenticated
            | Self::Misdirected
            | Self::CrossSite
            | Self::Forbidden
            | Self::NoSuchRoute
            | Self::MethodNotAllowed { .. }
            | Self::NotAcceptable { .. }
            | Self::RequestTimeout
            | Self::CursorExpired { .. }
            | Self::LeaseExpired
            | Self::TooManySubscriptions { .. }
            | Self::NoSuchHandle
            | Self::BodyTooLarge { .. }
            | Self::UnsupportedMediaType
            | Self::HeadersTooLarge
            | Self::QuotaExceeded { .. }
            | Self::ClientLimit { .. }
            | Self::Shed { .. }
            | Self::Unavailable(_)
            | Self::RegionDown { .. }
            | Self::CredentialUnavailable(_) => true,
            // The vendor may have been asked, or the work goes on.
            Self::Internal(_)
            | Self::BadUpstream(_)
            | Self::AppRefused
            | Self::CredentialRefused
            | Self::UpstreamTimeout { .. }
            | Self::StillRunning { .. } => false,
        }
    }

    /// One status and one code for each: the only such table there is.
    fn class(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "misdirected"),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross_site"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NoSuchRoute => (StatusCode::NOT_FOUND, "no_such_route"),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NotAcceptable { .. } => (StatusCode::NOT_ACCEPTABLE, "not_acceptable"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::CursorExpired { .. } => (StatusCode::GONE, "cursor_expired"),
            Self::LeaseExpired => (StatusCode::GONE, "lease_expired"),
            Self::TooManySubscriptions { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_subscriptions"),
            // The vendor's own words, for software that was written for it.
            Self::NoSuchHandle => (StatusCode::GONE, "resource not exist"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::HeadersTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large"),
            Self::QuotaExceeded { .. } => (StatusCode::TOO_MANY_REQUESTS, "quota_exceeded"),
            Self::ClientLimit { .. } => (StatusCode::TOO_MANY_REQUESTS, "client_limit_exceeded"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Self::BadUpstream(_) => (StatusCode::BAD_GATEWAY, "bad_upstream"),
            Self::AppRefused => (StatusCode::BAD_GATEWAY, "app_refused"),
            Self::CredentialRefused => (StatusCode::BAD_GATEWAY, "credential_refused"),
            Self::Shed { .. } | Self::Unavailable(_) | Self::RegionDown { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            Self::CredentialUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "credential_unavailable"),
            Self::UpstreamTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"),
            // The vendor's words, too.
            Self::StillRunning { .. } => (StatusCode::GATEWAY_TIMEOUT, "in progress"),
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.class().0
    }

    /// The word software tells refusals apart by.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.class().1
    }

    /// What the operator reads in the log, where it says more than the status does.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::BadRequest(cause)
            | Self::Internal(cause)
            | Self::BadUpstream(cause)
            | Self::Unavailable(cause)
            | Self::RegionDown { cause, .. }
            | Self::CredentialUnavailable(cause)
            | Self::QuotaExceeded { cause, .. }
            | Self::UpstreamTimeout { cause, .. } => Some(cause),
            Self::Shed { what, .. } => Some(what.cause()),
            Self::Unauthenticated
            | Self::Misdirected
            | Self::CrossSite
            | Self::Forbidden
            | Self::NoSuchRoute
            | Self::MethodNotAllowed { .. }
            | Self::NotAcceptable { .. }
            | Self::RequestTimeout
            | Self::CursorExpired { .. }
            | Self::LeaseExpired
            | Self::TooManySubscriptions { .. }
            | Self::NoSuchHandle
            | Self::BodyTooLarge { .. }
            | Self::UnsupportedMediaType
            | Self::HeadersTooLarge
            | Self::ClientLimit { .. }
            | Self::AppRefused
            | Self::CredentialRefused
            | Self::StillRunning { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
