//! Many pages as one list: in order, without gap or repeat, while messages arrive and expire.
//!
//! Each page is a query of its own that the vendor evaluates at its own instant, so an offset means another message from
//! page to page: arrivals shift a descending list, expiry an ascending one. What holds always is that a page is an
//! unbroken piece of the list at one instant, in order of `ms`. Hence:
//!
//! - **A page may be joined on only when it *covers* the end of what is there**: it begins strictly before the last
//!   message's millisecond, or at the head of a window that contains it. Then it holds all that is in that millisecond
//!   and all that follows; what is known already is skipped by counting equal texts. **Or when it is *known again***: it begins
//!   among the messages of that millisecond where its offset says, some that occur once only stand in it in the same order, and
//!   none that follows was given ([`Run`]): then no other order can leave any out. So however many share a millisecond,
//!   neighbours need to share only a few.
//! - **Offsets are a guess, verified.** A *series* of pages whose offsets overlap by a few messages is asked for side by
//!   side ([`series`], [`flight`]). While nothing moves, or little, each joins on the one before.
//! - **A page that begins in the last millisecond itself and is not known again is bridged**: a page from
//!   before it closes the gap while the series goes on.
//! - **A page that does not join otherwise is repaired** ([`sweep`]): by offset, from just before the last millisecond, where
//!   only that is in doubt; else by key: a new series begins in a window whose first second holds the last message. What
//!   expired meanwhile, the last message included, does no harm; and in that window offsets stand still, for what moves is at
//!   the list's ends. So a descending list that grows, whose pages bring less new than they should, is repaired too. A
//!   list that is gone on with begins so.
//! - Where not even the pages of a repair join each other, because the messages of a millisecond are alike, they are read
//!   one behind the other, and count only if all of them read the same a second time; else it is done again. Messages that come
//!   in another order each time and are more than a page cannot be told apart, and that is said.
//! - **A page that is not full does not end the list**: an empty one does, or one look from the other end ([`ending`]).
//! - **What is to be skipped is not read**, also where the window begins within a second ([`jump`]).
//!
//! Memory: the pages in flight and the last millisecond, whatever the size of the list. Pages are begun only while
//! [`Pager::next`] is awaited and the page it waits for is not there, so a slow reader holds everything back, and a
//! dropped pager asks for nothing more.

mod ending;
mod flight;
mod jump;
mod pace;
mod run;
mod series;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt as _;

use super::Error;
use super::query::{Query, Side, Within};
use crate::vendor::history::{Direction, Filter, PAGE_SIZES, PageQuery, message_ms};
use ending::{Ending, Over};
use jump::Skip;
pub(super) use run::Run;
use run::{Apart, Message};
use series::Series;
use sweep::{Head, SWEEPS};

/// The vendor's largest page.
const PAGE: usize = PAGE_SIZES[PAGE_SIZES.len() - 1];

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
    /// Of what the window selects, that alone is wanted, and counts.
    within: Within,
    /// How many of it are to be skipped, where that is not done by an offset.
    skip: Skip,
    /// How many messages are still wanted.
    left: usize,
    /// One page could hold all that is wanted: what the vendor gives of it is enough.
    is_single: bool,
    ended: bool,
    /// The end of what was given; `None` before the first.
    run: Option<Run>,
    /// The series leads nowhere: a repair is due.
    is_astray: bool,
    /// Only the last millisecond is in doubt: the repair may begin at an offset just before it.
    is_near: bool,
    /// The page that was joined last was not full, held so many, and brought something new or not: whether the list ends
    /// there is to be found out before more is asked for.
    short: Option<(usize, bool)>,
    /// The millisecond of the first message behind an offset, which may have skipped others of it.
    cut: Option<u64>,
    /// What was read last is all there is.
    is_last: bool,
    /// How often in a row nothing new came.
    idle: u32,
    series: Series,
    ending: Ending,
    repairs: u64,
}

