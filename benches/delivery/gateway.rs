//! The gateway, with the simulated vendor in the benchmark's own process; its readers by HTTP.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memchr::memmem;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Endpoint, Limit, Sim};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::events;
use crate::stage::{self, APP, Gateway, Line, Process};

/// How callers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Long polls, answered in the vendor's form.
    PullVendor,
    /// Long polls, answered in the gateway's own form.
    Pull,
    /// One answer that does not end: Server-Sent Events.
    Stream,
    /// Long polls in the gateway's own form, each acknowledged before the next.
    Acknowledge,
    /// The same, each acknowledged with the next.
    AcknowledgeAndRead,
}

/// A client has at most so many of the subscriptions.
const EACH_CLIENT: usize = 50;

/// A gateway and its vendor.
pub struct Server {
    vendor: Sim,
    gateway: Gateway,
    how: How,
    /// When the vendor received reads.
    reads: Arc<Mutex<Vec<Duration>>>,
    /// The place before the first event.
    begin: String,
}

impl Server {
    pub async fn start(dir: &Path, how: How, subscribers: usize) -> Self {
        let vendor = stage::vendor(Limit::per_second(10_000)).await;
        let reads = Arc::new(Mutex::new(Vec::new()));
        let noted = reads.clone();
        vendor.world().before_each(move |_, endpoint| {
            if endpoint == Endpoint::UserEvents {
                noted.lock().unwrap().push(events::now());
            }
        });
        let app = format!(
            "{}[apps.events]\nstreams = [\"user_events\"]\npoll_interval = \"2ms\"\npoll_interval_idle = \"2ms\"\n",
            stage::quota(10_000)
        );
        let config = dir.join("gateway.toml");
        let text = stage::configuration(dir, vendor.addr(), &app, subscribers.div_ceil(EACH_CLIENT));
        let text = text.replace("[server]\n", "[server]\nmax_connections = 15000\n");
        std::fs::write(&config, text).unwrap();
        let gateway = Gateway::start(&config);
        let mut line = Line::open(gateway.address).await;
        let (status, body) = line.ask(&ask(How::Pull, 0, "begin")).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        let begin = field(body, b"\"next\":\"").unwrap();
        Self { vendor, gateway, how, reads, begin }
    }

    pub fn process(&self) -> &Process {
        &self.gateway
    }

