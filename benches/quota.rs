//! The quota under overload and random delays: windows breached, and how much of the budget is used.
//!
//! `cargo bench --bench quota`. Four clients with 40 connections each ask different counts without a pause, against
//! 100 a second. The vendor delays each request by 0 to 50 ms before it counts it and by 0 to 50 ms before it answers.
//! A seat is in use for one window and one round trip, so at best W/(W + round trip) of the budget can be used.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod stage;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rtm_gateway::simulator::{Endpoint, Fault, Limit};
use stage::{APP, Line};

const BUDGET: usize = 100;
const CLIENTS: usize = 4;
const CONNECTIONS: usize = 40;
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(20);

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let vendor = stage::vendor(Limit::per_second(BUDGET)).await;
    let delay = Duration::from_millis(50);
    vendor.always(Endpoint::HistoryCount, Fault::all([Fault::JitterBefore(delay), Fault::JitterAfter(delay)]));
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    let app = format!("{}[apps.events]\nstreams = []\n", stage::quota(BUDGET));
    std::fs::write(&config, stage::configuration(dir.path(), vendor.addr(), &app, CLIENTS)).unwrap();
    let gateway = stage::Gateway::start(&config);
    let end = Instant::now() + WARM_UP + MEASURED;
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let mut lines = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        for _ in 0..CONNECTIONS {
            let address = gateway.address;
            lines.spawn(async move {
                let mut line = Line::open(address).await;
                let mut answered = 0;
                while Instant::now() < end {
                    let start = NEXT.fetch_add(1, Ordering::Relaxed);
                    let query = format!("destination=d&start_time={start}&end_time=4000000000");
                    let path = format!("/dev/v2/project/{APP}/rtm/message/history/count?{query}");
                    let auth = format!("x-api-key: {}", stage::client_key(client));
                    let (status, body) = line.ask(&stage::request("GET", &path, &auth, "")).await;
                    assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
                    answered += 1;
                }
                (client, answered)
            });
        }
    }
    tokio::time::sleep(WARM_UP).await;
    let counted = || vendor.stats().of(Endpoint::HistoryCount).answered();
    let (began, before) = (Instant::now(), counted());
    tokio::time::sleep(MEASURED).await;
    let (served, took) = (counted() - before, began.elapsed());
    let mut shares = [0; CLIENTS];
    for (client, answered) in lines.join_all().await {
        shares[client] += answered;
    }
    let used = served as f64 / took.as_secs_f64() / BUDGET as f64;
    // Two delays of 25 ms on average.
    let possible = 1.0 / 1.05;
    println!("windows breached: {}", vendor.world().breaches().len());
    println!("budget used: {used:.3}; possible at this round trip: {possible:.3}; ratio {:.3}", used / possible);
    println!("answers by client, of equal weight: {shares:?}");
}
