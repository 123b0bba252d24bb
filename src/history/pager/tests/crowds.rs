//! Many messages of one millisecond, pages shorter than asked for, and an order among equals that nothing promises:
//! what is read, and what it costs.

use super::*;

fn messages(count: u64, ms: impl Fn(u64) -> u64, alike: u64) -> Vec<(u64, u16)> {
    (0..count).map(|n| (ms(n), (n % alike) as u16)).collect()
}

async fn read_all(vendor: &Arc<Vendor>, direction: Direction) -> (Vec<Bytes>, u64) {
    let mut pager = Pager::resume(Arc::clone(vendor), &query(0, usize::MAX, direction), None);
    let mut got = Vec::new();
    while let Some(messages) = pager.next().await.unwrap() {
        got.extend(messages);
    }
    (got, pager.repairs())
}

/// How many pages were asked for that could hold something. Those beyond the end are begun before it is known, and are
/// given up when it is.
fn useful(vendor: &Vendor) -> usize {
    let all = vendor.list.lock().unwrap().len() as u64;
    vendor.asked.lock().unwrap().iter().filter(|query| query.offset < all).count()
}

fn resting(vendor: &Vendor, query: &Query) -> Vec<Bytes> {
    let Query { filter, offset, limit, direction, .. } = query.clone();
    vendor.all(&PageQuery { filter, offset, limit, direction })
}

