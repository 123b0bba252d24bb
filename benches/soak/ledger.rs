//! The ledger: what the vendor handed over, what the log holds, and what each subscriber got, compared.
//!
//! What must hold (each breach is one line of [`Verdict::broken`]):
//! - The log is consecutive; an event is in it at most once, and only if the vendor gave it to a read.
//! - An answer that the vendor handed over whole is in the log whole. The one exception: the last answer before a
//!   `kill -9`, which nobody can prove was stored. An answer is the last one if no later read of the same run was asked
//!   for after it had gone out (the poller asks again only when it has stored).
//! - An answer that broke off is in the log as far as it came.
//! - What is missing (that exception, and answers that a fault spoilt) is counted by a marker, of its region, in its
//!   place: after all earlier answers of that region and before all later ones.
//! - A region's answers stand in the log in the order in which they were taken, but for late ones: those that the poller
//!   had given up waiting for.
//!
//! An answer is known to be late by how long it took at the vendor. A read can also be late in getting there (the machine
//! stood still): of that the vendor's clock knows nothing, but the log does. What the poller gives up it marks at once. So a
//! read that is out of place, or lost without a marker in its place, came late if such a marker stands not long before and
//! belongs to no other read. One that the gateway had given up for good may be lost although its answer went out whole.
//! - A subscription with one reader gets the log in order, without gap or repeat. After a `kill -9` it goes on behind its
//!   stored cursor, which is never ahead of what it got; after a stop in order exactly where it was.
//! - A subscription shared by readers gets each event once, and again only if a `kill -9` came between and the event is
//!   behind the cursor stored then. One whose reader leaves in mid-answer may lack what was in that answer (a response
//!   counts as handed over when the system took it), and no more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

/// An event by its number in the order in which events occurred.
pub type Serial = u32;

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sequence: u64,
    pub region: String,
    /// `None` for a marker.
    pub event: Option<Serial>,
    /// A marker's reason.
    pub reason: String,
    /// For how many reads a marker stands.
    pub count: u64,
    /// Why those of an outage ended in doubt; empty of other markers.
    pub reasons: Vec<String>,
}

/// One read at the vendor.
#[derive(Clone, Debug)]
pub struct Read {
    pub received: Instant,
    pub events: Vec<Serial>,
    pub whole: Option<Instant>,
}

/// One log and where it comes from.
#[derive(Debug, Default)]
pub struct LogBook {
    pub name: String,
    pub entries: Vec<Entry>,
    pub feeds: Vec<(String, Vec<Read>)>,
}

/// One life of the gateway.
#[derive(Debug)]
pub struct Run {
    pub began: Instant,
    /// It ended by `kill -9`, not in order.
    pub killed: bool,
    /// The stored cursors it found, by log and subscription. `None` if it was killed before anybody could see them.
    pub cursors: Option<HashMap<(usize, String), u64>>,
}

/// One answer that a subscriber got, or (`left`) walked away from.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub run: usize,
    pub events: Vec<Serial>,
    /// At most so many events were in an answer that its reader did not read to the end.
    pub left: Option<usize>,
}

/// How a subscription is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// By one reader, from the first event.
    Whole,
    /// By one reader, from somewhere.
    FromSomewhere,
    /// By several readers, or by one that leaves in mid-answer; from the first event.
    Shared,
}

/// What a subscription's readers got.
#[derive(Clone, Debug)]
pub struct Book {
    pub log: usize,
    pub subscription: String,
    pub how: Use,
    pub deliveries: Vec<Delivery>,
}

/// What the comparison found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub broken: Vec<String>,
    /// Events in answers that went out whole.
    pub handed_whole: u64,
    /// Events in answers that did not.
    pub spoilt: u64,
    /// Events handed over whole just before a kill and not stored.
    pub in_doubt: u64,
    /// Events that are nowhere, each answer of them marked.
    pub marked: u64,
    /// Answers that came after the poller had given up.
    pub late: u64,
    pub stored: u64,
    pub markers: u64,
    pub deliveries: u64,
    pub delivered: u64,
    /// Events delivered again after a kill.
    pub repeats: u64,
    /// Events in answers that readers left.
    pub left: u64,
}

/// A log's events by place.
struct Places {
    /// The place of each event among the events, from 0.
    rank: HashMap<Serial, usize>,
    /// The entry of each event.
    at: HashMap<Serial, usize>,
    /// Of each event, in order, its number in the log.
    sequences: Vec<u64>,
}

