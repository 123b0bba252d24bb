//! What keeping events costs: bytes written for each event and each commit, what opening after `kill -9` takes, and what a
//! backup is.
//!
//! `cargo bench --bench store -- [--only readers|file] [--readers 1000] [--seconds 20] [--sizes 0,512,2048]`
//!
//! - **readers**: a gateway process asks its vendor every 50 ms; 20 events of 120 bytes occur in a second. So many readers
//!   have a stream (SSE) and a subscription each, and get them all. Taken off is what is written in as long a time without
//!   events.
//! - **file**: files of so many MiB are filled with reads of 1000 events. Then a process opens the store, appends events one
//!   by one, then moves 1000 cursors at a time, and is killed with SIGKILL. Then the store is opened, and a backup is made.
//!
//! Written is what the gateway's own metrics say, `store_written_bytes` and `store_syncs`: blocks of 4096 bytes of the file.
//! (`/proc/PID/io` says more where the system's cache keeps larger units.)
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a benchmark"
)]

mod file;
mod readers;
#[path = "../stage/mod.rs"]
mod stage;

struct Settings {
    only: String,
    readers: Vec<usize>,
    seconds: u64,
    /// In MiB.
    sizes: Vec<u64>,
}

fn main() {
    if let Some(folder) = std::env::var_os(file::FOLDER) {
        return file::child(folder.as_ref());
    }
    rtm_gateway::server::descriptors::raise_limit();
    tokio::runtime::Runtime::new().unwrap().block_on(run(&Settings::read()));
}

impl Settings {
    fn read() -> Self {
        let (readers, sizes) = (vec![0, 1, 1000], vec![0, 512, 2048]);
        let mut settings = Self { only: String::new(), readers, seconds: 20, sizes };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--only" => settings.only = value,
                "--readers" => settings.readers = value.split(',').map(|n| n.parse().unwrap()).collect(),
                "--seconds" => settings.seconds = value.parse().unwrap(),
                "--sizes" => settings.sizes = value.split(',').map(|n| n.parse().unwrap()).collect(),
                _ => panic!("{word} is not known"),
            }
        }
        settings
    }
}

async fn run(settings: &Settings) {
    if "readers".contains(&settings.only) {
        println!(
            "| readers | events | written an event | syncs an event | written a second without events | for the subscriptions' making |"
        );
        println!("|---|---|---|---|---|---|");
        for &readers in &settings.readers {
            readers::measure(readers, settings.seconds).await;
        }
        println!();
    }
    if "file".contains(&settings.only) {
        file::head();
        for &size in &settings.sizes {
            file::measure(size << 20).await;
        }
    }
}

fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
