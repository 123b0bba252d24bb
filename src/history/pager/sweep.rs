//! Going on from the last message where a series' next page does not join.
//!
//! Invariant: what comes out is an unbroken piece of the list that begins at or before the last message's millisecond and
//! goes beyond it, or to the list's end; or an error, when the list moves faster than it can be read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::sleep;

use super::ending::Over;
use super::run::{self, Apart, Message, Run};
use super::series::BEFORE;
use super::{Error, PAGE, Pager, Pages};
use crate::kernel::backoff::Backoff;
use crate::vendor::history::{Direction, Filter};

/// How often it is tried because the list moved meanwhile, and the first wait between.
pub(super) const SWEEPS: u32 = 8;
const SWEEP_PAUSE: Duration = Duration::from_millis(100);
/// So long no wait is: there are [`SWEEPS`] at most, and each is twice as long as the one before.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How often the same messages may come in another order when they are read a second time.
const REORDERED: u32 = 3;

/// So many messages before each page of a piece its second reading begins a page.
const SHARED: usize = 10;

/// How often in a row a page of a piece may be asked for again further ahead.
const BACKS: u32 = 4;

/// So many pages in a row may bring hardly anything: less than any vendor's page holds.
const FRUITLESS: u32 = 16;
const HARDLY: usize = 4;

/// Pages in flight when a piece is read for the second time.
const SWEEP_WINDOW: usize = 8;

/// Most messages of one millisecond, so that an absurd list cannot take all memory.
const SWEEP_MAX: usize = 100_000;

/// Where a piece may begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Anywhere: nothing that is wanted lies before it.
    Any,
    /// Before the millisecond.
    Before,
}

/// What was read of a series.
enum Piece {
    /// All of the millisecond, and more.
    Whole(Vec<Message>),
    /// It begins too late.
    Late,
    /// A page does not join on those before. The last that begins before the millisecond is at that offset.
    Torn(u64),
}

/// Whether a piece reads the same a second time.
enum Again {
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
struct Plain {
    messages: Vec<Message>,
    /// Where each page begins.
    seams: Vec<usize>,
    /// How many the longest holds.
    most: usize,
    /// Nothing lies beyond: the last was followed by an empty one.
    to_the_end: bool,
}

/// A page of a second reading.
struct Part {
    /// Whether it is the same.
    is_same: bool,
    /// Where of the first reading it ends.
    end: usize,
}

impl Plain {
    /// Where pages begin that read so many a second time. A seam of one reading lies within a page of the other: where two
    /// orders take turns, pages that begin at the same places may leave out the same messages twice.
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
    fn again(&self, at: usize, page: &[Message]) -> Option<Part> {
        let is_longer = self.to_the_end && at + page.len() > self.messages.len();
        let first = &self.messages[at..];
        let shared = first.len().min(page.len());
        let (page, first) = (&page[..shared], &first[..shared]);
        let is_elsewhere = page.iter().zip(first).any(|(a, b)| a.ms != b.ms) || is_shifted(page, first);
        (!is_longer && !is_elsewhere).then(|| Part { is_same: page == first, end: at + shared })
    }
}

impl<P: Pages> Pager<P> {
    /// Goes on from the last message in a new series: by its offset, where the present one is in the second that it is in,
    /// else by its time.
    pub(super) async fn repair(&mut self) -> Result<Vec<Message>, Error> {
        self.repairs += 1;
        let was_near = self.is_near;
        (self.is_astray, self.is_near) = (false, false);
        let Some(run) = &self.run else { return Ok(Vec::new()) };
        let (ms, given) = (run.last_ms, run.crowd.number());
        let filter = self.from(ms);
        let by_offset = was_near || self.series.filter == filter;
        if self.series.shortest() > 0 {
            // What is begun far ahead is in vain where the next page does not join either.
            self.series.flight.be_careful();
        }
        if by_offset
            && let Some(offset) = self.series.at.checked_sub(given + BEFORE + self.series.drift())
            && let Some(piece) = self.read_whole(&self.series.filter.clone(), offset, ms, None, Head::Before).await?
        {
            return self.pass_over(piece);
        }
        let piece = self.read_whole(&filter, 0, ms, None, Head::Any).await?.unwrap_or_default();
        self.pass_over(piece)
    }

