//! Stdout as the commands write to it that go on for long.
//!
//! Invariants: a reader that takes nothing holds back the command, but not its end: Ctrl-C ends it still. That the reader
//! left is seen at once where stdout is a pipe, not only at the next line.

use std::io::{self, Write as _};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::task::Tasks;

/// Stdout. To be dropped by a runtime that does not wait for it (`shutdown_background`).
#[derive(Default)]
pub(super) struct Stdout {
    tasks: Tasks,
}

impl Stdout {
    /// Writes all of it, and flushes.
    pub(super) async fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        let write = move || {
            let mut out = io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()
        };
        self.tasks.blocking(write).await.map_err(|why| io::Error::other(why.to_string()))?
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
