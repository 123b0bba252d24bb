//! [`PlaceTable`]: who has one, in which order they would be asked to go.
//!
//! Invariants: a connection that has a place is in exactly one of three: the strangers, its client's idle ones, or
//! those with a request in hand. Each step costs the logarithm of their number. Turns only grow, so that the first of
//! an order is the longest idle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{A_MOMENT, Evicted, KEPT, NoPlace, STRANGERS, Signal, most_leaving};
use crate::kernel::fast_map::FastMap;
use crate::kernel::metrics::{EvictedLabels, from_the_start};
use crate::kernel::share;

/// A connection's name, never used again.
pub(super) type Id = u64;
/// By listener, then by when a connection was last anything but idle.
type Order = BTreeMap<(usize, u64), Id>;

#[derive(Debug)]
pub(super) struct PlaceTable {
    places: usize,
    /// Places that each listener keeps for itself.
    kept: usize,
    /// Places taken through each listener.
    doors: Vec<usize>,
    /// Connections that were asked to go and are still there.
    leaving: usize,
    /// Connections with an admitted request in hand.
    in_hand: usize,
    turns: u64,
    held: FastMap<Id, Slot>,
    strangers: Order,
    clients: BTreeMap<Arc<str>, Client>,
    /// Clients with idle connections, by how many they have in all.
    by_size: BTreeSet<(usize, Arc<str>)>,
    evicted: Evicted,
}

#[derive(Debug)]
struct Slot {
    door: usize,
    turn: u64,
    since: Instant,
    state: Occupancy,
    signal: Arc<Signal>,
}

#[derive(Clone, Debug)]
enum Occupancy {
    Stranger,
    /// Of this client, with so many requests in hand.
    Known(Arc<str>, usize),
    Leaving,
}

#[derive(Debug, Default)]
struct Client {
    held: usize,
    in_hand: usize,
    idle: Order,
}

/// Who was asked to go, as the metric has it.
const STRANGER: &str = "stranger";
const CLIENT: &str = "client";

impl PlaceTable {
    pub(super) fn new(places: usize, doors: usize, evicted: Evicted) -> Self {
        from_the_start(&evicted, [STRANGER, CLIENT].map(|who| EvictedLabels { who: who.to_owned() }));
        // At least one place is everybody's.
        let kept = if doors > 1 && places > doors { (places / KEPT / doors).max(1) } else { 0 };
        Self {
            places,
            kept,
            doors: vec![0; doors],
            leaving: 0,
            in_hand: 0,
            turns: 0,
            held: FastMap::default(),
            strangers: Order::new(),
            clients: BTreeMap::new(),
            by_size: BTreeSet::new(),
            evicted,
        }
    }

    /// A place for a newcomer, and whether another has to go for it. `None`: none can be asked to.
    pub(super) fn enter(&mut self, door: usize) -> Option<(Id, Arc<Signal>, bool)> {
        let is_anothers = self.make_room(door)?;
        self.doors[door] += 1;
        // No turn is given twice, so that it can name the connection, too.
        let id = self.turn();
        let signal = Arc::new(Signal::default());
        let held = Slot { door, turn: id, since: Instant::now(), state: Occupancy::Stranger, signal: signal.clone() };
        self.strangers.insert((door, id), id);
        self.held.insert(id, held);
        Some((id, signal, is_anothers))
    }

    /// The connection is gone.
    pub(super) fn leave(&mut self, id: Id) {
        self.detach(id);
        if let Some(held) = self.held.remove(&id) {
            match held.state {
                Occupancy::Leaving => self.leaving -= 1,
                Occupancy::Stranger | Occupancy::Known(..) => self.doors[held.door] -= 1,
            }
        }
    }

    /// A stranger has asked for something.
    pub(super) fn renew(&mut self, id: Id) {
        let turn = self.turn();
        if let Some(held) = self.held.get_mut(&id)
            && matches!(held.state, Occupancy::Stranger)
        {
            self.strangers.remove(&(held.door, held.turn));
            (held.turn, held.since) = (turn, Instant::now());
            self.strangers.insert((held.door, turn), id);
        }
    }

