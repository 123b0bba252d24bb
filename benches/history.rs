//! An export of the history: how much of the quota it uses, and what it leaves to interactive callers of the same app.
//!
//! `cargo bench --bench history -- [--messages 100000] [--rate 20] [--crowds]`. The vendor allows 20 creations and 20 fetches a second, keeps 100,000 messages, and
//! delays each request by 15 to 35 ms before it counts it and by as much before it answers. First one client exports all
//! of them alone. Then it exports again while another client of equal weight asks for 20 messages now and then; then while
//! that one asks without a pause on 16 connections.
//!
//! The quota's own time is that of the least pages that hold all messages, 100 in each, at one creation and one fetch a
//! page. A seat of the quota is in use for one window and one round trip, so no more than W/(W + round trip) of it can be
//! used.
//!
//! `--crowds`: instead of that, what a page costs where many messages share a millisecond. 12,000 messages
//! are exported for each crowd, at that rate: with one that is never met hundreds of pages are begun far ahead, beyond the
//! end, too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod stage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::simulator::{Endpoint, Fault, Limit, Message, Sim};
use stage::{APP, Line};

/// So many messages share a millisecond, one after the other.
const CROWDS: [u64; 6] = [1, 5, 20, 60, 150, 1500];
const CROWDED: usize = 12_000;
const PAGE: usize = 100;
const DELAY: Duration = Duration::from_millis(15);
const JITTER: Duration = Duration::from_millis(20);
/// What the gateway's buckets take to fill after a start.
const WARM_UP: Duration = Duration::from_secs(3);
const NOW_AND_THEN: Duration = Duration::from_secs(15);
const WITHOUT_A_PAUSE: Duration = Duration::from_secs(15);
const CONNECTIONS: usize = 16;

#[derive(clap::Parser)]
struct Args {
    /// So many messages are exported
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// Creations a second, and fetches
    #[arg(long, default_value_t = 20)]
    rate: usize,
    /// What equal times cost
    #[arg(long)]
    crowds: bool,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if args.crowds { runtime.block_on(crowds(args.rate)) } else { runtime.block_on(run(args.messages, args.rate)) }
}

/// A vendor with that limit, and a gateway before it.
async fn begin(rate: usize, messages: impl Iterator<Item = Message>) -> (Sim, tempfile::TempDir, stage::Gateway) {
    let vendor = stage::vendor(Limit::per_second(rate)).await;
    for endpoint in [Endpoint::HistoryCreate, Endpoint::HistoryGet] {
        let delay = [Fault::DelayBefore(DELAY), Fault::JitterBefore(JITTER)];
        vendor.always(
            endpoint,
            Fault::all(delay.into_iter().chain([Fault::DelayAfter(DELAY), Fault::JitterAfter(JITTER)])),
        );
    }
    vendor.world().add_messages(APP, messages);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    let app = format!("{}[apps.events]\nstreams = []\n", stage::quota(rate));
    std::fs::write(&config, stage::configuration(dir.path(), vendor.addr(), &app, 2)).unwrap();
    let gateway = stage::Gateway::start(&config);
    tokio::time::sleep(WARM_UP).await;
    (vendor, dir, gateway)
}

async fn crowds(rate: usize) {
    println!(
        "{:>12} {:>9} {:>8} {:>8} {:>16} {:>7}",
        "a ms", "creations", "fetches", "pages", "creations/page", "time"
    );
    for crowd in CROWDS {
        let first = Clock::system().wall_ms().0 - 6 * 24 * 3_600_000;
        let messages = (0..CROWDED as u64).map(|n| message(n).at(first + n / crowd * 40));
        let (vendor, _dir, gateway) = begin(rate, messages).await;
        let began = Instant::now();
        let mut export = Export::open(gateway.address).await;
        while export.more().await {}
        assert_eq!(export.messages, CROWDED);
        let (created, fetched) = counted(&vendor);
        let pages = CROWDED.div_ceil(PAGE);
        let ratio = created as f64 / pages as f64;
        let took = began.elapsed().as_secs_f64();
        println!("{crowd:>12} {created:>9} {fetched:>8} {pages:>8} {ratio:>16.2} {took:>6.1}s");
    }
}

