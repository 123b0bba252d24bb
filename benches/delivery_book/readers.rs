//! Those who ask: plain readers, and readers that acknowledge.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::events::{Cursor, CursorPair};
use rtm_gateway::kernel::names::{Stream, Streams};
use serde::Deserialize;

use super::caller::{Answer, Caller, Ended, Manner};
use super::stage::{Book, LOGS, Live, Phase, Stage};
use delivery_model::{Counts, Deed, Entry, Gift, Hand, How, Leasing, Millis, Named, Told, What};

/// An answer in the native form.
#[derive(Deserialize)]
struct Native {
    events: Vec<Came>,
    lease: Option<String>,
    settled: Option<Settled>,
}

/// What became of an acknowledgement that came with a read.
#[derive(Deserialize)]
struct Settled {
    /// `None`: the lease was over.
    events: Option<u64>,
}

/// A lease that is to be acknowledged with the next read.
struct Held {
    live: Live,
    by: Hand,
    lease: String,
}

#[derive(Deserialize)]
struct Came {
    cursor: String,
    attempt: Option<u32>,
    stream: Option<String>,
    #[serde(default)]
    reason: String,
}

/// Who reads, and how.
pub struct Reader {
    pub stage: Arc<Stage>,
    pub random: StdRng,
    /// One; or of `all`, one for each stream.
    pub books: Vec<Arc<Book>>,
    /// Whether nobody else reads the subscription.
    pub alone: bool,
    /// Whether it takes all its answers whole: then nothing of what it was given can hide in one that did not arrive.
    is_steady: bool,
    /// It rests so long between two reads, now and then.
    rest: u64,
    /// Until then its answers come whole: what is told of one that did not hides much.
    whole_until: Millis,
    caller: Option<(Live, Caller)>,
    id: u64,
}

impl Reader {
    pub fn new(stage: &Arc<Stage>, seed: u64, books: Vec<Arc<Book>>, alone: bool) -> Self {
        Self {
            stage: stage.clone(),
            random: StdRng::seed_from_u64(seed),
            books,
            alone,
            is_steady: false,
            rest: 500,
            whole_until: 0,
            caller: None,
            id: seed,
        }
    }

    pub fn steady(self) -> Self {
        Self { is_steady: true, ..self }
    }

    /// Retention overtakes it.
    pub fn slow(self) -> Self {
        Self { rest: 4000, ..self }
    }

    pub fn name(&self) -> &str {
        &self.books[0].name
    }

    fn is_of_all(&self) -> bool {
        self.books.len() > 1
    }

    pub fn path(&self, query: &str) -> String {
        let (app, stream) = LOGS[self.books[0].log];
        let stream = if self.is_of_all() { "all" } else { stream.as_str() };
        format!("/v1/apps/{app}/events/{stream}?subscription={}&{query}", self.name())
    }

    /// Where acknowledgements go.
    pub fn word(&self, word: &str) -> String {
        let (app, stream) = LOGS[self.books[0].log];
        format!("/v1/apps/{app}/events/{stream}/{word}")
    }

    async fn caller(&mut self) -> (Live, &mut Caller) {
        let live = self.stage.live().await;
        (live, self.line(live))
    }

    /// A connection of this life.
    pub fn line(&mut self, live: Live) -> &mut Caller {
        if self.caller.as_ref().is_none_or(|(of, _)| *of != live) {
            self.caller = Some((live, Caller::new(live.callers, "reader")));
        }
        &mut self.caller.as_mut().unwrap().1
    }

    async fn pause(&mut self, most: u64) {
        let pause = Duration::from_millis(self.random.random_range(1..=most));
        tokio::time::sleep(pause).await;
    }

    /// Between two reads.
    pub async fn rest(&mut self, often: f64) {
        let is_long = !self.stage.is_finishing() && self.random.random_bool(often);
        self.pause(if is_long { self.rest } else { 30 }).await;
    }

    /// How the next answer is read.
    fn manner(&mut self) -> Manner {
        let now = self.stage.now();
        if self.stage.is_finishing() || self.is_steady || now < self.whole_until {
            return Manner::Plain;
        }
        match self.random.random_range(0..100) {
            0..3 => {
                self.whole_until = now + self.random.random_range(500..4000);
                Manner::Leave([0, 1, 300, 3000][self.random.random_range(0..4)])
            }
            3..5 => Manner::Slow,
            _ => Manner::Plain,
        }
    }

