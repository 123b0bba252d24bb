//! [`Meter`]: how far a body has been taken, for whoever watches that its caller goes on taking it.
//!
//! Invariant: between two looks either more bytes were taken, or nothing was there to take, or it is the caller who is
//! waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What one body's connection has taken of it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<MeterState>);

#[derive(Debug, Default)]
struct MeterState {
    taken: AtomicU64,
    idle: AtomicBool,
}

impl Meter {
    /// Bytes taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Whether all there was is taken, and more has still to be made.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.idle.load(Ordering::Relaxed)
    }

    pub(super) fn took(&self, in_all: u64) {
        self.0.taken.store(in_all, Ordering::Relaxed);
        self.0.idle.store(false, Ordering::Relaxed);
    }

    pub(super) fn nothing_to_take(&self) {
        self.0.idle.store(true, Ordering::Relaxed);
    }
}
