//! Explicit acknowledgement, over a whole log: what is leased, to whom, how often, and what of it outlives a restart.

mod durable;
mod in_hand;
mod meeting;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::kernel::names::ClientName;
use crate::kernel::testing::pass;

const LEASE: Duration = Duration::from_secs(30);
const MOST: u32 = 3;

fn name() -> SubscriptionName {
    SubscriptionName::parse("a").unwrap()
}

fn leased(limit: usize) -> ReadRequest {
    ReadRequest { ack: Ack::Explicit { lease: LEASE, max_attempts: MOST }, markers: true, ..by("a", limit) }
}

/// An event of a user: its number, and whose it is.
fn event(n: u64, user: u64) -> String {
    format!(r#"{{"n":{n},"user_id":"u{user}","type":"Login"}}"#)
}

impl Rig {
    /// Has the next entries, so many, tried until they are given up.
    async fn give_up(&self, entries: u64) {
        for _ in 0..MOST {
            let (lease, _) = self.lease(leased(usize::try_from(entries).unwrap())).await.unwrap();
            assert_eq!(self.nack(Holding::Lease(lease), 0).await, Ok(entries));
        }
    }

    async fn append_of(&self, users: impl IntoIterator<Item = (u64, u64)>) {
        let events: Vec<String> = users.into_iter().map(|(n, user)| event(n, user)).collect();
        let text = EventText::join(events.iter().map(|event| event.as_bytes())).unwrap();
        self.append_content(Content::Events(text)).await;
    }

    /// Leases and hands over: the lease, and the entries with their attempts.
    async fn lease(&self, read: ReadRequest) -> Option<(LeaseName, Vec<(u64, u32)>)> {
        let delivery = self.read(read).await.unwrap();
        let entries = entries(&delivery);
        let leased = delivery.leased.clone();
        delivery.receipt.handed_over();
        leased.map(|leased| (leased.name, entries.into_iter().zip(leased.attempts).collect()))
    }

    async fn ack(&self, what: Holding) -> Result<u64, AckError> {
        self.events.acknowledge(&app(), STREAM, &name(), &what).await
    }

    async fn nack(&self, what: Holding, delay: u64) -> Result<u64, AckError> {
        self.events.give_back(&app(), STREAM, &name(), &what, Duration::from_secs(delay)).await
    }

    fn entry(&self, at: u64) -> Holding {
        Holding::Entries(vec![self.cursor(at)])
    }

    async fn dead(&self) -> Vec<(u64, u32)> {
        let letters = self.events.dead_letters(&app(), STREAM, &name(), None, 1000).await.unwrap();
        letters.iter().map(|letter| (letter.cursor.at.0, letter.attempts)).collect()
    }
}

/// The numbers of the entries in a delivery.
fn entries(delivery: &Delivery) -> Vec<u64> {
    let numbers = |run: &Run| run.entries.clone().map(|entry| run.batch.first.0 + entry as u64).collect::<Vec<_>>();
    delivery.runs.iter().flat_map(numbers).collect()
}

#[tokio::test(start_paused = true)]
async fn a_later_event_of_a_user_waits_for_the_earlier_and_others_go_on() {
    let rig = Rig::quiet().await;
    // Entries 1 to 6.
    rig.append_of([(1, 1), (2, 2), (3, 1), (4, 1), (5, 3), (6, 2)]).await;
    let (first, got) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(got, [(1, 1)]);
    let (second, got) = rig.lease(leased(10)).await.unwrap();
    assert_eq!(got, [(2, 1), (5, 1), (6, 1)], "of one user several to one reader");
    assert!(rig.lease(leased(10)).await.is_none());
    assert_eq!(rig.ack(Holding::Lease(second)).await, Ok(3));
    assert!(rig.lease(leased(10)).await.is_none());
    assert_eq!(rig.ack(Holding::Lease(first)).await, Ok(1));
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(3, 1), (4, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_runs_out_is_delivered_again_with_its_attempt_and_at_last_given_up() {
    let rig = Arc::new(Rig::quiet().await);
    rig.append_of([(1, 1), (2, 1), (3, 2)]).await;
    let (lease, _) = rig.lease(leased(1)).await.unwrap();
    let began = Instant::now();
    // A reader that waits gets it when the time is over, and no sooner.
    assert_eq!(rig.lease(wait(60, leased(1))).await.unwrap().1, [(3, 1)]);
    assert_eq!(rig.lease(wait(60, leased(1))).await.unwrap().1, [(1, 2)]);
    assert_eq!(began.elapsed(), LEASE);
    assert_eq!(rig.ack(Holding::Lease(lease)).await, Err(AckError::LeaseExpired));
    assert_eq!(rig.ack(rig.entry(3)).await, Ok(1), "by its cursor also when its lease has run out");
    assert_eq!(rig.lease(wait(60, leased(1))).await.unwrap().1, [(1, 3)]);
    // Three attempts are all: it is buried, and the user's next event comes.
    assert_eq!(rig.lease(wait(60, leased(10))).await.unwrap().1, [(2, 1)]);
    assert_eq!(rig.dead().await, [(1, 3)]);
    assert!(rig.metric(r#"events_dead_lettered_total{app="app",stream="user_events",subscription="a"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_waits_out_its_delay_and_an_extended_lease_is_kept() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2)]).await;
    let (one, _) = rig.lease(leased(1)).await.unwrap();
    let (two, _) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(rig.nack(Holding::Lease(one), 45).await, Ok(1));
    assert_eq!(rig.nack(Holding::Lease(one), 45).await, Err(AckError::LeaseExpired));
    pass(Duration::from_secs(20)).await;
    let extended = rig.events.extend(&app(), STREAM, &name(), &Holding::Lease(two), LEASE);
    assert_eq!(extended, Ok(1));
    let began = Instant::now();
    assert_eq!(rig.lease(wait(60, leased(1))).await.unwrap().1, [(1, 2)]);
    assert_eq!(began.elapsed(), Duration::from_secs(25));
    assert_eq!(rig.ack(Holding::Lease(two)).await, Ok(1));
    assert_eq!(rig.ack(Holding::Lease(two)).await, Ok(0), "twice is no fault");
    assert_eq!(rig.ack(rig.entry(2)).await, Ok(0));
    assert_eq!(rig.ack(rig.entry(3)).await, Err(AckError::LeaseExpired), "there is no such entry");
    rig.append_of([(3, 3)]).await;
    assert_eq!(rig.ack(rig.entry(3)).await, Err(AckError::LeaseExpired), "nobody has it");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_did_not_arrive_gives_its_entries_back_at_once() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2)]).await;
    let lost = rig.read(leased(10)).await.unwrap();
    let over = lost.leased.clone().unwrap();
    drop(lost);
    over.over().await;
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(1, 1), (2, 1)], "that was no attempt");
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_stays_so_after_a_kill_and_attempts_go_on() {
    let leased = |limit| ReadRequest { ack: Ack::Explicit { lease: LEASE, max_attempts: 10 }, ..leased(limit) };
    let rig = Rig::in_folder(config(&[])).await;
    rig.append_of((1..=3000).map(|n| (n, n))).await;
    let (_, got) = rig.lease(leased(1000)).await.unwrap();
    assert_eq!(got.len(), 1000);
    let (second, _) = rig.lease(leased(1000)).await.unwrap();
    assert_eq!(rig.ack(Holding::Lease(second)).await, Ok(1000));
    assert_eq!(rig.ack(rig.entry(7)).await, Ok(1));
    let rig = rig.kill().await;
    let mut again = BTreeSet::new();
    while let Some((_, got)) = rig.lease(leased(1000)).await {
        again.extend(got.into_iter().map(|(at, _)| at));
    }
    let open = (1..=1000u64).chain(2001..=3000).filter(|&at| at != 7);
    assert!(again.into_iter().eq(open));
    // The first attempt was stored with the acknowledgement of entry 7, the others are before long.
    pass(LEASE).await;
    assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(1, 3)]);
    pass(Duration::from_secs(1)).await;
    let rig = rig.kill().await;
    assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(1, 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_plain_reader_gets_what_an_explicit_one_left() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2), (3, 1)]).await;
    let (lease, _) = rig.lease(leased(1)).await.unwrap();
    let plain = rig.read(by("a", 10)).await.unwrap();
    assert_eq!(entries(&plain), [2], "3 waits for 1");
    plain.receipt.handed_over();
    assert_eq!(rig.nack(Holding::Lease(lease), 0).await, Ok(1));
    let lost = rig.read(by("a", 10)).await.unwrap();
    assert_eq!((entries(&lost), lost.leased.is_none()), (vec![1, 3], true));
    drop(lost);
    let plain = rig.read(by("a", 10)).await.unwrap();
    assert_eq!(entries(&plain), [1, 3]);
    plain.receipt.handed_over();
    assert!(rig.lease(leased(1)).await.is_none());
    let rig = rig.restart().await;
    assert!(rig.lease(leased(1)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_plain_reader_acknowledges_above_an_open_entry_stays_so_after_a_kill() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1)]).await;
    rig.lease(leased(1)).await.unwrap();
    rig.append_of([(2, 2), (3, 3)]).await;
    let plain = rig.read(by("a", 10)).await.unwrap();
    assert_eq!(entries(&plain), [2, 3]);
    plain.receipt.handed_over();
    assert_eq!(rig.ack(rig.entry(3)).await, Ok(0), "settled when it was handed over, but only now for good");
    let rig = rig.kill().await;
    // What was handed over with it was stored with it.
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_listed_given_again_and_gone_when_it_is_acknowledged() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=4).map(|n| (n, n))).await;
    rig.give_up(2).await;
    let (last, got) = rig.lease(leased(10)).await.unwrap();
    assert_eq!(got, [(3, 1), (4, 1)]);
    rig.ack(Holding::Lease(last)).await.unwrap();
    assert_eq!(rig.dead().await, [(1, 3), (2, 3)]);
    let rig = rig.kill().await;
    assert!(rig.lease(leased(10)).await.is_none());
    let listed = rig.events.dead_letters(&app(), STREAM, &name(), Some(rig.cursor(1)), 10).await.unwrap();
    assert_eq!((listed.len(), &listed[0].event[..]), (1, event(2, 2).as_bytes()));
    assert_eq!(listed[0].reason, "its last reader gave it back");
    let again = async |which| rig.events.redeliver(&app(), STREAM, &name(), which).await;
    assert_eq!(again(Redeliver::These(vec![rig.cursor(3)])).await, Err(ReadError::NoSuchDeadLetter));
    assert_eq!(again(Redeliver::These(vec![rig.cursor(2)])).await, Ok(1));
    assert_eq!(again(Redeliver::All).await, Ok(1), "the other is under way already");
    let rig = rig.kill().await;
    let (_, got) = rig.lease(leased(10)).await.unwrap();
    assert_eq!(got, [(1, 1), (2, 1)]);
    assert_eq!(rig.ack(rig.entry(2)).await, Ok(1));
    assert_eq!(rig.dead().await, [(1, 3)]);
    let cleared = rig.events.clear_dead_letters(&app(), STREAM, &name(), Some(rig.cursor(1))).await;
    assert_eq!(cleared, Ok(1));
    let rig = rig.kill().await;
    assert_eq!((rig.dead().await, rig.lease(leased(10)).await.unwrap().1), (vec![], vec![(1, 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_comes_again_by_a_seek_is_none_when_it_is_acknowledged() {
    for kills in [false, true] {
        let mut rig = Rig::quiet().await;
        rig.append_of((1..=6).map(|n| (n, n))).await;
        rig.give_up(5).await;
        assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(6, 1)]);
        assert_eq!(rig.dead().await, [(1, 3), (2, 3), (3, 3), (4, 3), (5, 3)]);
        rig.events.seek(&app(), STREAM, &name(), StartAt::After(rig.cursor(1))).await.unwrap();
        if kills {
            rig = rig.kill().await;
        }
        assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(2, 1)]);
        assert_eq!(rig.ack(rig.entry(2)).await, Ok(1));
        assert_eq!(rig.dead().await, [(1, 3), (3, 3), (4, 3), (5, 3)], "1 lies before the place");
        // As well if it is put back, or handed over plainly; not if it is given up again.
        let again = Redeliver::These(vec![rig.cursor(3)]);
        assert_eq!(rig.events.redeliver(&app(), STREAM, &name(), again).await, Ok(1));
        let (_, got) = rig.lease(leased(1)).await.unwrap();
        assert_eq!(got, [(3, 1)]);
        assert_eq!(rig.ack(rig.entry(3)).await, Ok(1));
        for _ in 0..MOST {
            let (lease, got) = rig.lease(leased(1)).await.unwrap();
            assert_eq!(got[0].0, 4);
            rig.nack(Holding::Lease(lease), 0).await.unwrap();
        }
        let plainly = rig.read(by("a", 1)).await.unwrap();
        assert_eq!(entries(&plainly), [5]);
        plainly.receipt.handed_over();
        pass(Duration::from_secs(1)).await;
        assert_eq!(rig.dead().await, [(1, 3), (4, 3)]);
        let rig = rig.kill().await;
        assert_eq!(rig.dead().await, [(1, 3), (4, 3)]);
        assert_eq!(rig.events.subscriptions()[0].dead_letters, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn competing_readers_are_woken_one_after_the_other_and_none_sleeps_through() {
    let rig = Arc::new(Rig::quiet().await);
    let reader = |_| {
        let rig = Arc::clone(&rig);
        async move {
            let mut got = Vec::new();
            while let Some((lease, entries)) = rig.lease(wait(5, leased(3))).await {
                pass(Duration::from_millis(10)).await;
                rig.ack(Holding::Lease(lease)).await.unwrap();
                got.extend(entries.into_iter().map(|(at, _)| at));
            }
            got
        }
    };
    let writer = async {
        for n in 0..100 {
            rig.append_of((0..10).map(|m| (n * 10 + m, m % 7))).await;
            pass(Duration::from_millis(5)).await;
        }
    };
    let ((), got) = tokio::join!(writer, futures_util::future::join_all((0..20).map(reader)));
    let mut all: Vec<u64> = got.into_iter().flatten().collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=1000), "each once");
}

#[derive(Clone, Debug)]
enum Act {
    Append(Vec<u64>),
    Take(usize),
    Plain(usize),
    Ack(usize, Option<u8>),
    Nack(usize, Option<u8>, u64),
    Lose(usize),
    Pass(u64),
    Seek(u64),
    Restart,
    Kill,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let part = || prop::option::weighted(0.5, any::<u8>());
    let act = prop_oneof![
        5 => prop::collection::vec(0..5u64, 1..8).prop_map(Act::Append),
        8 => (1..7usize).prop_map(Act::Take),
        1 => (1..7usize).prop_map(Act::Plain),
        5 => (0..5usize, part()).prop_map(|(which, part)| Act::Ack(which, part)),
        3 => (0..5usize, part(), 0..20u64).prop_map(|(which, part, delay)| Act::Nack(which, part, delay)),
        1 => (1..7usize).prop_map(Act::Lose),
        2 => (1..20u64).prop_map(Act::Pass),
        1 => (0..40u64).prop_map(Act::Seek),
        1 => Just(Act::Restart),
        1 => Just(Act::Kill),
    ];
    prop::collection::vec(act, 0..70)
}

/// What readers know of the subscription. Entry numbers begin with 1.
#[derive(Default)]
struct Model {
    users: Vec<u64>,
    settled: BTreeSet<u64>,
    /// Handed over to a plain reader: may come again after a kill.
    plain: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    attempts: BTreeMap<u64, u32>,
    /// By entry: the number of the lease.
    held: BTreeMap<u64, usize>,
    leases: Vec<(LeaseName, Vec<u64>, Instant)>,
    delayed: BTreeMap<u64, Instant>,
    /// May come again, after a restart: it was handed over to a plain reader, or given up and not buried yet.
    perhaps: BTreeSet<u64>,
    /// Of those, the ones whose last lease a restart has ended: if they do not come again, they are among the dead.
    spent: BTreeSet<u64>,
    /// The response did not arrive: that it was no attempt may be forgotten by a kill.
    lost: BTreeSet<u64>,
    /// After a restart an attempt may be counted anew.
    forgets: bool,
}

impl Model {
    fn user(&self, at: u64) -> u64 {
        self.users[at as usize - 1]
    }

    fn is_open(&self, at: u64) -> bool {
        [&self.settled, &self.dead, &self.plain, &self.perhaps].iter().all(|done| !done.contains(&at))
    }

    fn back(&mut self, at: u64) {
        self.held.remove(&at);
        if self.attempts[&at] >= MOST {
            self.dead.insert(at);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let over: Vec<u64> =
            self.held.iter().filter(|(_, lease)| self.leases[**lease].2 <= now).map(|(&at, _)| at).collect();
        over.into_iter().for_each(|at| self.back(at));
    }

    fn part(&self, which: usize, part: Option<u8>) -> Option<(usize, Vec<u64>)> {
        let which = if self.leases.is_empty() { return None } else { which % self.leases.len() };
        let all = self.leases[which].1.iter().copied();
        Some((which, all.filter(|at| part.is_none_or(|part| part >> (at % 8) & 1 == 1)).collect()))
    }

    fn take(&mut self, lease: LeaseName, got: &[(u64, u32)]) {
        let (mine, now) = (self.leases.len(), Instant::now());
        for &(at, attempt) in got {
            self.perhaps.remove(&at);
            assert!(self.is_open(at) && !self.held.contains_key(&at), "{at} was settled, or another has it");
            assert!(self.delayed.get(&at).is_none_or(|&until| until <= now), "{at} came before its time");
            for before in (1..at).filter(|&before| self.is_open(before) && self.user(before) == self.user(at)) {
                assert_eq!(self.held.get(&before), Some(&mine), "{at} came before {before}");
            }
            let after = (at + 1..=self.users.len() as u64).filter(|&after| self.user(after) == self.user(at));
            assert!(
                after.into_iter().all(|after| !self.held.contains_key(&after)),
                "{at} came while a later one is held"
            );
            let count = self.attempts.entry(at).or_default();
            let is_forgotten = self.forgets && (attempt <= *count || self.lost.contains(&at));
            assert!(attempt == *count + 1 || is_forgotten, "{at} {attempt} {count}");
            *count = attempt;
            self.held.insert(at, mine);
        }
        self.leases.push((lease, got.iter().map(|&(at, _)| at).collect(), now + LEASE));
    }

    /// Leases are forgotten, and what was not buried yet.
    fn reopen(&mut self, buried: &[(u64, u32)]) {
        let spent = |at: &u64| self.attempts[at] >= MOST;
        self.spent.extend(self.held.keys().copied().filter(spent));
        let lost: Vec<u64> = self.lost.iter().copied().filter(|&at| self.is_open(at)).collect();
        self.spent.extend(lost);
        self.perhaps.extend(&self.spent);
        self.held.clear();
        self.forgets = true;
        self.perhaps.append(&mut self.plain);
        let dead = std::mem::take(&mut self.dead);
        let (buried, not): (Vec<_>, Vec<_>) = dead.into_iter().partition(|at| buried.iter().any(|(one, _)| one == at));
        self.dead.extend(buried);
        self.perhaps.extend(not);
    }
}

async fn run(mut rig: Rig, acts: Vec<Act>) {
    let mut model = Model::default();
    rig.lease(leased(1)).await;
    for act in acts {
        model.expire();
        match act {
            Act::Append(users) => {
                let first = model.users.len() as u64 + 1;
                rig.append_of((first..).zip(users.iter().copied())).await;
                model.users.extend(users);
            }
            Act::Take(limit) => {
                if let Some((lease, got)) = rig.lease(leased(limit)).await {
                    assert!(!got.is_empty() && got.len() <= limit);
                    model.take(lease, &got);
                }
            }
            Act::Plain(limit) => {
                let delivery = rig.read(by("a", limit)).await.unwrap();
                for at in entries(&delivery) {
                    model.perhaps.remove(&at);
                    model.spent.remove(&at);
                    assert!(model.is_open(at) && !model.held.contains_key(&at));
                    model.plain.insert(at);
                }
                delivery.receipt.handed_over();
            }
            Act::Ack(which, part) => {
                let Some((which, entries)) = model.part(which, part) else { continue };
                let held = entries.iter().any(|at| model.held.get(at) == Some(&which));
                let asked = match part {
                    None => Holding::Lease(model.leases[which].0),
                    Some(_) => Holding::Entries(entries.iter().map(|&at| rig.cursor(at)).collect()),
                };
                let said = rig.ack(asked).await;
                match (part, &said) {
                    (None, _) => {
                        assert!(said.is_ok() || !held);
                        let mine = entries.iter().filter(|at| model.held.get(at) == Some(&which)).copied();
                        mine.collect::<Vec<_>>().into_iter().for_each(|at| {
                            model.held.remove(&at);
                            model.settled.insert(at);
                        });
                    }
                    // Also what another holds now, or nobody: it says that it has done it.
                    (Some(_), Ok(_)) => {
                        let buried = rig.dead().await;
                        for at in entries {
                            model.held.remove(&at);
                            // Given up and not buried yet: its reader has done it after all.
                            if !buried.iter().any(|(one, _)| *one == at) || !model.dead.contains(&at) {
                                model.dead.remove(&at);
                                model.settled.insert(at);
                            }
                        }
                    }
                    (Some(_), Err(why)) => assert!(!held || model.forgets, "{why}"),
                }
            }
            Act::Nack(which, part, delay) => {
                let Some((which, entries)) = model.part(which, part) else { continue };
                let asked = match part {
                    None => Holding::Lease(model.leases[which].0),
                    Some(_) => Holding::Entries(entries.iter().map(|&at| rig.cursor(at)).collect()),
                };
                if rig.nack(asked, delay).await.is_ok() {
                    for at in entries {
                        if model.held.get(&at).is_some_and(|&lease| part.is_some() || lease == which) {
                            model.back(at);
                            model.delayed.insert(at, Instant::now() + Duration::from_secs(delay));
                        }
                    }
                }
            }
            Act::Lose(limit) => {
                let lost = rig.read(leased(limit)).await.unwrap();
                let attempts = lost.leased.as_ref().map(|leased| leased.attempts.clone()).unwrap_or_default();
                for (at, attempt) in entries(&lost).into_iter().zip(attempts) {
                    model.perhaps.remove(&at);
                    assert!(model.is_open(at) && !model.held.contains_key(&at));
                    let count = model.attempts.get(&at).copied().unwrap_or_default();
                    assert!(attempt == count + 1 || model.forgets);
                    model.lost.insert(at);
                }
                drop(lost);
            }
            Act::Pass(seconds) => pass(Duration::from_secs(seconds)).await,
            Act::Seek(to) => {
                let to = to.min(model.users.len() as u64);
                rig.events.seek(&app(), STREAM, &name(), StartAt::After(rig.cursor(to))).await.unwrap();
                model = Model { settled: (1..=to).collect(), users: model.users, ..Model::default() };
            }
            Act::Restart => {
                rig = rig.restart().await;
                model.reopen(&rig.dead().await);
            }
            Act::Kill => {
                rig = rig.kill().await;
                model.reopen(&rig.dead().await);
            }
        }
    }
    // All that is not settled comes, in the end.
    pass(Duration::from_secs(60)).await;
    model.expire();
    while let Some((lease, got)) = rig.lease(leased(5)).await {
        model.take(lease, &got);
        rig.ack(Holding::Lease(lease)).await.unwrap();
        got.iter().for_each(|(at, _)| {
            model.held.remove(at);
            model.settled.insert(*at);
        });
    }
    for at in 1..=model.users.len() as u64 {
        assert!(!model.is_open(at), "{at} never came");
    }
    let dead: BTreeSet<u64> = rig.dead().await.into_iter().map(|(at, _)| at).collect();
    assert!(model.dead.is_subset(&dead));
    assert!(model.spent.iter().all(|at| model.settled.contains(at) || dead.contains(at)));
    let status = &rig.events.subscriptions()[0];
    assert_eq!((status.lag, status.unacknowledged, status.in_flight), (0, 0, 0));
    assert_eq!(status.cursor, rig.cursor(model.users.len() as u64).to_string());
    rig.tasks.finish(Duration::from_secs(1)).await;
}

properties! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn what_is_acknowledged_never_comes_again_and_all_else_does_in_order(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { run(Rig::quiet().await, acts).await });
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_subscription_is_removed_with_all_that_is_its_own_and_a_read_one_is_not() {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(30 * 24 * 3600);
    config.events.max_subscriptions_per_client = 2;
    let rig = Rig::over(MemoryStore::default(), config).await;
    rig.append_of((1..=4).map(|n| (n, n))).await;
    let of_one = |subscription: &str| ReadRequest {
        place: ReadFrom::Subscription { name: SubscriptionName::parse(subscription).unwrap(), from: StartAt::Earliest },
        client: ClientName::parse("one").unwrap(),
        ..leased(2)
    };
    rig.lease(of_one("a")).await.unwrap();
    rig.lease(of_one("b")).await.unwrap();
    assert_eq!(rig.read(of_one("c")).await.unwrap_err(), ReadError::TooManyOfClient { most: 2 });
    // Whose they are outlives a restart.
    let rig = rig.restart().await;
    assert_eq!(rig.read(of_one("c")).await.unwrap_err(), ReadError::TooManyOfClient { most: 2 });
    for _ in 0..9 {
        pass(Duration::from_secs(24 * 3600)).await;
        let _ = rig.lease(of_one("b")).await;
    }
    let left: Vec<_> = rig.events.subscriptions().into_iter().map(|status| status.subscription).collect();
    assert_eq!(left, ["b"]);
    assert!(!rig.metrics.text().contains(r#"subscription="a""#));
    assert!(rig.store.cursors(&key()).await.unwrap().iter().all(|(name, _)| name.as_str() == "b"));
    let notes = rig.store.notes(&key(), crate::store::NoteKind::Subscription, "a", "", 10).await.unwrap();
    assert_eq!(notes, [("a/left".to_owned(), "0".into())], "what is said to who comes again");
    rig.lease(of_one("c")).await.unwrap();
    rig.events.remove(&app(), STREAM, &SubscriptionName::parse("c").unwrap()).await.unwrap();
    rig.lease(of_one("d")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_about_to_be_cut_off_is_told_of_before_it_is() {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(1000);
    let rig = Rig::over(MemoryStore::default(), config).await;
    rig.append_of([(1, 1), (2, 2)]).await;
    rig.lease(leased(1)).await.unwrap();
    pass(Duration::from_secs(850)).await;
    let status = rig.events.subscriptions().remove(0);
    assert_eq!((status.undelivered, status.unacknowledged, status.near_retention), (1, 1, None));
    pass(Duration::from_secs(60)).await;
    let status = rig.events.subscriptions().remove(0);
    assert_eq!(status.near_retention, Some("retention"));
    assert!(status.oldest_event_age_seconds.is_some_and(|age| (900.0..=910.0).contains(&age)));
    assert!(rig.metric(r#"subscription_near_retention{app="app",stream="user_events",subscription="a"} 1"#));
    let (lease, _) = rig.lease(leased(10)).await.unwrap();
    rig.ack(Holding::Lease(lease)).await.unwrap();
    pass(Duration::from_secs(10)).await;
    assert_eq!(rig.events.subscriptions()[0].near_retention, None);
}
