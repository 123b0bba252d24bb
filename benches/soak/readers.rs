//! Subscribers: steady ones, slow ones, ones that leave, come and go, share, are shut out, or keep their own cursor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::events::Cursor;
use rtm_gateway::store::Sequence;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::caller::{Answer, Caller, Ended, Manner};
use super::ledger::{Book, Delivery, Entry, Serial, Use};
use super::stage::{Live, Stage};
use super::vendor::LOGS;

/// How a subscription is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Steady,
    Slow,
    /// Leaves every third answer or so in the middle.
    Leaves,
    /// Reads for a while and stays away for a while.
    ComesAndGoes,
    /// Of a client that is at times not configured.
    Guest,
}

/// Starts all readers but the passing ones.
pub fn start(stage: &Arc<Stage>, seed: u64, tasks: &mut JoinSet<()>) {
    let mut seed = seed;
    let mut reader = |log: usize, name: &str, how: Use, native: bool, habit: Habit, readers: usize| {
        let book = stage.book(log, name, how);
        for _ in 0..readers {
            seed = seed.wrapping_add(1);
            let random = StdRng::seed_from_u64(seed);
            tasks.spawn(Reader { stage: stage.clone(), log, native, habit, book: book.clone(), random }.run());
        }
    };
    for log in 0..LOGS.len() {
        reader(log, "steady", Use::Whole, false, Habit::Steady, 1);
        reader(log, "native", Use::Whole, true, Habit::Steady, 1);
        reader(log, "visitor", Use::Whole, log == 1, Habit::ComesAndGoes, 1);
        reader(log, "pair", Use::Shared, false, Habit::Steady, 2);
        reader(log, "leaver", Use::Shared, log == 1, Habit::Leaves, 1);
    }
    reader(0, "slow", Use::Whole, false, Habit::Slow, 1);
    reader(1, "slow", Use::Whole, true, Habit::Slow, 1);
    reader(0, "$client.guest", Use::Whole, false, Habit::Guest, 1);
    for log in 0..LOGS.len() {
        tasks.spawn(scan_along(stage.clone(), log));
    }
    tasks.spawn(passing(stage.clone(), StdRng::seed_from_u64(seed ^ 0x5eed)));
}

struct Reader {
    stage: Arc<Stage>,
    log: usize,
    native: bool,
    habit: Habit,
    book: Arc<Mutex<Book>>,
    random: StdRng,
}

impl Reader {
    async fn run(mut self) {
        let name = self.book.lock().unwrap().subscription.clone();
        let key = if self.habit == Habit::Guest { "guest" } else { "reader" };
        let mut caller: Option<(Live, Caller)> = None;
        let mut until_away = 10;
        loop {
            let live = self.stage.live().await;
            if caller.as_ref().is_none_or(|(of, _)| *of != live) {
                caller = Some((live, Caller::new(live.callers, key)));
            }
            let Some((_, line)) = caller.as_mut() else { continue };
            let finishing = self.stage.is_finishing();
            let limit = if finishing { 1000 } else { *pick(&mut self.random, &[1, 7, 100, 1000, 1000]) };
            let wait = if finishing { 0 } else { *pick(&mut self.random, &[0, 300, 2000, 5000]) };
            let more = if self.habit == Habit::Guest { String::new() } else { format!("&subscription={name}") };
            let path = path(self.log, self.native, &format!("limit={limit}&wait={wait}ms{more}"));
            let ended = line.get(&path, self.manner(finishing)).await;
            match ended {
                Ended::Answered(answer) if answer.status == 200 => {
                    self.stage.status("events", 200);
                    let events = events(&self.stage, self.log, self.native, &answer);
                    if events.is_empty() && finishing {
                        return;
                    }
                    if !events.is_empty() {
                        self.stage.note_delivered(events.len());
                        let delivery = Delivery { run: live.run, events, left: None };
                        self.book.lock().unwrap().deliveries.push(delivery);
                    } else if wait == 0 {
                        self.pause(50).await;
                    }
                }
                Ended::Answered(answer) => {
                    self.stage.status("events", answer.status);
                    let shut_out = self.habit == Habit::Guest && answer.status == 401;
                    if !shut_out {
                        judge(&self.stage, "an events read", &answer);
                    }
                    self.pause(150).await;
                }
                Ended::Left => {
                    self.stage.status("events", "left");
                    let delivery = Delivery { run: live.run, events: Vec::new(), left: Some(limit) };
                    self.book.lock().unwrap().deliveries.push(delivery);
                }
                Ended::Unasked | Ended::Nothing | Ended::Broken => {
                    self.stage.status("events", "cut");
                    self.pause(200).await;
                }
                Ended::Hung => self.stage.breach(format!("a read of {name} was not answered")),
            }
            until_away -= 1;
            if self.habit == Habit::ComesAndGoes && until_away <= 0 && !finishing {
                until_away = self.random.random_range(1..30);
                caller = None;
                self.pause(15_000).await;
            }
        }
    }

