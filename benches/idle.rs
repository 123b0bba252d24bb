//! What a sidecar costs that does nothing: resident memory, and time from start to ready.
//!
//! `cargo bench --bench idle`. The vendor is simulated and quiet; the gateway polls it at the idle interval.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, missing_docs, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod stage;

use std::time::Duration;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let vendor = runtime.block_on(stage_vendor());
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("gateway.toml");
    std::fs::write(&config, stage::configuration(dir.path(), vendor, "", 1)).unwrap();
    let mut starts = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..5 {
        let gateway = stage::Gateway::start(&config);
        starts.push(gateway.ready_after);
        std::thread::sleep(Duration::from_secs(3));
        resident.push(gateway.resident_kib());
    }
    resident.sort_unstable();
    println!("start to ready: median {:?} of 5", stage::percentile(&mut starts, 0.5));
    println!("resident after 3 s idle: median {} KiB of 5", resident[2]);
}
