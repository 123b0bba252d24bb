//! The breaker of a credential: a secret that the vendor refuses is not shown again and again, so that it cannot get
//! the account banned.
//!
//! Invariants: once a 401 to a content was told, no two requests with that content are begun at a time, and each that
//! is refused too puts off the next by [`PROBE_EVERY`]; a new content starts with a clean sheet. Requests already under
//! way when the 401 came are not called back.
//!
//! | phase   | entered when              | lets through          | left by                                   |
//! |---------|---------------------------|-----------------------|-------------------------------------------|
//! | open    | at first                  | all                   | a 401: doubted                            |
//! | doubted | one 401 came              | one trial (see below) | its verdict: open or closed               |
//! | closed  | the trial was refused too | one probe each minute | its verdict; a changed secret; a changed  |
//! |         |                           |                       | `base_url` (doubted)                      |
//!
//! The trial goes out once the secret was read again, for it may just have been rotated; the others wait for both.
//!
//! In the log a refusal has one line that begins it and one that ends it, whatever phases lie between: that it was told
//! stays with the phase until the other line is written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::names::AppId;
use crate::kernel::sync::lock;

/// How often one order may try whether a refused secret is taken again.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(60);

pub(super) struct CredentialBreaker {
    app: AppId,
    clock: Clock,
    phase: Mutex<CredentialPhase>,
    changed: Notify,
    /// Nothing new is sent with the credential: what is still under way is no news.
    is_retired: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum CredentialPhase {
    Open,
    Doubted { content: u64, trying: bool, told: bool },
    Closed { content: u64, since: UnixMillis, next_probe: Instant, trying: bool, told: bool },
}

impl CredentialPhase {
    /// The content that was refused, if one was.
    fn content(self) -> Option<u64> {
        match self {
            Self::Open => None,
            Self::Doubted { content, .. } | Self::Closed { content, .. } => Some(content),
        }
    }

    /// Whether the log says that the credential is refused, and not yet that it is used again.
    fn is_told(self) -> bool {
        match self {
            Self::Open => false,
            Self::Doubted { told, .. } | Self::Closed { told, .. } => told,
        }
    }
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

/// The phase without its details, of one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialStatus {
    Open,
    Doubted,
    Closed { since: UnixMillis },
}

impl CredentialBreaker {
    pub(super) fn new(app: AppId, clock: Clock) -> Self {
        Self {
            app,
            clock,
            phase: Mutex::new(CredentialPhase::Open),
            changed: Notify::new(),
            is_retired: AtomicBool::new(false),
        }
    }

