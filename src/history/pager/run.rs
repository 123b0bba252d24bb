//! An unbroken run of the list, known by its end: the last message's millisecond and the texts seen in it.
//!
//! Invariant: the run holds every message that lies between its first and its last and was there all the time, and none
//! twice, provided that it is only ever extended by pages that join on ([`Run::join`]): they *cover* its end, or begin
//! among its last messages and are *known again*, where their offset says, by a few that occur once only and stand in
//! the same order. Equal messages are told apart by counting: of a text seen k times in the last millisecond and n
//! times in a page that holds all of that millisecond, n - k are new.

use bytes::Bytes;

use crate::history::crowd::{Crowd, Mark, mark, take};
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

    pub(super) fn mark(&self) -> Mark {
        mark(&self.text)
    }
}

/// The end of what was read so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::history) struct Run {
    pub(in crate::history) direction: Direction,
    pub(in crate::history) last_ms: u64,
    /// What was read of that millisecond.
    pub(in crate::history) crowd: Crowd,
}

/// A page that does not surely join on.
pub(super) struct NotJoined {
    pub(super) page: Vec<Message>,
    /// It seems to begin so many messages later than its offset says.
    pub(super) moved_by: u64,
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

    /// Whether it goes beyond a millisecond.
    pub(super) fn is_beyond(&self, ms: u64) -> bool {
        is_before(self.direction, ms, self.last_ms)
    }

    /// Whether all of these were given, as far as they are of the last millisecond; and none comes after it.
    pub(super) fn holds(&self, messages: &[Message]) -> bool {
        let of_it = messages.iter().filter(|message| !is_before(self.direction, message.ms, self.last_ms));
        let marks: Vec<Mark> = of_it.clone().map(Message::mark).collect();
        !of_it.into_iter().any(|message| message.ms != self.last_ms) && self.crowd.holds(&marks)
    }

    /// What is new in a page that joins on. By its offset it shares so many messages with the run.
    ///
    /// That it is known again is no proof, for the order among equals may differ from query to query. But where the
    /// offset says the same, so many of the millisecond are left as there are places behind the run; and when none of
    /// those that stand there was given, they are all that were not.
    pub(super) fn join(&self, mut page: Vec<Message>, shared: u64) -> Result<Vec<Message>, NotJoined> {
        if self.covered_by(&page) {
            return Ok(self.unknown(page));
        }
        let same = page.iter().take_while(|message| message.ms == self.last_ms);
        let same: Vec<Mark> = same.map(Message::mark).collect();
        // Known again to the run's very end, or whole: a page that leaves the run before its end and goes on has left
        // out what lies between.
        let known = self.crowd.known_again(&same);
        let Some(known) = known.filter(|known| known.number == known.behind || same.len() == page.len()) else {
            return Err(NotJoined { page, moved_by: 0 });
        };
        let moved_by = shared.saturating_sub(known.behind as u64);
        // Both must say the same: the texts where the page begins, and its offset. A text that follows and was given is
        // a sign of another order, in which others of the millisecond may stand before the page.
        if known.behind as u64 != shared || same[known.number..].iter().any(|mark| self.crowd.has(mark)) {
            return Err(NotJoined { page, moved_by });
        }
        Ok(page.split_off(known.number))
    }

    /// What is new in a page that covers the end.
    fn unknown(&self, page: Vec<Message>) -> Vec<Message> {
        let mut known = self.crowd.known();
        let mut is_new = |message: &Message| match message.ms == self.last_ms {
            true => !take(&mut known, mark(&message.text)),
            false => is_before(self.direction, self.last_ms, message.ms),
        };
        page.into_iter().filter(|message| is_new(message)).collect()
    }

    /// What is new in a piece that covers the end, holds all of the last millisecond, and was read after the run was
    /// known: what went meanwhile is forgotten. `None` when it cannot be told.
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
        // Begun anew from what is there now: texts that expired must not be counted against equal ones that come later.
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
fn crowd(messages: &[Message]) -> usize {
    let last_ms = messages.last().map(|last| last.ms);
    messages.iter().rev().take_while(|message| Some(message.ms) == last_ms).count()
}

/// How many share a millisecond at most.
pub(super) fn most_of_one(messages: &[Message]) -> usize {
    messages.chunk_by(|a, b| a.ms == b.ms).map(<[_]>::len).max().unwrap_or(0)
}
