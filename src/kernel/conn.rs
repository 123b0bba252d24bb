//! What is known of the connection a request came on.

mod accept_pauses;
mod certificate;
pub mod places;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

pub use accept_pauses::{AcceptPause, AcceptPauses};
pub use certificate::{BadCertificate, BadNames, CertificateTable, ChainCheck, Lapse, Names, PeerCertificate};

use places::{NoPlace, Seat, SeatGuard};

/// What is known of a connection, whatever is asked over it. Only what accepts connections makes one (`server`), so
/// that nobody can say of a request that it came from where it did not:
///
/// ```compile_fail
/// use rtm_gateway::kernel::conn::{Conn, Peer};
/// let peer = Peer::Unix { uid: Some(0) };
/// let invented = Conn::new(peer, None);
/// ```
///
/// What fails there is the making alone:
///
/// ```
/// use rtm_gateway::kernel::conn::{Conn, Peer};
/// let peer = Peer::Unix { uid: Some(0) };
/// let is_root = move |conn: &Conn| conn.peer == peer;
/// ```
#[derive(Debug)]
pub struct Conn {
    /// Who is at the other end.
    pub peer: Peer,
    /// The address it came in on, at the balancer if one announced it; `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// What the handshake found; `None` where no TLS is spoken.
    pub tls: Option<TlsFacts>,
    ending: AtomicBool,
    seat: Option<Seat>,
}

impl Conn {
    /// A connection that was just accepted.
    #[must_use]
    pub(crate) fn new(peer: Peer, local: Option<SocketAddr>) -> Self {
        Self { peer, local, tls: None, ending: AtomicBool::new(false), seat: None }
    }

    /// Of this caller, by the word of the balancer in front, who connected there. The address of the balancer goes.
    #[must_use]
    pub(crate) fn announced(self, source: SocketAddr, destination: SocketAddr) -> Self {
        Self { peer: Peer::Tcp(source), local: Some(destination), ..self }
    }

    /// With what its handshake found.
    #[must_use]
    pub(crate) fn with_tls(self, facts: TlsFacts) -> Self {
        Self { tls: Some(facts), ..self }
    }

    /// With a place among those that are bounded.
    #[must_use]
    pub(crate) fn seated(self, seat: Seat) -> Self {
        Self { seat: Some(seat), ..self }
    }

    /// A request came, of whomever.
    pub fn asked(&self) {
        if let Some(seat) = &self.seat {
            seat.asked();
        }
    }

    /// An admitted request of this client is in hand, until what is given is dropped.
    ///
    /// # Errors
    /// When the client has its share of the places in hand already.
    pub fn occupy(&self, client: &str) -> Result<Option<SeatGuard>, NoPlace> {
        self.seat.as_ref().map(|seat| seat.occupy(client)).transpose()
    }

    /// Whether it ever had an admitted request.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.seat.as_ref().is_some_and(Seat::is_known)
    }

    /// Whether it has an admitted request in hand. `None`: nobody counts.
    #[must_use]
    pub fn is_occupied(&self) -> Option<bool> {
        self.seat.as_ref().map(Seat::is_occupied)
    }

    /// Ready when its place was given to another.
    pub fn poll_asked_to_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.seat.as_ref().map_or(Poll::Pending, |seat| seat.poll_asked_to_go(cx))
    }

    /// The certificate that the caller showed.
    #[must_use]
    pub fn certificate(&self) -> Option<&Arc<PeerCertificate>> {
        self.tls.as_ref().and_then(|tls| tls.certificate.as_ref())
    }

    /// Asks that the connection take no request after those in hand.
    pub fn end_soon(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether that was asked.
    #[must_use]
    pub fn ends_soon(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// What a TLS handshake found.
#[derive(Debug)]
pub struct TlsFacts {
    /// What both sides agreed to speak by ALPN (RFC 7301); `None` when the caller did not say what it speaks.
    pub speaks: Option<Alpn>,
    /// The certificate that the caller showed, if it showed one.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// What may be agreed on by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
}

impl Alpn {
    /// Both, the one we prefer first.
    pub const ALL: [Self; 2] = [Self::Http2, Self::Http1];

    /// The protocol's name on the wire.
    #[must_use]
    pub fn id(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// The protocol of that name.
    #[must_use]
    pub fn of(id: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.id() == id)
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// By a Unix socket.
    Unix {
        /// The user its process ran as when it connected, as the kernel says.
        uid: Option<u32>,
    },
}

/// As the log names it: `192.0.2.7:49152`, `[2001:db8::7]:49152`, `unix:uid=1000`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A socket for both families shows IPv4 as a part of IPv6.
            Self::Tcp(address) => write!(f, "{}", SocketAddr::new(address.ip().to_canonical(), address.port())),
            Self::Unix { uid: Some(uid) } => write!(f, "unix:uid={uid}"),
            Self::Unix { uid: None } => f.write_str("unix"),
        }
    }
}

/// What is wrong with how a request's head was written, where the HTTP library mends it without a word. In the
/// request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `Content-Length` and `Transfer-Encoding` (RFC 9112, 6.3: the classic way to smuggle a request).
    #[error("Transfer-Encoding: not with Content-Length")]
    TwoLengths,
    /// `Content-Length` more than once.
    #[error("Content-Length: given twice")]
    LengthTwice,
    /// A target with a fragment (RFC 9112, 3.2 has none).
    #[error("target: holds a fragment")]
    Fragment,
    /// A line that ends in LF without CR.
    #[error("a line ends without CR LF")]
    BareLineFeed,
    /// `Transfer-Encoding` that is not `chunked` alone (RFC 9112, 6.1 knows others; nobody sends them).
    #[error("Transfer-Encoding: only chunked, and once")]
    Coding,
    /// `Content-Length` that is not digits alone.
    #[error("Content-Length: not a plain number")]
    LengthOdd,
    /// A header that others may take for one of framing: `Transfer_Encoding`, `Content-Encoding: chunked`.
    #[error("a header looks like one that says where the request ends")]
    LookAlike,
    /// An expectation that is not `100-continue` (RFC 9110, 10.1.1).
    #[error("Expect: only 100-continue")]
    Expectation,
    /// What no HTTP/2 head may hold and its parser lets pass.
    #[error("{0}")]
    Http2(&'static str),
    /// Where this request begins could not be followed.
    #[error("the request is malformed")]
    Unfollowed,
}