impl Places {
    /// How many events stand at or before a number of the log.
    fn up_to(&self, sequence: u64) -> usize {
        self.sequences.partition_point(|s| *s <= sequence)
    }
}

/// Compares. `late_after`: how long the poller waits for an answer, at least.
pub fn check(logs: &[LogBook], runs: &[Run], books: &[Book], late_after: Duration) -> Verdict {
    let mut verdict = Verdict::default();
    let places: Vec<Places> = logs.iter().map(|log| check_entries(log, &mut verdict)).collect();
    for (log, places) in logs.iter().zip(&places) {
        for (region, reads) in &log.feeds {
            Feed { log, region, reads, places, runs, late_after }.check(&mut verdict);
        }
        let kills = runs.iter().filter(|run| run.killed).count();
        for (region, _) in &log.feeds {
            let doubts = log.entries.iter().filter(|e| e.reason == "unclean_stop" && e.region == *region).count();
            if doubts > kills {
                verdict.broken.push(format!("{}: {doubts} markers of unclean stops after {kills} kills", log.name));
            }
        }
    }
    for book in books {
        let (log, places) = (&logs[book.log], &places[book.log]);
        let mut reader = Reader { log, places, runs, book, verdict: &mut verdict };
        match book.how {
            Use::Whole | Use::FromSomewhere => reader.check_alone(),
            Use::Shared => reader.check_shared(),
        }
    }
    verdict
}

fn check_entries(log: &LogBook, verdict: &mut Verdict) -> Places {
    let mut places = Places { rank: HashMap::new(), at: HashMap::new(), sequences: Vec::new() };
    let given: HashSet<Serial> =
        log.feeds.iter().flat_map(|(_, reads)| reads).flat_map(|read| &read.events).copied().collect();
    for (n, entry) in log.entries.iter().enumerate() {
        if entry.sequence != n as u64 + 1 {
            verdict.broken.push(format!("{}: entry {} stands at place {}", log.name, entry.sequence, n + 1));
            break;
        }
        let Some(event) = entry.event else {
            verdict.markers += 1;
            continue;
        };
        verdict.stored += 1;
        if !given.contains(&event) {
            verdict.broken.push(format!("{}: event {event} is in the log and no read took it", log.name));
        }
        if places.rank.insert(event, places.sequences.len()).is_some() {
            verdict.broken.push(format!("{}: event {event} is in the log twice", log.name));
        }
        places.at.insert(event, n);
        places.sequences.push(entry.sequence);
    }
    places
}

/// One region's reads of a log.
struct Feed<'a> {
    log: &'a LogBook,
    region: &'a str,
    reads: &'a [Read],
    places: &'a Places,
    runs: &'a [Run],
    late_after: Duration,
}

