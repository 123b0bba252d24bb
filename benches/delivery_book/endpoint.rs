//! Where webhooks lead: takes, fails, hangs, asks for rest; and tells each book.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::readers::{deed, entry};
use super::stage::{Book, Going, Stage};
use delivery_model::{Counts, Entry, Gift, Hand, How, Leasing, Millis, NEVER, Told, What};

/// How long the gateway waits for an answer, as configured.
pub const TIMEOUT: Millis = 1500;
/// How long a request is on its way, at most, where nothing is late.
const ON_ITS_WAY: Millis = 250;
/// One in so many events is never taken until the end.
const REFUSED: Entry = 120;
/// How often it tries.
pub const TRIES: u32 = 4;
/// Its first wait between tries; each is a fifth more or less.
pub const FIRST_WAIT: Millis = 100;

/// A webhook, as the driver knows it.
pub struct Hook {
    pub name: &'static str,
    pub book: Arc<Book>,
    pub max_in_flight: usize,
    pub batch: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When those came that are under way.
    open: Vec<(Hand, Millis)>,
    /// Since when there was a slot.
    free_since: Millis,
    /// What went out under each id.
    ids: HashMap<String, Vec<Entry>>,
    /// Nothing may come from then until then: it has asked for rest, or is switched off.
    quiet: Option<(Millis, Millis)>,
    /// When the endpoint asked for that itself: nobody was told that it is stored, so a kill soon after may undo it.
    asked: Option<Millis>,
    /// It is to be enabled by an operator.
    is_off: bool,
}

impl Hook {
    pub fn new(name: &'static str, book: Arc<Book>, max_in_flight: usize, batch: bool) -> Arc<Self> {
        Arc::new(Self { name, book, max_in_flight, batch, state: Mutex::default() })
    }

    pub fn is_off(&self) -> bool {
        self.state.lock().unwrap().is_off
    }

    /// A request is about to be over.
    fn let_go(&self, by: Hand, now: Millis) {
        let mut state = self.state.lock().unwrap();
        if state.open.len() == self.max_in_flight {
            state.free_since = now;
        }
        state.open.retain(|(of, _)| *of != by);
    }

    /// An operator, or the endpoint itself, has switched it off; or it is to be enabled.
    pub fn switched(&self, off: Option<Millis>) {
        let mut state = self.state.lock().unwrap();
        state.is_off = off.is_some();
        (state.quiet, state.asked) = (off.map(|since| (since, NEVER)), None);
    }
}

/// Where all of them listen.
pub async fn listen(stage: &Arc<Stage>, hooks: Vec<Arc<Hook>>, seed: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stage = stage.clone();
    tokio::spawn(async move {
        let mut n = seed;
        while let Ok((stream, _)) = listener.accept().await {
            n += 1;
            // One that the gateway has opened in this life: that is not over before all that came on it is told.
            let going = stage.begin(stage.lives.lock().unwrap().len() - 1);
            tokio::spawn(serve(going, hooks.clone(), stream, StdRng::seed_from_u64(n)));
        }
    });
    address
}

/// Waits until all that came before has been accepted.
pub async fn has_accepted(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /nowhere HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = stream.read(&mut [0]).await;
}

async fn serve(going: Going, hooks: Vec<Arc<Hook>>, mut stream: TcpStream, mut random: StdRng) {
    let (stage, life) = (going.stage.clone(), going.life);
    let mut bytes = Vec::new();
    loop {
        let Some((head, body)) = request(&mut stream, &mut bytes).await else { return };
        let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        let Some(hook) = hooks.iter().find(|hook| hook.name == path) else { return };
        let arrived = stage.now();
        let by = stage.hand();
        let Came { from, tells, refused } = came(&stage, hook, (life, arrived), by, &head, &body);
        let calm = stage.is_calm.load(std::sync::atomic::Ordering::SeqCst);
        let choice = if calm { 0 } else { random.random_range(0..100) };
        let (status, more, pause) = match choice {
            _ if refused && !calm => (500, "", 0),
            0..77 => (204, "", 0),
            77..85 => (204, "", random.random_range(50..400)),
            85..91 => (500, "", 0),
            91..93 => (503, "retry-after: 1\r\n", 0),
            93..96 => (0, "", 0),
            96 => (0, "", 2 * TIMEOUT),
            97..99 => (500, "", random.random_range(50..400)),
            _ => (410, "", 0),
        };
        if pause > 0 {
            // The gateway may go first.
            let mut byte = [0];
            let wait = Duration::from_millis(pause);
            if tokio::time::timeout(wait, stream.peek(&mut byte)).await.is_ok() {
                hook.let_go(by, stage.now());
                return ended(&stage, hook, (life, arrived), by, 0);
            }
        }
        // As soon as it is written the next may come.
        hook.let_go(by, stage.now());
        let answer = format!("HTTP/1.1 {status} x\r\n{more}content-length: 0\r\n\r\n");
        if status == 0 || stream.write_all(answer.as_bytes()).await.is_err() {
            return ended(&stage, hook, (life, arrived), by, 0);
        }
        ended(&stage, hook, (life, arrived), by, status);
        if tells && status == 204 {
            // Told, when it was taken.
            let what = What::Given { how: How::Plain, gifts: Vec::new(), told: Told::Lost(None) };
            hook.book.lingered_if_it_lived_on(life, deed((from, stage.now()), what));
        }
    }
}

