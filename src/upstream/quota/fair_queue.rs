//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) over clients, first come first served within a client.
//!
//! Invariants: each client that waits has one start tag, that of its first in line, and those behind have tags one
//! turn apart; whoever has the smallest is next (of equals, whose client has waited longer without a break). Being
//! served moves a client's tag on by one turn over its weight; leaving moves nothing, so who leaves costs nothing:
//! those behind move up, and the last of the turns goes. A client that comes anew starts at the tag last served: it
//! neither saves up turns while it is away nor waits for what others sent before. Tags are integers of 64 fractional
//! bits in 128: they do not drift, and 2^64 turns do not overflow them. A client that does not wait is forgotten once
//! its tag is past, and all are when nobody waits.
//!
//! With n waiting: push, pop, first, remove and ranks are O(log n), whoever they are of. Going through those who were
//! overtaken is O(k) for k behind the foremost that came, and no more than [`AT_ONCE`] at a time. Only when a client's
//! weight changes while w of it wait, the next push is O(w log n).

use std::collections::hash_map::Entry;

use super::ranked::Ranked;
use crate::kernel::fast_map::FastMap;
use crate::kernel::names::ClientName;

type Tag = u128;

/// Where a turn is in the order of service: its tag, and since when its client waits.
type TurnOrder = (Tag, u64);

/// Who waits, in order.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    clients: FastMap<ClientName, ClientQueue<T>>,
    /// For each client as many turns as wait in its line.
    turns: Ranked<TurnOrder, ClientName>,
    /// From here on somebody came before others, who were not gone through since.
    overtaken: Option<TurnOrder>,
    /// Where going through them goes on. What is overtaken meanwhile waits until it has come to the end, so that who
    /// comes to the front again and again keeps nobody behind from being looked at.
    go_on_at: Option<TurnOrder>,
    /// The tag last served.
    virtual_time: Tag,
    /// Numbers all who ever came.
    arrivals: u64,
    /// With more clients than this, those that can be forgotten are.
    sweep_at: usize,
}

#[derive(Debug)]
struct ClientQueue<T> {
    /// The tag of the first in line; while nobody is, the smallest the next may get.
    start: Tag,
    turn: Tag,
    /// The number of who came when nobody was in line.
    since: u64,
    /// By number of arrival.
    waiting: Ranked<u64, T>,
}

impl<T> ClientQueue<T> {
    /// The turn of who is in this place of its line.
    fn turn_at(&self, place: usize) -> TurnOrder {
        (self.start + self.turn * wide(place), self.since)
    }
}

/// Where somebody stands.
#[derive(Clone, Debug)]
pub(super) struct QueueEntry {
    client: ClientName,
    number: u64,
}

impl QueueEntry {
    /// Its number of arrival: unique in the queue.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        let (clients, turns) = (FastMap::default(), Ranked::new());
        Self { clients, turns, overtaken: None, go_on_at: None, virtual_time: 0, arrivals: 0, sweep_at: SWEEP_AT }
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// How many of a client wait.
    pub(super) fn len_of(&self, client: &ClientName) -> usize {
        self.clients.get(client).map_or(0, |line| line.waiting.len())
    }

    /// Puts `item` at the end of its client's line. The weight given last is the client's.
    pub(super) fn push(&mut self, client: &ClientName, weight: u32, item: T) -> QueueEntry {
        let number = self.arrivals;
        self.arrivals += 1;
        if !self.clients.contains_key(client) {
            let line = ClientQueue { start: self.virtual_time, turn: 0, since: number, waiting: Ranked::new() };
            self.clients.insert(client.clone(), line);
        }
        if let Some(line) = self.clients.get_mut(client) {
            let (places, turn) = (line.waiting.len(), turn(weight));
            if places == 0 {
                (line.start, line.since, line.turn) = (line.start.max(self.virtual_time), number, turn);
            }
            let mut foremost = places;
            if line.turn != turn {
                (1..places).for_each(|place| drop(self.turns.remove(&line.turn_at(place))));
                line.turn = turn;
                (1..places).for_each(|place| self.turns.insert(line.turn_at(place), client.clone()));
                foremost = 0;
            }
            self.turns.insert(line.turn_at(places), client.clone());
            line.waiting.insert(number, item);
            let foremost = line.turn_at(foremost);
            if self.turns.rank(&foremost) + 1 < self.turns.len() {
                self.overtaken = Some(self.overtaken.map_or(foremost, |turn| turn.min(foremost)));
            }
        }
        QueueEntry { client: client.clone(), number }
    }

    /// Who is next, and its number.
    pub(super) fn first(&self) -> Option<(u64, &T)> {
        let client = self.turns.first()?.1;
        self.clients.get(client)?.waiting.first().map(|(number, item)| (*number, item))
    }

    /// Where who is next stands.
    pub(super) fn first_entry(&self) -> Option<QueueEntry> {
        let client = self.turns.first()?.1;
        let number = *self.clients.get(client)?.waiting.first()?.0;
        Some(QueueEntry { client: client.clone(), number })
    }