    /// Lets so many events occur, and waits until they are stored.
    pub async fn store(&self, count: usize) {
        for n in 0..count {
            self.vendor.emit_raw(APP, Stream::UserEvents, &events::event(n, Duration::ZERO));
        }
        let path = format!("/v1/apps/{APP}/events/user_events?limit=1&after={}", self.begin);
        let (request, mut line) = (get(&path, 0, ""), Line::open(self.gateway.address).await);
        loop {
            let (status, body) = line.ask(&request).await;
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
            // One is given; the others lie behind it, and perhaps a marker.
            let lag = memmem::rfind(body, b"\"lag\":").map(|at| &body[at + 6..body.len() - 1]);
            let lag = lag.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
            if lag.unwrap() + 1 >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// An event occurs.
    pub fn publish(&self, n: usize) {
        self.vendor.emit_raw(APP, Stream::UserEvents, &events::event(n, events::now()));
    }

    /// When the vendor received the read that returned the event that occurred then.
    pub fn handed(&self, at: Duration) -> Duration {
        let reads = self.reads.lock().unwrap();
        let next = reads.partition_point(|read| *read < at);
        reads.get(next).copied().unwrap_or(at)
    }

    /// A subscriber of its own connection and subscription, which exists on return.
    pub async fn reader(&self, n: usize) -> Reader {
        let client = n / EACH_CLIENT;
        let name = format!("s{n}");
        let mut line = Line::open(self.gateway.address).await;
        let wait = format!("s{n}&wait=5s");
        match self.how {
            How::Stream => {
                let made = ask(How::Pull, client, &name);
                assert_eq!(line.ask(&made).await.0, 200);
                drop(line);
                let stream = TcpStream::connect(self.gateway.address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let request = ask(How::Stream, client, &name);
                Reader::Stream(Streamed { stream, request, buffer: Vec::with_capacity(1 << 16), done: 0 })
            }
            how => {
                let (status, body) = line.ask(&ask(how, client, &name)).await;
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
                Reader::Poll(Polled { line, request: ask(how, client, &wait), how, client, name, lease: None })
            }
        }
    }

    /// Opens a stream of which nothing is to come, which has begun on return.
    pub async fn idle(&self, n: usize, place: &str) -> TcpStream {
        let path = format!("/v1/apps/{APP}/events/user_events?{}", place.replace("{n}", &n.to_string()));
        let mut stream = TcpStream::connect(self.gateway.address).await.unwrap();
        stream.write_all(&get(&path, n / EACH_CLIENT, "\r\naccept: text/event-stream")).await.unwrap();
        let mut heard = Vec::new();
        while memmem::find(&heard, b"retry: ").is_none() {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "{}", String::from_utf8_lossy(&heard));
        }
        stream
    }

    /// Makes so many subscriptions, which nobody reads afterwards.
    pub async fn subscribe(&self, count: usize) {
        let mut line = Line::open(self.gateway.address).await;
        for n in 0..count {
            let (status, body) = line.ask(&ask(How::Pull, n / EACH_CLIENT, &format!("s{n}"))).await;
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        }
    }

    /// The place before the first event.
    pub fn begin(&self) -> &str {
        &self.begin
    }
}

fn ask(how: How, client: usize, subscription: &str) -> Vec<u8> {
    let (before, after, headers) = match how {
        How::PullVendor => (format!("/dev/v2/project/{APP}/rtm/vendor"), "", ""),
        How::Pull => (format!("/v1/apps/{APP}/events"), "", ""),
        How::Stream => (format!("/v1/apps/{APP}/events"), "", "\r\naccept: text/event-stream"),
        How::Acknowledge | How::AcknowledgeAndRead => (format!("/v1/apps/{APP}/events"), "&ack=explicit&lease=60s", ""),
    };
    get(&format!("{before}/user_events?limit=1000&subscription={subscription}{after}"), client, headers)
}

fn get(path: &str, client: usize, headers: &str) -> Vec<u8> {
    stage::request("GET", path, &format!("x-api-key: {}{headers}", stage::client_key(client)), "")
}

fn field(body: &[u8], name: &[u8]) -> Option<String> {
    let from = memmem::rfind(body, name)? + name.len();
    let length = memchr::memchr(b'"', &body[from..])?;
    Some(String::from_utf8_lossy(&body[from..from + length]).into_owned())
}

pub enum Reader {
    Poll(Polled),
    Stream(Streamed),
}

pub struct Polled {
    line: Line,
    request: Vec<u8>,
    how: How,
    client: usize,
    name: String,
    lease: Option<String>,
}

pub struct Streamed {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
    /// So much of the buffer was counted.
    done: usize,
}

impl Reader {
    /// Waits for events. What the last call got is acknowledged first.
    pub async fn next(&mut self, stamps: Option<&mut Vec<Duration>>) -> usize {
        match self {
            Self::Poll(polled) => polled.next(stamps).await,
            Self::Stream(streamed) => streamed.next(stamps).await,
        }
    }

    /// Acknowledges what the last call got.
    pub async fn finish(&mut self) {
        if let Self::Poll(polled) = self {
            polled.acknowledge().await;
        }
    }
}

impl Polled {
    async fn next(&mut self, stamps: Option<&mut Vec<Duration>>) -> usize {
        if self.how == How::AcknowledgeAndRead {
            let settle = self.lease.take().map_or("null".to_owned(), |lease| format!(r#"{{"lease":"{lease}"}}"#));
            let read = r#""limit":1000,"wait":"5s","lease":"60s""#;
            let body = format!(r#"{{"subscription":"{}","settle":{settle},{read}}}"#, self.name);
            self.request = self.said("next", &body);
        } else {
            self.acknowledge().await;
        }
        let (status, body) = self.line.ask(&self.request).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        assert!(memmem::find(body, br#""result":"failed""#).is_none(), "{}", String::from_utf8_lossy(body));
        let came = events::count(body, stamps);
        if matches!(self.how, How::Acknowledge | How::AcknowledgeAndRead) && came > 0 {
            self.lease = field(body, b"\"lease\":\"");
            assert!(self.lease.is_some(), "{}", String::from_utf8_lossy(body));
        }
        came
    }

    async fn acknowledge(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let request = self.said("ack", &format!(r#"{{"subscription":"{}","lease":"{lease}"}}"#, self.name));
        let (status, body) = self.line.ask(&request).await;
        assert!((200..300).contains(&status), "{status} {}", String::from_utf8_lossy(body));
    }

    fn said(&self, what: &str, body: &str) -> Vec<u8> {
        let path = format!("/v1/apps/{APP}/events/user_events/{what}");
        stage::request("POST", &path, &format!("x-api-key: {}", stage::client_key(self.client)), body)
    }
}

impl Streamed {
    async fn next(&mut self, stamps: Option<&mut Vec<Duration>>) -> usize {
        if !self.request.is_empty() {
            self.stream.write_all(&std::mem::take(&mut self.request)).await.unwrap();
        }
        self.buffer.drain(..self.done);
        loop {
            self.done = memmem::rfind(&self.buffer, b"\n\n").map_or(0, |at| at + 2);
            let whole = &self.buffer[..self.done];
            if events::count(whole, None) > 0 {
                return events::count(whole, stamps);
            }
            self.buffer.drain(..self.done);
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0 && self.buffer.first() != Some(&b'{'), "{}", String::from_utf8_lossy(&self.buffer));
        }
    }
}
