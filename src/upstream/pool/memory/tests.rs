//! The room against a model that keeps the books of everybody by itself, and in the ways in which leases get lost.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::kernel::share;
use crate::kernel::task::{Kind, Tasks};

const BOUNDS: Bounds = Bounds { all: 160, answer: 16, small: 1, waiting: 12 };
const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];

fn name(client: usize) -> ClientName {
    ClientName::parse(CLIENTS[client]).unwrap()
}

fn memory() -> AnswerMemory {
    AnswerMemory::new(BOUNDS, Gauge::default())
}

/// What is taken, by all accounts.
fn taken(memory: &AnswerMemory) -> usize {
    let allocator = memory.allocator();
    let by_clients: usize = allocator.holders().iter().map(|(_, held)| held).sum();
    assert_eq!(by_clients, allocator.taken());
    assert_eq!(memory.0.gauge.get(), i64::try_from(by_clients).unwrap());
    by_clients
}

type Asking = Pin<Box<dyn Future<Output = Result<Lease, Crowded>>>>;

fn ask(memory: &AnswerMemory, client: usize, bytes: usize) -> Asking {
    let (memory, client) = (memory.clone(), name(client));
    Box::pin(async move { memory.lease(&client, bytes).await })
}

fn poll(asking: &mut Asking) -> Poll<Result<Lease, Crowded>> {
    asking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn now(memory: &AnswerMemory, client: usize, bytes: usize) -> Lease {
    ask(memory, client, bytes).now_or_never().expect("room").unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Ask {
        client: usize,
        bytes: usize,
    },
    /// One who waits looks whether it is its turn.
    Look(usize),
    /// One who waits leaves; its turn may have come.
    Leave(usize),
    Shrink {
        at: usize,
        to: usize,
    },
    Reach {
        at: usize,
        to: usize,
    },
    Drop(usize),
    /// Bytes go with it from now on.
    Hold(usize),
    Copy(usize),
    Forget(usize),
    /// Its holder panics.
    Panic(usize),
    Resize(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any = 0usize..1000;
    let step = prop_oneof![
        8 => (0..CLIENTS.len(), 1usize..=16).prop_map(|(client, bytes)| Step::Ask { client, bytes }),
        4 => any.clone().prop_map(Step::Look),
        2 => any.clone().prop_map(Step::Leave),
        1 => (any.clone(), 0usize..=16).prop_map(|(at, to)| Step::Shrink { at, to }),
        1 => (any.clone(), 0usize..=24).prop_map(|(at, to)| Step::Reach { at, to }),
        4 => any.clone().prop_map(Step::Drop),
        1 => any.clone().prop_map(Step::Hold),
        1 => any.clone().prop_map(Step::Copy),
        2 => any.clone().prop_map(Step::Forget),
        1 => any.clone().prop_map(Step::Panic),
        1 => (60usize..=160).prop_map(Step::Resize),
    ];
    prop::collection::vec(step, 0..300)
}

/// Who waits, as the room was asked, and who holds what.
#[derive(Default)]
struct Model {
    asking: Vec<(u64, usize, usize, Asking)>,
    leases: Vec<Lease>,
    bytes: Vec<Bytes>,
    all: usize,
    crowded: usize,
}

impl Model {
    /// What everybody holds is what the room says is taken, and whoever could go by the rules has gone.
    fn check(&self, memory: &AnswerMemory, before: &[(u64, ClientName, usize, usize)]) {
        let line = memory.allocator().line();
        let waits = |number: u64| line.iter().any(|(other, ..)| *other == number);
        let mut held: BTreeMap<ClientName, usize> = BTreeMap::new();
        for lease in &self.leases {
            *held.entry(lease.client.clone()).or_default() += lease.bytes();
        }
        // Of those who ask still: they have it, and do not know it.
        for (_, client, bytes, _) in self.asking.iter().filter(|(number, ..)| !waits(*number)) {
            *held.entry(name(*client)).or_default() += bytes;
        }
        let mut by_room: BTreeMap<_, _> = memory.allocator().holders().into_iter().collect();
        let in_bytes: usize = self.bytes_held();
        held.retain(|_, bytes| *bytes > 0);
        if in_bytes == 0 {
            assert_eq!(by_room, held);
        }
        let taken = taken(memory);
        assert_eq!(taken, held.values().sum::<usize>() + in_bytes);
        by_room.retain(|_, bytes| *bytes == 0);
        assert!(by_room.is_empty(), "who holds nothing is forgotten");
        assert!(line.len() <= BOUNDS.waiting);
        assert_eq!(line.len(), self.asking.iter().filter(|(number, ..)| waits(*number)).count());
        for (number, _, wants, passed) in &line {
            let earlier = before.iter().find(|(other, ..)| other == number).map_or(0, |(_, _, _, passed)| *passed);
            assert!(passed <= wants && earlier <= *passed, "{line:?}");
        }
        // The first in the line waits because there is no room for it, and for no other reason.
        let place = |(number, client, ..): &(u64, ClientName, usize, usize)| (held_by(memory, client), *number);
        if let Some(first) = line.iter().min_by_key(|waiter| place(waiter)) {
            let (_, client, wants, _) = first;
            assert!(!share::may_take(*wants, held_by(memory, client), taken, self.all), "{line:?}");
        }
    }

    fn bytes_held(&self) -> usize {
        // Each piece of memory once, however many copies there are.
        let pieces: BTreeMap<_, _> = self.bytes.iter().map(|bytes| (bytes.as_ptr(), bytes.len())).collect();
        pieces.values().sum()
    }
}

fn held_by(memory: &AnswerMemory, client: &ClientName) -> usize {
    memory.allocator().holders().into_iter().find(|(name, _)| name == client).map_or(0, |(_, held)| held)
}

properties! {
    #[test]
    fn whatever_comes_leaves_or_breaks_the_room_keeps_its_bound_and_its_books(steps in steps()) {
        let memory = memory();
        let mut model = Model { all: BOUNDS.all, ..Model::default() };
        let mut number = 0;
        for step in steps {
            let before = memory.allocator().line();
            let taken_before = taken(&memory);
            let any = |at: usize, len: usize| if len == 0 { None } else { Some(at % len) };
            match step {
                Step::Ask { client, bytes } => {
                    let mut asking = ask(&memory, client, bytes);
                    match poll(&mut asking) {
                        Poll::Ready(Ok(lease)) => model.leases.push(lease),
                        Poll::Ready(Err(Crowded)) => {
                            model.crowded += 1;
                            let waiting = before.iter().filter(|(_, of, ..)| *of == name(client)).count();
                            prop_assert!(!share::may_take(1, waiting, before.len(), BOUNDS.waiting));
                        }
                        Poll::Pending => model.asking.push((number, client, bytes, asking)),
                    }
                    number += 1;
                }
                Step::Look(at) => if let Some(at) = any(at, model.asking.len())
                    && let Poll::Ready(lease) = poll(&mut model.asking[at].3)
                {
                    let (_, client, bytes, _) = model.asking.remove(at);
                    let lease = lease.unwrap();
                    prop_assert_eq!((&lease.client, lease.bytes()), (&name(client), bytes));
                    model.leases.push(lease);
                },
                Step::Leave(at) => if let Some(at) = any(at, model.asking.len()) {
                    drop(model.asking.remove(at));
                },
                Step::Shrink { at, to } => if let Some(at) = any(at, model.leases.len()) {
                    model.leases[at].shrink(to);
                },
                Step::Reach { at, to } => if let Some(at) = any(at, model.leases.len()) {
                    let has = model.leases[at].bytes();
                    let may = taken_before + to.saturating_sub(has) <= model.all || to <= has;
                    prop_assert_eq!(model.leases[at].reaches(to), may);
                },
                Step::Drop(at) => if let Some(at) = any(at, model.leases.len()) {
                    drop(model.leases.remove(at));
                },
                Step::Hold(at) => if let Some(at) = any(at, model.leases.len()) {
                    let lease = model.leases.remove(at);
                    let bytes = vec![0; lease.bytes()];
                    if !bytes.is_empty() {
                        model.bytes.push(lease.hold(bytes.into()));
                    }
                },
                Step::Copy(at) => if let Some(at) = any(at, model.bytes.len()) {
                    let copy = model.bytes[at].clone();
                    model.bytes.push(copy);
                },
                Step::Forget(at) => if let Some(at) = any(at, model.bytes.len()) {
                    drop(model.bytes.remove(at));
                },
                Step::Panic(at) => if let Some(at) = any(at, model.leases.len()) {
                    let lease = model.leases.remove(at);
                    let panics = AssertUnwindSafe(move || {
                        let _lease = lease;
                        std::panic::resume_unwind(Box::new(()));
                    });
                    prop_assert!(catch_unwind(panics).is_err());
                },
                Step::Resize(all) => {
                    model.all = all;
                    memory.resize(Bounds { all, ..BOUNDS });
                }
            }
            model.check(&memory, &before);
            // After it was made smaller nothing is given until there is room again.
            prop_assert!(taken(&memory) <= model.all.max(taken_before));
        }
        drop(model);
        prop_assert_eq!(taken(&memory), 0);
        prop_assert!(memory.allocator().line().is_empty() && memory.allocator().holders().is_empty());
        prop_assert_eq!(now(&memory, 0, 16).bytes(), 16);
    }

    /// However others come and go, as long as what they hold ends.
    #[test]
    fn nobody_starves(
        wants in 1usize..=16,
        held in prop::collection::vec((0..CLIENTS.len(), 1usize..=16), 12..40),
        flood in prop::collection::vec((0..CLIENTS.len(), 1usize..=16), 400),
    ) {
        let memory = memory();
        let mut leases: Vec<Lease> = Vec::new();
        let mut waiting: Vec<Asking> = Vec::new();
        let come = |client, bytes, leases: &mut Vec<Lease>, waiting: &mut Vec<Asking>| {
            let mut asking = ask(&memory, client, bytes);
            match poll(&mut asking) {
                Poll::Ready(Ok(lease)) => leases.push(lease),
                Poll::Ready(Err(Crowded)) => {}
                Poll::Pending => waiting.push(asking),
            }
        };
        for (client, bytes) in held {
            come(client, bytes, &mut leases, &mut waiting);
        }
        let mut patient = ask(&memory, 0, wants);
        let mut rounds = 0;
        let lease = loop {
            match poll(&mut patient) {
                Poll::Ready(Ok(lease)) => break lease,
                // With as many in the line as may be it is told so.
                Poll::Ready(Err(Crowded)) => return Ok(()),
                Poll::Pending => {}
            }
            prop_assert!(rounds < flood.len(), "it starves");
            let (client, bytes) = flood[rounds];
            come(client, bytes, &mut leases, &mut waiting);
            // The oldest goes.
            if !leases.is_empty() {
                leases.remove(0);
            }
            for mut asking in std::mem::take(&mut waiting) {
                match poll(&mut asking) {
                    Poll::Ready(lease) => leases.push(lease.unwrap()),
                    Poll::Pending => waiting.push(asking),
                }
            }
            rounds += 1;
        };
        prop_assert_eq!(lease.bytes(), wants);
    }
}

#[test]
fn one_client_comes_to_nine_tenths_and_another_finds_room_at_once() {
    let memory = memory();
    let mut held: Vec<_> = (0..9).map(|_| now(&memory, 0, 16)).collect();
    let mut tenth = ask(&memory, 0, 16);
    assert!(poll(&mut tenth).is_pending());
    let other = now(&memory, 1, 16);
    assert_eq!(taken(&memory), BOUNDS.all);
    drop(other);
    assert!(poll(&mut tenth).is_pending(), "the last tenth is for those who hold nothing");
    held.pop();
    assert!(poll(&mut tenth).is_ready());
}

#[test]
fn who_holds_least_goes_first_and_then_who_came_first() {
    let memory = memory();
    let mut held: Vec<_> = (0..9).map(|_| now(&memory, 0, 16)).collect();
    let _b = now(&memory, 1, 16);
    let mut line: Vec<Asking> =
        [(0, 16), (1, 16), (2, 16), (3, 16)].map(|(client, bytes)| ask(&memory, client, bytes)).into();
    for asking in &mut line {
        assert!(poll(asking).is_pending());
    }
    let mut order = Vec::new();
    let mut leases = Vec::new();
    while let Some(lease) = held.pop() {
        drop(lease);
        for (n, asking) in line.iter_mut().enumerate() {
            if !order.contains(&n)
                && let Poll::Ready(lease) = poll(asking)
            {
                order.push(n);
                leases.push(lease.unwrap());
            }
        }
    }
    assert_eq!(order, [2, 3, 1, 0]);
}

#[test]
fn small_ones_pass_a_large_one_until_they_have_had_as_much_as_it_wants() {
    let memory = memory();
    // Ten of a unit beside nine large ones and six units: no room for a large one.
    let large: Vec<_> = (0..9).map(|_| now(&memory, 0, 16)).collect();
    let _rest = now(&memory, 1, 6);
    let mut patient = ask(&memory, 2, 16);
    assert!(poll(&mut patient).is_pending());
    // Clients b and d come and go with what little there is.
    let mut passed = 0;
    while let Some(Ok(lease)) = ask(&memory, 3, 4).now_or_never() {
        passed += 4;
        drop(lease);
        assert!(passed <= 16);
    }
    assert_eq!(passed, 16);
    let mut late = ask(&memory, 3, 1);
    assert!(poll(&mut late).is_pending(), "there is room, and it is kept");
    drop(large);
    assert!(poll(&mut patient).is_ready() && poll(&mut late).is_ready());
}

#[test]
fn a_client_cannot_have_all_places_in_the_line() {
    let memory = memory();
    let _held: Vec<_> = (0..10).map(|n| now(&memory, n / 9, 16)).collect();
    let mut line = Vec::new();
    let mut crowded = |client| {
        let mut asking = ask(&memory, client, 16);
        let is_crowded = matches!(poll(&mut asking), Poll::Ready(Err(Crowded)));
        line.push(asking);
        is_crowded
    };
    let of_one = (0..20).filter(|_| !crowded(0)).count();
    assert!((8..BOUNDS.waiting).contains(&of_one), "{of_one}");
    assert!(!crowded(2), "another one has a place");
}

#[test]
fn more_than_all_there_is_is_refused_at_once() {
    let memory = memory();
    assert!(ask(&memory, 0, BOUNDS.all + 1).now_or_never().expect("no wait").is_err());
    assert_eq!(taken(&memory), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_together_stay_within_it_and_lose_nothing() {
    let (memory, tasks, most) = (memory(), Tasks::new(), Arc::new(AtomicUsize::new(0)));
    let (done, all_done) = oneshot::channel::<()>();
    let done = Arc::new(done);
    for n in 0..16usize {
        let (memory, most, done) = (memory.clone(), most.clone(), done.clone());
        tasks.spawn(Kind::Simulator, async move {
            for round in 0..300usize {
                let bytes = 1 + (n * 7 + round * 5) % 16;
                let client = name((n + round) % CLIENTS.len());
                let asking = memory.lease(&client, bytes);
                // Some leave while they wait.
                let lease = if round % 3 == 0 {
                    tokio::select! {
                        biased;
                        lease = asking => lease.ok(),
                        () = tokio::task::yield_now() => None,
                    }
                } else {
                    asking.await.ok()
                };
                most.fetch_max(taken(&memory), Ordering::Relaxed);
                if round % 2 == 0 {
                    tokio::task::yield_now().await;
                }
                drop(lease);
            }
            drop(done);
        });
    }
    drop(done);
    // Told by being dropped.
    let _ = all_done.await;
    assert_eq!(tasks.finish(std::time::Duration::from_secs(60)).await, 0);
    assert_eq!(taken(&memory), 0);
    assert!((1..=BOUNDS.all).contains(&most.load(Ordering::Relaxed)));
}
