//! [`Wire`]: a connection's bytes, which tell the connection what was written and flushed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use super::conn::Conn;

/// Something that carries a connection's bytes.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes its end a reset.
    fn reset_at_end(&self) {}
}

impl Transport for TcpStream {
    fn reset_at_end(&self) {
        // A socket that is dead already needs no reset.
        let _ = self.set_zero_linger();
    }
}

impl Transport for DuplexStream {}

/// A transport that tells its connection what was written and flushed.
pub(super) struct Wire<T: Transport> {
    transport: T,
    conn: Arc<Conn>,
}

impl<T: Transport> Wire<T> {
    pub(super) fn new(transport: T, conn: Arc<Conn>) -> Self {
        Self { transport, conn }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            self.conn.wrote();
        }
        written
    }
}

impl<T: Transport> Drop for Wire<T> {
    fn drop(&mut self) {
        if self.conn.ends_by_reset() {
            self.transport.reset_at_end();
        }
    }
}

impl<T: Transport> AsyncRead for Wire<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_read(cx, buf)
    }
}

impl<T: Transport> AsyncWrite for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.conn.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
