//! The operator's port: health, readiness, metrics, JSON about everything that runs, and the few things that an
//! operator changes by hand.
//!
//! | file | what |
//! | --- | --- |
//! | `operations` | all that can be asked |
//! | `host_check` | whether the request is for this port, and of whose page |
//! | `operator`, `refused_keys` | who asks; what is told of those who may not |
//! | `call`, `answer`, `rejection` | a request past the key; what it is answered; why it is not done |
//! | `trace` | the line in the log that each act leaves |
//! | `turns` | acts on one thing, one after the other |
//! | `overview` | all that is only read |
//! | `clients` | who calls |
//! | `subscriptions`, `dead_letters` | what is changed of events |
//! | `webhooks` | what is changed of webhooks |
//! | `quarantine` | answers that could not be read |
//! | `losses` | what may have been lost |
//!
//! Invariants: nothing but what `operations` lists as an act changes anything, or shows events, and each act leaves a
//! line in the log; no secret is in any answer; `/`, `/healthz`, `/readyz` and `/metrics` are open, the rest needs a
//! key unless the port is reachable only from this machine and has none; then the request must name this machine. The
//! read-only key opens no act. However many operations are under way, there are connections left for a probe.

mod answer;
mod call;
mod clients;
mod dead_letters;
mod host_check;
mod losses;
mod operations;
mod operator;
mod overview;
mod quarantine;
mod refused_keys;
mod rejection;
mod subscriptions;
mod trace;
mod turns;
mod webhooks;

