//! What all parts of the driver share: the gateway's lives, the logs as they are, and of each subscription the book.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtm_gateway::kernel::names::Stream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::caller::{Caller, Ended, Manner};
use super::gateway::LogTally;
use super::plant::{self, Planted, Scene, Sort};
use super::stalls::Stalls;
use delivery_model::{Complaint, Deed, Entry, Hand, Key, Millis, Model, NEVER, Terms, What};

/// An app that keeps all, and one of which retention takes most.
pub const ALL: &str = "book-all";
pub const CUT: &str = "book-cut";

/// The logs: of which app, which stream.
pub const LOGS: [(&str, Stream); 3] =
    [(ALL, Stream::UserEvents), (ALL, Stream::ChannelEvents), (CUT, Stream::UserEvents)];

/// How long ago something may have happened that a kill undoes. (The documents say a quarter of a second, and as long
/// until an arrival is seen; the rest is for the store's own write. What the machine was late is added.)
pub const ROUND: Millis = 500;
/// How long it may take until the gateway has seen that an answer has arrived, or that its reader has left. (Likewise.)
pub const LINGER: Millis = 500;
/// So many lives are told of where something is wrong.
const REMEMBERED: usize = 8;
/// How often each fault is planted.
const PLANTED: u64 = 3;
/// Where it takes longer to judge what was, nothing is planted.
const PLANTED_WITHIN: Duration = Duration::from_millis(200);

/// A running gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    pub life: usize,
    pub callers: SocketAddr,
    pub operators: SocketAddr,
}

/// A life of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub began: Millis,
    /// Between when and when it ended, and whether it was killed.
    pub ended: Option<(Millis, Millis, bool)>,
}

/// How far the driver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Nothing new comes; all is read. Twice, with a stop between.
    Finishing(u8),
    Over,
}

/// A log, as a reader by cursor sees it.
#[derive(Default)]
pub struct Log {
    /// In order, with their keys, and since when each can have been there.
    entries: Vec<(Entry, Key, Millis)>,
    cursors: HashMap<Entry, String>,
    /// In which life it was read to its end last.
    read_in: Option<usize>,
    /// When that read began.
    read_at: Millis,
    pub earliest: Entry,
    /// In which life it was told last where it begins.
    pub begin_told_in: Option<usize>,
}

/// A subscription's book.
pub struct Book {
    pub name: String,
    pub log: usize,
    terms: Terms,
    /// Not judged yet. (Judging takes time, and those who are told of have none.)
    deeds: Mutex<Vec<Noted>>,
    inner: Mutex<Inner>,
}

/// A deed, of which it is not known yet how the life went on.
struct Noted {
    life: usize,
    deed: Deed,
    /// It may have happened as much later as the gateway takes to see it, but not after this.
    lingers_until: Option<Millis>,
    /// It is only sure if the gateway lived on.
    if_it_lived_on: bool,
}

struct Inner {
    model: Model,
    /// How many of the log's entries it knows.
    known: usize,
    is_broken: bool,
    /// What happened in the life before, and how late the machine was.
    before: (Vec<Deed>, Millis),
    /// What happened before that.
    long_before: VecDeque<Vec<Deed>>,
    /// The last entry that was given.
    given: Entry,
    /// That was told a stop in order, where the gateway was killed.
    stopped: Option<Model>,
}

pub struct Stage {
    pub dir: PathBuf,
    pub live: watch::Sender<Option<Live>>,
    pub phase: watch::Sender<Phase>,
    pub lives: Mutex<Vec<Life>>,
    pub logs: [Mutex<Log>; LOGS.len()],
    pub books: Mutex<Vec<Arc<Book>>>,
    pub tally: LogTally,
    pub planted: Planted,
    pub stalls: Arc<Stalls>,
    /// How many requests go on, by life.
    going: Mutex<BTreeMap<usize, usize>>,
    pub over: Notify,
    hands: AtomicU64,
    done: Mutex<BTreeMap<String, u64>>,
    complaints: Mutex<Vec<(String, Complaint)>>,
    pub broken: Mutex<Vec<String>>,
    pub steps: AtomicU64,
    pub is_calm: AtomicBool,
    resting: Mutex<BTreeSet<(u8, String)>>,
    began: Instant,
}

/// A request that goes on in a life of the gateway.
pub struct Going {
    pub stage: Arc<Stage>,
    pub life: usize,
    pub from: Millis,
}

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(going) = self.stage.going.lock().unwrap().get_mut(&self.life) {
            *going -= 1;
        }
        self.stage.over.notify_waiters();
    }
}