    fn manner(&mut self, finishing: bool) -> Manner {
        match self.habit {
            Habit::Slow if !finishing => Manner::Slow,
            Habit::Leaves if !finishing && self.random.random_bool(0.3) => {
                Manner::Leave(*pick(&mut self.random, &[0, 1, 100, 1000, 20_000, 200_000]))
            }
            _ => Manner::Plain,
        }
    }

    /// A pause of up to so many milliseconds; ends when the soak does.
    async fn pause(&mut self, most: u64) {
        let pause = Duration::from_millis(self.random.random_range(1..=most));
        let mut phase = self.stage.phase.subscribe();
        let _ = tokio::time::timeout(pause, phase.changed()).await;
    }
}

/// Reads a log by cursor, keeping the cursor itself, as far as it goes; whatever happens to the gateway.
async fn scan_along(stage: Arc<Stage>, log: usize) {
    let mut caller: Option<(Live, Caller)> = None;
    let mut after: Option<String> = None;
    loop {
        let live = stage.live().await;
        if caller.as_ref().is_none_or(|(of, _)| *of != live) {
            caller = Some((live, Caller::new(live.callers, "reader")));
        }
        let Some((_, line)) = caller.as_mut() else { continue };
        let finishing = stage.is_finishing();
        let Some(cursor) = after.clone() else {
            after = beginning(line, log).await;
            continue;
        };
        let wait = if finishing { 0 } else { 3 };
        let path = path(log, true, &format!("limit=1000&wait={wait}s&after={cursor}"));
        match line.get(&path, Manner::Plain).await {
            Ended::Answered(answer) if answer.status == 200 => {
                stage.status("after", 200);
                let (entries, next) = entries(&stage, log, &answer);
                if entries.is_empty() && finishing {
                    return;
                }
                stage.scans[log].lock().unwrap().extend(entries);
                after = Some(next);
            }
            Ended::Answered(answer) => {
                stage.status("after", answer.status);
                judge(&stage, "a read by cursor", &answer);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ended::Hung => stage.breach("a read by cursor was not answered".into()),
            Ended::Unasked | Ended::Nothing | Ended::Broken | Ended::Left => {
                stage.status("after", "cut");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The whole of a log, from its beginning.
pub async fn scan(stage: &Stage, log: usize) -> Vec<Entry> {
    let mut line = Caller::new(stage.live().await.callers, "reader");
    let mut after = beginning(&mut line, log).await;
    let mut all = Vec::new();
    while let Some(cursor) = after.take() {
        let path = path(log, true, &format!("limit=1000&after={cursor}"));
        let Ended::Answered(answer) = line.get(&path, Manner::Plain).await else { break };
        let (entries, next) = entries(stage, log, &answer);
        if !entries.is_empty() {
            after = Some(next);
            all.extend(entries);
        }
    }
    all
}

/// The cursor before a log's first entry: what an answer to a cursor of nowhere names.
async fn beginning(line: &mut Caller, log: usize) -> Option<String> {
    let nowhere = Cursor { epoch: 0, at: Sequence(0) };
    let answer = line.get(&path(log, true, &format!("after={nowhere}")), Manner::Plain).await;
    let Ended::Answered(answer) = answer else {
        tokio::time::sleep(Duration::from_millis(30)).await;
        return None;
    };
    answer.json()["earliest"].as_str().map(str::to_owned)
}

/// How many subscriptions come for a short while. What the gateway keeps for one that is away is kept for good, so a soak
/// that made new ones to its end would find its memory grown, and rightly so.
const PASSING: usize = 60;

/// Subscriptions that begin at the latest, read a little, and go; after some minutes they are seen again.
async fn passing(stage: Arc<Stage>, mut random: StdRng) {
    let mut books = Vec::new();
    for number in (0..PASSING).cycle() {
        tokio::time::sleep(Duration::from_millis(random.random_range(500..4000))).await;
        if stage.is_finishing() {
            return;
        }
        let (log, name) = (number % LOGS.len(), format!("passing-{number}"));
        let live = stage.live().await;
        let mut line = Caller::new(live.callers, "reader");
        if books.len() == number {
            books.push(stage.book(log, &name, Use::FromSomewhere));
        }
        let book = &books[number];
        for _ in 0..random.random_range(1..8) {
            let path = path(log, false, &format!("limit=50&wait=500ms&from=latest&subscription={name}"));
            let Ended::Answered(answer) = line.get(&path, Manner::Plain).await else { break };
            stage.status("events", answer.status);
            if answer.status != 200 {
                judge(&stage, "a passing read", &answer);
                break;
            }
            let events = events(&stage, log, false, &answer);
            stage.note_delivered(events.len());
            if !events.is_empty() {
                book.lock().unwrap().deliveries.push(Delivery { run: live.run, events, left: None });
            }
        }
    }
}

fn path(log: usize, native: bool, query: &str) -> String {
    let (app, stream) = LOGS[log];
    if native {
        format!("/v1/apps/{app}/events/{stream}?{query}")
    } else {
        format!("/dev/v2/project/{app}/rtm/vendor/{stream}?{query}")
    }
}

/// What no answer to a sound request may be.
pub fn judge(stage: &Stage, what: &str, answer: &Answer) {
    if matches!(answer.status, 400 | 401 | 403 | 404 | 405 | 410 | 413 | 431 | 500) {
        let body = String::from_utf8_lossy(&answer.body);
        stage.breach(format!("{what} was answered {}: {body}", answer.status));
    }
}

#[derive(Deserialize)]
struct VendorForm<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct NativeForm<'a> {
    #[serde(borrow)]
    events: Vec<NativeEntry<'a>>,
    next: String,
}

#[derive(Deserialize)]
struct NativeEntry<'a> {
    cursor: String,
    region: String,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(default)]
    reason: String,
    /// Of a marker of an outage: how many reads it stands for, and why these ended in doubt.
    count: Option<u64>,
    #[serde(default)]
    reasons: BTreeMap<String, u64>,
}

/// The events of an answer; each must be one that occurred, byte for byte.
fn events(stage: &Stage, log: usize, native: bool, answer: &Answer) -> Vec<Serial> {
    if native {
        return entries(stage, log, answer).0.into_iter().filter_map(|entry| entry.event).collect();
    }
    match serde_json::from_slice::<VendorForm<'_>>(&answer.body) {
        Ok(form) => form.events.into_iter().filter_map(|text| known(stage, log, text)).collect(),
        Err(why) => {
            stage.breach(format!("an answer cannot be read: {why}"));
            Vec::new()
        }
    }
}

fn entries(stage: &Stage, log: usize, answer: &Answer) -> (Vec<Entry>, String) {
    let form = match serde_json::from_slice::<NativeForm<'_>>(&answer.body) {
        Ok(form) => form,
        Err(why) => {
            stage.breach(format!("an answer cannot be read: {why}: {}", String::from_utf8_lossy(&answer.body)));
            return (Vec::new(), String::new());
        }
    };
    let entry = |entry: NativeEntry<'_>| Entry {
        sequence: entry.cursor.parse::<Cursor>().map_or(0, |cursor| cursor.at.0),
        region: entry.region,
        event: entry.event.and_then(|text| known(stage, log, text)),
        reason: entry.reason,
        count: entry.count.unwrap_or(1),
        reasons: entry.reasons.into_keys().collect(),
    };
    (form.events.into_iter().map(entry).collect(), form.next)
}

fn known(stage: &Stage, log: usize, text: &RawValue) -> Option<Serial> {
    let serial = stage.vendor.serial(log, text.get());
    if serial.is_none() {
        stage.breach(format!("an event that never occurred: {}", text.get()));
    }
    serial
}

pub fn pick<'a, T>(random: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}
