//! Reading events, in the vendor's form or our own, at once or as they come.
//!
//! Invariants: what is answered is what the log has; no caller causes a read at the vendor. The entries of an answer
//! are given again unless the answer was handed over whole. A gateway that stops ends long polls at once, with what
//! there is, and streams between two events.
//!
//! | file | what |
//! | --- | --- |
//! | `json_body` | our own form, in one answer |
//! | `sse`, `sse_piece` | our own form, as it comes; settled by handing it over, or by the reader's word |
//! | `ack` | acknowledging, giving back, extending |
//! | `next` | acknowledging and reading on, in one request |

pub mod ack;
mod json_body;
pub mod next;
mod sse;
mod sse_piece;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use self::sse::{EventReader, Resumption};
use super::RequestContext;
use crate::events::{Ack, CursorPair, Delivery, LeasedReader, MergedReader, ReadError, ReadFrom, ReadRequest, Receipt};
use crate::http::body::{Body, Frames};
use crate::http::headers::X_RTM_CURSOR;
use crate::http::request_id::RequestId;
use crate::kernel::names::{AppId, ClientName, Stream, Streams, SubscriptionName};
use crate::kernel::proof::{Proof, Work};
use crate::request::gateway::{Gateway, Live};
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;
use crate::request::route::{EventsQuery, Form, Start, StartPosition};
use crate::store::Content;

/// Answers an events read.
///
/// # Errors
/// What the log says.
pub async fn read(
    context: RequestContext<'_>,
    streams: Streams,
    form: Form,
    query: EventsQuery,
) -> Result<HandlerResponse, Refusal> {
    let subscription = query.subscription(&context.payer);
    let begun = match query.start {
        Start::Stored(_) => {
            let RequestContext { gateway, live, app, payer, .. } = &context;
            permit(gateway, live, &app.id, &payer.client, &subscription)?;
            context.log.subscription(&subscription);
            None
        }
        Start::After(begin) => Some(cursor_of(&context, streams, begin).await?),
    };
    let proof = context.proof(if form == Form::Stream { Work::Stream } else { Work::Poll });
    let wait = query.wait.unwrap_or_default();
    let request = |stream: Stream| {
        let place = match query.start {
            Start::Stored(begin) => ReadFrom::Subscription { name: subscription.clone(), from: begin.of(stream) },
            Start::After(_) => ReadFrom::After(begun.unwrap_or_default().of(stream)),
        };
        request_of(&query, place, &context.payer.client, form)
    };
    let (events, app, stopping) = (&context.gateway.events, &context.app.id, &context.gateway.stopping);
    let merged = || MergedReader::new(events.clone(), app.clone(), streams, request, stopping.clone());
    match (form, streams) {
        (Form::Stream, Streams::One(stream)) if query.ack.is_some() => {
            let reader = LeasedReader::new(events.clone(), app.clone(), stream, request(stream), stopping.clone());
            sse::open(context, proof, EventReader::Explicit(Box::new(reader)), None).await
        }
        (Form::Stream, _) => {
            let reader = EventReader::OnHandover(merged());
            // A place that moves nothing is its caller's own to remember: there is nothing to resume.
            let resumption = begun.is_none().then_some(Resumption { subscription, last: query.last_event_id });
            let mut served = sse::open(context, proof, reader, resumption).await?;
            // A reader that is cut before the first event goes on from here.
            if let Some(cursor) = begun {
                name_cursor(&mut served.headers, &cursor.text(streams));
            }
            Ok(served)
        }
        (Form::Vendor | Form::Native, Streams::One(stream)) => {
            let delivery = wait_for(context.gateway, app, &proof, stream, request(stream)).await?;
            let body = match form {
                Form::Vendor => vendor_body(&delivery, context.log.id()),
                Form::Native | Form::Stream => json_body::body(&delivery, &context.gateway.json_texts, None),
            };
            Ok(served(body, &delivery.next.to_string(), vec![delivery.receipt]))
        }
        (Form::Vendor | Form::Native, Streams::All) => {
            let mut reader = merged();
            tokio::select! {
                biased;
                filled = reader.fill(wait) => filled.map_err(|failed| failed.why)?,
                how = proof.ended() => return Err(how.into()),
            }
            proof.stands().await?;
            let (body, receipts) = json_body::body_of_all(&mut reader, query.limit);
            Ok(served(body, &reader.cursor().text(streams), receipts))
        }
    }
}