    /// An admitted request of this client is in hand. Who was asked to go meanwhile gets a place again.
    pub(super) fn occupy(&mut self, id: Id, client: &str) -> Result<(), NoPlace> {
        // A connection that is gone has nothing to occupy.
        let Some(held) = self.held.get(&id) else { return Ok(()) };
        let (door, is_leaving) = (held.door, matches!(held.state, Occupancy::Leaving));
        let requests = match &held.state {
            Occupancy::Known(of, requests @ 1..) if **of == *client => {
                let requests = requests + 1;
                return self.set_requests(id, requests);
            }
            Occupancy::Known(_, requests) => *requests,
            Occupancy::Stranger | Occupancy::Leaving => 0,
        };
        // One that has a request in hand counts already: another of the same client on it takes no further place.
        if requests == 0 {
            self.share_of(client)?;
        }
        if is_leaving {
            // It is on its way out no more: who goes for it may take its turn there.
            self.leaving -= 1;
            if self.make_room(door).is_none() {
                self.leaving += 1;
                return Err(NoPlace);
            }
            self.doors[door] += 1;
        }
        if let Some(Slot { door, turn, state: Occupancy::Known(of, requests @ 0), .. }) = self.held.get_mut(&id)
            && **of == *client
        {
            // As most do: idle until now, and the same client's again.
            let (place, name) = ((*door, *turn), of.clone());
            *requests = 1;
            self.change(&name, |client| {
                client.idle.remove(&place);
                client.in_hand += 1;
            });
            self.in_hand += 1;
            return Ok(());
        }
        self.detach(id);
        let name: Arc<str> = match self.clients.get_key_value(client) {
            Some((name, _)) => name.clone(),
            None => client.into(),
        };
        self.change(&name, |client| {
            client.held += 1;
            client.in_hand += 1;
        });
        self.in_hand += 1;
        if let Some(held) = self.held.get_mut(&id) {
            held.state = Occupancy::Known(name, requests + 1);
            held.signal.known.store(true, Ordering::Release);
            held.signal.go.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Whether the client may have one connection more with a request in hand.
    pub(super) fn share_of(&self, client: &str) -> Result<(), NoPlace> {
        let of_client = self.clients.get(client).map_or(0, |client| client.in_hand);
        if share::may_take(1, of_client, self.in_hand, self.places) { Ok(()) } else { Err(NoPlace) }
    }

    /// A request is no longer in hand. Says whether it was the connection's last.
    pub(super) fn release(&mut self, id: Id) -> bool {
        let Some(Slot { state: Occupancy::Known(client, requests), .. }) = self.held.get(&id) else { return false };
        let (client, requests) = (client.clone(), requests.saturating_sub(1));
        if requests > 0 {
            let _ = self.set_requests(id, requests);
            return false;
        }
        let turn = self.turn();
        let Some(held) = self.held.get_mut(&id) else { return false };
        (held.turn, held.since, held.state) = (turn, Instant::now(), Occupancy::Known(client.clone(), 0));
        let place = (held.door, turn);
        self.in_hand -= 1;
        self.change(&client, |client| {
            client.in_hand -= 1;
            client.idle.insert(place, id);
        });
        true
    }

    pub(super) fn is_occupied(&self, id: Id) -> bool {
        self.held.get(&id).is_some_and(|held| matches!(held.state, Occupancy::Known(_, 1..)))
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.taken() * 2 > self.places
    }

    /// Asks strangers to go that have been idle for so long, as long as places are scarce.
    pub(super) fn send_away(&mut self, idle_for: Duration) {
        while self.is_crowded() && self.leaving < most_leaving(self.places) {
            let Some(id) = self.longest_idle_stranger(|_| true) else { return };
            if self.held.get(&id).is_none_or(|held| held.since.elapsed() < idle_for) {
                return;
            }
            self.evict(id);
        }
    }

    fn taken(&self) -> usize {
        self.doors.iter().sum()
    }

    /// Sees to it that there is a place for one who comes through this door. Says whether another has to go for it.
    fn make_room(&mut self, door: usize) -> Option<bool> {
        let of_all = self.places - self.kept * self.doors.len();
        let taken_of_all: usize = self.doors.iter().map(|taken| taken.saturating_sub(self.kept)).sum();
        if self.doors[door] < self.kept || taken_of_all < of_all {
            return Some(false);
        }
        if self.leaving >= most_leaving(self.places) {
            return None;
        }
        let id = self.next_to_go(door)?;
        self.evict(id);
        Some(true)
    }

    /// Who is to go for one who comes through this door.
    fn next_to_go(&self, door: usize) -> Option<Id> {
        // Another listener's own places stay its own.
        let may_go = |other: usize| other == door || self.doors[other] > self.kept;
        let stranger = self.longest_idle_stranger(may_go);
        let has_just_come = |id: &Id| self.held.get(id).is_some_and(|held| held.since.elapsed() < A_MOMENT);
        if let Some(id) = stranger.filter(|id| !has_just_come(id) || self.strangers.len() >= self.strangers_share()) {
            return Some(id);
        }
        let known = self.by_size.iter().rev().find_map(|(_, name)| {
            let client = self.clients.get(name)?;
            first(&client.idle, self.doors.len(), may_go)
        });
        known.or(stranger)
    }

    fn strangers_share(&self) -> usize {
        (self.places / STRANGERS).max(1)
    }

    fn longest_idle_stranger(&self, may_go: impl Fn(usize) -> bool) -> Option<Id> {
        first(&self.strangers, self.doors.len(), may_go)
    }

    fn evict(&mut self, id: Id) {
        self.detach(id);
        let Some(held) = self.held.get_mut(&id) else { return };
        let who = if matches!(held.state, Occupancy::Stranger) { STRANGER } else { CLIENT };
        held.state = Occupancy::Leaving;
        held.signal.go.store(true, Ordering::Release);
        held.signal.waker.wake();
        self.doors[held.door] -= 1;
        self.leaving += 1;
        self.evicted.get_or_create(&EvictedLabels { who: who.to_owned() }).inc();
    }

    /// Takes it out of every order and count but that of its listener.
    fn detach(&mut self, id: Id) {
        let Some(held) = self.held.get(&id) else { return };
        let place = (held.door, held.turn);
        match held.state.clone() {
            Occupancy::Stranger => {
                self.strangers.remove(&place);
            }
            Occupancy::Known(client, requests) => {
                let is_in_hand = requests > 0;
                self.in_hand -= usize::from(is_in_hand);
                self.change(&client, |client| {
                    client.held -= 1;
                    client.in_hand -= usize::from(is_in_hand);
                    client.idle.remove(&place);
                });
            }
            Occupancy::Leaving => {}
        }
    }

    /// Changes what is known of a client, and its rank with it.
    fn change(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Client)) {
        let client = self.clients.entry(name.clone()).or_default();
        let size = |client: &Client| (!client.idle.is_empty()).then_some(client.held);
        let before = size(client);
        change(client);
        let (after, held) = (size(client), client.held);
        // Between two requests of many it does not change.
        if before != after {
            before.map(|held| self.by_size.remove(&(held, name.clone())));
            after.map(|held| self.by_size.insert((held, name.clone())));
        }
        if held == 0 {
            self.clients.remove(name);
        }
    }

    fn set_requests(&mut self, id: Id, requests: usize) -> Result<(), NoPlace> {
        if let Some(Slot { state: Occupancy::Known(_, of), .. }) = self.held.get_mut(&id) {
            *of = requests;
        }
        Ok(())
    }

    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }
}

