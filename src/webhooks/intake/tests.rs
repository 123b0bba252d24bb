use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::clock::UnixMillis;
use crate::events::Run;
use crate::names::RegionName;
use crate::store::{Batch, Content, EventText, Sequence};

fn entries(range: Range<u64>) -> Vec<Entry> {
    if range.is_empty() {
        return Vec::new();
    }
    let count = (range.end - range.start) as usize;
    let text = EventText::join(std::iter::repeat_n(&b"{}"[..], count)).unwrap();
    let batch = Batch {
        first: Sequence(range.start),
        received_at: UnixMillis(1),
        region: RegionName::parse("cn").unwrap(),
        content: Content::Events(text),
    };
    Entry::all_of(&[Run { batch: Arc::new(batch), entries: 0..count }], 1, 1)
}

fn held(first: u64, last: u64) -> Held {
    Held { first, last, attempts: 2, due: 0 }
}

/// The numbers of each unit's entries, of a read of this range.
fn take(intake: &mut Intake, range: Range<u64>) -> Vec<Vec<u64>> {
    let upto = range.end - 1;
    let groups = intake.take(entries(range), upto, Receipt::of_nothing());
    groups.iter().map(|group| group.load.entries.iter().map(Entry::number).collect()).collect()
}

#[test]
fn what_is_done_is_left_out_until_the_record_is_caught_up_with() {
    let record = Record { claimed: 6, held: vec![held(3, 3)], ..Record::default() };
    let mut intake = Intake::new(record, 1);
    assert_eq!(take(&mut intake, 1..5), [[3]]);
    assert_eq!(take(&mut intake, 5..9), [[7], [8]]);
    assert_eq!(take(&mut intake, 2..3), [[2]], "given again, so wanted again");
    assert_eq!((intake.claimed(), intake.awaited().count()), (8, 0));
}

#[test]
fn what_is_given_out_of_turn_was_put_back() {
    let mut intake = Intake::new(Record { claimed: 9, held: vec![], ..Record::default() }, 1);
    assert_eq!(take(&mut intake, 4..6), [[0; 0]; 0]);
    assert_eq!(take(&mut intake, 3..4), [[3]]);
    assert_eq!((take(&mut intake, 6..7), intake.is_behind()), (vec![], true));
    intake.caught_up();
    assert_eq!(take(&mut intake, 8..9), [[8]]);
}

#[test]
fn what_was_put_back_comes_by_itself_and_says_nothing_of_others() {
    let mut intake = Intake::new(Record { claimed: 6, held: vec![held(5, 5)], ..Record::default() }, 10);
    let mut put_back = |numbers: &[u64]| {
        let entries = numbers.iter().flat_map(|&n| entries(n..n + 1)).collect();
        let groups = intake.take_put_back(entries, Receipt::of_nothing());
        let known = |group: &Group| (group.load.entries[0].number(), group.held.map(|held| held.attempts));
        assert!(groups.iter().all(|group| group.load.entries.len() == 1));
        groups.iter().map(known).collect::<Vec<_>>()
    };
    assert_eq!(put_back(&[2, 5, 9]), [(2, None), (5, Some(2)), (9, None)]);
    assert_eq!((intake.claimed(), intake.is_behind(), intake.awaited().count()), (6, true, 0));
    assert_eq!(take(&mut intake, 1..7), [[0; 0]; 0], "what is done stays so");
    assert_eq!(take(&mut intake, 7..9), [[7, 8]]);
}

#[test]
fn what_went_out_as_one_goes_out_as_one_again_though_it_comes_in_pieces() {
    let record = Record { claimed: 9, held: vec![held(2, 5), held(8, 9)], ..Record::default() };
    let mut intake = Intake::new(record, 100);
    assert_eq!(take(&mut intake, 1..4), [[0; 0]; 0]);
    assert_eq!(intake.awaited().map(|h| (h.first, h.last)).collect::<Vec<_>>(), [(2, 5), (8, 9)]);
    assert_eq!(take(&mut intake, 4..9), [[2, 3, 4, 5]]);
    assert_eq!(take(&mut intake, 9..12), [vec![8, 9], vec![10, 11]]);
}

#[test]
fn a_batch_that_is_to_go_out_one_by_one_leaves_nothing_behind() {
    let mut intake = Intake::new(Record { claimed: 9, held: vec![held(2, 5)], ..Record::default() }, 1);
    assert_eq!(take(&mut intake, 1..4), [[2], [3]]);
    assert_eq!(intake.awaited().map(|h| (h.first, h.last)).collect::<Vec<_>>(), [(4, 5)]);
    assert_eq!(take(&mut intake, 4..11), [[4], [5], [10]]);
}

proptest! {
    /// However reads are cut: what is not done comes once, in order; what is done does not come; batches stay whole.
    #[test]
    fn every_entry_that_is_not_done_comes_once_in_order(
        claimed in 0u64..40,
        cuts in prop::collection::vec(1u64..12, 1..12),
        ranges in prop::collection::vec((1u64..4, 0u64..4), 0..8),
        most in prop::sample::select(vec![1usize, 5, 100]),
    ) {
        let mut at = 0;
        let mut all_held = Vec::new();
        for (gap, length) in ranges {
            let (first, last) = (at + gap, at + gap + length);
            if last > claimed || length as usize >= most {
                break;
            }
            all_held.push(held(first, last));
            at = last;
        }
        let mut intake = Intake::new(Record { claimed, held: all_held.clone(), ..Record::default() }, most);
        let (mut next, mut groups) = (1, Vec::new());
        for cut in cuts {
            groups.extend(take(&mut intake, next..next + cut));
            next += cut;
        }
        groups.extend(take(&mut intake, next..next + 50));
        let is_held = |n: u64| all_held.iter().any(|h| h.first <= n && n <= h.last);
        let wanted: Vec<u64> = (1..next + 50).filter(|n| *n > claimed || is_held(*n)).collect();
        prop_assert_eq!(groups.concat(), wanted);
        for h in &all_held {
            let whole: Vec<u64> = (h.first..=h.last).collect();
            prop_assert!(groups.contains(&whole), "{:?} in {:?}", whole, groups);
        }
        prop_assert_eq!(intake.awaited().count(), 0);
    }
}
