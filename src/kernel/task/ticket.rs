//! [`Ticket`]: work that waits for a thread of the runtime, and can be taken back until it is begun.
//!
//! Invariant: it is done once or dropped once, whoever comes first: the thread that does it, or who waited for it and
//! left. So work that all threads are too busy to begin keeps nothing once nobody waits for it.

use std::sync::{Arc, Mutex};

use super::BoxedWork;
use crate::kernel::sync::lock;

/// The right to begin, or to take back. Taken back when dropped.
pub(super) struct Ticket(Arc<Mutex<Option<BoxedWork>>>);

impl Ticket {
    /// The ticket, and what begins the work.
    pub(super) fn of(work: impl FnOnce() + Send + 'static) -> (Self, impl FnOnce() + Send + 'static) {
        let ticket = Self(Arc::new(Mutex::new(Some(Box::new(work)))));
        let begin = ticket.0.clone();
        (ticket, move || {
            if let Some(work) = take(&begin) {
                work();
            }
        })
    }
}

fn take(work: &Mutex<Option<BoxedWork>>) -> Option<BoxedWork> {
    lock(work).take()
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Outside of the lock.
        let taken_back = take(&self.0);
        drop(taken_back);
    }
}
