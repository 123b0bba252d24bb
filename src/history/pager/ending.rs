//! Where the list ends. A page that is not full does not say so: the vendor may give fewer than it was asked for.
//!
//! After a short page one look at the list from its other end says what its last message is. When that was given the list
//! is at its end, as of then; when not, it is known what is still to come, and what arrives later is nobody's concern. So a
//! list takes one look, whatever the vendor's pages hold and however fast it grows; another only where pages bring nothing
//! although something is to come, which may have expired meanwhile. Where the last millisecond's messages are more than a
//! look shows, and alike, it is not known which of them it shows: then an empty page has to say it.

use super::run::{Message, Run};
use super::{Error, PAGE, Pager, Pages};
use crate::history::crowd::Mark;
use crate::vendor::history::{Direction, PAGE_SIZES};

/// So often pages may bring nothing before the list is at its end.
const IDLE: u32 = 8;

/// What is known of the list's end.
#[derive(Default)]
pub(super) struct Ending {
    last: Option<Last>,
    /// Pages in a row that brought nothing.
    idle: u32,
}

/// The last messages of the list at some instant: their millisecond, and what was seen of it, from the end.
struct Last {
    ms: u64,
    marks: Vec<Mark>,
    /// All of the millisecond was seen.
    is_all: bool,
}

impl Last {
    /// Whether a run holds them. Of one millisecond an offset may have skipped some.
    fn is_in(&self, run: &Run, cut: Option<u64>) -> bool {
        let crowd = &run.crowd;
        let is_known = crowd.holds(&self.marks) && (self.is_all || crowd.ends_with(&self.marks));
        let is_cut = cut == Some(self.ms) && crowd.is_end_of(&self.marks, PAGE_SIZES[0]);
        run.is_beyond(self.ms) || (run.last_ms == self.ms && (is_known || is_cut))
    }
}

impl<P: Pages> Pager<P> {
    /// Whether the list ends with this run, behind a page that was not full and brought something new or not.
    pub(super) async fn is_over(&mut self, run: &Run, new: bool) -> Result<bool, Error> {
        self.ending.idle = if new { 0 } else { self.ending.idle + 1 };
        if self.ending.idle > IDLE {
            return Err(Error::BadUpstream("pages end before the list does".into()));
        }
        if let Some(last) = &self.ending.last
            && (last.is_in(run, self.cut) || new)
        {
            return Ok(last.is_in(run, self.cut));
        }
        let mut query = self.query(&self.filter, 0, PAGE);
        query.direction = match self.direction {
            Direction::Asc => Direction::Desc,
            Direction::Desc => Direction::Asc,
        };
        let texts = self.beside(query).await?;
        let messages: Option<Vec<_>> = texts.into_iter().map(Message::read).collect();
        let messages = messages.ok_or_else(|| Error::BadUpstream("a message has no time".into()))?;
        let Some(ms) = messages.first().map(|message| message.ms) else {
            self.ending.last = None;
            return Ok(true);
        };
        let marks: Vec<_> = messages.iter().take_while(|message| message.ms == ms).map(Message::mark).collect();
        // No vendor's pages hold fewer than the least that can be asked for.
        let is_all = marks.len() < messages.len() || messages.len() < PAGE_SIZES[0];
        let last = Last { ms, marks, is_all };
        let is_over = last.is_in(run, self.cut);
        self.ending.last = Some(last);
        Ok(is_over)
    }
}