impl Stage {
    pub fn new(dir: PathBuf) -> Arc<Self> {
        let began = Instant::now();
        let stalls = Arc::new(Stalls::new(began));
        stalls.measure(dir.clone());
        Arc::new(Self {
            dir,
            live: watch::Sender::new(None),
            phase: watch::Sender::new(Phase::Running),
            lives: Mutex::default(),
            logs: Default::default(),
            books: Mutex::default(),
            tally: LogTally::default(),
            planted: Planted::default(),
            stalls,
            going: Mutex::default(),
            over: Notify::new(),
            hands: AtomicU64::new(1),
            done: Mutex::default(),
            complaints: Mutex::default(),
            broken: Mutex::default(),
            steps: AtomicU64::new(0),
            is_calm: AtomicBool::new(false),
            resting: Mutex::default(),
            began,
        })
    }

    pub fn now(&self) -> Millis {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// Waits for a running gateway.
    pub async fn live(&self) -> Live {
        let mut live = self.live.subscribe();
        let found = *live.wait_for(Option::is_some).await.unwrap();
        found.unwrap()
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn is_finishing(&self) -> bool {
        self.phase() != Phase::Running
    }

    /// A request begins.
    pub fn begin(self: &Arc<Self>, life: usize) -> Going {
        *self.going.lock().unwrap().entry(life).or_default() += 1;
        Going { stage: self.clone(), life, from: self.now() }
    }

    /// Waits until nothing goes on that began in a life.
    pub async fn quiet(&self, life: usize) {
        loop {
            let over = self.over.notified();
            if self.going.lock().unwrap().range(..=life).all(|(_, &going)| going == 0) {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), over).await;
        }
    }

    pub fn hand(&self) -> Hand {
        self.hands.fetch_add(1, Ordering::Relaxed)
    }

    pub fn book(&self, name: &str, log: usize, terms: Terms) -> Arc<Book> {
        let inner = Inner {
            model: Model::new(terms),
            known: 0,
            is_broken: false,
            before: (Vec::new(), 0),
            long_before: VecDeque::new(),
            given: 0,
            stopped: None,
        };
        let (deeds, inner) = (Mutex::default(), Mutex::new(inner));
        let book = Arc::new(Book { name: name.to_owned(), log, terms, deeds, inner });
        self.books.lock().unwrap().push(book.clone());
        book
    }

    /// The last entry that a log is known to have.
    pub fn head(&self, log: usize) -> Entry {
        self.logs[log].lock().unwrap().entries.last().map_or(0, |(entry, ..)| *entry)
    }

    /// Whether retention has taken all of a log: then nothing comes that would tell of it.
    pub fn is_empty(&self, log: usize) -> bool {
        let log = self.logs[log].lock().unwrap();
        log.entries.last().is_none_or(|&(last, ..)| log.earliest > last)
    }

    /// The cursor of an entry, as a reader was told it.
    pub fn note_cursor(&self, log: usize, entry: Entry, cursor: &str) {
        self.logs[log].lock().unwrap().cursors.insert(entry, cursor.to_owned());
    }

    /// The cursor of an entry, if it is known.
    pub fn cursor(&self, log: usize, entry: Entry) -> Option<String> {
        self.logs[log].lock().unwrap().cursors.get(&entry).cloned()
    }

    /// Something was done, of this kind.
    pub fn count(&self, what: &str) {
        *self.done.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub fn counted(&self) -> BTreeMap<String, u64> {
        self.done.lock().unwrap().clone()
    }

    /// Something is wrong that no model was asked about.
    pub fn breach(&self, what: String) {
        println!("  BROKEN at {} ms: {what}", self.now());
        self.broken.lock().unwrap().push(what);
    }

    pub fn complaints(&self) -> Vec<(String, Complaint)> {
        self.complaints.lock().unwrap().clone()
    }

    /// The gateway has ended: every book has that.
    pub fn ended(&self, life: usize, (from, to, killed): (Millis, Millis, bool)) {
        self.lives.lock().unwrap()[life].ended = Some((from, to, killed));
        // A stop in order is when all is over: until then it answers, and what it answers holds.
        let (from, what) = if killed { (from, What::Killed) } else { (to, What::Stopped) };
        for book in self.books.lock().unwrap().iter() {
            book.did(life, Deed { from, to, sure: true, what: what.clone() });
        }
    }

    /// A reader has all, in a round of the end.
    pub fn rest(&self, round: u8, reader: String) {
        self.resting.lock().unwrap().insert((round, reader));
    }

    pub fn resting(&self, round: u8) -> Vec<String> {
        let resting = self.resting.lock().unwrap();
        resting.iter().filter(|(of, _)| *of == round).map(|(_, who)| who.clone()).collect()
    }

    /// Whether the gateway says that a subscription has no more to give: its book is told so.
    pub async fn is_drained(self: &Arc<Self>, book: &Book, live: Live) -> bool {
        let (going, up_to) = (self.begin(live.life), self.head(book.log));
        let lags = lags(live).await;
        let (app, stream) = LOGS[book.log];
        let is_it = |(of, _): &&(String, u64)| *of == format!("{app} {stream} {}", book.name);
        let drained = lags.iter().find(is_it).is_some_and(|(_, lag)| *lag == 0);
        if drained {
            let what = What::Drained { up_to };
            book.did(live.life, Deed { from: going.from, to: self.now(), sure: true, what });
        }
        drained
    }

    /// How many events all subscriptions have not settled.
    pub async fn lag(self: &Arc<Self>, live: Live) -> u64 {
        let _going = self.begin(live.life);
        lags(live).await.iter().map(|(_, lag)| lag).sum()
    }

    /// Judges what happened up to the end of a life, when the logs were read to their ends in the next one.
    pub async fn judge(self: &Arc<Self>, life: usize) {
        self.quiet(life).await;
        let is_read = |log: &Mutex<Log>| log.lock().unwrap().read_in.is_some_and(|read_in| read_in > life);
        while !self.logs.iter().all(is_read) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (stage, books) = (self.clone(), self.books.lock().unwrap().clone());
        let judging = move || books.iter().for_each(|book| stage.judge_book(book, life));
        tokio::task::spawn_blocking(judging).await.unwrap();
    }

    fn judge_book(&self, book: &Book, life: usize) {
        let Life { began, ended } = self.lives.lock().unwrap()[life];
        let ended = ended.expect("it has ended");
        let late = self.stalls.worst(began, ended.1);
        let mut inner = book.inner.lock().unwrap();
        let inner = &mut *inner;
        let new = self.logs[book.log].lock().unwrap().entries[inner.known..].to_vec();
        let stored = |model: &mut Model| new.iter().for_each(|&(entry, key, since)| model.stored(entry, key, since));
        let terms = |late: Millis| {
            let Terms { round, seen_after, .. } = book.terms;
            Terms { round: round + late, seen_after: seen_after + late, ..book.terms }
        };
        stored(&mut inner.model);
        inner.known += new.len();
        inner.model.holds(terms(late));
        let noted: Vec<Noted> = book.deeds.lock().unwrap().extract_if(.., |noted| noted.life <= life).collect();
        let deeds: Vec<Deed> = noted.into_iter().map(|noted| noted.deed(LINGER + late, ended)).collect();
        let judged = |mut model: Model, deeds: Vec<Deed>| {
            deeds.into_iter().for_each(|deed| model.apply(deed));
            let complaints = model.judge(ended.1);
            (model, complaints)
        };
        let came = new.iter().map(|&(entry, _, since)| (entry, since)).filter(|&(_, since)| since >= began).collect();
        let (before, late_before) = std::mem::take(&mut inner.before);
        let terms = terms(late.max(late_before));
        let scene = Scene { terms, began, deeds: &deeds, before: &before, came: &came, given: inner.given };
        let (unjudged, began_at) = (inner.model.clone(), Instant::now());
        let given = deeds.iter().filter_map(|deed| match &deed.what {
            What::Given { gifts, .. } => gifts.last().map(|gift| gift.entry),
            _ => None,
        });
        inner.given = inner.given.max(given.max().unwrap_or(0));
        inner.before = (deeds.clone(), late);
        deeds.iter().for_each(|deed| inner.model.apply(deed.clone()));
        let steps = inner.model.steps;
        let complaints = inner.model.judge(ended.1);
        self.steps.fetch_add(inner.model.steps - steps, Ordering::Relaxed);
        for (n, complaint) in complaints.into_iter().enumerate() {
            // After the first ones the rest follows from them.
            if !inner.is_broken && n < 5 {
                println!("  COMPLAINT of {} in life {life}: {complaint}", book.name);
                let story = |deeds| complaint.entry.map_or(Vec::new(), |entry| plant::story(deeds, entry));
                for deeds in inner.long_before.iter().chain([&before, &deeds]) {
                    story(deeds).iter().for_each(|line| println!("      {line}"));
                }
            }
            self.complaints.lock().unwrap().push((book.name.clone(), complaint));
        }
        inner.long_before.push_back(before.clone());
        if inner.long_before.len() > REMEMBERED {
            inner.long_before.pop_front();
        }
        inner.is_broken |= self.complaints.lock().unwrap().iter().filter(|(name, _)| *name == book.name).count() > 5;
        // Where much may be so, what is planted takes long to be judged, too.
        if inner.is_broken || began_at.elapsed() > PLANTED_WITHIN {
            inner.stopped = None;
            return;
        }
        let plants = |sort: Sort| self.planted.of(sort).0 < PLANTED;
        let found = |sort: Sort, complaints: Vec<Complaint>| {
            let is_found = complaints.iter().any(|complaint| sort.rules().contains(&complaint.rule));
            if !is_found {
                println!("  NOT FOUND, of {} in life {life}: {sort:?}: {complaints:?}", book.name);
            }
            self.planted.count(sort, is_found);
        };
        for sort in Sort::ALL.into_iter().filter(|&sort| plants(sort)) {
            if let Some(deeds) = scene.with(sort) {
                found(sort, judged(unjudged.clone(), deeds).1);
            }
        }
        if let Some(mut stopped) = inner.stopped.take()
            && plants(Sort::StopRepeats)
            && scene.is_repeated()
        {
            stored(&mut stopped);
            stopped.holds(terms);
            found(Sort::StopRepeats, judged(stopped, deeds.clone()).1);
        }
        if ended.2 && plants(Sort::StopRepeats) {
            let stop = |deed: &Deed| {
                let is_kill = matches!(deed.what, What::Killed);
                if is_kill { Deed { what: What::Stopped, ..deed.clone() } } else { deed.clone() }
            };
            inner.stopped = Some(judged(unjudged.clone(), deeds.iter().map(stop).collect()).0);
        }
    }

    /// How long ago, at a time between these, something may have happened that a kill undoes.
    pub fn round(&self, from: Millis, to: Millis) -> Millis {
        ROUND + self.stalls.worst(from, to)
    }
}

/// How many events each subscription has not settled.
async fn lags(live: Live) -> Vec<(String, u64)> {
    let asked = Caller::new(live.operators, "").get("/admin/v1/subscriptions", Manner::Plain).await;
    let Ended::Answered(answer) = asked else { return Vec::new() };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let lag = |s: &serde_json::Value| {
        let name = format!("{} {} {}", text(&s["app"]), text(&s["stream"]), text(&s["subscription"]));
        (name, s["lag"].as_u64().unwrap_or(u64::MAX))
    };
    answer.json()["subscriptions"].as_array().into_iter().flatten().map(lag).collect()
}

impl Noted {
    /// It, when it is known how its life ended, and how long it took until the gateway saw something.
    fn deed(self, linger: Millis, (from, to, killed): (Millis, Millis, bool)) -> Deed {
        let mut deed = self.deed;
        if let Some(until) = self.lingers_until {
            deed.to = deed.to.max(until.min(deed.to + linger));
        }
        deed.sure &= !(self.if_it_lived_on && killed && deed.to > from);
        deed.to = deed.to.min(to);
        deed.from = deed.from.min(deed.to);
        deed
    }
}

impl Log {
    pub fn add(&mut self, entry: Entry, key: Key, cursor: String) {
        self.entries.push((entry, key, self.read_at));
        self.cursors.insert(entry, cursor);
    }

    pub fn read_to_its_end(&mut self, life: usize, asked: Millis) {
        (self.read_in, self.read_at) = (Some(life), asked);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Book {
    pub fn did(&self, life: usize, deed: Deed) {
        self.note(Noted { life, deed, lingers_until: None, if_it_lived_on: false });
    }

    /// The gateway may see it later.
    pub fn lingered(&self, life: usize, deed: Deed) {
        self.lingered_until(life, deed, NEVER);
    }

    /// The gateway may see it later, but not after a time.
    pub fn lingered_until(&self, life: usize, deed: Deed, until: Millis) {
        self.note(Noted { life, deed, lingers_until: Some(until), if_it_lived_on: false });
    }

    /// The gateway may see it later; it is only sure if it lived on.
    pub fn lingered_if_it_lived_on(&self, life: usize, deed: Deed) {
        self.note(Noted { life, deed, lingers_until: Some(NEVER), if_it_lived_on: true });
    }

    fn note(&self, noted: Noted) {
        self.deeds.lock().unwrap().push(noted);
    }

    pub fn unseen(&self) -> Result<u64, Complaint> {
        self.inner.lock().unwrap().model.unseen()
    }
}

/// A key's number.
pub fn key(text: &str) -> Key {
    if text.is_empty() {
        return 0;
    }
    text.bytes().fold(7, |key: Key, byte| key.wrapping_mul(31).wrapping_add(byte.into())).max(2)
}
