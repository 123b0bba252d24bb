//! `kill -9` at any instant: what the store has acknowledged is there, whole and in order.
//!
//! The test runs its own binary as a child that appends to several logs, stores cursors, quarantines and trims, and
//! says on its output what was acknowledged. The parent kills it after a number of such lines, reads what was
//! still said, and looks at the folder. Then the next child goes on in the same folder.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rtm_gateway::kernel::clock::{Clock, UnixMillis};
use rtm_gateway::kernel::metrics::Metrics;
use rtm_gateway::kernel::names::{AppId, RegionName, Stream, SubscriptionName};
use rtm_gateway::kernel::task::Tasks;
use rtm_gateway::store::embedded::EmbeddedStore;
use rtm_gateway::store::{
    Commit, Content, EventText, LogKey, NewBatch, QuarantineRecord, Sequence, Store, UnreadableResponse,
};

/// Bytes of a response for the quarantine: some pieces.
const GARBAGE: usize = 2_500_000;
/// Tells the child its folder.
const FOLDER: &str = "STORE_KILL_FOLDER";
const LOGS: u64 = 4;
const ROUNDS: u64 = 30;

/// What a child has said: the last acknowledged number and cursor of each log.
#[derive(Default)]
struct Acknowledged {
    appended: BTreeMap<u64, u64>,
    cursors: BTreeMap<u64, u64>,
    quarantined: u64,
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut epoch = None;
    for round in 0..ROUNDS {
        // The first rounds kill it while it makes the store and opens it.
        let lines = if round < 3 { round } else { round * 17 % 97 };
        run_and_kill(folder.path(), lines, &mut acknowledged);
        runtime.block_on(async {
            let tasks = Tasks::new();
            let store = open(folder.path(), &tasks).await;
            assert_eq!(store.last_clean_stop(), None);
            assert_eq!(*epoch.get_or_insert(store.epoch()), store.epoch(), "round {round}");
            check(&*store, &acknowledged).await;
            drop(store);
            tasks.finish(Duration::from_secs(10)).await;
        });
    }
    assert!(acknowledged.appended.len() as u64 == LOGS && acknowledged.quarantined > 0);
}

fn run_and_kill(folder: &Path, lines: u64, acknowledged: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store_kill::child", "--nocapture", "--quiet"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut left = lines;
    while left > 0 {
        let line = said.next().expect("the child goes on until it is killed");
        left -= u64::from(note(&line, acknowledged));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // A last line may have been cut; it has no end mark then.
    said.for_each(|line| {
        note(&line, acknowledged);
    });
}

/// Takes in a line of the child; says whether it was one.
fn note(line: &str, acknowledged: &mut Acknowledged) -> bool {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["opening", "."] => {}
        ["appended", log, last, "."] => {
            acknowledged.appended.insert(log.parse().unwrap(), last.parse().unwrap());
        }
        ["cursor", log, at, "."] => {
            acknowledged.cursors.insert(log.parse().unwrap(), at.parse().unwrap());
        }
        ["quarantined", "."] => acknowledged.quarantined += 1,
        _ => return false,
    }
    true
}

async fn check(store: &dyn Store, acknowledged: &Acknowledged) {
    for k in 0..LOGS {
        let state = store.log_state(&log(k)).await.unwrap();
        let last = acknowledged.appended.get(&k).copied().unwrap_or(0);
        assert!(state.next.0 > last, "log {k} ends at {} but {last} was acknowledged", state.next.0);
        let batches = store.read(&log(k), Sequence(0), usize::MAX).await.unwrap();
        let mut next = state.earliest;
        for batch in batches {
            assert_eq!(batch.first, next, "log {k}");
            assert_eq!(batch.content, content(k, batch.first.0), "log {k}");
            next = batch.last().plus(1);
        }
        assert_eq!(next, state.next, "log {k}");
        let cursors = store.cursors(&log(k)).await.unwrap();
        let at = cursors.first().map_or(0, |(_, at)| at.0);
        assert!(acknowledged.cursors.get(&k).is_none_or(|acknowledged| *acknowledged <= at), "log {k}");
        assert!(at < state.next.0, "log {k}: the cursor was stored after the entries it covers");
    }
    let kept = store.quarantined(&log(0), u64::MAX, usize::MAX).await.unwrap();
    assert!(kept.len() as u64 >= acknowledged.quarantined, "{} of {}", kept.len(), acknowledged.quarantined);
    for entry in kept {
        let (again, pieces) = store.quarantined_body(&log(0), entry.id).await.unwrap().unwrap();
        assert_eq!((again, pieces.concat().len()), (entry, GARBAGE));
    }
}

/// Not a test of its own: what the child runs. Does nothing unless it is told a folder.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        say("opening");
        let tasks = Tasks::new();
        let store = open(Path::new(&folder), &tasks).await;
        futures_util::future::join_all((0..LOGS).map(|k| append(&*store, k))).await;
    });
}

/// Appends to a log for ever.
async fn append(store: &dyn Store, k: u64) {
    let name = SubscriptionName::parse("reader").unwrap();
    for round in 1.. {
        let next = store.log_state(&log(k)).await.unwrap().next.0;
        let new = NewBatch { received_at: UnixMillis(next), region: region(), content: content(k, next) };
        let last = store.append(&log(k), new).await.unwrap().last();
        say(&format!("appended {k} {}", last.0));
        if round % 3 == 0 {
            store.save_cursor(&log(k), &name, last).await.unwrap();
            say(&format!("cursor {k} {}", last.0));
        }
        if round % 10 == 0 {
            store.trim(&log(k), UnixMillis(0), 100_000).await.unwrap();
        }
        if k == 0 && round % 7 == 0 {
            let body = vec![b'?'; GARBAGE].into();
            let response =
                UnreadableResponse { received_at: UnixMillis(1), region: region(), why: "garbage".into(), body };
            let kept = QuarantineRecord { response, delivered: 0 };
            store.commit(&log(0), Commit { quarantined: Some(kept), ..Commit::default() }).await.unwrap();
            say("quarantined");
        }
    }
}

/// The end mark shows that a line is whole.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line} .\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What stands in a log from a number on: its length and text follow from both.
fn content(k: u64, first: u64) -> Content {
    if first.is_multiple_of(11) {
        return Content::PossibleLoss(format!("loss {k} {first}"));
    }
    let texts: Vec<_> = (first..=first + first * 7 % 180).map(|n| format!("{{\"log\":{k},\"n\":{n}}}")).collect();
    Content::Events(EventText::join(texts.iter().map(String::as_bytes)).unwrap())
}

fn log(k: u64) -> LogKey {
    LogKey { app: AppId::parse(&format!("app-{}", k / 2)).unwrap(), stream: Stream::ALL[(k % 2) as usize] }
}

fn region() -> RegionName {
    RegionName::parse("default").unwrap()
}

async fn open(folder: &Path, tasks: &Tasks) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(folder, tasks.clone(), Clock::system(), Metrics::new()).await.unwrap()
}
