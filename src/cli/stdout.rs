//! Stdout as the commands write to it that go on for long.
//!
//! Invariants: a reader that takes nothing holds back the command, but not its end: Ctrl-C ends it still. That the
//! reader left is seen at once where stdout is a pipe, not only at the next line.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::kernel::task::Lane;

/// Stdout. A write that hangs keeps a thread of its own, and nobody waits for it at the end.
pub(super) struct Stdout(Lane);

impl Default for Stdout {
    fn default() -> Self {
        Self(Lane::new("stdout", 1))
    }
}

/// A write that failed on its way.
#[derive(Debug)]
pub(super) struct PartialWrite {
    /// Whole lines that were written before it did.
    pub(super) lines: u64,
    pub(super) why: io::Error,
}

impl From<PartialWrite> for io::Error {
    fn from(unwritten: PartialWrite) -> Self {
        unwritten.why
    }
}

impl Stdout {
    /// Writes all of it.
    ///
    /// # Errors
    /// What the system said, and how many lines it took before.
    pub(super) async fn write(&self, bytes: Vec<u8>) -> Result<(), PartialWrite> {
        // Past the standard library's buffer: behind it nobody knows how much was written.
        let write = move || write_all(io::stdout(), &bytes);
        let lost =
            |why: crate::kernel::task::Panicked| PartialWrite { lines: 0, why: io::Error::other(why.to_string()) };
        self.0.run(write).await.map_err(lost)?
    }

    /// Resolves when nobody can read what is written any more, as far as that can be seen.
    pub(super) async fn left() {
        #[expect(
            deprecated,
            reason = "its way without `unsafe`; what it warns of, a descriptor that closes, stdout is not"
        )]
        let watched = AsyncFd::with_interest(io::stdout(), Interest::ERROR);
        // A file cannot be watched; nor need it be.
        if let Ok(watched) = watched
            && watched.ready(Interest::ERROR).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

fn write_all(to: impl AsFd, bytes: &[u8]) -> Result<(), PartialWrite> {
    let mut written = 0;
    while written < bytes.len() {
        let why = match rustix::io::write(&to, &bytes[written..]) {
            Ok(0) => ErrorKind::WriteZero.into(),
            Ok(more) => {
                written += more;
                continue;
            }
            Err(rustix::io::Errno::INTR) => continue,
            Err(why) => why.into(),
        };
        return Err(PartialWrite { lines: memchr::memchr_iter(b'\n', &bytes[..written]).count() as u64, why });
    }
    Ok(())
}

/// An output whose reader may take nothing: it is waited for until the command is told to stop. What has no room after
/// that is left out.
pub(super) struct UntilStopped<'a, W> {
    out: &'a mut dyn Write,
    /// Where `out` writes to.
    to: W,
    stop: CancellationToken,
}

/// A pipe that can be written takes so much without waiting, with what stdout's own buffer may hold before it.
const PIECE: usize = 1024;
/// How often it is asked whether the command was told to stop.
const A_LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

impl<'a, W: AsFd> UntilStopped<'a, W> {
    pub(super) fn new(out: &'a mut dyn Write, to: W, stop: CancellationToken) -> Self {
        Self { out, to, stop }
    }

    /// Waits until something can be written. `false`: stopped before.
    fn has_room(&self) -> bool {
        loop {
            let mut to = [PollFd::new(&self.to, PollFlags::OUT)];
            match poll(&mut to, Some(&A_LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) if self.stop.is_cancelled() => return false,
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // What is wrong with it, writing says.
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

impl<W: AsFd> Write for UntilStopped<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_room() { self.out.write(&bytes[..bytes.len().min(PIECE)]) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.has_room() { self.out.flush() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_left_out_once_the_command_is_told_to_stop() {
        let (reader, writer) = io::pipe().unwrap();
        let stop = CancellationToken::new();
        let writing = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let to = writer.try_clone().unwrap();
                let mut writer = writer;
                let mut out = UntilStopped::new(&mut writer, to, stop);
                out.write_all(&vec![b'x'; 1 << 20])
            }
        });
        stop.cancel();
        writing.join().unwrap().unwrap();
        drop(reader);
    }
}
