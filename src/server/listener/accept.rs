//! The accept loop: it survives everything but being told to stop.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, Response};
use prometheus_client::metrics::gauge::Gauge;

use super::proxy_protocol::HeaderReader;
use super::socket::{AcceptedStream, Socket};
use super::tcp::Tcp;
use super::{Limits, connection, tls};
use crate::http::body::{Body, Inbound};
use crate::kernel::backoff::Backoff;
use crate::kernel::conn::{AcceptPause, Conn};
use crate::kernel::task::{Kind, Tasks};
use crate::tls::Tls;

/// After an error that the next accept would meet again: twice as long each time, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How often strangers are looked at while places are scarce.
const LOOK: Duration = Duration::from_secs(1);

/// What comes on a TCP connection before HTTP. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    /// A balancer's word whose connection it is.
    pub(super) header_reader: Option<Arc<HeaderReader>>,
    pub(super) tls: Option<Tls>,
}

impl Greeting {
    fn is_none(&self) -> bool {
        self.header_reader.is_none() && self.tls.is_none()
    }

    /// Hears it out; each part has so long. `None`: the connection is over.
    async fn hear(self, tcp: Tcp, conn: Conn, within: Duration) -> Option<(AcceptedStream, Conn)> {
        let (tcp, conn) = match self.header_reader {
            Some(reader) => reader.read(tcp, conn, within).await?,
            None => (tcp, conn),
        };
        match self.tls {
            Some(tls) => tls::secure(tcp, conn, &tls, within).await,
            None => Some((AcceptedStream::Tcp(tcp), conn)),
        }
    }
}

pub(super) async fn run<H, F>(socket: Socket, greeting: Greeting, tasks: Tasks, limits: Limits, handler: H)
where
    H: Fn(Arc<Conn>, Request<Inbound>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let stop = tasks.stopping();
    let accepting = async {
        loop {
            let (stream, conn) = next(&socket, &limits).await;
            let place = limits.door.enter().await;
            let is_anothers = place.is_anothers();
            let conn = conn.seated(place.seat());
            let (handler, limits, stop, greeting) =
                (handler.clone(), limits.clone(), tasks.stopping(), greeting.clone());
            tasks.spawn(Kind::Connection, async move {
                let _counted = ConnectionCount::new(&limits);
                // In boxes, as in `Tasks::spawn`; that of the handshake goes when it is over.
                let greeted = match stream {
                    AcceptedStream::Tcp(tcp) if !greeting.is_none() => {
                        let heard = Box::pin(greeting.hear(tcp, conn, limits.header_read_timeout));
                        stop.run_until_cancelled(heard).await.flatten()
                    }
                    stream => Some((stream, conn)),
                };
                if let Some((stream, conn)) = greeted {
                    Box::pin(connection::serve(stream, Arc::new(conn), handler, limits, stop)).await;
                }
                drop(place);
            });
            if is_anothers {
                // Whoever just came gets a turn before the next one comes: its head may be here already, and the one
                // that was asked to go has to.
                tokio::task::yield_now().await;
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
}

/// The next connection. While it is waited for and places are scarce, strangers have a short life.
async fn next(socket: &Socket, limits: &Limits) -> (AcceptedStream, Conn) {
    let pausing = |error: &io::Error| limits.pauses.begin(&socket.address(), error);
    let mut accepted = pin!(survive(|| socket.accept(), pausing));
    while limits.door.is_crowded() {
        limits.door.send_away(limits.header_read_timeout);
        if let Ok(accepted) = tokio::time::timeout(LOOK, accepted.as_mut()).await {
            return accepted;
        }
    }
    accepted.await
}

/// One of the connections the gauge shows.
struct ConnectionCount(Gauge);

impl ConnectionCount {
    fn new(limits: &Limits) -> Self {
        limits.connections.inc();
        Self(limits.connections.clone())
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Accepts until it succeeds. A pause goes on until the system takes an accept again, if only to wait for a peer.
async fn survive<T, F: Future<Output = io::Result<T>>>(
    accept: impl Fn() -> F,
    pausing: impl Fn(&io::Error) -> AcceptPause,
) -> T {
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
    let mut paused = None;
    loop {
        let mut accepting = pin!(accept());
        let accepted = poll_fn(|cx| {
            let accepted = accepting.as_mut().poll(cx);
            if accepted.is_pending() {
                paused = None;
            }
            accepted
        });
        match accepted.await {
            Ok(accepted) => return accepted,
            Err(e) if concerns_one_peer(&e) => tracing::debug!(error = %e, "a connection died before it was accepted"),
            Err(e) => {
                let pause = backoff.next_wait();
                let paused = paused.get_or_insert_with(|| pausing(&e));
                tokio::time::sleep(pause).await;
                paused.lasted(pause);
            }
        }
    }
}

/// Whether the next accept has nothing to do with this error. Linux passes a dead peer's network error to accept(2).
fn concerns_one_peer(e: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, InvalidInput, NetworkDown,
        NetworkUnreachable, NotConnected, PermissionDenied, TimedOut,
    };
    matches!(
        e.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | InvalidInput
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | PermissionDenied
            | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::clock::Clock;
    use crate::kernel::conn::AcceptPauses;
    use crate::kernel::metrics::Metrics;
    use std::cell::RefCell;
    use std::future::pending;
    use tokio::time::Instant;

    /// `EMFILE`: no descriptors left.
    const NO_DESCRIPTORS: i32 = 24;

    #[tokio::test(start_paused = true)]
    async fn errors_of_a_peer_are_skipped_and_exhaustion_pauses_longer_each_time() {
        let began = Instant::now();
        let errors = RefCell::new(vec![NO_DESCRIPTORS; 10]);
        errors.borrow_mut().extend([104, 103, 113, 4]);
        let accept = || {
            let next = errors.borrow_mut().pop();
            async move { next.map_or(Ok(7), |code| Err(io::Error::from_raw_os_error(code))) }
        };
        let metrics = Metrics::new();
        let pauses = AcceptPauses::counted(&metrics, Clock::system());
        assert_eq!(survive(accept, |error| pauses.begin(&"here", error)).await, 7);
        // 10, 20, … 640 ms, then a second each.
        assert_eq!(began.elapsed(), Duration::from_millis(1270 + 3000));
        assert_eq!((metrics.accept_pauses.get(), pauses.since()), (1, None));
        assert!((metrics.accept_paused.get() - 4.27).abs() < 1e-6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_over_when_the_system_lets_a_listener_wait_again() {
        let tries = RefCell::new(0);
        let accept = || {
            *tries.borrow_mut() += 1;
            let fails = *tries.borrow() <= 3;
            async move { if fails { Err(io::Error::from_raw_os_error(NO_DESCRIPTORS)) } else { pending().await } }
        };
        let metrics = Metrics::new();
        let pauses = AcceptPauses::counted(&metrics, Clock::system());
        let accepted = survive::<(), _>(accept, |error| pauses.begin(&"here", error));
        tokio::pin!(accepted);
        assert!(futures_util::poll!(accepted.as_mut()).is_pending());
        assert!(pauses.since().is_some());
        // Nobody comes: 10, 20 and 40 ms of it were a pause.
        assert!(tokio::time::timeout(Duration::from_secs(60), accepted).await.is_err());
        assert_eq!((metrics.accept_pauses.get(), pauses.since()), (1, None));
        assert!((metrics.accept_paused.get() - 0.07).abs() < 1e-6);
    }
}