/// The longest idle of those behind doors that may be asked.
fn first(order: &Order, doors: usize, may_go: impl Fn(usize) -> bool) -> Option<Id> {
    let of = |door: usize| order.range((door, 0)..=(door, u64::MAX)).next();
    (0..doors).filter(|door| may_go(*door)).filter_map(of).min_by_key(|((_, turn), _)| *turn).map(|(_, id)| *id)
}

#[cfg(test)]
impl PlaceTable {
    /// Whether it says what is so, and says it in all its places.
    pub(super) fn check(&self, open: usize, leaving: usize, in_hand: usize) {
        assert_eq!((self.held.len(), self.leaving, self.in_hand), (open, leaving, in_hand));
        assert_eq!(self.taken(), open - leaving);
        let idle: usize = self.clients.values().map(|client| client.idle.len()).sum();
        assert_eq!(self.strangers.len() + idle + in_hand, open - leaving);
        assert_eq!(self.clients.values().map(|client| client.in_hand).sum::<usize>(), in_hand);
        let ranked = self.clients.iter().filter(|(_, client)| !client.idle.is_empty());
        assert_eq!(ranked.map(|(name, client)| (client.held, name.clone())).collect::<BTreeSet<_>>(), self.by_size);
        assert!(self.clients.values().all(|client| client.held > 0));
    }
}
