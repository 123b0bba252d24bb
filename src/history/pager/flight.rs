//! Pages asked for side by side and taken in their order.
//!
//! How many are under way follows from what they wait for: while the quota has seats at once one more is begun for each
//! that ends, and one fewer when seats are waited for too long. So there are as many as the vendor's latency times the
//! quota's rate needs, and hardly more in the quota's line, where the client's other orders stand too.
//!
//! Invariants:
//! - A page is taken when all before it were taken.
//! - After one that is not full none is begun: what lies beyond the list's end costs no more than what was under way.
//! - What has ended and what is to come of what runs are bounded in bytes, by the largest page so far; but two may be
//!   there always.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;

use super::{Error, PAGE, Page};

/// Pages under way at first and at least: a short list costs one page too many at most.
pub(super) const LEAST: usize = 2;

/// Pages under way at most: a hundred a second that each take more than two seconds.
pub(super) const MOST: usize = 256;

/// Pages begun and not taken, so that one that is slow does not have all others fetched behind it.
const SLOTS: usize = 2 * MOST;

/// Bytes of pages that are there or to come.
const BYTES: usize = 4 << 20;

/// A page that waited no longer for its seats found some free.
const NO_WAIT: Duration = Duration::from_millis(2);

/// One that waited so long stood behind more of ours than are needed.
const LONG_WAIT: Duration = Duration::from_millis(200);

type Ended = Result<Page, Error>;

/// The pages of one series that were begun and not taken.
#[derive(Default)]
pub(super) struct Flight {
    running: FuturesUnordered<BoxFuture<'static, (u64, Ended)>>,
    slots: VecDeque<Slot>,
    /// How many were taken: the number of the first slot.
    taken: u64,
    most: usize,
    /// Bytes of those that have ended.
    held: usize,
    largest: usize,
    at_end: bool,
}

struct Slot {
    offset: u64,
    ended: Option<Ended>,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self { most: LEAST, ..Self::default() }
    }

    /// How many were begun and not taken.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether another may be begun.
    pub(super) fn has_room(&self) -> bool {
        let bytes = self.held + (self.running.len() + 1) * self.largest;
        !self.at_end
            && self.running.len() < self.most
            && self.slots.len() < SLOTS
            && (bytes <= BYTES || self.slots.len() < LEAST)
    }

    /// Begins the page at that offset.
    pub(super) fn begin(&mut self, offset: u64, page: impl Future<Output = Ended> + Send + 'static) {
        let number = self.taken + self.slots.len() as u64;
        self.slots.push_back(Slot { offset, ended: None });
        self.running.push(page.map(move |ended| (number, ended)).boxed());
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
        let full = self.running.len() >= self.most;
        let Poll::Ready(Some((number, ended))) = self.running.poll_next_unpin(cx) else { return false };
        match &ended {
            Ok(page) => {
                let bytes = bytes_of(&page.texts);
                self.held += bytes;
                self.largest = self.largest.max(bytes);
                self.at_end |= page.texts.len() < PAGE;
                if page.waited <= NO_WAIT && full {
                    self.most = (self.most + 1).min(MOST);
                } else if page.waited > LONG_WAIT {
                    self.most = (self.most - 1).max(LEAST);
                }
            }
            Err(_) => self.at_end = true,
        }
        let slot = usize::try_from(number - self.taken).ok().and_then(|at| self.slots.get_mut(at));
        if let Some(slot) = slot {
            slot.ended = Some(ended);
        }
        true
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
        *self = Self { most: self.most, largest: self.largest, ..Self::default() };
    }
}

fn bytes_of(texts: &[Bytes]) -> usize {
    texts.iter().map(Bytes::len).sum()
}
