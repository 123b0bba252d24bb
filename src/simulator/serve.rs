//! The life of one request at the simulated vendor.
//!
//! | step | may end it with |
//! | --- | --- |
//! | head and body are read; the target is read | 404, 405, 400 |
//! | scripted: waits, connection dies before counting, HTTP/2 refuses | nothing |
//! | the world's hook runs; the request is counted in its window | 429 |
//! | the credential is checked | 401 |
//! | scripted: answered without acting | any status |
//! | [`act`]: events removed, handle spent, message stored | 200, 400, 404, 410 |
//! | scripted: waits, hangs, connection dies; the body goes out whole or spoilt | |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::answer::Answer;
use super::body::AnswerBody;
use super::conn::Conn;
use super::region::{Idle, Region};
use super::script::{Plan, Refusal, Shape};
use super::seen::SeenRequest;
use super::stats::EndpointStats;
use super::target::{self, Call};
use super::violation::ViolationKind;
use super::world::Account;
use super::{Endpoint, act, auth, control, headers, lock};

/// No request of the vendor's API is larger.
const LARGEST_BODY: usize = 1 << 20;

/// Answers one request, or never: then the connection ends. It is under way from this call on, not from its task's
/// first turn: a connection that goes away waits for all that came before.
pub(super) fn serve(
    region: Arc<Region>,
    conn: Arc<Conn>,
    number: u32,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<AnswerBody>, h2::Error>> {
    let flight = InFlight::begin(&region, &conn);
    answer(region, conn, number, request, flight)
}

async fn answer(
    region: Arc<Region>,
    conn: Arc<Conn>,
    number: u32,
    request: Request<Incoming>,
    flight: InFlight,
) -> Result<Response<AnswerBody>, h2::Error> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else { return silence(&conn, false).await };
    let body = body.to_bytes();
    let received = region.world.clock().now();
    let shape = Shape { close: *lock(&region.idle) == Idle::CloseAfterEach, ..Shape::default() };
    if let Some(path) = head.uri.path().strip_prefix("/_sim/") {
        // Turned away: the client was told by GOAWAY, and whatever came now would be an answer to a stream that is no
        // more.
        if !conn.process(number) {
            return std::future::pending().await;
        }
        let answer = control::answer(&region, &head.method, path, &body);
        return Ok(respond(answer, shape, flight, None));
    }
    let (app, call) = match target::parse(&head.method, &head.uri) {
        Ok(target) => target,
        Err(no) => {
            if !conn.process(number) {
                return std::future::pending().await;
            }
            region.note(|| SeenRequest::new(&head, &body, None, None, conn.number));
            region.violate("", ViolationKind::Target { why: format!("{} {}: {}", head.method, head.uri, no.why) });
            return Ok(respond(Answer::no(no.status, &no.why), shape, flight, None));
        }
    };
    let endpoint = call.endpoint();
    let mut plan = lock(&region.script).next(endpoint);
    plan.shape.close |= shape.close;
    count_up(&region, endpoint, |e| {
        e.received += 1;
        e.faulted += u64::from(plan.faulted);
    });
    wait(plan.before).await;
    match (plan.refusal, head.version) {
        (None, _) => {}
        (Some(Refusal::Connection), Version::HTTP_2) => conn.go_away(number),
        (Some(refusal), version) => {
            region.note(|| SeenRequest::new(&head, &body, Some(endpoint), None, conn.number));
            return match (refusal, version) {
                (Refusal::Stream, Version::HTTP_2) => Err(h2::Reason::REFUSED_STREAM.into()),
                _ => silence(&conn, false).await,
            };
        }
    }
    if let Some(death) = plan.death.filter(|d| d.before) {
        region.note(|| SeenRequest::new(&head, &body, Some(endpoint), None, conn.number));
        return silence(&conn, death.reset).await;
    }
    if !conn.process(number) {
        return std::future::pending().await;
    }
    region.world.run_hook(endpoint);
    let asked = RoutedRequest { head, body, app, call, received };
    let mut answer = decide(&region, &conn, &asked, &mut plan);
    wait(plan.after).await;
    if plan.hang {
        return std::future::pending().await;
    }
    if let Some(death) = plan.death {
        // It was acted on and nobody hears of it: what it took out of the queue is lost.
        drop(answer);
        return silence(&conn, death.reset).await;
    }
    // The two seconds run from when the answer leaves, not from before a scripted wait.
    answer.stamp(region.world.clock().now());
    Ok(respond(answer, plan.shape, flight, Some(endpoint)))
}

/// A request whose target is known.
pub(super) struct RoutedRequest {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    pub(super) app: String,
    pub(super) call: Call,
    /// When all of it was there.
    pub(super) received: Instant,
}

