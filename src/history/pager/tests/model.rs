//! A list that moves while it is read, judged message by message: whatever was there from the first question to the
//! last answer is given exactly once, in order, or an error says that it could not be told.
//!
//! The simulated vendor knows of each message when it came and when it went. It moves at each page, before and after
//! the page is taken: messages come at the head, and late with old times; the oldest go, and some from the middle.
//! Pages may be short, messages alike, milliseconds crowded, and those of one millisecond may come in another order
//! each time. Pages fail, and the list is then gone on with from the cursor. Each case follows from its number alone;
//! `PROPTEST_CASES` says how many there are.

use super::*;
use crate::kernel::testing::pass;

/// In which order messages of one millisecond come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ties {
    /// As they came.
    Stable,
    /// Those of each of so many shards as they came, the shards in any order.
    Shards(u64),
    /// From one end or the other.
    Turned,
    Shuffled,
    /// As they came, whichever end of the list comes first.
    Unmirrored,
}

/// How many come and go at each page, as chance has it: each is the most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Motion {
    new: u64,
    late: u64,
    oldest: u64,
    any: u64,
}

#[derive(Clone, Debug)]
struct Case {
    stored: Vec<(u64, u16)>,
    alike: u16,
    ties: Ties,
    motion: Motion,
    most: usize,
    cut_short: f64,
    fails: f64,
    at_fetch: bool,
    latency: std::ops::Range<u64>,
    query: Query,
    /// After so many parts each the reader is gone; none: it asks once, and takes what comes.
    cuts: Option<Vec<usize>>,
    end: End,
}

#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    ms: u64,
    text: Bytes,
    came: u64,
    went: Option<u64>,
}

/// The list, oldest first, and the time as the number of steps that it has moved.
struct List {
    entries: Vec<Entry>,
    step: u64,
    next: u64,
    rng: StdRng,
    asked: u64,
}

struct Moving {
    case: Case,
    list: Mutex<List>,
}

const BASE: u64 = NOW - 80_000;

impl Case {
    fn of(number: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(number);
        let r = &mut rng;
        let pick = |r: &mut StdRng, of: &[u64]| of[r.random_range(0..of.len())];
        let count = r.random_range(0..1000);
        let crowd = match r.random_range(0..7) {
            0 => 1,
            1 | 2 => r.random_range(2..9),
            3 => r.random_range(9..95),
            4 => r.random_range(95..130),
            5 => 700,
            _ => 0,
        };
        let apart = if r.random_bool(0.5) { 1 } else { r.random_range(1..900) };
        let alike = [1, 3, 60_000, 60_000][r.random_range(0..4)];
        let mut stored = Vec::new();
        let (mut ms, mut left) = (BASE, 0);
        for _ in 0..count {
            if left == 0 {
                ms += apart;
                left = if crowd == 0 { pick(r, &[1, 1, 2, 6, 7, 8, 30, 120]) } else { crowd };
            }
            left -= 1;
            stored.push((ms, r.random_range(0..alike)));
        }
        let ties = match r.random_range(0..10) {
            0 => Ties::Shuffled,
            1 => Ties::Turned,
            2 | 3 => Ties::Shards(r.random_range(2..4)),
            _ => Ties::Stable,
        };
        let few = |r: &mut StdRng| pick(r, &[0, 0, 0, 1, 2, 3]);
        let motion = match r.random_bool(0.35) {
            true => Motion::default(),
            false => Motion { new: few(r), late: few(r), oldest: few(r), any: few(r) },
        };
        let most = match r.random_range(0..10) {
            0 => r.random_range(5..20),
            1 | 2 => r.random_range(20..100),
            _ => PAGE,
        };
        let cuts = r.random_bool(0.4).then(|| (0..r.random_range(0..6)).map(|_| r.random_range(1..4)).collect());
        let is_asked_for = cuts.is_none();
        let is_cut = r.random_bool(0.2);
        let end = (BASE + 1000 * apart) / 1000 + 100;
        let within = match is_cut {
            true => Within {
                from: r.random_bool(0.7).then(|| BASE + r.random_range(1..999)),
                to: r.random_bool(0.5).then(|| ms - ms % 1000 + r.random_range(1..999)),
            },
            false => Within::default(),
        };
        let filter = Filter {
            source: Some("s".into()),
            destination: None,
            start: within.from.unwrap_or(BASE) / 1000 - if is_cut { 0 } else { r.random_range(0..2) },
            end: within.to.map_or(end, |to| to / 1000 + 1),
        };
        let offset =
            if is_asked_for && ties == Ties::Stable && r.random_bool(0.3) { r.random_range(0..400) } else { 0 };
        let limit = if is_asked_for && r.random_bool(0.5) { r.random_range(101..900) } else { usize::MAX };
        let direction = if r.random_bool(0.5) { Direction::Asc } else { Direction::Desc };
        Self {
            stored,
            alike,
            ties,
            motion,
            most,
            cut_short: if r.random_bool(0.2) { 0.1 } else { 0.0 },
            fails: if r.random_bool(0.3) { 0.02 } else { 0.0 },
            at_fetch: r.random_bool(0.5),
            latency: if r.random_bool(0.3) { 10..11 } else { 1..200 },
            query: Query { filter, within, offset, limit, direction },
            cuts,
            end: End::Instant,
        }
    }

