//! Pages asked for side by side and taken in their order.
//!
//! How many may be under way is found out ([`pace`]): as many as the vendor's latency times the quota's rate asks for,
//! and a few more, which wait for the next seats.
//!
//! Invariants:
//! - A page is taken when all before it were taken.
//! - After one that is not full none is begun, and those that were are given up: the list may end there.
//! - What has ended and what is to come of what runs are bounded in bytes, by the largest page so far; but two may be
//!   there always.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Sleep, sleep};

use super::PAGE;
use super::list_reader::Page;
use super::pace::{self, Pace};
use crate::history::error::Error;

/// Pages begun and not taken, so that one that is slow does not have all others fetched behind it.
const MAX_SLOTS: usize = 2 * pace::MAX_PAGES;

/// Bytes of pages that are there or to come.
const MAX_BYTES: usize = 4 << 20;

type PageResult = Result<Page, Error>;

/// The pages of one series that were begun and not taken.
pub(super) struct PagesInFlight {
    running: FuturesUnordered<RunningPage>,
    slots: VecDeque<Slot>,
    /// How many were taken: the number of the first slot.
    taken: u64,
    pace: Pace,
    /// Until the next may be begun.
    pause: Option<Pin<Box<Sleep>>>,
    /// Bytes of those that have ended.
    held: usize,
    /// Of the largest page so far.
    largest: usize,
    at_end: bool,
    /// How many messages a full page holds.
    full: usize,
    /// So many may be under way at most, whatever the pace.
    most: usize,
}

impl Default for PagesInFlight {
    fn default() -> Self {
        Self {
            running: FuturesUnordered::new(),
            slots: VecDeque::new(),
            taken: 0,
            pace: Pace::default(),
            pause: None,
            held: 0,
            largest: 0,
            at_end: false,
            full: PAGE,
            most: usize::MAX,
        }
    }
}

/// A page under way.
struct RunningPage {
    number: u64,
    page: BoxFuture<'static, PageResult>,
}

impl Future for RunningPage {
    type Output = (u64, PageResult);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let number = self.number;
        self.page.poll_unpin(cx).map(|ended| (number, ended))
    }
}

struct Slot {
    offset: u64,
    ended: Option<PageResult>,
}

impl PagesInFlight {
    /// How many were begun and not taken.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether another may be begun. If it is only too early for that, the task is woken when it is not.
    pub(super) fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.has_space() {
            return false;
        }
        if let Some(pause) = self.pace.pause() {
            let sleep = self.pause.insert(Box::pin(sleep(pause)));
            return sleep.as_mut().poll(cx).is_ready();
        }
        true
    }

    fn has_space(&self) -> bool {
        // Each that runs may bring as much as the largest so far: what was not reserved could not be refused later.
        let bytes = self.held + (self.running.len() + 1) * self.largest;
        !self.at_end
            && self.running.len() < self.pace.most().min(self.most)
            && self.slots.len() < MAX_SLOTS
            && (bytes <= MAX_BYTES || self.slots.len() < pace::MIN_PAGES)
    }

    /// Begins the page at that offset.
    pub(super) fn begin(&mut self, offset: u64, page: impl Future<Output = PageResult> + Send + 'static) {
        let number = self.taken + self.slots.len() as u64;
        self.pace.begun();
        self.slots.push_back(Slot { offset, ended: None });
        self.running.push(RunningPage { number, page: page.boxed() });
    }

    /// The next page, and its offset, if it has ended.
    pub(super) fn take(&mut self) -> Option<(u64, Result<Vec<Bytes>, Error>)> {
        let Slot { offset, ended } = self.slots.pop_front_if(|slot| slot.ended.is_some())?;
        let texts = ended?.map(|page| page.texts);
        self.taken += 1;
        self.held -= texts.as_deref().map_or(0, bytes_of);
        Some((offset, texts))
    }

    /// Moves those that run. Says whether one has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let running = self.running.len();
        let Poll::Ready(Some((number, ended))) = self.running.poll_next_unpin(cx) else { return false };
        match &ended {
            Ok(page) => {
                self.largest = self.largest.max(bytes_of(&page.texts));
                self.pace.ended(running, page);
                if page.texts.len() < self.full {
                    self.end_at(number);
                }
            }
            Err(_) => self.end_at(number),
        }
        let slot = usize::try_from(number - self.taken).ok().and_then(|at| self.slots.get_mut(at));
        if let Some(slot) = slot {
            self.held += ended.as_ref().map_or(0, |page| bytes_of(&page.texts));
            slot.ended = Some(ended);
        }
        true
    }

    /// That page is the last.
    fn end_at(&mut self, number: u64) {
        self.at_end = true;
        self.slots.truncate(usize::try_from(number - self.taken).unwrap_or(usize::MAX).saturating_add(1));
        // Dropped, they are not undone at the vendor: an order that went out goes on, and gives its seat back when it
        // ends.
        self.running = std::mem::take(&mut self.running).into_iter().filter(|page| page.number < number).collect();
        self.held = self
            .slots
            .iter()
            .filter_map(|slot| slot.ended.as_ref()?.as_ref().ok())
            .map(|page| bytes_of(&page.texts))
            .sum();
    }

    /// Moves those that run to their ends, so that none keeps a seat because nobody asks for it.
    pub(super) async fn settle(&mut self) {
        std::future::poll_fn(|cx| {
            while self.poll(cx) {}
            if self.running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Gives all of them up.
    pub(super) fn clear(&mut self) {
        let pace = std::mem::take(&mut self.pace);
        let Self { largest, full, most, .. } = *self;
        *self = Self { pace, largest, full, most, ..Self::default() };
    }

    /// A page is full with so many messages.
    pub(super) fn set_full(&mut self, full: usize) {
        self.full = full;
    }

    /// A page ended before the list did: those behind it were in vain. Only one is begun at a time, then more and more.
    pub(super) fn be_careful(&mut self) {
        self.most = 1;
    }

    /// A page was of use.
    pub(super) fn grow(&mut self) {
        self.most = self.most.saturating_add(1);
    }
}

fn bytes_of(texts: &[Bytes]) -> usize {
    texts.iter().map(Bytes::len).sum()
}
