//! The spine: a request from its head to its answer, every stage by name.
//!
//! | stage    | file              | hands on     | may end the request with                              |
//! |----------|-------------------|--------------|-------------------------------------------------------|
//! | accept   | `server/listener` | `Conn`       | close; 400 and 431 for what is not HTTP               |
//! | enter    | `admission.rs`    | `Headroom`   | 503 when the gateway is full                          |
//! | check    | `route/target.rs` | –            | 400 a head that can be read in two ways; 404          |
//! | open     | `route.rs`        | `OpenRoute`  | 200 what anybody may ask; 405                         |
//! | identify | `identity.rs`     | `Client`     | 401, 503 no keys to check a token by                  |
//! | doubt    | `route/browsers.rs` | –          | 421, 403 no credential, and perhaps a web page's doing |
//! | grant    | `policy.rs`       | `Grant`      | –                                                     |
//! | parse    | `route.rs`        | `Route`      | 400, 404, 405                                         |
//! | permit   | `route/call.rs`   | `Call`       | 403                                                   |
//! | admit    | `admission.rs`    | `Admitted`   | 429 a ceiling of the client; 503 its share is full    |
//! | occupy   | `kernel/conn/places.rs` | `SeatGuard` | 503 its share of the connections is full          |
//! | serve    | `routes/*.rs`     | `HandlerResponse` | what the services say                            |
//!
//! Invariants: every request gets exactly one answer and one [`RequestLog`], a panic included; every answer has
//! `X-Request-Id` and `X-RTM-Origin`. Nothing is spawned here: a caller that leaves drops the whole of its request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

use crate::http::body::{Body, Inbound};
use crate::http::headers;
use crate::kernel::conn::{Conn, Fault, Peer};
use crate::kernel::proof::By;
use crate::request::gateway::{Gateway, InForce};
use crate::request::guard::{RequestGuard, ResponseEnd};
use crate::request::refusal::{Refusal, Shed};
use crate::request::request_log::RequestLog;
use crate::request::response::HandlerResponse;
use crate::request::route::{Call, Kind, OpenRoute, Route};
use crate::request::routes::{self, RequestContext};

/// Answers a request.
pub async fn handle(gateway: Arc<Gateway>, conn: Arc<Conn>, request: Request<Inbound>) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    headers::mark_credentials(&mut head.headers);
    let in_force = gateway.in_force();
    // In this order, so that a caller who leaves is logged before its place is free.
    let mut guard = RequestGuard::default();
    let mut log = RequestLog::begin(&gateway, &in_force.live, conn.peer, &head);
    let work = serve(&gateway, &in_force, &conn, &head, body, &mut log, &mut guard);
    let refusal = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(served)) => return finish(served, &head.method, log, guard),
        Ok(Err(refusal)) => refusal,
        // What a panic says may hold anything: it goes to the panic hook, not into an answer or this line.
        Err(_) => Refusal::Internal("panic".into()),
    };
    guard.refuse(&refusal);
    log.refused(&refusal);
    finish(refused(&refusal, &log), &head.method, log, guard)
}

/// What a request's stages have come to before its route.
#[expect(
    clippy::large_enum_variant,
    reason = "almost every request is the large one, and a box would cost each of them"
)]
enum Passed<'a> {
    /// It asks what anybody may.
    Open(OpenRoute),
    Admitted(Kind, RequestContext<'a>),
}

async fn serve(
    gateway: &Arc<Gateway>,
    in_force: &InForce,
    conn: &Conn,
    head: &Parts,
    body: Inbound,
    log: &mut RequestLog,
    guard: &mut RequestGuard,
) -> Result<HandlerResponse, Refusal> {
    let (kind, context) = match pass(gateway, in_force, conn, head, body, log, guard).await? {
        Passed::Open(OpenRoute::Document) => return Ok(routes::document::answer()),
        Passed::Admitted(kind, context) => (kind, context),
    };
    // Each in a box of its own: a request should not hold room for what other routes wait for.
    match kind {
        Kind::Events { streams, form, query } => Box::pin(routes::events::read(context, streams, form, query)).await,
        Kind::Acknowledge { stream, what } => Box::pin(routes::events::ack::settle(context, stream, what)).await,
        Kind::NextEvents { stream } => Box::pin(routes::events::next::settle_and_read(context, stream)).await,
        Kind::HistoryQuery => Box::pin(routes::history::query(context)).await,
        Kind::HistoryFetch { handle } => Box::pin(routes::history::fetch(context, &handle)).await,
        Kind::HistoryStream { query } => Box::pin(routes::history::stream::open(context, &query)).await,
        Kind::Count { query } => Box::pin(routes::count::count(context, &query)).await,
        Kind::Message { to, user, query } => Box::pin(routes::messages::forward(context, to, user, query)).await,
    }
}

/// All stages before a request's route.
async fn pass<'a>(
    gateway: &'a Arc<Gateway>,
    in_force: &'a InForce,
    conn: &Conn,
    head: &'a Parts,
    body: Inbound,
    log: &'a mut RequestLog,
    guard: &'a mut RequestGuard,
) -> Result<Passed<'a>, Refusal> {
    let live = &in_force.live;
    let headroom = gateway.admission.enter()?;
    if let Some(fault) = head.extensions.get::<Fault>() {
        return Err(Refusal::bad(fault.to_string()));
    }
    live.hosts.check(head, conn.local)?;
    if let Some(route) = OpenRoute::parse(&head.method, &head.uri)? {
        log.open_route(route);
        return Ok(Passed::Open(route));
    }
    let now = gateway.clock.wall_ms();
    let client = live.identity.identify(conn, &head.headers, now).await.map_err(|unknown| {
        gateway.strangers.refused(&conn.peer, unknown.fault, now);
        log.unidentified(unknown.fault);
        unknown.refusal
    })?;
    log.client(client.name(), client.method());
    // No page reaches a Unix socket.
    if client.evidence().by == By::Nothing && matches!(conn.peer, Peer::Tcp(_)) {
        live.hosts.check_unproven(head)?;
    }
    let grant = live.policy.grant(client);
    let route = Route::parse(&head.method, &head.uri)?.accepted(&head.headers)?;
    log.route(&route, live.policy.has(&route.app));
    let (admitted, permit) = gateway.admission.admit(headroom, Call::within(route, &grant)?)?;
    log.admitted(permit.would_refuse());
    guard.admit(permit);
    guard.occupy(conn.occupy(admitted.client().as_str()).map_err(|_| Refusal::shed(Shed::Connections))?);
    let (kind, context) = RequestContext::new(gateway, in_force, head, body, admitted, log, guard);
    Ok(Passed::Admitted(kind, context))
}

fn refused(refusal: &Refusal, log: &RequestLog) -> HandlerResponse {
    HandlerResponse::of_gateway(refusal.status(), refusal.headers(), Body::from(refusal.body(log.id())))
}

fn finish(served: HandlerResponse, method: &Method, mut log: RequestLog, guard: RequestGuard) -> Response<Body> {
    let HandlerResponse { status, headers, mut body, origin, receipts } = served;
    let mut response = Response::new(Body::from(Bytes::new()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    log.mark(response.headers_mut(), origin);
    log.answered(status, origin, body.total().is_none());
    if method == Method::HEAD {
        if let Some(total) = body.total() {
            response.headers_mut().insert(hyper::header::CONTENT_LENGTH, total.into());
        }
        body.withhold();
    }
    body.on_end(Box::new(ResponseEnd::new(log, receipts, guard)));
    *response.body_mut() = body;
    response
}
