//! `POST …/events/{stream}/next`: acknowledges what was leased, and leases what is next: a round trip a batch.
//!
//! Invariants: what is settled is settled as `…/ack` does it, and is durable before anything is read or waited for: who
//! leaves meanwhile has acknowledged. That a lease was over is told beside what was read: it does not lose the read.
//! All that is refused for what the body says is refused before anything is settled.

use super::json_body::{self, Settled};
use super::{RequestContext, permit, request_of, served, wait_for};
use crate::events::{AckError, ReadFrom};
use crate::http::headers;
use crate::kernel::names::Stream;
use crate::kernel::proof::Work;
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;
use crate::request::route::{Form, NextRequest, Start};
use crate::request::routes::read_body;

/// Answers a read that acknowledges what was read before.
///
/// # Errors
/// What the body, the subscription or the log says.
pub async fn settle_and_read(context: RequestContext<'_>, stream: Stream) -> Result<HandlerResponse, Refusal> {
    if !headers::is_plain_json(&context.head.headers) {
        return Err(Refusal::UnsupportedMediaType);
    }
    let proof = context.proof(Work::Poll);
    let RequestContext { gateway, live, body, app, payer, log, guard, .. } = context;
    let NextRequest { settle, read } = {
        let body = read_body(live, body, guard, log).await?;
        NextRequest::parse(&body, stream)?
    };
    let name = read.subscription(&payer);
    log.subscription(&name);
    permit(gateway, live, &app.id, &payer.client, &name)?;
    let settled = match settle {
        Some(holding) => Some(told(gateway.events.acknowledge(&app.id, stream, &name, &holding).await)?),
        None => None,
    };
    // There is no `after`: both are where a new subscription begins.
    let (Start::Stored(begin) | Start::After(begin)) = read.start;
    let place = ReadFrom::Subscription { name, from: begin.of(stream) };
    let request = request_of(&read, place, &payer.client, Form::Native);
    let delivery = wait_for(gateway, &app.id, &proof, stream, request).await?;
    let body = json_body::body(&delivery, &gateway.json_texts, settled.as_ref());
    Ok(served(body, &delivery.next.to_string(), vec![delivery.receipt]))
}

/// What the answer says of an acknowledgement. What is not the lease's own fault is the whole request's.
fn told(settled: Result<u64, AckError>) -> Result<Settled, Refusal> {
    match settled {
        Ok(events) => Ok(Settled::Success { events }),
        Err(why @ AckError::LeaseExpired) => {
            let refusal = Refusal::from(why);
            let (status, code) = (refusal.status().as_u16(), refusal.code());
            Ok(Settled::Failed { status, code, detail: refusal.detail() })
        }
        Err(why @ (AckError::NoSuchStream | AckError::Store(_))) => Err(why.into()),
    }
}
