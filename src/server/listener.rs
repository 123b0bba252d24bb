//! Where callers connect: sockets in, requests to a handler, responses out.
//!
//! Invariants:
//! - A socket is bound before anything runs ([`Listener::bind`]), so its port is known and a fault stops the start.
//! - The accept loop survives everything: an error of one peer is skipped, running out of descriptors pauses it.
//! - A connection has one of a bounded number of places while it is served. For newcomers beyond that others go,
//!   strangers first (`conn::places`); nobody waits in the system's queue while any can be asked to.
//! - Nobody takes for ever: a head must come within a time, a body too (`body::read_up_to`), an answer must be taken, a
//!   connection without requests ends. Nothing that a caller can make us hold or do grows without bound: see
//!   `http_limits`.
//! - All of a connection runs in one task, which the shutdown waits for: when asked to stop it finishes what is in
//!   hand.
//!
//! | part | does |
//! | --- | --- |
//! | `socket`, `availability` | TCP, TLS and Unix sockets as one; whether one could be had |
//! | `tcp` | a TCP connection that knows what the other end has acknowledged |
//! | `accept` | the accept loop |
//! | `proxy_protocol` | whose connection a balancer carries, where one is in front |
//! | `tls` | the handshake, where TLS is spoken |
//! | `connection` | one connection: HTTP/1.1 or HTTP/2, drain; what it may take is in `http_limits` |
//! | `io` | the connection's bytes: knows when responses were flushed, answers what is not HTTP |
//! | `framing` | follows HTTP/1.1 requests, for what hyper mends without a word |
//! | `http2_flood`, `taken_back` | HTTP/2 frames that do no work, and requests that nobody wants answered |
//! | `stream` | one HTTP/2 stream: cut when its caller does not take the answer |
//! | `wait_timer` | how long a connection is waited for that has no request |
//! | `ack_timer` | when acknowledgements of events are looked at |
//! | `read_away` | what a caller still sends when its connection is closed |
//! | `min_data_rate`, `burst` | how long is waited for a caller, how much it may do for nothing |

mod accept;
mod ack_timer;
mod availability;
mod burst;
mod connection;
mod framing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http2_flood;
mod http_limits;
mod io;
mod min_data_rate;
mod proxy_protocol;
mod read_away;
mod socket;
mod stream;
mod taken_back;
mod tcp;
mod tls;
mod wait_timer;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, Response};
use prometheus_client::metrics::gauge::Gauge;

use crate::config::Listen;
use crate::http::body::{Body, Inbound};
use crate::kernel::conn::places::Door;
use crate::kernel::conn::{AcceptPauses, Conn};
use crate::kernel::task::{Kind, Tasks};
use crate::tls::Tls;
pub use availability::{Availability, availability, canonical_path};
pub use proxy_protocol::HeaderReader;
pub use socket::UnixFile;

/// A bound socket, not yet served.
#[derive(Debug)]
pub struct Listener {
    socket: socket::Socket,
    tls: Option<Tls>,
    header_reader: Option<Arc<HeaderReader>>,
}

/// What connections may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The way to the places for connections, which all listeners behind the same ones share.
    pub door: Door,
    /// How long a caller may take to send a request's head.
    pub header_read_timeout: Duration,
    /// How long a connection may be kept without a request.
    pub idle_timeout: Duration,
    /// How long a caller may take nothing of what is written to it (see `min_data_rate`); of events, acknowledge
    /// nothing.
    pub write_timeout: Duration,
    /// Counts connections.
    pub connections: Gauge,
    /// Counts times in which none can be taken.
    pub pauses: AcceptPauses,
}

impl Listener {
    /// Binds. A Unix socket that nobody serves any more is replaced; the new one is of that mode and owner.
    ///
    /// # Errors
    /// When the address is in use or may not be used, or the socket may not be given to that owner.
    pub async fn bind(listen: &Listen, file: UnixFile) -> std::io::Result<Self> {
        Ok(Self { socket: socket::Socket::bind(listen, file).await?, tls: None, header_reader: None })
    }

    /// Speaks TLS on TCP, if there is any to speak. A Unix socket stays as it is.
    #[must_use]
    pub fn speaking(self, tls: Option<Tls>) -> Self {
        tls.iter().for_each(tls::count_from_the_start);
        Self { tls, ..self }
    }

    /// Takes PROXY headers off TCP connections, if that is configured. A Unix socket stays as it is.
    #[must_use]
    pub fn behind(self, header_reader: Option<Arc<HeaderReader>>) -> Self {
        Self { header_reader, ..self }
    }

    /// Where it is bound, the port resolved.
    #[must_use]
    pub fn address(&self) -> Listen {
        self.socket.address()
    }

    /// Takes connections until the group stops, and hands their requests to `handler`.
    pub fn serve<H, F>(self, tasks: &Tasks, limits: Limits, handler: H)
    where
        H: Fn(Arc<Conn>, Request<Inbound>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let greeting = accept::Greeting { header_reader: self.header_reader, tls: self.tls };
        tasks.spawn(Kind::Accept, accept::run(self.socket, greeting, tasks.clone(), limits, handler));
    }
}
