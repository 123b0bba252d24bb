//! [`EndProbe`]: where the list ends. A page that is not full does not say so: the vendor's limit is a limit, and
//! nothing on its page says that fewer mean the last.
//!
//! After a short page one look at the list from its other end says what its last message is. When that was given the
//! list is at its end, as of then; when not, it is known what is still to come, and what arrives later is nobody's
//! concern. So a list takes one look, whatever the vendor's pages hold and however fast it grows; another only where
//! pages bring nothing although something is to come, which may have expired meanwhile. Where the last millisecond's
//! messages are more than a look shows, those that it shows may have been given and others not, for they may be alike,
//! and their order may differ. Then a page has to say it that begins a little before the end and shows nothing else.

use super::PAGE;
use super::list_reader::{ListReader, Pages};
use super::run::{Message, Run};
use crate::history::crowd::Mark;
use crate::history::error::Error;
use crate::vendor::history::Direction;

/// So often pages may bring nothing before the list is at its end.
const MAX_IDLE: u32 = 8;

/// So many messages a page shows, at most, that begins before the list's end and is to show nothing behind it.
const BEFORE_THE_END: usize = 4;

/// What is known of the list's end.
#[derive(Default)]
pub(super) struct EndProbe {
    last: Option<LastMessages>,
    /// Pages in a row that brought nothing.
    idle: u32,
    /// The millisecond of the first message behind an offset, which may have skipped others of it.
    pub(super) cut: Option<u64>,
}

/// Whether a list ends with a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ListEnd {
    Here,
    /// Something follows, or may follow.
    Beyond,
    /// It seems to end here, but some of it went, and which messages those were has to be found out.
    Moved,
}

/// The last messages of the list at some instant: their millisecond, and what was seen of it, from the end.
struct LastMessages {
    ms: u64,
    marks: Vec<Mark>,
    /// All of the millisecond was seen.
    is_all: bool,
}

impl LastMessages {
    /// Whether a run surely holds them.
    fn is_in(&self, run: &Run) -> bool {
        run.is_beyond(self.ms) || (run.last_ms == self.ms && self.is_all && run.crowd.holds(&self.marks))
    }

    /// Whether it may. Of one millisecond an offset may have skipped some; which, the other end does not say, where
    /// equals do not turn round with the list.
    fn may_be_in(&self, run: &Run, cut: Option<u64>) -> bool {
        run.last_ms == self.ms && (cut == Some(self.ms) || run.crowd.holds(&self.marks))
    }
}

impl EndProbe {
    /// Whether the list ends with this run, behind a page that was not full and brought something new or not.
    pub(super) async fn is_over(
        &mut self,
        reader: &mut ListReader<impl Pages>,
        run: &Run,
        is_new: bool,
    ) -> Result<ListEnd, Error> {
        self.idle = if is_new { 0 } else { self.idle + 1 };
        if self.idle > MAX_IDLE {
            return Err(Error::BadUpstream("pages end before the list does".into()));
        }
        // What the other end showed once is still to come, or was given: as long as pages bring something it need not
        // be asked again. That costs one page a list, not one for each short page.
        if self.last.is_none() || !is_new {
            self.last = look(reader).await?;
        }
        match &self.last {
            None => Ok(ListEnd::Here),
            Some(last) if last.is_in(run) => Ok(ListEnd::Here),
            Some(last) if last.may_be_in(run, self.cut) => ends_here(reader, run).await,
            Some(_) => Ok(ListEnd::Beyond),
        }
    }
}

/// What the list's other end shows; nothing of a list that is empty.
async fn look(reader: &mut ListReader<impl Pages>) -> Result<Option<LastMessages>, Error> {
    let mut query = reader.query(&reader.filter, 0, PAGE);
    query.direction = match reader.direction {
        Direction::Asc => Direction::Desc,
        Direction::Desc => Direction::Asc,
    };
    let texts = reader.beside(query).await?;
    let messages: Option<Vec<_>> = texts.into_iter().map(Message::read).collect();
    let messages = messages.ok_or_else(|| Error::BadUpstream("a message has no time".into()))?;
    let Some(ms) = messages.first().map(|message| message.ms) else { return Ok(None) };
    let marks: Vec<_> = messages.iter().take_while(|message| message.ms == ms).map(Message::mark).collect();
    // A page of one millisecond alone shows all of it only if it is shorter than a page is known to be. One message is
    // never a full page: the smallest that can be asked for is 20.
    let is_all = marks.len() < messages.len().max(2) || messages.len() < reader.series.shortest();
    Ok(Some(LastMessages { ms, marks, is_all }))
}

/// Whether what stands before the run's end, by its offset, is all that follows: so many were given as there are
/// places.
async fn ends_here(reader: &mut ListReader<impl Pages>, run: &Run) -> Result<ListEnd, Error> {
    let most = reader.series.shortest().saturating_sub(1).min(BEFORE_THE_END);
    let Some(offset) = reader.series.at.checked_sub(most as u64) else { return Ok(ListEnd::Beyond) };
    let query = reader.query(&reader.series.filter, offset, PAGE);
    let page = reader.beside(query).await?;
    let page = reader.understood(page)?;
    Ok(match run.holds(&page) {
        true if page.len() == most => ListEnd::Here,
        true if page.len() < most => ListEnd::Moved,
        _ => ListEnd::Beyond,
    })
}