    /// Reads plainly, to the end.
    pub async fn read_plainly(mut self) {
        let mut done = 0;
        loop {
            let phase = self.stage.phase();
            if phase == Phase::Over {
                return;
            }
            let limit = *pick(&mut self.random, &[1, 3, 10, 40, 300]);
            let wait = if self.stage.is_finishing() { 0 } else { *pick(&mut self.random, &[0, 50, 400]) };
            let (path, manner) = (self.path(&format!("limit={limit}&wait={wait}ms")), self.manner());
            let heads: Vec<Entry> = self.books.iter().map(|book| self.stage.head(book.log)).collect();
            let stage = self.stage.clone();
            let (live, caller) = self.caller().await;
            let going = stage.begin(live.life);
            let ended = caller.get(&path, manner).await;
            let (from, to) = (going.from, stage.now());
            match ended {
                Ended::Answered(answer) if answer.status == 200 => {
                    stage.count("plain reads");
                    let told = self.told(&answer);
                    let is_nothing = told.iter().all(|(gifts, told)| gifts.is_empty() && *told == Told::Nothing);
                    for ((book, (gifts, told)), up_to) in self.books.iter().zip(told).zip(heads) {
                        if gifts.is_empty() && told == Told::Nothing {
                            if is_nothing && self.alone {
                                book.did(live.life, deed((from, to), What::Nothing { up_to }));
                            }
                            continue;
                        }
                        let what = What::Given { how: How::Plain, gifts, told };
                        book.did(live.life, deed((from, to), what));
                    }
                    drop(going);
                    if is_nothing && !self.rests(phase, &mut done, live).await {
                        self.pause(40).await;
                    }
                }
                Ended::Answered(answer) => {
                    self.refused("a plain read", &answer);
                    drop(going);
                    self.pause(100).await;
                }
                Ended::Unasked => {
                    drop(going);
                    self.pause(40).await;
                }
                Ended::Nothing | Ended::Broken | Ended::Left => {
                    stage.count("plain reads that broke off");
                    for book in &self.books {
                        let what = What::Broke { how: How::Plain, seen: Vec::new(), limit };
                        book.lingered(live.life, deed((from, to), what));
                    }
                    drop(going);
                    self.pause(100).await;
                }
                Ended::Hung => stage.breach(format!("a read of {} was not answered", self.name())),
            }
            self.rest(0.05).await;
        }
    }

    /// Reads and acknowledges, in every way.
    pub async fn read_and_acknowledge(mut self, most: u32) {
        let mut done = 0;
        let mut held: Option<Held> = None;
        loop {
            let phase = self.stage.phase();
            if phase == Phase::Over {
                return;
            }
            let finishing = self.stage.is_finishing();
            let limit = *pick(&mut self.random, &[1, 2, 5, 20]);
            let wait = if finishing { 0 } else { *pick(&mut self.random, &[0, 100, 500]) };
            let lease = *pick(&mut self.random, &[1000, 1000, 1500, 3000]);
            let leasing = Leasing { by: self.stage.hand(), lease, most, counts: Counts::Taking };
            let query = format!("ack=explicit&limit={limit}&wait={wait}ms&lease={lease}ms&max_attempts={most}");
            let (path, manner, name) = (self.path(&query), self.manner(), self.name().to_owned());
            let next = self.word("next");
            let stage = self.stage.clone();
            let book = self.books[0].clone();
            let (live, caller) = self.caller().await;
            // Of an earlier life there are no leases.
            let settles = held.take().filter(|held| held.live == live);
            let going = stage.begin(live.life);
            let ended = match &settles {
                None => caller.get(&path, manner).await,
                Some(Held { lease: held, .. }) => {
                    stage.count("acknowledgements with a read");
                    let body = serde_json::json!({
                        "subscription": name, "settle": { "lease": held }, "limit": limit, "wait": format!("{wait}ms"),
                        "lease": format!("{lease}ms"), "max_attempts": most,
                    });
                    caller.send("POST", &next, Some(&body.to_string()), manner).await
                }
            };
            let (from, to) = (going.from, stage.now());
            if let Some(Held { by, .. }) = settles {
                let acked = |changed| What::Acked(Named { by: Some(by), entries: Vec::new(), changed });
                match &ended {
                    Ended::Answered(answer) if answer.status == 200 => {
                        let native = serde_json::from_slice::<Native>(&answer.body).ok();
                        let what = match native.and_then(|native| native.settled) {
                            Some(Settled { events: Some(changed) }) => acked(Some(changed)),
                            Some(Settled { events: None }) => What::NoSuchLease { by },
                            None => {
                                stage.breach(format!("a read of {name} does not say what it settled"));
                                acked(None)
                            }
                        };
                        book.did(live.life, deed((from, to), what));
                    }
                    Ended::Unasked => {}
                    // It may have been heard.
                    _ => book.lingered(live.life, Deed { sure: false, ..deed((from, to), acked(None)) }),
                }
            }
            match ended {
                Ended::Answered(answer) if answer.status == 200 => {
                    stage.count("leases");
                    let lease = serde_json::from_slice::<Native>(&answer.body).ok().and_then(|native| native.lease);
                    let (gifts, told) = self.told(&answer).remove(0);
                    let Some(lease) = lease else {
                        drop(going);
                        if !self.rests(phase, &mut done, live).await {
                            self.pause(if finishing { 100 } else { 30 }).await;
                        }
                        continue;
                    };
                    let entries: Vec<Entry> = gifts.iter().map(|gift| gift.entry).collect();
                    let what = What::Given { how: How::Leased(leasing), gifts, told };
                    book.did(live.life, deed((from, to), what));
                    drop(going);
                    if self.random.random_bool(0.3) {
                        held = Some(Held { live, by: leasing.by, lease });
                    } else {
                        self.settle(live, Some((leasing.by, &lease)), &entries).await;
                    }
                }
                Ended::Answered(answer) => {
                    self.refused("a leased read", &answer);
                    drop(going);
                    self.pause(100).await;
                }
                Ended::Unasked => {
                    drop(going);
                    self.pause(40).await;
                }
                Ended::Nothing | Ended::Broken | Ended::Left => {
                    stage.count("leases that broke off");
                    let what = What::Broke { how: How::Leased(leasing), seen: Vec::new(), limit };
                    book.lingered(live.life, deed((from, to), what));
                    drop(going);
                    self.pause(100).await;
                }
                Ended::Hung => stage.breach(format!("a read of {} was not answered", self.name())),
            }
        }
    }

