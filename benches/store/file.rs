//! What a commit costs, by the size of the file; what opening takes after `kill -9`; what a backup is.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtm_gateway::kernel::clock::{Clock, UnixMillis};
use rtm_gateway::kernel::metrics::Metrics;
use rtm_gateway::kernel::names::{AppId, RegionName, Stream, SubscriptionName};
use rtm_gateway::kernel::task::Tasks;
use rtm_gateway::store::embedded::{EmbeddedStore, Faults, Options};
use rtm_gateway::store::{Commit, Content, EventText, LogKey, NewBatch, PlaceChange, Sequence, Store};

use crate::{kib, stage};

/// Tells the child its folder.
pub const FOLDER: &str = "STORE_BENCH_FOLDER";

const EVENT: usize = 120;
/// Events of a read.
const READ: usize = 1000;
/// Reads in a commit, while the file is filled.
const AT_ONCE: usize = 100;
/// Commits that are measured, of either kind; and those before, which are not.
const COMMITS: u64 = 200;
const WARM_UP: u64 = 20;
const CURSORS: usize = 1000;

pub fn head() {
    println!(
        "| file | append of one event | its commit writes | syncs | commit of {CURSORS} cursors writes | open after `kill -9` | backup, ready after | its length |"
    );
    println!("|---|---|---|---|---|---|---|---|");
}

pub async fn measure(size: u64) {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), size).await;
    let data = dir.path().join("events.redb");
    let said = run_and_kill(dir.path());

    let began = Instant::now();
    let (store, tasks, ..) = open(dir.path()).await;
    let opened = began.elapsed();
    let length = std::fs::metadata(&data).unwrap().len();
    let began = Instant::now();
    let backup = store.backup().await.unwrap();
    let (made, copied) = (began.elapsed(), backup.metadata().unwrap().len());
    println!("| {} MiB | {said} | {opened:.1?} | {made:.1?} | {} MiB |", length >> 20, copied >> 20);
    drop((backup, store));
    tasks.finish(Duration::from_secs(10)).await;
}

async fn open(folder: &Path) -> (Arc<EmbeddedStore>, Tasks, Faults, Metrics) {
    let (tasks, faults, metrics) = (Tasks::new(), Faults::default(), Metrics::new());
    let options = Options { faults: faults.clone(), ..Options::default() };
    let store = EmbeddedStore::open_with(folder, options, tasks.clone(), Clock::system(), metrics.clone());
    (store.await.unwrap(), tasks, faults, metrics)
}

fn log() -> LogKey {
    LogKey { app: AppId::parse("bench").unwrap(), stream: Stream::UserEvents }
}

fn batch(events: usize) -> NewBatch {
    let event = vec![b'e'; EVENT];
    NewBatch {
        received_at: UnixMillis(1),
        region: RegionName::parse("here").unwrap(),
        content: Content::Events(EventText::join((0..events).map(|_| event.as_slice())).unwrap()),
    }
}

async fn fill(folder: &Path, size: u64) {
    let (store, tasks, faults, _) = open(folder).await;
    faults.lie_about_syncs();
    let data = folder.join("events.redb");
    while store.log_state(&log()).await.unwrap().bytes < size {
        let batches = (0..AT_ONCE).map(|_| batch(READ)).collect();
        store.commit(&log(), Commit { batches, ..Commit::default() }).await.unwrap();
    }
    store.close(UnixMillis(1)).await.unwrap();
    drop(store);
    tasks.finish(Duration::from_secs(10)).await;
    std::fs::File::open(data).unwrap().sync_all().unwrap();
}

/// What a child says that has it open, until it is killed.
fn run_and_kill(folder: &Path) -> String {
    let mut child =
        Command::new(std::env::current_exe().unwrap()).env(FOLDER, folder).stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    said
}

pub fn child(folder: &Path) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (store, _tasks, _, metrics) = open(folder).await;
        let (written, syncs) = (|| metrics.store_written.get(), || metrics.store_syncs.get());
        let mut took = Vec::new();
        let (mut before, mut synced) = (0, 0);
        for n in 0..WARM_UP + COMMITS {
            if n == WARM_UP {
                (before, synced) = (written(), syncs());
                took.clear();
            }
            let began = Instant::now();
            store.append(&log(), batch(1)).await.unwrap();
            took.push(began.elapsed());
        }
        let (appended, syncs) = ((written() - before) / COMMITS, (syncs() - synced) as f64 / COMMITS as f64);
        let (p50, p99) = (stage::percentile(&mut took, 0.5), stage::percentile(&mut took, 0.99));
        let names: Vec<_> = (0..CURSORS).map(|n| SubscriptionName::parse(&format!("reader-{n}")).unwrap()).collect();
        for n in 0..WARM_UP + COMMITS {
            if n == WARM_UP {
                before = written();
            }
            let move_to = |name: &SubscriptionName| PlaceChange::Cursor(name.clone(), Sequence(n));
            store.change_places(&log(), names.iter().map(move_to).collect()).await.unwrap();
        }
        let moved = (written() - before) / COMMITS;
        println!("p50 {p50:.2?}, p99 {p99:.2?} | {} | {syncs:.2} | {}", kib(appended), kib(moved));
        std::io::stdout().flush().unwrap();
        std::future::pending::<()>().await;
    });
}
