//! The guard: what one piece of work costs in instructions, held against kept figures.
//!
//! `just guard` counts by valgrind's callgrind, prints how far each figure has moved, and fails where one grew by more
//! than 5 %. `just guard --update` keeps what was counted in `figures.toml`. `just guard --rounds 5` counts each as often
//! and says how far the counts lie apart.
//!
//! - `message`: a message, POSTed and forwarded: key checked, seat taken, credential replaced, answer masked.
//! - `count`: a history count that is answered from a shared result.
//! - `sse_event`: an event, from the store to a stream that catches up.
//! - `quota_take`: a seat, asked for, used and given back, with nobody waiting.
//!
//! One worker and one caller, so that every request takes the same way through the runtime; the simulated vendor is in
//! this process, which is not counted. What goes on in the gateway by time is counted while it is asked nothing, and
//! taken off. Instructions are counted where valgrind sees them: in user space, without AVX-512 and SHA extensions. They
//! say nothing about waiting, system calls and caches: the other benchmarks do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a benchmark"
)]

mod callgrind;
mod figures;
#[path = "../stage/mod.rs"]
mod stage;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::callgrind::Instructions;
use crate::figures::{Figures, With};
use crate::work::Work;

/// Counts the gateway's instructions for one piece of work, and fails where they grew
#[derive(Parser)]
struct Args {
    /// Keep what was counted as the figures that later runs are held against
    #[arg(long)]
    update: bool,
    /// Count each so often; the median is taken
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Only the work of this name; its figures are not kept
    #[arg(long, conflicts_with = "update")]
    only: Option<String>,
    /// The gateway; by default the one beside this program
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// What is counted of the library alone: this program is what valgrind runs
    #[arg(long, hide = true)]
    take_seats: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.take_seats {
        work::take_seats();
        return ExitCode::SUCCESS;
    }
    let began = Instant::now();
    let myself = std::env::current_exe().unwrap();
    let gateway = args.gateway.unwrap_or_else(|| myself.with_file_name("rtm-gateway"));
    let gateway = gateway.canonicalize().expect("the gateway is built first: `just guard`");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut counted: BTreeMap<&str, Vec<Instructions>> = BTreeMap::new();
    for _ in 0..args.rounds.max(1) {
        for work in Work::ALL.into_iter().filter(|work| args.only.as_ref().is_none_or(|only| only == work.name())) {
            let program = if work == Work::QuotaTake { &myself } else { &gateway };
            counted.entry(work.name()).or_default().push(runtime.block_on(work.count(program)));
        }
    }
    let mut instructions = BTreeMap::new();
    for (name, mut rounds) in counted {
        rounds.sort_by_key(|round| round.total());
        let (least, most) = (rounds[0].total(), rounds[rounds.len() - 1].total());
        if rounds.len() > 1 {
            let apart = (most as f64 / least as f64 - 1.0) * 100.0;
            println!("{name}: {} rounds, {least} to {most} instructions, {apart:.2} % apart", rounds.len());
        }
        instructions.insert(name.to_owned(), rounds[rounds.len() / 2].into());
    }
    let (partial, now) = (args.only.is_some(), Figures { with: With::this(), instructions });
    if args.update {
        if Figures::path().exists() {
            now.compare(&Figures::read());
        }
        now.write();
        println!("kept in {}", Figures::path().display());
        return ExitCode::SUCCESS;
    }
    let mut kept = Figures::read();
    if partial {
        kept.instructions.retain(|name, _| now.instructions.contains_key(name));
    }
    let faults = now.compare(&kept);
    println!("took {:.0?}", began.elapsed());
    for fault in &faults {
        eprintln!("guard: {fault}");
    }
    if !faults.is_empty() {
        eprintln!("What costs more on purpose is kept by `just guard --update`, in a commit that says why.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
