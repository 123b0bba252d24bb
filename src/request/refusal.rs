//! Why a request is refused: the one error type of the request path.
//!
//! Invariants: every refusal has one status and one code, by tables without a wildcard, so a new variant does not
//! compile until it has both. What the caller reads ([`Refusal::detail`]) is made of our own words and of values the
//! caller sent or may see; what went wrong inside ([`Refusal::cause`]) goes to the log only.

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
    /// No such place.
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
        /// Bytes allowed.
        limit: usize,
    },
    /// The body is not of a kind we take.
    UnsupportedMediaType,
    /// The head is larger than allowed.
    HeadersTooLarge,
    /// No quota within the deadline.
    QuotaExceeded {
        /// Which bucket.
        bucket: BucketName,
        /// Its limit.
        limit: Limit,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The client has reached one of its ceilings.
    ClientLimit {
        /// Which.
        ceiling: Ceiling,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The gateway has no room. Nothing was done, unless the room is for the vendor's answer.
    Shed {
        /// For what.
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
        /// For the log.
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

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Forbidden | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::NoSuchRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::CursorExpired { .. } | Self::LeaseExpired | Self::NoSuchHandle => StatusCode::GONE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::QuotaExceeded { .. } | Self::ClientLimit { .. } | Self::TooManySubscriptions { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadUpstream(_) | Self::AppRefused | Self::CredentialRefused => StatusCode::BAD_GATEWAY,
            Self::Shed { .. } | Self::Unavailable(_) | Self::RegionDown { .. } | Self::CredentialUnavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamTimeout { .. } | Self::StillRunning { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The word software tells refusals apart by. The two with spaces are the vendor's own, for software written for
    /// it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Misdirected => "misdirected",
            Self::CrossSite => "cross_site",
            Self::Forbidden => "forbidden",
            Self::NoSuchRoute => "no_such_route",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::NotAcceptable { .. } => "not_acceptable",
            Self::RequestTimeout => "request_timeout",
            Self::CursorExpired { .. } => "cursor_expired",
            Self::LeaseExpired => "lease_expired",
            Self::TooManySubscriptions { .. } => "too_many_subscriptions",
            Self::NoSuchHandle => "resource not exist",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::HeadersTooLarge => "headers_too_large",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::ClientLimit { .. } => "client_limit_exceeded",
            Self::Internal(_) => "internal",
            Self::BadUpstream(_) => "bad_upstream",
            Self::AppRefused => "app_refused",
            Self::CredentialRefused => "credential_refused",
            Self::Shed { .. } | Self::Unavailable(_) | Self::RegionDown { .. } => "unavailable",
            Self::CredentialUnavailable(_) => "credential_unavailable",
            Self::UpstreamTimeout { .. } => "upstream_timeout",
            Self::StillRunning { .. } => "in progress",
        }
    }

    /// What the caller reads.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::BadRequest(detail) => detail.clone(),
            Self::Unauthenticated => {
                "no known key, token or certificate was shown (X-API-Key, Authorization: Bearer or Basic)".into()
            }
            Self::Misdirected => {
                "whoever shows nothing must name this machine as its host; server.hosts lists the names it has beside localhost"
                    .into()
            }
            Self::CrossSite => "another site's page may ask nothing here without a proof of its own".into(),
            Self::Forbidden => "this client may not do this with this app, or there is no such app".into(),
            Self::NoSuchRoute => "there is nothing at this path: see /openapi.json".into(),
            Self::MethodNotAllowed { allow } => format!("this path takes {allow}"),
            Self::NotAcceptable { kind } => format!("this path answers with {kind}, which `Accept` does not take"),
            Self::RequestTimeout => "the request's body did not come in time".into(),
            Self::CursorExpired { .. } => "the cursor is older than what is kept: go on from `earliest`".into(),
            Self::LeaseExpired => {
                "the lease has run out, was given back, or never was: its events are given to the next reader".into()
            }
            Self::TooManySubscriptions { most: Some(most) } => {
                format!("this client has {most} subscriptions of the stream, as many as it may: use one of them")
            }
            Self::TooManySubscriptions { most: None } => "the stream has as many subscriptions as it may have".into(),
            Self::NoSuchHandle => "there is no such query result (any more): create the query again".into(),
            Self::BodyTooLarge { limit } => format!("a request's body may have {limit} bytes"),
            Self::UnsupportedMediaType => "the body must be application/json in UTF-8, without content encoding".into(),
            Self::HeadersTooLarge => "the request's head is too large".into(),
            Self::QuotaExceeded { bucket, limit, .. } => format!(
                "no request of {bucket} could be sent within the deadline: {} in {} are allowed",
                limit.requests,
                humantime::format_duration(limit.per)
            ),
            Self::ClientLimit { ceiling: Ceiling::MaxConcurrent(most), .. } => {
                format!("this client has {most} requests in hand, as many as it may: wait for one to end")
            }
            Self::ClientLimit { ceiling: Ceiling::RequestsPerSecond(most), .. } => {
                format!("this client may make {most} requests a second")
            }
            Self::Shed { what: Shed::FairShare | Shed::HistoryJobs, .. } => {
                "the gateway has too much in hand for this client: try again".into()
            }
            Self::Shed { what: Shed::ResponseMemory, .. } => {
                "the vendor has answered, and the gateway had no memory for its answer in time: a message may have been sent"
                    .into()
            }
            Self::Shed { .. } => "the gateway has too much in hand: try again".into(),
            Self::Internal(_) => "the gateway failed on this request".into(),
            Self::BadUpstream(_) => "the vendor's answer could not be used".into(),
            Self::AppRefused => {
                "the vendor refuses this app (403): its App ID, or this feature of it, is switched off there; \
                                 only the account's owner can switch it on"
                    .into()
            }
            Self::CredentialRefused => "the vendor refuses the gateway's credential: an operator must mend it".into(),
            Self::Unavailable(_) => "the gateway cannot serve this now: try again".into(),
            Self::RegionDown { .. } => "the vendor is not asked for a while: nothing was sent".into(),
            Self::CredentialUnavailable(_) => "the gateway has no credential for the vendor now".into(),
            Self::UpstreamTimeout { sent: true, .. } => {
                "the vendor did not answer in time; it may have acted on the request".into()
            }
            Self::UpstreamTimeout { sent: false, .. } => {
                "there was no connection to the vendor in time: nothing was sent".into()
            }
            Self::StillRunning { location: Some(_) } => "the result is not there yet: fetch it at `location`".into(),
            Self::StillRunning { location: None } => "the result is not there yet: ask again".into(),
        }
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
            | Self::QuotaExceeded { .. }
            | Self::ClientLimit { .. }
            | Self::AppRefused
            | Self::CredentialRefused
            | Self::StillRunning { .. } => None,
        }
    }
}
