//! The quota at size: what a take and a return cost, and whether it stays fair, over so many waiters, clients and buckets.
//!
//! `cargo bench --bench quota_size -- [--only WORD]`. The library alone, on one thread and in paused time: nothing waits but for
//! itself, and CPU time is of the work alone. A figure is the least of several rounds. Beside it stands how many times that of
//! the smallest size it is: a scan would show the growth of n itself.
//!
//! - `buckets`: a seat is taken and given back in each of so many buckets in turn, with nobody waiting. Memory of each.
//! - `waiters`: so many orders of 100 clients wait for 1000 seats a second, and whoever was served asks again: its wait,
//!   its wake, its seat and the return of it. How far the clients' counts are from equal shares, in seats, and memory of
//!   each who waits.
//! - `clients`: 10,000 waiters of so many clients.
//! - `weights`: 100 clients, every other of weight 3.
//! - `newcomers`: while so many wait, one who never waited before comes to stand before nearly all, ten times a second.
//! - `leaves`: one joins so many who wait, in the middle or at the end, and leaves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use futures_util::FutureExt as _;
use rtm_gateway::config::Limit;
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::ClientName;
use rtm_gateway::upstream::quota::{Begin, Bucket};
use rtm_gateway::vendor::order::Payer;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep};

const SEATS: u32 = 1000;
const PATIENCE: Duration = Duration::from_secs(100_000);
const ROUNDS: usize = 5;
/// So many seats are served in each round of a crowd.
const SERVED: usize = 5000;

#[derive(clap::Parser)]
struct Args {
    /// Only the lines with this word
    #[arg(long)]
    only: Option<String>,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only));
    if wanted("buckets") {
        println!("buckets: a take and a return");
        over([1, 100, 10_000, 100_000], |size| in_paused_time(buckets(size)));
    }
    if wanted("waiters") {
        println!("waiters of 100 clients on one bucket: a wait, a seat and its return");
        over([100, 1000, 10_000, 50_000], |size| in_paused_time(crowd(size, 100, |_| 1, false)));
    }
    if wanted("clients") {
        println!("clients, 10,000 waiters in all");
        over([10, 100, 1000, 10_000], |size| in_paused_time(crowd(10_000, size, |_| 1, false)));
    }
    if wanted("weights") {
        println!("waiters of 100 clients, every other of weight 3");
        over([1000, 10_000], |size| in_paused_time(crowd(size, 100, |n| if n % 2 == 0 { 1 } else { 3 }, false)));
    }
    if wanted("newcomers") {
        println!("waiters of 100 clients, ten newcomers a second before them");
        over([100, 1000, 10_000, 50_000], |size| in_paused_time(crowd(size, 100, |_| 1, true)));
    }
    if wanted("leaves") {
        println!("waiters of 100 clients: one joins and leaves");
        over([100, 1000, 10_000, 50_000], |size| in_paused_time(leaves(size)));
    }
}

/// What one piece of work took, and what else is to be said.
struct Measured {
    each: Duration,
    more: String,
}

fn over<const N: usize>(sizes: [usize; N], measure: impl Fn(usize) -> Measured) {
    let mut first = None;
    for size in sizes {
        let Measured { each, more } = measure(size);
        let times = each.as_secs_f64() / first.get_or_insert(each).as_secs_f64();
        println!("  {size:>7}: {each:>8.2?}, {times:>5.2} times the first{more}");
    }
}

async fn buckets(size: usize) -> Measured {
    let before = resident_kib();
    let buckets: Vec<_> = (0..size).map(|_| bucket()).collect();
    let (made, payer) = (resident_kib(), payer("c0", 1));
    let takes = size.max(20_000);
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = cpu();
        for n in 0..takes {
            let mut seat = buckets[n % size].seat(&payer, Instant::now() + PATIENCE).await.unwrap();
            seat.sending();
            seat.answered();
            if size == 1 && n % SEATS as usize == SEATS as usize - 1 {
                advance(Duration::from_secs(2)).await;
            }
        }
        least = least.min((cpu() - began) / u32::try_from(takes).unwrap());
        advance(Duration::from_secs(2)).await;
    }
    let used = resident_kib();
    let each = |kib: u64| kib as f64 * 1024.0 / size as f64;
    let more = format!("; {:.0} bytes each when made, {:.0} when used", each(made - before), each(used - before));
    Measured { each: least, more: if size < 10_000 { String::new() } else { more } }
}

