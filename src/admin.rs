//! The operator's port: health, readiness, metrics, JSON about everything that runs, and the few things that an
//! operator changes by hand.
//!
//! | file | what |
//! | --- | --- |
//! | `operations` | all that can be asked |
//! | `host_check` | whether the request is for this port, and of whose page |
//! | `call`, `answer`, `rejection` | a request past the key; what it is answered; why it is not done |
//! | `overview` | all that is only read |
//! | `clients` | who calls |
//! | `subscriptions`, `dead_letters` | what is changed of events |
//! | `webhooks` | what is changed of webhooks |
//! | `quarantine` | answers that could not be read |
//! | `losses` | what may have been lost |
//!
//! Invariants: nothing but what `operations` lists with POST or DELETE changes anything; no secret is in any answer;
//! `/healthz`, `/readyz` and `/metrics` are open, the rest needs the admin key unless the port is reachable only from
//! this machine; then the request must name this machine. However many operations are under way, there are connections
//! left for a probe.

mod answer;
mod call;
mod clients;
mod dead_letters;
mod host_check;
mod losses;
mod operations;
mod overview;
mod quarantine;
mod rejection;
mod subscriptions;
mod webhooks;

use std::convert::Infallible;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tower::{Service, ServiceBuilder};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use self::answer::{Answer, Content, respond};
use self::call::Call;
use self::operations::Match;
pub use self::operations::Operation;
use self::quarantine::QuarantinePath;
use self::rejection::Rejection;
use self::subscriptions::SubscriptionPath;
use self::webhooks::WebhookPath;
use crate::events::Cursor;
use crate::http::body::handover::{Delivered, Ending};
use crate::http::body::{Body, Inbound};
use crate::kernel::conn::Conn;
use crate::kernel::conn::places::{NoPlace, SeatGuard};
use crate::kernel::heap;
use crate::kernel::metrics::TextForm;
use crate::kernel::trouble::Part;
use crate::request::route::{path, query};
use crate::services::{Parts, Probe};

/// Serves the operator's port. What holds for every answer is in the layers: nothing is cached, nothing is sniffed, and
/// a key that was shown is marked so that no log prints it.
pub fn service(
    parts: Arc<Parts>,
) -> impl Service<Request<Inbound>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let keys = [AUTHORIZATION, HeaderName::from_static("x-api-key")];
    ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new(keys))
        .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .service_fn(move |request: Request<Inbound>| {
            let parts = parts.clone();
            async move {
                let is_head = request.method() == Method::HEAD;
                let mut place = None;
                let mut response = respond(answer(&parts, request, &mut place).await);
                if is_head {
                    without_body(&mut response);
                }
                if let Some(place) = place {
                    response.body_mut().on_end(Box::new(place));
                }
                Ok(response)
            }
        })
}

/// The answer to HEAD: the head of the answer to GET.
fn without_body(response: &mut Response<Body>) {
    if let Some(total) = response.body().total() {
        response.headers_mut().insert(CONTENT_LENGTH, total.into());
    }
    response.body_mut().withhold();
}

