//! What is told: on the way, and at the end.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::Instant;

use super::drama::Memory;
use super::ledger::{self, Entry, Verdict};
use super::stage::Stage;
use super::vendor::{LOGS, Vendor};

/// Descriptors that a gateway at rest may have: its files, sockets that listen, the runtime's own, and a few idle
/// connections to the vendor for each of five endpoints and three regions.
pub const DESCRIPTORS_AT_REST: usize = 64;

/// How much more memory the last quarter of the long run may take (by its median) than the second: so much, and a tenth.
const MORE_MEMORY_KIB: u64 = 16 << 10;

/// The most that the last quarter of a run shorter than [`FILLED_AFTER`] may take. What is bounded is still being filled then, so
/// growth says nothing. The bounds' sum: for each of three logs 30 MiB to know other regions' copies by and 4 MiB of text twice
/// (as it came, as it is read); 16 MiB of the store's cache; results of history; and 50 MiB of a debug build at rest.
const MOST_WHILE_FILLING_KIB: u64 = 256 << 10;

const FILLED_AFTER: f64 = 300.0;

/// Samples that are too few to judge by.
const FEW: usize = 16;

/// One line every ten seconds.
pub async fn progress(stage: Arc<Stage>, began: Instant) {
    let mut ticks = tokio::time::interval(Duration::from_secs(10));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let runs = stage.runs.lock().unwrap().len();
        println!(
            "  {:>4} s: run {runs}, {} events occurred, {} deliveries of events, {} broken promises",
            began.elapsed().as_secs(),
            stage.vendor.emitted(),
            stage.delivered.load(Ordering::Relaxed),
            stage.broken().len(),
        );
    }
}

/// Notes a process's memory every quarter of a second, until it is gone.
pub async fn watch_memory(pid: Option<Pid>, memory: Arc<Mutex<Memory>>) {
    let Some(pid) = pid else { return };
    let (began, path) = (Instant::now(), format!("/proc/{}/status", pid.as_raw_nonzero()));
    loop {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with("VmRSS:"));
        let Some(kib) = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()) else { return };
        memory.lock().unwrap().push((began.elapsed().as_secs_f64(), kib));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// What is known at the end.
pub struct Ending {
    pub seed: u64,
    pub took: Duration,
    pub memory: Memory,
    pub descriptors: usize,
    pub violations: Vec<String>,
    pub scans: Vec<Vec<Entry>>,
}

/// Checks, prints the table, and says whether all promises were kept.
pub fn end(stage: &Stage, ending: Ending, late_after: Duration) -> bool {
    let mut logs: Vec<_> = (0..LOGS.len()).map(|log| stage.vendor.book(log)).collect();
    for (log, entries) in logs.iter_mut().zip(ending.scans) {
        log.entries = entries;
    }
    let runs = stage.runs.lock().unwrap();
    let books: Vec<_> = stage.books.lock().unwrap().iter().map(|book| book.lock().unwrap().clone()).collect();
    let verdict = ledger::check(&logs, &runs, &books, late_after);
    let mut broken = stage.broken();
    broken.extend(verdict.broken.iter().cloned());
    broken.extend(ending.violations.iter().map(|v| format!("the vendor counted: {v}")));
    broken.extend(stage.log.bad().into_iter().map(|line| format!("in the log: {line}")));
    let medians = quarters(&ending.memory);
    let filled = ending.memory.last().is_some_and(|(seconds, _)| *seconds > FILLED_AFTER);
    if let Some([_, second, _, fourth]) = medians {
        let most = if filled { second + second / 10 + MORE_MEMORY_KIB } else { MOST_WHILE_FILLING_KIB };
        if fourth > most {
            broken.push(format!("memory grew from {second} KiB to {fourth} KiB within the last run"));
        }
    }
    print_table(stage, &verdict, runs.len());
    row("resident memory by quarters of the last run", &memory_line(medians, &ending.memory));
    row("open descriptors at rest", &ending.descriptors);
    row("violations counted by the vendor", &ending.violations.len());
    row("promises broken", &broken.len());
    row("time, seed", &format!("{:.0} s, {}", ending.took.as_secs_f64(), ending.seed));
    fs::write(stage.dir.join("broken.txt"), broken.join("\n")).unwrap();
    for what in broken.iter().take(40) {
        println!("BROKEN: {what}");
    }
    broken.is_empty()
}

fn print_table(stage: &Stage, verdict: &Verdict, runs: usize) {
    println!();
    row("events that occurred", &stage.vendor.emitted());
    row("  in answers handed over whole", &verdict.handed_whole);
    row("  in answers that a fault or a kill spoilt", &verdict.spoilt);
    row("  handed over just before a kill, not stored", &verdict.in_doubt);
    row("  nowhere, and marked", &verdict.marked);
    row("  overwritten at the vendor", &overwritten(&stage.vendor));
    row("answers that came after the poller gave up", &verdict.late);
    row("events stored", &verdict.stored);
    row("markers stored", &verdict.markers);
    row("deliveries", &format!("{} answers, {} events", verdict.deliveries, verdict.delivered));
    row("  events again after a kill", &verdict.repeats);
    row("  events in answers that readers left", &verdict.left);
    row("runs of the gateway", &runs);
    row("acts", &counts(&stage.acts()));
    row("faults", &counts(&faults(&stage.vendor)));
    row("answers", &counts(&stage.statuses()));
    row("log lines", &counts(&stage.log.lines()));
}

fn row(name: &str, value: &dyn std::fmt::Display) {
    println!("{name:<46} {value}");
}

fn counts<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    counts.iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ")
}

fn faults(vendor: &Vendor) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for (what, count) in vendor.sims().into_iter().flat_map(|sim| sim.faults_met()) {
        *all.entry(what).or_default() += count;
    }
    all
}

fn overwritten(vendor: &Vendor) -> u64 {
    vendor.sims().into_iter().map(|sim| sim.stats().events.overwritten).sum()
}

/// The median of each quarter.
fn quarters(memory: &Memory) -> Option<[u64; 4]> {
    if memory.len() < FEW {
        return None;
    }
    let median = |quarter: usize| {
        let (from, to) = (memory.len() * quarter / 4, memory.len() * (quarter + 1) / 4);
        let mut kib: Vec<u64> = memory[from..to].iter().map(|(_, kib)| *kib).collect();
        kib.sort_unstable();
        kib[kib.len() / 2]
    };
    Some([0, 1, 2, 3].map(median))
}

fn memory_line(medians: Option<[u64; 4]>, memory: &Memory) -> String {
    let (Some(medians), Some((first, _)), Some((last, _))) = (medians, memory.first(), memory.last()) else {
        return "(too short to tell)".to_owned();
    };
    let mib = medians.map(|kib| format!("{:.1}", kib as f64 / 1024.0)).join(", ");
    format!("{mib} MiB over {:.0} s", last - first)
}
