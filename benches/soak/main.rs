//! The soak: the gateway as a process, a simulated vendor that fails at random, subscribers that come and go, reloads,
//! full disks, stops and `kill -9`; and at the end the ledger.
//!
//! ```text
//! cargo bench --bench soak -- --for 2m --seed 7
//! ```
//!
//! For a bit more than half of the time, and at most twelve minutes, the gateway is ended again and again, in every way.
//! Then one run goes on to the end, under the same faults and reloads, with rests on the way: of an hour they are enough
//! for `growth.rs` to judge it by what is live at rest. At the end the faults stop, all that is left is read, and what must
//! hold is checked: see `ledger.rs` for events; and that no limit was breached in any window, that the live heap does not
//! grow and descriptors come back, that a stop in order exits with 0, and that nothing panicked. What is broken is told,
//! with the seed, and the folder (configuration, log, store) is kept. Nothing is judged by how fast it was, so a loaded
//! machine makes the soak thinner, not red.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a program of its own, for developers"
)]

mod caller;
mod drama;
mod gateway;
mod growth;
mod leak;
mod ledger;
mod readers;
mod report;
mod stage;
mod traffic;
mod vendor;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use rtm_gateway::simulator::ViolationKind;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::drama::Drama;
use self::leak::{Leak, Rate};
use self::report::Memory;
use self::stage::{Phase, Stage};
use self::vendor::{LOGS, Vendor};

