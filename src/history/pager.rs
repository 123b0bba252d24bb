//! Many pages as one list: in order, without gap or repeat, while messages arrive and expire.
//!
//! Each page is a query of its own that the vendor evaluates at its own instant, so an offset means another message from
//! page to page: arrivals shift a descending list, expiry an ascending one. What holds always is that a page is an
//! unbroken piece of the list at one instant, in order of `ms`. Hence:
//!
//! - **A page may be joined on only when it *covers* the end of what is there**: it begins strictly before the last
//!   message's millisecond, or at the head of a window that contains it. Then it holds all that is in that millisecond
//!   and all that follows; what is known already is skipped by counting equal texts ([`Run`]).
//! - **Offsets are a guess, verified.** A *series* of pages whose offsets overlap by a few messages is asked for side by
//!   side ([`Flight`]). While nothing moves, or little, each covers the end of the one before. How many messages overlap
//!   follows from how many were needed of late: each costs one part in a hundred of the quota.
//! - **A page that begins in the last millisecond itself is bridged**: messages crowd there, and a page from half a page
//!   before closes the gap while the series goes on.
//! - **A page that does not cover otherwise is repaired by key**: a new series begins in a window whose first second holds
//!   the last message, read from its head ([`Pager::sweep`]) until something follows. What expired meanwhile, the last
//!   message included, does no harm; and in that window offsets stand still, for what moves is at the list's ends. So a
//!   descending list that grows, whose pages bring less new than they should, is repaired too. A list that is gone on with begins so.
//! - A sweep longer than a page (more than 100 messages in that second) goes on by pages that overlap by half. Where
//!   even those do not cover each other, because so many share a millisecond, it is read side by side, and counts only
//!   if all of it reads the same a second time; else it is done again.
//! - The list ends at a page that is not full.
//!
//! Memory: the pages in flight and the last millisecond, whatever the size of the list. Pages are begun only while
//! [`Pager::next`] is awaited and the page it waits for is not there, so a slow reader holds everything back, and a
//! dropped pager asks for nothing more.

mod flight;
mod pace;
mod run;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt as _;

use super::Error;
use super::query::Query;
use crate::vendor::history::{Direction, Filter, PAGE_SIZES, PageQuery};
use flight::Flight;
use run::Message;
pub(super) use run::Run;

/// The vendor's largest page.
const PAGE: usize = PAGE_SIZES[PAGE_SIZES.len() - 1];

/// How many messages neighbours share at first. One may expire between two evaluations.
const OVERLAP: usize = 3;

/// How many at least: with fewer even a list that rests would not be covered.
const OVERLAP_MIN: usize = 2;

/// How many at most.
const OVERLAP_MAX: usize = PAGE * 2 / 3;

/// After so many pages in a row that shared more than they had to, they share one less.
const CALM: u32 = 32;

/// What a bridge adds to a series' trouble; a page that joins takes one off.
const BRIDGED: u32 = 10;

/// With more trouble than that a series is repaired: a bridge costs less, but each is waited for.
const TROUBLE: u32 = 40;

/// So many messages may be read again, for the list's growth, before a series is repaired.
const WASTED: u64 = 2 * PAGE as u64;

/// One page of the vendor.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// The messages' own texts.
    pub(super) texts: Vec<Bytes>,
    /// How long it took.
    pub(super) took: Duration,
    /// How much of that its orders waited for seats of the quota.
    pub(super) waited: Duration,
}

/// Where pages come from.
pub(super) trait Pages: Send + Sync + 'static {
    /// One page: an unbroken piece of the list at some instant between this call and its end.
    fn page(&self, query: PageQuery) -> impl Future<Output = Result<Page, Error>> + Send;
}

/// A list being read.
pub(super) struct Pager<P> {
    pages: Arc<P>,
    /// The caller's window; a series may be in a part of it.
    filter: Filter,
    direction: Direction,
    /// How many messages are still wanted.
    left: usize,
    ended: bool,
    /// The end of what was given; `None` before the first.
    run: Option<Run>,
    /// It must be known where what was given ends, also when it is no more than a page.
    keeps_place: bool,
    /// The series leads nowhere: a repair is due.
    astray: bool,
    series: Series,
    repairs: u64,
}

/// Pages asked for side by side, in one window.
struct Series {
    filter: Filter,
    /// Where the page that was begun last ends; the next overlaps it.
    reach: u64,
    overlap: usize,
    flight: Flight,
    calm: u32,
    trouble: u32,
    /// The offset of the page that was joined on last.
    joined_at: Option<u64>,
    /// How many messages were read again beyond what neighbours share.
    wasted: u64,
}

impl Series {
    /// A series whose first page is at that offset.
    fn new(filter: Filter, offset: u64, overlap: usize) -> Self {
        let reach = offset.saturating_add(overlap as u64);
        Self { filter, reach, overlap, flight: Flight::default(), calm: 0, trouble: 0, joined_at: None, wasted: 0 }
    }

