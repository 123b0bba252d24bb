//! How many bytes of a TCP connection the system at its other end has not acknowledged: `SIOCOUTQ` of tcp(7). No safe
//! wrapper of it is in a crate that is maintained.

use std::io;
use std::os::fd::BorrowedFd;

/// Bytes that were written to a TCP connection and are not acknowledged, whether they were sent or not. Our own end of
/// the connection (FIN) counts as one byte more. After a connection has broken it says how it was then.
///
/// # Errors
/// When the socket is not one of TCP, or not connected; on systems other than Linux always.
#[cfg(target_os = "linux")]
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    use std::os::fd::AsRawFd as _;

    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the request writes one `int`, to which the pointer leads.
    let said = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if said == -1 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Not known on this system.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn unacknowledged(_: BorrowedFd<'_>) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}
