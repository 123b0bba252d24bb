//! A history stream's lines (`docs/history.md`), from chunks that are cut anywhere.
//!
//! Invariants: a message is one that has its time (`ms` or `ts`), whatever else it holds; a line that its stream did
//! not end is not given; space in front of a line, which says that the stream lives, is no part of it. No more than
//! [`MAX_LINE_BYTES`] bytes are held for a line.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Bytes of one line: more than the vendor's largest message.
const MAX_LINE_BYTES: usize = 16 << 20;

/// A line that does not belong here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    #[error("a line is larger than {MAX_LINE_BYTES} bytes")]
    TooLarge,
    /// It is nothing that the gateway writes.
    #[error("a line is neither a message nor what the gateway says between them")]
    Unknown,
}

/// Cuts chunks into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    held: Vec<u8>,
    /// Where the next line begins.
    at: usize,
}

impl Lines {
    /// Takes a chunk, when all lines before were taken.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), BadLine> {
        self.held.drain(..std::mem::take(&mut self.at));
        self.held.extend_from_slice(chunk);
        if self.held.len() - chunk.len() > MAX_LINE_BYTES { Err(BadLine::TooLarge) } else { Ok(()) }
    }

    /// The next whole line, without its end and the space in front of it; empty ones are none.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let length = memchr::memchr(b'\n', &self.held[self.at..])?;
            let line = self.at..self.at + length;
            self.at += length + 1;
            let space = self.held[line.clone()].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if space < length {
                return Some(&self.held[line.start + space..line.end]);
            }
        }
    }
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamLine {
    Message,
    /// All messages before are given, and here one can go on.
    Cursor(String),
    End {
        messages: u64,
        /// Where one can go on later.
        cursor: String,
    },
    Broken {
        /// What a refusal would have had.
        status: u16,
        detail: String,
        /// Where one can go on.
        cursor: String,
    },
}

#[derive(Deserialize)]
struct Members {
    ms: Option<IgnoredAny>,
    ts: Option<IgnoredAny>,
    cursor: Option<serde_json::Value>,
    end: Option<serde_json::Value>,
    messages: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
}

impl StreamLine {
    /// Reads a line.
    pub(super) fn read(line: &[u8]) -> Result<Self, BadLine> {
        let members: Members = serde_json::from_slice(line).map_err(|_| BadLine::Unknown)?;
        if members.ms.is_some() || members.ts.is_some() {
            return Ok(Self::Message);
        }
        let Some(serde_json::Value::String(cursor)) = members.cursor else { return Err(BadLine::Unknown) };
        if let Some(error) = members.error {
            let status = error["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(502);
            return Ok(Self::Broken {
                status,
                detail: error["detail"].as_str().unwrap_or_default().to_owned(),
                cursor,
            });
        }
        match (members.end, members.messages) {
            (None, _) => Ok(Self::Cursor(cursor)),
            (Some(serde_json::Value::Bool(true)), messages) => {
                Ok(Self::End { messages: messages.and_then(|n| n.as_u64()).ok_or(BadLine::Unknown)?, cursor })
            }
            _ => Err(BadLine::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_told_by_its_time_whatever_members_it_has() {
        let cursor = || "C".to_owned();
        for (line, wanted) in [
            ("{\"cursor\":\"x\",\"end\":true,\"ms\":1,\"error\":{}}", Ok(StreamLine::Message)),
            ("{\"ts\":\"2026\",\"messages\":[1]}", Ok(StreamLine::Message)),
            ("{\"cursor\":\"C\"}", Ok(StreamLine::Cursor(cursor()))),
            ("{\"end\":true,\"messages\":7,\"cursor\":\"C\"}", Ok(StreamLine::End { messages: 7, cursor: cursor() })),
            (
                "{\"error\":{\"code\":\"c\",\"detail\":\"d\",\"status\":504},\"cursor\":\"C\"}",
                Ok(StreamLine::Broken { status: 504, detail: "d".into(), cursor: cursor() }),
            ),
            ("{}", Err(BadLine::Unknown)),
            ("{\"end\":true}", Err(BadLine::Unknown)),
            ("<html>", Err(BadLine::Unknown)),
        ] {
            assert_eq!(StreamLine::read(line.as_bytes()), wanted, "{line}");
        }
    }

    properties! {
        #[test]
        fn lines_do_not_depend_on_where_chunks_are_cut(
            lines in prop::collection::vec("[ -~]{0,9}", 0..9), tail in "[ -~]{0,5}", cuts in prop::collection::vec(1usize..6, 1..9),
        ) {
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>() + &tail;
            let (mut rest, mut n) = (text.as_bytes(), 0);
            let (mut splitter, mut found) = (Lines::default(), Vec::new());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(cuts[n % cuts.len()].min(rest.len()));
                splitter.push(chunk).unwrap();
                while let Some(line) = splitter.next() {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                }
                (rest, n) = (after, n + 1);
            }
            let wanted = lines.iter().map(|line| line.trim_start()).filter(|line| !line.is_empty());
            prop_assert_eq!(found, wanted.collect::<Vec<_>>());
        }
    }
}