    /// Another series in its place. What is under way is given up; how much may be is known.
    fn begin_anew(&mut self, filter: Filter, offset: u64, overlap: usize) {
        self.flight.clear();
        let flight = std::mem::take(&mut self.flight);
        *self = Self { flight, ..Self::new(filter, offset, overlap) };
    }

    /// How far neighbours are apart.
    fn stride(&self) -> usize {
        PAGE - self.overlap
    }

    /// The page at that offset was joined on, of which so many come before the last millisecond, and so many are new.
    fn joined(&mut self, offset: u64, before: usize, new: usize) {
        self.trouble = self.trouble.saturating_sub(1);
        let expected = self.joined_at.map_or(0, |before| offset - before);
        self.joined_at = Some(offset);
        self.wasted += expected.saturating_sub(new as u64);
        self.calm = if before > 1 { self.calm + 1 } else { 0 };
        if self.calm >= CALM {
            self.calm = 0;
            self.overlap = (self.overlap - 1).max(OVERLAP_MIN);
        }
    }
}

impl<P: Pages> Pager<P> {
    /// Begins to read. Nothing is asked before the first [`Pager::next`].
    pub(super) fn new(pages: Arc<P>, query: &Query) -> Self {
        Self {
            pages,
            filter: query.filter.clone(),
            direction: query.direction,
            left: query.limit,
            ended: false,
            run: None,
            keeps_place: false,
            astray: false,
            series: Series::new(query.filter.clone(), query.offset, OVERLAP),
            repairs: 0,
        }
    }

    /// Begins to read after the end of what was given elsewhere, if anything was, and knows at any time where one can go
    /// on ([`Pager::place`]).
    pub(super) fn resume(pages: Arc<P>, query: &Query, after: Option<Run>) -> Self {
        Self { keeps_place: true, astray: after.is_some(), run: after, ..Self::new(pages, query) }
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
        while !self.ended && self.left > 0 {
            if self.run.is_none() && self.left <= PAGE && !self.keeps_place {
                self.ended = true;
                let texts = self.only_page().await?;
                return Ok((!texts.is_empty()).then_some(texts));
            }
            let mut new = match (self.astray, &self.run) {
                (true, Some(run)) => {
                    let last_ms = run.last_ms;
                    self.repair(last_ms).await?
                }
                (false, Some(_)) => self.further().await?,
                (_, None) => self.first().await?,
            };
            new.truncate(self.left);
            self.left -= new.len();
            match &mut self.run {
                Some(run) => run.advance(&new),
                None => self.run = Run::begin(self.direction, &new),
            }
            if !new.is_empty() {
                return Ok(Some(new.into_iter().map(|message| message.text).collect()));
            }
        }
        Ok(None)
    }

    /// Sees to it that what is under way keeps no seat while nobody asks for it. Begins nothing; may be dropped.
    pub(super) async fn settle(&mut self) {
        self.series.flight.settle().await;
    }

    /// What fits in one page of the vendor needs no joining, nor to be understood.
    async fn only_page(&mut self) -> Result<Vec<Bytes>, Error> {
        let limit = PAGE_SIZES.into_iter().find(|size| *size >= self.left).unwrap_or(PAGE);
        let offset = self.series.reach.saturating_sub(self.series.overlap as u64);
        let mut texts = self.pages.page(self.query(&self.filter, offset, limit)).await?.texts;
        texts.truncate(self.left);
        Ok(texts)
    }

    async fn first(&mut self) -> Result<Vec<Message>, Error> {
        let (offset, mut page) = self.next_of_series().await?;
        let mut full = page.len() >= PAGE;
        if let (Some(first), Some(last)) = (page.first(), page.last())
            && full
            && offset > 0
            && first.ms == last.ms
        {
            // How many of this millisecond the offset skipped is not known, so a repair could not tell them from
            // those still to come: all of the millisecond is read now.
            let filter = self.filter.clone();
            (page, full) = self.sweep(&filter, offset, first.ms).await?;
            let next = offset.saturating_add(page.len().saturating_sub(OVERLAP) as u64);
            self.series.begin_anew(filter, next, OVERLAP);
        }
        self.ended = !full;
        Ok(page)
    }

    async fn further(&mut self) -> Result<Vec<Message>, Error> {
        let (offset, page) = self.next_of_series().await?;
        let Some(run) = &self.run else { return Ok(page) };
        if !run.covered_by(&page) {
            return self.bridge(offset, page).await;
        }
        let full = page.len() >= PAGE;
        let before = page.iter().take_while(|message| self.is_before(message.ms, run.last_ms)).count();
        let new = run.unknown(page);
        self.ended = !full;
        self.series.joined(offset, before, new.len());
        self.astray = self.series.wasted > WASTED;
        Ok(new)
    }

