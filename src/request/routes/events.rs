//! Reading events, in the vendor's form or our own, at once or as they come.
//!
//! Invariants: what is answered is what the log has; no caller causes a read at the vendor. The entries of an answer
//! are given again unless the answer was handed over whole. A gateway that stops ends long polls at once, with what
//! there is, and streams between two events.
//!
//! | file | what |
//! | --- | --- |
//! | `merged_reader` | one stream or both, run by run |
//! | `native` | our own form, in one answer |
//! | `sse` | our own form, as it comes |
//! | `leased` | the same, to be acknowledged |
//! | `ack` | acknowledging, giving back, extending |

pub mod ack;
mod leased;
mod merged_reader;
mod native;
mod sse;

use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use self::merged_reader::MergedReader;
use super::RequestContext;
use crate::events::{Ack, CursorPair, Delivery, ReadError, ReadFrom, ReadRequest};
use crate::http::body::{Body, Frames};
use crate::http::headers::X_RTM_CURSOR;
use crate::http::request_id::RequestId;
use crate::kernel::names::{AppId, ClientName, Stream, Streams, SubscriptionName};
use crate::kernel::proof::{Proof, Work};
use crate::request::gateway::{Gateway, Live};
use crate::request::refusal::Refusal;
use crate::request::response::{HandlerResponse, Origin};
use crate::request::route::{EventsQuery, Form, Start, StartPosition};
use crate::store::Content;

/// Answers an events read.
///
/// # Errors
/// What the log says.
pub async fn read(
    asked: RequestContext<'_>,
    streams: Streams,
    form: Form,
    query: EventsQuery,
) -> Result<HandlerResponse, Refusal> {
    let name = query.subscription(&asked.payer);
    let is_stored = matches!(query.start, Start::Stored(_));
    if is_stored {
        may_use((asked.gateway, asked.live), (&asked.app.id, &asked.payer.client), &name)?;
    }
    let begun = match query.start {
        Start::Stored(_) => None,
        Start::After(begin) => Some(marks(&asked, streams, begin).await?),
    };
    let place = |stream: Stream| match (query.start, begun) {
        (Start::Stored(begin), _) => ReadFrom::Subscription { name: name.clone(), from: begin.of(stream) },
        (Start::After(_), begun) => ReadFrom::After(begun.unwrap_or_default().of(stream)),
    };
    let proof = asked.proof(if form == Form::Stream { Work::Stream } else { Work::Poll });
    let client = asked.payer.client.clone();
    let wait = query.wait.unwrap_or_default();
    let ack = query.ack.map_or(Ack::OnHandover, |explicit| Ack::Explicit {
        lease: explicit.lease.unwrap_or(LEASE),
        max_attempts: explicit.max_attempts.unwrap_or(ATTEMPTS),
    });
    match (form, streams) {
        (Form::Stream, Streams::One(stream)) if ack != Ack::OnHandover => {
            let (place, limit, filter) = (place(stream), query.limit, query.filter);
            let read = ReadRequest { place, client, limit, most_bytes: sse::HOLDS, wait, markers: true, filter, ack };
            leased::open(asked, proof, stream, read).await
        }
        (Form::Stream, _) => {
            let most = (query.limit, sse::HOLDS);
            let feed = MergedReader::new((&asked.app.id, streams), client, most, query.filter, place);
            let mut served = sse::open(asked, proof, feed, is_stored.then_some((name, query.last_event_id))).await?;
            // A reader that is cut before the first event goes on from here.
            if let Some(marks) = begun {
                name_cursor(&mut served.headers, &marks.text(streams));
            }
            Ok(served)
        }
        (Form::Vendor | Form::Native, Streams::One(stream)) => {
            let (place, limit, most_bytes) = (place(stream), query.limit, usize::MAX);
            let (markers, filter) = (form == Form::Native, query.filter);
            let read = ReadRequest { place, client, limit, most_bytes, wait, markers, filter, ack };
            let delivery = wait_for(&asked, &proof, stream, read).await?;
            let body = match form {
                Form::Vendor => vendor_body(&delivery, asked.log.id()),
                Form::Native | Form::Stream => native::body(&delivery),
            };
            Ok(served(body, &delivery.next.to_string(), vec![delivery.receipt]))
        }
        (Form::Vendor | Form::Native, Streams::All) => {
            let most = (query.limit, usize::MAX);
            let mut feed = MergedReader::new((&asked.app.id, streams), client, most, query.filter, place);
            tokio::select! {
                biased;
                filled = feed.fill(asked.gateway, wait) => filled.map_err(|failed| failed.why)?,
                how = proof.ended() => return Err(how.into()),
            }
            proof.stands().await?;
            let (body, receipts) = native::body_of_all(&mut feed, query.limit);
            Ok(served(body, &feed.marks().text(streams), receipts))
        }
    }
}

/// Whether a client may use a subscription: its own, and every shared one. The name of another client is not for sharing,
/// whether that client is configured now or is one of whom the store holds a place: who means its place would be given
/// another, without a word.
///
/// # Errors
/// [`Refusal::Forbidden`] when it may not.
fn may_use(
    (gateway, live): (&Gateway, &Live),
    (app, client): (&AppId, &ClientName),
    name: &SubscriptionName,
) -> Result<(), Refusal> {
    let Some(of_namesake) = name.default_of_namesake() else { return Ok(()) };
    let is_anothers =
        live.identity.is_another_client(name.as_str(), client) || gateway.events.has_subscription(app, &of_namesake);
    if is_anothers { Err(Refusal::Forbidden) } else { Ok(()) }
}

/// How long a lease runs when nothing is said.
const LEASE: Duration = Duration::from_secs(30);

/// After how many attempts an event is given up when nothing is said.
const ATTEMPTS: u32 = 10;

fn served(body: Body, next: &str, receipts: Vec<crate::events::Receipt>) -> HandlerResponse {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    name_cursor(&mut headers, next);
    HandlerResponse { status: StatusCode::OK, headers, body, origin: Origin::Gateway, receipts }
}

fn name_cursor(headers: &mut HeaderMap, cursor: &str) {
    if let Ok(cursor) = HeaderValue::try_from(cursor) {
        headers.insert(X_RTM_CURSOR, cursor);
    }
}

/// The place that a read without a subscription begins at. What its reader remembers is looked at when it is read.
async fn marks(asked: &RequestContext<'_>, streams: Streams, begin: StartPosition) -> Result<CursorPair, Refusal> {
    if let StartPosition::After(marks) = begin {
        return Ok(marks);
    }
    let mut marks = CursorPair::default();
    for &stream in streams.each() {
        match asked.gateway.events.place(&asked.app.id, stream, begin.of(stream)).await {
            Ok(cursor) => marks.give(stream, cursor),
            // An app need not have both.
            Err(ReadError::NoSuchStream) if streams == Streams::All => {}
            Err(why) => return Err(why.into()),
        }
    }
    Ok(marks)
}

async fn wait_for(
    asked: &RequestContext<'_>,
    proof: &Proof,
    stream: Stream,
    read: ReadRequest,
) -> Result<Delivery, Refusal> {
    let events = &asked.gateway.events;
    let at_once = ReadRequest { wait: Duration::ZERO, ..read.clone() };
    let stopping = asked.gateway.stopping.cancelled();
    let delivery = tokio::select! {
        // Looked at in this order: what is there is given, also while stopping.
        biased;
        delivery = events.read(&asked.app.id, stream, read) => delivery?,
        () = stopping => events.read(&asked.app.id, stream, at_once).await?,
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