    /// The same with what is rarer at a vendor: another order of equals at each end of the list, other edges of a
    /// window, thousands of one millisecond.
    fn rare(number: u64) -> Self {
        let mut case = Self::of(number);
        let mut rng = StdRng::seed_from_u64(number ^ 0x5EED_5EED);
        if rng.random_bool(0.05) {
            let apart = [1, 400][rng.random_range(0..2)];
            case.stored.clear();
            for n in 0.. {
                let number = [1, 1, 300, 1900, 2500][rng.random_range(0..5)];
                case.stored.extend((0..number).map(|_| (BASE + n * apart, rng.random_range(0..case.alike))));
                if case.stored.len() > 4500 {
                    break;
                }
            }
        }
        case.ties = if rng.random_bool(0.35) { Ties::Unmirrored } else { case.ties };
        case.end = [End::Exclusive, End::Instant, End::Second][rng.random_range(0..3)];
        case
    }

    /// A window that begins within a second, in which the list moves, and an offset behind that.
    fn offset_within(number: u64) -> Self {
        let mut case = Self::of(number);
        let mut rng = StdRng::seed_from_u64(number ^ 0x0FF5_E701);
        let r = &mut rng;
        let crowd = [1, 1, 2, 20][r.random_range(0..4)];
        let at = |place: u64, n: u64| place + n / crowd;
        let outside = r.random_range(100..500);
        let apart = r.random_range(1..15);
        let inside = r.random_range(200..1500);
        let (start, end) = (BASE, BASE + 1000 * (2 + inside * apart / 1000));
        case.stored = (0..outside).map(|n| (at(start, n), r.random_range(0..60_000))).collect();
        case.stored.extend((0..inside).map(|n| (start + 500 + n * apart, r.random_range(0..60_000))));
        case.stored.extend((0..outside).map(|n| (at(end + 100, n), r.random_range(0..60_000))));
        case.query.within = Within { from: Some(start + 499), to: Some(end + 99) };
        (case.query.filter.start, case.query.filter.end) = (start / 1000, end / 1000 + 1);
        case.query.offset = r.random_range(101..600);
        case.query.limit = [20, 100, 400, usize::MAX][r.random_range(0..4)];
        (case.ties, case.cuts, case.most, case.fails) = (Ties::Stable, None, PAGE, 0.0);
        let few = |r: &mut StdRng| [0, 1, 2, 3][r.random_range(0..4)];
        case.motion = Motion { new: few(r), late: 0, oldest: few(r), any: 0 };
        case
    }

    fn rests(&self) -> bool {
        self.motion == Motion::default()
    }
}

impl Moving {
    fn new(case: &Case, number: u64) -> Self {
        let entries = case.stored.iter().zip(0..).map(|(&(ms, payload), id)| Entry {
            id,
            ms,
            text: text(ms, payload),
            came: 0,
            went: None,
        });
        let entries: Vec<_> = entries.collect();
        let next = entries.len() as u64;
        let rng = StdRng::seed_from_u64(!number);
        Self { case: case.clone(), list: Mutex::new(List { entries, step: 0, next, rng, asked: 0 }) }
    }

