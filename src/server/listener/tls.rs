//! TLS on an accepted connection: the handshake, and the parting where there is none.
//!
//! Invariants:
//! - A handshake runs in its connection's own task, in a bounded time, and holds the connection's slot.
//! - A resumed session is held against what is trusted now: the handshake itself does not look at its certificate
//!   again.
//! - A caller that is refused gets to read why (an alert, or an HTTP answer where it did not speak TLS): after our last
//!   words what still comes is read away for a while. Otherwise the system would reset the connection and them with it.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use rustls::{AlertDescription, CertificateError, Error, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::io::{LINGER, answer};
use super::socket::AcceptedStream;
use super::tcp::Tcp;
use crate::kernel::conn::{Alpn, Conn, PeerCertificate, TlsFacts};
use crate::kernel::metrics::{OutcomeLabels, outcomes_from_the_start};
use crate::request::refusal::Refusal;
use crate::tls::Tls;

/// Why a connection does not come to be.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the caller does not speak TLS but HTTP")]
    PlainText,
    #[error("the handshake took too long")]
    TimedOut,
    #[error("its place was needed for another")]
    NoPlace,
    #[error("no certificate was presented")]
    NoCertificate,
    #[error("the certificate was refused: {0}")]
    BadCertificate(CertificateError),
    #[error("the session's certificate is good no more")]
    StaleSession,
    #[error("the caller refused: {0:?}")]
    Alert(AlertDescription),
    #[error("{0}")]
    Protocol(#[source] Error),
    #[error("{0}")]
    Gone(#[source] io::Error),
}

impl Fault {
    fn of(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            None => Self::Gone(error),
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(why)) => Self::BadCertificate(why.clone()),
            Some(Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(other) => Self::Protocol(other.clone()),
        }
    }

    /// Its label in the metrics.
    fn outcome(&self) -> &'static str {
        match self {
            Self::PlainText => "plain_text",
            Self::TimedOut => "timed_out",
            Self::NoPlace => "no_place",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate(_) | Self::StaleSession => "bad_certificate",
            Self::Alert(_) => "refused_by_caller",
            Self::Protocol(_) => "failed",
            Self::Gone(_) => "gone",
        }
    }

    /// Whether somebody has to look: a certificate of either side is not as the other wants it.
    fn concerns_the_operator(&self) -> bool {
        matches!(self, Self::NoCertificate | Self::BadCertificate(_) | Self::StaleSession | Self::Alert(_))
    }
}

/// How a handshake ends that ends well, as the metric has it.
const FULL: &str = "full";
const RESUMED: &str = "resumed";

/// How a handshake ends that does not: what [`Fault::outcome`] may say.
const FAULTS: [&str; 8] =
    ["plain_text", "timed_out", "no_place", "no_certificate", "bad_certificate", "refused_by_caller", "failed", "gone"];

/// Has handshakes counted from 0 on, however they end.
pub(super) fn count_from_the_start(tls: &Tls) {
    outcomes_from_the_start(&tls.handshakes, [FULL, RESUMED].into_iter().chain(FAULTS));
}

/// Shakes hands within a time. `None`: the connection is over.
pub(super) async fn secure(tcp: Tcp, conn: Conn, tls: &Tls, within: Duration) -> Option<(AcceptedStream, Conn)> {
    let shaking = async {
        tokio::select! {
            shaken = tokio::time::timeout(within, shake(tcp, tls)) => shaken.unwrap_or(Err(Fault::TimedOut.into())),
            () = poll_fn(|cx| conn.poll_asked_to_go(cx)) => Err(Fault::NoPlace.into()),
        }
    };
    let count = |outcome: &str| tls.handshakes.get_or_create(&OutcomeLabels { outcome: outcome.to_owned() }).inc();
    let FailedHandshake { fault, left } = match shaking.await {
        Ok(Handshake { stream, facts, is_resumed }) => {
            count(if is_resumed { RESUMED } else { FULL });
            return Some((AcceptedStream::Tls(Box::new(stream)), conn.with_tls(facts)));
        }
        Err(failed) => failed,
    };
    count(fault.outcome());
    if fault.concerns_the_operator() {
        tracing::info!(peer = %conn.peer, why = %fault, "no TLS connection");
    } else {
        tracing::debug!(peer = %conn.peer, why = %fault, "no TLS connection");
    }
    if let Some(tcp) = left {
        let words = match fault {
            Fault::PlainText => answer(&Refusal::bad("this port speaks TLS: use https://"), conn.peer),
            _ => Bytes::new(),
        };
        tokio::select! {
            () = part(tcp, &words) => {}
            () = poll_fn(|cx| conn.poll_asked_to_go(cx)) => {}
        }
    }
    None
}

struct Handshake {
    stream: TlsStream<Tcp>,
    facts: TlsFacts,
    is_resumed: bool,
}

/// Why there is none, and the connection for last words, if it is still there.
struct FailedHandshake {
    fault: Fault,
    left: Option<Tcp>,
}

impl From<Fault> for FailedHandshake {
    fn from(fault: Fault) -> Self {
        Self { fault, left: None }
    }
}

async fn shake(tcp: Tcp, tls: &Tls) -> Result<Handshake, FailedHandshake> {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        // A method's first letter. TLS begins with a record of type 22 (RFC 8446, 5.1).
        Ok(1) if first[0].is_ascii_uppercase() => {
            return Err(FailedHandshake { fault: Fault::PlainText, left: Some(tcp) });
        }
        Ok(_) => {}
        Err(gone) => return Err(Fault::Gone(gone).into()),
    }
    let (live, began) = (tls.live(), tls.now());
    let accepting = TlsAcceptor::from(live.server.clone()).accept(tcp).into_fallible();
    let mut stream =
        accepting.await.map_err(|(why, tcp)| FailedHandshake { fault: Fault::of(why), left: Some(tcp) })?;
    let session = stream.get_ref().1;
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let speaks = session.alpn_protocol().and_then(Alpn::of);
    let shown = session.peer_certificates().map(|chain| PeerCertificate::read(chain.to_vec()));
    let certificate = match shown.map(|read| read.map(|certificate| tls.shown.one(certificate))) {
        None => None,
        Some(Ok(certificate)) if !resumed => {
            live.trust.took(&certificate, began);
            Some(certificate)
        }
        Some(Ok(certificate)) if live.trust.vouches_for(&certificate, began).await => Some(certificate),
        Some(_) => {
            stream.get_mut().1.send_close_notify();
            let _ = stream.flush().await;
            return Err(FailedHandshake { fault: Fault::StaleSession, left: Some(stream.into_inner().0) });
        }
    };
    Ok(Handshake { stream, facts: TlsFacts { speaks, certificate }, is_resumed: resumed })
}

/// Says last words and closes our end; reads away what still comes.
async fn part(mut tcp: Tcp, words: &[u8]) {
    let parting = async {
        tcp.write_all(words).await?;
        tcp.shutdown().await?;
        let mut waste = [0; 4096];
        while tcp.read(&mut waste).await? > 0 {}
        io::Result::Ok(())
    };
    // However it ends, it is over.
    let _ = tokio::time::timeout(LINGER, parting).await;
}
