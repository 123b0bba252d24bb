//! The operator's port: health, readiness, metrics, JSON about everything that runs, and the few things that an operator
//! changes by hand.
//!
//! | file | what |
//! | --- | --- |
//! | `operations` | all that can be asked |
//! | `v1` | which handler answers which path below `/admin/v1/` |
//! | `call`, `answer` | a request past the key; what it is answered |
//! | `shown` | all that is only read |
//! | `subscriptions`, `dead_letters` | what is changed of events |
//! | `webhooks` | what is changed of webhooks |
//!
//! Invariants: nothing but what `operations` lists with POST or DELETE changes anything; no secret is in any answer; `/healthz`,
//! `/readyz` and `/metrics` are open, the rest needs the admin key unless the port is reachable only from this machine.

mod answer;
mod call;
mod dead_letters;
mod operations;
mod shown;
mod subscriptions;
mod v1;
mod webhooks;

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tower::{Service, ServiceBuilder};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use self::answer::{Answer, Content, Refused, respond};
use self::call::Call;
pub use self::operations::Operation;
use crate::app::Parts;
use crate::body::Body;
use crate::route::{path, query};

/// Serves the operator's port. What holds for every answer is in the layers: nothing is cached, nothing is sniffed, and
/// a key that was shown is marked so that no log prints it.
pub fn service(
    parts: Arc<Parts>,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let keys = [AUTHORIZATION, HeaderName::from_static("x-api-key")];
    ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new(keys))
        .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .service_fn(move |request| {
            let parts = parts.clone();
            async move { Ok(respond(answer(&parts, request).await)) }
        })
}

/// Answers one request on the operator's port.
async fn answer(parts: &Parts, request: Request<Incoming>) -> Answer {
    let segments = path::segments(request.uri().path())?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    if segments.first() == Some(&"admin") && !allowed(parts, request.headers()) {
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "the admin key is needed: Authorization: Bearer KEY"));
    }
    let operation = Operation::find(request.method(), &segments)?;
    if !operation.has_parameters() {
        query::none(request.uri().query())?;
    }
    match operation {
        Operation::Document => Ok(Content::Document),
        Operation::Alive => Ok(Content::Json(json!({ "alive": true }))),
        Operation::Ready => Ok(readiness(parts)),
        Operation::Metrics => Ok(Content::Metrics(metrics(parts))),
        _ => v1::answer(Call::new(parts, request)?).await,
    }
}

/// Ready when it accepts, the store keeps, and nothing drains. A refused reload does not make it unready: the
/// configuration in force is good, and taking every replica out for one bad edit would turn a typo into an outage.
fn readiness(parts: &Parts) -> Content {
    let why = parts.not_ready();
    // Open to everybody: that there are faults, not what they are.
    let refused = parts.reload.load().last_refusal.is_some();
    let status = if why.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Content::Status(status, json!({ "ready": why.is_empty(), "why": why, "refused_configuration": refused }))
}

fn metrics(parts: &Parts) -> String {
    parts.egress.refresh_metrics();
    parts.events.observe();
    parts.jwks.observe();
    parts.metrics.text()
}

/// The admin key as a Bearer token or `X-API-Key`; its SHA-256 is compared without timing leaks.
fn allowed(parts: &Parts, headers: &HeaderMap) -> bool {
    let Some(wanted) = parts.config.load().admin.api_key_sha256 else { return true };
    let bearer = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let shown = headers.get("x-api-key").and_then(|v| v.to_str().ok()).or(bearer).unwrap_or_default();
    let digest: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
    digest.ct_eq(&wanted).into()
}