impl Feed<'_> {
    fn check(&self, verdict: &mut Verdict) {
        // The entries that this region's answers became: first and last, or none.
        let stored: Vec<Option<(usize, usize)>> = self.reads.iter().map(|read| self.stored(read)).collect();
        let displaced = self.displaced(&stored, verdict);
        let on_time = |n: usize| !self.is_late(&self.reads[n]) && !displaced.contains(&n);
        let places = Bounds { reads: self.reads, stored: &stored, end: self.log.entries.len() }.places(on_time);
        let mut markers = Markers::of(self.log, self.region);
        let missing: Vec<usize> = self.reads.iter().map(|read| self.missing(read)).collect();
        // Of one that went out whole to a gateway that had given it up only the marker of that speaks.
        let given_up =
            |read: &Read| read.whole.is_some_and(|whole| !self.may_be_lost(read, whole) && !self.is_late(read));
        let take = |n: usize| missing[n] > 0 && !given_up(&self.reads[n]) && markers.take(&places[n]);
        let mut marked: Vec<bool> = (0..places.len()).map(take).collect();
        // Reads that brought nothing are marked, too: their markers are not for others to take.
        for (n, read) in self.reads.iter().enumerate() {
            if missing[n] == 0 && (self.is_late(read) || (read.whole.is_none() && stored[n].is_none())) {
                markers.take(&places[n]);
            }
        }
        for n in displaced {
            if !markers.take_given_up(&places[n]) {
                verdict.broken.push(format!("{}: answer {n} stands behind a later one", self.name()));
            }
        }
        for (n, read) in self.reads.iter().enumerate() {
            match read.whole {
                Some(_) => verdict.handed_whole += read.events.len() as u64,
                None => verdict.spoilt += read.events.len() as u64,
            }
            verdict.late += u64::from(self.is_late(read));
            if missing[n] == 0 {
                continue;
            }
            if stored[n].is_some() && !self.is_cut(read) {
                verdict.broken.push(format!("{}: only a part of answer {n} is in the log", self.name()));
            }
            let lost = format!("answer {n} ({} events from {})", missing[n], read.events[0]);
            if let Some(whole) = read.whole {
                if self.may_be_lost(read, whole) {
                    verdict.in_doubt += missing[n] as u64;
                } else if given_up(read) && markers.take_given_up(&places[n]) {
                    verdict.in_doubt += missing[n] as u64;
                    marked[n] = true;
                } else {
                    let what = "was handed over whole and is not in the log";
                    verdict.broken.push(format!("{}: {lost} {what}", self.name()));
                }
            }
            if marked[n] || markers.take_given_up(&places[n]) {
                verdict.marked += missing[n] as u64;
            } else {
                verdict.broken.push(format!("{}: {lost} is lost without a marker", self.name()));
            }
        }
    }

    fn name(&self) -> String {
        format!("{} from {}", self.log.name, self.region)
    }

    /// How many of an answer's events are nowhere in the log.
    fn missing(&self, read: &Read) -> usize {
        read.events.iter().filter(|event| !self.places.at.contains_key(event)).count()
    }

    /// Whether an answer that broke off is in the log as far as it came: nothing stands there behind what is missing.
    fn is_cut(&self, read: &Read) -> bool {
        let is_own = |at: &usize| self.log.entries[*at].region == self.region;
        let places = read.events.iter().map(|event| self.places.at.get(event));
        let mut behind = places.skip_while(Option::is_some).flatten();
        read.whole.is_none() && !behind.any(is_own)
    }

    fn stored(&self, read: &Read) -> Option<(usize, usize)> {
        let places = read.events.iter().filter_map(|event| self.places.at.get(event));
        let own = places.filter(|at| self.log.entries[**at].region == self.region);
        own.fold(None, |span, at| {
            Some(span.map_or((*at, *at), |(low, high): (usize, usize)| (low.min(*at), high.max(*at))))
        })
    }

    /// The answers that stand behind one that was taken later, but for those that took long at the vendor.
    fn displaced(&self, stored: &[Option<(usize, usize)>], verdict: &mut Verdict) -> Vec<usize> {
        let (mut displaced, mut line) = (Vec::new(), Vec::new());
        for (n, (read, span)) in self.reads.iter().zip(stored).enumerate() {
            let ranks: Vec<usize> = read
                .events
                .iter()
                .filter_map(|e| self.places.at.get(e).copied())
                .filter(|at| self.log.entries[*at].region == self.region)
                .collect();
            if ranks.windows(2).any(|w| w[0] >= w[1]) {
                verdict.broken.push(format!("{}: answer {n} is out of order in the log", self.name()));
            }
            if let (Some((low, high)), false) = (*span, self.is_late(read)) {
                displaced.extend(line.extract_if(.., |(_, before)| *before >= low).map(|(n, _): (usize, usize)| n));
                line.push((n, high));
            }
        }
        displaced
    }

    fn is_late(&self, read: &Read) -> bool {
        read.whole.is_some_and(|whole| whole - read.received >= self.late_after)
    }

    /// Whether an answer that went out whole may be missing: the last of a run that was killed.
    fn may_be_lost(&self, read: &Read, whole: Instant) -> bool {
        let run = self.runs.partition_point(|run| run.began <= read.received).saturating_sub(1);
        let end = self.runs.get(run + 1).map(|next| next.began);
        let went_on =
            self.reads.iter().any(|other| other.received > whole && end.is_none_or(|end| other.received < end));
        self.runs[run].killed && (!went_on || self.is_late(read))
    }
}

/// How much later than it was sent a read may reach the vendor. (The machine stands still for seconds, not for a minute.)
const LATEST: Duration = Duration::from_secs(30);

/// Where a read's marker may stand.
struct Place {
    /// The marker of one that came in time: behind the answers before it, before the answers after it.
    own: Range<usize>,
    /// The marker of one that came late begins so early.
    since: usize,
}