    /// Reads a window from an offset on until a message lies beyond `ms` or the list ends. The page there may have been
    /// taken already. Nothing when it begins too late.
    pub(super) async fn read_whole(
        &mut self,
        filter: &Filter,
        offset: u64,
        ms: u64,
        mut taken: Option<(u64, Vec<Message>)>,
        head: Head,
    ) -> Result<Option<Vec<Message>>, Error> {
        let (mut backoff, mut reordered) = (Backoff::new(SWEEP_PAUSE, MAX_PAUSE), 0);
        for _ in 0..SWEEPS {
            if taken.is_none() {
                self.series.begin_anew(filter.clone(), offset);
            }
            let from = match self.read_beyond(ms, taken.take(), head).await? {
                Piece::Whole(piece) => return Ok(Some(piece)),
                Piece::Late => return Ok(None),
                Piece::Torn(from) => from,
            };
            // What is in flight would stand still, and keep seats, while this is awaited.
            self.series.flight.clear();
            let piece = self.read_plain(filter, from, ms).await?;
            let begins_before = piece.messages.first().is_some_and(|first| self.is_before(first.ms, ms));
            if head == Head::Before && !begins_before {
                return Ok(None);
            }
            // What expired meanwhile has moved the millisecond's first messages before that offset.
            if from != offset && !begins_before {
                sleep(backoff.next_wait()).await;
                continue;
            }
            match self.is_still(filter, from, &piece, ms).await? {
                // Perhaps it was read behind the end of a list that has moved.
                Again::Same { .. } if piece.messages.is_empty() => {}
                Again::Moved if head == Head::Before => return Ok(None),
                Again::Same { number, is_last } => {
                    self.is_last = is_last;
                    let mut piece = piece.messages;
                    piece.truncate(number);
                    self.series.begin_anew(filter.clone(), from.saturating_add(number as u64));
                    self.series.go_on();
                    return Ok(Some(piece));
                }
                Again::Reordered => reordered += 1,
                Again::Moved => {}
            }
            if reordered == REORDERED {
                return Err(untold());
            }
            sleep(backoff.next_wait()).await;
        }
        Err(moving())
    }

    /// Reads a series from its beginning, page by page that join on, until a message lies beyond `ms` or the list ends.
    async fn read_beyond(
        &mut self,
        ms: u64,
        mut taken: Option<(u64, Vec<Message>)>,
        head: Head,
    ) -> Result<Piece, Error> {
        let (mut read, mut piece, mut from): (Option<Run>, Vec<Message>, u64) = (None, Vec::new(), self.series.at);
        let (mut torn, mut backs, mut is_joined) = (None, 0, false);
        let mut fruitless = 0;
        loop {
            let (offset, page) = match taken.take() {
                Some(taken) => taken,
                None => self.next_of_series().await?,
            };
            let (length, most) = (page.len(), run::most_of_one(&page));
            let is_before = page.first().is_some_and(|first| self.is_before(first.ms, ms));
            if is_before {
                from = offset;
            }
            let new = match &read {
                None if page.is_empty() && head == Head::Any => {
                    self.short = Some((0, false));
                    return Ok(Piece::Whole(piece));
                }
                None if head == Head::Any || is_before => page,
                None => {
                    self.series.moved(None);
                    return Ok(Piece::Late);
                }
                Some(read) => match read.join(page, self.series.shared(offset)) {
                    Ok(new) => {
                        backs = if is_joined { 0 } else { backs };
                        is_joined = true;
                        new
                    }
                    Err(Apart { page, moved_by }) => {
                        is_joined = false;
                        if moved_by > 0 {
                            self.series.moved(Some(moved_by));
                        }
                        let is_near = page.first().is_some_and(|first| first.ms == read.last_ms);
                        match self.series.before(read.crowd.number()) {
                            Some(offset) if is_near && torn != Some(self.series.at) && backs < BACKS => {
                                (torn, backs) = (Some(self.series.at), backs + 1);
                                self.series.go_back(offset);
                                continue;
                            }
                            _ => return Ok(Piece::Torn(from)),
                        }
                    }
                },
            };
            match &mut read {
                Some(read) => read.advance(&new),
                None => read = Run::begin(self.direction, &new),
            }
            let Some(run) = &read else { return Ok(Piece::Torn(from)) };
            let is_beyond = run.is_beyond(ms);
            self.series.joined(offset, length, most, 0, new.len());
            let is_new = !new.is_empty();
            fruitless = if new.len() < HARDLY { fruitless + 1 } else { 0 };
            if fruitless > FRUITLESS {
                // The list grows in front of it as fast as it is read.
                return Ok(Piece::Torn(from));
            }
            piece.extend(new.into_iter().filter(|message| !run::is_before(self.direction, message.ms, ms)));
            bounded(piece.len())?;
            let is_over = match length < PAGE && !is_beyond {
                true => self.is_over(run, is_new).await?,
                false => Over::No,
            };
            if is_over == Over::Moved {
                return Ok(Piece::Torn(from));
            }
            if is_beyond || is_over == Over::Yes {
                self.is_last = is_over == Over::Yes;
                self.short = (length < PAGE).then_some((length, is_new));
                self.series.settle_in();
                return Ok(Piece::Whole(piece));
            }
            if length < self.series.size() {
                self.series.ended_early(length);
            }
        }
    }

