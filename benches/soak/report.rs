//! What is told: on the way, and at the end.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::{Instant, MissedTickBehavior};

use super::caller::{Caller, Ended, Manner};
use super::growth::{Judgement, LEAK, LEAST, RESTS, Sample, Trend, WARM_UP, judge};
use super::ledger::{self, Entry, Verdict};
use super::stage::Stage;
use super::vendor::{LOGS, Vendor};

/// Descriptors that a gateway at rest may have: its files, sockets that listen, the runtime's own, and a few idle
/// connections to the vendor for each of five endpoints and three regions.
pub const DESCRIPTORS_AT_REST: usize = 64;

/// The most that may be live at the end of a run that is too short for its growth to be judged: what is bounded is still
/// being filled then. The bounds' sum: for each of three logs 30 MiB to know other regions' copies by and 4 MiB of text
/// twice (as it came, as it is read); 16 MiB of the store's cache; results of history, and requests on their way.
const MAX_WHILE_FILLING: u64 = 160 << 20;

/// The most that may be resident at the end of any run: that, a debug build at rest, and what is free but not yet given back.
const MAX_RESIDENT: u64 = 256 << 20;

/// Samples that are too few to judge by.
const FEW: usize = 16;

/// What counts of a rest.
const AT_THE_END: Duration = Duration::from_secs(8);

/// Samples that are too few for a rest.
const FEW_OF_A_REST: usize = 4;

/// A run's memory since it was ready: what is live on its heap, and what is resident.
#[derive(Clone, Default)]
pub struct Memory {
    live: Vec<Sample>,
    resident: Vec<Sample>,
    /// What was live at the end of each rest.
    rests: Vec<Sample>,
}

impl Memory {
    /// A rest ends now.
    pub fn note_rest(&mut self) {
        let Some(end) = self.resident.last().map(|sample| sample.at) else { return };
        let last = &self.live[self.live.partition_point(|sample| sample.at + AT_THE_END < end)..];
        if last.len() >= FEW_OF_A_REST
            && let Some(bytes) = median(last)
        {
            println!("  at rest: {} live", mib(bytes as f64));
            self.rests.push(Sample { at: end, bytes });
        }
    }
}

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

/// Notes a gateway's memory every second, until it is gone.
pub async fn watch_memory(gateway: Option<(Pid, SocketAddr)>, memory: Arc<Mutex<Memory>>) {
    let Some((pid, operators)) = gateway else { return };
    let (began, path) = (Instant::now(), format!("/proc/{}/status", pid.as_raw_nonzero()));
    let mut operator = Caller::new(operators, "");
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with("VmRSS:"));
        let Some(kib) = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()) else { return };
        let sample = |bytes| Sample { at: began.elapsed(), bytes };
        memory.lock().unwrap().resident.push(sample(kib << 10));
        if let Ended::Answered(answer) = operator.get("/metrics", Manner::Plain).await
            && let Some(live) = live(&answer.body)
        {
            memory.lock().unwrap().live.push(sample(live));
        }
    }
}

/// What the metrics say is live.
fn live(metrics: &[u8]) -> Option<u64> {
    let metrics = std::str::from_utf8(metrics).ok()?;
    metrics.lines().find_map(|line| line.strip_prefix("rtm_gateway_heap_live_bytes ")?.parse().ok())
}

/// What is known at the end.
pub struct Ending {
    pub seed: u64,
    pub took: Duration,
    pub memory: Memory,
    /// A leak that was planted.
    pub planted: Option<String>,
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
    let judged = judge(&ending.memory.rests);
    broken.extend(memory_broken(&judged, &ending.memory));
    print_table(stage, &verdict, runs.len());
    row("live heap by quarters of the last run", &quarters_line(&ending.memory.live));
    row("resident memory by quarters of the last run", &quarters_line(&ending.memory.resident));
    let rests: Vec<_> = ending.memory.rests.iter().map(|rest| mib(rest.bytes as f64)).collect();
    row("live heap at rest", &if rests.is_empty() { "(no rest)".to_owned() } else { rests.join(", ") });
    row("growth of the live heap", &growth_line(&judged));
    if let Some(planted) = ending.planted {
        row("  planted", &planted);
    }
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

/// What of the memory must not be.
fn memory_broken(judged: &Judgement, memory: &Memory) -> Vec<String> {
    let last = |samples: &[Sample]| quarters(samples).map_or(0, |[.., last]| last);
    let (live, resident) = (last(&memory.live), last(&memory.resident));
    let mut broken = Vec::new();
    match judged {
        Judgement::Grew(_) => broken.push(format!("the live heap grew within the last run: {}", growth_line(judged))),
        Judgement::TooShort { .. } if live > MAX_WHILE_FILLING => {
            broken.push(format!("{} are live at the end of the last run", mib(live as f64)));
        }
        _ => {}
    }
    if resident > MAX_RESIDENT {
        broken.push(format!("{} are resident at the end of the last run", mib(resident as f64)));
    }
    broken
}

fn growth_line(judged: &Judgement) -> String {
    let trend = |trend: &Trend| {
        let [_, middle, last] = trend.thirds;
        format!(
            "{:+.1} % from the middle third to the last, {:+.0} bytes a second ({:+.0} to {:+.0}) in {} rests over {:.0} min",
            (last / middle - 1.0) * 100.0,
            trend.slope,
            trend.least,
            trend.most,
            trend.rests,
            trend.over.as_secs_f64() / 60.0
        )
    };
    match judged {
        Judgement::TooShort { rests, over } => format!(
            "not judged, only held to be below {}: {rests} rests over {:.0} min after the warm-up of {} s, of {RESTS} over {} min",
            mib(MAX_WHILE_FILLING as f64),
            over.as_secs_f64() / 60.0,
            WARM_UP.as_secs(),
            LEAST.as_secs() / 60
        ),
        Judgement::Flat(of) => format!("flat: {}", trend(of)),
        Judgement::Unclear(of) => format!("NOT CLEAR, a leak of {LEAK} bytes a second could hide: {}", trend(of)),
        Judgement::Grew(of) => format!("GREW: {}", trend(of)),
    }
}

/// The median of each quarter.
fn quarters(samples: &[Sample]) -> Option<[u64; 4]> {
    if samples.len() < FEW {
        return None;
    }
    let of = |quarter: usize| &samples[samples.len() * quarter / 4..samples.len() * (quarter + 1) / 4];
    Some([0, 1, 2, 3].map(|quarter| median(of(quarter)).unwrap_or(0)))
}

fn median(samples: &[Sample]) -> Option<u64> {
    let mut bytes: Vec<u64> = samples.iter().map(|sample| sample.bytes).collect();
    bytes.sort_unstable();
    bytes.get(bytes.len() / 2).copied()
}

fn quarters_line(samples: &[Sample]) -> String {
    let (Some(medians), Some(first), Some(last)) = (quarters(samples), samples.first(), samples.last()) else {
        return "(too short to tell)".to_owned();
    };
    let medians = medians.map(|bytes| mib(bytes as f64));
    format!("{} over {:.0} s", medians.join(", "), (last.at - first.at).as_secs_f64())
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}