async fn run(messages: usize, rate: usize) {
    let (vendor, _dir, gateway) = begin(rate, over_six_days(messages)).await;
    let before = counted(&vendor);
    let (began, cpu) = (Instant::now(), gateway.cpu());
    let mut export = Export::open(gateway.address).await;
    while export.more().await {}
    let took = began.elapsed().as_secs_f64();
    let cpu = gateway.cpu() - cpu;
    assert_eq!(export.messages, messages);
    let (created, fetched) = (counted(&vendor).0 - before.0, counted(&vendor).1 - before.1);
    let own = messages.div_ceil(PAGE) as f64 / rate as f64;
    println!("alone: {messages} messages in {took:.1} s; {created} creations and {fetched} fetches");
    println!("  requests a page: {:.3}", (created + fetched) as f64 / created as f64);
    println!("  the quota's own time: {own:.1} s; ratio {:.3}", took / own);
    println!(
        "  ratio to (pages x requests a page) / rate as asked: {:.3}",
        took / (created.max(fetched) as f64 / rate as f64)
    );
    println!("  CPU of the gateway: {:.1} us a message", cpu.as_secs_f64() * 1e6 / messages as f64);
    println!("  resident after it: {} MiB; at most: {} MiB", gateway.resident_kib() / 1024, gateway.peak_kib() / 1024);

    let mut alone = interactive(gateway.address, Duration::from_secs(5)).await;
    println!("an interactive query, nobody else there: p50 {:?}, p99 {:?}", mid(&mut alone), worst(&mut alone));

    let export = Arc::new(AtomicUsize::new(0));
    let exporting = tokio::spawn(export_for_ever(gateway.address, export.clone()));
    tokio::time::sleep(WARM_UP).await;
    let before = export.load(Ordering::Relaxed);
    let mut beside = interactive(gateway.address, NOW_AND_THEN).await;
    let pages = (export.load(Ordering::Relaxed) - before) as f64 / PAGE as f64 / NOW_AND_THEN.as_secs_f64();
    println!("the same beside an export: p50 {:?}, p99 {:?} of {}", mid(&mut beside), worst(&mut beside), beside.len());
    println!(
        "  pages of the export meanwhile: {pages:.1} a second of {rate}; queries {:.1} a second",
        beside.len() as f64 / NOW_AND_THEN.as_secs_f64()
    );

    let mut callers = tokio::task::JoinSet::new();
    let end = Instant::now() + WARM_UP + WITHOUT_A_PAUSE;
    let answered = Arc::new(AtomicUsize::new(0));
    for _ in 0..CONNECTIONS {
        let (answered, address) = (answered.clone(), gateway.address);
        callers.spawn(async move {
            let mut line = Line::open(address).await;
            while Instant::now() < end {
                ask(&mut line).await;
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let before = (export.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
    tokio::time::sleep(WITHOUT_A_PAUSE).await;
    let pages = (export.load(Ordering::Relaxed) - before.0) as f64 / PAGE as f64 / WITHOUT_A_PAUSE.as_secs_f64();
    let queries = (answered.load(Ordering::Relaxed) - before.1) as f64 / WITHOUT_A_PAUSE.as_secs_f64();
    println!(
        "beside one who asks without a pause, of equal weight: {pages:.1} pages and {queries:.1} queries a second"
    );
    println!("  its share of its fair half: {:.3}", queries / ((pages + queries) / 2.0));
    callers.join_all().await;
    exporting.abort();
    println!("windows breached: {}", vendor.world().breaches().len());
}

/// So many messages, at uneven distances.
fn over_six_days(count: usize) -> impl Iterator<Item = Message> {
    let step = 6 * 24 * 3_600_000 / count as u64;
    let mut ms = Clock::system().wall_ms().0 - step * count as u64 - 3_600_000;
    (0..count as u64).map(move |n| {
        ms += n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (2 * step);
        message(n).at(ms)
    })
}

fn message(number: u64) -> Message {
    let text = "as long as what people write to each other, more or less, on an ordinary day of the week";
    Message::peer("alice", "bob", &format!("{number} {text}"))
}

fn counted(vendor: &Sim) -> (u64, u64) {
    let stats = vendor.stats();
    (stats.of(Endpoint::HistoryCreate).counted, stats.of(Endpoint::HistoryGet).counted)
}

/// An export being read.
struct Export {
    body: Incoming,
    rest: Vec<u8>,
    messages: usize,
}

impl Export {
    async fn open(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let target = format!("/v1/apps/{APP}/history?source=alice&start_time=0&end_time=4102444800");
        let request = Request::get(target).header("host", "bench").header("x-api-key", stage::client_key(0));
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), rest: Vec::new(), messages: 0 }
    }

    /// Reads on; false at the end.
    async fn more(&mut self) -> bool {
        let Some(frame) = self.body.frame().await else { panic!("cut") };
        self.rest.extend_from_slice(frame.unwrap().data_ref().unwrap());
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut goes_on = true;
        for line in self.rest[..whole].split(|byte| *byte == b'\n') {
            assert!(!line.starts_with(b"{\"error\""), "{}", String::from_utf8_lossy(line));
            goes_on &= !line.starts_with(b"{\"end\"");
            self.messages += usize::from(line.starts_with(b"{\"dst\""));
        }
        self.rest.drain(..whole);
        goes_on
    }
}

/// Exports, again and again; says how many messages came.
async fn export_for_ever(address: SocketAddr, count: Arc<AtomicUsize>) {
    loop {
        let mut export = Export::open(address).await;
        let mut before = 0;
        while export.more().await {
            count.fetch_add(export.messages - before, Ordering::Relaxed);
            before = export.messages;
        }
    }
}

/// Asks now and then; how long each answer took.
async fn interactive(address: SocketAddr, time: Duration) -> Vec<Duration> {
    let mut line = Line::open(address).await;
    let end = Instant::now() + time;
    let mut took = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        ask(&mut line).await;
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    took
}

/// One query that nobody has asked before.
async fn ask(line: &mut Line) {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let start = NEXT.fetch_add(1, Ordering::Relaxed);
    let body = format!(r#"{{"filter":{{"source":"alice","start_time":{start},"end_time":4102444800}},"limit":20}}"#);
    let path = format!("/dev/v2/project/{APP}/rtm/message/history/query");
    let auth = format!("x-api-key: {}", stage::client_key(1));
    let (status, body) = line.ask(&stage::request("POST", &path, &auth, &body)).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
}

fn mid(took: &mut [Duration]) -> Duration {
    stage::percentile(took, 0.5)
}

fn worst(took: &mut [Duration]) -> Duration {
    stage::percentile(took, 0.99)
}