impl<P: Pages> Pager<P> {
    /// Begins to read. Nothing is asked before the first [`Pager::next`].
    pub(super) fn new(pages: Arc<P>, query: &Query) -> Self {
        // How many come before what is wanted is not known yet.
        let is_cut = query.within.begins_late(query.direction);
        let (offset, skip) = if is_cut { (0, query.offset) } else { (query.offset, 0) };
        Self {
            pages,
            filter: query.filter.clone(),
            direction: query.direction,
            within: query.within,
            skip: Skip::new(skip, !is_cut),
            left: query.limit,
            is_single: query.limit <= PAGE && !is_cut,
            ended: false,
            run: None,
            is_astray: false,
            is_near: false,
            short: None,
            cut: None,
            is_last: false,
            idle: 0,
            series: Series::new(query.filter.clone(), offset),
            ending: Ending::default(),
            repairs: 0,
        }
    }

    /// Begins to read after the end of what was given elsewhere, if anything was, and knows at any time where one can go
    /// on ([`Pager::place`]).
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
        while !self.ended && self.left > 0 {
            if self.is_single {
                self.ended = true;
                let texts = self.only_page().await?;
                return Ok((!texts.is_empty()).then_some(texts));
            }
            if let Some((length, is_new)) = self.short.take() {
                self.go_beyond(length, is_new).await?;
                continue;
            }
            let new = match (self.is_astray, self.run.is_some()) {
                _ if self.is_to_jump() => self.jump().await?,
                (true, true) => self.repair().await?,
                (false, true) => self.further().await?,
                (_, false) => self.first().await?,
            };
            self.ended |= self.is_last;
            self.idle = if new.is_empty() { self.idle + 1 } else { 0 };
            if self.idle > SWEEPS {
                return Err(sweep::moving());
            }
            let given = self.give(new);
            if !given.is_empty() {
                return Ok(Some(given));
            }
        }
        Ok(None)
    }

    /// Takes of these what is wanted; they follow what was given.
    fn give(&mut self, new: Vec<Message>) -> Vec<Bytes> {
        let (mut given, mut read) = (Vec::new(), 0);
        for message in &new {
            match self.within.side(self.direction, message.ms) {
                Side::Behind => {
                    self.ended = true;
                    break;
                }
                Side::Before => {}
                Side::In if self.skip.one() => {}
                Side::In => {
                    given.push(message.text.clone());
                    self.left -= 1;
                }
            }
            read += 1;
            if self.left == 0 {
                break;
            }
        }
        match &mut self.run {
            Some(run) => run.advance(&new[..read]),
            None => self.run = Run::begin(self.direction, &new[..read]),
        }
        given
    }

    /// Sees to it that what is under way keeps no seat while nobody asks for it. Begins nothing; may be dropped.
    pub(super) async fn settle(&mut self) {
        self.series.flight.settle().await;
    }

    /// What fits in one page of the vendor needs no joining, nor to be understood.
    async fn only_page(&mut self) -> Result<Vec<Bytes>, Error> {
        let limit = PAGE_SIZES.into_iter().find(|size| *size >= self.left).unwrap_or(PAGE);
        let mut texts = self.pages.page(self.query(&self.filter, self.series.at, limit)).await?.texts;
        if !self.within.is_all() {
            texts.retain(|text| message_ms(text).is_none_or(|ms| self.within.holds(ms)));
        }
        texts.truncate(self.left);
        Ok(texts)
    }

    async fn first(&mut self) -> Result<Vec<Message>, Error> {
        let (offset, page) = self.next_of_series().await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            self.ended = true;
            return Ok(page);
        };
        self.cut = (offset > 0).then_some(first.ms);
        if offset > 0 && first.ms == last.ms {
            // How many of this millisecond the offset skipped is not known, so a repair could not tell them from
            // those still to come: all of the millisecond is read now.
            let (filter, ms) = (self.filter.clone(), first.ms);
            let all = self.read_whole(&filter, offset, ms, Some((offset, page)), Head::Any).await?;
            return Ok(all.unwrap_or_default());
        }
        self.series.joined(offset, page.len(), run::most_of_one(&page), 0, page.len());
        self.series.settle_in();
        self.short = (page.len() < PAGE).then_some((page.len(), true));
        Ok(page)
    }

    async fn further(&mut self) -> Result<Vec<Message>, Error> {
        let (offset, page) = self.next_of_series().await?;
        let Some(run) = &self.run else { return Ok(page) };
        if page.is_empty() {
            self.short = Some((0, false));
            return Ok(page);
        }
        let (length, most) = (page.len(), run::most_of_one(&page));
        let before = page.iter().take_while(|message| self.is_before(message.ms, run.last_ms)).count();
        match run.join(page, self.series.shared(offset)) {
            Ok(new) => {
                self.series.joined(offset, length, most, before, new.len());
                self.short = (length < PAGE).then_some((length, !new.is_empty()));
                self.is_astray = self.series.is_wasteful();
                Ok(new)
            }
            Err(apart) => self.bridge(offset, apart).await,
        }
    }

    /// The list ends behind a page that was not full, or the vendor gives fewer than it is asked for.
    async fn go_beyond(&mut self, length: usize, is_new: bool) -> Result<(), Error> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let is_over = self.is_over(&run, is_new).await;
        self.run = Some(run);
        let is_over = is_over?;
        self.ended = is_over == Over::Yes;
        if self.ended {
            return Ok(());
        }
        if length == 0 || is_over == Over::Moved {
            self.is_astray = true;
        } else if length < self.series.size() {
            self.series.ended_early(length);
        }
        Ok(())
    }

    /// Joins a page on that begins too late, by one from before it. What cannot be joined so is left to a
    /// repair.
    async fn bridge(&mut self, offset: u64, Apart { page, moved_by }: Apart) -> Result<Vec<Message>, Error> {
        self.is_astray = true;
        let (Some(run), Some(first)) = (&self.run, page.first()) else { return Ok(Vec::new()) };
        self.is_near = first.ms == run.last_ms;
        if !self.is_near || moved_by > 0 {
            self.series.moved((moved_by > 0).then_some(moved_by));
        }
        if !self.is_near || !self.series.in_trouble(offset) {
            return Ok(Vec::new());
        }
        let mut run = run.clone();
        // Before the millisecond, where the page from there reaches this one; else as far as one page may.
        let size = self.series.size() as u64;
        let start = self.series.before(run.crowd.number()).filter(|start| start + size > offset);
        let start = start.unwrap_or(offset.saturating_sub(size / 2));
        let query = self.query(&self.series.filter, start, PAGE);
        let between = self.beside(query).await?;
        let between = self.understood(between)?;
        let (length, most) = (between.len(), run::most_of_one(&between));
        let mut new = match run.join(between, self.series.shared(start)) {
            Ok(new) => new,
            Err(Apart { moved_by, .. }) => {
                self.series.moved((moved_by > 0).then_some(moved_by));
                return Ok(Vec::new());
            }
        };
        run.advance(&new);
        self.series.joined(start, length, most, 0, new.len());
        let (length, most) = (page.len(), run::most_of_one(&page));
        if let Ok(more) = run.join(page, self.series.shared(offset)) {
            self.series.joined(offset, length, most, 0, more.len());
            (self.is_astray, self.is_near) = (false, false);
            self.short = (length < PAGE).then_some((length, !more.is_empty()));
            new.extend(more);
        }
        Ok(new)
    }

    /// A page beside the series, of which nothing is begun meanwhile; but what is under way would keep its seats standing still.
    async fn beside(&mut self, query: PageQuery) -> Result<Vec<Bytes>, Error> {
        let pages = Arc::clone(&self.pages);
        let mut asked = async move { pages.page(query).await }.boxed();
        let page = std::future::poll_fn(|cx| {
            let ended = asked.poll_unpin(cx);
            while ended.is_pending() && self.series.flight.poll(cx) {}
            ended
        });
        Ok(page.await?.texts)
    }

    /// The next page of the series, and its offset.
    async fn next_of_series(&mut self) -> Result<(u64, Vec<Message>), Error> {
        let (offset, texts) = std::future::poll_fn(|cx| {
            loop {
                if let Some(taken) = self.series.take() {
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
        let (pages, direction) = (&self.pages, self.direction);
        self.series.poll(cx, self.left, |filter, offset| {
            let pages = Arc::clone(pages);
            async move { pages.page(PageQuery { filter, offset, limit: PAGE, direction }).await }
        })
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
