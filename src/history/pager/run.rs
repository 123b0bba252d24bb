//! An unbroken run of the list, known by its end: the last message's millisecond and the texts seen in it.
//!
//! Invariant: the run holds every message that lies between its first and its last and was there all the time, and none
//! twice, provided that it is only ever extended by pages that cover its end. Equal messages are told apart by counting:
//! of a text seen k times in the last millisecond and n times in a page that holds all of that millisecond, n - k are new.

use std::collections::HashMap;

use bytes::Bytes;

use crate::vendor::history::{Direction, message_ms};

/// A message: its own text, and its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) ms: u64,
    pub(super) text: Bytes,
}

impl Message {
    pub(super) fn read(text: Bytes) -> Option<Self> {
        Some(Self { ms: message_ms(&text)?, text })
    }
}

/// The end of what was read so far.
#[derive(Debug)]
pub(super) struct Run {
    direction: Direction,
    last_ms: u64,
    /// How often each text occurred in that millisecond.
    seen: HashMap<Bytes, usize>,
}

/// Whether `a` comes earlier in the list than `b`.
pub(super) fn is_before(direction: Direction, a: u64, b: u64) -> bool {
    match direction {
        Direction::Asc => a < b,
        Direction::Desc => a > b,
    }
}

impl Run {
    /// A run of these messages; none when there are none.
    pub(super) fn begin(direction: Direction, messages: &[Message]) -> Option<Self> {
        let mut run = Self { direction, last_ms: messages.last()?.ms, seen: HashMap::new() };
        run.advance(messages);
        Some(run)
    }

    pub(super) fn last_ms(&self) -> u64 {
        self.last_ms
    }

    pub(super) fn in_last_ms(&self) -> usize {
        self.seen.values().sum()
    }

    /// Whether a page surely holds all of the last millisecond, so that what follows in it follows the run.
    pub(super) fn covered_by(&self, page: &[Message]) -> bool {
        page.first().is_some_and(|first| is_before(self.direction, first.ms, self.last_ms))
    }

    /// Joins a page on that covers the end. Gives what is new.
    pub(super) fn extend(&mut self, page: Vec<Message>) -> Vec<Message> {
        let mut known = self.seen.clone();
        let new: Vec<_> = page
            .into_iter()
            .filter(|message| match known.get_mut(&message.text) {
                Some(count) if message.ms == self.last_ms && *count > 0 => {
                    *count -= 1;
                    false
                }
                _ => !is_before(self.direction, message.ms, self.last_ms),
            })
            .collect();
        self.advance(&new);
        new
    }

    fn advance(&mut self, new: &[Message]) {
        let Some(last_ms) = new.last().map(|last| last.ms) else { return };
        if last_ms != self.last_ms {
            self.seen.clear();
            self.last_ms = last_ms;
        }
        for message in new.iter().rev().take_while(|message| message.ms == last_ms) {
            *self.seen.entry(message.text.clone()).or_default() += 1;
        }
    }
}
