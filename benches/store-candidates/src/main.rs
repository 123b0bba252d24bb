//! Measures embedded storage engines for rtm-gateway's event log. One command: `cargo run --release`; with names of
//! engines after it, only those.
//!
//! Each engine runs in child processes of its own (so that memory and `kill -9` are real), one after the other, in a
//! temporary folder under the current one. Events are 120 bytes; a record is one event, or one batch (one read of the vendor).
#![allow(clippy::disallowed_methods, reason = "a program of its own: the gateway's clock and settings are not here")]

mod engines;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use engines::{Engine, NAMES, Record};

const EVENT: usize = 120;

/// Events of the large log: 1 million, or what the environment says (`EVENTS=17000000` makes 2 GiB).
fn events() -> u64 {
    std::env::var("EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["child", engine, folder, shape, "appends"] => appends(&*engines::open(engine, Path::new(folder)), shape),
        ["child", engine, folder, shape, "groups"] => groups(&*engines::open(engine, Path::new(folder)), shape),
        ["child", engine, folder, shape, "big"] => big(engine, Path::new(folder), shape),
        ["child", engine, folder, shape, "rest"] => rest(engine, Path::new(folder), shape),
        ["child", engine, folder, shape, "append-until-killed"] => {
            append_until_killed(engine, Path::new(folder), shape)
        }
        engines => {
            for engine in if engines.is_empty() { &NAMES[..] } else { engines } {
                for shape in ["event", "batch"] {
                    measure(engine, shape);
                }
            }
        }
    }
}

fn measure(engine: &str, shape: &str) {
    println!("== {engine}, one record per {shape}");
    let here = tempfile::tempdir_in(".").unwrap();
    for mode in ["appends", "groups", "big", "rest"] {
        // The first two get a fresh folder each; `rest` finds what `big` left.
        let folder = here.path().join(if mode == "rest" { "big" } else { mode });
        std::fs::create_dir_all(&folder).unwrap();
        let status = child(engine, &folder, shape, mode).status().unwrap();
        assert!(status.success(), "{engine} {shape} {mode}: {status}");
    }
    kill(engine, shape, &here.path().join("big"));
}

fn child(engine: &str, folder: &Path, shape: &str, mode: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", engine, folder.to_str().unwrap(), shape, mode]);
    command
}

/// `n` events of `log` from number `first`, as records of the shape asked for.
fn records(shape: &str, log: u32, first: u64, n: u64) -> Vec<Record> {
    let event = |k: u64| {
        let mut text =
            format!("{{\"ms\":{k:013},\"type\":\"Join\",\"group_id\":\"channel-{}\",\"user_id\":\"user-{k}", k % 97)
                .into_bytes();
        let filler = k.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        while text.len() < EVENT - 2 {
            text.push(b'a' + ((filler >> (text.len() % 59)) % 26) as u8);
        }
        text.extend_from_slice(b"\"}");
        text
    };
    match shape {
        "event" => (first..first + n).map(|key| Record { log, key, value: event(key) }).collect(),
        _ => vec![Record { log, key: first + n - 1, value: (first..first + n).flat_map(event).collect() }],
    }
}

fn appends(engine: &dyn Engine, shape: &str) {
    for (log, (n, rounds)) in [(1, 300), (100, 200), (1000, 100)].into_iter().enumerate() {
        let mut times = Vec::new();
        let mut next = 1;
        for _ in 0..rounds {
            let records = records(shape, log as u32, next, n);
            next += n;
            let began = Instant::now();
            engine.commit(&records);
            times.push(began.elapsed());
        }
        print_times(&format!("append of {n}"), times);
    }
}

/// Eight logs append batches of 100 events at once. A writer takes all that wait and commits them together.
fn groups(engine: &dyn Engine, shape: &str) {
    let (send, receive) = mpsc::channel::<(Vec<Record>, mpsc::Sender<()>)>();
    let (mut commits, mut times) = (0, Vec::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        let logs: Vec<_> = (0..8)
            .map(|log| {
                let send = send.clone();
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for round in 0..150 {
                        let (ack, acked) = mpsc::channel();
                        let records = records(shape, log, 1 + round * 100, 100);
                        let began = Instant::now();
                        send.send((records, ack)).unwrap();
                        acked.recv().unwrap();
                        times.push(began.elapsed());
                    }
                    times
                })
            })
            .collect();
        drop(send);
        while let Ok((mut all, ack)) = receive.recv() {
            let mut acks = vec![ack];
            while let Ok((more, ack)) = receive.try_recv() {
                all.extend(more);
                acks.push(ack);
            }
            engine.commit(&all);
            commits += 1;
            acks.into_iter().for_each(|ack| ack.send(()).unwrap());
        }
        times.extend(logs.into_iter().flat_map(|log| log.join().unwrap()));
    });
    let per_second = (8 * 150) as f64 / began.elapsed().as_secs_f64();
    print_times("8 logs, 100 each, group commit", times);
    println!("   {per_second:.0} appends/s in {commits} commits for {} appends", 8 * 150);
}

