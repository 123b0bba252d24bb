//! [`ListReader`]: asks for pages of one list, those of a series side by side, and single ones beside it.
//!
//! Invariant: what it returns is in the list's order and has its times; a page that is not is the vendor's fault, and
//! is refused rather than joined on.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt as _;

use super::PAGE;
use super::run::{self, Message};
use super::series::Series;
use crate::history::error::Error;
use crate::vendor::history::{Direction, Filter, PageQuery};

/// One page of the vendor.
#[derive(Clone, Debug, Default)]
pub(in crate::history) struct Page {
    /// The messages' own texts.
    pub(in crate::history) texts: Vec<Bytes>,
    pub(in crate::history) took: Duration,
    /// How much of that its orders waited for seats of the quota.
    pub(in crate::history) waited: Duration,
}

/// Where pages come from.
pub(in crate::history) trait Pages: Send + Sync + 'static {
    /// One page: an unbroken piece of the list at some instant between this call and its end.
    fn page(&self, query: PageQuery) -> impl Future<Output = Result<Page, Error>> + Send;
}

/// Reads one list in one direction.
pub(super) struct ListReader<P> {
    pub(super) pages: Arc<P>,
    /// The caller's window; the series may be in a part of it.
    pub(super) filter: Filter,
    pub(super) direction: Direction,
    pub(super) series: Series,
    /// How many messages are still wanted: no more pages are begun than hold those.
    pub(super) wanted: usize,
}

impl<P: Pages> ListReader<P> {
    /// The next page of the series, and its offset.
    pub(super) async fn next_of_series(&mut self) -> Result<(u64, Vec<Message>), Error> {
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
        self.series.poll(cx, self.wanted, |filter, offset| {
            let pages = Arc::clone(pages);
            async move { pages.page(PageQuery { filter, offset, limit: PAGE, direction }).await }
        })
    }

    /// A page beside the series, of which nothing is begun meanwhile; but what is under way is moved on, for standing
    /// still it would keep its seats of the quota.
    pub(super) async fn beside(&mut self, query: PageQuery) -> Result<Vec<Bytes>, Error> {
        let pages = Arc::clone(&self.pages);
        let mut asked = async move { pages.page(query).await }.boxed();
        let page = std::future::poll_fn(|cx| {
            let ended = asked.poll_unpin(cx);
            while ended.is_pending() && self.series.in_flight.poll(cx) {}
            ended
        });
        Ok(page.await?.texts)
    }

    /// A page by itself. There must be none under way.
    pub(super) async fn alone(&mut self, filter: &Filter, offset: u64) -> Result<Vec<Message>, Error> {
        let page = self.pages.page(self.query(filter, offset, PAGE)).await?;
        self.understood(page.texts)
    }

    pub(super) fn query(&self, filter: &Filter, offset: u64, limit: usize) -> PageQuery {
        PageQuery { filter: filter.clone(), offset, limit, direction: self.direction }
    }

    /// The part of the window that begins no later than `ms`, whatever the vendor's edges mean: whether a window takes
    /// its first instant and all of its last second is not documented.
    pub(super) fn window_from(&self, ms: u64) -> Filter {
        let mut filter = self.filter.clone();
        match self.direction {
            Direction::Asc => filter.start = (ms.saturating_sub(1) / 1000).clamp(filter.start, filter.end),
            Direction::Desc => filter.end = (ms / 1000 + 1).clamp(filter.start, filter.end),
        }
        filter
    }

    pub(super) fn understood(&self, texts: Vec<Bytes>) -> Result<Vec<Message>, Error> {
        let page: Option<Vec<_>> = texts.into_iter().map(Message::read).collect();
        let page = page.ok_or_else(|| Error::BadUpstream("a message has no time".into()))?;
        if !self.in_order(&page) {
            return Err(Error::BadUpstream("a page's messages are not in order".into()));
        }
        Ok(page)
    }

    pub(super) fn in_order(&self, messages: &[Message]) -> bool {
        messages.is_sorted_by(|a, b| !self.is_before(b.ms, a.ms))
    }

    /// Whether one millisecond comes earlier in the list than another.
    pub(super) fn is_before(&self, a: u64, b: u64) -> bool {
        run::is_before(self.direction, a, b)
    }
}
