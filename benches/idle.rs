//! What a sidecar costs that does nothing: resident memory, and time from start to ready.
//!
//! `cargo bench --bench idle`. The vendor is simulated and quiet; the gateway polls it at the idle interval.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod stage;

use std::time::Duration;

use rtm_gateway::simulator::Limit;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let vendor = runtime.block_on(stage::vendor(Limit::per_second(100)));
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    std::fs::write(&config, stage::configuration(dir.path(), vendor.addr(), "", 1)).unwrap();
    let (mut starts, mut resident, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let gateway = stage::Gateway::start(&config);
        starts.push(gateway.ready_after);
        std::thread::sleep(Duration::from_secs(3));
        let before = gateway.cpu();
        std::thread::sleep(Duration::from_secs(3));
        cpu.push((gateway.cpu() - before) / 3);
        resident.push(gateway.resident_kib());
    }
    resident.sort_unstable();
    println!("start to ready          median of 5: {:?}", stage::percentile(&mut starts, 0.5));
    println!("resident after 6 s idle median of 5: {} KiB", resident[2]);
    println!("CPU a second while idle median of 5: {:?}", stage::percentile(&mut cpu, 0.5));
}
