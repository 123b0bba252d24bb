//! The [`Allocator`]: who holds how much of the room, who waits, and whose turn it is.
//!
//! Invariants:
//! - What is taken is the sum of what clients hold. Nothing is given beyond the bounds, nor beyond a client's share
//!   ([`share`]); with the share's tenth left free, who holds nothing finds some.
//! - Of those who wait whose client holds least goes first; of equals, who came first. So a client that holds nothing
//!   waits behind those alone that came before it.
//! - Where the first finds no room, one behind it that does may pass; but all that pass one together take no more than
//!   it wants itself. Then what is given back is kept for it. So the small ones go on beside the large, and none
//!   starves it.
//! - Whoever can go does: after every change nobody waits who could be served by these rules.
//!
//! So few wait that they are looked at one by one.

use super::Bounds;
use crate::kernel::names::ClientName;
use crate::kernel::share::{self, Holdings};

/// `T` is how one who waits is told.
#[derive(Debug)]
pub(super) struct Allocator<T> {
    bounds: Bounds,
    held: Holdings,
    /// In the order in which they came.
    waiting: Vec<LeaseWaiter<T>>,
    /// Numbers all who ever waited.
    arrivals: u64,
}

#[derive(Debug)]
struct LeaseWaiter<T> {
    number: u64,
    client: ClientName,
    wants: usize,
    /// What those took who passed it.
    passed: usize,
    teller: T,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseOffer {
    Granted,
    Waits(u64),
    Crowded,
}

impl<T> Allocator<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, held: Holdings::default(), waiting: Vec::new(), arrivals: 0 }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(super) fn taken(&self) -> usize {
        self.held.taken()
    }

    /// Other bounds. Says who is to be told.
    #[must_use]
    pub(super) fn resize(&mut self, bounds: Bounds) -> Vec<T> {
        self.bounds = bounds;
        self.serve()
    }

    /// One comes and wants so much. Says who is to be told that it was granted; that is never the one that came.
    #[must_use]
    pub(super) fn ask(&mut self, client: &ClientName, wants: usize, teller: T) -> (LeaseOffer, Vec<T>) {
        let number = self.arrivals;
        self.arrivals += 1;
        let of_client = self.waiting.iter().filter(|waiter| waiter.client == *client).count();
        let may_wait = share::may_take(1, of_client, self.waiting.len(), self.bounds.waiting);
        self.waiting.push(LeaseWaiter { number, client: client.clone(), wants, passed: 0, teller });
        // Nobody else could go before, and one more in the line lets nobody go sooner.
        if self.next().is_some_and(|at| self.waiting[at].number == number) {
            let _ = self.grant(self.waiting.len() - 1);
            return (LeaseOffer::Granted, self.serve());
        }
        if may_wait && wants <= self.bounds.all {
            return (LeaseOffer::Waits(number), self.serve());
        }
        let (_, told) = self.leave(number);
        (LeaseOffer::Crowded, told)
    }

    /// One does not wait any more. Says whether it did, and who is to be told.
    #[must_use]
    pub(super) fn leave(&mut self, number: u64) -> (bool, Vec<T>) {
        let Some(at) = self.waiting.iter().position(|waiter| waiter.number == number) else {
            return (false, Vec::new());
        };
        self.waiting.remove(at);
        (true, self.serve())
    }

    /// A client gives so much back. Says who is to be told.
    #[must_use]
    pub(super) fn give_back(&mut self, client: &ClientName, bytes: usize) -> Vec<T> {
        self.held.give_back(client, bytes);
        self.serve()
    }

    /// Whether a client may take so much more at once, for what it holds already; and who is to be told: it comes
    /// behind others now, who may find the room that was not enough for it.
    #[must_use]
    pub(super) fn grow(&mut self, client: &ClientName, more: usize) -> (bool, Vec<T>) {
        if self.taken().checked_add(more).is_none_or(|taken| taken > self.bounds.all) {
            return (false, Vec::new());
        }
        self.held.take(client, more);
        (true, self.serve())
    }

    /// Grants what can be, in turn.
    fn serve(&mut self) -> Vec<T> {
        let mut told = Vec::new();
        while let Some(at) = self.next() {
            told.push(self.grant(at));
        }
        told
    }

    fn grant(&mut self, at: usize) -> T {
        let waiter = self.waiting.remove(at);
        let held = &self.held;
        let place = (held.of(&waiter.client), waiter.number);
        let before = |other: &LeaseWaiter<T>| (held.of(&other.client), other.number) < place;
        for other in self.waiting.iter_mut().filter(|other| before(other)) {
            other.passed += waiter.wants;
        }
        self.held.take(&waiter.client, waiter.wants);
        waiter.teller
    }

    /// Whose turn it is, if anybody can go.
    fn next(&self) -> Option<usize> {
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        // Stable: of equals, who came first.
        order.sort_by_key(|at| self.held.of(&self.waiting[*at].client));
        let mut may_pass = usize::MAX;
        for at in order {
            let waiter = &self.waiting[at];
            if waiter.wants <= may_pass && self.held.may_take(&waiter.client, waiter.wants, self.bounds.all) {
                return Some(at);
            }
            may_pass = may_pass.min(waiter.wants.saturating_sub(waiter.passed));
        }
        None
    }
}

#[cfg(test)]
impl<T> Allocator<T> {
    /// What clients hold, by name.
    pub(super) fn holders(&self) -> Vec<(ClientName, usize)> {
        let mut all: Vec<_> = self.held.iter().map(|(name, held)| (name.clone(), held)).collect();
        all.sort();
        all
    }

    /// Who waits: number, client, what it wants, what passed it; in their order.
    pub(super) fn line(&self) -> Vec<(u64, ClientName, usize, usize)> {
        let of = |w: &LeaseWaiter<T>| (w.number, w.client.clone(), w.wants, w.passed);
        self.waiting.iter().map(of).collect()
    }
}