    fn moves(&self) {
        let Motion { new, late, oldest, any } = self.case.motion;
        let mut list = self.list.lock().unwrap();
        let List { entries, step, next, rng, .. } = &mut *list;
        *step += 1;
        let newest = entries.last().map_or(BASE, |last| last.ms);
        for n in 0..rng.random_range(0..=new) + rng.random_range(0..=late) {
            let ms = if n < new { newest + rng.random_range(0..3) } else { rng.random_range(BASE..=newest) };
            // Late ones, too, mostly share their millisecond with others.
            let near = entries.get(entries.partition_point(|entry| entry.ms < ms)).map_or(ms, |entry| entry.ms);
            let ms = if n < new || rng.random_bool(0.2) { ms } else { near };
            let place = entries.partition_point(|entry| entry.ms <= ms);
            let text = text(ms, rng.random_range(0..self.case.alike));
            entries.insert(place, Entry { id: *next, ms, text, came: *step, went: None });
            *next += 1;
        }
        let goes = rng.random_range(0..=oldest);
        entries.iter_mut().filter(|entry| entry.went.is_none()).take(goes as usize).for_each(|e| e.went = Some(*step));
        for _ in 0..rng.random_range(0..=any) {
            let at = rng.random_range(0..entries.len().max(1));
            if let Some(entry) = entries.get_mut(at) {
                entry.went.get_or_insert(*step);
            }
        }
    }

    fn evaluate(&self, query: &PageQuery) -> Vec<Bytes> {
        let mut list = self.list.lock().unwrap();
        let List { entries, rng, .. } = &mut *list;
        let times = self.case.end.times(&query.filter);
        let from = entries.partition_point(|entry| entry.ms < times.start);
        let to = entries.partition_point(|entry| entry.ms < times.end);
        let there = entries[from..to.max(from)].iter().filter(|entry| entry.went.is_none());
        let (by, is_turned) = (rng.random_range(0..6), rng.random_bool(0.5));
        let skip = usize::try_from(query.offset).unwrap();
        let taken = match (self.case.ties, query.direction) {
            // Most cases: without a list of all that there is, for the time that it takes.
            (Ties::Stable | Ties::Unmirrored, Direction::Asc) => there.skip(skip).take(query.limit).collect(),
            (Ties::Stable, Direction::Desc) => there.rev().skip(skip).take(query.limit).collect::<Vec<_>>(),
            (ties, direction) => {
                let mut there: Vec<_> = there.collect();
                for equal in there.chunk_by_mut(|a, b| a.ms == b.ms) {
                    match ties {
                        Ties::Stable => {}
                        // Reversed once more below.
                        Ties::Unmirrored => equal.reverse(),
                        Ties::Shards(shards) => equal.sort_by_key(|entry| (entry.id * 7 / 3 + by) % shards),
                        Ties::Turned if is_turned => equal.reverse(),
                        Ties::Turned => {}
                        Ties::Shuffled => equal.shuffle(rng),
                    }
                }
                if direction == Direction::Desc {
                    there.reverse();
                }
                there.into_iter().skip(skip).take(query.limit).collect()
            }
        };
        let mut page: Vec<_> = taken.into_iter().map(|entry| entry.text.clone()).collect();
        page.truncate(self.case.most);
        if page.len() > 20 && rng.random_bool(self.case.cut_short) {
            page.truncate(rng.random_range(20..page.len()));
        }
        page
    }

    async fn pause(&self) {
        let ms = self.list.lock().unwrap().rng.random_range(self.case.latency.clone());
        pass(Duration::from_millis(ms)).await;
    }
}

impl Pages for Moving {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        let asked = {
            let mut list = self.list.lock().unwrap();
            list.asked += 1;
            list.asked
        };
        if asked > 5000 {
            return Err(Error::BadRequest("it asks without end".into()));
        }
        self.pause().await;
        self.moves();
        let early = self.evaluate(&query);
        let fails = self.list.lock().unwrap().rng.random_bool(self.case.fails);
        self.pause().await;
        self.moves();
        if fails {
            return Err(Error::Crowded);
        }
        let texts = if self.case.at_fetch { self.evaluate(&query) } else { early };
        Ok(Page { texts, ..Page::default() })
    }
}

