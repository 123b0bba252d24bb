//! What the gateway writes for each event that many read, each with a subscription of its own.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::Limit;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::kib;
use crate::stage::{self, APP, Gateway, Line};

/// Time between two events.
const EVERY: Duration = Duration::from_millis(50);
/// A client has at most so many of the subscriptions.
const EACH_CLIENT: usize = 50;
/// Time until all that came before is stored.
const SETTLED: Duration = Duration::from_secs(3);
/// In each event, once.
const MARK: &[u8] = b"web-";

pub async fn measure(readers: usize, seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let vendor = stage::vendor(Limit::per_second(10_000)).await;
    let app = format!(
        "{}[apps.events]\nstreams = [\"user_events\"]\npoll_interval = \"50ms\"\npoll_interval_idle = \"50ms\"\n",
        stage::quota(10_000)
    );
    let config = dir.path().join("gateway.toml");
    let clients = readers.div_ceil(EACH_CLIENT).max(1);
    let text = stage::configuration(dir.path(), vendor.addr(), &app, clients);
    let operators = free_address();
    let text = text.replace("[server]\n", "[server]\nmax_connections = 15000\n");
    let text = text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{operators}\""));
    std::fs::write(&config, text).unwrap();
    let gateway = Gateway::start(&config);
    let written = async || counted(operators, "store_written_bytes_total").await;

    tokio::time::sleep(SETTLED).await;
    let before = written().await;
    let mut reading = JoinSet::new();
    for n in 0..readers {
        let key = format!("x-api-key: {}", stage::client_key(n / EACH_CLIENT));
        let path = format!("/v1/apps/{APP}/events/user_events?subscription=s{n}");
        let mut line = Line::open(gateway.address).await;
        assert_eq!(line.ask(&stage::request("GET", &path, &key, "")).await.0, 200);
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let headers = format!("{key}\r\naccept: text/event-stream");
        stream.write_all(&stage::request("GET", &path, &headers, "")).await.unwrap();
        reading.spawn(count(stream, seconds as usize * 20));
    }
    tokio::time::sleep(SETTLED).await;
    let made = written().await - before;

    let before = written().await;
    tokio::time::sleep(Duration::from_secs(seconds) / 2).await;
    let idle = (written().await - before) * 2 / seconds;

    let synced = counted(operators, "store_syncs_total").await;
    let (before, began) = (written().await, Instant::now());
    let mut ticks = tokio::time::interval(EVERY);
    let events = seconds * 20;
    for n in 0..events {
        ticks.tick().await;
        let event = format!(r#"{{"ms":1476095418189,"type":"Login","user_id":"web-{n:08}","x":"{}"}}"#, "x".repeat(52));
        vendor.emit_raw(APP, Stream::UserEvents, &event);
    }
    reading.join_all().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = written().await - before;
    let syncs = (counted(operators, "store_syncs_total").await - synced) as f64 / events as f64;
    let alone = (idle as f64 * began.elapsed().as_secs_f64()) as u64;
    let an_event = kib(all.saturating_sub(alone) / events);
    println!("| {readers} | {events} | {an_event} | {syncs:.2} | {} | {} |", kib(idle), kib(made));
}

/// An address at which nobody listens.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What a metric says now.
async fn counted(operators: SocketAddr, metric: &str) -> u64 {
    let mut line = Line::open(operators).await;
    let (status, body) = line.ask(&stage::request("GET", "/metrics", "x-none: 1", "")).await;
    assert_eq!(status, 200);
    let text = String::from_utf8_lossy(body);
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("rtm_gateway_{metric} ")));
    value.unwrap_or_else(|| panic!("no {metric}")).parse().unwrap()
}

/// Reads a stream until so many events came.
async fn count(mut stream: TcpStream, events: usize) -> TcpStream {
    let (mut came, mut buffer) = (0, Vec::with_capacity(1 << 14));
    while came < events {
        assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&buffer));
        came += memchr::memmem::find_iter(&buffer, MARK).count();
        // What may be the beginning of a mark stays.
        let last = memchr::memmem::rfind(&buffer, MARK).map_or(0, |at| at + MARK.len());
        let kept = last.max(buffer.len().saturating_sub(MARK.len() - 1));
        buffer.drain(..kept);
    }
    stream
}
