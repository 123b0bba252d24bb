//! [`Tcp`]: a caller's TCP connection, below TLS, that knows how far what was written has come.
//!
//! Invariants: [`Tcp::written`] counts every byte that the system took of us since the connection came, TLS and the
//! framing of HTTP included; [`Tcp::acknowledged`] never says more than the system at the other end has acknowledged.
//! Systems other than Linux do not tell it.

use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that may wait in the system unsent, on a connection that is [sparing](Arrives::be_sparing). What is sent and
/// not acknowledged comes on top: so a fast reader gets as much as its line holds, and of one that does not read, whose
/// system takes what it has room for and no more, this much waits (and one write: 64 KiB).
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT: u32 = 128 << 10;

/// What is known of how far a stream's bytes have come.
pub(super) trait Arrives {
    /// How many bytes were written.
    fn written(&self) -> u64;

    /// How many of them the system at the other end has acknowledged. `None` where that is not known.
    fn acknowledged(&self) -> Option<u64>;

    /// Whether the other end has reset the connection: nothing more of it is acknowledged.
    fn is_reset(&self) -> bool;

    /// Lets little of what is written wait in the system unsent.
    fn be_sparing(&self);

    /// When it is dropped, what still waits in the system is thrown away.
    fn give_up(&self);
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Tcp {
    stream: TcpStream,
    written: u64,
    is_shut: bool,
}

impl Tcp {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, written: 0, is_shut: false }
    }

    /// Looks at the first bytes without taking them.
    pub(super) async fn peek(&self, first: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(first).await
    }

    fn count(&mut self, said: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let taken = ready!(said)?;
        self.written += taken as u64;
        Poll::Ready(Ok(taken))
    }
}

impl Arrives for Tcp {
    fn written(&self) -> u64 {
        self.written
    }

    fn acknowledged(&self) -> Option<u64> {
        // Our end of the connection counts as a byte there.
        let written = self.written + u64::from(self.is_shut);
        let left = match tcp_outq::unacknowledged(self.stream.as_fd()) {
            Ok(left) => left.into(),
            Err(unknown) if unknown.kind() == io::ErrorKind::Unsupported => return None,
            Err(_) => written,
        };
        Some(written.saturating_sub(left).min(self.written))
    }

    fn is_reset(&self) -> bool {
        // The system has forgotten whom it was connected with.
        self.stream.peer_addr().is_err()
    }

    fn be_sparing(&self) {
        #[cfg(any(target_os = "android", target_os = "linux"))]
        if let Err(error) = SockRef::from(&self.stream).set_tcp_notsent_lowat(UNSENT) {
            tracing::debug!(%error, "what waits unsent on a connection is not bounded");
        }
    }

    fn give_up(&self) {
        // It may have broken already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let said = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.count(said)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let said = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.count(said)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        this.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_reset_once_its_other_end_has_forgotten_it() {
        for resets in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let near = Tcp::new(listener.accept().await.unwrap().0);
            assert!(!near.is_reset());
            if resets {
                SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(far);
            near.stream.readable().await.unwrap();
            assert_eq!(near.is_reset(), resets, "its end alone is no reset");
        }
    }
}
