//! What connections cost that do nothing or little: resident memory, CPU, and how a harmless request fares meanwhile.
//!
//! `cargo bench --bench connections`. A fresh gateway for each kind. Idle: 10,000 connections that sent nothing, that
//! had one answer (HTTP/1.1, kept), that had one answer (HTTP/2). Slow: 1,000, a third each with a head that comes a
//! byte a second, with a body that does, and with an answer of a megabyte that is not read. Plain TCP on loopback;
//! what the kernel holds for a socket is not in a process's resident memory. The gateway's times are set to outlast the
//! measurement, but for the last line, where they are as short as the shipped ones and the slow ones are gone after.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod stage;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Limit, Sim};
use stage::{APP, Gateway, Line, client_key, request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const IDLE: usize = 10_000;
const SLOW: usize = 1_000;
const EVENTS: usize = 1000;
/// HTTP/2's preface with empty SETTINGS, and a GET of `/` without a key: answered 401.
const HTTP2: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x0b\x01\x05\0\0\0\x01\x82\x86\x84\x41\x06server";

fn main() {
    rtm_gateway::server::descriptors::raise_limit();
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}

async fn run() {
    let vendor = stage::vendor(Limit::per_second(10_000)).await;
    let long = "header_read_timeout = \"300s\"\nidle_timeout = \"300s\"\nwrite_timeout = \"300s\"\n";
    for (name, kind) in
        [("that sent nothing", Kind::Silent), ("HTTP/1.1, kept", Kind::Kept), ("HTTP/2, kept", Kind::Http2)]
    {
        let dir = tempfile::tempdir().unwrap();
        let gateway = start(dir.path(), &vendor, long, "[]");
        let before = settled(&gateway).await;
        let held = open(gateway.address, kind).await;
        let after = settled(&gateway).await;
        let cpu = gateway.cpu();
        let (p50, p99) = harmless(gateway.address).await;
        let cpu = (gateway.cpu() - cpu) / SECONDS;
        println!(
            "{IDLE} idle, {name}: resident {before} -> {after} KiB, {:.1} KiB each; a harmless request p50 {p50:?}, p99 \
             {p99:?}; CPU a second {cpu:?}",
            (after - before) as f64 / IDLE as f64,
        );
        drop(held);
    }
    for (name, times) in [
        ("while they last", long),
        (
            "after the time they are given",
            "header_read_timeout = \"3s\"\nidle_timeout = \"3s\"\nwrite_timeout = \"3s\"\n",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let gateway = start(dir.path(), &vendor, times, "[\"user_events\"]");
        for n in 0..EVENTS {
            let event = format!(r#"{{"ms":{n},"type":"Login","user_id":"{}"}}"#, "x".repeat(1000));
            vendor.emit_raw(APP, Stream::UserEvents, &event);
        }
        stored(gateway.address).await;
        let before = settled(&gateway).await;
        let (mut lines, mut dripping) = (Vec::new(), Vec::new());
        for n in 0..SLOW {
            match n % 3 {
                0 => dripping.push(slow_head(gateway.address).await),
                1 => dripping.push(slow_body(gateway.address).await),
                _ => lines.push(slow_reader(gateway.address, n).await),
            }
        }
        let drip = async {
            loop {
                for line in &mut dripping {
                    let _ = line.write_all(b"x").await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let measure = async {
            tokio::time::sleep(Duration::from_secs(if times == long { 1 } else { 8 })).await;
            let resident = settled(&gateway).await;
            let cpu = gateway.cpu();
            let (p50, p99) = harmless(gateway.address).await;
            (resident, (gateway.cpu() - cpu) / SECONDS, p50, p99)
        };
        let (after, cpu, p50, p99) = tokio::select! { () = drip => unreachable!(), measured = measure => measured };
        println!(
            "{SLOW} slow, {name}: resident {before} -> {after} KiB, {:.1} KiB each; a harmless request p50 {p50:?}, p99 \
             {p99:?}; CPU a second {cpu:?}",
            (after as f64 - before as f64) / SLOW as f64,
        );
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Silent,
    Kept,
    Http2,
}

fn start(dir: &Path, vendor: &Sim, times: &str, streams: &str) -> Gateway {
    let config = dir.join("gateway.toml");
    let app = format!("{}[apps.events]\nstreams = {streams}\n", stage::quota(10_000));
    let text = stage::configuration(dir, vendor.addr(), &app, 1);
    let text = text.replace("[server]\n", &format!("[server]\nmax_connections = 15000\n{times}"));
    std::fs::write(&config, text).unwrap();
    Gateway::start(&config)
}

/// Resident memory once it stays the same.
async fn settled(gateway: &Gateway) -> u64 {
    let mut last = gateway.resident_kib();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = gateway.resident_kib();
        if now.abs_diff(last) < 64 {
            return now;
        }
        last = now;
    }
}

async fn open(to: SocketAddr, kind: Kind) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(IDLE);
    while held.len() < IDLE {
        held.extend(join_all((0..100).map(|_| one(to, kind))).await);
    }
    held
}

async fn one(to: SocketAddr, kind: Kind) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let (asks, answered): (&[u8], &[u8]) = match kind {
        Kind::Silent => return stream,
        Kind::Kept => (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\"status\":401"),
        Kind::Http2 => (HTTP2, b"\"status\":401"),
    };
    stream.write_all(asks).await.unwrap();
    let mut heard = Vec::new();
    while !heard.windows(answered.len()).any(|w| w == answered) {
        assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "{:?}", String::from_utf8_lossy(&heard));
    }
    stream
}

async fn stored(to: SocketAddr) {
    let key = format!("x-api-key: {}", client_key(0));
    let path = format!("/dev/v2/project/{APP}/rtm/vendor/user_events?wait=5s&subscription=first");
    let (mut line, mut seen) = (Line::open(to).await, 0);
    while seen < EVENTS {
        let (status, body) = line.ask(&request("GET", &path, &key, "")).await;
        assert_eq!(status, 200);
        seen += body.windows(9).filter(|w| w == b"\"user_id\"").count();
    }
}

async fn slow_head(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await.unwrap();
    stream
}

async fn slow_body(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!(
        "POST /dev/v2/project/{APP}/rtm/message/history/query HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n\
         Content-Length: 100000\r\n\r\n{{",
        client_key(0)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn slow_reader(to: SocketAddr, n: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let path = format!("/dev/v2/project/{APP}/rtm/vendor/user_events?subscription=slow-{n}");
    stream.write_all(&request("GET", &path, &format!("x-api-key: {}", client_key(0)), "")).await.unwrap();
    let mut some = [0; 100];
    stream.read_exact(&mut some).await.unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&some));
    stream
}

const SECONDS: u32 = 5;

/// A count, through the gateway and the vendor, every 10 ms on a kept connection: p50 and p99.
async fn harmless(to: SocketAddr) -> (Duration, Duration) {
    let mut line = Line::open(to).await;
    let key = format!("x-api-key: {}", client_key(0));
    let (mut samples, end) = (Vec::new(), Instant::now() + Duration::from_secs(u64::from(SECONDS)));
    while Instant::now() < end {
        // Each asks something else: none is answered from what is kept.
        let path = format!(
            "/dev/v2/project/{APP}/rtm/message/history/count?source=u{}&start_time=0&end_time=9999999999",
            samples.len()
        );
        let began = Instant::now();
        assert_eq!(line.ask(&request("GET", &path, &key, "")).await.0, 200);
        samples.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (stage::percentile(&mut samples, 0.5), stage::percentile(&mut samples, 0.99))
}
