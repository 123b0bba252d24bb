//! Follows the frames of an HTTP/2 connection as their bytes come in, and counts those that do no work.
//!
//! Why: the HTTP library bounds what a flood may make it remember (reset streams, CONTINUATION, empty DATA, headers),
//! but answers PING and SETTINGS, and passes over PRIORITY, WINDOW_UPDATE and unknown frames, for as long as they come:
//! a caller can have a core's worth of work done without ever asking for anything (CVE-2019-9512, 9513, 9515). Here
//! each such frame uses up a stock ([`Burst`]); requests, and answers that a caller takes, earn it back, since they
//! need such frames. When it is used up the connection is cut.
//!
//! Invariant: only each frame's head is looked at ([`http2`]); nothing is kept of its payload.

use super::burst::Burst;
use crate::http::http2::{self, DATA, END_STREAM, HEADERS, Head, Part};

/// Frames without work at once, and a second: a browser's opening burst of PRIORITY is a dozen.
const IDLE_FRAMES: (u32, u32) = (2000, 100);
/// What a request earns: WINDOW_UPDATE, PRIORITY, RST_STREAM of its stream.
const FOR_A_REQUEST: u32 = 8;
/// An answer of so many bytes earns two: a WINDOW_UPDATE for the stream and one for the connection. The smallest step
/// in which clients are known to open their windows.
const FOR_BYTES: usize = 1024;
/// DATA with fewer bytes is work for us rather than for the caller, unless it is the last.
const SMALL_DATA: usize = 16;

/// The follower of one connection's frames.
#[derive(Debug)]
pub(super) struct FloodGuard {
    incoming: http2::FrameReader,
    allowance: Burst,
    /// Bytes written that have not earned yet.
    written: usize,
}

/// More frames than anybody who wants something sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl FloodGuard {
    pub(super) fn new() -> Self {
        let allowance = Burst::new(IDLE_FRAMES.0, IDLE_FRAMES.1);
        Self { incoming: http2::FrameReader::default(), allowance, written: 0 }
    }

    /// The next bytes that came in.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while let Some(part) = self.incoming.next(&mut bytes) {
            if let Part::Head(head) = part {
                self.begun(head)?;
            }
        }
        Ok(())
    }

    /// So many bytes were taken of what we wrote.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        let earned = self.written / FOR_BYTES;
        self.written %= FOR_BYTES;
        self.allowance.give(u32::try_from(2 * earned).unwrap_or(u32::MAX));
    }

    fn begun(&mut self, Head { length, kind, flags, .. }: Head) -> Result<(), Flood> {
        match kind {
            HEADERS => self.allowance.give(FOR_A_REQUEST),
            DATA if length >= SMALL_DATA || flags & END_STREAM != 0 => {}
            _ if self.allowance.take() => {}
            _ => return Err(Flood),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::http2::HEAD;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + payload, 0);
        frame
    }

    /// How many of these pass in a row, fed in pieces of `piece`.
    fn pass(http2_flood: &mut FloodGuard, one: &[u8], piece: usize) -> usize {
        (0..5000).take_while(|_| one.chunks(piece).all(|part| http2_flood.feed(part).is_ok())).count()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_without_work_are_counted_wherever_the_bytes_are_cut() {
        for kind in [2, 3, 4, 6, 8, 9, 200] {
            for piece in [1, 5, 9, 100] {
                assert_eq!(pass(&mut FloodGuard::new(), &frame(kind, 0, 8), piece), 2000, "{kind} by {piece}");
            }
        }
        assert_eq!(pass(&mut FloodGuard::new(), &frame(DATA, 0, 0), 9), 2000);
        assert_eq!(pass(&mut FloodGuard::new(), &frame(DATA, 0, 1000), 100), 5000);
        assert_eq!(pass(&mut FloodGuard::new(), &frame(DATA, END_STREAM, 0), 9), 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_answers_earn_the_frames_they_need() {
        let exchange = [frame(HEADERS, END_STREAM, 30), frame(8, 0, 4), frame(8, 0, 4), frame(3, 0, 4)].concat();
        assert_eq!(pass(&mut FloodGuard::new(), &exchange, 7), 5000);
        let mut http2_flood = FloodGuard::new();
        let updates = [frame(8, 0, 4), frame(8, 0, 4)].concat();
        for _ in 0..5000 {
            http2_flood.feed(&updates).unwrap();
            http2_flood.wrote(512);
            http2_flood.wrote(512);
        }
    }
}
