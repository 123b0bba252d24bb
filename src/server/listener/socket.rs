//! TCP and Unix sockets as one: binding, accepting, and the stream of an accepted connection.
//!
//! Invariants: a Unix socket appears at its path with its final mode and owner, never wider: it is bound in a folder
//! that only we can enter, and renamed when all is set. One that a live process serves is never taken away; our own is
//! removed when we end, unless another took its place.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket, UnixStream};
use tokio_rustls::server::TlsStream;

use super::tcp::{Arrives, Tcp};
use crate::config::{Listen, Server, UnixOwner};
use crate::kernel::conn::{Conn, Peer};

/// Who may connect to a Unix socket: the file's mode and owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixFile {
    mode: u32,
    owner: UnixOwner,
}

impl UnixFile {
    /// As `server.unix_mode` and `server.unix_owner` say.
    #[must_use]
    pub fn of(server: &Server) -> Self {
        Self { mode: server.unix_mode, owner: server.unix_owner }
    }
}

/// Our own user and group may.
impl Default for UnixFile {
    fn default() -> Self {
        Self { mode: 0o660, owner: UnixOwner::default() }
    }
}

/// How many connections the system holds until they are accepted, as far as it lets us (`net.core.somaxconn`): what
/// comes beyond it comes again after a second. A second's worth of a flood.
const BACKLOG: u32 = 1024;

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
pub(super) enum AcceptedStream {
    Tcp(Tcp),
    /// TCP after the handshake. Boxed: it is large, and the other two are not.
    Tls(Box<TlsStream<Tcp>>),
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn bind(listen: &Listen, file: UnixFile) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => Ok(Self::Tcp(listen_at(*address)?)),
            Listen::Unix(path) => {
                refuse_if_served(path).await?;
                let aside = PrivateFolder::beside(path)?;
                let socket = UnixSocket::new_stream()?;
                socket.bind(&aside.socket)?;
                let listener = socket.listen(BACKLOG)?;
                // The owner first: it may be others' right to connect that the mode gives.
                if file.owner != UnixOwner::default() {
                    std::os::unix::fs::chown(&aside.socket, file.owner.uid, file.owner.gid)?;
                }
                std::fs::set_permissions(&aside.socket, std::fs::Permissions::from_mode(file.mode))?;
                let inode = inode(&aside.socket)?;
                std::fs::rename(&aside.socket, path)?;
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

    pub(super) async fn accept(&self) -> io::Result<(AcceptedStream, Conn)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are written whole: waiting to fill a packet only delays their end.
                stream.set_nodelay(true)?;
                let local = stream.local_addr().ok();
                Ok((AcceptedStream::Tcp(Tcp::new(stream)), Conn::new(Peer::Tcp(peer), local)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|cred| cred.uid());
                Ok((AcceptedStream::Unix(stream), Conn::new(Peer::Unix { uid }, None)))
            }
        }
    }
}

/// As `TcpListener::bind` does, with a longer queue.
fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port whose last connections are still being forgotten may be had again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A folder beside a socket's path, on the same file system, that only we can enter; gone when dropped.
struct PrivateFolder {
    folder: PathBuf,
    socket: PathBuf,
}

impl PrivateFolder {
    fn beside(path: &Path) -> io::Result<Self> {
        // Short, because a socket's path has at most 107 bytes. Random, because processes may share the folder.
        let parent = path.parent().unwrap_or(Path::new("."));
        let folder = parent.join(format!(".{:06x}", rand::random::<u32>() >> 8));
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self { socket: folder.join("s"), folder })
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
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
            AcceptedStream::Tcp($stream) => $call,
            AcceptedStream::Tls($stream) => $call,
            AcceptedStream::Unix($stream) => $call,
        }
    };
}

/// What is written to a Unix socket is at its other end: both are this system. So nothing has to be known of it.
impl Arrives for AcceptedStream {
    fn written(&self) -> u64 {
        self.tcp().map_or(0, Arrives::written)
    }

    fn acknowledged(&self) -> Option<u64> {
        self.tcp().and_then(Arrives::acknowledged)
    }

    fn is_reset(&self) -> bool {
        self.tcp().is_some_and(Arrives::is_reset)
    }

    fn be_sparing(&self) {
        self.tcp().into_iter().for_each(Arrives::be_sparing);
    }

    fn give_up(&self) {
        self.tcp().into_iter().for_each(Arrives::give_up);
    }
}

impl AcceptedStream {
    fn tcp(&self) -> Option<&Tcp> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::Unix(_) => None,
        }
    }
}

impl AsyncRead for AcceptedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for AcceptedStream {
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
        let first = Socket::bind(&listen, UnixFile::default()).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(Socket::bind(&listen, UnixFile::default()).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(Socket::bind(&listen, UnixFile::default()).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_socket_that_another_replaced_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let ours = Socket::bind(&Listen::Unix(path.clone()), UnixFile::default()).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let _theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_socket_has_the_mode_and_owner_that_are_configured_and_nothing_else_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let made = std::fs::metadata(folder.path()).unwrap();
        // Whoever runs this may give a file to itself; root may give it to anybody.
        let (uid, gid) = if made.uid() == 0 { (4242, 4343) } else { (made.uid(), made.gid()) };
        for (mode, owner) in [
            (0o600, UnixOwner { uid: Some(uid), gid: None }),
            (0o666, UnixOwner { uid: None, gid: Some(gid) }),
            (0o620, UnixOwner { uid: Some(uid), gid: Some(gid) }),
            (0o660, UnixOwner::default()),
        ] {
            let path = folder.path().join("s.sock");
            let socket = Socket::bind(&Listen::Unix(path.clone()), UnixFile { mode, owner }).await.unwrap();
            let file = std::fs::metadata(&path).unwrap();
            assert_eq!(file.mode() & 0o7777, mode);
            assert_eq!(file.uid(), owner.uid.unwrap_or(made.uid()), "{owner:?}");
            assert_eq!(file.gid(), owner.gid.unwrap_or(made.gid()), "{owner:?}");
            let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, ["s.sock"]);
            let (connected, accepted) = tokio::join!(UnixStream::connect(&path), socket.accept());
            let ours = connected.unwrap().peer_cred().unwrap().uid();
            assert_eq!(accepted.unwrap().1.peer, Peer::Unix { uid: Some(ours) });
        }
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_given_away_never_appears() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        // Root may give a file to anybody; others may not give one to root.
        let not_root = std::fs::metadata(folder.path()).unwrap().uid() != 0;
        let bound = Socket::bind(&Listen::Unix(folder.path().join("no/s.sock")), UnixFile::default()).await;
        assert_eq!(bound.unwrap_err().kind(), io::ErrorKind::NotFound);
        if not_root {
            let owner = UnixOwner { uid: Some(0), gid: None };
            let bound = Socket::bind(&Listen::Unix(path.clone()), UnixFile { mode: 0o660, owner }).await;
            assert_eq!(bound.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
