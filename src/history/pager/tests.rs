//! The pager against a vendor that moves under it.

mod crowds;
mod model;
mod overtaken;
mod quota;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::time::Instant;

use super::*;
use crate::history::cursor;
use crate::history::query::Within;
use crate::kernel::testing::pass;
use crate::vendor::history::{Direction, Filter, PageQuery, message_ms};

/// The wall clock when a test begins, in milliseconds.
const NOW: u64 = 1_600_000_000_000;

/// How the vendor reads `end_time`: its page does not say.
#[derive(Clone, Copy, Debug)]
enum End {
    Exclusive,
    Instant,
    Second,
}

impl End {
    /// The times, in milliseconds, that a window holds.
    fn times(self, filter: &Filter) -> std::ops::Range<u64> {
        let end = match self {
            End::Exclusive => filter.end * 1000,
            End::Instant => filter.end * 1000 + 1,
            End::Second => (filter.end + 1) * 1000,
        };
        filter.start * 1000..end
    }

    /// Whether a window holds a message of that time.
    fn selects(self, filter: &Filter, ms: u64) -> bool {
        self.times(filter).contains(&ms)
    }
}

#[derive(Clone, Debug)]
enum Motion {
    /// A message, so long from now, with one of a few payloads.
    Arrives { ahead_ms: u64, payload: u16 },
    /// So many of the oldest go.
    Expires(usize),
}

#[derive(Debug)]
struct Stored {
    ms: u64,
    text: Bytes,
    came: Duration,
    went: Option<Duration>,
}

