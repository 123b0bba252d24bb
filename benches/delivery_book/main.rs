//! Delivery, judged: the gateway as a process, readers of every kind, webhooks, an operator, stops, kills and retention,
//! all by chance; and every answer is held against the reference model (`model/`).
//!
//! ```text
//! cargo bench --profile dev --bench delivery_book -- --for 1m --seed 7
//! ```
//!
//! A life of the gateway ends after some seconds, in order or by `kill -9`; what happened in it is judged then, for each
//! subscription by its own model. Requests race with each other: each is told with the time when it was sent and the time
//! when it was answered, and whatever order these leave open is right. At the end all that is left is read, the gateway is
//! stopped and started once more, and nothing may come again. What is wrong is told with the sentence of the documentation
//! that says so, and the folder (configuration, log, store) is kept.
//!
//! A longer run is played in chapters of [`CHAPTER`], each from a new folder with the next seed: judging a life costs the
//! square of its length, and who is sent back to the beginning of a long log needs a long one.
//!
//! In each chapter faults are planted, too: what the model is told is told otherwise to a copy of it, which must complain
//! ([`plant`]). So a run that is green has also shown that it would not have been, had the gateway done this or that. One
//! fails where of a kind that was planted more than once none was found.
//!
//! The gateway runs beside others here. How late the machine is with what takes no time is measured ([`stalls`]), and what
//! the documents promise in milliseconds is taken for so much more.
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

#[path = "../soak/caller.rs"]
mod caller;
mod drama;
mod endpoint;
#[path = "../soak/gateway.rs"]
#[allow(dead_code, reason = "the soak does more to it")]
mod gateway;
mod operator;
mod plant;
mod readers;
mod scan;
mod stage;
mod stalls;
mod streams;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::drama::Drama;
use self::endpoint::Hook;
use self::operator::Operator;
use self::plant::Sort;
use self::readers::Reader;
use self::stage::{Book, LINGER, LOGS, Phase, ROUND, Stage};
use delivery_model::{Order, Terms};

#[derive(clap::Parser)]
#[command(about = "Holds what the gateway delivers against a model of what it promises")]
struct Args {
    /// For how long; the ends of chapters come on top
    #[arg(long = "for", default_value = "1m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Of all chance; a random one if left out
    #[arg(long)]
    seed: Option<u64>,
    /// Never kill it, never stop it
    #[arg(long)]
    no_ends: bool,
    /// No operator
    #[arg(long)]
    no_operator: bool,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

/// After so many attempts an event is given up.
const ATTEMPTS: u32 = 3;

/// As much as is played in one go.
const CHAPTER: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("delivery book for {}, seed {seed}", humantime::format_duration(args.time));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut left, mut seed, mut chapters, mut asked, mut broken) = (args.time, seed, 0, 0, Vec::new());
    while !left.is_zero() {
        let time = left.min(CHAPTER);
        let Played { sound, operations } = runtime.block_on(play(&args, time, seed));
        broken.extend((!sound).then_some(seed));
        (left, seed, chapters, asked) = (left - time, seed + 1, chapters + 1, asked + operations);
    }
    println!("{asked} operations in {chapters} chapters; not sound are those of the seeds {broken:?}");
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came of a chapter.
struct Played {
    sound: bool,
    operations: u64,
}

async fn play(args: &Args, time: Duration, seed: u64) -> Played {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(dir.path().to_owned());
    let began = Instant::now();
    let hooks = hooks(&stage);
    let endpoint = endpoint::listen(&stage, hooks.clone(), seed).await;
    let mut tasks = JoinSet::new();
    let readers = cast(&stage, seed, &hooks, &mut tasks, args.no_operator);
    let mut drama = Drama::begin(stage.clone(), seed, endpoint, &hooks).await;
    drama.play(began + time, !args.no_ends).await;
    println!("  the end: the rest is read");
    drama.calm().await;
    stage.is_calm.store(true, Ordering::SeqCst);
    for round in 1..=2 {
        stage.phase.send_replace(Phase::Finishing(round));
        drama.until_rest(round, readers, &hooks).await;
        drama.stop().await;
        drama.start().await;
    }
    drama.judged().await;
    stage.phase.send_replace(Phase::Over);
    tasks.join_all().await;
    drama.stop().await;
    stage.stalls.end();
    for book in stage.books.lock().unwrap().clone() {
        if let Err(complaint) = book.unseen() {
            stage.breach(format!("{}: {complaint}", book.name));
        }
    }
    let played = report(&stage, seed, began.elapsed());
    if !played.sound {
        println!("seed {seed}; the folder is kept: {}", dir.keep().display());
    }
    played
}

fn terms(order: Order, log: usize) -> Terms {
    Terms { round: ROUND, seen_after: LINGER, requests: None, order, cuts: LOGS[log].0 == stage::CUT }
}

