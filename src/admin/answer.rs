//! What an operator's request is answered.

use std::borrow::Cow;
use std::fmt::Display;

use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::events::ReadError;
use crate::http::body::{Body, Frames};
use crate::request::openapi;
use crate::request::refusal::Refusal;
use crate::store;

/// What a handler says.
pub(super) type Answer = Result<Content, Rejection>;

/// What is answered with 200, or with another status that is no fault.
pub(super) enum Content {
    /// JSON.
    Json(Value),
    /// JSON with a status of its own.
    Status(StatusCode, Value),
    /// The OpenAPI document.
    Document,
    /// The metrics.
    Metrics(String),
    /// A file and its length.
    File(std::fs::File, u64),
    /// What somebody else wrote, as it is.
    Bytes(Vec<Bytes>),
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    status: StatusCode,
    detail: String,
    /// The name of the refusal, where it has one.
    code: Option<&'static str>,
    /// The methods that a path takes, when it does not take this one.
    allow: Option<Cow<'static, str>>,
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
        let refused = Self::new(StatusCode::METHOD_NOT_ALLOWED, format_args!("this path takes {allow}"));
        Self { allow: Some(allow), ..refused }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::MethodNotAllowed { allow } => Self::method(allow),
            refusal => Self::new(refusal.status(), refusal.detail()),
        }
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
            other => Refusal::from(other).into(),
        }
    }
}

/// As a response.
pub(super) fn respond(answer: Answer) -> Response<Body> {
    let (status, content, allow) = match answer {
        Ok(Content::Status(status, value)) => (status, Content::Json(value), None),
        Ok(content) => (StatusCode::OK, content, None),
        Err(Rejection { status, detail, code, allow }) => {
            let mut body = json!({ "status": status.as_u16(), "detail": detail });
            if let Some(code) = code {
                body["code"] = code.into();
            }
            (status, Content::Json(body), allow)
        }
    };
    let whole = |text: String| Body::from(Bytes::from(text));
    let (kind, body) = match content {
        Content::Json(value) | Content::Status(_, value) => ("application/json", whole(value.to_string())),
        Content::Document => ("application/json", Body::from(Bytes::from_static(openapi::DOCUMENT.as_bytes()))),
        Content::Metrics(text) => ("application/openmetrics-text; version=1.0.0; charset=utf-8", whole(text)),
        Content::Bytes(pieces) => {
            let mut frames = Frames::default();
            pieces.into_iter().for_each(|piece| frames.share(piece));
            ("application/octet-stream", frames.into_body())
        }
        Content::File(file, length) => ("application/octet-stream", Body::from_file(file, length)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(allow) = allow.and_then(|allow| HeaderValue::try_from(&*allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    response
}