#[derive(Debug)]
struct Vendor {
    began: Instant,
    end: End,
    evaluates_at_fetch: bool,
    latency: std::ops::Range<u64>,
    rng: Mutex<StdRng>,
    motions: Mutex<Vec<(Duration, Motion)>>,
    /// Oldest first, those that went too.
    list: Mutex<Vec<Stored>>,
    pages: AtomicUsize,
    asked: Mutex<Vec<PageQuery>>,
    /// How many messages went out.
    given: AtomicUsize,
    /// How many messages a page holds at most, whatever was asked for.
    most: usize,
    /// How often a page holds fewer, as chance has it.
    cut_short: f64,
    /// Messages of one millisecond come in another order each time.
    is_turned: bool,
    /// One page at a time.
    in_turn: bool,
    turn: tokio::sync::Semaphore,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

fn text(ms: u64, payload: u16) -> Bytes {
    format!(r#"{{"dst":"d","ms":{ms},"payload":"{payload}"}}"#).into()
}

impl Vendor {
    fn new(stored: impl IntoIterator<Item = (u64, u16)>, motions: Vec<(Duration, Motion)>, seed: u64) -> Self {
        let stored = stored.into_iter();
        let mut list: Vec<_> = stored
            .map(|(ms, payload)| Stored { ms, text: text(ms, payload), came: Duration::ZERO, went: None })
            .collect();
        list.sort_by_key(|stored| stored.ms);
        Self {
            began: Instant::now(),
            end: End::Second,
            evaluates_at_fetch: false,
            latency: 1..200,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            motions: Mutex::new(motions),
            list: Mutex::new(list),
            pages: AtomicUsize::new(0),
            asked: Mutex::default(),
            given: AtomicUsize::new(0),
            most: PAGE,
            cut_short: 0.0,
            is_turned: false,
            in_turn: false,
            turn: tokio::sync::Semaphore::new(1),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        }
    }

    fn move_on(&self) {
        let now = self.began.elapsed();
        let mut list = self.list.lock().unwrap();
        let mut motions = self.motions.lock().unwrap();
        while motions.first().is_some_and(|(at, _)| *at <= now) {
            let (at, motion) = motions.remove(0);
            match motion {
                Motion::Arrives { ahead_ms, payload } => {
                    let ms = NOW + u64::try_from(at.as_millis()).unwrap() + ahead_ms;
                    let place = list.partition_point(|stored| stored.ms <= ms);
                    list.insert(place, Stored { ms, text: text(ms, payload), came: at, went: None });
                }
                Motion::Expires(count) => {
                    for stored in list.iter_mut().filter(|stored| stored.went.is_none()).take(count) {
                        stored.went = Some(at);
                    }
                }
            }
        }
    }

    /// What a query selects, however much that is.
    fn all(&self, query: &PageQuery) -> Vec<Bytes> {
        self.move_on();
        let list = self.list.lock().unwrap();
        let mut there: Vec<_> =
            list.iter().filter(|s| s.went.is_none() && self.end.selects(&query.filter, s.ms)).collect();
        if self.is_turned {
            let mut rng = self.rng.lock().unwrap();
            there.chunk_by_mut(|a, b| a.ms == b.ms).for_each(|equal| equal.shuffle(&mut *rng));
        }
        if query.direction == Direction::Desc {
            there.reverse();
        }
        let skip = usize::try_from(query.offset).unwrap();
        there.into_iter().skip(skip).take(query.limit).map(|stored| stored.text.clone()).collect()
    }

    fn evaluate(&self, query: &PageQuery) -> Vec<Bytes> {
        let mut page = self.all(query);
        page.truncate(self.most);
        let mut rng = self.rng.lock().unwrap();
        if self.cut_short > 0.0 && page.len() > 20 && rng.random_bool(self.cut_short) {
            page.truncate(rng.random_range(20..page.len()));
        }
        page
    }

    async fn pause(&self) {
        let ms = self.rng.lock().unwrap().random_range(self.latency.clone());
        pass(Duration::from_millis(ms)).await;
    }
}

impl Pages for Vendor {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.asked.lock().unwrap().push(query.clone());
        let _turn = if self.in_turn { self.turn.acquire().await.ok() } else { None };
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        self.pause().await;
        let early = self.evaluate(&query);
        self.pause().await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let texts = if self.evaluates_at_fetch { self.evaluate(&query) } else { early };
        self.given.fetch_add(texts.len(), Ordering::Relaxed);
        Ok(Page { texts, ..Page::default() })
    }
}

fn query(offset: u64, limit: usize, direction: Direction) -> Query {
    let now = NOW / 1000;
    let filter = Filter { source: Some("s".into()), destination: None, start: now - 100, end: now + 1000 };
    Query { filter, within: Within::default(), offset, limit, direction }
}

/// Reads with cuts: after so many parts each the reader is gone, and another goes on where the last part ended.
async fn read_with_cuts(vendor: &Arc<Vendor>, query: &Query, cuts: &[usize]) -> Result<Vec<Bytes>, Error> {
    let question = [1; 8];
    let mut all = Vec::new();
    let mut cursor = cursor::write(question, None);
    let mut cuts = cuts.iter();
    loop {
        let after = cursor::read(&cursor, question, query.direction).unwrap();
        let mut pager = Pager::resume(Arc::clone(vendor), query, after);
        let mut parts = cuts.next().copied().unwrap_or(usize::MAX);
        while parts > 0 {
            let Some(messages) = pager.next().await? else { return Ok(all) };
            all.extend(messages);
            cursor = cursor::write(question, pager.place());
            parts -= 1;
        }
        pass(Duration::from_millis(50)).await;
    }
}

async fn read(vendor: &Arc<Vendor>, query: &Query) -> Vec<Bytes> {
    try_read(vendor, query).await.unwrap()
}

async fn try_read(vendor: &Arc<Vendor>, query: &Query) -> Result<Vec<Bytes>, Error> {
    let mut pager = Pager::new(Arc::clone(vendor), query);
    let mut all = Vec::new();
    while let Some(messages) = pager.next().await? {
        assert!(!messages.is_empty());
        all.extend(messages);
    }
    Ok(all)
}

/// What must hold of a list read from a vendor that moved meanwhile. Messages of equal text cannot be told apart, so
/// they are counted.
fn check(vendor: &Vendor, query: &Query, got: &[Bytes]) {
    let until = vendor.began.elapsed();
    vendor.move_on();
    let list = vendor.list.lock().unwrap();
    let before = |a: u64, b: u64| run::is_before(query.direction, a, b);
    let selected = || list.iter().filter(|s| vendor.end.selects(&query.filter, s.ms) && s.came <= until);
    let stayed = || selected().filter(|s| s.came.is_zero() && s.went.is_none_or(|went| went > until));
    let times: Vec<u64> = got.iter().map(|text| crate::vendor::history::message_ms(text).unwrap()).collect();
    let got_of = counts(got.iter());
    let ever_of = counts(selected().map(|s| &s.text));
    let stayed_of = counts(stayed().map(|s| &s.text));

    assert!(got.len() <= query.limit);
    assert!(times.is_sorted_by(|a, b| !before(*b, *a)), "not in order");
    for (text, count) in &got_of {
        let ever = ever_of.get(text).copied().unwrap_or_default();
        assert!(*count <= ever, "{count} of {text:?}, of which there were ever {ever}");
    }
    let (first, last) = match (times.first(), times.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => {
            assert!(stayed().count() as u64 <= query.offset, "nothing was returned");
            return;
        }
    };
    let ended = got.len() < query.limit;
    for stored in stayed() {
        let ms = stored.ms;
        let inside = (before(first, ms) || (ms == first && query.offset == 0)) && before(ms, last);
        let in_end = ended && (before(first, ms) || query.offset == 0) && !before(ms, last);
        if inside || in_end {
            let count = got_of.get(&stored.text).copied().unwrap_or_default();
            assert!(count >= stayed_of[&stored.text], "{:?} is missing: {ended} {first}..{last}", stored.text);
        }
    }
    let skipped = stayed().filter(|s| before(s.ms, first)).count();
    assert!(skipped as u64 <= query.offset, "{skipped} were skipped at an offset of {}", query.offset);
}

fn counts<'a>(texts: impl Iterator<Item = &'a Bytes>) -> HashMap<&'a Bytes, usize> {
    texts.fold(HashMap::new(), |mut counts, text| {
        *counts.entry(text).or_default() += 1;
        counts
    })
}

