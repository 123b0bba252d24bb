//! The spine: a request from its head to its answer, every stage by name.
//!
//! | stage    | file              | hands on     | may end the request with                              |
//! |----------|-------------------|--------------|-------------------------------------------------------|
//! | accept   | `listener.rs`     | `Conn`       | close; 400 and 431 for what is not HTTP                |
//! | enter    | `admission.rs`    | `Entered`    | 503 when the gateway is full                          |
//! | check    | `route/target.rs` | –            | 400 a head that can be read in two ways; 404           |
//! | document | `openapi.rs`       | –            | 200 what may be asked, for anybody; 405                |
//! | identify | `identity.rs`     | `Client`     | 401, 503 no keys to check a token by                  |
//! | doubt    | `route/browsers.rs` | –          | 421, 403 who shows nothing, where a page may have led a browser |
//! | grant    | `policy.rs`       | `Grant`      | –                                                     |
//! | parse    | `route.rs`        | `Route`      | 400, 404, 405                                         |
//! | permit   | `route.rs`        | `Call`       | 403                                                   |
//! | admit    | `admission.rs`    | `Admitted`   | 429 a ceiling of the client; 503 its share is full     |
//! | occupy   | `conn/places.rs`  | `Occupied`   | 503 its share of the connections is full              |
//! | serve    | `routes/*.rs`     | `HandlerResponse`     | what the services say                                  |
//!
//! Invariants: every request gets exactly one answer and one [`RequestLog`], a panic included; every answer has
//! `X-Request-Id` and `X-RTM-Origin`. Nothing is spawned here: a caller that leaves drops the whole of its request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::http::body::{Body, Inbound};
use crate::http::headers;
use crate::kernel::conn::{Conn, Fault, Peer};
use crate::kernel::proof::By;
use crate::request::gateway::{Gateway, Live};
use crate::request::openapi;
use crate::request::refusal::{Refusal, Shed};
use crate::request::request_log::RequestLog;
use crate::request::response::{HandlerResponse, Origin};
use crate::request::route::{Kind, Route};
use crate::request::routes;

/// Answers a request.
pub async fn handle(gateway: Arc<Gateway>, conn: Arc<Conn>, request: Request<Inbound>) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    headers::mark_credentials(&mut head.headers);
    // In this order: what is in force is not older than its number.
    let generation = gateway.proofs.generation();
    let live = gateway.live();
    let mut trail = RequestLog::begin(&gateway, &live, &head);
    let work = call(&gateway, (&live, generation), &conn, &head, body, &mut trail);
    let served = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(served)) => served,
        Ok(Err(refusal)) => refuse(&refusal, &mut trail),
        // What a panic says may hold anything: it goes to the panic hook, not into an answer or this line.
        Err(_) => refuse(&Refusal::Internal("panic".into()), &mut trail),
    };
    finish(served, &head.method, trail)
}

async fn call(
    gateway: &Arc<Gateway>,
    (live, generation): (&Live, u64),
    conn: &Conn,
    head: &Parts,
    body: Inbound,
    trail: &mut RequestLog,
) -> Result<HandlerResponse, Refusal> {
    let entered = gateway.admission.enter()?;
    if let Some(fault) = head.extensions.get::<Fault>() {
        return Err(Refusal::bad(fault.to_string()));
    }
    live.hosts.check(head, conn.local)?;
    if openapi::is_asked(&head.method, &head.uri)? {
        return Ok(document(trail));
    }
    let client = live.identity.identify(conn, &head.headers, gateway.clock.wall_ms()).await?;
    // No page reaches a Unix socket.
    if client.evidence().by == By::Nothing && matches!(conn.peer, Peer::Tcp(_)) {
        live.hosts.check_unproven(head)?;
    }
    let name = client.name().clone();
    trail.client(&name);
    let (evidence, seen) = (client.evidence().clone(), routes::Seen { generation, life: client.life() });
    let grant = live.policy.grant(client);
    let route = Route::parse(&head.method, &head.uri)?.accepted(&head.headers)?;
    trail.route(&route, live.policy.has(&route.app));
    let (admitted, in_hand) = gateway.admission.admit(entered, route.within(&grant)?)?;
    trail.admitted(in_hand);
    trail.occupies(conn.occupy(name.as_str()).map_err(|_| Refusal::shed(Shed::Connections))?);
    let (kind, request) = routes::RequestContext::new(gateway, live, head, body, (admitted, evidence, seen), trail);
    match kind {
        Kind::Events { streams, form, query } => routes::events::read(request, streams, form, query).await,
        Kind::Settle { stream, what } => routes::events::ack::settle(request, stream, what).await,
        Kind::HistoryQuery => routes::history::query(request).await,
        Kind::HistoryFetch { handle } => routes::history::fetch(request, &handle).await,
        Kind::HistoryStream { query } => routes::history::stream::open(request, &query).await,
        Kind::Count { query } => routes::count::ask(request, &query).await,
        Kind::Message { to, user, query } => routes::messages::forward(request, to, user, query).await,
    }
}

/// What may be asked here, for anybody.
fn document(trail: &mut RequestLog) -> HandlerResponse {
    trail.document();
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let body = Body::from(Bytes::from_static(openapi::DOCUMENT.as_bytes()));
    HandlerResponse { status: StatusCode::OK, headers, body, origin: Origin::Gateway, receipts: Vec::new() }
}

fn refuse(refusal: &Refusal, trail: &mut RequestLog) -> HandlerResponse {
    trail.refused(refusal);
    HandlerResponse {
        status: refusal.status(),
        headers: refusal.headers(),
        body: Body::from(refusal.body(trail.id())),
        origin: Origin::Gateway,
        receipts: Vec::new(),
    }
}

fn finish(served: HandlerResponse, method: &Method, mut trail: RequestLog) -> Response<Body> {
    let HandlerResponse { status, headers, mut body, origin, receipts } = served;
    let mut response = Response::new(Body::from(Bytes::new()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    trail.mark(response.headers_mut(), origin);
    trail.answered(status, origin, receipts);
    if method == Method::HEAD {
        if let Some(total) = body.total() {
            response.headers_mut().insert(hyper::header::CONTENT_LENGTH, total.into());
        }
        body.withhold();
    }
    body.on_end(Box::new(trail));
    *response.body_mut() = body;
    response
}
