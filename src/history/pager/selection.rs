//! [`Selection`]: what of a list is wanted: the milliseconds that were asked for, behind an offset, up to a limit.
//!
//! The vendor's windows are of whole seconds, so messages that are not wanted may come before those that are. How many
//! they are shows where the first wanted one is met; what is to be skipped is an offset behind that. But until the page
//! at that offset is read, some of them may expire, or more of them come, and the offset means another message. So
//! their number is [looked at again](Selection::before_the_wanted) after that page. If it is the same, it was the same
//! all the while: at the old end messages only go, at the new end they only come. If it is not, the offset is another
//! one; and when it does not come to rest, all is read.

use bytes::Bytes;

use super::PAGE;
use super::list_reader::{ListReader, Pages};
use super::run::Message;
use crate::history::error::Error;
use crate::history::query::{Query, Side, Within};
use crate::vendor::history::{Direction, message_ms};

/// How many pages are looked at for where the wanted ones begin.
const LOOKS: u32 = 4;

/// What is wanted of a list, and how much of that is still to come.
pub(super) struct Selection {
    within: Within,
    /// How many of the wanted ones are to be skipped, where the first page's offset does not do that.
    skip: u64,
    /// How many of those are left.
    left_to_skip: u64,
    /// How many are still to be given.
    pub(super) wanted: usize,
    /// The first wanted one was met.
    has_begun: bool,
    /// An offset can do the skipping, as far as is known.
    may_jump: bool,
}

/// What was taken of messages that follow each other.
pub(super) struct Selected {
    pub(super) texts: Vec<Bytes>,
    /// How many were read for it, from the first on.
    pub(super) read: usize,
    /// What follows lies behind all that is wanted.
    pub(super) is_over: bool,
}

impl Selection {
    /// Of a query; and at which offset its first page is.
    pub(super) fn new(query: &Query) -> (Self, u64) {
        // Where the window begins before what is wanted, how many come before that is not known yet.
        let is_cut = query.within.begins_late(query.direction);
        let (offset, skip) = if is_cut { (0, query.offset) } else { (query.offset, 0) };
        let within = query.within;
        let selection =
            Self { within, skip, left_to_skip: skip, wanted: query.limit, has_begun: !is_cut, may_jump: true };
        (selection, offset)
    }

    /// Whether no message comes before those that are wanted, as far as the window says.
    pub(super) fn begins_with_the_list(&self) -> bool {
        self.has_begun
    }

    /// Takes of these what is wanted.
    pub(super) fn take(&mut self, messages: &[Message], direction: Direction) -> Selected {
        let mut selected = Selected { texts: Vec::new(), read: 0, is_over: false };
        for message in messages {
            match self.within.side(direction, message.ms) {
                Side::Behind => {
                    selected.is_over = true;
                    break;
                }
                Side::Before => {}
                Side::In if self.is_skipped() => {}
                Side::In => {
                    selected.texts.push(message.text.clone());
                    self.wanted -= 1;
                }
            }
            selected.read += 1;
            if self.wanted == 0 {
                break;
            }
        }
        selected
    }

    /// Whether one more is to be skipped. To be asked of each wanted message in turn.
    fn is_skipped(&mut self) -> bool {
        self.has_begun = true;
        let is_skipped = self.left_to_skip > 0;
        self.left_to_skip -= u64::from(is_skipped);
        is_skipped
    }

    /// Leaves of the texts of a single page what lies within; those without a time are not judged.
    pub(super) fn retain_wanted(&self, texts: &mut Vec<Bytes>) {
        if !self.within.is_all() {
            texts.retain(|text| message_ms(text).is_none_or(|ms| self.within.holds(ms)));
        }
        texts.truncate(self.wanted);
    }

    /// Whether so much is to be skipped that it is better not read.
    pub(super) fn is_to_jump(&self) -> bool {
        self.has_begun && self.may_jump && self.left_to_skip > PAGE as u64
    }

    /// Where a series that has got to an offset was when it had skipped nothing yet.
    pub(super) fn unskipped(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.skip - self.left_to_skip)
    }

    /// The offset behind all that is to be skipped, where so many come before the wanted ones.
    pub(super) fn behind_skipped(&self, before: u64) -> u64 {
        before.saturating_add(self.skip)
    }

    /// What is to be skipped was passed over by an offset.
    pub(super) fn jumped(&mut self) {
        self.left_to_skip = 0;
    }

    /// The number of those before the wanted ones does not come to rest: all is to be read, from the beginning.
    pub(super) fn read_all(&mut self) {
        (self.left_to_skip, self.has_begun, self.may_jump) = (self.skip, false, false);
    }

    /// How many messages come before the first wanted one: about so many. Nothing when that is not found soon.
    pub(super) async fn before_the_wanted(
        &self,
        reader: &mut ListReader<impl Pages>,
        about: u64,
    ) -> Result<Option<u64>, Error> {
        let mut offset = about.saturating_sub(PAGE as u64 / 2);
        for _ in 0..LOOKS {
            let page = reader.beside(reader.query(&reader.filter, offset, PAGE)).await?;
            let page = reader.understood(page)?;
            let is_wanted = |message: &Message| self.within.side(reader.direction, message.ms) != Side::Before;
            match page.iter().position(is_wanted) {
                Some(0) | None if page.first().is_none_or(is_wanted) && offset > 0 => {
                    offset = offset.saturating_sub(PAGE as u64);
                }
                Some(at) => return Ok(Some(offset + at as u64)),
                None if page.is_empty() => return Ok(Some(0)),
                None => offset += page.len() as u64,
            }
        }
        Ok(None)
    }
}
