//! Whether an address could be listened on, tried without leaving a trace: for `check`.
//!
//! Invariants: no file is made. A port is bound for a moment and not listened on, so that a gateway which starts in
//! that moment can have it; nobody is waited for. What another process holds (this gateway, when it runs) is told apart
//! from what nobody could have.

use std::io;
use std::net::SocketAddr as TcpAddress;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use rustix::process::{getegid, geteuid, getgroups};

use crate::config::{Listen, UnixOwner};
use crate::kernel::files;

/// Whether somebody listens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Nobody does.
    Free,
    /// Another process does.
    Taken,
}

/// Looks whether an address could be listened on.
///
/// # Errors
/// It could not: why.
pub fn availability(listen: &Listen, owner: UnixOwner) -> io::Result<Availability> {
    let tried = match listen {
        Listen::Tcp(address) => tcp(*address),
        Listen::Unix(path) => unix(path, owner),
    };
    match tried {
        Ok(()) => Ok(Availability::Free),
        Err(why) if matches!(why.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::WouldBlock) => {
            Ok(Availability::Taken)
        }
        Err(why) => Err(why),
    }
}

/// The one path that a file has, however it is written: links in the way to it are followed. `None` where its folder is
/// not there.
#[must_use]
pub fn canonical_path(path: &Path) -> Option<PathBuf> {
    Some(folder_of(path).canonicalize().ok()?.join(path.file_name()?))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn tcp(address: TcpAddress) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // As the gateway does; so two that are bound and do not listen are not in each other's way.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(bind(&socket, &address)?)
}

fn unix(path: &Path, owner: UnixOwner) -> io::Result<()> {
    let folder = folder_of(path);
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // It is bound in a folder beside its place, and both paths must fit.
    SocketAddr::from_pathname(path)?;
    SocketAddr::from_pathname(folder.join(".0123ab/s"))?;
    let around = std::fs::metadata(folder)?;
    if !around.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    files::can_make_in(folder)?;
    may_give_to(owner)?;
    match std::fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(old) => {
            let us = geteuid();
            let may_replace = us.is_root() || [old.uid(), around.uid()].contains(&us.as_raw());
            // Not whom others left it to (S_ISVTX, as /tmp).
            if around.mode() & 0o1000 != 0 && !may_replace {
                let what = "there is a socket of another user's, in a folder where nobody may replace others' files";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
            }
        }
    }
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        // A queue that is full is not waited for.
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    match connect(&socket, &SocketAddrUnix::new(path)?).map_err(io::Error::from) {
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(why) if matches!(why.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(why) => Err(why),
    }
}

/// Only root may give a file to anybody; others may give theirs to a group that they are in.
fn may_give_to(owner: UnixOwner) -> io::Result<()> {
    let us = geteuid();
    let denied = |what| Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    if us.is_root() {
        return Ok(());
    }
    if owner.uid.is_some_and(|uid| uid != us.as_raw()) {
        return denied("only root may give a socket to another user");
    }
    let is_ours =
        |gid: u32| getegid().as_raw() == gid || getgroups().is_ok_and(|all| all.iter().any(|one| one.as_raw() == gid));
    if owner.gid.is_some_and(|gid| !is_ours(gid)) {
        return denied("only root may give a socket to a group that it is not in");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_that_cannot_be_had_are_told_from_those_that_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Listen::Unix(folder.path().join(name));
        let try_it = |listen: &Listen| availability(listen, UnixOwner::default()).map_err(|why| why.kind());
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let live = std::os::unix::net::UnixListener::bind(folder.path().join("live")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("stale")).unwrap());
        assert_eq!(try_it(&at("new")), Ok(Availability::Free));
        assert_eq!(try_it(&at("stale")), Ok(Availability::Free));
        assert_eq!(try_it(&at("live")), Ok(Availability::Taken));
        assert_eq!(try_it(&at("file")), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(try_it(&at("none/s")), Err(io::ErrorKind::NotFound));
        assert!(try_it(&at("file/s")).is_err());
        assert_eq!(try_it(&at(&"s".repeat(108))), Err(io::ErrorKind::InvalidInput));
        assert_eq!(try_it(&at("new/")), Err(io::ErrorKind::IsADirectory));
        assert!(try_it(&Listen::Unix("/proc/s".into())).is_err() && try_it(&Listen::Unix("/sys/s".into())).is_err());
        // Whose queue is full is there, and not waited for.
        let full = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&full, &SocketAddrUnix::new(folder.path().join("full")).unwrap()).unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(folder.path().join("full")).unwrap();
        assert_eq!(try_it(&at("full")), Ok(Availability::Taken));
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(try_it(&Listen::Tcp(port.local_addr().unwrap())), Ok(Availability::Taken));
        assert_eq!(try_it(&Listen::Tcp(([127, 0, 0, 1], 0).into())), Ok(Availability::Free));
        assert_eq!(try_it(&Listen::Tcp(([192, 0, 2, 1], 0).into())), Err(io::ErrorKind::AddrNotAvailable));
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", "full", "live", "stale"]);
        drop(live);
        // A gateway that starts meanwhile can have the port.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(try_it(&Listen::Tcp(free)), Ok(Availability::Free));
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(try_it(&Listen::Tcp(other.local_addr().unwrap())), Ok(Availability::Taken), "while it listens");
    }
}
