//! [`Lines`]: the log's way out, a bounded buffer and a thread of its own that writes it.
//!
//! Invariants: nobody who logs ever waits for whoever reads the log. What is buffered and what is being written are at
//! most [`MAX_BYTES`] bytes together; errors have [`ERROR_RESERVE`] more. What finds no room, or cannot be written
//! (nobody reads any more, the disk is full), is dropped whole, counted at once, and told by a line in its place as
//! soon as lines can be written again. A line that was begun is finished before anything else. Order is kept. A failed
//! write is not tried again before there is more to write. A pipe gets whole lines, whenever this process ends or its
//! reader leaves (those of up to 4 KiB).
//!
//! Not tracing-appender's `non_blocking`: it bounds lines, not bytes, and says nowhere in the log that some are
//! missing.

mod writer;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::config::LogFormat;
use crate::kernel::sync::lock;
use crate::kernel::task;
use writer::WriterThread;

/// Bytes of lines that wait or are being written.
const MAX_BYTES: usize = 4 << 20;
/// Beyond these, bytes for errors and panics, which must not be lost among a flood of lesser lines.
const ERROR_RESERVE: usize = 256 << 10;

/// The lines on their way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Buffer>,
    /// There is something to write, or nothing any more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Buffer {
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
        task::thread("log", move || WriterThread::new(shared, out, format).run())?;
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
        self.push(format!("{line}\n").as_bytes(), MAX_BYTES + ERROR_RESERVE);
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
    fn state(&self) -> MutexGuard<'_, Buffer> {
        // Nothing that holds it panics half-way.
        lock(&self.state)
    }
}

/// How much room the lines of one event find.
#[derive(Debug)]
pub struct EventWriter<'a> {
    lines: &'a Lines,
    room: usize,
}

impl Write for EventWriter<'_> {
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
    type Writer = EventWriter<'a>;

    fn make_writer(&'a self) -> EventWriter<'a> {
        EventWriter { lines: self, room: MAX_BYTES }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> EventWriter<'a> {
        let room = if *of.level() == tracing::Level::ERROR { MAX_BYTES + ERROR_RESERVE } else { MAX_BYTES };
        EventWriter { lines: self, room }
    }
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
