//! Tests of the log's way out.

use std::io::{BufRead as _, BufReader, PipeReader, Read as _};
use std::os::fd::BorrowedFd;
use std::sync::mpsc;

use proptest::prelude::*;
use serde_json::Value;

use super::writer::PIECE;
use super::*;

const SOON: Duration = Duration::from_secs(30);

fn line(n: usize) -> String {
    format!("{{\"n\":{n},\"message\":\"{}\"}}\n", "x".repeat(500))
}

/// Bytes in memory.
fn held(lines: &Lines) -> usize {
    let state = lines.0.state();
    state.waiting.len() + state.under_way
}

/// What a log says: numbers of lines, and how many are missing in between.
#[derive(Debug, PartialEq)]
enum Said {
    Line(u64),
    Missing(u64),
}

fn said(text: &str) -> Said {
    let entry: Value = serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"));
    match (entry["n"].as_u64(), entry["lines"].as_u64()) {
        (Some(n), _) => Said::Line(n),
        (_, Some(lines)) => Said::Missing(lines),
        _ => panic!("{text}"),
    }
}

/// Reads until the line with this number, and holds that nothing is missing that is not said.
fn read_all(reader: PipeReader, last: u64) {
    let (mut next, mut told) = (0, 0);
    for text in BufReader::new(reader).lines() {
        match said(&text.unwrap()) {
            Said::Line(n) => {
                assert_eq!(n, next, "in order, and what is missing is told in its place");
                next += 1;
                if n == last {
                    return;
                }
            }
            Said::Missing(lines) => {
                told += lines;
                next += lines;
            }
        }
    }
    panic!("ended at {next}, {told} of them missing");
}

#[test]
fn nobody_waits_for_a_reader_that_takes_nothing_and_what_was_dropped_is_told_in_its_place() {
    let (reader, writer) = io::pipe().unwrap();
    let lines = Lines::to(writer, LogFormat::Json).unwrap();
    let counter = Counter::default();
    let all = 2 * MAX_BYTES / line(0).len();
    for n in 0..all / 2 {
        lines.push(line(n).as_bytes(), MAX_BYTES);
    }
    lines.count_dropped_in(&counter);
    for n in all / 2..all {
        lines.push(line(n).as_bytes(), MAX_BYTES);
    }
    let dropped = counter.get();
    assert!((all as u64 / 3..all as u64).contains(&dropped), "{dropped} of {all}");
    assert!(held(&lines) <= MAX_BYTES);
    assert!(!lines.flush(Duration::from_millis(1)), "there is more to write");
    let reading = std::thread::spawn(move || read_all(reader, all as u64));
    assert!(lines.flush(SOON));
    lines.push(line(all).as_bytes(), MAX_BYTES);
    reading.join().unwrap();
    assert_eq!(counter.get(), dropped);
}

#[test]
fn what_is_left_in_a_pipe_that_nobody_reads_is_whole_lines() {
    let (reader, writer) = io::pipe().unwrap();
    let lines = Lines::to(writer, LogFormat::Json).unwrap();
    let all = MAX_BYTES / line(0).len() / 4;
    for n in 0..all {
        lines.push(line(n).as_bytes(), MAX_BYTES);
    }
    // Until the pipe has what it takes: what is under way does not become less any more.
    let mut before = usize::MAX;
    while held(&lines) != before {
        before = held(&lines);
        lines.flush(Duration::from_millis(200));
    }
    let mut left = Vec::new();
    // As it is when the process ends now: more comes only for who reads.
    let mut chunk = [0; 1];
    let in_it = usize::try_from(rustix::io::ioctl_fionread(&reader).unwrap()).unwrap();
    while left.len() < in_it {
        (&reader).read_exact(&mut chunk).unwrap();
        left.push(chunk[0]);
    }
    assert!(in_it > PIECE && left.last() == Some(&b'\n'), "{}", String::from_utf8_lossy(&left[in_it - 100..]));
}

#[test]
fn an_error_finds_room_when_other_lines_find_none() {
    let (reader, writer) = io::pipe().unwrap();
    let lines = Lines::to(writer, LogFormat::Json).unwrap();
    for n in 0..2 * MAX_BYTES / line(0).len() {
        lines.push(line(n).as_bytes(), MAX_BYTES);
    }
    lines.tell("a last word");
    assert!(BufReader::new(reader).lines().any(|line| line.unwrap() == "a last word"));
}

#[test]
fn a_reader_that_left_costs_the_lines_and_nothing_else() {
    let (reader, writer) = io::pipe().unwrap();
    let lines = Lines::to(writer, LogFormat::Json).unwrap();
    let counter = Counter::default();
    lines.count_dropped_in(&counter);
    drop(reader);
    for n in 0..100 {
        lines.push(line(n).as_bytes(), MAX_BYTES);
    }
    assert!(lines.flush(SOON));
    assert_eq!(counter.get(), 100);
    assert_eq!(held(&lines), 0);
}

#[test]
fn a_pipe_that_was_made_non_blocking_loses_nothing() {
    let (reader, writer) = io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let lines = Lines::to(writer, LogFormat::Json).unwrap();
    let all = MAX_BYTES / 2 / line(0).len();
    let reading = std::thread::spawn(move || read_all(reader, all as u64));
    for n in 0..=all {
        lines.push(line(n).as_bytes(), MAX_BYTES);
    }
    assert!(lines.flush(SOON));
    reading.join().unwrap();
}

#[test]
fn a_full_disk_costs_the_lines_and_no_time() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let lines = Lines::to(full, LogFormat::Json).unwrap();
    for n in 0..100 {
        lines.push(line(n).as_bytes(), MAX_BYTES);
    }
    assert!(lines.flush(SOON));
    assert_eq!(lines.0.state().dropped.get(), 100);
}

#[test]
fn text_for_people_says_what_is_missing_too() {
    assert!(missing(7, LogFormat::Text).ends_with("or they could not be written lines=7\n"));
}

/// A disk on which so many bytes have room at each turn.
struct Disk {
    turns: Vec<usize>,
    file: File,
    written: mpsc::Sender<Vec<u8>>,
}

impl Write for Disk {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let Some(room) = self.turns.pop() else {
            self.written.send(text.to_vec()).unwrap();
            return Ok(text.len());
        };
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let text = &text[..room.min(text.len())];
        self.written.send(text.to_vec()).unwrap();
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Disk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

properties! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Where space comes and goes: each line stands whole and on its own, or is told to be missing.
    #[test]
    fn no_line_is_torn_and_none_is_missing_untold(
        turns in proptest::collection::vec(prop_oneof![Just(0), 1usize..900], 0..20),
    ) {
        let (written, of) = mpsc::channel();
        let disk = Disk { turns, file: File::open("/dev/null").unwrap(), written };
        let lines = Lines::to(disk, LogFormat::Json).unwrap();
        for n in 0..60 {
            lines.push(line(n).as_bytes(), MAX_BYTES);
            lines.flush(SOON);
        }
        let text: Vec<u8> = of.try_iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        let (mut next, mut told) = (0, 0);
        for text in text.lines() {
            match said(text) {
                Said::Line(n) => {
                    prop_assert_eq!(n, next);
                    next += 1;
                }
                Said::Missing(lines) => {
                    next += lines;
                    told += lines;
                }
            }
        }
        prop_assert_eq!((next, told), (60, lines.0.state().dropped.get()));
    }
}
