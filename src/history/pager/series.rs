//! [`Series`]: pages asked for side by side, in one window, that [overlap](super::overlap) by a few messages.
//!
//! Invariant: pages are taken in the order of their offsets, and each begins before the one ahead of it ends.

use std::task::Context;

use bytes::Bytes;

use super::PAGE;
use super::in_flight::PagesInFlight;
use super::list_reader::Page;
use super::overlap::{KNOWN_OF_CROWD, Overlap};
use crate::history::error::Error;
use crate::vendor::history::{Filter, PAGE_SIZES};

/// What a page that could not be joined by itself adds to a series' trouble; one that joins takes one off.
const BRIDGED: u32 = 10;

/// With more trouble than that a series is repaired: a bridge costs less, but each is waited for.
const MAX_TROUBLE: u32 = 40;

/// So many messages may be read again, for the list's growth, before a series is repaired.
const MAX_WASTED: u64 = 2 * PAGE as u64;

/// So many before a millisecond's first message a page begins that is to cover it.
pub(super) const BEFORE: u64 = 1;

/// The smallest page that is reckoned with.
const MIN_SIZE: usize = 8;

/// A page that was joined.
#[derive(Clone, Copy)]
pub(super) struct JoinedPage {
    pub(super) offset: u64,
    /// How many messages it holds,
    pub(super) length: usize,
    /// of one millisecond at most,
    pub(super) crowd: usize,
    /// before the last millisecond of what was joined,
    pub(super) before: usize,
    /// and of those that were not known yet.
    pub(super) new: usize,
}

/// The pages of one window.
pub(super) struct Series {
    pub(super) filter: Filter,
    pub(super) in_flight: PagesInFlight,
    /// How many messages a page holds, as far as is known: a vendor may give fewer than it says.
    size: usize,
    /// The most messages of a page so far.
    longest: usize,
    /// The last short page that did not end the list.
    short: usize,
    /// Where the page that was begun last ends; the next overlaps it.
    reach: u64,
    /// Where what was joined ends.
    pub(super) at: u64,
    overlap: Overlap,
    trouble: u32,
    /// Where it began, and how many new messages it has brought.
    origin: u64,
    brought: u64,
}

impl Series {
    /// A series whose first page is at that offset.
    pub(super) fn new(filter: Filter, offset: u64) -> Self {
        let mut series = Self {
            filter,
            in_flight: PagesInFlight::default(),
            size: PAGE,
            longest: 0,
            short: 0,
            reach: 0,
            at: offset,
            overlap: Overlap::default(),
            trouble: 0,
            origin: offset,
            brought: 0,
        };
        series.reach = offset.saturating_add(series.overlap() as u64);
        series
    }

    /// Goes on elsewhere. What is under way is given up; what was learned is not.
    pub(super) fn begin_anew(&mut self, filter: Filter, offset: u64) {
        self.in_flight.clear();
        self.filter = filter;
        self.reach = offset.saturating_add(self.overlap() as u64);
        (self.at, self.origin) = (offset, offset);
        (self.trouble, self.brought) = (0, 0);
    }

    /// Goes on where what was joined ends.
    pub(super) fn go_on(&mut self) {
        self.in_flight.clear();
        self.reach = self.at.max(self.overlap() as u64);
    }

    /// Goes on at an offset before the end of what was joined: a page from there covers what those under way do not.
    pub(super) fn go_back(&mut self, offset: u64) {
        self.in_flight.clear();
        self.overlap.not_known();
        self.reach = offset.saturating_add(self.overlap() as u64);
    }

    /// How many messages neighbours share.
    fn overlap(&self) -> usize {
        self.overlap.of(self.size)
    }

    /// How far neighbours are apart.
    pub(super) fn stride(&self) -> usize {
        self.size - self.overlap()
    }

    /// Where a page begins that covers a millisecond of which so many were joined last, and brings more than those.
    pub(super) fn before(&self, joined: u64) -> Option<u64> {
        let back = joined + BEFORE + self.drift();
        (back < self.size as u64).then(|| self.at.checked_sub(back)).flatten()
    }

