//! Who has a place among the connections, and who goes when a newcomer needs one.
//!
//! Invariants:
//! - There are so many places and no more. A connection that was asked to go has given its place up; those that are
//!   still on their way out are bounded, too ([`most_leaving`]).
//! - Whoever comes gets a place at once where any connection can be asked to go. It waits only where every one of them
//!   has an admitted request in hand, or too many are on their way out.
//! - A connection that never had an admitted request is a stranger, whatever it speaks. Strangers go first, the longest
//!   idle of them; but while they have less than their share ([`STRANGERS`]) one that came a moment ago ([`A_MOMENT`])
//!   stays, for every known caller begins as one. Then idle connections of the client that has most, the longest idle
//!   first. A connection with an admitted request in hand is never asked.
//! - A connection counts for its last admitted client: a balancer's carries many.
//! - No client has all places in hand, see [`crate::kernel::share`]. Each listener has some that no other can take
//!   ([`KEPT`]).

mod place_table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::Notify;

use self::place_table::{Id, PlaceTable};
use crate::kernel::metrics::EvictedLabels;
use crate::kernel::sync::lock;

/// Strangers have this part of the places before those that just came are asked to go, too.
const STRANGERS: usize = 4;
/// How long a stranger has to show who it is while strangers have less than their share.
const A_MOMENT: Duration = Duration::from_secs(1);
/// With several listeners this part of the places is shared out among them, each part kept for one alone.
const KEPT: usize = 4;
/// The most connections on their way out, whatever the number of places.
const MAX_LEAVING: usize = 64;

/// How many connections may be on their way out beside `places` that have one.
#[must_use]
pub fn most_leaving(places: usize) -> usize {
    (places / 8).clamp(1, MAX_LEAVING)
}

/// Who was asked to go.
pub type Evicted = Family<EvictedLabels, Counter>;

/// One listener's way to the places. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Door {
    places: Arc<Places>,
    number: usize,
}

#[derive(Debug)]
struct Places {
    table: Mutex<PlaceTable>,
    /// A place is free, or a connection can be asked to go.
    changed: Notify,
}

impl Places {
    fn new(places: usize, doors: usize, evicted: Evicted) -> Self {
        Self { table: Mutex::new(PlaceTable::new(places, doors, evicted)), changed: Notify::new() }
    }

    fn table(&self) -> MutexGuard<'_, PlaceTable> {
        // No section panics half-way.
        lock(&self.table)
    }
}

impl Door {
    /// So many places behind so many doors.
    #[must_use]
    pub fn open(places: usize, doors: usize, evicted: Evicted) -> Vec<Self> {
        let places = Arc::new(Places::new(places, doors, evicted));
        (0..doors).map(|number| Self { places: places.clone(), number }).collect()
    }

    /// So many places behind one door; nobody counts who was asked to go.
    #[must_use]
    pub fn alone(places: usize) -> Self {
        Self { places: Arc::new(Places::new(places, 1, Evicted::default())), number: 0 }
    }

    /// A place for a newcomer: a free one, or that of a connection that is asked to go; where none can be asked, the
    /// next that becomes free.
    pub async fn enter(&self) -> Place {
        loop {
            let mut changed = std::pin::pin!(self.places.changed.notified());
            changed.as_mut().enable();
            let entered = self.places.table().enter(self.number);
            if let Some((id, signal, is_anothers)) = entered {
                return Place { seat: Seat { places: self.places.clone(), id, signal }, is_anothers };
            }
            changed.await;
        }
    }

    /// Whether more than half of the places are taken.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.places.table().is_crowded()
    }

    /// While places are scarce strangers have a short life: those that have been idle for so long are asked to go.
    pub fn send_away(&self, idle_for: Duration) {
        self.places.table().send_away(idle_for);
    }
}

/// A connection's place, for as long as it is open.
#[derive(Debug)]
pub struct Place {
    seat: Seat,
    is_anothers: bool,
}

impl Place {
    /// What its requests know of it.
    #[must_use]
    pub fn seat(&self) -> Seat {
        self.seat.clone()
    }

    /// Whether another connection had to go for it.
    #[must_use]
    pub fn is_anothers(&self) -> bool {
        self.is_anothers
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seat.places.table().leave(self.seat.id);
        self.seat.places.changed.notify_waiters();
    }
}

/// What a connection and its requests know of its place. Cheap to clone; means nothing once the place is given up.
#[derive(Clone, Debug)]
pub struct Seat {
    places: Arc<Places>,
    id: Id,
    signal: Arc<Signal>,
}

/// What the table tells a connection.
#[derive(Debug, Default)]
struct Signal {
    /// Its place was given to another.
    go: AtomicBool,
    /// It has had an admitted request.
    known: AtomicBool,
    waker: AtomicWaker,
}

/// So many connections have a request in hand that there is no place for one more of this client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlace;

impl Seat {
    /// A request came. Of a stranger that is all there is to tell the idle from the others by; what drips is idle.
    pub fn asked(&self) {
        if !self.is_known() {
            self.places.table().renew(self.id);
        }
    }

    /// An admitted request of this client is in hand, until what is given is dropped.
    ///
    /// # Errors
    /// When it has its share of the places in hand already.
    pub fn occupy(&self, client: &str) -> Result<SeatGuard, NoPlace> {
        self.places.table().occupy(self.id, client)?;
        Ok(SeatGuard(self.clone()))
    }

    /// Whether it ever had an admitted request.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.signal.known.load(Ordering::Acquire)
    }

    /// Whether an admitted request is in hand.
    #[must_use]
    pub fn is_occupied(&self) -> bool {
        self.places.table().is_occupied(self.id)
    }

    /// Ready when its place was given to another. It may be given one again: [`Seat::occupy`].
    pub fn poll_asked_to_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.signal.waker.register(cx.waker());
        if self.signal.go.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A connection has an admitted request in hand for as long as there is one of these.
#[derive(Debug)]
pub struct SeatGuard(Seat);

impl Drop for SeatGuard {
    fn drop(&mut self) {
        let is_idle = self.0.places.table().release(self.0.id);
        if is_idle {
            self.0.places.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
