//! What the gateway adds to a call: CPU time a request, and latency against a direct call, in one run.
//!
//! `cargo bench --bench proxy`. Callers POST a small message over keep-alive connections, in windows that alternate
//! between the gateway and the simulated vendor itself. The gateway checks the key, takes a seat, swaps the credential
//! and forwards. CPU time is of the gateway's process alone; the vendor and the callers run in this one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod stage;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rtm_gateway::simulator::Limit;
use stage::{APP, KEY, Line, SECRET};

const ROUNDS: usize = 10;
const WINDOW: Duration = Duration::from_secs(1);
const LIMIT: usize = 1_000_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let vendor = runtime.block_on(stage::vendor(Limit::per_second(LIMIT)));
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    let app = format!("{}[apps.events]\nstreams = []\n", stage::quota(LIMIT));
    std::fs::write(&config, stage::configuration(dir.path(), vendor.addr(), &app, 1)).unwrap();
    let gateway = stage::Gateway::start(&config);
    let path = format!("/dev/v2/project/{APP}/rtm/users/u1/peer_messages");
    let body = r#"{"destination":"u2","enable_historical_messaging":false,"payload":"hello"}"#;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{KEY}:{SECRET}"));
    let direct = stage::request("POST", &path, &format!("authorization: Basic {basic}"), body);
    let through = stage::request("POST", &path, &format!("x-api-key: {}", stage::client_key(0)), body);
    for connections in [1, 32] {
        let (mut by_gateway, mut by_direct) = (Vec::new(), Vec::new());
        let mut cpu = Vec::new();
        let (mut rates, mut direct_rates) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let before = gateway.cpu();
            let mut samples = runtime.block_on(window(gateway.address, &through, connections));
            let spent = gateway.cpu() - before;
            let mut plain = runtime.block_on(window(vendor.addr(), &direct, connections));
            if round == 0 {
                continue; // warms up
            }
            cpu.push(spent / u32::try_from(samples.len()).unwrap());
            rates.push(samples.len());
            direct_rates.push(plain.len());
            by_gateway.append(&mut samples);
            by_direct.append(&mut plain);
        }
        cpu.sort_unstable();
        println!("{connections} connections, {ROUNDS} windows of {WINDOW:?}:");
        println!("  CPU a request in the gateway: least {:?}, median {:?}", cpu[0], cpu[ROUNDS / 2]);
        for (name, samples, rates) in
            [("gateway", &mut by_gateway, &mut rates), ("direct ", &mut by_direct, &mut direct_rates)]
        {
            rates.sort_unstable();
            let (p50, p99) = (stage::percentile(samples, 0.5), stage::percentile(samples, 0.99));
            println!("  {name}: {} requests a second (median), p50 {p50:?}, p99 {p99:?}", rates[ROUNDS / 2]);
        }
    }
}

/// Asks on so many connections for one window; the time each answer took.
async fn window(to: SocketAddr, request: &[u8], connections: usize) -> Vec<Duration> {
    let until = Instant::now() + WINDOW;
    let mut lines = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let request = request.to_vec();
        lines.spawn(async move {
            let mut line = Line::open(to).await;
            let mut samples = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                let (status, body) = line.ask(&request).await;
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
                samples.push(began.elapsed());
            }
            samples
        });
    }
    lines.join_all().await.concat()
}