    /// Says something of what a lease holds.
    pub async fn settle(&mut self, live: Live, lease: Option<(Hand, &str)>, entries: &[Entry]) {
        if self.random.random_bool(0.3) && !self.stage.is_finishing() {
            self.pause(400).await;
        }
        let all = match lease {
            Some((by, lease)) => Holding { by: Some(by), lease: lease.to_owned(), entries: Vec::new() },
            None => Holding { by: None, lease: String::new(), entries: entries.to_vec() },
        };
        let choice = if self.stage.is_finishing() { 0 } else { self.random.random_range(0..100) };
        match choice {
            0..45 => self.say(live, Word::Ack, &all).await,
            45..60 => {
                // Some of them, and perhaps the rest by the lease.
                let some = entries.iter().copied().filter(|_| self.random.random_bool(0.6)).collect::<Vec<_>>();
                if !some.is_empty() {
                    self.say(live, Word::Ack, &Holding { by: None, lease: String::new(), entries: some }).await;
                }
                if self.random.random_bool(0.5) {
                    self.say(live, Word::Ack, &all).await;
                }
            }
            60..68 => self.say(live, Word::Nack(0), &all).await,
            68..80 => {
                let delay = self.random.random_range(100..1500);
                self.say(live, Word::Nack(delay), &all).await;
            }
            80..88 => {
                self.say(live, Word::Extend(1500), &all).await;
                self.pause(300).await;
                self.say(live, Word::Ack, &all).await;
            }
            88..93 => {
                // Late: the lease may be over.
                tokio::time::sleep(Duration::from_millis(self.random.random_range(900..1300))).await;
                self.say(live, Word::Ack, &all).await;
            }
            _ => {}
        }
    }

