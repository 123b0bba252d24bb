//! The signals that a command is told by.
//!
//! Invariants: from [`Signals::of_serve`] on, which `main` calls first of all, no signal but SIGKILL and SIGQUIT ends
//! `serve` by itself. None is forgotten: one that came while the configuration was read stops the gateway once it runs,
//! in order. Two are two, however soon they come. Signals that others mean something by (USR1, USR2) are passed over.
//!
//! What comes before `main` (a millisecond or so, in which the system loads the program) does what the system does by
//! itself: deploy/README.md says how whoever starts the gateway can see to that.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level::pipe};
use tokio::io::AsyncReadExt as _;

use crate::app::Stop;

/// Signals that are listened for. A byte is written here for each that asks for an end.
#[derive(Debug)]
pub struct Signals(UnixStream);

impl Signals {
    /// For `serve`, if that is the command: told by the first argument, before anything is parsed.
    /// Fails when the system has no room for it.
    pub fn of_serve() -> Option<io::Result<Self>> {
        let is_serve = std::env::args_os().nth(1).is_some_and(|command| command == "serve");
        is_serve.then(|| {
            // It has a meaning only once there is something to reload. What it would tell of is found without it.
            pass_over(SIGHUP)?;
            Self::listen()
        })
    }

    /// From here on.
    /// Fails when the system has no room for it.
    pub(super) fn listen() -> io::Result<Self> {
        let (told, tell) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        for ends in [SIGTERM, SIGINT] {
            pipe::register(ends, tell.try_clone()?)?;
        }
        for means_nothing in [SIGUSR1, SIGUSR2] {
            pass_over(means_nothing)?;
        }
        Ok(Self(told))
    }

    /// What SIGTERM and SIGINT ask for: the first a stop in order, the second that it be hurried.
    /// Fails when the runtime cannot watch them.
    pub(super) fn stop(self) -> io::Result<Stop> {
        let mut told = tokio::net::UnixStream::from_std(self.0)?;
        let stop = Stop::default();
        let tell = stop.clone();
        #[expect(clippy::disallowed_methods, reason = "lives as long as the process: there is no group to own it")]
        tokio::spawn(async move {
            for asked_for in [tell.asked, tell.hurried] {
                if told.read_u8().await.is_err() {
                    return;
                }
                asked_for.cancel();
            }
            // Those after the second find somebody there: `told` is kept.
            std::future::pending::<()>().await;
        });
        Ok(stop)
    }
}

/// [`Signals::stop`] of signals that are listened for from here on.
/// Fails when the system has no room for it.
pub(super) fn stop_on_signal() -> io::Result<Stop> {
    Signals::listen()?.stop()
}

/// Takes a signal's deadly meaning from it.
fn pass_over(signal: i32) -> io::Result<()> {
    flag::register(signal, Arc::<AtomicBool>::default()).map(drop)
}
