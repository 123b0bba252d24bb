//! [`Rejection`]: why an operator's request was not done, and which failure of a service is which.
//!
//! Invariant: no wildcard, as with the callers' [`Refusal`]: a new way to fail does not compile until somebody has said
//! what the operator is told. Operators read what went wrong inside, callers do not.

use std::borrow::Cow;
use std::fmt::Display;

use hyper::StatusCode;

use crate::events::ReadError;
use crate::request::refusal::Refusal;
use crate::store;
use crate::webhooks::CommandError;

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    /// The name of the refusal, where it has one.
    pub(super) code: Option<&'static str>,
    /// The methods that a path takes, when it does not take this one.
    pub(super) allow: Option<Cow<'static, str>>,
}

impl Rejection {
    /// With a status.
    pub(super) fn new(status: StatusCode, detail: impl Display) -> Self {
        Self { status, detail: detail.to_string(), code: None, allow: None }
    }

    /// With a status and a name.
    pub(super) fn coded(status: StatusCode, code: &'static str, detail: impl Display) -> Self {
        Self { code: Some(code), ..Self::new(status, detail) }
    }

    /// 400: malformed.
    pub(super) fn bad(detail: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404.
    pub(super) fn nowhere(detail: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405, with the methods that the path takes.
    pub(super) fn method(allow: impl Into<Cow<'static, str>>) -> Self {
        let allow = allow.into();
        let rejection = Self::new(StatusCode::METHOD_NOT_ALLOWED, format_args!("this path takes {allow}"));
        Self { allow: Some(allow), ..rejection }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        let allow = refusal.allow().map(Cow::Borrowed);
        Self { allow, ..Self::new(refusal.status(), refusal.detail()) }
    }
}

impl From<store::Error> for Rejection {
    fn from(error: store::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl From<ReadError> for Rejection {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(why) => why.into(),
            ReadError::NoSuchStream | ReadError::NoSuchSubscription | ReadError::NoSuchDeadLetter => {
                Self::nowhere(error)
            }
            ReadError::Ahead | ReadError::OfAnotherStream => Self::bad(error),
            ReadError::Expired { earliest, .. } => {
                let detail = format_args!("the cursor is older than what is kept, which begins after {earliest}");
                Self::coded(StatusCode::GONE, "cursor_expired", detail)
            }
            ReadError::TooManySubscriptions | ReadError::TooManyOfClient { .. } | ReadError::BeingRemoved => {
                Refusal::from(error).into()
            }
        }
    }
}

impl From<CommandError> for Rejection {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NoSuchWebhook => Self::nowhere(error),
            CommandError::Disabled => Self::coded(StatusCode::CONFLICT, "webhook_disabled", error),
            CommandError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, error),
            CommandError::Store(why) => why.into(),
            CommandError::Events(why) => why.into(),
        }
    }
}
