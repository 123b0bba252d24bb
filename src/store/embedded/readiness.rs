//! [`Readiness`]: whether a batch could be kept, found out once for all who ask.
//!
//! Every poller asks before each of its reads, and there may be thousands. So the file system is not asked for each:
//! what was found counts for a while.
//!
//! Invariants:
//! - Without a look only "ready" is said: by the last look there was room, it is younger than `every`, and what the
//!   store has written since fits in what was free beyond the reserve. What others write in that time is not known;
//!   what cannot be stored for it is held in memory by the poller that read it.
//! - A look is shared by those who had asked before it began, whatever it found, and by nobody else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::sync::lock;
use crate::store::Error;

/// What is known of the room.
#[derive(Debug)]
pub(super) struct Readiness {
    /// For how long what was found counts.
    every: Duration,
    room: Mutex<Option<SpareRoom>>,
    /// Looks that have begun; changed under `last` alone.
    begun: AtomicU64,
    /// The last look that ended. Locked while one is under way.
    last: tokio::sync::Mutex<Look>,
}

/// Room that was found.
#[derive(Clone, Copy, Debug)]
struct SpareRoom {
    at: Instant,
    /// Free bytes beyond the reserve.
    spare: u64,
    /// What the store had written by then.
    written: u64,
}

#[derive(Debug)]
struct Look {
    /// Which one.
    number: u64,
    found: Result<(), Error>,
}

impl Readiness {
    pub(super) fn new(every: Duration) -> Self {
        let last = Look { number: 0, found: Ok(()) };
        Self { every, room: Mutex::default(), begun: AtomicU64::new(0), last: tokio::sync::Mutex::new(last) }
    }

    /// Whether it is known that there is room, now that the store has written so many bytes.
    pub(super) fn is_known(&self, now: Instant, written: u64) -> bool {
        lock(&self.room).is_some_and(|SpareRoom { at, spare, written: before }| {
            now.saturating_duration_since(at) < self.every && written.saturating_sub(before) < spare
        })
    }

    /// Looks, or waits for another's look that begins after this call. `look` says how much is free beyond the reserve;
    /// `now` and `written` are of before it.
    pub(super) async fn find_out(
        &self,
        now: Instant,
        written: u64,
        look: impl Future<Output = Result<u64, Error>>,
    ) -> Result<(), Error> {
        let begun = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if last.number > begun {
            return last.found.clone();
        }
        // One that is dropped on the way leaves a number that no look has: nobody takes its result for this one's.
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let found = look.await;
        *lock(&self.room) = found.as_ref().ok().map(|spare| SpareRoom { at: now, spare: *spare, written });
        *last = Look { number, found: found.map(drop) };
        last.found.clone()
    }
}
