//! The process's heap: what is freed goes back to the system soon, and how much is live can be asked.
//!
//! Invariants: what was free for [`KEPT_FOR`] is the system's again, also when nothing is allocated any more
//! (jemalloc's own thread sees to it), so resident memory follows what is live, not the highest peak. All that is freed
//! is wiped before the allocator sees it (`main.rs` wraps it).

use std::time::Duration;

use tikv_jemalloc_ctl::{Access as _, AsName as _, Error, background_thread, epoch, stats};

/// How long freed memory is kept for the next who needs some. (glibc's keeps it for ever below its highest peak.)
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Makes the heap give back what is free. To be called once, first of all.
///
/// # Errors
/// When the system gives no thread for it; memory is given back all the same, by those who allocate.
pub fn give_back() -> Result<(), Error> {
    let kept_for = isize::try_from(KEPT_FOR.as_millis()).unwrap_or(isize::MAX);
    // Of the arenas that are there, and of those to come.
    for name in ["arenas.dirty_decay_ms\0", "arena.0.dirty_decay_ms\0"] {
        name.name().write(kept_for)?;
    }
    background_thread::write(true)
}

/// Bytes of the heap that somebody holds.
#[must_use]
pub fn live() -> u64 {
    // What it counted last, brought up to now. Without counts there is nothing to say.
    let counted = epoch::advance().and_then(|_| stats::allocated::read());
    counted.map_or(0, |bytes| bytes as u64)
}
