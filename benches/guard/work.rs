//! The pieces of work that are counted.

use std::io::{BufRead as _, Write as _};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use memchr::memmem;
use rtm_gateway::config::Limit as QuotaLimit;
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::{ClientName, Stream};
use rtm_gateway::simulator::{Endpoint, Limit};
use rtm_gateway::upstream::quota::{Begin, Bucket};
use rtm_gateway::vendor::order::Payer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::callgrind::{Callgrind, Instructions};
use crate::stage::{self, APP, Gateway, Line, Process};

const BUDGET: usize = 1_000_000;

/// What comes before it is counted: connections, tables and buffers are there.
const WARM_UP: u64 = 300;
const MESSAGES: u64 = 1500;
const COUNTS: u64 = 2500;
/// So many that what goes on beside them is little.
const EVENTS: u64 = 50_000;
const TAKES: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Message,
    Count,
    SseEvent,
    QuotaTake,
}

impl Work {
    pub const ALL: [Self; 4] = [Self::Message, Self::Count, Self::SseEvent, Self::QuotaTake];

    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Count => "count",
            Self::SseEvent => "sse_event",
            Self::QuotaTake => "quota_take",
        }
    }

    /// What one of it costs in `program`.
    pub async fn count(self, program: &Path) -> Instructions {
        let dir = tempfile::tempdir().unwrap();
        let callgrind = Callgrind::new(dir.path(), program);
        match self {
            Self::Message => message(dir.path(), callgrind).await,
            Self::Count => count(dir.path(), callgrind).await,
            Self::SseEvent => sse_event(dir.path(), callgrind).await,
            Self::QuotaTake => quota_take(callgrind).await,
        }
    }
}

async fn message(dir: &Path, callgrind: Callgrind) -> Instructions {
    let vendor = stage::vendor(Limit::per_second(BUDGET)).await;
    let gateway = start(dir, &callgrind, vendor.addr(), "[apps.events]\nstreams = []\n");
    let path = format!("/dev/v2/project/{APP}/rtm/users/u1/peer_messages");
    let body = r#"{"destination":"u2","enable_historical_messaging":false,"payload":"hello"}"#;
    let request = stage::request("POST", &path, &key(), body);
    let counted = asked(&gateway, callgrind, &request, MESSAGES).await;
    let sent = vendor.stats().of(Endpoint::PeerMessages).answered();
    assert_eq!(sent as u64, WARM_UP + MESSAGES, "each is forwarded");
    counted
}

async fn count(dir: &Path, callgrind: Callgrind) -> Instructions {
    let vendor = stage::vendor(Limit::per_second(BUDGET)).await;
    let gateway = start(dir, &callgrind, vendor.addr(), "[apps.events]\nstreams = []\n");
    // Its window is past: the result is served again for a minute.
    let query = "destination=lobby&start_time=1&end_time=1600000000";
    let path = format!("/dev/v2/project/{APP}/rtm/message/history/count?{query}");
    let request = stage::request("GET", &path, &key(), "");
    let counted = asked(&gateway, callgrind, &request, COUNTS).await;
    let sent = vendor.stats().of(Endpoint::HistoryCount).answered();
    assert!(sent <= 2, "the vendor was asked {sent} times for one shared result");
    counted
}

async fn sse_event(dir: &Path, mut callgrind: Callgrind) -> Instructions {
    let vendor = stage::vendor(Limit::per_second(BUDGET)).await;
    let event = format!(r#"{{"ms":1476095418189,"type":"Login","user_id":"web00000001","x":"{}"}}"#, "x".repeat(58));
    for _ in 0..EVENTS {
        vendor.emit_raw(APP, Stream::UserEvents, &event);
    }
    // They are read before it is idle for the first time, and nothing is afterwards.
    let app = "[apps.events]\nstreams = [\"user_events\"]\npoll_interval = \"5ms\"\npoll_interval_idle = \"60s\"\n";
    let gateway = start(dir, &callgrind, vendor.addr(), app);
    let events = format!("/v1/apps/{APP}/events/user_events");
    let look = stage::request("GET", &format!("{events}?limit=1&after=earliest"), &key(), "");
    let mut line = Line::open(gateway.address).await;
    loop {
        let (status, body) = line.ask(&look).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        // The one that is given, and those behind it.
        let lag = memmem::rfind(body, b"\"lag\":").map(|at| &body[at + 6..body.len() - 1]);
        let lag = lag.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        if lag.is_some_and(|lag| lag + 1 >= EVENTS) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let accept = format!("{}\r\naccept: text/event-stream", key());
    let request = stage::request("GET", &format!("{events}?limit=1000&subscription=s"), &accept, "");
    let read = async {
        stream.write_all(&request).await.unwrap();
        let (mut came, mut buffer) = (0, Vec::with_capacity(1 << 20));
        while came < EVENTS {
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&buffer));
            let whole = memmem::rfind(&buffer, b"\n\n").map_or(0, |at| at + 2);
            came += memmem::find_iter(&buffer[..whole], b"web00000001").count() as u64;
            buffer.drain(..whole);
        }
    };
    callgrind.count(&gateway, read).await.each(EVENTS)
}

async fn quota_take(mut callgrind: Callgrind) -> Instructions {
    let mut command = callgrind.command();
    command.arg("--take-seats").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process(command.spawn().unwrap());
    let (mut ask, answer) = (process.0.stdin.take().unwrap(), process.0.stdout.take().unwrap());
    let mut answers = std::io::BufReader::new(answer).lines();
    let mut next = move || answers.next().unwrap().unwrap();
    assert_eq!(next(), "ready");
    let takes = async {
        writeln!(ask, "go").unwrap();
        assert_eq!(next(), "done");
    };
    callgrind.count(&process, takes).await.each(TAKES)
}

/// Takes seats as it is told to: in the process that is counted.
pub fn take_seats() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let limit = QuotaLimit { requests: NonZeroU32::new(BUDGET as u32).unwrap(), per: Duration::from_secs(1) };
    let bucket = Bucket::new(limit, Begin::Full, Clock::system());
    let payer = Payer { client: ClientName::parse("c0").unwrap(), weight: 1 };
    let deadline = Clock::system().now() + Duration::from_secs(3600);
    let take = |count: u64| {
        runtime.block_on(async {
            for _ in 0..count {
                let mut seat = bucket.seat(&payer, deadline).await.unwrap();
                seat.sending();
                seat.answered();
            }
        });
    };
    take(WARM_UP);
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    take(TAKES);
    println!("done");
    // Until its counts were taken.
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn start(dir: &Path, callgrind: &Callgrind, vendor: std::net::SocketAddr, app: &str) -> Gateway {
    let config = dir.join("gateway.toml");
    let text = stage::configuration(dir, vendor, &format!("{}{app}", stage::quota(BUDGET)), 1);
    std::fs::write(&config, text).unwrap();
    Gateway::run(callgrind.command(), &config)
}

/// Asks the same on one connection, and counts what comes after the warm-up.
async fn asked(gateway: &Gateway, mut callgrind: Callgrind, request: &[u8], times: u64) -> Instructions {
    let mut line = Line::open(gateway.address).await;
    ask(&mut line, request, WARM_UP).await;
    callgrind.count(gateway, ask(&mut line, request, times)).await.each(times)
}

async fn ask(line: &mut Line, request: &[u8], times: u64) {
    for _ in 0..times {
        let (status, body) = line.ask(request).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
    }
}

fn key() -> String {
    format!("x-api-key: {}", stage::client_key(0))
}