#[tokio::test(start_paused = true)]
async fn equal_times_cost_hardly_more_pages_than_others() {
    for apart in [1, 700] {
        for (crowd, most) in [(1, 1.1), (2, 1.1), (5, 1.1), (20, 1.1), (60, 1.1), (99, 1.1), (150, 1.5), (1500, 1.5)] {
            for direction in [Direction::Asc, Direction::Desc] {
                let mut stored = messages(12_000, |n| NOW - 90_000 + n / crowd * apart % 90_000, 60_000);
                stored.sort_unstable();
                let vendor = Vendor { in_turn: true, latency: 10..11, ..Vendor::new(stored, vec![], 1) };
                let vendor = Arc::new(vendor);
                let (got, repairs) = read_all(&vendor, direction).await;
                assert_eq!(got, resting(&vendor, &query(0, usize::MAX, direction)));
                let pages = vendor.given.load(Ordering::Relaxed) / PAGE;
                let ratio = pages as f64 / 120.0;
                assert!(ratio <= most, "{crowd} a millisecond, {apart} apart: {pages} pages, {repairs} repairs");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_all_alike_cost_a_few_times_their_pages() {
    for (crowd, most) in [(20, 2.0), (60, 3.5), (150, 6.5), (1500, 3.0)] {
        for direction in [Direction::Asc, Direction::Desc] {
            let stored = messages(6000, |n| NOW - 9000 + n / crowd, 1);
            let vendor = Vendor { in_turn: true, latency: 10..11, ..Vendor::new(stored, vec![], 1) };
            let vendor = Arc::new(vendor);
            let (got, repairs) = read_all(&vendor, direction).await;
            assert_eq!(got, resting(&vendor, &query(0, usize::MAX, direction)));
            let pages = vendor.given.load(Ordering::Relaxed) / PAGE;
            assert!(pages as f64 <= most * 60.0, "{crowd} a millisecond: {pages} pages, {repairs} repairs");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_head_does_not_make_the_quiet_rest_dearer() {
    let stored = messages(12_000, |n| if n < 1000 { NOW - 90_000 + n / 40 } else { NOW - 80_000 + n }, 60_000);
    let vendor = Arc::new(Vendor { latency: 10..30, ..Vendor::new(stored, vec![], 1) });
    let (got, _) = read_all(&vendor, Direction::Asc).await;
    assert_eq!(got.len(), 12_000);
    let pages = useful(&vendor);
    assert!(pages <= 129, "{pages} pages for 120");
}

#[tokio::test(start_paused = true)]
async fn a_short_page_does_not_end_a_list() {
    for most in [20, 50, 99] {
        for (stored, limit) in [(2345, 2000), (2345, 3000), (120, 101), (most as u64, 101), (99, usize::MAX)] {
            for direction in [Direction::Asc, Direction::Desc] {
                let list = messages(stored, |n| NOW - 90_000 + n * 7, 60_000);
                let vendor = Arc::new(Vendor { most, latency: 10..30, ..Vendor::new(list, vec![], 1) });
                let query = query(0, limit, direction);
                assert_eq!(read(&vendor, &query).await, resting(&vendor, &query), "{most} of {stored}");
                let pages = useful(&vendor);
                let least = stored.min(limit as u64).div_ceil(most as u64 - 7) as usize;
                assert!(pages <= least + 5, "{pages} pages of {most} for {stored}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_list_ends_takes_one_page_more_at_most() {
    for (stored, limit, pages) in
        [(0, 101, 1), (60, 101, 2), (60, 100, 1), (150, 200, 3), (150, 150, 2), (190, 5000, 3)]
    {
        let list = messages(stored, |n| NOW - 90_000 + n * 7, 60_000);
        let vendor = Arc::new(Vendor { in_turn: true, latency: 10..11, ..Vendor::new(list, vec![], 1) });
        assert_eq!(read(&vendor, &query(0, limit, Direction::Asc)).await.len(), limit.min(stored as usize));
        let asked = vendor.asked.lock().unwrap();
        // What is begun beside the last page is given up when that turns out to be it.
        let needed = asked.iter().filter(|query| query.offset < stored.max(1)).count();
        assert_eq!(needed, pages, "{stored} messages, {limit} wanted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_grows_all_the_time_ends() {
    let arrive = |n: u64| (Duration::from_millis(n * 5), Motion::Arrives { ahead_ms: 0, payload: (n % 9) as u16 });
    let stored = messages(250, |n| NOW - 90_000 + n * 7, 60_000);
    let vendor = Vendor { latency: 100..101, ..Vendor::new(stored, (1..40_000).map(arrive).collect(), 1) };
    let vendor = Arc::new(vendor);
    let query = query(0, usize::MAX, Direction::Asc);
    let got = read(&vendor, &query).await;
    check(&vendor, &query, &got);
    assert!(vendor.began.elapsed() < Duration::from_secs(2), "{:?}", vendor.began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_gives_few_at_a_time_and_has_many_of_one_millisecond_is_read_for_the_pages_they_take() {
    for most in [20, 50] {
        for crowd in [50, 300] {
            let stored = messages(2000, |n| NOW - 90_000 + n / crowd, 60_000);
            let vendor = Arc::new(Vendor { most, latency: 10..30, ..Vendor::new(stored, vec![], 1) });
            let query = query(0, 2000, Direction::Asc);
            assert_eq!(read(&vendor, &query).await, resting(&vendor, &query));
            let pages = useful(&vendor);
            assert!(pages <= 2000 / most * 3 / 2 + 5, "{pages} pages of {most} at {crowd} a millisecond");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_whose_order_differs_each_time_it_is_said_soon_that_they_cannot_be_told() {
    for direction in [Direction::Asc, Direction::Desc] {
        let stored = messages(400, |n| NOW - 90_000 + n / 130, 60_000);
        let vendor = Arc::new(Vendor { is_turned: true, latency: 10..30, ..Vendor::new(stored, vec![], 1) });
        let mut pager = Pager::new(Arc::clone(&vendor), &query(0, 400, direction));
        let error = loop {
            match pager.next().await {
                Ok(messages) => assert!(messages.is_some(), "it is at its end"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("another order"), "{error}");
        assert!(vendor.began.elapsed() < Duration::from_secs(3), "{:?}", vendor.began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_gone_on_with_among_any_number_of_one_millisecond() {
    for (crowd, cuts) in [(101, vec![1, 1]), (1500, vec![1, 3, 1, 7]), (4000, vec![1, 19, 1, 20])] {
        for direction in [Direction::Asc, Direction::Desc] {
            let ms = |n: u64| NOW - 5000 + if n < 150 { 0 } else { 10 + (n - 150) / crowd };
            let vendor = Arc::new(Vendor::new((0..150 + crowd * 2).map(|n| (ms(n), (n % 9973) as u16)), vec![], 1));
            let query = query(0, usize::MAX, direction);
            let got = read_with_cuts(&vendor, &query, &cuts).await.unwrap();
            let filter = query.filter.clone();
            assert_eq!(got, vendor.all(&PageQuery { filter, offset: 0, limit: usize::MAX, direction }));
        }
    }
}

properties! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_list_is_whole_whatever_crowds_however_short_pages_are_and_in_whatever_order_equals_come(
        crowd in prop_oneof![1..8_u64, 10..95_u64, 95..130_u64, Just(700_u64)],
        apart in prop_oneof![Just(1_u64), 1..900_u64],
        alike in prop_oneof![Just(1_u64), Just(3), Just(60_000)],
        count in 0..900_u64,
        motions in prop_oneof![2 => Just(vec![]), 1 => motions()],
        most in prop_oneof![3 => Just(100_usize), 1 => 20..100_usize],
        cut_short in prop_oneof![3 => Just(0.0), 1 => Just(0.1)],
        is_turned in prop_oneof![3 => Just(false), 1 => Just(true)],
        cuts in prop_oneof![1 => Just(vec![]), 1 => prop::collection::vec(1..4_usize, 1..6)],
        offset in prop_oneof![3 => Just(0_u64), 1 => 0..300_u64],
        direction in directions(),
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (rests, cut) = (motions.is_empty(), !cuts.is_empty());
            let stored = messages(count, |n| NOW - 80_000 + n / crowd * apart % 80_000, alike);
            // Where a page cannot hold all of a millisecond and they come in any order, it is said that it cannot be
            // told.
            let is_told = !is_turned || crowd <= 60 && most == 100 && cut_short == 0.0;
            let vendor = Arc::new(Vendor { most, cut_short, is_turned, ..Vendor::new(stored, motions, seed) });
            let query = query(if cut { 0 } else { offset }, usize::MAX, direction);
            let got = match cut {
                true => read_with_cuts(&vendor, &query, &cuts).await,
                false => try_read(&vendor, &query).await,
            };
            let got = match got {
                Ok(got) => got,
                Err(error) if !is_told || !rests && error.to_string().contains("faster") => return,
                Err(error) => panic!("{error}"),
            };
            if query.offset == 0 || !is_turned {
                check(&vendor, &query, &got);
            }
            if rests && !is_turned {
                assert_eq!(got, resting(&vendor, &query));
            }
        });
    }
}

properties! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_lies_outside_by_its_ms_counts_for_nothing(
        crowd in prop_oneof![1..8_u64, 95..130_u64],
        count in 0..900_u64,
        from in prop::option::of(1..999_u64),
        to in prop::option::of(1..999_u64),
        seconds in 0..3_u64,
        offset in prop_oneof![Just(0_u64), 0..30_u64, 0..600_u64],
        limit in prop_oneof![1..101_usize, 1..900_usize],
        most in prop_oneof![3 => Just(100_usize), 1 => 30..100_usize],
        direction in directions(),
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let base = NOW - 3000;
            let stored = messages(count, |n| base + n / crowd * 7 % 4000, 60_000);
            let limit = if most < 100 { limit.max(101) } else { limit };
            let vendor = Arc::new(Vendor { most, ..Vendor::new(stored, vec![], seed) });
            let within = Within { from: from.map(|ms| base + ms), to: to.map(|ms| base + 999 + seconds * 1000 + ms) };
            let filter = Filter {
                source: Some("s".into()),
                destination: None,
                start: base / 1000,
                end: within.to.map_or(NOW / 1000 + 9, |to| to.div_ceil(1000)),
            };
            let asked = Query { filter, within, offset, limit, direction };
            let all = resting(&vendor, &Query { offset: 0, limit: usize::MAX, ..asked.clone() });
            let held = all.into_iter().filter(|text| within.holds(message_ms(text).unwrap()));
            let wanted: Vec<_> = held.skip(usize::try_from(offset).unwrap()).take(limit).collect();
            vendor.asked.lock().unwrap().clear();
            assert_eq!(read(&vendor, &asked).await, wanted);
            // Those before it in its first second may be all there are; then what is wanted, and where it ends.
            let pages = useful(&vendor);
            assert!(pages <= 40 + wanted.len() / 10, "{pages} pages for {}", wanted.len());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn many_of_one_millisecond_that_are_alike_are_told_also_where_a_page_is_short_now_and_then() {
    for (direction, seed) in [(Direction::Asc, 1), (Direction::Asc, 2), (Direction::Desc, 3), (Direction::Desc, 4)] {
        let stored = messages(4000, |n| NOW - 90_000 + n / 2000, 3);
        let vendor = Vendor { cut_short: 0.1, latency: 10..30, ..Vendor::new(stored, vec![], seed) };
        let vendor = Arc::new(vendor);
        let query = query(0, usize::MAX, direction);
        assert_eq!(read(&vendor, &query).await.len(), 4000);
        let pages = useful(&vendor);
        assert!(pages <= 400, "{pages} pages for 40");
    }
}

/// Equal times come in the order of their payloads from either end.
struct Unmirrored(Vec<(u64, u16)>);

impl Pages for Unmirrored {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        let mut list = self.0.clone();
        list.sort_by_key(|(ms, payload)| {
            (if query.direction == Direction::Asc { *ms } else { u64::MAX - ms }, *payload)
        });
        let page = list.into_iter().skip(usize::try_from(query.offset).unwrap()).take(query.limit);
        Ok(Page { texts: page.map(|(ms, payload)| text(ms, payload)).collect(), ..Page::default() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_ends_among_those_of_which_an_offset_skipped_some_in_whatever_order_its_other_end_shows_them() {
    for direction in [Direction::Asc, Direction::Desc] {
        for (number, offset) in [(130, 20), (250, 20), (700, 81), (150, 149)] {
            let mut pager = Pager::new(
                Arc::new(Unmirrored((0..number).map(|n| (NOW - 1000, n)).collect())),
                &query(offset, 10_000, direction),
            );
            let mut got = Vec::new();
            while let Some(messages) = pager.next().await.unwrap() {
                got.extend(messages);
            }
            let wanted: Vec<_> = (0..number).map(|n| text(NOW - 1000, n)).skip(offset as usize).collect();
            assert!(got == wanted, "{} of {number} at {offset}", got.len());
        }
    }
}
