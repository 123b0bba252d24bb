//! `GET /openapi.json`: what may be asked here, for anybody.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use crate::http::body::Body;
use crate::request::openapi;
use crate::request::response::HandlerResponse;

/// Answers with the OpenAPI document.
pub(crate) fn answer() -> HandlerResponse {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let body = Body::from(Bytes::from_static(openapi::DOCUMENT.as_bytes()));
    HandlerResponse::of_gateway(StatusCode::OK, headers, body)
}
