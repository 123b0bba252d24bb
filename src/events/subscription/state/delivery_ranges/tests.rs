//! DeliveryRanges against a model that keeps the state of every entry.

use proptest::prelude::*;

use super::*;

impl DeliveryRanges {
    /// A reader says that it has all up to `last` that it was given.
    fn resume(&mut self, last: u64) -> Vec<Range<u64>> {
        self.speaker(last).map_or(Vec::new(), |by| self.hear(last, by))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Take(u64),
    /// Which of the ranges taken.
    Settle(usize),
    GiveBack(usize),
    Shorten(usize, u64),
    Cut(u64),
    /// So many entries before the end.
    Resume(u64),
    SettleTo(u64),
    /// So many entries, from so many before the end on.
    GiveAgain(u64, u64),
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Fresh,
    /// Given back, by which response; or by no response.
    Back(u32, bool),
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
        (0..60u64).prop_map(Step::Resume),
        (0..60u64).prop_map(Step::SettleTo),
        (1..60u64, 1..30u64).prop_map(|(from, many)| Step::GiveAgain(from, many)),
        Just(Step::Restart),
    ];
    prop::collection::vec(prop_oneof![3 => good, u32::from(faults) => bad], 0..120)
}

/// Index 0 stands before the log and is done.
struct Model {
    entries: Vec<Entry>,
    earliest: u64,
    responses: u32,
}

impl Model {
    fn set(&mut self, range: &Range<u64>, to: Entry) {
        for at in range.clone() {
            self.entries[at as usize] = to;
        }
    }

    fn give_back(&mut self, range: &Range<u64>) {
        self.responses += 1;
        self.set(range, Entry::Back(self.responses, true));
    }

    fn low(&self) -> u64 {
        self.entries.iter().take_while(|entry| **entry == Entry::Done).count() as u64 - 1
    }

    /// The first entry that was never claimed.
    fn fresh(&self) -> u64 {
        self.entries.iter().rposition(|entry| *entry != Entry::Fresh).map_or(0, |last| last as u64 + 1)
    }

    fn count(&self, of: impl Fn(Entry) -> bool) -> u64 {
        self.entries.iter().filter(|entry| of(**entry)).count() as u64
    }

    /// What the next take of so many is to get.
    fn next(&self, limit: u64) -> Option<Range<u64>> {
        let is_waiting = |entry: &Entry| matches!(entry, Entry::Fresh | Entry::Back(..));
        let first = self.entries.iter().position(is_waiting)?;
        let run = self.entries[first..].iter().take_while(|entry| **entry == self.entries[first]).count() as u64;
        Some(first as u64..first as u64 + run.min(limit))
    }

    fn cut(&mut self, earliest: u64) -> u64 {
        self.earliest = earliest;
        let gone = self.entries[..earliest as usize].iter_mut();
        gone.filter(|e| matches!(e, Entry::Fresh | Entry::Back(..))).map(|entry| *entry = Entry::Done).count() as u64
    }

    fn resume(&mut self, last: u64) -> u64 {
        let Entry::Back(response, true) = self.entries[last as usize] else { return 0 };
        let of_it = self.entries[..=last as usize].iter_mut();
        of_it.filter(|e| **e == Entry::Back(response, true)).map(|entry| *entry = Entry::Done).count() as u64
    }

    fn settle_to(&mut self, last: u64) -> u64 {
        let all = self.entries[..=last as usize].iter_mut();
        all.filter(|e| matches!(e, Entry::Fresh | Entry::Back(..))).map(|entry| *entry = Entry::Done).count() as u64
    }

