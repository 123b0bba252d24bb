//! What all parts of the driver share: the gateway's lives, the logs as they are, and of each subscription the book.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtm_gateway::names::Stream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::caller::{Caller, Ended, Manner};
use super::gateway::LogTally;
use super::plant::Plant;
use delivery_model::{Complaint, Deed, Entry, Hand, Key, Millis, Model, Terms, What};

/// An app that keeps all, and one of which retention takes most.
pub const ALL: &str = "book-all";
pub const CUT: &str = "book-cut";

/// The logs: of which app, which stream.
pub const LOGS: [(&str, Stream); 3] =
    [(ALL, Stream::UserEvents), (ALL, Stream::ChannelEvents), (CUT, Stream::UserEvents)];

/// How long ago something may have happened that a kill undoes. (The documents say a quarter of a second, and as long
/// until an arrival is seen; the rest is for a loaded machine.)
pub const ROUND: Millis = 1500;
/// How long it may take until the gateway has seen that an answer has arrived, or that its reader has left.
pub const LINGER: Millis = 1500;

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
}

/// A subscription's book.
pub struct Book {
    pub name: String,
    pub log: usize,
    /// Not judged yet: of which life; and whether it is only sure if the gateway lived on. (Judging takes time, and those
    /// who are told of have none.)
    deeds: Mutex<Vec<(usize, Deed, bool)>>,
    inner: Mutex<Inner>,
}

struct Inner {
    model: Model,
    /// How many of the log's entries it knows.
    known: usize,
    is_broken: bool,
}

pub struct Stage {
    pub dir: PathBuf,
    pub live: watch::Sender<Option<Live>>,
    pub phase: watch::Sender<Phase>,
    pub lives: Mutex<Vec<Life>>,
    pub logs: [Mutex<Log>; LOGS.len()],
    pub books: Mutex<Vec<Arc<Book>>>,
    pub tally: LogTally,
    pub plant: Plant,
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
    stage: Arc<Stage>,
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
    pub fn new(dir: PathBuf, plant: Plant) -> Arc<Self> {
        Arc::new(Self {
            dir,
            live: watch::Sender::new(None),
            phase: watch::Sender::new(Phase::Running),
            lives: Mutex::default(),
            logs: Default::default(),
            books: Mutex::default(),
            tally: LogTally::default(),
            plant,
            going: Mutex::default(),
            over: Notify::new(),
            hands: AtomicU64::new(1),
            done: Mutex::default(),
            complaints: Mutex::default(),
            broken: Mutex::default(),
            steps: AtomicU64::new(0),
            is_calm: AtomicBool::new(false),
            resting: Mutex::default(),
            began: Instant::now(),
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
        let inner = Inner { model: Model::new(terms), known: 0, is_broken: false };
        let book = Arc::new(Book { name: name.to_owned(), log, deeds: Mutex::default(), inner: Mutex::new(inner) });
        self.books.lock().unwrap().push(book.clone());
        book
    }

    /// The last entry that a log is known to have.
    pub fn head(&self, log: usize) -> Entry {
        self.logs[log].lock().unwrap().entries.last().map_or(0, |(entry, ..)| *entry)
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
        let what = if killed { What::Killed } else { What::Stopped };
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
        let asked = Caller::new(live.operators, "").get("/admin/v1/subscriptions", Manner::Plain).await;
        let Ended::Answered(answer) = asked else { return false };
        let (app, stream) = LOGS[book.log];
        let json = answer.json();
        let mut all = json["subscriptions"].as_array().into_iter().flatten();
        let is_it = |s: &&serde_json::Value| {
            s["app"] == app && s["stream"] == stream.as_str() && s["subscription"] == book.name.as_str()
        };
        let drained = all.find(is_it).is_some_and(|s| s["lag"] == 0);
        if drained {
            let what = What::Drained { up_to };
            book.did(live.life, Deed { from: going.from, to: self.now(), sure: true, what });
        }
        drained
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
        let ended = self.lives.lock().unwrap()[life].ended.expect("it has ended");
        let mut inner = book.inner.lock().unwrap();
        let inner = &mut *inner;
        let new = self.logs[book.log].lock().unwrap().entries[inner.known..].to_vec();
        new.iter().for_each(|&(entry, key, since)| inner.model.stored(entry, key, since));
        inner.known += new.len();
        let deeds: Vec<_> = book.deeds.lock().unwrap().extract_if(.., |(of, ..)| *of <= life).collect();
        for (_, mut deed, if_it_lived_on) in deeds {
            let (from, to, killed) = ended;
            deed.sure &= !(if_it_lived_on && killed && deed.to > from);
            deed.to = deed.to.min(to);
            deed.from = deed.from.min(deed.to);
            inner.model.apply(deed);
        }
        let before = inner.model.steps;
        let complaints = inner.model.judge(ended.1);
        self.steps.fetch_add(inner.model.steps - before, Ordering::Relaxed);
        for complaint in complaints {
            // After the first ones the rest follows from them.
            if !inner.is_broken {
                println!("  COMPLAINT of {} in life {life}: {complaint}", book.name);
            }
            self.complaints.lock().unwrap().push((book.name.clone(), complaint));
        }
        inner.is_broken |= self.complaints.lock().unwrap().iter().filter(|(name, _)| *name == book.name).count() > 5;
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
        self.deeds.lock().unwrap().push((life, deed, false));
    }

    /// It is sure only if the gateway lived on.
    pub fn did_if_it_lived_on(&self, life: usize, deed: Deed) {
        self.deeds.lock().unwrap().push((life, deed, true));
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
