//! What an operator's request is answered.

use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::rejection::Rejection;
use crate::http::body::{Body, Frames};
use crate::kernel::metrics::TextForm;
use crate::request::openapi;

/// What a handler says.
pub(super) type Answer = Result<Content, Rejection>;

/// What is answered with 200, or with another status that is no fault.
pub(super) enum Content {
    Json(Value),
    /// JSON with a status of its own.
    Status(StatusCode, Value),
    Document,
    /// The page of metrics.
    Metrics(TextForm, String),
    /// A file and its length.
    File(std::fs::File, u64),
    /// What somebody else wrote, as it is.
    Bytes(Vec<Bytes>),
}

/// As a response.
pub(super) fn respond(answer: Answer) -> Response<Body> {
    let (status, content, allow) = match answer {
        Ok(Content::Status(status, value)) => (status, Content::Json(value), None),
        Ok(content) => (StatusCode::OK, content, None),
        Err(rejection) => {
            let Rejection { status, detail, code, allow } = rejection;
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
        Content::Metrics(form, page) => (form.content_type(), whole(page)),
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
    // RFC 9110, 15.5.2 and 15.5.6: 401 says how to present a key, 405 which methods there are.
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(allow) = allow.and_then(|allow| HeaderValue::try_from(&*allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    response
}
