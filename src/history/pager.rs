//! Many pages as one list: in order, without gap or repeat, while messages arrive and expire.
//!
//! The vendor gives 100 messages at most, keeps them for seven days, and has offsets but no cursors and no snapshot. So
//! each page is a query of its own that it evaluates at its own instant, and an offset means another message from page
//! to page: arrivals shift a descending list, expiry an ascending one. What holds always is that a page is an unbroken
//! piece of the list at one instant, in order of `ms`. Hence:
//!
//! - **A page may be joined on only when it *covers* the end of what is there**: it begins strictly before the last
//!   message's millisecond, or at the head of a window that contains it. Then it holds all that is in that millisecond
//!   and all that follows; what is known already is skipped by counting equal texts. **Or when it is *known again***:
//!   it begins among the messages of that millisecond where its offset says, some that occur once only stand in it in
//!   the same order, and none that follows was given ([`Run`]): then no other order can leave any out. So however many
//!   share a millisecond, neighbours need to share only a few.
//! - **Offsets are a guess, verified.** A *series* of pages whose offsets overlap by a few messages is asked for side
//!   by side ([`series`], [`in_flight`]). While nothing moves, or little, each joins on the one before.
//! - **A page that begins in the last millisecond itself and is not known again is bridged**: a page from
//!   before it closes the gap while the series goes on.
//! - **A page that does not join otherwise is repaired** ([`piece`]): by offset, from just before the last millisecond,
//!   where only that is in doubt; else by key: a new series begins in a window whose first second holds the last
//!   message. What expired meanwhile, the last message included, does no harm; and in that window offsets stand still,
//!   for what moves is at the list's ends. So a descending list that grows, whose pages bring less new than they
//!   should, is repaired too. A list that is gone on with begins so.
//! - Where not even the pages of a repair join each other, because the messages of a millisecond are alike, they are
//!   read one behind the other, and count only if all of them read the same a second time; else it is done again.
//!   Messages that come in another order each time and are more than a page cannot be told apart, and that is said.
//! - **A page that is not full does not end the list**: an empty one does, or one look from the other end
//!   ([`list_end`]).
//! - **What is to be skipped is not read**, also where the window begins within a second ([`selection`]).
//!
//! Memory: the pages in flight and the last millisecond, whatever the size of the list. Pages are begun only while
//! [`Pager::next`] is awaited and the page it waits for is not there, so a slow reader holds everything back, and a
//! dropped pager asks for nothing more.

mod in_flight;
mod list_end;
mod list_reader;
mod overlap;
mod pace;
mod piece;
mod plain_reading;
mod run;
mod selection;
mod series;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use super::error::Error;
use super::query::Query;
use crate::vendor::history::PAGE_SIZES;
use list_end::{EndProbe, ListEnd};
use list_reader::ListReader;
pub(super) use list_reader::{Page, Pages};
use piece::{Head, MAX_TRIES, PieceReader, ShortPage, WholePiece};
pub(super) use run::Run;
use run::{Message, NotJoined};
use selection::Selection;
use series::{BEFORE, JoinedPage, Series};

/// The vendor's largest page.
const PAGE: usize = PAGE_SIZES[PAGE_SIZES.len() - 1];

/// How often an offset is tried before all that it should skip is read.
const MAX_JUMPS: u32 = 4;

/// A list being read.
pub(super) struct Pager<P> {
    reader: ListReader<P>,
    selection: Selection,
    /// One page could hold all that is wanted: what the vendor gives of it is enough.
    is_single: bool,
    ended: bool,
    /// The end of what was given; `None` before the first.
    run: Option<Run>,
    /// The series leads nowhere: a repair is due.
    is_astray: bool,
    /// Only the last millisecond is in doubt: the repair may begin at an offset just before it.
    is_near: bool,
    /// The page that was joined last, if it was not full.
    short: Option<ShortPage>,
    /// What was read last is all there is.
    is_last: bool,
    /// How often in a row nothing new came.
    idle: u32,
    end: EndProbe,
    repairs: u64,
}