/// Counts a request, checks it, and acts on it.
fn decide(region: &Arc<Region>, conn: &Conn, asked: &RoutedRequest, plan: &mut Plan) -> Answer {
    let RoutedRequest { head, body, app, call, .. } = asked;
    let endpoint = call.endpoint();
    let Some(account) = region.world.account(app) else {
        region.note(|| SeenRequest::new(head, body, Some(endpoint), None, conn.number));
        region.violate(app, ViolationKind::BadCredential { why: "no such app".into() });
        return Answer::no(StatusCode::UNAUTHORIZED, "unauthorized");
    };
    // Before the credential is looked at: whether the vendor counts what it refuses is not documented, and the strict
    // reading is that it does.
    let counted = account.count(endpoint.bucket(), region.world.clock());
    count_up(region, endpoint, |e| e.counted += 1);
    region.note(|| SeenRequest::new(head, body, Some(endpoint), Some(counted.at), conn.number));
    if let Some((requests, within)) = counted.breach {
        region.violate(app, ViolationKind::OverLimit { bucket: endpoint.bucket(), requests, within });
    }
    let settings = account.settings();
    inspect(region, asked, settings.rules.dialect);
    if counted.refused {
        return Answer::too_many(&settings.rules);
    }
    let now = region.world.clock().wall_ms();
    if let Err(why) = auth::verify(&head.headers, app, settings.rules.dialect, &settings.credentials, now) {
        region.violate(app, ViolationKind::BadCredential { why });
        return Answer::no(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    acted_or_canned(region, &account, asked, plan)
}

fn acted_or_canned(region: &Arc<Region>, account: &Account, asked: &RoutedRequest, plan: &mut Plan) -> Answer {
    match plan.canned.take() {
        None => act::act(region, account, asked),
        Some(canned) => {
            if canned.acted {
                // Acted on, but nobody hears of it: the effect is dropped.
                drop(act::act(region, account, asked));
            }
            Answer::canned(canned)
        }
    }
}

/// Records what must not have come here.
fn inspect(region: &Region, asked: &RoutedRequest, dialect: super::app::Dialect) {
    for name in headers::leaks(&asked.head.headers, dialect) {
        region.violate(&asked.app, ViolationKind::Header { name });
    }
    let query =
        matches!(asked.call, Call::Events(_) | Call::Create | Call::Fetch(_)) && asked.head.uri.query().is_some();
    let why = query.then_some("a query where none is known").or_else(|| headers::oddities(&asked.head));
    let body = matches!(asked.call, Call::Events(_) | Call::Fetch(_) | Call::Count) && !asked.body.is_empty();
    if let Some(why) = why.or(body.then_some("a body where none is known")) {
        region.violate(&asked.app, ViolationKind::Target { why: why.to_owned() });
    }
}

fn respond(answer: Answer, shape: Shape, flight: InFlight, endpoint: Option<Endpoint>) -> Response<AnswerBody> {
    let Answer { status, content_type, retry_after, body, effect } = answer;
    let body = if shape.marked { Bytes::from([b"\xef\xbb\xbf", &body[..]].concat()) } else { body };
    let body = shape.coding.map_or(body.clone(), |coding| coding.encode(&body));
    let conn = flight.conn.clone();
    let whole = Box::new(move || {
        effect.whole(flight.region.world.clock().now());
        if let Some(endpoint) = endpoint {
            count_up(&flight.region, endpoint, |e| match status {
                StatusCode::OK => e.ok += 1,
                StatusCode::TOO_MANY_REQUESTS => e.too_many += 1,
                _ => e.other += 1,
            });
        }
        drop(flight);
    });
    let mut response = Response::new(AnswerBody::new(conn, shape, body, whole));
    *response.status_mut() = status;
    let mut set = |name, value: &str| {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    };
    if !content_type.is_empty() {
        set(CONTENT_TYPE, &content_type);
    }
    if let Some(retry_after) = retry_after {
        set(RETRY_AFTER, &retry_after);
    }
    if let Some(coding) = shape.coding {
        set(CONTENT_ENCODING, coding.name());
    }
    response
}

/// Waits. No wait is no timer: even one that is due costs a millisecond of tokio's grain.
async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// The connection ends; nothing is answered.
async fn silence(conn: &Conn, reset: bool) -> Result<Response<AnswerBody>, h2::Error> {
    conn.end(reset);
    std::future::pending().await
}

fn count_up(region: &Region, endpoint: Endpoint, change: impl FnOnce(&mut EndpointStats)) {
    region.update(|stats| change(&mut stats.endpoints[endpoint as usize]));
}

/// A request under way.
struct InFlight {
    region: Arc<Region>,
    conn: Arc<Conn>,
}

impl InFlight {
    fn begin(region: &Arc<Region>, conn: &Arc<Conn>) -> Self {
        conn.begin();
        region.update(|stats| {
            stats.in_flight += 1;
            stats.max_in_flight = stats.max_in_flight.max(stats.in_flight);
        });
        Self { region: region.clone(), conn: conn.clone() }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.conn.finish();
        self.region.update(|stats| stats.in_flight -= 1);
    }
}
