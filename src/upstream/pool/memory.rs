//! Memory for the vendor's answers while they are read and, for a message's, until its caller has taken them.
//!
//! Invariants:
//! - What is read of an answer beyond [`Bounds::small`] bytes lies in a [`Lease`], which is had whole before more of
//!   the answer is read: nobody waits for room while holding some, so there is always one whose turn comes.
//! - All leases together are never more than [`Bounds::all`]. Who goes first, and who may take how much, says the
//!   `allocator`.
//! - A lease is given back when it is dropped, wherever that is: in a future nobody polls any more, in a panic, or with
//!   the last copy of the bytes that it [holds](Lease::hold). Who leaves while it waits takes nothing along.
//!
//! Reads of events have nothing to do with this: what they removed at the vendor must never wait, nor be turned away.

mod allocator;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

use crate::kernel::names::ClientName;
use crate::kernel::share;
use crate::kernel::sync::lock;
use allocator::{Allocator, LeaseOffer};

/// How much room there is. All in bytes, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For all leases.
    pub all: usize,
    /// For one answer: what it may have, and what it takes if it does not say how long it is. No more than `all`.
    pub answer: usize,
    /// Of an answer that needs no lease.
    pub small: usize,
    /// How many may wait.
    pub waiting: usize,
}

/// Ten answers of the largest size. So many may wait as have, unread and behind HTTP/2's window, half as much again.
impl Default for Bounds {
    fn default() -> Self {
        Self { all: 10 * super::MAX_BODY, answer: super::MAX_BODY, small: 64 << 10, waiting: 256 }
    }
}

/// The room. Cheap to clone. Outlives reloads.
#[derive(Clone, Debug)]
pub(crate) struct AnswerMemory(Arc<MeteredAllocator>);

#[derive(Debug)]
struct MeteredAllocator {
    allocator: Mutex<Allocator<oneshot::Sender<()>>>,
    gauge: Gauge,
}

/// So many wait already, of all or of this client, that one more cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crowded;

/// So many bytes of the room.
#[derive(Debug)]
pub(crate) struct Lease {
    memory: AnswerMemory,
    client: ClientName,
    bytes: usize,
}

impl AnswerMemory {
    /// An empty one, which shows in `gauge` what is taken of it.
    pub(crate) fn new(bounds: Bounds, gauge: Gauge) -> Self {
        Self(Arc::new(MeteredAllocator { allocator: Mutex::new(Allocator::new(bounds)), gauge }))
    }

    /// Other bounds from now on. What is taken stays so.
    pub(crate) fn resize(&self, bounds: Bounds) {
        let told = self.change(|allocator| allocator.resize(bounds));
        tell(told);
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.allocator().bounds()
    }

    /// Waits for so many bytes.
    ///
    /// # Errors
    /// At once, when too many wait.
    pub(super) async fn lease(&self, client: &ClientName, bytes: usize) -> Result<Lease, Crowded> {
        let (teller, told) = oneshot::channel();
        let (asked, others) = self.change(|allocator| allocator.ask(client, bytes, teller));
        let lease = || Lease { memory: self.clone(), client: client.clone(), bytes };
        let waiting = match asked {
            LeaseOffer::Crowded => {
                tell(others);
                return Err(Crowded);
            }
            LeaseOffer::Granted => {
                let lease = lease();
                tell(others);
                return Ok(lease);
            }
            LeaseOffer::Waits(number) => LeaseWait { lease: Some(lease()), number },
        };
        tell(others);
        // Nobody lets go of the other end but who grants it.
        let _ = told.await;
        waiting.granted()
    }

    /// Does this to the book and shows what came of it.
    fn change<T>(&self, change: impl FnOnce(&mut Allocator<oneshot::Sender<()>>) -> T) -> T {
        let mut allocator = self.allocator();
        let done = change(&mut allocator);
        self.0.gauge.set(i64::try_from(allocator.taken()).unwrap_or(i64::MAX));
        done
    }

    fn allocator(&self) -> MutexGuard<'_, Allocator<oneshot::Sender<()>>> {
        // No section panics half-way.
        lock(&self.0.allocator)
    }
}

/// Wakes those whose turn it is. Not under the lock: who left meanwhile gives back as it is told, or before.
fn tell(granted: Vec<oneshot::Sender<()>>) {
    for teller in granted {
        let _ = teller.send(());
    }
}

impl Lease {
    /// Gives back what is beyond so many bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let Some(less) = self.bytes.checked_sub(bytes).filter(|less| *less > 0) else { return };
        self.bytes = bytes;
        let told = self.memory.change(|allocator| allocator.give_back(&self.client, less));
        tell(told);
    }

    /// Whether it has so many bytes, or can have them at once.
    pub(crate) fn reaches(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let (has, told) = self.memory.change(|allocator| allocator.grow(&self.client, more));
        if has {
            self.bytes = bytes;
        }
        tell(told);
        has
    }

    /// So many.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Goes with these bytes from now on, until their last copy goes.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        share::held_for(bytes, self)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// One that waits; or whose turn came, and it does not know yet.
struct LeaseWait {
    /// What it will have.
    lease: Option<Lease>,
    number: u64,
}

impl LeaseWait {
    fn granted(mut self) -> Result<Lease, Crowded> {
        // It is there for as long as this is.
        self.lease.take().ok_or(Crowded)
    }
}

impl Drop for LeaseWait {
    /// Leaves the line. If its turn has come, the lease is dropped as any other.
    fn drop(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        let (waited, told) = lease.memory.change(|allocator| allocator.leave(self.number));
        if waited {
            lease.bytes = 0;
        }
        drop(lease);
        tell(told);
    }
}
