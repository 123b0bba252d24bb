//! `POST …/events/{stream}/{ack|nack|extend}`: what a reader says of what it was leased.
//!
//! Invariants: an acknowledgement is answered with 200 when it is durable. Nobody speaks for another client's default
//! subscription.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::{LEASE, RequestContext, permit};
use crate::http::body::Body;
use crate::http::headers;
use crate::kernel::names::{Stream, SubscriptionName};
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;
use crate::request::route::{AckAction, AckRequest};
use crate::request::routes::read_body;

/// Answers with how many events it was that changed.
///
/// # Errors
/// What the body or the subscription says.
pub async fn settle(context: RequestContext<'_>, stream: Stream, what: AckAction) -> Result<HandlerResponse, Refusal> {
    if !headers::is_plain_json(&context.head.headers) {
        return Err(Refusal::UnsupportedMediaType);
    }
    let body = read_body(context.live, context.body, context.guard, context.log).await?;
    let AckRequest { subscription, holding, time } = AckRequest::parse(&body, what)?;
    let name = SubscriptionName::meant_by(&context.payer.client, subscription);
    context.log.subscription(&name);
    permit(context.gateway, context.live, &context.app.id, &context.payer.client, &name)?;
    let (events, app) = (&context.gateway.events, &context.app.id);
    let changed = match what {
        AckAction::Ack => events.acknowledge(app, stream, &name, &holding).await?,
        AckAction::Nack => events.give_back(app, stream, &name, &holding, time.unwrap_or(Duration::ZERO)).await?,
        AckAction::Extend => events.extend(app, stream, &name, &holding, time.unwrap_or(LEASE))?,
    };
    let id = context.log.id();
    // An id needs no escaping: see its module.
    let body = format!(r#"{{"result":"success","request_id":"{id}","events":{changed}}}"#);
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let body = Body::from(Bytes::from(body));
    Ok(HandlerResponse::of_gateway(StatusCode::OK, headers, body))
}
