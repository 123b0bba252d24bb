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
//!   side. While nothing moves, or little, each covers the end of the one before.
//! - **A page that does not cover is repaired by key**: a new series begins in a window whose first second holds the last
//!   message, read from its head ([`Pager::sweep`]) until something follows. What expired meanwhile, the last message
//!   included, does no harm.
//! - A sweep longer than a page (more than 100 messages in that second) goes on by pages that overlap by half. Where
//!   even those do not cover each other, because so many share a millisecond, it is read side by side, and counts only
//!   if all of it reads the same a second time; else it is done again.
//! - The list ends at a page that is not full.
//!
//! Memory: the pages in flight and the last millisecond, whatever the size of the list. Pages move only while
//! [`Pager::next`] is awaited, so a slow reader holds everything back, and a dropped pager asks for nothing more.

mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, FuturesOrdered};
use tokio::time::sleep;

use super::Error;
use super::query::Query;
use crate::vendor::history::{Direction, Filter, PAGE_SIZES, PageQuery};
use run::{Message, Run};

/// The vendor's largest page.
const PAGE: usize = PAGE_SIZES[PAGE_SIZES.len() - 1];

/// How many messages neighbours share at first. One fewer may expire between two evaluations without a repair.
const OVERLAP: usize = 4;

/// Pages in flight at first: it grows by one with each full page, so a short list costs one page too many at most.
const WINDOW_MIN: usize = 2;

/// Pages in flight at most. The quota decides how fast they go.
const WINDOW_MAX: usize = 24;

/// How often a window is swept anew because its head moved meanwhile, and the first wait between.
const SWEEPS: u32 = 8;
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// Pages in flight when a sweep is read for the second time.
const SWEEP_WINDOW: usize = 8;

/// Most messages in one sweep, so that one second of an absurd list cannot take all memory.
const SWEEP_MAX: usize = 100_000;

/// Where pages come from.
pub(super) trait Pages: Send + Sync + 'static {
    /// One page: an unbroken piece of the list at some instant between this call and its end.
    fn page(&self, query: PageQuery) -> impl Future<Output = Result<Vec<Bytes>, Error>> + Send;
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
    run: Option<Run>,
    series: Series,
}

/// Pages asked for side by side, in one window.
struct Series {
    filter: Filter,
    next_offset: u64,
    overlap: usize,
    window: usize,
    flight: FuturesOrdered<BoxFuture<'static, Result<Vec<Bytes>, Error>>>,
    /// Full pages in a row that held nothing new.
    idle: usize,
}

