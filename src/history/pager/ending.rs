//! Where the list ends. A page that is not full does not say so: the vendor may give fewer than it was asked for.
//!
//! After a short page one look at the list from its other end says what its last message is. When that was given the list
//! is at its end, as of then; when not, it is known what is still to come, and what arrives later is nobody's concern. So a
//! list takes one look, whatever the vendor's pages hold and however fast it grows; another only where pages bring nothing
//! although something is to come, which may have expired meanwhile. Where the last millisecond's messages are more than a
//! look shows, those that it shows may have been given and others not, for they may be alike, and their order may differ. Then
//! a page has to say it that begins a little before the end and shows nothing else.

use super::run::{Message, Run};
use super::{Error, PAGE, Pager, Pages};
use crate::history::crowd::Mark;
use crate::vendor::history::Direction;

/// So often pages may bring nothing before the list is at its end.
const IDLE: u32 = 8;

/// So many messages a page shows, at most, that begins before the list's end and is to show nothing behind it.
const BEFORE_THE_END: usize = 4;

/// What is known of the list's end.
#[derive(Default)]
pub(super) struct Ending {
    last: Option<Last>,
    /// Pages in a row that brought nothing.
    idle: u32,
}

/// Whether a list ends with a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Yes,
    No,
    /// It seems so, but some of it went, and which those were has to be found out.
    Moved,
}

/// The last messages of the list at some instant: their millisecond, and what was seen of it, from the end.
struct Last {
    ms: u64,
    marks: Vec<Mark>,
    /// All of the millisecond was seen.
    is_all: bool,
}

impl Last {
    /// Whether a run surely holds them.
    fn is_in(&self, run: &Run) -> bool {
        run.is_beyond(self.ms) || (run.last_ms == self.ms && self.is_all && run.crowd.holds(&self.marks))
    }

    /// Whether it may. Of one millisecond an offset may have skipped some; which, the other end does not say, where equals
    /// do not turn round with the list.
    fn may_be_in(&self, run: &Run, cut: Option<u64>) -> bool {
        run.last_ms == self.ms && (cut == Some(self.ms) || run.crowd.holds(&self.marks))
    }
}

impl<P: Pages> Pager<P> {
    /// Whether the list ends with this run, behind a page that was not full and brought something new or not.
    pub(super) async fn is_over(&mut self, run: &Run, new: bool) -> Result<Over, Error> {
        self.ending.idle = if new { 0 } else { self.ending.idle + 1 };
        if self.ending.idle > IDLE {
            return Err(Error::BadUpstream("pages end before the list does".into()));
        }
        if self.ending.last.is_none() || !new {
            self.ending.last = self.look().await?;
        }
        match &self.ending.last {
            None => Ok(Over::Yes),
            Some(last) if last.is_in(run) => Ok(Over::Yes),
            Some(last) if last.may_be_in(run, self.cut) => self.ends_here(run).await,
            Some(_) => Ok(Over::No),
        }
    }

    /// What the list's other end shows; nothing of a list that is empty.
    async fn look(&mut self) -> Result<Option<Last>, Error> {
        let mut query = self.query(&self.filter, 0, PAGE);
        query.direction = match self.direction {
            Direction::Asc => Direction::Desc,
            Direction::Desc => Direction::Asc,
        };
        let texts = self.beside(query).await?;
        let messages: Option<Vec<_>> = texts.into_iter().map(Message::read).collect();
        let messages = messages.ok_or_else(|| Error::BadUpstream("a message has no time".into()))?;
        let Some(ms) = messages.first().map(|message| message.ms) else { return Ok(None) };
        let marks: Vec<_> = messages.iter().take_while(|message| message.ms == ms).map(Message::mark).collect();
        // No vendor's pages hold a single message.
        let is_all = marks.len() < messages.len().max(2) || messages.len() < self.series.shortest();
        Ok(Some(Last { ms, marks, is_all }))
    }

    /// Whether what stands before the run's end, by its offset, is all that follows: so many were given as there are places.
    async fn ends_here(&mut self, run: &Run) -> Result<Over, Error> {
        let most = self.series.shortest().saturating_sub(1).min(BEFORE_THE_END);
        let Some(offset) = self.series.at.checked_sub(most as u64) else { return Ok(Over::No) };
        let query = self.query(&self.series.filter, offset, PAGE);
        let page = self.beside(query).await?;
        let page = self.understood(page)?;
        Ok(match run.holds(&page) {
            true if page.len() == most => Over::Yes,
            true if page.len() < most => Over::Moved,
            _ => Over::No,
        })
    }
}