use std::convert::Infallible;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts as Head;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tower::{Service, ServiceBuilder};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use self::answer::{Answer, Content, respond};
use self::call::Call;
pub use self::operations::{Act, Operation, View};
use self::operations::{Match, is_below_admin};
use self::operator::{KeyFault, Operator};
use self::quarantine::QuarantinePath;
use self::refused_keys::RefusedKeys;
use self::rejection::Rejection;
use self::subscriptions::SubscriptionPath;
use self::trace::{Done, Trace};
use self::turns::Turns;
use self::webhooks::WebhookPath;
use crate::events::Cursor;
use crate::http::body::handover::{Delivered, Ending};
use crate::http::body::{Body, Inbound};
use crate::kernel::conn::Conn;
use crate::kernel::conn::places::{NoPlace, SeatGuard};
use crate::kernel::heap;
use crate::kernel::metrics::TextForm;
use crate::kernel::names::AppId;
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
    let refused_keys = Arc::new(RefusedKeys::new(parts.metrics.clone(), parts.clock.now()));
    let turns = Arc::new(Turns::default());
    let keys = [AUTHORIZATION, HeaderName::from_static("x-api-key")];
    ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new(keys))
        .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .service_fn(move |request: Request<Inbound>| {
            let (parts, refused_keys, turns) = (parts.clone(), refused_keys.clone(), turns.clone());
            async move {
                let is_head = request.method() == Method::HEAD;
                let mut place = None;
                let mut response = respond(answer((&parts, &refused_keys, &turns), request, &mut place).await);
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
async fn answer(
    (parts, refused_keys, turns): (&Parts, &RefusedKeys, &Turns),
    request: Request<Inbound>,
    place: &mut Option<ConnectionGuard>,
) -> Answer {
    let (head, body) = request.into_parts();
    let uri = head.uri.clone();
    let conn = head.extensions.get::<Arc<Conn>>().cloned();
    // A page's address, which people type, ends with a slash or without.
    let path = uri.path();
    let segments =
        path::segments(path.strip_suffix('/').filter(|rest| !rest.is_empty() && !rest.ends_with('/')).unwrap_or(path))?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    host_check::check(&parts.config.load().admin, &head, &segments)?;
    let refused = |fault| refused_keys.tell(fault, conn.as_deref(), parts.clock.now());
    if let Err(fault) = still_trusted(parts, conn.as_deref()).await {
        refused(fault);
        return Err(Rejection::new(StatusCode::UNAUTHORIZED, "this connection's certificate is good no more"));
    }
    // Before it is looked for what is there: without a key nobody learns which paths there are.
    let operator = is_below_admin(&segments).then(|| Operator::of(&parts.config.load().admin, &head.headers));
    let operator = operator.transpose().map_err(|fault| {
        refused(fault);
        Rejection::new(StatusCode::UNAUTHORIZED, "the admin key is needed: Authorization: Bearer KEY")
    })?;
    let Match { operation, values } = Operation::find(&head.method, &segments)?;
    // Behind the key: a stranger takes no place, and a probe needs none.
    if operator.is_some() {
        *place = ConnectionGuard::on(conn.as_ref())?;
    }
    match operation {
        Operation::View(asked) => view(asked, &call_for(parts, operation, head, body)?).await,
        Operation::Act(act) => {
            let operator = operator.unwrap_or(Operator::Local);
            let mut trace = Trace::begin(act, operator, conn.as_deref(), &values);
            let done = if operator.may_act() {
                match call_for(parts, operation, head, body) {
                    Ok(call) => self::act(act, call, turns, &mut trace, &values).await,
                    Err(refused) => Err(refused),
                }
            } else {
                refused_keys.count(KeyFault::ReadOnly);
                let detail = "the read-only key does not open this: the key of admin.api_key_sha256 is needed";
                Err(Rejection::new(StatusCode::FORBIDDEN, detail))
            };
            trace.end(done)
        }
    }
}

/// A request past the key, if its head asks for nothing that the operation does not have.
fn call_for(parts: &Parts, operation: Operation, head: Head, body: Inbound) -> Result<Call<'_>, Rejection> {
    if !operation.has_parameters() {
        query::none(head.uri.query())?;
    }
    Call::new(parts, operation, head, body)
}

/// Shows something. What is confidential is no view.
async fn view(view: View, call: &Call<'_>) -> Answer {
    let parts = call.parts;
    Ok(match view {
        View::Root => Content::Json(overview::open_operations()),
        View::Index => Content::Json(overview::operations()),
        View::Document => Content::Document,
        View::Alive => Content::Json(json!({ "alive": true })),
        View::Ready => readiness(call)?,
        View::Metrics => metrics(parts, call.accepted_form()),
        View::Apps => Content::Json(overview::apps(parts)),
        View::Quotas => Content::Json(overview::quotas(parts)),
        View::Regions => Content::Json(json!({ "regions": parts.egress.regions() })),
        View::Pollers => Content::Json(json!({ "pollers": parts.events.pollers() })),
        View::Subscriptions => overview::subscriptions(parts).await,
        View::Webhooks => Content::Json(webhooks::all(parts)),
        View::Losses => losses::list(call).await?,
        View::Store => Content::Json(overview::store(parts)),
        View::Quarantine => quarantine::list(call).await?,
        View::Identity => Content::Json(json!({ "token_keys": parts.jwks.status() })),
        View::Clients => Content::Json(clients::list(parts)),
        View::Config => Content::Json(parts.describe_config()),
    })
}

/// Does something, and says in the trace what.
async fn act(act: Act, call: Call<'_>, turns: &Turns, trace: &mut Trace, values: &[&str]) -> Result<Done, Rejection> {
    let parts = call.parts;
    match act {
        Act::Backup => overview::backup(parts, trace).await,
        Act::Quarantined => quarantine::show(parts, trace, &QuarantinePath::named_by(values)?).await,
        Act::ReadAgain => quarantine::redeliver(parts, turns, trace, &QuarantinePath::named_by(values)?).await,
        Act::RemoveSubscription => {
            let which = SubscriptionPath::named_by(parts, trace, values)?;
            subscriptions::remove(&call, turns, trace, &which).await
        }
        Act::Seek => {
            let which = SubscriptionPath::named_by(parts, trace, values)?;
            subscriptions::seek(call, turns, trace, &which).await
        }
        Act::DeadLetters => {
            let which = SubscriptionPath::named_by(parts, trace, values)?;
            dead_letters::list(&call, trace, &which).await
        }
        Act::ClearDeadLetters => {
            let which = SubscriptionPath::named_by(parts, trace, values)?;
            dead_letters::clear(&call, turns, trace, &which, None).await
        }
        Act::ClearDeadLetter => {
            let which = SubscriptionPath::named_by(parts, trace, values)?;
            dead_letters::clear(&call, turns, trace, &which, Some(cursor(values.last())?)).await
        }
        Act::Redeliver => {
            let which = SubscriptionPath::named_by(parts, trace, values)?;
            dead_letters::redeliver(call, turns, trace, &which).await
        }
        Act::EnableWebhook => webhooks::switch(&call, turns, trace, &WebhookPath::named_by(&call, values)?, true).await,
        Act::DisableWebhook => {
            webhooks::switch(&call, turns, trace, &WebhookPath::named_by(&call, values)?, false).await
        }
        Act::TryWebhook => webhooks::try_now(&call, turns, trace, &WebhookPath::named_by(&call, values)?).await,
        Act::WebhookDeadLetters => webhooks::list(&call, trace, &WebhookPath::named_by(&call, values)?).await,
        Act::ClearWebhookDeadLetters => {
            webhooks::clear(&call, turns, trace, &WebhookPath::named_by(&call, values)?, None).await
        }
        Act::ClearWebhookDeadLetter => {
            let which = WebhookPath::named_by(&call, values)?;
            webhooks::clear(&call, turns, trace, &which, Some(cursor(values.last())?)).await
        }
        Act::RedeliverToWebhook => {
            let which = WebhookPath::named_by(&call, values)?;
            webhooks::redeliver(call, turns, trace, &which).await
        }
    }
}

/// Whether the certificate that a connection was made with, if it was, is good yet. Another handshake says why not.
async fn still_trusted(parts: &Parts, conn: Option<&Conn>) -> Result<(), KeyFault> {
    let shown = conn.and_then(|conn| Some((conn, conn.certificate()?, parts.admin_tls.as_ref()?)));
    let Some((conn, certificate, tls)) = shown else { return Ok(()) };
    if tls.live().trust.vouches_for(certificate, tls.now()).await {
        return Ok(());
    }
    conn.end_soon();
    Err(KeyFault::Certificate)
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
                let id = AppId::parse(&value).map_err(|why| Rejection::bad(format_args!("app: {why}")))?;
                if !call.parts.config.load().apps.iter().any(|app| app.id == id) {
                    return Err(Rejection::nowhere("there is no such app"));
                }
                probe.apps.push(id);
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
