//! The 401 guard: a secret that the vendor refuses is not shown again and again, so that it cannot get the account banned.
//!
//! Invariants: once a 401 to a content was told, no two requests with that content are begun at a time, and each that is
//! refused too puts off the next by [`PROBE_EVERY`]; a new content starts with a clean sheet. Requests already under way
//! when the 401 came are not called back.
//!
//! | state   | entered when                 | lets through                         | left by                          |
//! |---------|------------------------------|--------------------------------------|----------------------------------|
//! | open    | at first                     | all                                  | a 401: doubted                   |
//! | doubted | one 401 came                 | one trial, once the secret was read again; the others wait for both | its verdict: open or closed |
//! | closed  | the trial was refused too    | one probe each minute                | its verdict, or a changed secret, or a changed `base_url` (doubted) |

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::kernel::clock::Clock;
use crate::kernel::names::AppId;
use crate::kernel::sync::lock;

/// How often one order may try whether a refused secret is taken again.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Guard {
    app: AppId,
    clock: Clock,
    stand: Mutex<Stand>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
enum Stand {
    Open,
    Doubted { content: u64, trying: bool },
    Closed { content: u64, next_probe: Instant, trying: bool },
}

/// An answer to who wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Send. A trial's verdict is awaited by others.
    Go {
        trial: bool,
    },
    /// Wait for the verdict of another's trial.
    Wait,
    Refused,
}

/// The state without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Open,
    Doubted,
    Closed,
}

impl Guard {
    pub(super) fn new(app: AppId, clock: Clock) -> Self {
        Self { app, clock, stand: Mutex::new(Stand::Open), changed: Notify::new() }
    }

    /// Resolves when the state changes after it was enabled.
    pub(super) fn verdict(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// What [`Guard::enter`] would say now; takes nothing.
    pub(super) fn look(&self, shown: u64) -> Entry {
        match *self.lock() {
            Stand::Open => Entry::Go { trial: false },
            Stand::Doubted { content, .. } | Stand::Closed { content, .. } if content != shown => {
                Entry::Go { trial: false }
            }
            Stand::Doubted { trying: true, .. } => Entry::Wait,
            Stand::Closed { next_probe, trying, .. } if trying || self.clock.now() < next_probe => Entry::Refused,
            Stand::Doubted { .. } | Stand::Closed { .. } => Entry::Go { trial: true },
        }
    }

    /// Lets a refused content be tried at once. One try: its refusal closes the guard again.
    pub(super) fn try_anew(&self) {
        let mut stand = self.lock();
        if let Stand::Closed { content, trying, .. } = *stand {
            *stand = Stand::Doubted { content, trying };
        }
    }

    /// May a request go out that shows this content?
    pub(super) fn enter(&self, shown: u64) -> Entry {
        let mut stand = self.lock();
        match &mut *stand {
            Stand::Open => Entry::Go { trial: false },
            Stand::Doubted { content, .. } | Stand::Closed { content, .. } if *content != shown => {
                self.open(stand, "its secret has changed");
                Entry::Go { trial: false }
            }
            Stand::Doubted { trying: true, .. } => Entry::Wait,
            Stand::Doubted { trying, .. } => {
                *trying = true;
                Entry::Go { trial: true }
            }
            Stand::Closed { next_probe, trying, .. } => {
                let now = self.clock.now();
                if *trying || now < *next_probe {
                    return Entry::Refused;
                }
                *trying = true;
                *next_probe = now + PROBE_EVERY;
                Entry::Go { trial: true }
            }
        }
    }

    /// A trial was taken.
    pub(super) fn accepted(&self) {
        let stand = self.lock();
        self.open(stand, "the vendor takes it");
    }

    /// A request that showed content `tried` was answered 401, and `shown` is what is shown now. Whether it falls to that
    /// request to read the secret again and tell of it by [`Guard::refused`] or [`Guard::no_verdict`]: until then the
    /// others wait.
    pub(super) fn doubt(&self, tried: u64, shown: Option<u64>, trial: bool) -> bool {
        let mut stand = self.lock();
        match *stand {
            _ if trial => true,
            // Was under way when the doubt arose: tells nothing new.
            Stand::Doubted { content, .. } | Stand::Closed { content, .. } if content == tried => false,
            _ if shown != Some(tried) => false,
            Stand::Open | Stand::Doubted { .. } | Stand::Closed { .. } => {
                *stand = Stand::Doubted { content: tried, trying: true };
                true
            }
        }
    }

    /// A request that showed content `tried` was answered 401, and it fell to it to read the secret again, which gave
    /// `current`. `trial`: the doubt was there before.
    pub(super) fn refused(&self, tried: u64, current: u64, trial: bool) {
        let mut stand = self.lock();
        if tried != current {
            // The secret is new. Another order may have closed the guard to it already: its verdict stands.
            if let Stand::Doubted { content, .. } | Stand::Closed { content, .. } = *stand
                && content == tried
            {
                self.open(stand, "its secret has changed");
            }
            return;
        }
        let next_probe = self.clock.now() + PROBE_EVERY;
        *stand = match *stand {
            Stand::Doubted { content, .. } if content == tried && trial => {
                tracing::error!(app = %self.app, "the vendor refuses the credential: no more requests until it changes");
                Stand::Closed { content, next_probe, trying: false }
            }
            Stand::Closed { content, .. } if content == tried && trial => {
                Stand::Closed { content, next_probe, trying: false }
            }
            Stand::Open | Stand::Doubted { .. } | Stand::Closed { .. } => {
                Stand::Doubted { content: tried, trying: false }
            }
        };
        drop(stand);
        self.changed.notify_waiters();
    }

    /// A trial of content `tried` ended without the vendor's word on it.
    pub(super) fn no_verdict(&self, tried: u64) {
        match &mut *self.lock() {
            Stand::Doubted { content, trying } | Stand::Closed { content, trying, .. } if *content == tried => {
                *trying = false;
            }
            Stand::Open | Stand::Doubted { .. } | Stand::Closed { .. } => {}
        }
        self.changed.notify_waiters();
    }

    pub(super) fn stand(&self, shown: u64) -> Seen {
        match *self.lock() {
            Stand::Doubted { content, .. } if content == shown => Seen::Doubted,
            Stand::Closed { content, .. } if content == shown => Seen::Closed,
            _ => Seen::Open,
        }
    }

    fn open(&self, mut stand: MutexGuard<'_, Stand>, why: &'static str) {
        *stand = Stand::Open;
        drop(stand);
        tracing::info!(app = %self.app, why, "the credential is used again");
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Stand> {
        lock(&self.stand)
    }
}