/// Keeps so many waiting.
async fn crowd(size: usize, clients: usize, weight: impl Fn(usize) -> u32, newcomers: bool) -> Measured {
    let bucket = filled().await;
    let before = resident_kib();
    let served: Arc<[std::sync::atomic::AtomicUsize]> = (0..clients).map(|_| 0.into()).collect();
    let mut tasks = JoinSet::new();
    for n in 0..size {
        let (bucket, served, client) = (bucket.clone(), served.clone(), n % clients);
        let payer = payer(&format!("c{client}"), weight(client));
        tasks.spawn(async move {
            loop {
                let mut seat = bucket.seat(&payer, Instant::now() + PATIENCE).await.unwrap();
                served[client].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                seat.sending();
                seat.answered();
            }
        });
    }
    tokio::task::yield_now().await;
    let waiting = resident_kib();
    if newcomers {
        let bucket = bucket.clone();
        tasks.spawn(async move {
            for n in 0.. {
                let payer = payer(&format!("new{}", n % 1000), 1);
                let mut seat = bucket.seat(&payer, Instant::now() + PATIENCE).await.unwrap();
                seat.sending();
                seat.answered();
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
    let count = || served.iter().map(|served| served.load(std::sync::atomic::Ordering::Relaxed)).collect::<Vec<_>>();
    let mut least = Duration::MAX;
    let mut spread: f64 = 0.0;
    let all: f64 = (0..clients).map(|n| f64::from(weight(n))).sum();
    for _ in 0..ROUNDS {
        let (first, began) = (count(), cpu());
        let sum = |counts: &[usize]| counts.iter().sum::<usize>();
        while sum(&count()) - sum(&first) < SERVED {
            sleep(Duration::from_millis(500)).await;
        }
        let (last, spent) = (count(), cpu() - began);
        let given = sum(&last) - sum(&first);
        least = least.min(spent / u32::try_from(given).unwrap());
        for (client, (last, first)) in last.iter().zip(&first).enumerate() {
            let fair = given as f64 * f64::from(weight(client)) / all;
            spread = spread.max(((last - first) as f64 - fair).abs());
        }
    }
    let each = (waiting - before) as f64 * 1024.0 / size as f64;
    // A heap that an earlier size left behind does not grow.
    let memory = if size < 10_000 || waiting == before {
        String::new()
    } else {
        format!(", {each:.0} bytes each (with its task)")
    };
    Measured { each: least, more: format!("; furthest from its share by {spread:.1} seats in {SERVED}{memory}") }
}

async fn leaves(size: usize) -> Measured {
    const JOINED: u32 = 5000;
    let bucket = filled().await;
    let mut tasks = JoinSet::new();
    for n in 0..size {
        let (bucket, payer) = (bucket.clone(), payer(&format!("c{}", n % 100), 1));
        tasks.spawn(async move { bucket.seat(&payer, Instant::now() + PATIENCE).await.map(drop) });
    }
    tokio::task::yield_now().await;
    let payers: Vec<_> = (0..100).map(|n| payer(&format!("c{n}"), 1)).collect();
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = cpu();
        for n in 0..JOINED {
            let mut one = Box::pin(bucket.seat(&payers[n as usize % 100], Instant::now() + PATIENCE));
            assert!((&mut one).now_or_never().is_none());
        }
        least = least.min((cpu() - began) / JOINED);
    }
    Measured { each: least, more: String::new() }
}

/// A bucket whose seats are all used, and come free one after another.
async fn filled() -> Arc<Bucket> {
    let bucket = bucket();
    for _ in 0..SEATS {
        let mut seat = bucket.seat(&payer("before", 1), Instant::now()).await.unwrap();
        seat.sending();
        seat.answered();
        advance(Duration::from_secs(1) / (SEATS + 1)).await;
    }
    bucket
}

fn bucket() -> Arc<Bucket> {
    let limit = Limit { requests: NonZeroU32::new(SEATS).unwrap(), per: Duration::from_secs(1) };
    Bucket::new(limit, Begin::Full, Clock::system())
}

fn payer(client: &str, weight: u32) -> Payer {
    Payer { client: ClientName::parse(client).unwrap(), weight }
}

fn in_paused_time(work: impl Future<Output = Measured>) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