impl<P: Pages> Pager<P> {
    /// Begins to read. Nothing is asked before the first [`Pager::next`].
    pub(super) fn new(pages: Arc<P>, query: &Query) -> Self {
        let (selection, offset) = Selection::new(query);
        let filter = query.filter.clone();
        let series = Series::new(filter.clone(), offset);
        Self {
            is_single: query.limit <= PAGE && selection.begins_with_the_list(),
            reader: ListReader { pages, filter, direction: query.direction, series, wanted: query.limit },
            selection,
            ended: false,
            run: None,
            is_astray: false,
            is_near: false,
            short: None,
            is_last: false,
            idle: 0,
            end: EndProbe::default(),
            repairs: 0,
        }
    }

    /// Begins to read after the end of what was given elsewhere, if anything was, and knows at any time where one can
    /// go on ([`Pager::place`]).
    pub(super) fn resume(pages: Arc<P>, query: &Query, after: Option<Run>) -> Self {
        Self { is_single: false, is_astray: after.is_some(), run: after, ..Self::new(pages, query) }
    }

    /// The end of what was given; `None` when nothing was.
    pub(super) fn place(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// How often a new series was begun so far, because the list had moved or crowded.
    pub(super) fn repairs(&self) -> u64 {
        self.repairs
    }

    /// The next messages, at least one; `None` when the list or the limit is at its end. Not to be dropped half-way if
    /// more is wanted.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        while !self.ended && self.selection.wanted > 0 {
            self.reader.wanted = self.selection.wanted;
            if self.is_single {
                self.ended = true;
                let texts = self.only_page().await?;
                return Ok((!texts.is_empty()).then_some(texts));
            }
            if let Some(short) = self.short.take() {
                self.go_beyond(short).await?;
                continue;
            }
            let new = match (self.is_astray, self.run.is_some()) {
                _ if self.selection.is_to_jump() => self.jump().await?,
                (true, true) => self.repair().await?,
                (false, true) => self.further().await?,
                (_, false) => self.first().await?,
            };
            self.ended |= self.is_last;
            self.idle = if new.is_empty() { self.idle + 1 } else { 0 };
            if self.idle > MAX_TRIES {
                return Err(piece::moving());
            }
            let given = self.give(&new);
            if !given.is_empty() {
                return Ok(Some(given));
            }
        }
        Ok(None)
    }

    /// Takes of these what is wanted; they follow what was given.
    fn give(&mut self, new: &[Message]) -> Vec<Bytes> {
        let selected = self.selection.take(new, self.reader.direction);
        self.ended |= selected.is_over;
        match &mut self.run {
            Some(run) => run.advance(&new[..selected.read]),
            None => self.run = Run::begin(self.reader.direction, &new[..selected.read]),
        }
        selected.texts
    }

    /// Sees to it that what is under way keeps no seat while nobody asks for it. Begins nothing; may be dropped.
    pub(super) async fn settle(&mut self) {
        self.reader.series.in_flight.settle().await;
    }

    /// What fits in one page of the vendor needs no joining, nor to be understood.
    async fn only_page(&mut self) -> Result<Vec<Bytes>, Error> {
        let limit = PAGE_SIZES.into_iter().find(|size| *size >= self.selection.wanted).unwrap_or(PAGE);
        let query = self.reader.query(&self.reader.filter, self.reader.series.at, limit);
        let mut texts = self.reader.beside(query).await?;
        self.selection.retain_wanted(&mut texts);
        Ok(texts)
    }

    /// The first page of a list of which nothing was given.
    async fn first(&mut self) -> Result<Vec<Message>, Error> {
        let (offset, page) = self.reader.next_of_series().await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            // Nothing lies behind the offset; what arrives later was not there when it was asked for.
            self.ended = true;
            return Ok(page);
        };
        self.end.cut = (offset > 0).then_some(first.ms);
        if offset > 0 && first.ms == last.ms {
            // How many of this millisecond the offset skipped is not known, so a repair could not tell them from
            // those still to come: all of the millisecond is read now.
            let (filter, ms) = (self.reader.filter.clone(), first.ms);
            let all = self.pieces().read_whole(&filter, offset, ms, Some((offset, page)), Head::Any).await?;
            return Ok(self.took(all.unwrap_or_default()));
        }
        let (length, crowd) = (page.len(), run::most_of_one(&page));
        self.reader.series.joined(JoinedPage { offset, length, crowd, before: 0, new: length });
        self.reader.series.settle_in();
        self.short = (page.len() < PAGE).then_some(ShortPage { length: page.len(), is_new: true });
        Ok(page)
    }

    /// The next page of the series, joined on the run.
    async fn further(&mut self) -> Result<Vec<Message>, Error> {
        let (offset, page) = self.reader.next_of_series().await?;
        let Some(run) = &self.run else { return Ok(page) };
        if page.is_empty() {
            self.short = Some(ShortPage { length: 0, is_new: false });
            return Ok(page);
        }
        let (length, crowd) = (page.len(), run::most_of_one(&page));
        let before = page.iter().take_while(|message| self.reader.is_before(message.ms, run.last_ms)).count();
        match run.join(page, self.reader.series.shared(offset)) {
            Ok(new) => {
                self.reader.series.joined(JoinedPage { offset, length, crowd, before, new: new.len() });
                self.short = (length < PAGE).then_some(ShortPage { length, is_new: !new.is_empty() });
                self.is_astray = self.reader.series.is_wasteful();
                Ok(new)
            }
            Err(apart) => self.bridge(offset, apart).await,
        }
    }

    /// The list ends behind a page that was not full, or the vendor gives fewer than it is asked for.
    async fn go_beyond(&mut self, ShortPage { length, is_new }: ShortPage) -> Result<(), Error> {
        let Some(run) = &self.run else { return Ok(()) };
        match self.end.is_over(&mut self.reader, run, is_new).await? {
            ListEnd::Here => self.ended = true,
            ListEnd::Beyond if length > 0 => {
                if length < self.reader.series.size() {
                    self.reader.series.ended_early(length);
                }
            }
            ListEnd::Beyond | ListEnd::Moved => self.is_astray = true,
        }
        Ok(())
    }

    /// Joins a page on that begins too late, by one from before it. What cannot be joined so is left to a
    /// repair.
    async fn bridge(&mut self, offset: u64, NotJoined { page, moved_by }: NotJoined) -> Result<Vec<Message>, Error> {
        self.is_astray = true;
        let (Some(run), Some(first)) = (&self.run, page.first()) else { return Ok(Vec::new()) };
        self.is_near = first.ms == run.last_ms;
        if !self.is_near || moved_by > 0 {
            self.reader.series.moved((moved_by > 0).then_some(moved_by));
        }
        if !self.is_near || !self.reader.series.in_trouble(offset) {
            return Ok(Vec::new());
        }
        let mut run = run.clone();
        // From before the millisecond it covers all of it, whatever the order; but it must reach the page that waits,
        // or there would be a gap between them. Where it cannot do both it begins half a page ahead, and has to be
        // known again.
        let size = self.reader.series.size() as u64;
        let start = self.reader.series.before(run.crowd.number()).filter(|start| start + size > offset);
        let start = start.unwrap_or(offset.saturating_sub(size / 2));
        let query = self.reader.query(&self.reader.series.filter, start, PAGE);
        let between = self.reader.beside(query).await?;
        let between = self.reader.understood(between)?;
        let (length, crowd) = (between.len(), run::most_of_one(&between));
        let mut new = match run.join(between, self.reader.series.shared(start)) {
            Ok(new) => new,
            Err(NotJoined { moved_by, .. }) => {
                self.reader.series.moved((moved_by > 0).then_some(moved_by));
                return Ok(Vec::new());
            }
        };
        // On a copy: if the page that waits does not join now, the run ends with this one, and what was not given is
        // read again by the repair.
        run.advance(&new);
        self.reader.series.joined(JoinedPage { offset: start, length, crowd, before: 0, new: new.len() });
        let (length, crowd) = (page.len(), run::most_of_one(&page));
        if let Ok(more) = run.join(page, self.reader.series.shared(offset)) {
            self.reader.series.joined(JoinedPage { offset, length, crowd, before: 0, new: more.len() });
            (self.is_astray, self.is_near) = (false, false);
            self.short = (length < PAGE).then_some(ShortPage { length, is_new: !more.is_empty() });
            new.extend(more);
        }
        Ok(new)
    }

    /// Goes on from the last message in a new series: by its offset, where the present one is in the second that it is
    /// in, else by its time.
    async fn repair(&mut self) -> Result<Vec<Message>, Error> {
        self.repairs += 1;
        let was_near = self.is_near;
        (self.is_astray, self.is_near) = (false, false);
        let Some(run) = &self.run else { return Ok(Vec::new()) };
        let (ms, given) = (run.last_ms, run.crowd.number());
        let filter = self.reader.window_from(ms);
        let series = &mut self.reader.series;
        let by_offset = was_near || series.filter == filter;
        if series.shortest() > 0 {
            // What is begun far ahead is in vain where the next page does not join either.
            series.in_flight.be_careful();
        }
        // Before the last millisecond by as many as were given of it, one more, and as far as the list moved: the page
        // is to begin before it. Expiry moves messages to lower offsets, so it may still begin too late.
        if by_offset && let Some(offset) = series.at.checked_sub(given + BEFORE + series.drift()) {
            let present = series.filter.clone();
            if let Some(piece) = self.pieces().read_whole(&present, offset, ms, None, Head::Before).await? {
                return self.pass_over(piece);
            }
        }
        // By time: a window that begins with the message's own second has nothing before it that could move its
        // offsets.
        let piece = self.pieces().read_whole(&filter, 0, ms, None, Head::Any).await?.unwrap_or_default();
        self.pass_over(piece)
    }

    fn pieces(&mut self) -> PieceReader<'_, P> {
        PieceReader { reader: &mut self.reader, end: &mut self.end }
    }

    /// The messages of a piece, which are the last that were read.
    fn took(&mut self, piece: WholePiece) -> Vec<Message> {
        (self.is_last, self.short) = (piece.is_last, piece.short);
        piece.messages
    }

    /// What is new in a piece that holds all of the last millisecond.
    fn pass_over(&mut self, piece: WholePiece) -> Result<Vec<Message>, Error> {
        let messages = self.took(piece);
        let Some(run) = &mut self.run else { return Ok(messages) };
        run.pass_over(messages).ok_or_else(piece::untold)
    }

    /// The messages behind those that are to be skipped.
    async fn jump(&mut self) -> Result<Vec<Message>, Error> {
        let mut before = self.selection.unskipped(self.reader.series.at);
        for _ in 0..MAX_JUMPS {
            self.begin_at(self.selection.behind_skipped(before));
            let new = self.first().await?;
            match self.selection.before_the_wanted(&mut self.reader, before).await? {
                Some(now) if now == before => {
                    self.selection.jumped();
                    return Ok(new);
                }
                Some(now) => before = now,
                None => break,
            }
        }
        self.begin_at(0);
        self.selection.read_all();
        Ok(Vec::new())
    }

    /// Reads as if nothing had been read.
    fn begin_at(&mut self, offset: u64) {
        self.reader.series.begin_anew(self.reader.filter.clone(), offset);
        (self.run, self.short, self.end.cut) = (None, None, None);
        (self.is_astray, self.is_near) = (false, false);
        (self.ended, self.is_last) = (false, false);
    }
}