    /// Resolves when the state changes after it was enabled.
    pub(super) fn verdict(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// What [`CredentialBreaker::enter`] would say now; takes nothing.
    pub(super) fn look(&self, shown: u64) -> Entry {
        match *self.lock() {
            CredentialPhase::Open => Entry::Go { trial: false },
            CredentialPhase::Doubted { content, .. } | CredentialPhase::Closed { content, .. } if content != shown => {
                Entry::Go { trial: false }
            }
            CredentialPhase::Doubted { trying: true, .. } => Entry::Wait,
            CredentialPhase::Closed { next_probe, trying, .. } if trying || self.clock.now() < next_probe => {
                Entry::Refused
            }
            CredentialPhase::Doubted { .. } | CredentialPhase::Closed { .. } => Entry::Go { trial: true },
        }
    }

    /// Lets a refused content be tried at once. One try: its refusal closes the breaker again.
    pub(super) fn try_anew(&self) {
        let mut phase = self.lock();
        if let CredentialPhase::Closed { content, trying, told, .. } = *phase {
            *phase = CredentialPhase::Doubted { content, trying, told };
        }
    }

    /// This content is shown from now on: what was refused before it is refused no more, whether or not somebody asks.
    pub(super) fn replaced_by(&self, shown: u64) {
        let phase = self.lock();
        if phase.content().is_some_and(|content| content < shown) {
            self.open(phase, "its secret has changed");
        }
    }

    /// Nothing new is sent with the credential. Says whether the log still says that it is refused.
    pub(super) fn retire(&self) -> bool {
        self.is_retired.store(true, Ordering::Relaxed);
        let was = std::mem::replace(&mut *self.lock(), CredentialPhase::Open);
        self.changed.notify_waiters();
        was.is_told()
    }

    /// May a request go out that shows this content?
    pub(super) fn enter(&self, shown: u64) -> Entry {
        let mut phase = self.lock();
        match &mut *phase {
            CredentialPhase::Open => Entry::Go { trial: false },
            CredentialPhase::Doubted { content, .. } | CredentialPhase::Closed { content, .. } if *content != shown => {
                self.open(phase, "its secret has changed");
                Entry::Go { trial: false }
            }
            CredentialPhase::Doubted { trying: true, .. } => Entry::Wait,
            CredentialPhase::Doubted { trying, .. } => {
                *trying = true;
                Entry::Go { trial: true }
            }
            CredentialPhase::Closed { next_probe, trying, .. } => {
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

    /// A trial of this content was taken.
    pub(super) fn accepted(&self, tried: u64) {
        let phase = self.lock();
        // Another content may have been refused since: this tells nothing of it.
        if phase.content() == Some(tried) {
            self.open(phase, "the vendor takes it");
        }
    }

    /// A request that showed content `tried` was answered 401, and `shown` is what is shown now. Whether it falls to
    /// that request to read the secret again and tell of it by [`CredentialBreaker::refused`] or
    /// [`CredentialBreaker::no_verdict`]: until then the others wait.
    pub(super) fn doubt(&self, tried: u64, shown: Option<u64>, trial: bool) -> bool {
        let mut phase = self.lock();
        match *phase {
            _ if trial => true,
            // Was under way when the doubt arose: tells nothing new.
            CredentialPhase::Doubted { content, .. } | CredentialPhase::Closed { content, .. } if content == tried => {
                false
            }
            _ if shown != Some(tried) => false,
            CredentialPhase::Open | CredentialPhase::Doubted { .. } | CredentialPhase::Closed { .. } => {
                *phase = CredentialPhase::Doubted { content: tried, trying: true, told: false };
                true
            }
        }
    }

    /// A request that showed content `tried` was answered 401, and it fell to it to read the secret again, which gave
    /// `current`. `trial`: the doubt was there before. Says whether the breaker has closed with that, and the log is to
    /// be told so.
    pub(super) fn refused(&self, tried: u64, current: u64, trial: bool) -> bool {
        let mut phase = self.lock();
        if tried != current {
            // The secret is new. Another order may have closed the breaker to it already: its verdict stands.
            if let CredentialPhase::Doubted { content, .. } | CredentialPhase::Closed { content, .. } = *phase
                && content == tried
            {
                self.open(phase, "its secret has changed");
            }
            return false;
        }
        let mut is_news = false;
        let next_probe = self.clock.now() + PROBE_EVERY;
        *phase = match *phase {
            CredentialPhase::Doubted { content, told, .. } if content == tried && trial => {
                is_news = !told && !self.is_retired.load(Ordering::Relaxed);
                let since = self.clock.wall_ms();
                CredentialPhase::Closed { content, since, next_probe, trying: false, told: told || is_news }
            }
            CredentialPhase::Closed { content, since, told, .. } if content == tried && trial => {
                CredentialPhase::Closed { content, since, next_probe, trying: false, told }
            }
            before @ (CredentialPhase::Open | CredentialPhase::Doubted { .. } | CredentialPhase::Closed { .. }) => {
                CredentialPhase::Doubted { content: tried, trying: false, told: before.is_told() }
            }
        };
        drop(phase);
        self.changed.notify_waiters();
        is_news
    }

    /// A trial of content `tried` ended without the vendor's word on it.
    pub(super) fn no_verdict(&self, tried: u64) {
        match &mut *self.lock() {
            CredentialPhase::Doubted { content, trying, .. } | CredentialPhase::Closed { content, trying, .. }
                if *content == tried =>
            {
                *trying = false;
            }
            CredentialPhase::Open | CredentialPhase::Doubted { .. } | CredentialPhase::Closed { .. } => {}
        }
        self.changed.notify_waiters();
    }

    pub(super) fn status(&self, shown: u64) -> CredentialStatus {
        match *self.lock() {
            CredentialPhase::Doubted { content, .. } if content == shown => CredentialStatus::Doubted,
            CredentialPhase::Closed { content, since, .. } if content == shown => CredentialStatus::Closed { since },
            _ => CredentialStatus::Open,
        }
    }

    fn open(&self, mut phase: MutexGuard<'_, CredentialPhase>, why: &'static str) {
        let was = std::mem::replace(&mut *phase, CredentialPhase::Open);
        drop(phase);
        // Of a doubt that did not last there was no line.
        if was.is_told() {
            tracing::info!(app = %self.app, why, "the credential is used again");
        }
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, CredentialPhase> {
        lock(&self.phase)
    }
}