    /// Reads pages one behind the other, whatever they hold, until a message lies beyond `ms` or the list ends.
    async fn read_plain(&mut self, filter: &Filter, offset: u64, ms: u64) -> Result<Plain, Error> {
        let mut read = Plain::default();
        while read.messages.last().is_none_or(|last| !self.is_before(ms, last.ms)) {
            let query = self.query(filter, offset.saturating_add(read.messages.len() as u64), PAGE);
            let page = self.pages.page(query).await?.texts;
            let page = self.understood(page)?;
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
    async fn is_still(&mut self, filter: &Filter, offset: u64, read: &Plain, ms: u64) -> Result<Again, Error> {
        let all = &read.messages;
        let beyond = all.iter().position(|message| self.is_before(ms, message.ms));
        let needed = beyond.map_or(all.len(), |beyond| beyond + 1);
        let starts = read.starts(needed);
        let queries: Vec<_> =
            starts.iter().map(|at| self.query(filter, offset.saturating_add(*at as u64), PAGE)).collect();
        let pages = Arc::clone(&self.pages);
        let mut again = stream::iter(queries)
            .map(|query| {
                let pages = Arc::clone(&pages);
                async move { pages.page(query).await }
            })
            .buffered(SWEEP_WINDOW);
        let (mut is_same, mut number, mut gaps) = (true, 0, Vec::new());
        for at in starts {
            let Some(page) = again.next().await else { break };
            let page = self.understood(page?.texts)?;
            let Some(part) = read.again(at, &page) else { return Ok(Again::Moved) };
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
                let at = read.within(end);
                let page = self.pages.page(self.query(filter, offset.saturating_add(at as u64), PAGE)).await?.texts;
                let page = self.understood(page)?;
                let Some(part) = read.again(at, &page).filter(|part| part.end > end) else { return Ok(Again::Moved) };
                is_same &= part.is_same;
                end = part.end;
            }
            number = number.max(end);
        }
        let in_order = all.is_sorted_by(|a, b| !self.is_before(b.ms, a.ms));
        Ok(match (in_order, is_same) {
            (false, _) => Again::Moved,
            (true, true) => Again::Same { number, is_last: read.to_the_end },
            (true, false) => Again::Reordered,
        })
    }

    /// What is new in a piece that holds all of the last millisecond.
    fn pass_over(&mut self, piece: Vec<Message>) -> Result<Vec<Message>, Error> {
        let Some(run) = &mut self.run else { return Ok(piece) };
        match run.pass_over(piece) {
            Some(new) => Ok(new),
            None => Err(untold()),
        }
    }

    /// The part of the window that begins no later than `ms`, whatever the vendor's edges mean: whether a window takes
    /// its first instant and all of its last second is not documented.
    pub(super) fn from(&self, ms: u64) -> Filter {
        let mut filter = self.filter.clone();
        match self.direction {
            Direction::Asc => filter.start = (ms.saturating_sub(1) / 1000).clamp(filter.start, filter.end),
            Direction::Desc => filter.end = (ms / 1000 + 1).clamp(filter.start, filter.end),
        }
        filter
    }
}

pub(super) fn moving() -> Error {
    Error::BadUpstream("the list of messages moves faster than it can be read".into())
}

/// Whether two pages hold the same in the same order, but not at the same places.
fn is_shifted(a: &[Message], b: &[Message]) -> bool {
    let length = a.len();
    a != b && (1..=length / 2).any(|by| a[by..] == b[..length - by] || b[by..] == a[..length - by])
}

fn untold() -> Error {
    Error::BadUpstream("the messages of one millisecond come in another order each time".into())
}

fn bounded(messages: usize) -> Result<(), Error> {
    if messages > SWEEP_MAX {
        return Err(Error::BadUpstream("too many messages in one millisecond".into()));
    }
    Ok(())
}
