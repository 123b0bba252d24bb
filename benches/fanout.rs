//! Events: stored a second, delivered a second to many subscribers, and the time from the vendor to a subscriber.
//!
//! `cargo bench --bench fanout`. Events are 120 bytes. Storing: the vendor always has a full read of 1000 waiting, and
//! each read is on disk before the next. Delivering: each subscriber reads all that is stored on a connection and a
//! subscription of its own, 1000 at a time. Delay: from the instant the vendor receives the read that returns an event
//! to the instant that a subscriber in a long poll has the whole answer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod stage;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Endpoint, Limit, Sim};
use stage::{APP, Gateway, Line};

const EVENT: usize = 120;
const STORED: usize = 200_000;
const DELIVERED: usize = 5_000_000;
const DELAYS: usize = 500;

fn main() {
    rtm_gateway::server::descriptors::raise_limit();
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}

async fn run() {
    let dir = tempfile::tempdir().unwrap();
    let vendor = stage::vendor(Limit::per_second(10_000)).await;
    let gateway = start(dir.path(), &vendor);
    store(&vendor, &gateway).await;
    for subscribers in [1, 10, 100, 1000] {
        deliver(&gateway, subscribers).await;
    }
    delay(&vendor, &gateway).await;
}

fn start(dir: &Path, vendor: &Sim) -> Gateway {
    let config = dir.join("gateway.toml");
    let events = "[apps.events]\nstreams = [\"user_events\"]\npoll_interval = \"1ms\"\npoll_interval_idle = \"1ms\"\n";
    // One client has them all.
    let app = format!("{}{events}max_subscriptions_per_client = 2000\n", stage::quota(10_000));
    std::fs::write(&config, stage::configuration(dir, vendor.addr(), &app, 1)).unwrap();
    Gateway::start(&config)
}

/// An event of exactly [`EVENT`] bytes.
fn event(n: usize) -> String {
    let head = format!(r#"{{"ms":1476095418189,"type":"Login","user_id":"web{n:08}"#);
    format!("{head}{}\"}}", "x".repeat(EVENT - head.len() - 2))
}

async fn store(vendor: &Sim, gateway: &Gateway) {
    for n in 0..STORED {
        vendor.emit_raw(APP, Stream::UserEvents, &event(n));
    }
    let mut reader = Line::open(gateway.address).await;
    let handed = || vendor.ledger(APP, Stream::UserEvents).counts.handed as usize;
    // The gateway has begun already: only what is left counts.
    let (began, cpu, left) = (Instant::now(), gateway.cpu(), STORED - handed());
    while handed() < STORED {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The last read is handed over; it is stored when a subscriber can have its last event.
    read_all(&mut reader, "tail", STORED).await;
    let (took, cpu) = (began.elapsed(), gateway.cpu() - cpu);
    println!(
        "stored: {} events a second ({left} in {took:?}, CPU {cpu:?}; one reader included)",
        per_second(left, took)
    );
}

async fn deliver(gateway: &Gateway, subscribers: usize) {
    let each = (DELIVERED / subscribers).min(STORED);
    let mut lines = Vec::new();
    for n in 0..subscribers {
        lines.push((Line::open(gateway.address).await, format!("s{subscribers}-{n}")));
    }
    let (began, cpu) = (Instant::now(), gateway.cpu());
    let mut readers = tokio::task::JoinSet::new();
    for (mut line, name) in lines {
        readers.spawn(async move { read_all(&mut line, &name, each).await });
    }
    readers.join_all().await;
    let (took, cpu, total) = (began.elapsed(), gateway.cpu() - cpu, each * subscribers);
    println!(
        "delivered to {subscribers}: {} events a second ({each} to each in {took:?}; {:.0} ns of CPU an event)",
        per_second(total, took),
        cpu.as_nanos() as f64 / total as f64
    );
}

/// Reads a subscription until so many events came.
async fn read_all(line: &mut Line, subscription: &str, wanted: usize) {
    let path = format!("/dev/v2/project/{APP}/rtm/vendor/user_events?limit=1000&wait=5s&subscription={subscription}");
    let request = stage::request("GET", &path, &format!("x-api-key: {}", stage::client_key(0)), "");
    let mut came = 0;
    while came < wanted {
        let (status, body) = line.ask(&request).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        // Events are of one length, so the body's tells how many there are.
        came += body.len() / (EVENT + 1);
    }
}

async fn delay(vendor: &Sim, gateway: &Gateway) {
    let reads = Arc::new(Mutex::new(Vec::new()));
    let noted = reads.clone();
    vendor.world().before_each(move |_, endpoint| {
        if endpoint == Endpoint::UserEvents {
            noted.lock().unwrap().push(Instant::now());
        }
    });
    let path = format!("/dev/v2/project/{APP}/rtm/vendor/user_events?wait=10s&from=latest&subscription=delay");
    let request = stage::request("GET", &path, &format!("x-api-key: {}", stage::client_key(0)), "");
    let mut line = Line::open(gateway.address).await;
    let mut delays = Vec::new();
    for n in 0..DELAYS {
        let asked = request.clone();
        let poll = tokio::spawn(async move {
            let (status, body) = line.ask(&asked).await;
            assert!(status == 200 && body.len() > EVENT);
            (Instant::now(), line)
        });
        tokio::time::sleep(Duration::from_millis(7)).await;
        reads.lock().unwrap().clear();
        vendor.emit_raw(APP, Stream::UserEvents, &event(STORED + n));
        let emitted = Instant::now();
        let received;
        (received, line) = poll.await.unwrap();
        let first = reads.lock().unwrap().iter().find(|read| **read >= emitted).copied();
        if let Some(read) = first {
            delays.push(received - read);
        }
    }
    let (p50, p99) = (stage::percentile(&mut delays, 0.5), stage::percentile(&mut delays, 0.99));
    println!("from the vendor's answer to a subscriber's: p50 {p50:?}, p99 {p99:?} ({} events)", delays.len());
}

fn per_second(count: usize, took: Duration) -> u64 {
    (count as f64 / took.as_secs_f64()) as u64
}