    /// How many messages a page at that offset shares with what was joined, while nothing moves.
    pub(super) fn shared(&self, offset: u64) -> u64 {
        self.at.saturating_sub(offset)
    }

    /// By how many messages the list moved from page to page of late.
    pub(super) fn drift(&self) -> u64 {
        self.overlap.drift()
    }

    /// A page begins later than its offset says, by so many if that is known.
    pub(super) fn moved(&mut self, by: Option<u64>) {
        self.overlap.moved(by);
    }

    /// How many messages a page holds, as far as is known.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A page that holds fewer is surely not full.
    pub(super) fn shortest(&self) -> usize {
        self.longest.min(PAGE_SIZES[0])
    }

    /// Where the next page begins, when it is begun now.
    fn next(&mut self) -> u64 {
        let offset = self.reach.saturating_sub(self.overlap() as u64);
        self.reach = offset.saturating_add(self.size as u64);
        offset
    }

    /// Begins as many pages as there may be for those that are still wanted, and moves them. Says whether one has
    /// ended.
    pub(super) fn poll<F>(&mut self, cx: &mut Context<'_>, wanted: usize, ask: impl Fn(Filter, u64) -> F) -> bool
    where
        F: Future<Output = Result<Page, Error>> + Send + 'static,
    {
        while self.in_flight.is_empty()
            || (wanted > self.in_flight.len() * self.stride() && self.in_flight.has_room(cx))
        {
            let offset = self.next();
            self.in_flight.begin(offset, ask(self.filter.clone(), offset));
        }
        self.in_flight.poll(cx)
    }

    /// The next page in turn, if it is there.
    pub(super) fn take(&mut self) -> Option<(u64, Result<Vec<Bytes>, Error>)> {
        self.in_flight.take()
    }

    /// A page was joined: what of it was not known yet follows what was joined before.
    pub(super) fn joined(&mut self, page: JoinedPage) {
        let JoinedPage { offset, length, crowd, before, new } = page;
        self.trouble = self.trouble.saturating_sub(1);
        self.longest = self.longest.max(length);
        // What it shares by its offset, and did not turn out to be known, has gone from in front of it.
        let shared = usize::try_from(self.shared(offset)).unwrap_or(usize::MAX);
        self.overlap.joined(shared.saturating_sub(length - new), crowd, before);
        let end = offset.saturating_add(length as u64);
        // Where something new was joined the offset is right as of now, even if it is lower: the list has moved.
        self.at = if new > 0 { end } else { self.at.max(end) };
        self.brought += new as u64;
        if length > self.size {
            self.size = length;
            self.in_flight.set_full(self.size);
        }
        self.in_flight.grow();
    }

    /// What was joined so far counts as the series' beginning.
    pub(super) fn settle_in(&mut self) {
        (self.origin, self.brought) = (self.at, 0);
    }

    /// So much was read again that the list must have grown at its head.
    pub(super) fn is_wasteful(&self) -> bool {
        self.at.saturating_sub(self.origin + self.brought) > MAX_WASTED
    }

    /// A page could not be joined by itself. Says whether one between may help.
    pub(super) fn in_trouble(&mut self, offset: u64) -> bool {
        self.trouble += BRIDGED;
        // It was to be known again, and was not.
        if self.at >= offset + KNOWN_OF_CROWD as u64 {
            self.overlap.not_known();
        } else {
            self.overlap.too_few();
        }
        self.trouble <= MAX_TROUBLE
    }

    /// A page ended before the list did. Such a vendor may give so many at most; pages are begun one by one until that
    /// is known.
    pub(super) fn ended_early(&mut self, length: usize) {
        // One short page may be the vendor's own affair. After a second the longer of them is taken for its size, for
        // the shorter may have been so by chance.
        if self.short > 0 {
            self.size = length.max(self.short).clamp(MIN_SIZE, PAGE);
            self.in_flight.set_full(self.size);
        }
        self.short = length;
        self.in_flight.be_careful();
        self.go_on();
    }
}
