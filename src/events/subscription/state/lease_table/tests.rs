//! The book against a model that looks at every entry for every question.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// So many new entries of these keys.
    Admit(Vec<u64>),
    Take {
        limit: usize,
        how: How,
    },
    /// Which of the leases made so far; which part of its entries, by number.
    Settle(usize, Option<u8>),
    GiveBack(usize, Option<u8>, u64),
    Extend(usize, u64),
    GiveBackUncounted(usize),
    Release(usize),
    Bury(usize),
    /// What rests is to be opened anew.
    Close,
    /// So many of those are, or, now and then, nobody wants the next.
    Reopen(usize, bool),
    Cut(u64),
    Pass(u64),
}

/// On which terms something is taken.
#[derive(Clone, Copy, Debug)]
enum How {
    Response,
    Lease(u64, u32),
    InHand { unites: bool },
}

impl How {
    fn max_attempts(self) -> u32 {
        if let Self::Lease(_, most) = self { most } else { u32::MAX }
    }

    fn hold(self, time: impl Fn(u64) -> Instant, now: u64) -> Hold {
        match self {
            Self::Response => Hold::Response,
            Self::Lease(lease, max_attempts) => Hold::Lease { until: time(now + lease), max_attempts },
            Self::InHand { unites } => Hold::InHand { unites },
        }
    }

    fn counts_taking(self) -> bool {
        matches!(self, Self::Lease(..))
    }

    fn counts_failures(self) -> bool {
        matches!(self, Self::InHand { .. })
    }

