//! `GET /v1/apps/{app}/history`: messages of any number as NDJSON, as they come.
//!
//! Invariants: what is known to be wrong before the first line has a status of its own; after it there is only the last
//! line to say so, in the same words. Messages are the vendor's own bytes.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;

use super::answer;
use crate::history::{Error, StreamPart};
use crate::http::body::{Body, Piece};
use crate::http::headers::accept;
use crate::http::headers::prefer::Prefer;
use crate::kernel::proof::Work;
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;
use crate::request::routes::RequestContext;

/// The names that newline-delimited JSON goes by; the first is ours.
const KINDS: [&str; 5] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/json-lines",
];

/// Answers a stream.
///
/// # Errors
/// What the service says before the first line.
pub async fn open(mut context: RequestContext<'_>, query: &[(String, String)]) -> Result<HandlerResponse, Refusal> {
    if !accept::takes(&context.head.headers, &KINDS) {
        return Err(Refusal::NotAcceptable { kind: KINDS[0] });
    }
    context.guard.start_streaming()?;
    let prefer = Prefer { respond_async: false, ..Prefer::of(&context.head.headers) };
    let terms = super::terms(&mut context, Work::Export, &prefer);
    let draining = context.gateway.stopping.clone();
    let messages = match context.gateway.history.stream(&context.app.id, query, terms, draining).await {
        Ok(messages) => messages,
        Err(Error::Refused(reply)) => return Ok(answer::passed_on(&reply)),
        Err(error) => return Err(error.into()),
    };
    let parts = stream::unfold(messages, async |mut messages| messages.next().await.map(|part| (part, messages)));
    let pieces = parts.flat_map(|part| stream::iter(pieces(part)).map(Piece::from));
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(KINDS[0]));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let body = Body::streaming(pieces);
    Ok(HandlerResponse::of_gateway(StatusCode::OK, headers, body))
}

fn pieces(part: StreamPart) -> Vec<Bytes> {
    match part {
        StreamPart::Lines { pieces, .. } => pieces,
        StreamPart::Broken { error, cursor } => vec![error_line(&error.into(), &cursor)],
    }
}

#[derive(Serialize)]
struct Broken<'a> {
    error: Why<'a>,
    cursor: &'a str,
}

#[derive(Serialize)]
struct Why<'a> {
    code: &'a str,
    detail: &'a str,
    status: u16,
}

/// The last line of a stream that broke: what a refusal would have said.
fn error_line(refusal: &Refusal, cursor: &str) -> Bytes {
    let error = Why { code: refusal.code(), detail: &refusal.detail(), status: refusal.status().as_u16() };
    // Strings and numbers always serialize; without the line the text reads as cut, which it is.
    let mut line = serde_json::to_vec(&Broken { error, cursor }).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_broken_stream_says_why_in_a_refusals_words() {
        let line = error_line(&Refusal::UpstreamTimeout { cause: "inside".into(), sent: true }, "AQ");
        assert_eq!(
            line,
            "{\"error\":{\"code\":\"upstream_timeout\",\"detail\":\"the vendor did not answer in time; it may have acted on the request\",\"status\":504},\
             \"cursor\":\"AQ\"}\n"
        );
    }
}