/// When a list was gone on with for the last time, and behind which millisecond.
type Last = Option<(u64, u64)>;

/// Reads as a caller does: a query once, a stream with cuts and from the last cursor on when it breaks for a while.
async fn read_as_a_caller(vendor: &Arc<Moving>, last: &mut Last) -> (Vec<Bytes>, Result<(), Error>) {
    let (query, question) = (&vendor.case.query, [1; 8]);
    let mut all = Vec::new();
    let Some(cuts) = &vendor.case.cuts else {
        let mut pager = Pager::new(Arc::clone(vendor), query);
        loop {
            match pager.next().await {
                Ok(Some(messages)) => all.extend(messages),
                Ok(None) => return (all, Ok(())),
                Err(why) => return (all, Err(why)),
            }
        }
    };
    let (mut cursor, mut cuts) = (cursor::write(question, None), cuts.iter());
    'gone_on_with: loop {
        let after = cursor::read(&cursor, question, query.direction).unwrap();
        *last = after.as_ref().map(|run| (vendor.list.lock().unwrap().step, run.last_ms));
        let mut pager = Pager::resume(Arc::clone(vendor), query, after);
        for _ in 0..cuts.next().copied().unwrap_or(usize::MAX) {
            match pager.next().await {
                Ok(Some(messages)) => all.extend(messages),
                Ok(None) => return (all, Ok(())),
                Err(Error::Crowded) => continue 'gone_on_with,
                Err(why) => return (all, Err(why)),
            }
            cursor = cursor::write(question, pager.place());
        }
    }
}

/// What is wrong with a list that was read, if anything is.
fn judge(vendor: &Moving, got: &[Bytes], is_whole: bool, gone_on: Last) -> Result<(), String> {
    let Query { within, offset, limit, direction, ref filter } = vendor.case.query;
    let list = vendor.list.lock().unwrap();
    let before = |a: u64, b: u64| run::is_before(direction, a, b);
    let holds = |ms: u64| vendor.case.end.selects(filter, ms) && within.holds(ms);
    let ever = || list.entries.iter().filter(|entry| holds(entry.ms));
    let stayed = || ever().filter(|entry| entry.came == 0 && entry.went.is_none());
    let times: Vec<u64> = got.iter().map(|text| message_ms(text).unwrap()).collect();
    if got.len() > limit || !times.is_sorted_by(|a, b| !before(*b, *a)) {
        return Err(format!("{} messages, or not in order", got.len()));
    }
    let (got_of, ever_of, stayed_of) =
        (counts(got.iter()), counts(ever().map(|e| &e.text)), counts(stayed().map(|e| &e.text)));
    for (text, count) in &got_of {
        let most = ever_of.get(text).copied().unwrap_or_default();
        if *count > most {
            return Err(format!("{count} times {text:?}, of which there were {most} ever"));
        }
    }
    let is_at_the_end = is_whole && got.len() < limit;
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
        return match is_at_the_end && stayed().count() as u64 > offset {
            true => Err("nothing was given".into()),
            false => Ok(()),
        };
    };
    for Entry { ms, text, .. } in stayed() {
        let is_behind_the_first = offset == 0 || before(first, *ms);
        if is_behind_the_first && (before(*ms, last) || is_at_the_end) {
            let count = got_of.get(text).copied().unwrap_or_default();
            if count < stayed_of[text] {
                return Err(format!("{text:?} is missing: {count} of {} in {first}..{last}", stayed_of[text]));
            }
        }
    }
    // What came meanwhile, but before the list was gone on with, and lies behind that place.
    if let Some((step, place)) = gone_on.filter(|_| is_whole) {
        let known = ever().filter(|entry| entry.came <= step && entry.went.is_none() && before(place, entry.ms));
        let lacks =
            counts(known.map(|e| &e.text)).into_iter().find(|(text, n)| got_of.get(text).is_none_or(|got| got < n));
        if let Some((text, _)) = lacks {
            return Err(format!("{text:?} is missing, which was there when the list was gone on with"));
        }
    }
    let skipped = stayed().filter(|entry| before(entry.ms, first)).count() as u64;
    if skipped > offset {
        return Err(format!("{skipped} were skipped at an offset of {offset}"));
    }
    let at_most = ever().filter(|entry| !before(first, entry.ms)).count() as u64;
    if at_most <= offset {
        return Err(format!("at most {at_most} were skipped at an offset of {offset}"));
    }
    let is_kept = match vendor.case.ties {
        Ties::Stable => true,
        Ties::Unmirrored => direction == Direction::Asc,
        _ => false,
    };
    if is_kept {
        let mut wanted: Vec<_> = stayed().filter(|e| ever_of[&e.text] == 1 && got_of.contains_key(&e.text)).collect();
        if direction == Direction::Desc {
            wanted.reverse();
        }
        let given = got.iter().filter(|text| stayed_of.contains_key(text) && ever_of[text] == 1);
        if !given.eq(wanted.iter().map(|entry| &entry.text)) {
            return Err("those of one millisecond are not in the list's order".into());
        }
    }
    Ok(())
}