    /// Serves who is next.
    pub(super) fn pop(&mut self) -> Option<T> {
        let ((start, _), client) = self.turns.pop_first()?;
        self.virtual_time = start;
        let line = self.clients.get_mut(&client)?;
        let (_, item) = line.waiting.pop_first()?;
        line.start = start + line.turn;
        self.forget();
        Some(item)
    }

    /// Takes somebody out who leaves unserved.
    pub(super) fn remove(&mut self, entry: &QueueEntry) -> Option<T> {
        let line = self.clients.get_mut(&entry.client)?;
        let item = line.waiting.remove(&entry.number)?;
        let last = line.turn_at(line.waiting.len());
        self.turns.remove(&last);
        self.forget();
        Some(item)
    }

    /// How many would be served before one more of this client.
    pub(super) fn rank_of_next(&self, client: &ClientName, weight: u32) -> usize {
        match self.clients.get(client) {
            None => self.turns.rank(&(self.virtual_time, self.arrivals)),
            Some(line) if line.waiting.is_empty() => {
                self.turns.rank(&(line.start.max(self.virtual_time), self.arrivals))
            }
            Some(line) => {
                let own = line.waiting.len();
                let behind = turn(weight) * wide(own);
                // Of its own line all are before it, wherever their turns are while the weight is the old one.
                let counted = usize::try_from(behind.div_ceil(line.turn)).unwrap_or(usize::MAX).min(own);
                self.turns.rank(&(line.start + behind, line.since)) - counted + own
            }
        }
    }

    /// How many will be served before somebody who waits, if nobody comes or leaves. `None`: it does not wait.
    pub(super) fn rank(&self, entry: &QueueEntry) -> Option<usize> {
        let line = self.clients.get(&entry.client)?;
        let is_there = line.waiting.contains(&entry.number);
        is_there.then(|| self.turns.rank(&line.turn_at(line.waiting.rank(&entry.number))))
    }

    /// Whether somebody came before others, who were not gone through since.
    pub(super) fn is_overtaken(&self) -> bool {
        self.overtaken.or(self.go_on_at).is_some()
    }

    /// All are to be gone through.
    pub(super) fn doubt_all(&mut self) {
        self.overtaken = self.turns.first().map(|(turn, _)| *turn);
        self.go_on_at = None;
    }

    /// Goes through those who were overtaken in the order in which they would be served, so many at a time, and takes
    /// out those for whom `keep` says no; it is told how many stay before.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T, usize) -> bool) {
        let Some(from) = self.go_on_at.take().or_else(|| self.overtaken.take()) else { return };
        // What is left of each line. By since when they wait, which no two do.
        let mut lines = FastMap::default();
        let (mut rank, mut leave) = (self.turns.rank(&from), Vec::new());
        for (gone_through, (turn, client)) in self.turns.iter_from(&from).enumerate() {
            if gone_through == AT_ONCE {
                self.go_on_at = Some(*turn);
                break;
            }
            let (tag, since) = turn;
            let rest = match lines.entry(*since) {
                Entry::Occupied(rest) => rest.into_mut(),
                Entry::Vacant(none) => {
                    let Some(line) = self.clients.get(client) else { continue };
                    let before = usize::try_from((tag - line.start) / line.turn).unwrap_or(usize::MAX);
                    none.insert(line.waiting.iter_after(before))
                }
            };
            // In the place of who leaves comes the next of its line.
            for (number, item) in rest.by_ref() {
                if keep(item, rank) {
                    rank += 1;
                    break;
                }
                leave.push(QueueEntry { client: client.clone(), number: *number });
            }
        }
        leave.iter().for_each(|entry| drop(self.remove(entry)));
    }

    /// Forgets clients whose past no longer matters.
    fn forget(&mut self) {
        if self.turns.is_empty() {
            self.clients.clear();
            (self.overtaken, self.go_on_at) = (None, None);
            self.virtual_time = 0;
            self.sweep_at = SWEEP_AT;
        } else if self.clients.len() > self.sweep_at {
            let now = self.virtual_time;
            self.clients.retain(|_, line| !line.waiting.is_empty() || line.start > now);
            self.sweep_at = (2 * self.clients.len()).max(SWEEP_AT);
        }
    }
}

fn turn(weight: u32) -> Tag {
    (1 << 64) / Tag::from(weight.max(1))
}

fn wide(count: usize) -> Tag {
    count as Tag
}

const SWEEP_AT: usize = 64;

