//! An unbroken run of the list, known by its end: the last message's millisecond and the texts seen in it.
//!
//! Invariant: the run holds every message that lies between its first and its last and was there all the time, and none
//! twice, provided that it is only ever extended by pages that cover its end. Equal messages are told apart by counting:
//! of a text seen k times in the last millisecond and n times in a page that holds all of that millisecond, n - k are new.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

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

/// Stands for a text: the first half of its SHA-256. Short enough for cursors, too long for two texts to share by chance.
pub(in crate::history) type Mark = [u8; 16];

/// The end of what was read so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::history) struct Run {
    pub(in crate::history) direction: Direction,
    pub(in crate::history) last_ms: u64,
    /// How often each text occurred in that millisecond.
    pub(in crate::history) seen: BTreeMap<Mark, u32>,
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
        let mut run = Self { direction, last_ms: messages.last()?.ms, seen: BTreeMap::new() };
        run.advance(messages);
        Some(run)
    }

    /// Whether a page surely holds all of the last millisecond, so that what follows in it follows the run.
    pub(super) fn covered_by(&self, page: &[Message]) -> bool {
        page.first().is_some_and(|first| is_before(self.direction, first.ms, self.last_ms))
    }

    /// What is new in a page that covers the end.
    pub(super) fn unknown(&self, page: Vec<Message>) -> Vec<Message> {
        let mut known = self.seen.clone();
        let mut is_new = |message: &Message| match message.ms == self.last_ms {
            true => match known.get_mut(&mark(&message.text)) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    false
                }
                _ => true,
            },
            false => is_before(self.direction, self.last_ms, message.ms),
        };
        page.into_iter().filter(|message| is_new(message)).collect()
    }

    /// Goes on to the end of these, which follow.
    pub(super) fn advance(&mut self, new: &[Message]) {
        let Some(last_ms) = new.last().map(|last| last.ms) else { return };
        if last_ms != self.last_ms {
            self.seen.clear();
            self.last_ms = last_ms;
        }
        for message in new.iter().rev().take_while(|message| message.ms == last_ms) {
            *self.seen.entry(mark(&message.text)).or_default() += 1;
        }
    }
}

/// How many at the end share the last millisecond.
pub(super) fn crowd(messages: &[Message]) -> usize {
    let last_ms = messages.last().map(|last| last.ms);
    messages.iter().rev().take_while(|message| Some(message.ms) == last_ms).count()
}

fn mark(text: &[u8]) -> Mark {
    let digest = Sha256::digest(text);
    std::array::from_fn(|at| digest[at])
}