fn directions() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Asc), Just(Direction::Desc)]
}

/// Messages spread over seconds, crowded in one second, or crowded in a few milliseconds.
fn stored() -> impl Strategy<Value = Vec<(u64, u16)>> {
    let back = prop_oneof![Just(60_000_u64), Just(1000), Just(10), Just(1)];
    let payloads = prop_oneof![Just(1_u16), Just(3), Just(10_000)];
    (back, payloads, 0..700_usize, any::<u64>()).prop_map(|(back, payloads, count, seed)| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut all: Vec<_> =
            (0..count).map(|_| (NOW - 1 - rng.random_range(0..back), rng.random_range(0..payloads))).collect();
        all.sort_unstable();
        all
    })
}

fn motions() -> impl Strategy<Value = Vec<(Duration, Motion)>> {
    let motion = prop_oneof![
        (prop_oneof![Just(0_u64), 0..3000_u64], 0..3_u16)
            .prop_map(|(ahead_ms, payload)| Motion::Arrives { ahead_ms, payload }),
        prop_oneof![3 => 1..4_usize, 1 => 1..150_usize].prop_map(Motion::Expires),
    ];
    prop::collection::vec((1..4000_u64, motion), 0..120).prop_map(|mut motions| {
        motions.sort_by_key(|(at, _)| *at);
        motions.into_iter().map(|(at, motion)| (Duration::from_millis(at), motion)).collect()
    })
}

properties! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_list_is_whole_and_in_order_whatever_moves(
        stored in stored(),
        motions in prop_oneof![3 => motions(), 1 => Just(vec![])],
        offset in prop_oneof![3 => Just(0_u64), 1 => 0..300_u64],
        limit in 1..900_usize,
        direction in directions(),
        end in prop_oneof![Just(End::Exclusive), Just(End::Instant), Just(End::Second)],
        evaluates_at_fetch: bool,
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rests = motions.is_empty();
            let vendor = Arc::new(Vendor { end, evaluates_at_fetch, ..Vendor::new(stored, motions, seed) });
            let query = query(offset, limit, direction);
            let got = read(&vendor, &query).await;
            check(&vendor, &query, &got);
            if rests {
                let filter = query.filter.clone();
                assert_eq!(got, vendor.all(&PageQuery { filter, offset, limit, direction }));
            }
        });
    }
}

