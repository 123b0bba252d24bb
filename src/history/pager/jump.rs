//! Passing over what is to be skipped without reading it, where what is wanted begins within a second.
//!
//! The vendor's windows are of whole seconds, so messages that are not wanted may come before those that are. How many
//! they are shows where the first wanted one is met; what is to be skipped is an offset behind that. But until the page at
//! that offset is read, some of them may expire, or more of them come, and the offset means another message. So their
//! number is looked at again after that page. If it is the same, it was the same all the while: at the old end messages
//! only go, at the new end they only come. If it is not, the offset is another one; and when it does not come to rest, all
//! is read.

use super::run::Message;
use super::{Error, PAGE, Pager, Pages};
use crate::history::query::Side;

/// How often the offset is tried before all is read.
const JUMPS: u32 = 4;

/// How many pages are looked at for where the wanted ones begin.
const LOOKS: u32 = 4;

/// What is to be skipped where that is not done by the offset of the first page.
#[derive(Clone, Copy)]
pub(super) struct Skip {
    /// How many of the wanted ones.
    all: u64,
    /// How many of those are left.
    left: u64,
    /// The first wanted one was met.
    has_begun: bool,
    /// An offset can do it, as far as is known.
    may_jump: bool,
}

impl Skip {
    /// `is_known`: how many messages come before those that are wanted is known: none.
    pub(super) fn new(all: u64, is_known: bool) -> Self {
        Self { all, left: all, has_begun: is_known, may_jump: true }
    }

    /// Whether one more is to be skipped. To be asked of each wanted message in turn.
    pub(super) fn one(&mut self) -> bool {
        self.has_begun = true;
        let is_skipped = self.left > 0;
        self.left -= u64::from(is_skipped);
        is_skipped
    }
}

impl<P: Pages> Pager<P> {
    /// Whether so much is to be skipped that it is better not read.
    pub(super) fn is_to_jump(&self) -> bool {
        self.skip.has_begun && self.skip.may_jump && self.skip.left > PAGE as u64
    }

    /// The messages behind those that are to be skipped.
    pub(super) async fn jump(&mut self) -> Result<Vec<Message>, Error> {
        let mut before = self.series.at.saturating_sub(self.skip.all - self.skip.left);
        for _ in 0..JUMPS {
            self.begin_at(before.saturating_add(self.skip.all));
            let new = self.first().await?;
            match self.before_the_wanted(before).await? {
                Some(now) if now == before => {
                    self.skip.left = 0;
                    return Ok(new);
                }
                Some(now) => before = now,
                None => break,
            }
        }
        self.begin_at(0);
        self.skip = Skip { may_jump: false, ..Skip::new(self.skip.all, false) };
        Ok(Vec::new())
    }

    /// Reads as if nothing had been read.
    fn begin_at(&mut self, offset: u64) {
        self.series.begin_anew(self.filter.clone(), offset);
        (self.run, self.short, self.cut) = (None, None, None);
        (self.is_astray, self.is_near) = (false, false);
        (self.ended, self.is_last) = (false, false);
    }

    /// How many messages come before the first wanted one: about so many. Nothing when that is not found soon.
    async fn before_the_wanted(&mut self, about: u64) -> Result<Option<u64>, Error> {
        let mut offset = about.saturating_sub(PAGE as u64 / 2);
        for _ in 0..LOOKS {
            let page = self.beside(self.query(&self.filter, offset, PAGE)).await?;
            let page = self.understood(page)?;
            let is_wanted = |message: &Message| self.within.side(self.direction, message.ms) != Side::Before;
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