    async fn say(&mut self, live: Live, word: Word, holding: &Holding) {
        let (stage, book) = (self.stage.clone(), self.books[0].clone());
        let named = |changed| Named { by: holding.by, entries: holding.entries.clone(), changed };
        let (path, mut body) = match word {
            Word::Ack => (self.word("ack"), serde_json::json!({})),
            Word::Nack(ms) => (self.word("nack"), serde_json::json!({ "delay": format!("{ms}ms") })),
            Word::Extend(ms) => (self.word("extend"), serde_json::json!({ "lease_for": format!("{ms}ms") })),
        };
        body["subscription"] = self.name().into();
        if holding.by.is_some() {
            body["lease"] = holding.lease.as_str().into();
        } else {
            let cursors = holding.entries.iter().filter_map(|&entry| self.stage.cursor(book.log, entry));
            let cursors: Vec<String> = cursors.collect();
            if cursors.len() != holding.entries.len() {
                return;
            }
            body["cursors"] = cursors.into();
        }
        let what = |changed| match word {
            Word::Ack => What::Acked(named(changed)),
            Word::Nack(ms) => What::Nacked(named(changed), ms),
            // By an entry all that its lease holds is extended, and counted.
            Word::Extend(ms) => What::Extended(named(changed.filter(|_| holding.by.is_some())), ms),
        };
        let going = stage.begin(live.life);
        let ended = match &mut self.caller {
            Some((of, caller)) if *of == live => caller.post(&path, &body.to_string()).await,
            _ => return,
        };
        let when = (going.from, stage.now());
        stage.count(match word {
            Word::Ack => "acknowledgements",
            Word::Nack(_) => "nacks",
            Word::Extend(_) => "extensions",
        });
        match ended {
            Ended::Answered(answer) if answer.status == 200 => {
                book.did(live.life, deed(when, what(answer.json()["events"].as_u64())));
            }
            Ended::Answered(answer) if answer.status == 410 => {
                if let Some(by) = holding.by {
                    book.did(live.life, deed(when, What::NoSuchLease { by }));
                }
            }
            Ended::Answered(answer) => {
                self.refused("a word of a lease", &answer);
                book.did(live.life, Deed { sure: false, ..deed(when, what(None)) });
            }
            Ended::Unasked => {}
            // It may have been heard.
            _ => book.lingered(live.life, Deed { sure: false, ..deed(when, what(None)) }),
        }
    }

    /// What an answer gave, and told, of each book's log.
    fn told(&self, answer: &Answer) -> Vec<(Vec<Gift>, Told)> {
        let Ok(native) = serde_json::from_slice::<Native>(&answer.body) else {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            self.stage.breach(format!("{} was answered {body}", self.name()));
            return self.books.iter().map(|_| (Vec::new(), Told::Cannot)).collect();
        };
        let mut all: Vec<(Vec<Gift>, Told)> = self.books.iter().map(|_| (Vec::new(), Told::Nothing)).collect();
        for came in native.events {
            let of =
                self.books.iter().position(|book| came.stream.as_ref().is_none_or(|s| s == LOGS[book.log].1.as_str()));
            let (gifts, told) = &mut all[of.unwrap_or(0)];
            if came.reason == "retention" {
                *told = Told::Lost(None);
                continue;
            }
            let entry = entry(&came.cursor, came.stream.as_deref());
            gifts.push(Gift { entry, attempt: came.attempt });
        }
        all
    }

    pub fn refused(&self, what: &str, answer: &Answer) {
        self.stage.count(&format!("{what} answered {}", answer.status));
        if matches!(answer.status, 400 | 401 | 403 | 404 | 405 | 410 | 413 | 431 | 500) {
            let body = String::from_utf8_lossy(&answer.body);
            self.stage.breach(format!("{what} of {} was answered {}: {body}", self.name(), answer.status));
        }
    }

    /// At the end, when nothing is left: rests until the next phase. Says whether it did.
    pub async fn rests(&mut self, phase: Phase, done: &mut u8, live: Live) -> bool {
        let Phase::Finishing(round) = phase else { return false };
        if *done >= round {
            // Nothing is to come: it looks now and then.
            self.pause(300).await;
            return true;
        }
        for book in self.books.clone() {
            if !self.stage.is_drained(&book, live).await {
                self.pause(100).await;
                return false;
            }
        }
        *done = round;
        self.stage.rest(round, format!("{}, {}", self.name(), self.id));
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Ack,
    Nack(Millis),
    Extend(Millis),
}

/// What a word is about.
pub struct Holding {
    by: Option<Hand>,
    lease: String,
    entries: Vec<Entry>,
}

pub fn deed((from, to): (Millis, Millis), what: What) -> Deed {
    Deed { from, to: to.max(from), sure: true, what }
}

/// The entry of a cursor, of one stream or of both.
pub fn entry(cursor: &str, stream: Option<&str>) -> Entry {
    let stream = stream.and_then(Stream::parse);
    match stream {
        Some(stream) => CursorPair::read(cursor, Streams::All).map_or(0, |marks| marks.of(stream).at.0),
        None => cursor.parse::<Cursor>().map_or(0, |cursor| cursor.at.0),
    }
}

pub fn pick<'a, T>(random: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}