impl Series {
    fn new(filter: Filter, next_offset: u64, overlap: usize) -> Self {
        Self { filter, next_offset, overlap, window: WINDOW_MIN, flight: FuturesOrdered::new(), idle: 0 }
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
            series: Series::new(query.filter.clone(), query.offset, OVERLAP),
        }
    }

    /// The next messages, at least one; `None` when the list or the limit is at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        while !self.ended {
            let mut texts = if self.run.is_some() {
                texts(self.further().await?)
            } else if self.left <= PAGE {
                self.only_page().await?
            } else {
                texts(self.first().await?)
            };
            texts.truncate(self.left);
            self.left -= texts.len();
            self.ended |= self.left == 0;
            if !texts.is_empty() {
                return Ok(Some(texts));
            }
        }
        Ok(None)
    }

    /// What fits in one page of the vendor needs no joining, nor to be understood.
    async fn only_page(&mut self) -> Result<Vec<Bytes>, Error> {
        self.ended = true;
        let limit = PAGE_SIZES.into_iter().find(|size| *size >= self.left).unwrap_or(PAGE);
        self.pages.page(self.query(&self.filter, self.series.next_offset, limit)).await
    }

    async fn first(&mut self) -> Result<Vec<Message>, Error> {
        let offset = self.series.next_offset;
        let mut page = self.next_of_series().await?;
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
            self.series = Series::new(filter, next, OVERLAP);
        }
        self.run = Run::begin(self.direction, &page);
        self.ended = !full;
        Ok(page)
    }

    async fn further(&mut self) -> Result<Vec<Message>, Error> {
        let page = self.next_of_series().await?;
        let Some(run) = &mut self.run else { return Ok(page) };
        if !run.covered_by(&page) || self.series.idle >= WINDOW_MAX {
            return self.repair().await;
        }
        self.ended = page.len() < PAGE;
        let new = run.extend(page);
        self.series.idle = if new.is_empty() { self.series.idle + 1 } else { 0 };
        Ok(new)
    }

    /// Goes on from the last message by its time, in a new series.
    async fn repair(&mut self) -> Result<Vec<Message>, Error> {
        let Some(last_ms) = self.run.as_ref().map(Run::last_ms) else { return Ok(Vec::new()) };
        let filter = self.from(last_ms);
        let (page, full) = self.sweep(&filter, 0, last_ms).await?;
        let swept = page.len();
        let Some(run) = &mut self.run else { return Ok(Vec::new()) };
        let new = run.extend(page);
        // Messages crowd in milliseconds here: neighbours must share more than one such crowd to cover each other.
        let overlap = (2 * run.in_last_ms() + OVERLAP).min(PAGE * 2 / 3);
        self.series = Series::new(filter, swept.saturating_sub(overlap) as u64, overlap);
        self.ended = !full;
        Ok(new)
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

    /// Reads a window from an offset on, one page after another, until a message lies beyond `ms` or the list ends.
    /// Gives an unbroken piece, and whether more may follow.
    async fn sweep(&mut self, filter: &Filter, offset: u64, ms: u64) -> Result<(Vec<Message>, bool), Error> {
        // The series is given up: what is in flight would stand still, and keep seats, while this is awaited.
        self.series.flight.clear();
        let mut pause = SWEEP_PAUSE;
        for _ in 0..SWEEPS {
            if let Some(piece) = self.sweep_joined(filter, offset, ms).await? {
                return Ok(piece);
            }
            if let Some(piece) = self.sweep_still(filter, offset, ms).await? {
                return Ok(piece);
            }
            sleep(pause).await;
            pause *= 2;
        }
        Err(Error::BadUpstream("the list of messages moves faster than it can be read".into()))
    }

    /// A sweep of pages that overlap by half and must cover each other. Nothing if one does not.
    async fn sweep_joined(
        &mut self,
        filter: &Filter,
        mut offset: u64,
        ms: u64,
    ) -> Result<Option<(Vec<Message>, bool)>, Error> {
        let mut piece = self.page(filter, offset).await?;
        let mut full = piece.len() >= PAGE;
        let Some(mut run) = Run::begin(self.direction, &piece) else { return Ok(Some((piece, full))) };
        while full && !self.is_before(ms, run.last_ms()) {
            offset = offset.saturating_add(PAGE as u64 / 2);
            let page = self.page(filter, offset).await?;
            if !run.covered_by(&page) {
                return Ok(None);
            }
            full = page.len() >= PAGE;
            piece.extend(run.extend(page));
            bounded(&piece)?;
        }
        Ok(Some((piece, full)))
    }

    /// A sweep of pages side by side that must read the same a second time. Nothing if they do not.
    async fn sweep_still(
        &mut self,
        filter: &Filter,
        offset: u64,
        ms: u64,
    ) -> Result<Option<(Vec<Message>, bool)>, Error> {
        let mut piece = Vec::new();
        let mut full = true;
        while full && piece.last().is_none_or(|last: &Message| !self.is_before(ms, last.ms)) {
            let page = self.page(filter, offset.saturating_add(piece.len() as u64)).await?;
            full = page.len() >= PAGE;
            piece.extend(page);
            bounded(&piece)?;
        }
        Ok(self.is_still(filter, offset, &piece).await?.then_some((piece, full)))
    }

    /// Whether the same messages are there at the same offsets now.
    async fn is_still(&mut self, filter: &Filter, offset: u64, piece: &[Message]) -> Result<bool, Error> {
        let queries = (0..piece.len())
            .step_by(PAGE)
            .map(|skip| self.query(filter, offset.saturating_add(skip as u64), PAGE))
            .collect::<Vec<_>>();
        let pages = Arc::clone(&self.pages);
        let mut again = stream::iter(queries)
            .map(|query| {
                let pages = Arc::clone(&pages);
                async move { pages.page(query).await }
            })
            .buffered(SWEEP_WINDOW);
        let mut left = piece.iter();
        while let Some(page) = again.next().await {
            if !page?.iter().all(|text| left.next().is_some_and(|message| message.text == *text)) {
                return Ok(false);
            }
        }
        Ok(left.next().is_none() && self.in_order(piece))
    }

    async fn next_of_series(&mut self) -> Result<Vec<Message>, Error> {
        let stride = PAGE - self.series.overlap;
        while self.series.flight.is_empty()
            || (self.series.flight.len() < self.series.window && self.left > self.series.flight.len() * stride)
        {
            let query = self.query(&self.series.filter, self.series.next_offset, PAGE);
            let pages = Arc::clone(&self.pages);
            self.series.flight.push_back(async move { pages.page(query).await }.boxed());
            self.series.next_offset = self.series.next_offset.saturating_add(stride as u64);
        }
        let page = self.series.flight.next().await.unwrap_or_else(|| Ok(Vec::new()))?;
        if page.len() >= PAGE {
            self.series.window = (self.series.window + 1).min(WINDOW_MAX);
        }
        self.understood(page)
    }

    async fn page(&mut self, filter: &Filter, offset: u64) -> Result<Vec<Message>, Error> {
        let texts = self.pages.page(self.query(filter, offset, PAGE)).await?;
        self.understood(texts)
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

fn bounded(piece: &[Message]) -> Result<(), Error> {
    if piece.len() > SWEEP_MAX {
        return Err(Error::BadUpstream("too many messages in one second".into()));
    }
    Ok(())
}

fn texts(messages: Vec<Message>) -> Vec<Bytes> {
    messages.into_iter().map(|message| message.text).collect()
}