/// All events in; reads from cursors; the oldest tenth out, in steps of 10 000 events; another tenth in.
fn big(name: &str, folder: &Path, shape: &str) {
    let events = events();
    let engine = engines::open(name, folder);
    let began = Instant::now();
    let mut next = 1;
    while next <= events {
        engine.commit(&records(shape, 0, next, 1000));
        next += 1000;
    }
    println!("   load of {events} in commits of 1000: {:.1?}, {} on disk", began.elapsed(), mebibytes(size(folder)));
    let times = (0..200u64).map(|k| read(&*engine, 1 + (k * 7919 * 101) % (events - 2000))).collect();
    print_times("read of 1000 from a cursor", times);
    let mut times = Vec::new();
    let step = if shape == "event" { 10_000 } else { 10 };
    loop {
        let began = Instant::now();
        let gone = engine.delete(0, events / 10, step);
        if gone == 0 {
            break;
        }
        times.push(began.elapsed());
    }
    let total: Duration = times.iter().sum();
    print_times(&format!("delete of the oldest tenth, {total:.1?}, a step"), times);
    let after = size(folder);
    let times = (0..200)
        .map(|k| {
            let records = records(shape, 7, 1 + k, 1);
            let began = Instant::now();
            engine.commit(&records);
            began.elapsed()
        })
        .collect();
    print_times("append of 1 beside all that", times);
    while next <= events + events / 10 {
        engine.commit(&records(shape, 0, next, 1000));
        next += 1000;
    }
    println!("   {} on disk after it, {} with a new tenth", mebibytes(after), mebibytes(size(folder)));
}

fn read(engine: &dyn Engine, from: u64) -> Duration {
    let began = Instant::now();
    let (mut bytes, mut last) = (0, 0);
    engine.read(0, from, &mut |key, value| {
        bytes += value.len();
        last = key;
        key >= from + 999
    });
    assert!(last >= from + 999 && bytes >= 1000 * EVENT);
    began.elapsed()
}

fn rest(name: &str, folder: &Path, shape: &str) {
    let began = Instant::now();
    let engine = engines::open(name, folder);
    let last = engine.last(0).unwrap();
    let opened = began.elapsed();
    read(&*engine, last - 999);
    engine.commit(&records(shape, 0, last + 1, 1000));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("?").trim().to_owned();
    println!(
        "   opening after a clean stop {opened:.1?}; memory at rest {} (anonymous {})",
        line("VmRSS:"),
        line("RssAnon:")
    );
}

fn append_until_killed(name: &str, folder: &Path, shape: &str) {
    let engine = engines::open(name, folder);
    let mut next = engine.last(1).map_or(1, |last| last + 1);
    loop {
        engine.commit(&records(shape, 1, next, 100));
        next += 100;
        println!("{}", next - 1);
        std::io::stdout().flush().unwrap();
    }
}

/// Kills an appending child ten times; nothing acknowledged may be missing or changed.
fn kill(engine: &str, shape: &str, folder: &Path) {
    let mut times = Vec::new();
    for round in 0..10u64 {
        let mut child = child(engine, folder, shape, "append-until-killed").stdout(Stdio::piped()).spawn().unwrap();
        let mut acked = 0;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..20 + round * 7 {
            acked = lines.next().unwrap().unwrap().parse().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            acked = line.unwrap().parse().unwrap_or(acked);
        }
        let began = Instant::now();
        let store = engines::open(engine, folder);
        let last = store.last(1).unwrap();
        times.push(began.elapsed());
        assert!(last >= acked, "lost: {last} < {acked}");
        let mut next = 1;
        store.read(1, 1, &mut |key, value| {
            let first = if shape == "event" { key } else { key - 99 };
            assert_eq!(first, next, "a hole");
            let written = records(shape, 1, first, key + 1 - first);
            assert!(written[0].value == value, "changed: {key}");
            next = key + 1;
            false
        });
        assert_eq!(next, last + 1);
    }
    print_times("opening after kill -9 (10 kills, nothing acknowledged lost)", times);
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |q: usize| times[(times.len() - 1) * q / 100];
    println!("   {what}: p50 {:.2?}, p99 {:.2?}, longest {:.2?}", at(50), at(99), at(100));
}

/// What the files take of the disk (sparse files and preallocation counted as the disk counts them).
fn size(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir(folder).map_or(0, |entries| {
        entries
            .flatten()
            .map(|e| if e.path().is_dir() { size(&e.path()) } else { e.metadata().map_or(0, |m| m.blocks() * 512) })
            .sum()
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