/// What is read of one stream, from that place.
fn request_of(query: &EventsQuery, place: ReadFrom, client: &ClientName, form: Form) -> ReadRequest {
    ReadRequest {
        place,
        client: client.clone(),
        limit: query.limit,
        // One answer is written whole; a stream holds what its caller has not taken for as long as that is slow.
        max_bytes: if form == Form::Stream { sse_piece::MAX_HELD } else { usize::MAX },
        wait: query.wait.unwrap_or_default(),
        markers: form != Form::Vendor,
        filter: Arc::clone(&query.filter),
        ack: query.ack.map_or(Ack::OnHandover, |explicit| Ack::Explicit {
            lease: explicit.lease.unwrap_or(LEASE),
            max_attempts: explicit.max_attempts.unwrap_or(ATTEMPTS),
        }),
    }
}

/// Whether the client may use a subscription of its app: the policy says so, and the store whose places there are.
///
/// # Errors
/// [`Refusal::Forbidden`] when it may not.
fn permit(
    gateway: &Gateway,
    live: &Live,
    app: &AppId,
    client: &ClientName,
    name: &SubscriptionName,
) -> Result<(), Refusal> {
    live.policy.subscription(client, name, |name| gateway.events.has_subscription(app, name))
}

/// How long a lease runs when nothing is said.
const LEASE: Duration = Duration::from_secs(30);

/// After how many attempts an event is given up when nothing is said.
const ATTEMPTS: u32 = 10;

fn served(body: Body, next: &str, receipts: Vec<Receipt>) -> HandlerResponse {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    name_cursor(&mut headers, next);
    HandlerResponse { receipts, ..HandlerResponse::of_gateway(StatusCode::OK, headers, body) }
}

fn name_cursor(headers: &mut HeaderMap, cursor: &str) {
    if let Ok(cursor) = HeaderValue::try_from(cursor) {
        headers.insert(X_RTM_CURSOR, cursor);
    }
}

/// The place that a read without a subscription begins at. What its reader remembers is looked at when it is read.
async fn cursor_of(
    context: &RequestContext<'_>,
    streams: Streams,
    begin: StartPosition,
) -> Result<CursorPair, Refusal> {
    if let StartPosition::After(cursor) = begin {
        return Ok(cursor);
    }
    let mut pair = CursorPair::default();
    for &stream in streams.each() {
        match context.gateway.events.place(&context.app.id, stream, begin.of(stream)).await {
            Ok(cursor) => pair.give(stream, cursor),
            // An app need not have both.
            Err(ReadError::NoSuchStream) if streams == Streams::All => {}
            Err(why) => return Err(why.into()),
        }
    }
    Ok(pair)
}

async fn wait_for(
    gateway: &Gateway,
    app: &AppId,
    proof: &Proof,
    stream: Stream,
    read: ReadRequest,
) -> Result<Delivery, Refusal> {
    let events = &gateway.events;
    let at_once = ReadRequest { wait: Duration::ZERO, ..read.clone() };
    let stopping = gateway.stopping.cancelled();
    let delivery = tokio::select! {
        // Looked at in this order: what is there is given, also while stopping.
        biased;
        delivery = events.read(app, stream, read) => delivery?,
        () = stopping => events.read(app, stream, at_once).await?,
        how = proof.ended() => return Err(how.into()),
    };
    // What is not handed over is given back.
    proof.stands().await?;
    Ok(delivery)
}

/// The vendor's own body: `{"result":"success","request_id":"…","events":[…]}`, the events byte for byte.
fn vendor_body(delivery: &Delivery, id: &RequestId) -> Body {
    let mut frames = Frames::default();
    // An id needs no escaping: see its module.
    frames.push(format!(r#"{{"result":"success","request_id":"{id}","events":["#).as_bytes());
    let mut first = true;
    for run in &delivery.runs {
        // Markers are not asked for, and have no form here.
        let Content::Events(events) = &run.batch.content else { continue };
        if !std::mem::take(&mut first) {
            frames.push(b",");
        }
        frames.share(events.slice(run.entries.clone()));
    }
    frames.push(b"]}");
    frames.into_body()
}