/// What stands before and behind a region's reads.
struct Bounds<'a> {
    reads: &'a [Read],
    stored: &'a [Option<(usize, usize)>],
    /// Of the log.
    end: usize,
}

impl Bounds<'_> {
    fn places(&self, on_time: impl Fn(usize) -> bool) -> Vec<Place> {
        let span = |n: usize| self.stored[n].filter(|_| on_time(n));
        // From the last on: what stands behind.
        let mut ends = vec![self.end; self.reads.len()];
        for n in (1..self.reads.len()).rev() {
            ends[n - 1] = span(n).map_or(ends[n], |(low, _)| low.min(ends[n]));
        }
        let (mut begin, mut since, mut long_ago) = (0, 0, 0);
        let place = |(n, end): (usize, usize)| {
            while self.reads[long_ago].received + LATEST < self.reads[n].received {
                since = span(long_ago).map_or(since, |(_, high)| since.max(high + 1));
                long_ago += 1;
            }
            let place = Place { own: begin..end, since };
            begin = span(n).map_or(begin, |(_, high)| begin.max(high + 1));
            place
        };
        ends.into_iter().enumerate().map(place).collect()
    }
}

/// A region's markers by their places, each as often as it counts reads, and which read each stands for: one at most.
struct Markers<'a> {
    /// By the marker's place, and which of its reads.
    entries: BTreeMap<(usize, u64), &'a Entry>,
    /// The read that has taken it, and from where it may take another instead.
    taken: HashMap<(usize, u64), (Range<usize>, bool)>,
}

impl<'a> Markers<'a> {
    fn of(log: &'a LogBook, region: &str) -> Self {
        // These speak of no read.
        let is_of_a_read = |entry: &Entry| entry.event.is_none() && !matches!(&*entry.reason, "overflow" | "retention");
        let markers = log.entries.iter().enumerate().filter(|(_, e)| is_of_a_read(e) && e.region == region);
        let each = markers.flat_map(|(at, entry)| (0..entry.count).map(move |nth| ((at, nth), entry)));
        Self { entries: each.collect(), taken: HashMap::new() }
    }

    /// Takes the marker of a read that came in time.
    fn take(&mut self, place: &Place) -> bool {
        self.take_within(&(place.own.clone(), false), &mut HashSet::new())
    }

    /// Takes the marker of a read that came late: the poller had given it up.
    fn take_given_up(&mut self, place: &Place) -> bool {
        self.take_within(&(place.since..place.own.end, true), &mut HashSet::new())
    }

    /// Takes one, if need be of another read that can take one that is left instead.
    fn take_within(&mut self, who: &(Range<usize>, bool), asked: &mut HashSet<(usize, u64)>) -> bool {
        let (within, given_up) = who.clone();
        if within.is_empty() {
            return false;
        }
        let is_timeout = |entry: &Entry| entry.reason == "timeout" || entry.reasons.iter().any(|why| why == "timeout");
        let fit = |(_, entry): &(&(usize, u64), &&Entry)| !given_up || is_timeout(entry);
        let within = (within.start, 0)..(within.end, 0);
        let fitting: Vec<_> = self.entries.range(within).filter(fit).map(|(at, _)| *at).collect();
        for at in fitting {
            if !asked.insert(at) {
                continue;
            }
            let other = self.taken.get(&at).cloned();
            if other.is_none_or(|other| self.take_within(&other, asked)) {
                self.taken.insert(at, who.clone());
                return true;
            }
        }
        false
    }
}

/// One subscription's readers.
struct Reader<'a> {
    log: &'a LogBook,
    places: &'a Places,
    runs: &'a [Run],
    book: &'a Book,
    verdict: &'a mut Verdict,
}