    /// Joins a page on that begins too late, by one from half a page before it. What cannot be joined so is left to a
    /// repair.
    async fn bridge(&mut self, offset: u64, page: Vec<Message>) -> Result<Vec<Message>, Error> {
        self.astray = true;
        let (Some(run), Some(first)) = (&self.run, page.first()) else { return Ok(Vec::new()) };
        self.series.trouble += BRIDGED;
        if first.ms != run.last_ms || self.series.trouble > TROUBLE {
            return Ok(Vec::new());
        }
        let mut run = run.clone();
        self.series.overlap = (self.series.overlap * 2).min(OVERLAP_MAX);
        let query = self.query(&self.series.filter, offset.saturating_sub(PAGE as u64 / 2), PAGE);
        let pages = Arc::clone(&self.pages);
        let mut asked = async move { pages.page(query).await }.boxed();
        let texts = std::future::poll_fn(|cx| {
            let ended = asked.poll_unpin(cx);
            if ended.is_pending() {
                self.poll_series(cx);
            }
            ended
        })
        .await?
        .texts;
        let between = self.understood(texts)?;
        if !run.covered_by(&between) {
            return Ok(Vec::new());
        }
        let mut new = run.unknown(between);
        run.advance(&new);
        if run.covered_by(&page) {
            self.series.joined_at = Some(offset);
            self.astray = false;
            self.ended = page.len() < PAGE;
            new.extend(run.unknown(page));
        }
        Ok(new)
    }

    /// Goes on from the last message by its time, in a new series.
    async fn repair(&mut self, last_ms: u64) -> Result<Vec<Message>, Error> {
        self.repairs += 1;
        let filter = self.from(last_ms);
        let (page, full) = self.sweep(&filter, 0, last_ms).await?;
        let swept = page.len();
        // Where messages crowd in milliseconds neighbours must share more than one such crowd to cover each other.
        let overlap = (2 * run::crowd(&page) + OVERLAP - 2).max(self.series.overlap).min(OVERLAP_MAX);
        self.series.begin_anew(filter, swept.saturating_sub(overlap) as u64, overlap);
        self.astray = false;
        self.ended = !full;
        let Some(run) = &mut self.run else { return Ok(page) };
        run.pass_over(page)
            .ok_or_else(|| Error::BadUpstream("the messages of one millisecond come in another order each time".into()))
    }

    /// The part of the window that begins no later than `ms`, whatever the vendor's edges mean: whether a window takes
    /// its first instant and all of its last second is not documented.
    fn from(&self, ms: u64) -> Filter {
        let mut filter = self.filter.clone();
        match self.direction {
            Direction::Asc => filter.start = (ms.saturating_sub(1) / 1000).clamp(filter.start, filter.end),
            Direction::Desc => filter.end = (ms / 1000 + 1).clamp(filter.start, filter.end),
        }
        filter
    }

    /// The next page of the series, and its offset.
    async fn next_of_series(&mut self) -> Result<(u64, Vec<Message>), Error> {
        let (offset, texts) = std::future::poll_fn(|cx| {
            loop {
                if let Some(taken) = self.series.flight.take() {
                    return Poll::Ready(taken);
                }
                if !self.poll_series(cx) {
                    return Poll::Pending;
                }
            }
        })
        .await;
        Ok((offset, self.understood(texts?)?))
    }

    /// Begins as many pages as there may be, and moves them. Says whether one has ended.
    fn poll_series(&mut self, cx: &mut Context<'_>) -> bool {
        let series = &mut self.series;
        while series.flight.is_empty()
            || (self.left > series.flight.len() * series.stride() && series.flight.has_room(cx))
        {
            let offset = series.reach.saturating_sub(series.overlap as u64);
            series.reach = offset.saturating_add(PAGE as u64);
            let filter = series.filter.clone();
            let query = PageQuery { filter, offset, limit: PAGE, direction: self.direction };
            let pages = Arc::clone(&self.pages);
            series.flight.begin(offset, async move { pages.page(query).await });
        }
        self.series.flight.poll(cx)
    }

    async fn page(&mut self, filter: &Filter, offset: u64) -> Result<Vec<Message>, Error> {
        let page = self.pages.page(self.query(filter, offset, PAGE)).await?;
        self.understood(page.texts)
    }

    fn query(&self, filter: &Filter, offset: u64, limit: usize) -> PageQuery {
        PageQuery { filter: filter.clone(), offset, limit, direction: self.direction }
    }

    fn understood(&self, texts: Vec<Bytes>) -> Result<Vec<Message>, Error> {
        let page: Option<Vec<_>> = texts.into_iter().map(Message::read).collect();
        let page = page.ok_or_else(|| Error::BadUpstream("a message has no time".into()))?;
        if !self.in_order(&page) {
            return Err(Error::BadUpstream("a page's messages are not in order".into()));
        }
        Ok(page)
    }

    fn in_order(&self, messages: &[Message]) -> bool {
        messages.is_sorted_by(|a, b| !self.is_before(b.ms, a.ms))
    }

    fn is_before(&self, a: u64, b: u64) -> bool {
        run::is_before(self.direction, a, b)
    }
}
