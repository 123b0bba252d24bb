//! One connection: HTTP/1.1 or HTTP/2, as agreed by ALPN; where nothing was agreed, told apart by its first bytes.
//!
//! Invariants: everything of a connection runs in its one task, HTTP/2 streams too, so that dropping the task drops
//! all of it and the order of "body taken", "written", "flushed" is the order in which things happened
//! (`body::handover`). A stop finishes the requests in hand and takes no more.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::framing::{Protocol, Watch};
use super::io::Io;
use crate::body::Body;
use crate::body::handover::Wire;
use crate::conn::{Alpn, Conn};

/// Bytes of a request's head: line and headers.
const MOST_OF_HEAD: usize = 64_000;
/// Headers of a request.
const MOST_HEADERS: usize = 128;
/// Requests at a time on one HTTP/2 connection.
const MOST_STREAMS: u32 = 256;
/// How often a quiet HTTP/2 peer is asked whether it lives, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Serves a connection to its end.
pub(super) async fn serve<S, H, F>(stream: S, conn: Arc<Conn>, handler: H, limits: Limits, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Arc<Conn>, Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let wire = Wire::new();
    let watch = Watch::default();
    // Declared before the connection, so dropped after it: a body dropped with the connection finds it closed.
    let _closed = CloseOnDrop(wire.clone());
    let spawned = Spawned::default();
    let mut streams = FuturesUnordered::new();

    let io = TokioIo::new(Io::new(stream, wire.clone(), watch.clone()));
    let service = service_fn(|mut request: Request<Incoming>| {
        let ticket = wire.ticket();
        let http2 = request.version() == Version::HTTP_2;
        if !http2 && let Some(fault) = watch.next_head() {
            request.extensions_mut().insert(fault);
        }
        let (response, conn) = (handler(conn.clone(), request), conn.clone());
        async move {
            let mut response = response.await;
            // Requests that were sent ahead may be served in the same turn, before the shutdown below.
            if conn.ends_soon() && !http2 {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.body_mut().bind(ticket, http2);
            Ok::<_, Infallible>(response)
        }
    });
    let builder = builder(&limits, spawned.clone());
    // What was agreed on by ALPN is what is spoken (RFC 7301, 3.2).
    let builder = match conn.tls.as_ref().and_then(|tls| tls.speaks) {
        Some(Alpn::Http1) => builder.http1_only(),
        Some(Alpn::Http2) => builder.http2_only(),
        None => builder,
    };
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut stopping = pin!(stop.cancelled());
    let mut stopped = false;
    // Until the protocol is known no timer of hyper's runs.
    let mut mute = pin!(tokio::time::sleep(limits.header_read_timeout));

    let ended = poll_fn(|cx| {
        if !stopped && stopping.as_mut().poll(cx).is_ready() {
            stopped = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            let turn = connection.as_mut().poll(cx);
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
            if new.is_empty() {
                break;
            }
            streams.extend(new);
        }
        if watch.protocol() == Protocol::Unknown && mute.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err("no request came in time".to_owned()));
        }
        Poll::Pending
    });
    if let Err(why) = ended.await {
        tracing::debug!(peer = ?conn.peer, why, "connection ended");
    }
}

fn builder(limits: &Limits, spawned: Spawned) -> auto::Builder<Spawned> {
    let mut builder = auto::Builder::new(spawned);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_OF_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(u32::try_from(MOST_OF_HEAD).unwrap_or(u32::MAX));
    builder
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper's HTTP/2 puts the futures of its streams: they are polled by the connection's own task.
#[derive(Clone, Default)]
struct Spawned(Arc<Mutex<Vec<Boxed>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawned {
    fn execute(&self, stream: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

impl Spawned {
    fn take(&self) -> Vec<Boxed> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct CloseOnDrop(Wire);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
