//! One connection: its bytes, its life, and what is to happen once an answer has been flushed.
//!
//! Invariant: "whole" means that the last byte of an answer was written to the socket and the socket was flushed. What
//! waits for that when the connection dies is dropped, which tells it that it did not happen.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::goaway::GoAwayStream;
use super::lock;
use super::region::{Idle, Region};
use super::serve;
use super::streams::OpenStreams;
use super::violation::ViolationKind;
use crate::kernel::task::Kind;

/// A connection's state, shared by its bytes, its requests and the simulator.
#[derive(Debug, Default)]
pub(super) struct Conn {
    pub(super) number: u64,
    pub(super) kill: CancellationToken,
    reset: AtomicBool,
    in_flight: AtomicUsize,
    pub(super) activity: Notify,
    requests: AtomicU32,
    going: Mutex<GoAwayState>,
    /// Rung when more is turned away.
    pub(super) turning: Notify,
    writes: AtomicU64,
    after_flush: Mutex<Vec<(u64, After)>>,
}

/// Which requests of a connection are processed.
#[derive(Debug, Default)]
struct GoAwayState {
    /// The highest that was begun.
    begun: u32,
    /// The last that is processed, once there is an end. Never below `begun`, and never rises.
    last: Option<u32>,
}

/// What happens once what is in the buffers now has been flushed.
pub(super) enum After {
    Tell(Box<dyn FnOnce() + Send>),
    Kill,
}

impl std::fmt::Debug for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tell(_) => "Tell",
            Self::Kill => "Kill",
        })
    }
}

impl Conn {
    pub(super) fn new(number: u64) -> Arc<Self> {
        Arc::new(Self { number, ..Self::default() })
    }

    /// Ends the connection now.
    pub(super) fn end(&self, reset: bool) {
        self.reset.store(reset, Ordering::SeqCst);
        self.kill.cancel();
    }

    pub(super) fn after_flush(&self, after: After) {
        lock(&self.after_flush).push((self.writes.load(Ordering::SeqCst), after));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.activity.notify_one();
    }

    pub(super) fn finish(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.activity.notify_one();
    }

    /// The number of a request that has just come.
    fn next_number(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The last request that is processed; `None`: there is no end yet.
    pub(super) fn last_processed(&self) -> Option<u32> {
        lock(&self.going).last
    }

    /// A request is processed from now on; `false`: those from it on were turned away.
    pub(super) fn process(&self, number: u32) -> bool {
        let mut going = lock(&self.going);
        if going.last.is_some_and(|last| last < number) {
            return false;
        }
        going.begun = going.begun.max(number);
        true
    }

    /// Goes away before a request: it and all after it are turned away, but none up to the last that was begun. What a
    /// GOAWAY says of one stream it says of all above it, and nothing of those below (RFC 9113 section 6.8).
    pub(super) fn go_away(&self, number: u32) {
        let mut going = lock(&self.going);
        // What was begun cannot be called unprocessed any more: the client would send it again, and it would be done
        // twice.
        let last = going.begun.max(number.saturating_sub(1));
        going.last = Some(going.last.map_or(last, |before| before.min(last)));
        drop(going);
        self.turning.notify_one();
    }

    /// Something was written.
    pub(super) fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    /// Its end is to be a reset.
    pub(super) fn ends_by_reset(&self) -> bool {
        self.reset.load(Ordering::SeqCst)
    }

    /// All that was written was flushed: what waited for that happens.
    pub(super) fn flushed(&self) {
        let ready: Vec<After> = {
            let mut waiting = lock(&self.after_flush);
            if waiting.is_empty() {
                return;
            }
            // What was put here after the last write is still in a buffer above.
            let writes = self.writes.load(Ordering::SeqCst);
            waiting.extract_if(.., |(at, _)| *at < writes).map(|(_, after)| after).collect()
        };
        for after in ready {
            match after {
                After::Tell(tell) => tell(),
                After::Kill => self.kill.cancel(),
            }
        }
    }
}

/// Serves a connection until it ends, is ended, or the region stops.
pub(super) async fn serve(
    region: Arc<Region>,
    conn: Arc<Conn>,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let mut builder = auto::Builder::new(Streams { region: region.clone(), conn: conn.clone() });
    builder.http1().timer(TokioTimer::new());
    let most = region.max_streams.load(Ordering::SeqCst);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(most);
    let service = {
        let (region, conn) = (region.clone(), conn.clone());
        // Numbered here, because their tasks run in any order.
        service_fn(move |request| serve::serve(region.clone(), conn.clone(), conn.next_number(), request))
    };
    let too_many = {
        let region = region.clone();
        Box::new(move |open| region.violate("", ViolationKind::TooManyStreams { open }))
    };
    let io = GoAwayStream::new(io, OpenStreams::new(most, too_many));
    let serving = builder.serve_connection(TokioIo::new(io.clone()), service);
    let stop = region.tasks.stopping();
    tokio::select! {
        // How it ends is the caller's affair or a scripted fault.
        _ = serving => {}
        () = conn.kill.cancelled() => {}
        () = idle(&region, &conn) => {}
        () = io.turn_away(&conn) => {}
        () = stop.cancelled() => {}
    }
}

/// Marks a connection as gone: its streams end, and what waited for a flush is told that none came.
pub(super) fn close(region: &Region, conn: &Conn) {
    conn.kill.cancel();
    // Dropped outside the lock: what is told so may look at the connection.
    let waiting = std::mem::take(&mut *lock(&conn.after_flush));
    drop(waiting);
    lock(&region.conns).remove(&conn.number);
    region.update(|stats| stats.open -= 1);
}

/// Resolves when the connection has been idle for as long as the region allows.
async fn idle(region: &Region, conn: &Conn) {
    loop {
        let mode = *lock(&region.idle);
        match mode {
            Idle::CloseAfter(time) if conn.is_idle() => tokio::select! {
                () = tokio::time::sleep(time) => if conn.is_idle() { return },
                () = conn.activity.notified() => {}
            },
            _ => conn.activity.notified().await,
        }
    }
}

/// Runs HTTP/2 streams, which end with their connection.
#[derive(Clone)]
struct Streams {
    region: Arc<Region>,
    conn: Arc<Conn>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (region, kill) = (self.region.clone(), self.conn.kill.clone());
        self.region.tasks.spawn(Kind::Simulator, async move {
            let until_killed = async {
                kill.run_until_cancelled(stream).await;
            };
            region.guarded(until_killed).await;
        });
    }
}