    fn unites(self) -> bool {
        matches!(self, Self::InHand { unites: true })
    }
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        1 => Just(How::Response),
        5 => (1..20u64, 1..4u32).prop_map(|(lease, most)| How::Lease(lease, most)),
        1 => Just(How::InHand { unites: false }),
        5 => Just(How::InHand { unites: true }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = || 0..6usize;
    let part = || prop::option::weighted(0.4, any::<u8>());
    let step = prop_oneof![
        4 => prop::collection::vec(0..4u64, 1..6).prop_map(Step::Admit),
        6 => (1..6usize, how()).prop_map(|(limit, how)| Step::Take { limit, how }),
        4 => (which(), part()).prop_map(|(which, part)| Step::Settle(which, part)),
        3 => (which(), part(), 0..15u64).prop_map(|(which, part, delay)| Step::GiveBack(which, part, delay)),
        1 => (which(), 1..30u64).prop_map(|(which, lease)| Step::Extend(which, lease)),
        1 => which().prop_map(Step::GiveBackUncounted),
        1 => which().prop_map(Step::Release),
        1 => Just(Step::Close),
        2 => (1..9usize, prop::bool::weighted(0.1)).prop_map(|(most, skips)| Step::Reopen(most, skips)),
        1 => (1..3usize).prop_map(Step::Bury),
        1 => (0..5u64).prop_map(Step::Cut),
        3 => (1..12u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..100)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Waiting(u64),
    Held(usize),
    GivenUp,
}

#[derive(Clone)]
struct Entry {
    at: u64,
    key: u64,
    attempts: u32,
    is: Is,
    unit: Option<u64>,
    alone: bool,
}

impl Entry {
    fn turn(&self) -> u64 {
        self.unit.unwrap_or(self.at)
    }
}

#[derive(Clone)]
struct ModelLease {
    entries: Vec<u64>,
    until: Option<u64>,
    how: How,
    /// AckBitmap to its end.
    ended: bool,
}

#[derive(Default)]
struct Model {
    now: u64,
    open: Vec<Entry>,
    /// To be opened anew, in order.
    closed: Vec<Entry>,
    leases: Vec<ModelLease>,
}

impl Model {
    fn entry(&mut self, at: u64) -> Option<&mut Entry> {
        self.open.iter_mut().find(|entry| entry.at == at)
    }

    fn held(&self, lease: usize) -> Vec<u64> {
        self.open.iter().filter(|entry| entry.is == Is::Held(lease)).map(|entry| entry.at).collect()
    }

    fn is_in_response(&self, at: u64) -> bool {
        let is_it = |entry: &&Entry| entry.at == at;
        let Some(Is::Held(lease)) = self.open.iter().find(is_it).map(|entry| entry.is) else { return false };
        matches!(self.leases[lease].how, How::Response)
    }

    fn is_known(&self, lease: usize) -> bool {
        self.leases[lease].ended || !self.held(lease).is_empty()
    }

    fn put_back(&mut self, at: u64, from: u64, counts: bool) -> bool {
        let hows: Vec<How> = self.leases.iter().map(|lease| lease.how).collect();
        let Some(entry) = self.entry(at) else { return false };
        let Is::Held(lease) = entry.is else { return false };
        let how = hows[lease];
        entry.is = if counts && entry.attempts >= how.max_attempts() { Is::GivenUp } else { Is::Waiting(from) };
        entry.attempts += u32::from(counts && how.counts_failures());
        entry.attempts -= u32::from(!counts && how.counts_taking());
        true
    }

    /// What a lease holds has gone out as one.
    fn unite(&mut self, lease: usize) {
        let held = self.held(lease);
        for at in held.iter().filter(|_| self.leases[lease].how.unites()).copied().collect::<Vec<_>>() {
            let entry = self.entry(at).unwrap();
            if entry.unit.is_none() && !entry.alone && entry.attempts == 0 {
                entry.unit = Some(held[0]);
            }
        }
    }

    fn settle(&mut self, at: u64) -> bool {
        let Some(index) = self.open.iter().position(|entry| entry.at == at) else { return false };
        if let Is::Held(lease) = self.open.remove(index).is
            && self.held(lease).is_empty()
        {
            self.leases[lease].ended = true;
        }
        true
    }

    fn pass(&mut self, by: u64) {
        self.now += by;
        for lease in 0..self.leases.len() {
            if self.leases[lease].until.is_some_and(|until| until <= self.now) {
                for at in self.held(lease) {
                    self.put_back(at, 0, true);
                }
            }
        }
    }

    fn take(&mut self, limit: usize, how: How) -> Vec<(u64, u32)> {
        let lease = self.leases.len();
        let mut taken = Vec::new();
        while taken.len() < limit {
            let can = |entry: &Entry| {
                let mut of_key = self.open.iter().filter(|other| other.key == entry.key);
                matches!(entry.is, Is::Waiting(from) if from <= self.now)
                    && of_key.all(|other| match other.is {
                        Is::Waiting(_) => {
                            (other.turn(), other.at) >= (entry.turn(), entry.at) || other.turn() == entry.turn()
                        }
                        Is::Held(by) => by == lease && entry.unit.is_none(),
                        Is::GivenUp => false,
                    })
            };
            let is_whole = |unit: u64| {
                self.closed.iter().all(|entry| entry.unit != Some(unit))
                    && self.open.iter().filter(|entry| entry.unit == Some(unit)).all(&can)
            };
            let has_turn = |entry: &&Entry| can(entry) && entry.unit.is_none_or(&is_whole);
            let Some(first) = self.open.iter().filter(has_turn).min_by_key(|entry| (entry.turn(), entry.at)) else {
                break;
            };
            let (at, unit) = (first.at, first.unit);
            let goes_alone = unit.is_some() || (how.unites() && (first.alone || first.attempts > 0));
            if goes_alone && !taken.is_empty() {
                break;
            }
            if first.attempts >= how.max_attempts() && unit.is_none() {
                self.entry(at).unwrap().is = Is::GivenUp;
                continue;
            }
            for entry in self.open.iter_mut().filter(|entry| entry.at == at || (unit.is_some() && entry.unit == unit)) {
                entry.is = Is::Held(lease);
                entry.attempts += u32::from(how.counts_taking());
                taken.push((entry.at, entry.attempts));
            }
            if goes_alone {
                break;
            }
        }
        taken
    }
}

fn new(at: u64, key: u64) -> NewEntry {
    NewEntry { at, key, attempts: 0, delay_until: None, alone: false }
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let base = Instant::now();
    let time = |seconds: u64| base + Duration::from_secs(seconds);
    let (mut leases, mut model, mut names) = (LeaseTable::default(), Model::default(), Vec::<LeaseName>::new());
    let mut next = 1;
    let which = |model: &Model, names: &[LeaseName], lease: usize, part: Option<u8>| {
        let lease = if names.is_empty() { return None } else { lease % names.len() };
        let entries = &model.leases[lease].entries;
        let asked = match part {
            None => Selection::Lease(names[lease]),
            Some(part) => Selection::Entries(entries.iter().copied().filter(|at| part >> (at % 8) & 1 == 1).collect()),
        };
        Some((lease, asked))
    };
    for step in steps {
        let now = time(model.now);
        match step {
            Step::Admit(keys) => {
                for key in keys {
                    // Now and then one that an operator put back.
                    let alone = next % 11 == 0;
                    let key = if alone { 1000 + next } else { key };
                    leases.admit([NewEntry { alone, ..new(next, key) }], now);
                    model.open.push(Entry { at: next, key, attempts: 0, is: Is::Waiting(0), unit: None, alone });
                    next += 1;
                }
            }
            Step::Take { limit, how } => {
                let until = if let How::Lease(lease, _) = how { Some(model.now + lease) } else { None };
                let taken = leases.take(limit, how.hold(time, model.now), now);
                let wanted = model.take(limit, how);
                prop_assert_eq!(taken.as_ref().map_or(&[][..], |taken| &taken.entries), &wanted);
                if let Some(taken) = taken {
                    names.push(taken.lease);
                    let entries = wanted.into_iter().map(|(at, _)| at).collect();
                    model.leases.push(ModelLease { entries, until, how, ended: false });
                }
            }
            Step::Settle(lease, part) => {
                let Some((lease, asked)) = which(&model, &names, lease, part) else { continue };
                let entries = match &asked {
                    Selection::Lease(_) if !model.is_known(lease) => {
                        prop_assert_eq!(leases.settle(&asked, now), Err(UnknownLease));
                        continue;
                    }
                    Selection::Lease(_) => model.held(lease),
                    Selection::Entries(entries) => entries.clone(),
                };
                let mut wanted = entries;
                wanted.retain(|&at| model.settle(at));
                prop_assert_eq!(leases.settle(&asked, now), Ok(wanted));
            }
            Step::GiveBack(lease, part, delay) => {
                let Some((lease, asked)) = which(&model, &names, lease, part) else { continue };
                let until = model.now + delay;
                let entries = match &asked {
                    Selection::Lease(_) if !model.is_known(lease) => {
                        prop_assert_eq!(leases.give_back(&asked, None, now), Err(UnknownLease));
                        continue;
                    }
                    Selection::Lease(_) => {
                        model.unite(lease);
                        model.held(lease)
                    }
                    Selection::Entries(entries) => {
                        entries.iter().copied().filter(|&at| !model.is_in_response(at)).collect()
                    }
                };
                let mut wanted = entries;
                wanted.retain(|&at| model.put_back(at, until, true));
                prop_assert_eq!(leases.give_back(&asked, Some(time(until)), now), Ok(wanted));
            }
            Step::Extend(lease, by) => {
                let Some((lease, asked)) = which(&model, &names, lease, None) else { continue };
                if model.is_known(lease) {
                    let until = model.now + by;
                    let held = if model.leases[lease].until.is_some() { model.held(lease).len() } else { 0 };
                    prop_assert_eq!(leases.extend(&asked, time(until), now), Ok(held));
                    model.leases[lease].until = model.leases[lease].until.map(|_| until);
                } else {
                    prop_assert_eq!(leases.extend(&asked, now, now), Err(UnknownLease));
                }
            }
            Step::GiveBackUncounted(lease) => {
                let Some((lease, _)) = which(&model, &names, lease, None) else { continue };
                if !model.is_known(lease) {
                    prop_assert_eq!(leases.give_back_uncounted(names[lease], None, now), Err(UnknownLease));
                    continue;
                }
                model.unite(lease);
                let held = model.held(lease);
                held.iter().for_each(|&at| {
                    model.put_back(at, 0, false);
                });
                prop_assert_eq!(leases.give_back_uncounted(names[lease], None, now), Ok(held));
            }
            Step::Close => {
                let resting = leases.resting();
                let rests = |entry: &Entry| matches!(entry.is, Is::Waiting(_)) && !entry.alone;
                let (closed, open) = model.open.drain(..).partition(rests);
                model.open = open;
                model.closed.extend::<Vec<Entry>>(closed);
                model.closed.sort_by_key(|entry| entry.at);
                for at in resting {
                    let unit = leases.unit_of(at);
                    leases.remove(at, now);
                    unit.into_iter().for_each(|unit| leases.await_unit(at, unit));
                }
            }
            Step::Reopen(most, skips) => {
                for entry in model.closed.drain(..most.min(model.closed.len())).collect::<Vec<_>>() {
                    let at = entry.at;
                    if !skips {
                        let Is::Waiting(from) = entry.is else { unreachable!() };
                        let Entry { key, attempts, alone, .. } = entry;
                        leases.admit([NewEntry { at, key, attempts, delay_until: Some(time(from)), alone }], now);
                        model.open.push(entry);
                    }
                    leases.await_no_longer(..=at, now);
                }
                model.open.sort_by_key(|entry| entry.at);
            }
            Step::Release(lease) => {
                if let Some((lease, _)) = which(&model, &names, lease, None) {
                    leases.release(names[lease], now);
                    for at in model.held(lease) {
                        model.put_back(at, 0, false);
                    }
                }
            }
            Step::Bury(most) => {
                for (at, attempts, _) in leases.given_up(most) {
                    prop_assert_eq!(
                        model.entry(at).map(|entry| (entry.attempts, entry.is)),
                        Some((attempts, Is::GivenUp))
                    );
                    leases.remove(at, now);
                    model.settle(at);
                }
            }
            Step::Cut(behind) => {
                let earliest = next.saturating_sub(behind * 8);
                let before = model.open.len();
                model.open.retain(|entry| entry.at >= earliest || matches!(entry.is, Is::Held(_)));
                prop_assert_eq!(leases.cut(earliest, now).len(), before - model.open.len());
                model.closed.retain(|entry| entry.at >= earliest);
                leases.await_no_longer(..earliest, now);
            }
            Step::Pass(by) => {
                model.pass(by);
                leases.advance(time(model.now));
            }
        }
        prop_assert_eq!(leases.len(), model.open.len());
        let given_up = model.open.iter().filter(|entry| entry.is == Is::GivenUp).count();
        prop_assert_eq!(leases.given_up(usize::MAX).len(), given_up);
        prop_assert_eq!(leases.tried(), model.open.iter().filter(|entry| entry.attempts > 0).count());
        prop_assert_eq!(leases.held(), model.open.iter().filter(|entry| matches!(entry.is, Is::Held(_))).count());
        prop_assert_eq!(leases.first_after(0), model.open.iter().map(|entry| entry.at).min());
        let can_be_had = {
            let mut copy = Model { now: model.now, ..Model::default() };
            copy.open.clone_from(&model.open);
            copy.closed.clone_from(&model.closed);
            copy.leases.clone_from(&model.leases);
            !copy.take(1, How::Response).is_empty()
        };
        prop_assert_eq!(leases.has_ready(), can_be_had);
    }
    Ok(())
}

properties! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn the_book_agrees_with_a_model_of_every_entry(steps in steps()) {
        check(steps)?;
    }
}

#[test]
fn a_thousand_readers_of_a_hundred_thousand_entries_cost_little_each() {
    let now = Instant::now();
    let mut leases = LeaseTable::default();
    leases.admit((1..=100_000u64).map(|at| new(at, at % 5000)), now);
    let hold = Hold::Lease { until: now + Duration::from_secs(30), max_attempts: 10 };
    let mut settled = 0;
    while leases.len() > 0 {
        let taken: Vec<_> = (0..1000).filter_map(|_| leases.take(10, hold, now)).collect();
        assert!(!taken.is_empty());
        for taken in taken {
            settled += leases.settle(&Selection::Lease(taken.lease), now).unwrap().len();
        }
    }
    assert_eq!(settled, 100_000);
    assert!(leases.keys.is_empty() && leases.listings.ready().is_none() && leases.leases.is_empty());
}
