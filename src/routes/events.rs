//! Reading events, in the vendor's form or our own.
//!
//! Invariants: what is answered is what the log has; no caller causes a read at the vendor. The entries of an answer
//! are given again unless the answer was handed over whole. A gateway that stops ends long polls at once, with what
//! there is.

mod native;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::Asked;
use crate::body::{Body, Frames};
use crate::events::{Ack, Delivery, Place, Read};
use crate::flow::Served;
use crate::flow::trail::Origin;
use crate::headers::X_RTM_CURSOR;
use crate::names::Stream;
use crate::refusal::Refusal;
use crate::request_id::RequestId;
use crate::route::{EventsQuery, Form, Start};
use crate::store::Content;

/// Answers an events read.
///
/// # Errors
/// What the log says.
pub async fn read(asked: Asked<'_>, stream: Stream, form: Form, query: EventsQuery) -> Result<Served, Refusal> {
    let place = match query.start {
        Start::Stored(from) => {
            let name = query.subscription(&asked.payer);
            // Another client's default subscription has its name: reading it would take its events.
            if asked.live.identity.is_another_client(name.as_str(), &asked.payer.client) {
                return Err(Refusal::Forbidden);
            }
            Place::Subscription { name, from, by: asked.payer.client.clone() }
        }
        Start::After(cursor) => Place::After(cursor),
    };
    let read = Read {
        place,
        limit: query.limit,
        wait: query.wait,
        markers: form == Form::Native,
        filter: Arc::default(),
        ack: Ack::OnHandover,
    };
    let delivery = wait_for(&asked, stream, read).await?;
    let body = match form {
        Form::Vendor => vendor_body(&delivery, asked.trail.id()),
        Form::Native => native::body(&delivery),
    };
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(next) = HeaderValue::try_from(delivery.next.to_string()) {
        headers.insert(X_RTM_CURSOR, next);
    }
    let receipt = Some(delivery.receipt);
    Ok(Served { status: StatusCode::OK, headers, body, origin: Origin::Gateway, receipt })
}

async fn wait_for(asked: &Asked<'_>, stream: Stream, read: Read) -> Result<Delivery, Refusal> {
    let events = &asked.gateway.events;
    let at_once = Read { wait: Duration::ZERO, ..read.clone() };
    let stopping = asked.gateway.stopping.cancelled();
    tokio::select! {
        // Looked at in this order: what is there is given, also while stopping.
        biased;
        delivery = events.read(&asked.app.id, stream, read) => Ok(delivery?),
        () = stopping => Ok(events.read(&asked.app.id, stream, at_once).await?),
    }
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
