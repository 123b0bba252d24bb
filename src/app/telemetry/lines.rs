//! [`Lines`]: the log's way out, a bounded buffer and a thread of its own that writes it.
//!
//! Invariants: nobody who logs ever waits for whoever reads the log. What is buffered and what is being written are at
//! most [`MOST`] bytes together; errors have [`FOR_ERRORS`] more. What finds no room, or cannot be written (nobody
//! reads any more, the disk is full), is dropped whole, counted at once, and told by a line in its place as soon as
//! lines can be written again. A line that was begun is finished before anything else. Order is kept. A failed write is
//! not tried again before there is more to write. A pipe gets whole lines, whenever this process ends or its reader
//! leaves (those of up to 4 KiB).
//!
//! Not tracing-appender's `non_blocking`: it bounds lines, not bytes, and says nowhere in the log that some are
//! missing.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::config::LogFormat;
use crate::kernel::sync::lock;
use crate::kernel::task;

/// Bytes of lines that wait or are being written.
const MOST: usize = 4 << 20;
/// Beyond these, bytes for errors and panics, which must not be lost among a flood of lesser lines.
const FOR_ERRORS: usize = 256 << 10;
/// A buffer of more bytes is given back once it is empty.
const KEPT: usize = 64 << 10;
/// What is written at once: as much as a pipe takes whole or not at all (PIPE_BUF), so that a process that is killed,
/// or ends while nobody reads, leaves no part of a line behind. And room comes back as a slow reader takes it.
const PIECE: usize = 4096;

/// The lines on their way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or nothing any more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Bytes that the thread has taken and not written yet.
    under_way: usize,
    is_idle: bool,
    /// Lines that found no room since the thread last took what waits.
    lost: u64,
    dropped: Counter,
}

impl Lines {
    /// Starts the thread that writes to the process's stderr. Not by `io::stderr`: its lock would be held for as long
    /// as a write takes.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptor.
    pub(super) fn to_stderr(format: LogFormat) -> io::Result<Self> {
        let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Self::to(out, format)
    }

    fn to(out: impl Write + AsFd + Send + 'static, format: LogFormat) -> io::Result<Self> {
        let lines = Self::default();
        let shared = lines.0.clone();
        // Of no runtime: it lives as long as the process, and may hang for as long.
        task::thread("log", move || Thread { shared, out, format, untold: 0, rest: Vec::new() }.run())?;
        Ok(lines)
    }

    /// Counts dropped lines in this counter from now on, and those of before.
    pub fn count_dropped_in(&self, counter: &Counter) {
        let mut state = self.0.state();
        counter.inc_by(state.dropped.get());
        state.dropped = counter.clone();
    }

    /// Adds whole lines, each with its end.
    pub(super) fn push(&self, lines: &[u8], room: usize) {
        let mut state = self.0.state();
        if state.waiting.len() + state.under_way + lines.len() > room {
            state.lost += 1;
            state.dropped.inc();
            return;
        }
        state.waiting.extend_from_slice(lines);
        state.is_idle = false;
        drop(state);
        self.0.changed.notify_all();
    }

    /// A last word of the process, as it is.
    pub fn tell(&self, line: &str) {
        self.push(format!("{line}\n").as_bytes(), MOST + FOR_ERRORS);
    }

    /// Waits until everything is written or dropped, but no longer than this. Says whether it is.
    pub fn flush(&self, within: Duration) -> bool {
        let state = self.0.state();
        let waited = self.0.changed.wait_timeout_while(state, within, |state| !state.is_idle);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_idle
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it panics half-way.
        lock(&self.state)
    }
}

/// How much room the lines of one event find.
#[derive(Debug)]
pub struct Event<'a> {
    lines: &'a Lines,
    room: usize,
}

impl Write for Event<'_> {
    /// The formatter gives an event's text whole.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.lines.push(text, self.room);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event { lines: self, room: MOST }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Event<'a> {
        let room = if *of.level() == tracing::Level::ERROR { MOST + FOR_ERRORS } else { MOST };
        Event { lines: self, room }
    }
}

struct Thread<W> {
    shared: Arc<Shared>,
    out: W,
    format: LogFormat,
    /// Lines that are missing where the next write goes.
    untold: u64,
    /// What is still to be written of a line that was begun.
    rest: Vec<u8>,
}

