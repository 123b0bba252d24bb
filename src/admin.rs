//! The operator's port: health, readiness, metrics, and read-only JSON about everything that runs.
//!
//! Invariants: nothing here changes anything; no secret is in any answer; `/healthz`, `/readyz` and `/metrics` are open,
//! the rest needs the admin key unless the port is reachable only from this machine.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tower::{Service, ServiceBuilder};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::app::Parts;
use crate::body::Body;
use crate::openapi;
use crate::reload;
use crate::route::query;

/// How many quarantined responses of a log are shown.
const QUARANTINE_SHOWN: usize = 20;
/// How much of each is shown: an answer may be of many megabytes.
const QUARANTINE_BODY_SHOWN: usize = 16 << 10;

/// Serves the operator's port. What holds for every answer is in the layers: nothing is cached, nothing is sniffed, and
/// a key that was shown is marked so that no log prints it.
pub fn service<B: Send + 'static>(
    parts: Arc<Parts>,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
    let keys = [AUTHORIZATION, HeaderName::from_static("x-api-key")];
    ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new(keys))
        .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .service_fn(move |request| {
            let parts = parts.clone();
            async move { Ok(answer(parts, request).await) }
        })
}

/// Answers one request on the operator's port.
async fn answer<B>(parts: Arc<Parts>, request: Request<B>) -> Response<Body> {
    match openapi::is_asked(request.method(), request.uri()) {
        Ok(false) => {}
        Ok(true) => return respond(StatusCode::OK, Content::Document),
        Err(refused) => {
            let (status, content) = refusal(refused.status(), &refused.detail());
            return respond(status, content);
        }
    }
    let (status, content) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => (StatusCode::OK, Content::Json(json!({ "alive": true }))),
        (&Method::GET, "/readyz") => readiness(&parts),
        (&Method::GET, "/metrics") => (StatusCode::OK, Content::Text(metrics(&parts))),
        (&Method::GET, path) if path.starts_with("/admin/v1/") => {
            if allowed(&parts, request.headers()) {
                match query::none(request.uri().query()) {
                    Ok(()) => about(&parts, path).await,
                    Err(refused) => refusal(refused.status(), &refused.detail()),
                }
            } else {
                refusal(StatusCode::UNAUTHORIZED, "the admin key is needed: Authorization: Bearer KEY")
            }
        }
        (&Method::GET, _) => {
            refusal(StatusCode::NOT_FOUND, "see /openapi.json, /healthz, /readyz, /metrics and /admin/v1/")
        }
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "this port is read with GET"),
    };
    respond(status, content)
}

enum Content {
    Json(Value),
    Text(String),
    /// The OpenAPI document.
    Document,
    /// A file and its length.
    File(std::fs::File, u64),
}

fn respond(status: StatusCode, content: Content) -> Response<Body> {
    let whole = |text: String| Body::from(Bytes::from(text));
    let (kind, body) = match content {
        Content::Json(value) => ("application/json", whole(value.to_string())),
        Content::Document => ("application/json", Body::from(Bytes::from_static(openapi::DOCUMENT.as_bytes()))),
        Content::Text(text) => ("application/openmetrics-text; version=1.0.0; charset=utf-8", whole(text)),
        Content::File(file, length) => ("application/octet-stream", Body::from_file(file, length)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    } else if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(hyper::header::ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

fn refusal(status: StatusCode, detail: &str) -> (StatusCode, Content) {
    (status, Content::Json(json!({ "status": status.as_u16(), "detail": detail })))
}

/// Ready when it accepts, the store keeps, and nothing drains. A refused reload does not make it unready: the
/// configuration in force is good, and taking every replica out for one bad edit would turn a typo into an outage.
fn readiness(parts: &Parts) -> (StatusCode, Content) {
    let why = parts.not_ready();
    // Open to everybody: that there are faults, not what they are.
    let refused = parts.reload.load().last_refusal.is_some();
    let status = if why.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Content::Json(json!({ "ready": why.is_empty(), "why": why, "refused_configuration": refused })))
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

async fn about(parts: &Parts, path: &str) -> (StatusCode, Content) {
    let value = match path.trim_start_matches("/admin/v1/") {
        "apps" => apps(parts),
        "quotas" => quotas(parts),
        "regions" => json!({ "regions": parts.egress.regions() }),
        "pollers" => json!({ "pollers": parts.events.pollers() }),
        "subscriptions" => json!({ "subscriptions": parts.events.subscriptions() }),
        "quarantine" => return quarantine(parts).await,
        "backup" => return backup(parts).await,
        "identity" => json!({ "token_keys": parts.jwks.status() }),
        "config" => reload::describe(&parts.config.load(), &parts.reload),
        _ => {
            return refusal(
                StatusCode::NOT_FOUND,
                "one of /admin/v1/apps, regions, quotas, pollers, subscriptions, quarantine, identity, config, backup",
            );
        }
    };
    (StatusCode::OK, Content::Json(value))
}

/// The store as it is now, as a data file. It holds all events: whoever may read it may read them.
async fn backup(parts: &Parts) -> (StatusCode, Content) {
    let made = parts.backup().await.and_then(|file| {
        let length = file.metadata().map_err(|why| crate::store::Error::Io(why.to_string()))?.len();
        Ok((file, length))
    });
    match made {
        Ok((file, length)) => (StatusCode::OK, Content::File(file, length)),
        Err(why) => refusal(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
    }
}

fn apps(parts: &Parts) -> Value {
    let config = parts.config.load();
    let credentials = parts.egress.credential_states();
    let apps: Vec<Value> = config
        .apps
        .iter()
        .map(|app| {
            let regions: Vec<Value> = app
                .regions
                .iter()
                .map(|r| json!({ "name": r.name.as_str(), "base_url": r.base_url.to_string() }))
                .collect();
            let streams: Vec<&str> = app.events.streams.iter().map(|s| s.as_str()).collect();
            let credential = credentials.iter().find(|state| state.app == app.id.as_str());
            json!({ "id": app.id.as_str(), "regions": regions, "streams": streams, "credential": credential })
        })
        .collect();
    json!({ "apps": apps })
}

fn quotas(parts: &Parts) -> Value {
    let quotas: Vec<Value> = parts
        .egress
        .buckets()
        .into_iter()
        .map(|(app, bucket, now)| {
            json!({
                "app": app.as_str(), "bucket": bucket.as_str(),
                "requests": now.limit.requests.get(), "per_seconds": now.limit.per.as_secs_f64(),
                "in_force": now.in_force, "free": now.free, "in_flight": now.in_flight, "waiting": now.waiting,
                "next_seconds": now.next.as_secs_f64(),
            })
        })
        .collect();
    json!({ "quotas": quotas })
}

async fn quarantine(parts: &Parts) -> (StatusCode, Content) {
    let config = parts.config.load_full();
    let mut responses = Vec::new();
    for app in &config.apps {
        for stream in &app.events.streams {
            let kept = match parts.events.quarantined(&app.id, *stream, QUARANTINE_SHOWN).await {
                Ok(kept) => kept,
                Err(why) => return refusal(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
            };
            responses.extend(kept.into_iter().map(|kept| {
                json!({
                    "app": app.id.as_str(), "stream": stream.as_str(), "region": kept.region.as_str(),
                    "received_at": kept.received_at.to_string(), "why": kept.why,
                    "bytes": kept.body.len(),
                    "body": String::from_utf8_lossy(&kept.body[..kept.body.len().min(QUARANTINE_BODY_SHOWN)]),
                })
            }));
        }
    }
    (StatusCode::OK, Content::Json(json!({ "quarantine": responses })))
}