impl Reader<'_> {
    fn breach(&mut self, what: &str) {
        self.verdict.broken.push(format!("{}, subscription {}: {what}", self.log.name, self.book.subscription));
    }

    /// The places of an answer's events, if they are a run of the log.
    fn span(&mut self, delivery: &Delivery) -> Option<(usize, usize)> {
        let ranks: Vec<Option<usize>> = delivery.events.iter().map(|e| self.places.rank.get(e).copied()).collect();
        if ranks.iter().any(Option::is_none) {
            self.breach("got an event that is not in the log");
            return None;
        }
        let ranks: Vec<usize> = ranks.into_iter().flatten().collect();
        if ranks.windows(2).any(|w| w[0] + 1 != w[1]) {
            self.breach("got an answer with a gap in it");
        }
        Some((*ranks.first()?, *ranks.last()? + 1))
    }

    /// The stored cursor that a run found, as a place among the events: `Some(None)` if there was none, `None` if nobody
    /// knows.
    fn stored_cursor(&self, run: usize) -> Option<Option<usize>> {
        let cursors = self.runs[run].cursors.as_ref()?;
        let cursor = cursors.get(&(self.book.log, self.book.subscription.clone()));
        Some(cursor.map(|cursor| self.places.up_to(*cursor)))
    }

    fn check_alone(&mut self) {
        let from_somewhere = self.book.how == Use::FromSomewhere;
        let (mut at, mut run) = ((!from_somewhere).then_some(0), 0);
        for delivery in &self.book.deliveries {
            self.verdict.deliveries += 1;
            self.verdict.delivered += delivery.events.len() as u64;
            at = self.restarts(at, run, delivery.run);
            run = delivery.run;
            let Some((first, end)) = self.span(delivery) else { continue };
            match at {
                Some(at) if at != first => {
                    let what = if first > at { "misses" } else { "got again" };
                    self.breach(&format!(
                        "{what} {} events at place {} in run {run}",
                        first.abs_diff(at),
                        first.min(at)
                    ));
                }
                _ => {}
            }
            at = Some(end);
        }
        let at = self.restarts(at, run, self.runs.len() - 1);
        let all = self.places.sequences.len();
        if !from_somewhere && at != Some(all) {
            self.breach(&format!("stands at {at:?} of {all}"));
        }
    }

    /// Where it goes on in run `to`, when it stood at `at` in run `from`.
    fn restarts(&mut self, mut at: Option<usize>, from: usize, to: usize) -> Option<usize> {
        for run in from + 1..=to {
            let Some(stood) = at else { continue };
            let Some(stored) = self.stored_cursor(run) else { continue };
            let Some(stored) = stored else {
                // It was never stored: then nothing was handed over.
                if stood > 0 {
                    self.breach(&format!("run {run} does not know it, and it had got {stood} events"));
                }
                continue;
            };
            if stored > stood {
                self.breach(&format!("run {run} found a cursor that is {} events ahead", stored - stood));
            } else if stored < stood && !self.runs[run - 1].killed {
                self.breach(&format!("run {run} goes back {} events after a stop in order", stood - stored));
            }
            self.verdict.repeats += stood.saturating_sub(stored) as u64;
            at = Some(stored);
        }
        at
    }

    fn check_shared(&mut self) {
        let mut last_run = vec![None; self.places.sequences.len()];
        let (mut left, mut largest) = (0, 0);
        for delivery in &self.book.deliveries {
            if let Some(most) = delivery.left {
                (left, largest) = (left + 1, largest.max(most));
                continue;
            }
            self.verdict.deliveries += 1;
            self.verdict.delivered += delivery.events.len() as u64;
            let Some((first, end)) = self.span(delivery) else { continue };
            for (rank, last) in last_run.iter_mut().enumerate().take(end).skip(first) {
                if let Some(before) = last.replace(delivery.run) {
                    let again = (before + 1..=delivery.run).any(|run| {
                        let stored = self.stored_cursor(run).map(Option::unwrap_or_default);
                        self.runs[run - 1].killed && stored.is_some_and(|stored| stored <= rank)
                    });
                    if again {
                        self.verdict.repeats += 1;
                    } else {
                        let run = delivery.run;
                        self.breach(&format!("got the event at {rank} in run {before} and again in run {run}"));
                        break;
                    }
                }
            }
        }
        let mut gaps: Vec<usize> = Vec::new();
        for (rank, last) in last_run.iter().enumerate() {
            if last.is_none() {
                self.verdict.left += 1;
                match gaps.last_mut() {
                    Some(gap) if rank > 0 && last_run[rank - 1].is_none() => *gap += 1,
                    _ => gaps.push(1),
                }
            }
        }
        let possible = left * largest;
        let lacking: usize = gaps.iter().sum();
        if lacking > possible || gaps.len() > left {
            self.breach(&format!("never got {lacking} events in {} places, and left {left} answers", gaps.len()));
        }
    }
}