    fn give_again(&mut self, range: Range<u64>) -> u64 {
        let (mut before, mut again) = (Entry::Fresh, 0);
        for at in range.start..range.end.min(self.fresh()) {
            let entry = self.entries[at as usize];
            if entry == Entry::Done {
                self.responses += u32::from(before != Entry::Done);
                self.entries[at as usize] = Entry::Back(self.responses, false);
                again += 1;
            }
            before = entry;
        }
        again
    }
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut ranges = DeliveryRanges::new(0);
    let mut model = Model { entries: vec![Entry::Done], earliest: 1, responses: 0 };
    let mut taken = Vec::<Range<u64>>::new();
    let pick = |which: usize, taken: &[Range<u64>]| if taken.is_empty() { None } else { Some(which % taken.len()) };
    for step in steps {
        let next = model.entries.len() as u64;
        match step {
            Step::Append(n) => model.entries.extend((0..n).map(|_| Entry::Fresh)),
            Step::Take(limit) => {
                let got = ranges.take(next, limit, None);
                prop_assert_eq!(&got, &model.next(limit), "the first that waits, of one response");
                if let Some(range) = got {
                    model.set(&range, Entry::UnderWay);
                    taken.push(range);
                }
            }
            Step::Settle(which) => {
                if let Some(which) = pick(which, &taken) {
                    let range = taken.swap_remove(which);
                    ranges.settle(range.start);
                    model.set(&range, Entry::Done);
                }
            }
            Step::GiveBack(which) => {
                if let Some(which) = pick(which, &taken) {
                    let range = taken.swap_remove(which);
                    ranges.give_back(range.start, true);
                    model.give_back(&range);
                }
            }
            Step::Shorten(which, by) => {
                if let Some(which) = pick(which, &taken) {
                    let range = &mut taken[which];
                    let at = range.start + by;
                    ranges.shorten(range.start, at, true);
                    if at < range.end {
                        let rest = at..std::mem::replace(&mut range.end, at);
                        if rest.end == model.fresh() {
                            model.set(&rest, Entry::Fresh);
                        } else {
                            model.give_back(&rest);
                        }
                    }
                }
            }
            Step::Cut(by) => {
                let lost = model.cut((model.earliest + by).min(next));
                prop_assert_eq!(ranges.cut(model.earliest).count(), lost);
            }
            Step::Resume(before_end) => {
                let last = (next - 1).saturating_sub(before_end).max(model.earliest - 1);
                prop_assert_eq!(length(&ranges.resume(last)), model.resume(last));
            }
            Step::SettleTo(before_end) => {
                let last = (next - 1).saturating_sub(before_end).max(model.earliest - 1);
                prop_assert_eq!(length(&ranges.settle_to(last)), model.settle_to(last));
            }
            Step::GiveAgain(before_end, many) => {
                let first = next.saturating_sub(before_end).max(model.earliest);
                let range = first..(first + many).min(next).max(first);
                prop_assert_eq!(length(&ranges.give_again(range.clone())), model.give_again(range));
            }
            Step::Restart => {
                let low = ranges.low();
                ranges = DeliveryRanges::new(low);
                taken.clear();
                model.set(&(low + 1..next), Entry::Fresh);
                ranges.cut(model.earliest);
                let gone = &mut model.entries[..model.earliest as usize];
                gone.iter_mut().for_each(|entry| *entry = Entry::Done);
            }
        }
        prop_assert_eq!(ranges.low(), model.low());
        prop_assert_eq!(ranges.in_flight(), model.count(|entry| entry == Entry::UnderWay));
        let next = model.entries.len() as u64;
        prop_assert_eq!(ranges.lag(next), model.count(|entry| entry != Entry::Done));
    }
    Ok(())
}

#[test]
fn one_who_resumes_speaks_for_its_own_response_and_for_no_other() {
    let mut ranges = DeliveryRanges::new(0);
    let take = |ranges: &mut DeliveryRanges, limit| ranges.take(21, limit, None);
    assert_eq!((take(&mut ranges, 10), take(&mut ranges, 10)), (Some(1..11), Some(11..21)));
    ranges.give_back(1, true);
    ranges.give_back(11, true);
    assert_eq!(length(&ranges.resume(14)), 4);
    assert_eq!(take(&mut ranges, 20), Some(1..11), "the other's, of which this one says nothing");
    assert_eq!(take(&mut ranges, 20), Some(15..21));
    ranges.settle(1);
    ranges.settle(15);
    assert_eq!(ranges.low(), 20);
    assert_eq!(ranges.give_again(18..21), vec![18..21]);
    assert_eq!(ranges.resume(19), [], "given back by no response: whoever got 19 does not speak for the others");
    assert_eq!(take(&mut ranges, 20), Some(18..21));
    ranges.give_back(18, false);
    assert_eq!(ranges.resume(19), [], "nor was it in a response since");
}

properties! {
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

#[test]
fn of_what_a_stream_gave_back_its_reader_has_what_came_before_the_place_that_it_says() {
    let (one, other) = (StreamNumber::new(1), StreamNumber::new(2));
    let mut ranges = DeliveryRanges::new(0);
    // Two streams take turns, several reads of each under way; one takes last what another gave back before.
    assert_eq!(ranges.take(100, 10, None), Some(1..11));
    for (stream, range) in [(one, 11..21), (other, 21..31), (one, 31..41), (one, 41..51)] {
        assert_eq!(ranges.take(100, 10, stream), Some(range));
    }
    ranges.give_back(1, true);
    assert_eq!(ranges.take(100, 10, one), Some(1..11));
    [1, 11, 21, 31, 41].into_iter().for_each(|start| ranges.give_back(start, true));
    let mut same = ranges.clone();
    assert_eq!(ranges.resume(35), [11..21, 31..36], "it has no more: the first ten came last");
    assert_eq!((ranges.lag(100), ranges.take(100, 100, one)), (49 + 10 + 10 + 5 + 10, Some(1..11)));
    assert_eq!(same.resume(5), [11..21, 31..41, 41..51, 1..6], "they came last: it has all before");
    assert_eq!(same.take(100, 100, one), Some(6..11));
    assert_eq!(same.take(100, 100, one), Some(21..31), "the other's reader speaks for itself");
}
