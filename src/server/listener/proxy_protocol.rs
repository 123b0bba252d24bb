//! The PROXY protocol (HAProxy's, versions 1 and 2): a balancer in front says, before anything else on a connection,
//! whose connection it carries.
//!
//! Invariants:
//! - Where it is configured every TCP connection begins with a whole header of that version, before TLS; one that does
//!   not is closed without a word. So nobody who reaches the port can leave it out, and no HTTP header says who calls.
//! - Exactly the header is taken of the connection: the byte behind it is the first that TLS or HTTP sees.
//! - It is bounded, in bytes ([`V1_MOST`], [`V2_MOST`]) and in time, and holds its connection's place meanwhile.
//! - What announces no address of the internet (`UNKNOWN`, `LOCAL`, `UNSPEC`, Unix sockets) leaves the connection's
//!   own.
//!
//! Our own: the crates that read it (ppp, proxy-header) parse a buffer that somebody has filled. To take no byte too
//! many off a socket, within bounds, is the greater part of it, and would be here all the same.

mod header;

use std::future::poll_fn;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use self::header::Announced;
use self::header::{V1_MOST, V2_FIXED, V2_MOST};
use super::tcp::Tcp;
use crate::config::ProxyProtocol;
use crate::kernel::conn::{Conn, Peer};
use crate::kernel::metrics::{Metrics, ProxyHeaderLabels};
use crate::kernel::sync::lock;

/// How often it is said that connections came without their header.
const EVERY: Duration = Duration::from_secs(60);

/// Why a connection does not come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderFault {
    /// It begins with something else.
    #[error("it does not begin with a PROXY header of the configured version")]
    Missing,
    /// It begins as a header does and goes on as none.
    #[error("its PROXY header is malformed: {0}")]
    Malformed(&'static str),
    /// Longer than a header may be.
    #[error("its PROXY header is longer than is taken")]
    TooLong,
    /// Its end did not come in time.
    #[error("its PROXY header did not come in time")]
    TimedOut,
    /// The other end left, or broke, before the end of the header.
    #[error("it ended within its PROXY header")]
    Gone,
    /// Its place was needed for another.
    #[error("its place was needed for another before its PROXY header came")]
    NoPlace,
}

impl HeaderFault {
    const REASONS: [&'static str; 6] = ["missing", "malformed", "too_long", "timed_out", "gone", "no_place"];

    /// Its label in the metrics: its place among [`HeaderFault::REASONS`].
    fn place(self) -> usize {
        match self {
            Self::Missing => 0,
            Self::Malformed(_) => 1,
            Self::TooLong => 2,
            Self::TimedOut => 3,
            Self::Gone => 4,
            Self::NoPlace => 5,
        }
    }

    /// Whether somebody has to look. What says nothing and leaves is a balancer that asks whether the port is open.
    fn concerns_the_operator(self) -> bool {
        !matches!(self, Self::Gone | Self::NoPlace)
    }
}

/// Reads headers of one version, and counts what is none.
#[derive(Debug)]
pub struct HeaderReader {
    version: HeaderVersion,
    refused: [Counter; 6],
    told: Mutex<Told>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderVersion {
    V1,
    V2,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    untold: u64,
}

impl HeaderReader {
    /// Of the configured version; `None` where none is.
    #[must_use]
    pub fn new(protocol: ProxyProtocol, metrics: &Metrics) -> Option<Self> {
        let version = match protocol {
            ProxyProtocol::Off => return None,
            ProxyProtocol::V1 => HeaderVersion::V1,
            ProxyProtocol::V2 => HeaderVersion::V2,
        };
        let counter = |reason: &str| {
            metrics.proxy_protocol_refused.get_or_create_owned(&ProxyHeaderLabels { reason: reason.to_owned() })
        };
        Some(Self { version, refused: HeaderFault::REASONS.map(counter), told: Mutex::default() })
    }

    /// Takes the header off a connection, within a time. `None`: the connection is over.
    pub(super) async fn read(&self, mut tcp: Tcp, conn: Conn, within: Duration) -> Option<(Tcp, Conn)> {
        let reading = async {
            match self.version {
                HeaderVersion::V1 => read_v1(&mut tcp).await,
                HeaderVersion::V2 => read_v2(&mut tcp).await,
            }
        };
        let read = tokio::select! {
            read = tokio::time::timeout(within, reading) => read.unwrap_or(Err(HeaderFault::TimedOut)),
            () = poll_fn(|cx| conn.poll_asked_to_go(cx)) => Err(HeaderFault::NoPlace),
        };
        match read {
            Ok(announced) => Some((tcp, of_caller(conn, announced))),
            Err(fault) => {
                self.refused[fault.place()].inc();
                self.tell(fault, &conn.peer);
                None
            }
        }
    }

    /// Says so, once a minute at most: whoever reaches the port can make it come.
    fn tell(&self, fault: HeaderFault, balancer: &Peer) {
        tracing::debug!(peer = %balancer, why = %fault, "a connection without its PROXY header was closed");
        if !fault.concerns_the_operator() {
            return;
        }
        let connections = {
            let mut told = lock(&self.told);
            told.untold += 1;
            let now = Instant::now();
            if told.at.is_some_and(|at| now < at + EVERY) {
                return;
            }
            told.at = Some(now);
            std::mem::take(&mut told.untold)
        };
        tracing::warn!(
            peer = %balancer,
            why = %fault,
            connections,
            "closed what did not begin with a PROXY header: server.proxy_protocol wants one of every connection"
        );
    }
}

/// The connection as the header says that it is.
fn of_caller(conn: Conn, announced: Option<Announced>) -> Conn {
    match announced {
        Some(Announced { source, destination }) => conn.announced(source, destination),
        None => conn,
    }
}

/// A line. What is looked at without its end in it is part of it, so it can be taken: nothing behind the end ever is.
async fn read_v1(tcp: &mut Tcp) -> Result<Option<Announced>, HeaderFault> {
    let mut line = [0; V1_MOST];
    let mut length = 0;
    while !line[..length].ends_with(b"\n") {
        if length == V1_MOST {
            return Err(HeaderFault::TooLong);
        }
        let seen = match tcp.peek(&mut line[length..]).await {
            Ok(0) | Err(_) => return Err(HeaderFault::Gone),
            Ok(seen) => &line[length..length + seen],
        };
        let taken = seen.iter().position(|byte| *byte == b'\n').map_or(seen.len(), |at| at + 1);
        tcp.read_exact(&mut line[length..length + taken]).await.map_err(gone)?;
        length += taken;
        header::v1_begins(&line[..length])?;
    }
    header::v1(&line[..length])
}

/// A head that says how long the rest is, and the rest.
async fn read_v2(tcp: &mut Tcp) -> Result<Option<Announced>, HeaderFault> {
    let mut header = [0; V2_MOST];
    // Little by little: what is no header is told from one by its first bytes, and may have no more.
    let mut length = 0;
    while length < V2_FIXED {
        match tcp.read(&mut header[length..V2_FIXED]).await {
            Ok(0) | Err(_) => return Err(HeaderFault::Gone),
            Ok(read) => length += read,
        }
        header::v2_begins(&header[..length])?;
    }
    let end = V2_FIXED + header::v2_rest(&header[..V2_FIXED]);
    let rest = header.get_mut(V2_FIXED..end).ok_or(HeaderFault::TooLong)?;
    tcp.read_exact(rest).await.map_err(gone)?;
    header::v2(&header[..end])
}

fn gone(_: io::Error) -> HeaderFault {
    HeaderFault::Gone
}

#[cfg(test)]
mod tests;
