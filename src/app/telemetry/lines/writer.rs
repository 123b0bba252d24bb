//! [`WriterThread`]: takes the lines that wait and writes them.
//!
//! Invariants: it alone waits for whoever reads the log. A line that was begun is finished before anything else is
//! written, and what could not be written is counted and told in its place.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

use super::{Shared, missing};
use crate::config::LogFormat;

/// A buffer of more bytes is given back once it is empty.
const KEPT_CAPACITY: usize = 64 << 10;
/// What is written at once: as much as a pipe takes whole or not at all (PIPE_BUF), so that a process that is killed,
/// or ends while nobody reads, leaves no part of a line behind. And room comes back as a slow reader takes it.
pub(super) const PIECE: usize = 4096;

/// The thread behind a log.
pub(super) struct WriterThread<W> {
    shared: Arc<Shared>,
    out: W,
    format: LogFormat,
    /// Lines that are missing where the next write goes.
    untold: u64,
    /// What is still to be written of a line that was begun.
    rest: Vec<u8>,
}

impl<W: Write + AsFd> WriterThread<W> {
    pub(super) fn new(shared: Arc<Shared>, out: W, format: LogFormat) -> Self {
        Self { shared, out, format, untold: 0, rest: Vec::new() }
    }

    /// Writes for as long as the process lives.
    pub(super) fn run(mut self) {
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
            if taken.capacity() > KEPT_CAPACITY {
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