impl<W: Write + AsFd> Thread<W> {
    fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            let lost_behind = self.take(&mut taken);
            let is_well = self.tell_missing() && self.put(&mut taken);
            if !is_well {
                self.lose(&taken);
            }
            self.untold += lost_behind;
            if is_well {
                self.tell_missing();
            }
            taken.clear();
            if taken.capacity() > KEPT {
                taken = Vec::new();
            }
        }
    }

    /// Waits for lines and takes them. Says how many were lost behind them.
    fn take(&self, into: &mut Vec<u8>) -> u64 {
        let mut state = self.shared.state();
        state.under_way = 0;
        while state.waiting.is_empty() {
            state.is_idle = true;
            self.shared.changed.notify_all();
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(into, &mut state.waiting);
        state.under_way = into.len();
        std::mem::take(&mut state.lost)
    }

    /// Says how many lines are missing here. `false`: that cannot be written, either.
    fn tell_missing(&mut self) -> bool {
        if self.untold > 0 {
            let line = missing(self.untold, self.format);
            let went = self.write(line.as_bytes());
            if went == 0 {
                return false;
            }
            self.untold = 0;
            return went == line.len();
        }
        true
    }

    /// Writes what was taken; what could not be is left in it.
    fn put(&mut self, taken: &mut Vec<u8>) -> bool {
        let mut written = 0;
        while written < taken.len() {
            let piece = whole_lines(&taken[written..]);
            let went = self.write(piece);
            self.shared.state().under_way -= went;
            written += went;
            if went < piece.len() {
                // A line that was begun is finished first of all when there is room again.
                written += if went > 0 { self.rest.len() } else { 0 };
                break;
            }
        }
        taken.drain(..written);
        taken.is_empty()
    }

    /// What is left of the taken lines is lost.
    fn lose(&mut self, left: &[u8]) {
        let lines = left.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.untold += lines;
        self.shared.state().dropped.inc_by(lines);
    }

    /// Writes as much as can be written, and says how much that is. Of a line that is cut short the rest is kept.
    fn write(&mut self, text: &[u8]) -> usize {
        while !self.rest.is_empty() {
            match self.out.write(&self.rest) {
                Ok(more @ 1..) => drop(self.rest.drain(..more)),
                gone => {
                    if !self.may_go_on(&gone) {
                        return 0;
                    }
                }
            }
        }
        let mut written = 0;
        while written < text.len() {
            let gone = self.out.write(&text[written..]);
            match gone {
                Ok(more @ 1..) => written += more,
                gone => {
                    if !self.may_go_on(&gone) {
                        break;
                    }
                }
            }
        }
        let (went, left) = text.split_at(written);
        if went.last().is_some_and(|last| *last != b'\n') {
            let end = left.iter().position(|byte| *byte == b'\n').map_or(left.len(), |end| end + 1);
            self.rest = left[..end].to_vec();
        }
        written
    }

    /// Whether a write that wrote nothing can be tried again at once.
    fn may_go_on(&self, gone: &io::Result<usize>) -> bool {
        let Err(why) = gone else { return false };
        match why.kind() {
            io::ErrorKind::Interrupted => true,
            // Whoever shares the pipe or the terminal may have made it so.
            io::ErrorKind::WouldBlock => {
                let mut out = [PollFd::new(&self.out, PollFlags::OUT)];
                matches!(poll(&mut out, None), Ok(_) | Err(rustix::io::Errno::INTR))
            }
            _ => false,
        }
    }
}

/// As many of these lines as are a [`PIECE`]; one, if that is longer.
fn whole_lines(lines: &[u8]) -> &[u8] {
    let is_end = |byte: &u8| *byte == b'\n';
    let end = match lines[..lines.len().min(PIECE)].iter().rposition(is_end) {
        Some(last) => last + 1,
        None => lines.iter().position(is_end).map_or(lines.len(), |first| first + 1),
    };
    &lines[..end]
}

/// What stands in the place of lines that are missing, as the log is written.
fn missing(lines: u64, format: LogFormat) -> String {
    const WHAT: &str = "log lines were dropped here: nobody took them, or they could not be written";
    const FROM: &str = module_path!();
    let mut timestamp = String::new();
    // A clock that has no date leaves the line without one.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    match format {
        LogFormat::Json => {
            let line =
                json!({ "timestamp": timestamp, "level": "WARN", "message": WHAT, "lines": lines, "target": FROM });
            format!("{line}\n")
        }
        LogFormat::Text => format!("{timestamp}  WARN {FROM}: {WHAT} lines={lines}\n"),
    }
}

#[cfg(test)]
mod tests;