/// Answers one request on the operator's port.
async fn answer(parts: &Parts, request: Request<Inbound>, place: &mut Option<ConnectionGuard>) -> Answer {
    let (head, body) = request.into_parts();
    let uri = head.uri.clone();
    let segments = path::segments(uri.path())?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    host_check::check(&parts.config.load().admin, &head, &segments)?;
    // Before it is looked for what is there: without the key nobody learns which paths there are.
    if segments.first() == Some(&"admin") && !allowed(parts, &head.headers) {
        return Err(Rejection::new(StatusCode::UNAUTHORIZED, "the admin key is needed: Authorization: Bearer KEY"));
    }
    let Match { operation, values } = Operation::find(&head.method, &segments)?;
    // Behind the key: a stranger takes no place, and a probe needs none.
    if segments.first() == Some(&"admin") {
        *place = ConnectionGuard::on(head.extensions.get())?;
    }
    if !operation.has_parameters() {
        query::none(uri.query())?;
    }
    let call = Call::new(parts, operation, head, body)?;
    match operation {
        Operation::Document => Ok(Content::Document),
        Operation::Alive => Ok(Content::Json(json!({ "alive": true }))),
        Operation::Ready => readiness(&call),
        Operation::Metrics => Ok(metrics(parts, call.accepted_form())),
        Operation::Apps => Ok(Content::Json(overview::apps(parts))),
        Operation::Quotas => Ok(Content::Json(overview::quotas(parts))),
        Operation::Regions => Ok(Content::Json(json!({ "regions": parts.egress.regions() }))),
        Operation::Pollers => Ok(Content::Json(json!({ "pollers": parts.events.pollers() }))),
        Operation::Subscriptions => Ok(Content::Json(json!({ "subscriptions": parts.events.subscriptions() }))),
        Operation::Webhooks => Ok(Content::Json(webhooks::all(parts))),
        Operation::Losses => losses::list(&call).await,
        Operation::Quarantine => quarantine::list(&call).await,
        Operation::Quarantined => quarantine::show(parts, &QuarantinePath::named_by(&values)?).await,
        Operation::ReadAgain => quarantine::redeliver(parts, &QuarantinePath::named_by(&values)?).await,
        Operation::Identity => Ok(Content::Json(json!({ "token_keys": parts.jwks.status() }))),
        Operation::Clients => Ok(Content::Json(clients::list(parts))),
        Operation::Config => Ok(Content::Json(parts.describe_config())),
        Operation::Backup => overview::backup(parts).await,
        Operation::RemoveSubscription => {
            subscriptions::remove(&call, &SubscriptionPath::named_by(parts, &values)?).await
        }
        Operation::Seek => subscriptions::seek(call, &SubscriptionPath::named_by(parts, &values)?).await,
        Operation::DeadLetters => dead_letters::list(&call, &SubscriptionPath::named_by(parts, &values)?).await,
        Operation::ClearDeadLetters => dead_letters::clear(&call, &SubscriptionPath::named_by(parts, &values)?).await,
        Operation::ClearDeadLetter => {
            let which = SubscriptionPath::named_by(parts, &values)?;
            dead_letters::clear_one(&call, &which, cursor(values.last())?).await
        }
        Operation::Redeliver => dead_letters::redeliver(call, &SubscriptionPath::named_by(parts, &values)?).await,
        Operation::EnableWebhook => webhooks::enable(&call, &WebhookPath::named_by(&call, &values)?).await,
        Operation::DisableWebhook => webhooks::disable(&call, &WebhookPath::named_by(&call, &values)?).await,
        Operation::TryWebhook => webhooks::try_now(&call, &WebhookPath::named_by(&call, &values)?).await,
        Operation::WebhookDeadLetters => webhooks::list(&call, &WebhookPath::named_by(&call, &values)?).await,
        Operation::ClearWebhookDeadLetters => {
            webhooks::clear(&call, &WebhookPath::named_by(&call, &values)?, None).await
        }
        Operation::ClearWebhookDeadLetter => {
            let which = WebhookPath::named_by(&call, &values)?;
            webhooks::clear(&call, &which, Some(cursor(values.last())?)).await
        }
        Operation::RedeliverToWebhook => {
            let which = WebhookPath::named_by(&call, &values)?;
            webhooks::redeliver(call, &which).await
        }
    }
}

/// An operation past the key is in hand: its connection is not closed for a newcomer. What is open to everybody is not
/// protected so, and some places are left for it: a probe is always answered.
#[derive(Debug)]
struct ConnectionGuard(#[expect(dead_code, reason = "dropped with the answer")] SeatGuard);

impl ConnectionGuard {
    fn on(conn: Option<&Arc<Conn>>) -> Result<Option<Self>, Rejection> {
        match conn.map(|conn| conn.occupy("operator")).transpose() {
            Ok(place) => Ok(place.flatten().map(Self)),
            Err(NoPlace) => Err(Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "too many operations are under way")),
        }
    }
}

impl Ending for ConnectionGuard {
    fn flushed(self: Box<Self>) -> Option<Box<dyn Delivered>> {
        None
    }
}

/// The cursor that a path ends with.
fn cursor(last: Option<&&str>) -> Result<Cursor, Rejection> {
    dead_letters::cursor(last.copied().unwrap_or_default())
}

/// Whether the gateway, or what is asked after of it, is of use. Open to everybody: of what fails it tells the kind and
/// whose app it is, as the metrics do, and nothing else.
fn readiness(call: &Call<'_>) -> Answer {
    let mut probe = Probe::default();
    for (name, value) in call.query()? {
        match name.as_str() {
            "for" => {
                let part = Part::parse(&value);
                probe.parts.push(part.ok_or_else(|| Rejection::bad("for: is one of events, messages, callers"))?);
            }
            "app" => {
                let config = call.parts.config.load();
                let app = config.apps.iter().find(|app| app.id.as_str() == value);
                probe.apps.push(app.ok_or_else(|| Rejection::bad("app: there is no such app"))?.id.clone());
            }
            // Probes add their own.
            _ => {}
        }
    }
    let readiness = call.parts.readiness(&probe);
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(Content::Status(status, readiness.as_json()))
}

fn metrics(parts: &Parts, form: TextForm) -> Content {
    // What would cost something to keep up to date is looked at when somebody asks.
    parts.egress.refresh_metrics();
    parts.events.observe();
    parts.jwks.observe();
    parts.metrics.heap_live.set(i64::try_from(heap::live()).unwrap_or(i64::MAX));
    Content::Metrics(form, parts.metrics.page(form))
}

/// The admin key as a Bearer token or `X-API-Key`; its SHA-256 is compared without timing leaks.
fn allowed(parts: &Parts, headers: &HeaderMap) -> bool {
    let Some(wanted) = parts.config.load().admin.api_key_sha256 else { return true };
    let bearer = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let shown = headers.get("x-api-key").and_then(|v| v.to_str().ok()).or(bearer).unwrap_or_default();
    // Digests are of one length: how long the comparison takes says nothing of the key.
    let digest: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
    digest.ct_eq(&wanted).into()
}
