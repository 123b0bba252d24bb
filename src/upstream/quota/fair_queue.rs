//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) over clients, first come first served within a client.
//!
//! Invariants: each client that waits has one start tag, that of its first in line; whoever has the smallest is next
//! (of equals, who came first). Being served moves a client's tag on by one turn over its weight; leaving moves
//! nothing, so who leaves costs nothing. A client that comes anew starts at the tag last served: it neither saves up
//! turns while it is away nor waits for what others sent before. Tags are integers of 64 fractional bits in 128: they
//! do not drift, and 2^64 turns do not overflow them. A client that does not wait is forgotten once its tag is past,
//! and all are when nobody waits.
//!
//! With c clients and n waiting: push, pop and first are O(log c), remove O(log n) and a short move, rank O(c).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::kernel::fast_map::FastMap;
use crate::kernel::names::ClientName;

type Tag = u128;

/// Who waits, in order.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    clients: FastMap<ClientName, ClientQueue<T>>,
    /// The clients that wait, by the tag and number of their first in line.
    order: BTreeMap<(Tag, u64), ClientName>,
    /// The tag last served.
    virtual_time: Tag,
    /// Numbers all who ever came.
    arrivals: u64,
    len: usize,
    /// With more clients than this, those that can be forgotten are.
    sweep_at: usize,
}

#[derive(Debug)]
struct ClientQueue<T> {
    /// The tag of the first in line; while nobody is, the smallest the next may get.
    start: Tag,
    turn: Tag,
    /// By number of arrival.
    waiting: VecDeque<(u64, T)>,
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
        Self {
            clients: FastMap::default(),
            order: BTreeMap::new(),
            virtual_time: 0,
            arrivals: 0,
            len: 0,
            sweep_at: SWEEP_AT,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of a client wait.
    pub(super) fn len_of(&self, client: &ClientName) -> usize {
        self.clients.get(client).map_or(0, |line| line.waiting.len())
    }

    /// Puts `item` at the end of its client's line. The weight given last is the client's.
    pub(super) fn push(&mut self, client: &ClientName, weight: u32, item: T) -> QueueEntry {
        let number = self.arrivals;
        self.arrivals += 1;
        self.len += 1;
        if !self.clients.contains_key(client) {
            let line = ClientQueue { start: self.virtual_time, turn: 0, waiting: VecDeque::new() };
            self.clients.insert(client.clone(), line);
        }
        if let Some(line) = self.clients.get_mut(client) {
            line.turn = turn(weight);
            if line.waiting.is_empty() {
                line.start = line.start.max(self.virtual_time);
                self.order.insert((line.start, number), client.clone());
            }
            line.waiting.push_back((number, item));
        }
        QueueEntry { client: client.clone(), number }
    }

    /// Who is next, and its number.
    pub(super) fn first(&self) -> Option<(u64, &T)> {
        let client = self.order.first_key_value()?.1;
        self.clients.get(client)?.waiting.front().map(|(number, item)| (*number, item))
    }

    /// Where who is next stands.
    pub(super) fn first_entry(&self) -> Option<QueueEntry> {
        let ((_, number), client) = self.order.first_key_value()?;
        Some(QueueEntry { client: client.clone(), number: *number })
    }

    /// Serves who is next.
    pub(super) fn pop(&mut self) -> Option<T> {
        let ((start, _), client) = self.order.pop_first()?;
        self.virtual_time = start;
        let line = self.clients.get_mut(&client)?;
        let (_, item) = line.waiting.pop_front()?;
        line.start = start + line.turn;
        if let Some((number, _)) = line.waiting.front() {
            self.order.insert((line.start, *number), client);
        }
        self.len -= 1;
        self.forget();
        Some(item)
    }

    /// Takes somebody out who leaves unserved.
    pub(super) fn remove(&mut self, entry: &QueueEntry) -> Option<T> {
        let line = self.clients.get_mut(&entry.client)?;
        let at = line.waiting.binary_search_by_key(&entry.number, |(number, _)| *number).ok()?;
        let (_, item) = line.waiting.remove(at)?;
        if at == 0 {
            self.order.remove(&(line.start, entry.number));
            if let Some((number, _)) = line.waiting.front() {
                self.order.insert((line.start, *number), entry.client.clone());
            }
        }
        self.len -= 1;
        self.forget();
        Some(item)
    }

    /// How many would be served before one more of this client.
    pub(super) fn rank_of_next(&self, client: &ClientName, weight: u32) -> usize {
        let (start, own) = match self.clients.get(client) {
            None => (self.virtual_time, 0),
            Some(line) if line.waiting.is_empty() => (line.start.max(self.virtual_time), 0),
            Some(line) => (line.start, line.waiting.len()),
        };
        own + self.others_before(client, start + turn(weight) * wide(own), u64::MAX)
    }

    /// How many will be served before somebody who waits, if nobody comes or leaves. `None`: it does not wait.
    pub(super) fn rank(&self, entry: &QueueEntry) -> Option<usize> {
        let line = self.clients.get(&entry.client)?;
        let own = line.waiting.binary_search_by_key(&entry.number, |(number, _)| *number).ok()?;
        Some(own + self.others_before(&entry.client, line.start + line.turn * wide(own), entry.number))
    }

    /// How many of other clients come before `(tag, number)`.
    fn others_before(&self, client: &ClientName, tag: Tag, number: u64) -> usize {
        let ahead = self.order.range(..(tag, number)).filter(|(_, other)| *other != client);
        ahead.filter_map(|((start, _), other)| Some((tag - start, self.clients.get(other)?))).fold(
            0,
            |sum, (distance, line)| {
                let whole = usize::try_from(distance / line.turn).unwrap_or(usize::MAX);
                let tied = distance.is_multiple_of(line.turn);
                // The one at the same tag is before if it came before.
                let before = match line.waiting.get(whole) {
                    Some((other, _)) => whole + usize::from(!tied || *other < number),
                    None => line.waiting.len(),
                };
                sum + before
            },
        )
    }

    /// Goes through all in the order in which they would be served and takes out those for whom `keep` says no; it is
    /// told how many stay before.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T, usize) -> bool) {
        let mut heads: BinaryHeap<_> = std::mem::take(&mut self.order).into_iter().map(Reverse).collect();
        let mut kept: FastMap<ClientName, VecDeque<(u64, T)>> = FastMap::default();
        let mut rank = 0;
        while let Some(Reverse(((tag, _), client))) = heads.pop() {
            let Some(line) = self.clients.get_mut(&client) else { continue };
            let Some((number, item)) = line.waiting.pop_front() else { continue };
            let stays = keep(&item, rank);
            if let Some((next, _)) = line.waiting.front() {
                let tag = if stays { tag + line.turn } else { tag };
                heads.push(Reverse(((tag, *next), client.clone())));
            }
            if stays {
                rank += 1;
                kept.entry(client).or_default().push_back((number, item));
            }
        }
        self.len = rank;
        for (client, waiting) in kept {
            let Some(line) = self.clients.get_mut(&client) else { continue };
            if let Some((number, _)) = waiting.front() {
                self.order.insert((line.start, *number), client);
            }
            line.waiting = waiting;
        }
        self.forget();
    }

    /// Forgets clients whose past no longer matters.
    fn forget(&mut self) {
        if self.len == 0 {
            self.clients.clear();
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
