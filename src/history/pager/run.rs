//! An unbroken run of the list, known by its end: the last message's millisecond and the texts seen in it.
//!
//! Invariant: the run holds every message that lies between its first and its last and was there all the time, and none
//! twice, provided that it is only ever extended by pages that cover its end. Equal messages are told apart by counting:
//! of a text seen k times in the last millisecond and n times in a page that holds all of that millisecond, n - k are new.

use bytes::Bytes;

use crate::history::crowd::{Crowd, mark, take};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::history) struct Run {
    pub(in crate::history) direction: Direction,
    pub(in crate::history) last_ms: u64,
    /// Those of that millisecond.
    pub(in crate::history) crowd: Crowd,
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
        let mut run = Self { direction, last_ms: messages.last()?.ms, crowd: Crowd::default() };
        run.advance(messages);
        Some(run)
    }

    /// Whether a page surely holds all of the last millisecond, so that what follows in it follows the run.
    pub(super) fn covered_by(&self, page: &[Message]) -> bool {
        page.first().is_some_and(|first| is_before(self.direction, first.ms, self.last_ms))
    }

    /// What is new in a page that covers the end.
    pub(super) fn unknown(&self, page: Vec<Message>) -> Vec<Message> {
        let mut known = self.crowd.known();
        let mut is_new = |message: &Message| match message.ms == self.last_ms {
            true => !take(&mut known, mark(&message.text)),
            false => is_before(self.direction, self.last_ms, message.ms),
        };
        page.into_iter().filter(|message| is_new(message)).collect()
    }

    /// What is new in a piece that covers the end, holds all of the last millisecond, and was read after the run was known:
    /// what went meanwhile is forgotten. `None` when it cannot be told.
    pub(super) fn pass_over(&mut self, piece: Vec<Message>) -> Option<Vec<Message>> {
        let (mut same, mut new) = (Vec::new(), Vec::new());
        for message in piece {
            match message.ms == self.last_ms {
                true => same.push(message.text),
                false if is_before(self.direction, self.last_ms, message.ms) => new.push(message),
                false => {}
            }
        }
        let given = self.crowd.given_of(&same)?;
        self.crowd = Crowd::default();
        let mut rest = Vec::new();
        for (text, is_given) in same.into_iter().zip(given) {
            match is_given {
                true => self.crowd.add(&text),
                false => rest.push(Message { ms: self.last_ms, text }),
            }
        }
        rest.append(&mut new);
        Some(rest)
    }

    /// Goes on to the end of these, which follow.
    pub(super) fn advance(&mut self, new: &[Message]) {
        let Some(last_ms) = new.last().map(|last| last.ms) else { return };
        if last_ms != self.last_ms {
            self.crowd = Crowd::default();
            self.last_ms = last_ms;
        }
        let first = new.len() - crowd(new);
        new[first..].iter().for_each(|message| self.crowd.add(&message.text));
    }
}

/// How many at the end share the last millisecond.
pub(super) fn crowd(messages: &[Message]) -> usize {
    let last_ms = messages.last().map(|last| last.ms);
    messages.iter().rev().take_while(|message| Some(message.ms) == last_ms).count()
}