/// Runs a case. Says how it ended; an error says what is wrong with what was given.
fn run_case(number: u64, case: &Case) -> Result<Result<(), Error>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let vendor = Arc::new(Moving::new(case, number));
        let mut last = None;
        let (got, end) = read_as_a_caller(&vendor, &mut last).await;
        let told = |why| format!("case {number}: {why} ({end:?})\n{:?}", Case { stored: Vec::new(), ..case.clone() });
        judge(&vendor, &got, end.is_ok(), last).map_err(told)?;
        let is_stable = matches!(case.ties, Ties::Stable | Ties::Unmirrored);
        let is_documented = is_stable && case.most >= PAGE_SIZES[0] && case.fails == 0.0;
        match &end {
            Err(_) if is_documented && case.rests() => Err(told("it rests, and was not given whole".into())),
            Err(Error::BadRequest(_)) if is_documented && case.motion.late == 0 => {
                Err(told("it asks without end".into()))
            }
            _ => Ok(end),
        }
    })
}

#[test]
fn what_was_there_all_the_time_is_given_once_and_in_order_or_it_is_said_that_it_is_not() {
    let cases = u64::from(ProptestConfig::default().cases) * 2;
    let (mut faults, mut untold) = (Vec::new(), Vec::new());
    for number in 0..cases {
        let case = Case::of(number);
        match run_case(number, &case) {
            Err(why) => faults.push(why),
            // An order that stands still, and pages as they are documented: that it cannot be told is rare.
            Ok(Err(why))
                if case.ties == Ties::Stable && case.most >= PAGE_SIZES[0] && !matches!(why, Error::Crowded) =>
            {
                untold.push(format!("case {number}: {why:?}"));
            }
            Ok(_) => {}
        }
    }
    assert!(faults.is_empty(), "{} faults: {}", faults.len(), faults.join("\n"));
    assert!(untold.len() as u64 <= cases / 25, "{}: {}", untold.len(), untold.join("\n"));
}

#[test]
fn the_same_holds_where_equals_turn_round_with_the_list_or_thousands_share_a_millisecond() {
    // Some that were faults once, and others.
    let cases = u64::from(ProptestConfig::default().cases) / 2;
    let once = [336, 5287, 6244];
    let faults: Vec<_> = once.into_iter().chain(0..cases).filter_map(|n| run_case(n, &Case::rare(n)).err()).collect();
    assert!(faults.is_empty(), "{} faults: {}", faults.len(), faults.join("\n"));
}

#[test]
fn the_same_holds_behind_an_offset_where_the_window_begins_within_a_second_that_moves() {
    let cases = u64::from(ProptestConfig::default().cases);
    let faults: Vec<_> = (0..cases).filter_map(|n| run_case(n, &Case::offset_within(n)).err()).collect();
    assert!(faults.is_empty(), "{} faults: {}", faults.len(), faults.join("\n"));
}
