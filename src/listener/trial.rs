//! Whether an address could be listened on, tried without leaving a trace: for `check`.
//!
//! Invariants: no file is made; a port is taken for a moment only, and what another process holds (this gateway, when it
//! runs) is told apart from what nobody could have.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use rustix::fs::Access;

use crate::config::{Listen, UnixOwner};

/// Whether somebody listens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Nobody does.
    Free,
    /// Another process does.
    Taken,
}

/// Looks whether an address could be listened on.
///
/// # Errors
/// It could not: why.
pub fn trial(listen: &Listen, owner: UnixOwner) -> io::Result<Trial> {
    let tried = match listen {
        Listen::Tcp(address) => TcpListener::bind(address).map(drop),
        Listen::Unix(path) => unix(path, owner),
    };
    match tried {
        Ok(()) => Ok(Trial::Free),
        Err(why) if matches!(why.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::WouldBlock) => Ok(Trial::Taken),
        Err(why) => Err(why),
    }
}

fn unix(path: &Path, owner: UnixOwner) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // It is bound in a folder beside its place, and both paths must fit.
    SocketAddr::from_pathname(path)?;
    SocketAddr::from_pathname(folder.join(".0123ab/s"))?;
    if !std::fs::metadata(folder)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    let us = rustix::process::geteuid();
    if !us.is_root() && owner.uid.is_some_and(|uid| uid != us.as_raw()) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "only root may give a socket to another user"));
    }
    match std::fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(why) if matches!(why.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_had_are_told_from_those_that_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Listen::Unix(folder.path().join(name));
        let try_it = |listen: &Listen| trial(listen, UnixOwner::default()).map_err(|why| why.kind());
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let live = std::os::unix::net::UnixListener::bind(folder.path().join("live")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("stale")).unwrap());
        assert_eq!(try_it(&at("new")), Ok(Trial::Free));
        assert_eq!(try_it(&at("stale")), Ok(Trial::Free));
        assert_eq!(try_it(&at("live")), Ok(Trial::Taken));
        assert_eq!(try_it(&at("file")), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(try_it(&at("none/s")), Err(io::ErrorKind::NotFound));
        assert!(try_it(&at("file/s")).is_err());
        assert_eq!(try_it(&at(&"s".repeat(108))), Err(io::ErrorKind::InvalidInput));
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(try_it(&Listen::Tcp(port.local_addr().unwrap())), Ok(Trial::Taken));
        assert_eq!(try_it(&Listen::Tcp(([127, 0, 0, 1], 0).into())), Ok(Trial::Free));
        assert_eq!(try_it(&Listen::Tcp(([192, 0, 2, 1], 0).into())), Err(io::ErrorKind::AddrNotAvailable));
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", "live", "stale"]);
        drop(live);
    }
}
