//! One connection: HTTP/1.1 or HTTP/2, as agreed by ALPN; where nothing was agreed, told apart by its first bytes.
//!
//! Invariants: everything of a connection runs in its one task, HTTP/2 streams too, so that dropping the task drops
//! all of it and the order of "body taken", "written", "flushed" is the order in which things happened
//! (`body::handover`). A stop finishes the requests in hand and takes no more; who has no admitted one is waited for a
//! moment. A caller whose HTTP/1.1 connection is not kept after an answer is told so in the answer; one whose
//! connection is kept, for how long.
//!
//! An answer may be made before its request's body has come (401, 413, …). What is small is read away, so that the
//! connection can be kept; otherwise the answer is the connection's last, and what still comes is read away for a while
//! (`io`), so that the answer is read. On HTTP/2 the answer waits for nothing, and what comes of the body is read away
//! beside it; then the stream alone is reset, with NO_ERROR (RFC 9113, 8.1): the library does. A stream that is reset
//! while its body is on its way is forgotten before all of it is there where there are many, and that looks as if the
//! caller broke the protocol: the connection would end, and every other request on it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HeaderName, HeaderValue};
use hyper::rt::Executor as _;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::ack_timer::AckTimer;
use super::framing::{Stage, Watch};
use super::http_limits::{MAX_HEADERS, builder};
use super::io::Io;
use super::stream::StreamExecutor;
use super::taken_back::TakenBack;
use super::tcp::Arrives;
use super::wait_timer::{AwaitedPart, WaitTimer, keep_alive};
use crate::http::body::handover::Wire;
use crate::http::body::{Body, Inbound, Rest};
use crate::kernel::conn::{Alpn, Conn, Fault};

