//! TCP and Unix sockets as one: binding, accepting, and the stream of an accepted connection.
//!
//! Invariants: a Unix socket appears at its path with its final mode, never wider (bound aside, then renamed); one
//! that a live process serves is never taken away; our own is removed when we end, unless another took its place.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::config::Listen;
use crate::conn::{Conn, Peer};

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// A bound socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, OwnPath),
}

/// A socket's file, removed with its socket.
#[derive(Debug)]
pub(super) struct OwnPath {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|now| now == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// An accepted connection's bytes.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    /// TCP after the handshake. Boxed: it is large, and the other two are not.
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Listen::Unix(path) => {
                refuse_if_served(path).await?;
                let aside = path.with_extension("new");
                match std::fs::remove_file(&aside) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                let listener = UnixListener::bind(&aside)?;
                std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(MODE))?;
                let inode = inode(&aside)?;
                std::fs::rename(&aside, path)?;
                Ok(Self::Unix(listener, OwnPath { path: path.clone(), inode }))
            }
        }
    }

    pub(super) fn address(&self) -> Listen {
        match self {
            // An address that a bound socket does not know is "anywhere".
            Self::Tcp(tcp) => Listen::Tcp(tcp.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into())),
            Self::Unix(_, own) => Listen::Unix(own.path.clone()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Conn)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are written whole: waiting to fill a packet only delays their end.
                stream.set_nodelay(true)?;
                let local = stream.local_addr().ok();
                Ok((Stream::Tcp(stream), Conn::new(Peer::Tcp(peer), local)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|cred| cred.uid());
                Ok((Stream::Unix(stream), Conn::new(Peer::Unix { uid }, None)))
            }
        }
    }
}

async fn refuse_if_served(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        // A full queue, for one, means that somebody serves it.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) => Err(e),
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

/// Calls the same method on whichever stream it is.
macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Tls($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock");
        let listen = Listen::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&listen).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(Socket::bind(&listen).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(Socket::bind(&listen).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_socket_that_another_replaced_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let ours = Socket::bind(&Listen::Unix(path.clone())).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let _theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }
}