properties! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_list_read_with_cuts_is_as_whole_as_one_read_at_once(
        stored in stored(),
        motions in prop_oneof![3 => motions(), 1 => Just(vec![])],
        cuts in prop::collection::vec(1..4_usize, 0..6),
        direction in directions(),
        end in prop_oneof![Just(End::Exclusive), Just(End::Instant), Just(End::Second)],
        evaluates_at_fetch: bool,
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rests = motions.is_empty();
            let vendor = Arc::new(Vendor { end, evaluates_at_fetch, ..Vendor::new(stored, motions, seed) });
            let query = query(0, usize::MAX, direction);
            let got = read_with_cuts(&vendor, &query, &cuts).await.unwrap();
            check(&vendor, &query, &got);
            if rests {
                let filter = query.filter.clone();
                assert_eq!(got, vendor.all(&PageQuery { filter, offset: 0, limit: usize::MAX, direction }));
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_gone_on_with_begins_where_it_was_left() {
    for direction in [Direction::Asc, Direction::Desc] {
        // One each 7 ms, ten minutes of them.
        let vendor = Arc::new(Vendor::new((0..85_000).map(|n| (NOW + 100_000 + n * 7, 0)), vec![], 1));
        let query = query(0, usize::MAX, direction);
        let mut pager = Pager::resume(Arc::clone(&vendor), &query, None);
        let mut given = 0;
        while given < 10_000 {
            given += pager.next().await.unwrap().unwrap().len();
        }
        let after = pager.place().cloned();
        drop(pager);
        vendor.asked.lock().unwrap().clear();
        let last = after.as_ref().unwrap().last_ms / 1000;
        let mut pager = Pager::resume(Arc::clone(&vendor), &query, after);
        let mut rest = 0;
        while let Some(messages) = pager.next().await.unwrap() {
            rest += messages.len();
        }
        assert_eq!(given + rest, 85_000);
        let asked = vendor.asked.lock().unwrap();
        // The second of the last message, and the one beside it: nothing before that is fetched again. A look from the
        // list's other end is at what comes last.
        let within = |filter: &Filter| match direction {
            Direction::Asc => filter.start >= last - 1,
            Direction::Desc => filter.end <= last + 1,
        };
        assert!(asked.iter().all(|query| within(&query.filter) || query.direction != direction));
        // What is asked for side by side shares two or three messages with its neighbours.
        let useful = asked.iter().filter(|query| query.offset < 75_500).count();
        assert!(useful <= rest / 97 + 5, "{useful} pages for {rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_rests_costs_few_pages_side_by_side() {
    for direction in [Direction::Asc, Direction::Desc] {
        let vendor = Vendor { latency: 50..51, ..Vendor::new((0..12_000).map(|n| (NOW - n * 7, 0)), vec![], 1) };
        let vendor = Arc::new(vendor);
        let query = query(500, 10_000, direction);
        let got = read(&vendor, &query).await;
        check(&vendor, &query, &got);
        assert_eq!(got.len(), 10_000);
        let pages = vendor.pages.load(Ordering::Relaxed);
        assert!(pages <= 106, "{pages} pages");
        assert!(vendor.most_in_flight.load(Ordering::Relaxed) <= pace::MAX_PAGES);
        // 105 pages of 100 ms each.
        assert!(vendor.began.elapsed() < Duration::from_millis(1100), "{:?}", vendor.began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn where_messages_crowd_now_and_then_few_pages_more_are_asked_for() {
    for direction in [Direction::Asc, Direction::Desc] {
        // Of each 53 messages six share a millisecond.
        let ms = |n: u64| NOW - 90_000 + (n - n / 53 * 6 - (n % 53).min(6)) * 5;
        let vendor = Vendor::new((0..15_000).map(|n| (ms(n), (n % 7) as u16)), vec![], 1);
        let vendor = Arc::new(Vendor { in_turn: true, latency: 10..11, ..vendor });
        let query = query(0, usize::MAX, direction);
        let mut pager = Pager::resume(Arc::clone(&vendor), &query, None);
        let mut got = Vec::new();
        while let Some(messages) = pager.next().await.unwrap() {
            got.extend(messages);
        }
        let filter = query.filter.clone();
        assert_eq!(got, vendor.all(&PageQuery { filter, offset: 0, limit: usize::MAX, direction }));
        let pages = vendor.given.load(Ordering::Relaxed) / PAGE;
        assert!(pager.repairs() <= 1 && pages <= 180, "{} repairs, {pages} pages for 150", pager.repairs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_descending_list_that_grows_fast_is_read_in_a_window_that_does_not() {
    let arrive = |n: u64| (Duration::from_millis(n * 2), Motion::Arrives { ahead_ms: 0, payload: (n % 9) as u16 });
    let stored = (0..10_000).map(|n| (NOW - 1 - n * 9, 0));
    // Few pages side by side, each a while after the one before: each finds the list longer.
    let vendor = Vendor { in_turn: true, latency: 10..11, ..Vendor::new(stored, (1..4000).map(arrive).collect(), 1) };
    let vendor = Arc::new(vendor);
    let query = query(0, usize::MAX, Direction::Desc);
    let mut pager = Pager::resume(Arc::clone(&vendor), &query, None);
    let mut got = Vec::new();
    while let Some(messages) = pager.next().await.unwrap() {
        got.extend(messages);
    }
    check(&vendor, &query, &got);
    // Each page finds ten more before it: read so to the end, a tenth would be read again.
    let again = vendor.given.load(Ordering::Relaxed) - got.len();
    assert!((1..=3).contains(&pager.repairs()) && again < 900, "{} repairs, {again} read again", pager.repairs());
}

#[tokio::test(start_paused = true)]
async fn up_to_a_hundred_is_one_page_of_the_size_that_fits() {
    for (limit, stored, expected) in [(1, 30, 1), (20, 30, 20), (21, 30, 21), (51, 300, 51), (100, 300, 100)] {
        let vendor = Arc::new(Vendor::new((0..stored).map(|n| (NOW - 1000 + n, 0)), vec![], 1));
        assert_eq!(read(&vendor, &query(0, limit, Direction::Asc)).await.len(), expected);
        assert_eq!(vendor.pages.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_come_only_as_they_are_taken() {
    let vendor = Arc::new(Vendor::new((0..5000).map(|n| (NOW - 9000 + n, 0)), vec![], 1));
    let mut pager = Pager::new(Arc::clone(&vendor), &query(0, usize::MAX, Direction::Asc));
    assert_eq!(pager.next().await.unwrap().unwrap().len(), 100);
    let asked = vendor.pages.load(Ordering::Relaxed);
    assert!(asked <= 12, "{asked} pages while one was slow");
    tokio::time::timeout(Duration::from_secs(60), pager.settle()).await.expect("all that was asked for ends");
    pass(Duration::from_secs(60)).await;
    assert_eq!((vendor.pages.load(Ordering::Relaxed), vendor.in_flight.load(Ordering::Relaxed)), (asked, 0));
    let mut rest = 0;
    while let Some(messages) = pager.next().await.unwrap() {
        rest += messages.len();
    }
    assert_eq!(rest, 4900);
}

#[tokio::test(start_paused = true)]
async fn a_list_out_of_order_or_without_times_is_refused_rather_than_joined_wrongly() {
    for bad in [vec![r#"{"ms":5}"#, r#"{"ms":4}"#], vec!["{}"], vec!["7"]] {
        struct Fixed(Vec<&'static str>);
        impl Pages for Fixed {
            async fn page(&self, _: PageQuery) -> Result<Page, Error> {
                let texts = self.0.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
                Ok(Page { texts, ..Page::default() })
            }
        }
        let mut pager = Pager::new(Arc::new(Fixed(bad.clone())), &query(0, 101, Direction::Asc));
        assert!(matches!(pager.next().await, Err(Error::BadUpstream(_))));
        // One page is passed on as it is.
        let mut pager = Pager::new(Arc::new(Fixed(bad.clone())), &query(0, 100, Direction::Asc));
        assert_eq!(pager.next().await.unwrap().unwrap().len(), bad.len());
    }
}
