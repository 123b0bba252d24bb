//! Claims against a model that keeps the state of every entry.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Take(u64),
    /// Which of the ranges taken.
    Settle(usize),
    GiveBack(usize),
    Shorten(usize, u64),
    Cut(u64),
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Waiting,
    UnderWay,
    Done,
}

fn steps(faults: bool) -> impl Strategy<Value = Vec<Step>> {
    let good = prop_oneof![
        (1..20u64).prop_map(Step::Append),
        (1..15u64).prop_map(Step::Take),
        (1..15u64).prop_map(Step::Take),
        (0..8usize).prop_map(Step::Settle),
        (0..8usize).prop_map(Step::Settle),
    ];
    let bad = prop_oneof![
        (0..8usize).prop_map(Step::GiveBack),
        (0..8usize, 1..10u64).prop_map(|(which, by)| Step::Shorten(which, by)),
        (0..20u64).prop_map(Step::Cut),
        Just(Step::Restart),
    ];
    prop::collection::vec(prop_oneof![3 => good, u32::from(faults) => bad], 0..120)
}

/// Index 0 stands before the log and is done.
struct Model {
    entries: Vec<Entry>,
    earliest: u64,
}

impl Model {
    fn set(&mut self, range: &Range<u64>, to: Entry) {
        for at in range.clone() {
            self.entries[at as usize] = to;
        }
    }

    fn low(&self) -> u64 {
        self.entries.iter().take_while(|entry| **entry == Entry::Done).count() as u64 - 1
    }

    fn count(&self, of: Entry) -> u64 {
        self.entries.iter().filter(|entry| **entry == of).count() as u64
    }
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut claims = Claims::new(0);
    let mut model = Model { entries: vec![Entry::Done], earliest: 1 };
    let mut taken = Vec::<Range<u64>>::new();
    let pick = |which: usize, taken: &[Range<u64>]| if taken.is_empty() { None } else { Some(which % taken.len()) };
    for step in steps {
        let next = model.entries.len() as u64;
        match step {
            Step::Append(n) => model.entries.extend((0..n).map(|_| Entry::Waiting)),
            Step::Take(limit) => {
                let got = claims.take(next, limit);
                let first = model.entries.iter().position(|entry| *entry == Entry::Waiting);
                prop_assert_eq!(got.as_ref().map(|range| range.start as usize), first, "the first that waits");
                if let Some(range) = got {
                    prop_assert!(range.end - range.start <= limit);
                    for at in range.clone() {
                        prop_assert_eq!(model.entries[at as usize], Entry::Waiting);
                    }
                    model.set(&range, Entry::UnderWay);
                    taken.push(range);
                }
            }
            Step::Settle(which) => {
                if let Some(which) = pick(which, &taken) {
                    let range = taken.swap_remove(which);
                    claims.settle(range.start);
                    model.set(&range, Entry::Done);
                }
            }
            Step::GiveBack(which) => {
                if let Some(which) = pick(which, &taken) {
                    let range = taken.swap_remove(which);
                    claims.give_back(range.start);
                    model.set(&range, Entry::Waiting);
                }
            }
            Step::Shorten(which, by) => {
                if let Some(which) = pick(which, &taken) {
                    let range = &mut taken[which];
                    let at = range.start + by;
                    claims.shorten(range.start, at);
                    if at < range.end {
                        model.set(&(at..range.end), Entry::Waiting);
                        range.end = at;
                    }
                }
            }
            Step::Cut(by) => {
                model.earliest = (model.earliest + by).min(next);
                let gone = &mut model.entries[..model.earliest as usize];
                let lost = gone.iter_mut().filter(|entry| **entry == Entry::Waiting).map(|e| *e = Entry::Done).count();
                prop_assert_eq!(claims.cut(model.earliest), lost as u64);
            }
            Step::Restart => {
                let low = claims.low();
                claims = Claims::new(low);
                taken.clear();
                let end = model.entries.len() as u64;
                model.set(&(low + 1..end), Entry::Waiting);
                claims.cut(model.earliest);
                let gone = &mut model.entries[..model.earliest as usize];
                gone.iter_mut().for_each(|entry| *entry = Entry::Done);
            }
        }
        prop_assert_eq!(claims.low(), model.low());
        prop_assert_eq!(claims.in_flight(), model.count(Entry::UnderWay));
        let next = model.entries.len() as u64;
        prop_assert_eq!(claims.lag(next), model.count(Entry::Waiting) + model.count(Entry::UnderWay));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn claims_agree_with_a_model_of_every_entry(steps in steps(true)) {
        check(steps)?;
    }

    #[test]
    fn readers_of_one_subscription_get_each_entry_once_while_nothing_fails(steps in steps(false)) {
        check(steps)?;
    }
}