/// Bytes of a body that nobody wanted that are read away so that its HTTP/1.1 connection can be kept, and for how long.
const READ_AWAY: (u64, Duration) = (64 << 10, Duration::from_millis(250));
/// The same of an HTTP/2 stream. Longer and more: nobody waits for it.
const READ_AWAY_BESIDE: (u64, Duration) = (1 << 20, Duration::from_secs(2));
/// How long a known caller's connection whose place was needed may take to say goodbye: HTTP/2 asks the peer once more.
const FAREWELL: Duration = Duration::from_millis(250);
/// How long a connection that takes no more requests may go on without an admitted one in hand: to have its last answer
/// read, and for HTTP/2's goodbye. No stop waits longer for somebody who says nothing.
const PARTING: Duration = Duration::from_secs(2);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Serves a connection to its end.
pub(super) async fn serve<S, H, F>(stream: S, conn: Arc<Conn>, handler: H, limits: Limits, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Arrives + Unpin + Send + 'static,
    H: Fn(Arc<Conn>, Request<Inbound>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let wire = Wire::new();
    let watch = Watch::default();
    // Declared before the connection, so dropped after it: a body dropped with the connection finds it closed.
    let _closed = CloseOnDrop(wire.clone());
    let spawned = StreamExecutor::new(limits.write_timeout);
    let taken_back = TakenBack::new();
    let mut streams = FuturesUnordered::new();

    let agreed = conn.tls.as_ref().and_then(|tls| tls.speaks);
    let io = Io::new(stream, conn.peer, wire.clone(), watch.clone(), limits.write_timeout);
    let io = TokioIo::new(if agreed.is_none() { io.telling_protocols_apart() } else { io });
    let kept_for = keep_alive(limits.idle_timeout);
    let service = service_fn(|request: Request<Incoming>| {
        let ticket = wire.ticket();
        conn.asked();
        let http2 = request.version() == Version::HTTP_2;
        let fault = if http2 { http2_fault(&request) } else { watch.next_head() };
        let keeps = !http2 && fault.is_none() && is_kept(request.version(), request.headers());
        let waits_for_word = request.headers().contains_key(EXPECT);
        let (mut request, rest) = watched(request);
        if let Some(fault) = fault {
            request.extensions_mut().insert(fault);
        }
        let unanswered = http2.then(|| taken_back.unanswered());
        let spawned = spawned.clone();
        // In a box: a connection without a request holds nothing of a handler.
        let (response, conn) = (Box::pin(handler(conn.clone(), request)), conn.clone());
        let (kept_for, stop) = (kept_for.clone(), stop.clone());
        async move {
            let mut response = response.await;
            if let Some(unanswered) = unanswered {
                unanswered.answered();
            }
            // After a fault it is in doubt where the next request begins. And requests that were sent ahead may be
            // served in the same turn, before the shutdown below.
            let (rest, beside) = if http2 { (None, rest) } else { (rest, None) };
            if !http2 {
                let is_whole = match rest {
                    None => true,
                    Some(rest) if rest.is_nothing() => true,
                    // In a box: the connection has room for what answers a request, also while none is in hand.
                    Some(rest) => {
                        let read_away = || Box::pin(rest.read_away(READ_AWAY.0, READ_AWAY.1, waits_for_word));
                        fault.is_none() && read_away().await
                    }
                };
                if fault.is_some() || !is_whole || conn.ends_soon() || stop.is_cancelled() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                } else if let Some(time) = kept_for.filter(|_| keeps) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive"));
                    response.headers_mut().insert(KEEP_ALIVE, time);
                }
            }
            let meter = response.body_mut().bind(ticket, http2);
            if http2 {
                spawned.answered(meter);
                if let Some(rest) = beside {
                    spawned.execute(async move {
                        rest.read_away(READ_AWAY_BESIDE.0, READ_AWAY_BESIDE.1, false).await;
                    });
                }
            }
            Ok::<_, Infallible>(response)
        }
    });
    let builder = builder(spawned.clone());
    // What was agreed on by ALPN is what is spoken (RFC 7301, 3.2).
    let builder = match agreed {
        Some(Alpn::Http1) => builder.http1_only(),
        Some(Alpn::Http2) => builder.http2_only(),
        None => builder,
    };
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut stopping = pin!(stop.cancelled());
    let mut stopped = false;
    let mut ack_timer = AckTimer::default();
    let mut wait_timer = WaitTimer::new(limits.header_read_timeout, limits.idle_timeout);
    // Requests on HTTP/2 so far.
    let mut begun = 0;
    // Made when its place was given to another.
    let mut farewell: Option<Pin<Box<Sleep>>> = None;
    // Made when it takes no more requests and has none in hand.
    let mut parting: Option<Pin<Box<Sleep>>> = None;

    let ended = poll_fn(|cx| {
        if !stopped && stopping.as_mut().poll(cx).is_ready() {
            stopped = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            let turn = connection.as_mut().poll(cx);
            // A stream that its caller has reset gives up here what was taken of it and never written.
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            wire.settle();
            if let Poll::Ready(ended) = turn {
                return Poll::Ready(ended.map_err(|e| e.to_string()));
            }
            if !stopped && conn.ends_soon() {
                stopped = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            let new = spawned.take();
            // A turn is a look.
            if new.is_empty() && ack_timer.poll_due(cx, &wire).is_pending() {
                break;
            }
            begun += new.len() as u64;
            streams.extend(new);
        }
        if taken_back.are_too_many() {
            return Poll::Ready(Err("too many requests were taken back".to_owned()));
        }
        // Its place may be its own again, for a request that came in the last moment.
        if conn.poll_asked_to_go(cx).is_ready() {
            let has_time = farewell.as_mut().is_some_and(|over| over.as_mut().poll(cx).is_pending());
            match &farewell {
                Some(_) if has_time => {}
                None if conn.is_known() => {
                    farewell = Some(Box::pin(tokio::time::sleep(FAREWELL)));
                    stopped = true;
                    // Should a request come all the same, its answer says that it is the last.
                    conn.end_soon();
                    connection.as_mut().graceful_shutdown();
                    cx.waker().wake_by_ref();
                }
                _ => {
                    // What can be said at once is.
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.as_mut().poll(cx);
                    return Poll::Ready(Err("its place was needed for another".to_owned()));
                }
            }
        }
        let has_request = || wire.in_hand() > 0 || !streams.is_empty();
        if !stopped || conn.is_occupied().unwrap_or_else(has_request) {
            parting = None;
        } else {
            let over = parting.get_or_insert_with(|| Box::pin(tokio::time::sleep(PARTING)));
            if over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err("it does not end by itself".to_owned()));
            }
        }
        let awaited = match watch.stage() {
            Stage::Http2 if streams.is_empty() => AwaitedPart::Next(begun),
            Stage::Http2 | Stage::Elsewhere => AwaitedPart::Nothing,
            _ if wire.in_hand() > 0 => AwaitedPart::Nothing,
            Stage::Unknown | Stage::Between(0) | Stage::Head(0) => AwaitedPart::First,
            Stage::Head(after) => AwaitedPart::Head(after),
            Stage::Between(after) => AwaitedPart::Next(after),
        };
        if wait_timer.poll_over(cx, awaited).is_ready() {
            match awaited {
                AwaitedPart::Next(_) if !stopped => {
                    stopped = true;
                    conn.end_soon();
                    connection.as_mut().graceful_shutdown();
                    // The farewell is to be written.
                    cx.waker().wake_by_ref();
                }
                AwaitedPart::First | AwaitedPart::Head(_) => {
                    return Poll::Ready(Err("no request came in time".to_owned()));
                }
                AwaitedPart::Next(_) | AwaitedPart::Nothing => {}
            }
        }
        Poll::Pending
    });
    if let Err(why) = ended.await {
        tracing::debug!(peer = %conn.peer, why, "connection ended");
    }
}

/// Whether the caller of HTTP/1.1 would have its connection kept.
fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    let says_close = |value: &HeaderValue| {
        value.as_bytes().split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    version == Version::HTTP_11 && !headers.get_all(CONNECTION).iter().any(says_close)
}

/// The request as its handler gets it, and what it leaves of the body.
fn watched(request: Request<Incoming>) -> (Request<Inbound>, Option<Rest>) {
    let (head, body) = request.into_parts();
    let (body, rest) = Inbound::watched(body);
    (Request::from_parts(head, body), rest)
}

/// What no head may hold on HTTP/2 and its parser lets pass (RFC 9113, 8.2.1); `route::target` sees to the target. As
/// many headers are taken as on HTTP/1.1.
fn http2_fault<B>(request: &Request<B>) -> Option<Fault> {
    let is_odd = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        bytes.trim_ascii().len() != bytes.len()
    };
    if request.headers().len() > MAX_HEADERS {
        return Some(Fault::Http2("more headers than are taken"));
    }
    if request.headers().values().any(is_odd) {
        return Some(Fault::Http2("a header's value begins or ends with white space"));
    }
    None
}

struct CloseOnDrop(Wire);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