#[derive(clap::Parser)]
#[command(about = "Runs the gateway under faults for a while and checks the ledger")]
struct Args {
    /// For how long
    #[arg(long = "for", default_value = "2m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Of all chance; a random one if left out
    #[arg(long)]
    seed: Option<u64>,
    /// Makes the last run hold so much more each second, to see it found: `1KB/s`
    #[arg(long)]
    plant_leak: Option<Rate>,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

/// The share of the time in which the gateway is ended again and again.
const RESTARTS: f64 = 0.55;

/// The most time for that: the rest of a long soak is one run, which is judged by its memory.
const MAX_RESTARTS: Duration = Duration::from_secs(12 * 60);

/// How long the last run works before it rests.
const WORK: Duration = Duration::from_secs(3 * 60);

/// How long it rests: longer than anything is remembered that a rate of work makes much or little of. (Other regions'
/// events: `dedup_window`, a minute. Results of history that may be given again: a minute, swept each half of one.)
const REST: Duration = Duration::from_secs(100);

/// Then connections to the vendor are cut, and the disk is full for so long: the store opens its file anew, and its cache
/// is empty.
const FULL: Duration = Duration::from_secs(3);

/// Then all is well for so long, before what is live is noted.
const SETTLE: Duration = Duration::from_secs(12);

/// How long the poller waits for an answer, at least: a connection and an answer. (What comes later is late.)
const LATE_AFTER: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("soak for {}, seed {seed}", humantime::format_duration(args.time));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if runtime.block_on(soak(args.time, seed, args.plant_leak)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn soak(time: Duration, seed: u64, leak: Option<Rate>) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(Vendor::start(seed).await, dir.path().to_owned());
    let began = Instant::now();
    let mut drama = Drama::begin(stage.clone(), seed).await;
    let mut emitters = JoinSet::new();
    for log in 0..LOGS.len() {
        emitters.spawn(stage.vendor.clone().emit(log, seed ^ (log as u64 + 1)));
    }
    let mut tasks = JoinSet::new();
    readers::start(&stage, seed, &mut tasks);
    traffic::start(&stage, seed, &mut tasks);
    let mut progress = JoinSet::new();
    progress.spawn(report::progress(stage.clone(), began));

    drama.play(began + time.mul_f64(RESTARTS).min(MAX_RESTARTS), true).await;
    let memory = Arc::new(Mutex::new(Memory::default()));
    let gateway = drama.gateway().map(|gateway| (gateway.pid(), gateway.operators));
    progress.spawn(report::watch_memory(gateway, memory.clone()));
    let leak = leak.map(Leak::new);
    if let (Some(leak), Some(gateway)) = (&leak, drama.gateway()) {
        progress.spawn(leak.clone().plant(gateway.callers));
    }
    work_and_rest(&stage, &mut drama, &memory, (seed, began + time)).await;
    // Without the traffic less is live: what comes now is not compared with what was.
    let memory = memory.lock().unwrap().clone();
    let planted = leak.map(|leak| leak.planted());

    println!("  the end: no more faults, the rest is read");
    stage.vendor.stop_emitting.store(true, Ordering::SeqCst);
    emitters.join_all().await;
    stage.vendor.faults_off();
    drama.calm().await;
    until_all_is_stored(&stage).await;
    stage.phase.send_replace(Phase::Finishing);
    tasks.join_all().await;
    progress.shutdown().await;
    let descriptors = descriptors_at_rest(&stage, &drama).await;
    let scans = scans(&stage).await;
    drama.finish().await;
    let violations = breaches(&stage);
    let ending = report::Ending { seed, took: began.elapsed(), memory, planted, descriptors, violations, scans };
    let sound = report::end(&stage, ending, LATE_AFTER);
    if !sound {
        println!("seed {seed}; the folder is kept: {}", dir.keep().display());
    }
    sound
}

/// Goes on under faults until `end`, with a rest after each [`WORK`], as long as there is time for one.
async fn work_and_rest(stage: &Stage, drama: &mut Drama, memory: &Mutex<Memory>, (seed, end): (u64, Instant)) {
    for round in 1.. {
        let until = Instant::now() + WORK;
        drama.play(until.min(end), false).await;
        if Instant::now() + REST + FULL + SETTLE > end {
            drama.play(end, false).await;
            return;
        }
        stage.act("rest");
        stage.vendor.rest(true, seed);
        tokio::time::sleep(REST).await;
        drama.let_go(FULL).await;
        tokio::time::sleep(SETTLE).await;
        memory.lock().unwrap().note_rest();
        stage.vendor.rest(false, seed ^ (round << 16));
    }
}

/// Waits until the vendor's queues are empty and what was read is stored.
async fn until_all_is_stored(stage: &Stage) {
    // The latest of late answers has come by then.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let reads = |log: usize| stage.vendor.book(log).feeds.iter().map(|(_, reads)| reads.len()).min().unwrap_or(0);
    for log in 0..LOGS.len() {
        while stage.vendor.waiting(log) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The poller asks again only when it has stored.
        let enough = reads(log) + 3;
        while reads(log) < enough {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What the vendor counted that must not be, less what a secret rotated without overlap must bring, and answers that
/// nobody waited for any more.
fn breaches(stage: &Stage) -> Vec<String> {
    let vendor = &stage.vendor;
    let all = [vendor.here.violations(), vendor.east.violations()].concat();
    let is_breach = |kind: &ViolationKind| {
        !matches!(kind, ViolationKind::BadCredential { .. }) && !traffic::may_have_been_given_up(stage, kind)
    };
    all.iter().filter(|v| is_breach(&v.kind)).map(|v| format!("{v:?}")).collect()
}

/// How many descriptors are open when nobody calls.
async fn descriptors_at_rest(stage: &Stage, drama: &Drama) -> usize {
    let Some(gateway) = drama.gateway() else { return 0 };
    let most = report::DESCRIPTORS_AT_REST;
    let until = Instant::now() + caller::PATIENCE;
    loop {
        let open = gateway.descriptors().unwrap_or(0);
        if open <= most || Instant::now() > until {
            if open > most {
                stage.breach(format!("{open} descriptors are open when nobody calls"));
            }
            return open;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// All logs from their beginnings; what readers by cursor got on the way must be the same.
async fn scans(stage: &Stage) -> Vec<Vec<ledger::Entry>> {
    let mut scans = Vec::new();
    for (log, (app, stream)) in LOGS.iter().enumerate() {
        let whole = readers::scan(stage, log).await;
        let along = stage.scans[log].lock().unwrap();
        if whole != *along {
            let differ = whole.iter().zip(along.iter()).position(|(a, b)| a != b);
            stage.breach(format!(
                "{app}/{stream}: a reader by cursor got {} entries, the log has {}; they differ at {differ:?}",
                along.len(),
                whole.len()
            ));
        }
        scans.push(whole);
    }
    scans
}