/// The webhooks.
fn hooks(stage: &Arc<Stage>) -> Vec<Arc<Hook>> {
    let hook = |name: &'static str, log: usize, max_in_flight: usize, batch: bool| {
        let order = if max_in_flight == 1 { Order::All } else { Order::Keys };
        let terms = Terms { requests: Some(max_in_flight), ..terms(order, log) };
        Hook::new(name, stage.book(&format!("$webhook.{name}"), log, terms), max_in_flight, batch)
    };
    vec![
        hook("one", 0, 1, false),
        hook("three", 0, 3, false),
        hook("batch", 1, 1, true),
        hook("moved", 1, 2, false),
        hook("cut", 2, 1, false),
    ]
}

/// All who read. Says how many rest at the end.
fn cast(stage: &Arc<Stage>, seed: u64, hooks: &[Arc<Hook>], tasks: &mut JoinSet<()>, no_operator: bool) -> usize {
    let mut count = 0;
    let mut reader = |books: Vec<Arc<Book>>, alone: bool| {
        count += 1;
        Reader::new(stage, seed.wrapping_mul(1000) + count as u64, books, alone)
    };
    let book = |name: &str, log: usize, order: Order| stage.book(name, log, terms(order, log));
    let mut operator = Operator::new(stage, seed ^ 77);
    // Plain reads: by one, by two, of both streams; of a log that is cut.
    tasks.spawn(reader(vec![book("plain", 0, Order::All)], true).steady().read_plainly());
    let shared = book("plain-shared", 0, Order::None);
    tasks.spawn(reader(vec![shared.clone()], false).steady().read_plainly());
    tasks.spawn(reader(vec![shared], false).steady().read_plainly());
    tasks.spawn(reader(vec![book("plain-all", 0, Order::All), book("plain-all", 1, Order::All)], true).read_plainly());
    tasks.spawn(reader(vec![book("plain-cut", 2, Order::All)], true).steady().slow().read_plainly());
    let moved = book("plain-moved", 0, Order::All);
    tasks.spawn(reader(vec![moved.clone()], true).read_plainly());
    // Leases: by two, by two whose place is moved; of a log that is cut; beside a plain reader.
    let mut leases = |name: &str, log: usize, is_steady: bool| {
        let book = book(name, log, Order::Keys);
        for _ in 0..2 {
            let reader = reader(vec![book.clone()], false);
            let reader = if is_steady { reader.steady() } else { reader };
            tasks.spawn(reader.read_and_acknowledge(ATTEMPTS));
        }
        book
    };
    let lettered = vec![leases("leases", 0, true), leases("leases-moved", 1, false), leases("leases-cut", 2, false)];
    operator.moved = vec![moved, lettered[1].clone(), hooks[3].book.clone()];
    operator.lettered = lettered.into_iter().chain(hooks.iter().map(|hook| hook.book.clone())).collect();
    operator.hooks = hooks.to_vec();
    // Streams: plain ones that come again, of one and of both; one whose events are acknowledged.
    tasks.spawn(reader(vec![book("stream", 1, Order::None)], true).follow());
    tasks.spawn(reader(vec![book("stream-all", 0, Order::None), book("stream-all", 1, Order::None)], true).follow());
    tasks.spawn(reader(vec![book("stream-cut", 2, Order::None)], true).slow().follow());
    tasks.spawn(reader(vec![book("stream-leases", 0, Order::Keys)], true).follow_and_acknowledge(ATTEMPTS));
    tasks.spawn(operator.work(!no_operator));
    for log in 0..LOGS.len() {
        tasks.spawn(scan::scan(stage.clone(), log));
    }
    count
}

fn report(stage: &Stage, seed: u64, took: Duration) -> Played {
    let counted = stage.counted();
    for (what, count) in &counted {
        println!("  {count:>8} {what}");
    }
    let (complaints, broken) = (stage.complaints(), stage.broken.lock().unwrap().clone());
    let bad = stage.tally.bad();
    bad.iter().for_each(|line| println!("  LOG: {line}"));
    let planted = Sort::ALL.map(|sort| (sort, stage.planted.of(sort)));
    let told: Vec<String> =
        planted.iter().map(|(sort, (planted, found))| format!("{sort:?} {found}/{planted}")).collect();
    println!("  planted, and found: {}", told.join(", "));
    // One by itself may be such that what came is right all the same.
    let all_found = planted.iter().all(|(_, (planted, found))| *found > 0 || *planted < 2);
    let entries: Vec<usize> = stage.logs.iter().map(|log| log.lock().unwrap().len()).collect();
    let asked: u64 = counted.iter().filter(|(what, _)| !what.starts_with("life")).map(|(_, count)| count).sum();
    println!(
        "seed {seed}: {asked} operations on {} subscriptions of logs of {entries:?} entries in {} s, {} transitions judged: {} complaints, {} breaches",
        stage.books.lock().unwrap().len(),
        took.as_secs(),
        stage.steps.load(Ordering::Relaxed),
        complaints.len(),
        broken.len(),
    );
    let sound = complaints.is_empty() && broken.is_empty() && bad.is_empty() && all_found;
    Played { sound, operations: asked }
}
