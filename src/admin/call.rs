//! An operator's request, past the key: its method, path, parameters and body.
//!
//! Invariants: a request that changes something and comes from a browser comes from a page of this port, so that no
//! other page can use the browser's way to this machine. A body is JSON, bounded, and read in bounded time; a member or
//! parameter that is unknown is refused.

use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts as Head;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::operations::Operation;
use super::rejection::Rejection;
use crate::http::body::{Inbound, Unread, read_up_to};
use crate::http::headers::accept;
use crate::kernel::metrics::TextForm;
use crate::request::route::browsers::is_for_another_site;
use crate::services::Parts;

/// More than any list of cursors that makes sense.
const MAX_BYTES: usize = 1 << 20;
const BODY_TIME: Duration = Duration::from_secs(10);

/// An operator's request.
pub(super) struct Call<'a> {
    /// What it is about.
    pub(super) parts: &'a Parts,
    head: Head,
    body: Inbound,
}

impl<'a> Call<'a> {
    /// A request that showed the key, if one is needed.
    ///
    /// # Errors
    /// 403 when it would change something, or cost much, for another site's page.
    pub(super) fn new(parts: &'a Parts, operation: Operation, head: Head, body: Inbound) -> Result<Self, Rejection> {
        if !operation.is_harmless() && is_for_another_site(&head) {
            return Err(Rejection::new(StatusCode::FORBIDDEN, "another site's page may change nothing here"));
        }
        Ok(Self { parts, head, body })
    }

    /// Its method.
    pub(super) fn method(&self) -> &Method {
        &self.head.method
    }

    /// The form in which it would have the metrics: the classic one, unless the other is asked for.
    pub(super) fn accepted_form(&self) -> TextForm {
        let offered = TextForm::ALL.map(TextForm::media_type);
        TextForm::ALL[accept::preferred(&self.head.headers, &offered)]
    }

    /// Its parameters.
    ///
    /// # Errors
    /// 400 when they cannot be decoded.
    pub(super) fn query(&self) -> Result<Vec<(String, String)>, Rejection> {
        Ok(crate::request::route::query::pairs(self.head.uri.query())?)
    }

    /// Its body, which is JSON.
    ///
    /// # Errors
    /// 415, 413, 408, or 400 saying what was not understood.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, Rejection> {
        let kind = self.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        // Of all kinds a page may send to another site unasked, none is JSON (Fetch: CORS-safelisted Content-Type).
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"));
        }
        let body = read_up_to(self.body, MAX_BYTES, BODY_TIME, |_| true).await.map_err(|why| match why {
            Unread::TooLarge | Unread::NoRoom => {
                Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, format_args!("a body may have {MAX_BYTES} bytes"))
            }
            Unread::TooSlow => Rejection::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
            Unread::Broken => Rejection::bad("the body ended early or is malformed"),
        })?;
        serde_json::from_slice(&body).map_err(|why| Rejection::bad(format_args!("body: {why}")))
    }
}