/// A request.
struct Came {
    /// Since when it can have been under way.
    from: Millis,
    /// Whether it tells of what is lost.
    tells: bool,
    /// Whether it is one that is not to be taken.
    refused: bool,
}

/// A request has come.
fn came(stage: &Stage, hook: &Hook, (life, now): (usize, Millis), by: Hand, head: &str, body: &[u8]) -> Came {
    stage.count("webhook requests");
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let events = if hook.batch { json.as_array().cloned().unwrap_or_default() } else { vec![json] };
    let (mut gifts, mut told) = (Vec::new(), false);
    for event in events {
        if event["data"]["reason"] == "retention" {
            told = true;
            continue;
        }
        gifts.push(Gift { entry: entry(event["cursor"].as_str().unwrap_or_default(), None), attempt: None });
    }
    let id = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().starts_with("webhook-id: ").then(|| line[12..].to_owned()));
    let late = ON_ITS_WAY + stage.stalls.worst(now.saturating_sub(TIMEOUT), now);
    let (began, killed) = {
        let lives = stage.lives.lock().unwrap();
        let kills = lives.iter().filter_map(|life| life.ended.filter(|(_, _, killed)| *killed).map(|(from, ..)| from));
        (lives[life].began, kills.collect::<Vec<_>>())
    };
    let mut state = hook.state.lock().unwrap();
    if state.asked.is_some_and(|at| killed.iter().any(|&kill| (at..at + stage.round(at, kill)).contains(&kill))) {
        (state.quiet, state.asked) = (None, None);
    }
    let entries: Vec<Entry> = gifts.iter().map(|gift| gift.entry).collect();
    let known = state.ids.entry(id.unwrap_or_default()).or_insert_with(|| entries.clone());
    if *known != entries {
        stage.breach(format!("{}: {known:?} and {entries:?} came under one id", hook.name));
    }
    let from = began.max(state.free_since).max(now.saturating_sub(TIMEOUT + late)).min(now);
    if let Some((since, until)) = state.quiet
        && since < from
        && now < until
    {
        stage.breach(format!("{}: a request came at {now}, and none was to come from {since} to {until}", hook.name));
    }
    state.open.push((by, now));
    // One that has waited too long may be over for the gateway.
    let open = state.open.iter().filter(|(_, since)| since + TIMEOUT > now + late).count();
    if open > hook.max_in_flight {
        stage.breach(format!("{}: {open} requests at a time: since {:?}, now {now}", hook.name, state.open));
    }
    drop(state);
    let leasing = Leasing { by, lease: NEVER, most: TRIES, counts: Counts::Failing };
    let came = Came { from, tells: told, refused: entries.iter().any(|entry| entry % REFUSED == 0) };
    if gifts.is_empty() {
        return came;
    }
    let what = What::Given { how: How::Leased(leasing), gifts, told: Told::Cannot };
    hook.book.did(life, deed((from, now), what));
    came
}

/// It was answered so; 0: not at all.
fn ended(stage: &Stage, hook: &Hook, (life, arrived): (usize, Millis), by: Hand, status: u16) {
    let now = stage.now();
    stage.count(&format!("webhook requests answered {status}"));
    let mut state = hook.state.lock().unwrap();
    let late = ON_ITS_WAY + stage.stalls.worst(arrived.saturating_sub(TIMEOUT), now);
    let failed = |least: Millis| What::Failed { by, wait: (least, NEVER) };
    let least = FIRST_WAIT * 4 / 5;
    // What comes late may have been given up: the gateway waits since it sent it.
    let is_late = now - arrived + late > TIMEOUT;
    let what = match status {
        204 => What::Taken { by },
        410 => What::Returned { by },
        503 => failed(1000),
        _ => failed(least),
    };
    if is_late || status == 0 {
        let over_since = now.min((arrived + TIMEOUT).saturating_sub(late)).max(arrived.min(now));
        hook.book.lingered(life, deed((over_since, now), What::Doubted { by, wait: (least, NEVER) }));
    } else {
        hook.book.lingered_if_it_lived_on(life, deed((now, now), what));
    }
    match status {
        410 => {
            state.is_off = true;
            (state.quiet, state.asked) = (Some((now + 500, NEVER)), Some(now));
        }
        503 if state.quiet.is_none_or(|(_, until)| until != NEVER) && !is_late => {
            (state.quiet, state.asked) = (Some((now + 500, now + 950)), Some(now));
        }
        _ => {}
    }
}

/// Reads a request: its head and its body.
async fn request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let end = at + 4 + length.and_then(|l| l.trim().parse().ok()).unwrap_or(0);
            while bytes.len() < end {
                if stream.read_buf(bytes).await.ok()? == 0 {
                    return None;
                }
            }
            let rest = bytes.split_off(end);
            let body = bytes.split_off(at + 4);
            *bytes = rest;
            return Some((head, body));
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}