/// So many turns are gone through at a time: a millisecond's work.
const AT_ONCE: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::collections::HashMap;

    use super::*;

    fn client(name: impl std::fmt::Display) -> ClientName {
        ClientName::parse(&name.to_string()).unwrap()
    }

    fn served(queue: &mut FairQueue<&'static str>, turns: usize) -> HashMap<&'static str, usize> {
        let mut counts = HashMap::new();
        for _ in 0..turns {
            *counts.entry(queue.pop().unwrap()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn weights_share_in_proportion_at_every_moment() {
        let mut queue = FairQueue::new();
        for _ in 0..3000 {
            queue.push(&client("a"), 1, "a");
            queue.push(&client("b"), 3, "b");
            queue.push(&client("c"), 7, "c");
        }
        for _ in 0..300 {
            let counts = served(&mut queue, 11);
            assert!(counts["a"].abs_diff(1) <= 1 && counts["b"].abs_diff(3) <= 1 && counts["c"].abs_diff(7) <= 1);
        }
    }

    #[test]
    fn who_leaves_costs_its_client_nothing() {
        let mut queue = FairQueue::new();
        let entries: Vec<_> = (0..100).map(|_| queue.push(&client("a"), 1, "left")).collect();
        queue.push(&client("a"), 1, "a");
        queue.push(&client("b"), 1, "b");
        for entry in entries {
            assert!(queue.remove(&entry).is_some());
            assert!(queue.remove(&entry).is_none());
        }
        queue.push(&client("b"), 1, "b");
        assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some("a"), Some("b"), Some("b"), None]);
    }

    #[test]
    fn absence_saves_up_no_turns_and_presence_owes_none() {
        let mut queue = FairQueue::new();
        for _ in 0..1000 {
            queue.push(&client("busy"), 1, "busy");
        }
        served(&mut queue, 900);
        for _ in 0..50 {
            queue.push(&client("late"), 1, "late");
        }
        let counts = served(&mut queue, 40);
        assert!(counts["late"].abs_diff(20) <= 1, "{counts:?}");
    }

    #[test]
    fn clients_that_went_are_forgotten() {
        let mut queue = FairQueue::new();
        for _ in 0..100_000 {
            queue.push(&client("stays"), 1, "stays");
        }
        for number in 0..10_000 {
            queue.push(&client(number), 1, "passes");
            served(&mut queue, 2);
        }
        assert!(queue.clients.len() <= 2 * SWEEP_AT, "{}", queue.clients.len());
        while queue.pop().is_some() {}
        assert_eq!((queue.clients.len(), queue.virtual_time), (0, 0));
    }

    #[test]
    fn all_are_gone_through_in_turn_whoever_comes_to_the_front_meanwhile() {
        let mut queue = FairQueue::new();
        for item in 0..3 * AT_ONCE {
            queue.push(&client(item % 7), 1, item);
        }
        queue.doubt_all();
        let (mut seen, mut rounds) = (std::collections::HashSet::new(), 0);
        while seen.len() < 3 * AT_ONCE {
            let mut ranks = Vec::new();
            queue.retain(|item, rank| {
                ranks.push(rank);
                // One in five leaves, and those behind move up.
                seen.insert(*item) && item % 5 != 0
            });
            assert!(ranks.is_sorted() && ranks.len() <= 2 * AT_ONCE, "{}", ranks.len());
            queue.push(&client(format!("new{rounds}")), 1, usize::MAX - rounds);
            rounds += 1;
            assert!(queue.is_overtaken() && rounds < 5);
        }
    }

    #[test]
    fn long_runs_do_not_overflow() {
        let mut queue = FairQueue::new();
        queue.virtual_time = Tag::from(u64::MAX) << 60;
        for _ in 0..10 {
            queue.push(&client("a"), 0, "a");
            queue.push(&client("b"), u32::MAX, "b");
        }
        assert_eq!(served(&mut queue, 11)["b"], 10);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push { client: u8, weight: u32 },
        Pop,
        Remove(prop::sample::Index),
        Retain { every: usize },
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..5u8, 1..4u32).prop_map(|(client, weight)| Op::Push { client, weight }),
            2 => Just(Op::Pop),
            2 => any::<prop::sample::Index>().prop_map(Op::Remove),
            1 => (2..9usize).prop_map(|every| Op::Retain { every }),
        ]
    }

    properties! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn ranks_tell_the_order_of_service_whatever_came_before(ops in prop::collection::vec(any_op(), 1..120)) {
            let mut queue = FairQueue::new();
            let mut inside: Vec<QueueEntry> = Vec::new();
            for (item, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Push { client: c, weight } => {
                        let rank = queue.rank_of_next(&client(c), weight);
                        let entry = queue.push(&client(c), weight, item);
                        prop_assert_eq!(queue.rank(&entry), Some(rank));
                        inside.push(entry);
                    }
                    Op::Pop => {
                        queue.pop();
                    }
                    Op::Remove(index) if !inside.is_empty() => {
                        queue.remove(index.get(&inside));
                    }
                    Op::Remove(_) => {}
                    Op::Retain { every } => {
                        let mut ranks = Vec::new();
                        queue.retain(|item, rank| { ranks.push(rank); item % every != 0 });
                        prop_assert!(ranks.is_sorted());
                    }
                }
                inside.retain(|entry| queue.rank(entry).is_some());
                prop_assert_eq!(inside.len(), queue.len());
                prop_assert_eq!(queue.first().map(|(number, _)| number), queue.first_entry().map(|e| e.number()));
            }
            let mut order: Vec<_> = inside.iter().map(|entry| (queue.rank(entry).unwrap(), entry.number())).collect();
            order.sort_unstable();
            for (at, (rank, number)) in order.into_iter().enumerate() {
                prop_assert_eq!(rank, at);
                prop_assert_eq!(queue.first().unwrap().0, number);
                queue.pop();
            }
            prop_assert!(queue.is_empty());
        }
    }
}
