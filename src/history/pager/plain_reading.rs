//! [`PlainReading`]: pages read one behind the other, whatever they hold, and whether a second reading gives the same.
//!
//! It is for the messages of one millisecond that are alike, or too many to be joined by what they hold: their offsets
//! alone order them. The vendor does not say in which order equals come, nor that it is the same from query to query.
//! So a reading counts only when another, whose pages begin elsewhere, found the same at the same offsets.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::PAGE;
use super::list_reader::{ListReader, Pages};
use super::piece::bounded;
use super::run::Message;
use crate::history::error::Error;
use crate::vendor::history::Filter;

/// So many messages before each page of a piece its second reading begins a page.
const SHARED: usize = 10;

/// Pages in flight when a piece is read for the second time.
const WINDOW: usize = 8;

/// Whether a piece reads the same a second time.
pub(super) enum SecondReading {
    Same {
        /// So many messages of it.
        number: usize,
        /// The list ends there.
        is_last: bool,
    },
    Reordered,
    Moved,
}

/// Pages that were read one behind the other.
#[derive(Default)]
pub(super) struct PlainReading {
    pub(super) messages: Vec<Message>,
    /// Where each page begins.
    seams: Vec<usize>,
    /// How many the longest holds.
    most: usize,
    /// Nothing lies beyond: the last was followed by an empty one.
    to_the_end: bool,
}

/// A page of a second reading.
struct SecondPage {
    /// Whether it is the same.
    is_same: bool,
    /// Where of the first reading it ends.
    end: usize,
}

impl PlainReading {
    /// Where pages begin that read so many a second time. A seam of one reading lies within a page of the other: where
    /// two orders take turns, pages that begin at the same places may leave out the same messages twice.
    fn starts(&self, needed: usize) -> Vec<usize> {
        let mut starts: Vec<_> = self.seams.iter().map(|seam| seam - SHARED.min(self.most / 2).min(*seam)).collect();
        while let Some(last) = starts.last().copied().filter(|last| last + self.most < needed) {
            starts.push(last + self.most);
        }
        starts.retain(|at| *at < needed);
        // Behind the last page, too, which was followed by an empty one.
        starts.extend(self.to_the_end.then_some(self.messages.len()));
        starts
    }

    /// Where a page begins that goes on from there, but not where one of the first reading began.
    fn within(&self, end: usize) -> usize {
        (1..=end).map(|back| end - back).find(|at| *at == 0 || !self.seams.contains(at)).unwrap_or(0)
    }

    /// What a page is that begins there; nothing of this reading when the list has moved.
    fn compare(&self, at: usize, page: &[Message]) -> Option<SecondPage> {
        let is_longer = self.to_the_end && at + page.len() > self.messages.len();
        let first = &self.messages[at..];
        let shared = first.len().min(page.len());
        let (page, first) = (&page[..shared], &first[..shared]);
        let is_elsewhere = page.iter().zip(first).any(|(a, b)| a.ms != b.ms) || is_shifted(page, first);
        (!is_longer && !is_elsewhere).then(|| SecondPage { is_same: page == first, end: at + shared })
    }

    /// Reads pages one behind the other, whatever they hold, until a message lies beyond `ms` or the list ends.
    pub(super) async fn read(
        reader: &mut ListReader<impl Pages>,
        filter: &Filter,
        offset: u64,
        ms: u64,
    ) -> Result<Self, Error> {
        let mut read = Self::default();
        while read.messages.last().is_none_or(|last| !reader.is_before(ms, last.ms)) {
            let page = reader.alone(filter, offset.saturating_add(read.messages.len() as u64)).await?;
            if page.is_empty() {
                read.to_the_end = true;
                break;
            }
            read.most = read.most.max(page.len());
            read.seams.push(read.messages.len());
            read.messages.extend(page);
            bounded(read.messages.len())?;
        }
        Ok(read)
    }

    /// Whether the same messages are there at the same offsets now.
    pub(super) async fn again(
        &self,
        reader: &mut ListReader<impl Pages>,
        filter: &Filter,
        offset: u64,
        ms: u64,
    ) -> Result<SecondReading, Error> {
        let all = &self.messages;
        let beyond = all.iter().position(|message| reader.is_before(ms, message.ms));
        let needed = beyond.map_or(all.len(), |beyond| beyond + 1);
        let starts = self.starts(needed);
        let queries: Vec<_> =
            starts.iter().map(|at| reader.query(filter, offset.saturating_add(*at as u64), PAGE)).collect();
        let pages = Arc::clone(&reader.pages);
        let mut again = stream::iter(queries)
            .map(|query| {
                let pages = Arc::clone(&pages);
                async move { pages.page(query).await }
            })
            .buffered(WINDOW);
        let (mut is_same, mut number, mut gaps) = (true, 0, Vec::new());
        for at in starts {
            let Some(page) = again.next().await else { break };
            let page = reader.understood(page?.texts)?;
            let Some(part) = self.compare(at, &page) else { return Ok(SecondReading::Moved) };
            gaps.extend((number < at).then_some(number..at));
            is_same &= part.is_same;
            number = number.max(part.end);
        }
        drop(again);
        gaps.extend((number < needed).then_some(number..needed));
        // Where a page held fewer than the first time, or the list is shorter now.
        for gap in gaps {
            let mut end = gap.start;
            while end < gap.end {
                let at = self.within(end);
                let page = reader.alone(filter, offset.saturating_add(at as u64)).await?;
                let part = self.compare(at, &page).filter(|part| part.end > end);
                let Some(part) = part else { return Ok(SecondReading::Moved) };
                is_same &= part.is_same;
                end = part.end;
            }
            number = number.max(end);
        }
        Ok(match (reader.in_order(all), is_same) {
            (false, _) => SecondReading::Moved,
            (true, true) => SecondReading::Same { number, is_last: self.to_the_end },
            (true, false) => SecondReading::Reordered,
        })
    }
}

/// Whether two pages hold the same in the same order, but not at the same places.
fn is_shifted(a: &[Message], b: &[Message]) -> bool {
    let length = a.len();
    a != b && (1..=length / 2).any(|by| a[by..] == b[..length - by] || b[by..] == a[..length - by])
}
