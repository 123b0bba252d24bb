//! Those who read Server-Sent Events, are cut, and come again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rand::RngExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::readers::{Reader, deed, entry, pick};
use super::stage::{Book, LOGS, Live, Phase};
use delivery_model::{Counts, Entry, Gift, How, Leasing, Millis, NEVER, Told, What};

/// An open stream.
struct Open {
    body: Incoming,
    connection: JoinHandle<()>,
    text: String,
}

/// What came.
#[derive(Default, Debug)]
struct Event {
    id: String,
    kind: String,
    data: String,
    stream: Option<String>,
    lease: Option<String>,
    attempt: Option<u32>,
}

/// How long what was sent is on its way, at most, on a machine that is not late; and since when that it was counts.
const ON_ITS_WAY: Millis = 20;
const RECENT: Millis = 500;

/// How an opening ended.
enum Opened {
    Open(Open),
    Refused(u16),
    Nothing,
}

impl Open {
    async fn at(live: Live, path: &str, last: Option<&str>) -> Opened {
        let Ok(stream) = TcpStream::connect(live.callers).await else { return Opened::Nothing };
        let Ok((mut send, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await else {
            return Opened::Nothing;
        };
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = Request::get(path).header("host", "localhost").header("x-api-key", "reader");
        let mut request = request.header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        match send.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await {
            Ok(answer) if answer.status() == 200 => {
                Opened::Open(Self { body: answer.into_body(), connection, text: String::new() })
            }
            Ok(answer) => Opened::Refused(answer.status().as_u16()),
            Err(_) => Opened::Nothing,
        }
    }

    /// The next event. `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let mut event = Event::default();
                for line in block.lines() {
                    let (field, value) = line.split_once(": ").unwrap_or((line, ""));
                    match field {
                        "id" => value.clone_into(&mut event.id),
                        "event" => value.clone_into(&mut event.kind),
                        "data" => event.data += value,
                        "stream" => event.stream = Some(value.to_owned()),
                        "lease" => event.lease = Some(value.to_owned()),
                        "attempt" => event.attempt = value.parse().ok(),
                        _ => {}
                    }
                }
                if event.id.is_empty() {
                    continue;
                }
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.text += std::str::from_utf8(&data).ok()?;
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Reader {
    /// Reads a stream, alone, with `Last-Event-ID`.
    pub async fn follow(mut self) {
        let (mut done, mut last, mut half_open): (u8, Option<String>, VecDeque<Open>) = (0, None, VecDeque::new());
        // Of each book's log: the last entry that it has; what it was given since it came again.
        let mut have: Vec<Entry> = self.books.iter().map(|_| 0).collect();
        while self.stage.phase() != Phase::Over {
            let (stage, phase) = (self.stage.clone(), self.stage.phase());
            let live = stage.live().await;
            let limit = *pick(&mut self.random, &[1, 20, 200]);
            let path = self.path(&format!("limit={limit}"));
            let going = stage.begin(live.life);
            let from = going.from;
            // What was on its way when it ended: so far, and since then.
            let left = |books: &[Arc<Book>], has_place: bool, (from, to): (Millis, Millis), seen: Vec<Vec<Entry>>| {
                for (book, seen) in books.iter().zip(seen) {
                    // Who comes again with a place has what it has seen, and lacks the rest.
                    let (seen, limit) = if has_place { (Vec::new(), 0) } else { (seen, 1000) };
                    let what = What::Broke { how: How::Plain, seen, limit };
                    let until = if has_place { stage.now().saturating_sub(1).max(to) } else { NEVER };
                    book.lingered_until(live.life, deed((from, to), what), until);
                }
            };
            let opened = Open::at(live, &path, last.as_deref()).await;
            let to = stage.now();
            let resumed = |sure: bool| {
                for (book, &last) in self.books.iter().zip(&have).filter(|_| last.is_some()) {
                    book.did(live.life, delivery_model::Deed { sure, ..deed((from, to), What::Resumed { last }) });
                }
            };
            let mut open = match opened {
                Opened::Open(open) => open,
                other => {
                    if let Opened::Refused(status) = other {
                        stage.count(&format!("streams answered {status}"));
                    }
                    resumed(false);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    left(&self.books, last.is_some(), (from, to), self.books.iter().map(|_| Vec::new()).collect());
                    continue;
                }
            };
            resumed(true);
            stage.count("streams");
            let finishing = stage.is_finishing();
            // Who leaves before it knows a place has nothing to come again with: what it was sent is lost to it, as documented.
            let most = if last.is_none() {
                20_000
            } else if finishing {
                600
            } else {
                *pick(&mut self.random, &[5, 100, 600, 2500])
            };
            let until = Instant::now() + Duration::from_millis(most);
            let mut seen: Vec<Vec<Entry>> = self.books.iter().map(|_| Vec::new()).collect();
            let mut last_at = 0;
            loop {
                let event = tokio::select! {
                    event = open.next() => event,
                    () = tokio::time::sleep_until(until) => None,
                };
                let Some(event) = event else { break };
                last_at = stage.now();
                let of_stream = |log: usize| event.stream.as_ref().is_none_or(|stream| stream == LOGS[log].1.as_str());
                let of = self.books.iter().position(|book| of_stream(book.log)).unwrap_or(0);
                let book = &self.books[of];
                let at = entry(&event.id, event.stream.as_deref());
                stage.count("events of streams");
                let what = if event.kind == "reset" {
                    let lost = serde_json::from_str::<serde_json::Value>(&event.data).unwrap_or_default();
                    stage.count("markers on streams");
                    have[of] = have[of].max(at);
                    What::Given { how: How::Plain, gifts: Vec::new(), told: Told::Lost(lost["lost"].as_u64()) }
                } else {
                    if at <= have[of] {
                        stage.breach(format!(
                            "{}: entry {at} came on a stream after {}: its id is {}, the one before {last:?}; opened at {from} ms in life {}, of {seen:?}",
                            book.name, have[of], event.id, live.life,
                        ));
                    }
                    have[of] = at;
                    seen[of].push(at);
                    let gifts = vec![Gift { entry: at, attempt: None }];
                    What::Given { how: How::Plain, gifts, told: Told::Cannot }
                };
                book.did(live.life, deed((from, last_at), what));
                let is_first = last.replace(event.id).is_none();
                if is_first {
                    break;
                }
            }
            let end = stage.now();
            for (book, seen) in self.books.iter().zip(&seen) {
                if let Some(&up_to) = seen.last() {
                    // What lies before it was given before it.
                    book.did(live.life, deed((last_at, last_at), What::Nothing { up_to }));
                }
            }
            // The other end may not hear of it for a while.
            if !finishing && last.is_some() && self.random.random_bool(0.3) {
                half_open.push_back(open);
                if half_open.len() > 3 {
                    half_open.pop_front();
                }
            } else {
                drop(open);
            }
            let is_at_end =
                |(book, have): (&Arc<Book>, &Entry)| *have >= stage.head(book.log) || stage.is_empty(book.log);
            let is_at_end = finishing && self.books.iter().zip(&have).all(is_at_end);
            if !is_at_end {
                self.rest(0.3).await;
            }
            left(&self.books, last.is_some(), (end, end), seen);
            drop(going);
            if is_at_end {
                half_open.clear();
                self.rests(phase, &mut done, live).await;
            }
        }
    }

    /// Reads a stream whose events it acknowledges.
    pub async fn follow_and_acknowledge(mut self, most: u32) {
        let mut done = 0;
        while self.stage.phase() != Phase::Over {
            let (stage, phase, book) = (self.stage.clone(), self.stage.phase(), self.books[0].clone());
            let live = stage.live().await;
            let limit = *pick(&mut self.random, &[1, 3, 6]);
            let lease = *pick(&mut self.random, &[1000, 2000]);
            let path = self.path(&format!("ack=explicit&limit={limit}&lease={lease}ms&max_attempts={most}"));
            let going = stage.begin(live.life);
            let wild = Leasing { by: stage.hand(), lease, most, counts: Counts::Taking };
            let mut open = match Open::at(live, &path, None).await {
                Opened::Open(open) => open,
                Opened::Refused(_) | Opened::Nothing => {
                    let what = What::Broke { how: How::Leased(wild), seen: Vec::new(), limit };
                    book.lingered(live.life, deed((going.from, stage.now()), what));
                    drop(going);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            stage.count("leased streams");
            let finishing = stage.is_finishing();
            let ms = if finishing { 2500 } else { *pick(&mut self.random, &[5, 300, 2000, 4000]) };
            let mut until = Instant::now() + Duration::from_millis(ms);
            // When it was last waited for one: what came since then can have been sent since then.
            let mut since = going.from;
            let mut leases: Vec<(String, Leasing, Vec<Entry>)> = Vec::new();
            let mut any = false;
            loop {
                let asked = stage.now();
                let event = tokio::select! {
                    event = open.next() => event,
                    () = tokio::time::sleep_until(until) => None,
                };
                let Some(event) = event else { break };
                any = true;
                if finishing {
                    // To the end: until nothing comes for so long.
                    until = Instant::now() + Duration::from_millis(ms);
                }
                let now = stage.now();
                let on_its_way = ON_ITS_WAY + stage.stalls.worst(asked.saturating_sub(RECENT), now);
                if now > asked + on_its_way {
                    since = asked.saturating_sub(on_its_way);
                }
                let from = since;
                stage.count("events of leased streams");
                if event.kind == "reset" {
                    let lost = serde_json::from_str::<serde_json::Value>(&event.data).unwrap_or_default();
                    let told = Told::Lost(lost["lost"].as_u64());
                    let what = What::Given { how: How::Plain, gifts: Vec::new(), told };
                    book.did(live.life, deed((from, now), what));
                    continue;
                }
                let name = event.lease.clone().unwrap_or_default();
                let known = leases.iter().position(|(of, ..)| *of == name);
                let at = known.unwrap_or_else(|| {
                    leases.push((name.clone(), Leasing { by: stage.hand(), ..wild }, Vec::new()));
                    leases.len() - 1
                });
                let (_, leasing, entries) = &mut leases[at];
                let gift = Gift { entry: entry(&event.id, None), attempt: event.attempt };
                entries.push(gift.entry);
                stage.note_cursor(book.log, gift.entry, &event.id);
                let what = What::Given { how: How::Leased(*leasing), gifts: vec![gift], told: Told::Cannot };
                book.did(live.life, deed((from, now), what));
                // One by one: more of its lease may be on its way.
                self.line(live);
                self.settle(live, None, &[gift.entry]).await;
            }
            let end = stage.now();
            drop(open);
            let what = What::Broke { how: How::Leased(wild), seen: Vec::new(), limit };
            book.lingered(live.life, deed((since.min(end), end), what));
            for (_, leasing, seen) in leases {
                let what = What::Broke { how: How::Leased(leasing), seen, limit: 0 };
                book.lingered(live.life, deed((end, end), what));
            }
            drop(going);
            if finishing && !any {
                self.rests(phase, &mut done, live).await;
            }
        }
    }
}
