//! Pages asked for side by side, in one window, that overlap by a few messages.
//!
//! How many that is follows from what was met of late, and decays at once: each costs one part in a hundred of the
//! quota. Where no two messages share a millisecond a few see to it that one may expire; where some do, as many as let
//! the next page begin before them; where many do, a few again, by which it is known again
//! ([`Run::join`](super::run::Run::join)). Where the list moves as it is read, as many more as it moved from page to
//! page of late: a page that begins too late costs those under way behind it.

use std::task::Context;

use bytes::Bytes;

use super::PAGE;
use super::in_flight::PagesInFlight;
use super::list_reader::Page;
use crate::history::error::Error;
use crate::vendor::history::{Filter, PAGE_SIZES};

/// How many messages neighbours share at first. One may expire between two evaluations.
pub(super) const OVERLAP: usize = 3;

/// How many at least: with fewer even a list that rests would not be covered.
const MIN_OVERLAP: usize = 2;

/// So many of one millisecond are many; with fewer neighbours share all of them and one more.
const MANY: usize = 7;

/// How many they share where just so many do, where more do, and where a crowd does: of more, fewer are known again.
const KNOWN: usize = 6;
const KNOWN_OF_MORE: usize = 5;
const KNOWN_OF_CROWD: usize = 4;
const CROWD: usize = 16;

/// How many at most.
const MAX_OVERLAP: usize = PAGE * 2 / 3;

/// After so many pages in a row that shared more than they had to, they share one less.
const CALM: u32 = 32;

/// What a page that could not be joined by itself adds to a series' trouble; one that joins takes one off.
const BRIDGED: u32 = 10;

/// With more trouble than that a series is repaired: a bridge costs less, but each is waited for.
const MAX_TROUBLE: u32 = 40;

/// So many messages may be read again, for the list's growth, before a series is repaired.
const MAX_WASTED: u64 = 2 * PAGE as u64;

/// For so many pages a crowd is remembered, and how far the list moved.
const REMEMBERED: u32 = 4;

/// How far it has moved at least, as far as is known, where a page begins behind all that was read.
const MOVED: usize = 8;

/// For so many that pages were not known again; each time for twice as many, up to the last.
const BY_COVER: u32 = 8;
const MAX_BY_COVER: u32 = 1024;

/// So many before a millisecond's first message a page begins that is to cover it.
pub(super) const BEFORE: u64 = 1;

/// The smallest page that is reckoned with.
const MIN_SIZE: usize = 8;

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
    /// The least that neighbours share.
    spare: usize,
    calm: u32,
    /// How many of one millisecond there were in a page of late, and how many pages ago.
    crowd: usize,
    since: u32,
    /// By how many messages the list moved from page to page of late, and how many pages ago.
    drift: usize,
    drift_since: u32,
    /// For so many pages none is expected to be known again: the order differs, or messages are alike.
    by_cover: u32,
    /// For so many the next time.
    by_cover_next: u32,
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
            spare: OVERLAP,
            calm: 0,
            // Nothing is known yet: many, so that neighbours share enough to be known again, until a few pages have
            // told.
            crowd: MANY + 1,
            since: REMEMBERED - 1,
            drift: 0,
            drift_since: 0,
            by_cover: 0,
            by_cover_next: BY_COVER,
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
        self.not_known();
        self.reach = offset.saturating_add(self.overlap() as u64);
    }

    /// How many messages neighbours share.
    fn overlap(&self) -> usize {
        let for_crowd = match self.crowd {
            0 | 1 => 0,
            // What has moved is not known again, for its offset says another place than its texts do: a page has to
            // begin before the crowd.
            crowd if (self.by_cover > 0 || self.drift > 0) && crowd + 2 + self.drift <= MAX_OVERLAP => crowd + 2,
            crowd if crowd < MANY => crowd + 1,
            MANY => KNOWN,
            crowd if crowd < CROWD => KNOWN_OF_MORE,
            _ => KNOWN_OF_CROWD,
        };
        (self.spare.max(for_crowd) + self.drift).min(self.size * 2 / 3)
    }

    /// How far neighbours are apart.
    pub(super) fn stride(&self) -> usize {
        self.size - self.overlap()
    }

    /// Where a page begins that covers a millisecond of which so many were joined last, and brings more than those.
    pub(super) fn before(&self, joined: u64) -> Option<u64> {
        let back = joined + BEFORE + self.drift as u64;
        (back < self.size as u64).then(|| self.at.checked_sub(back)).flatten()
    }

    /// How many messages a page at that offset shares with what was joined, while nothing moves.
    pub(super) fn shared(&self, offset: u64) -> u64 {
        self.at.saturating_sub(offset)
    }

    /// By how many messages the list moved from page to page of late.
    pub(super) fn drift(&self) -> u64 {
        self.drift as u64
    }

    /// A page begins later than its offset says, by so many if that is known.
    pub(super) fn moved(&mut self, by: Option<u64>) {
        let by = by.and_then(|by| usize::try_from(by).ok()).unwrap_or(self.drift * 2).max(MOVED);
        (self.drift, self.drift_since) = (self.drift.max(by).min(MAX_OVERLAP), 0);
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

    /// The page at that offset, with so many messages, is there, and what of it was not known yet follows what was
    /// joined. Of it so many come before the last millisecond.
    pub(super) fn joined(&mut self, offset: u64, length: usize, crowd: usize, before: usize, new: usize) {
        self.trouble = self.trouble.saturating_sub(1);
        self.longest = self.longest.max(length);
        let drift = usize::try_from(self.shared(offset)).unwrap_or(usize::MAX).saturating_sub(length - new);
        self.drift_since += 1;
        if drift >= self.drift || self.drift_since >= REMEMBERED {
            (self.drift, self.drift_since) = (drift.min(MAX_OVERLAP), 0);
        }
        let end = offset.saturating_add(length as u64);
        // Where something new was joined the offset is right as of now, even if it is lower: the list has moved.
        self.at = if new > 0 { end } else { self.at.max(end) };
        self.brought += new as u64;
        self.by_cover = self.by_cover.saturating_sub(1);
        self.since += 1;
        if crowd >= self.crowd || self.since >= REMEMBERED {
            (self.crowd, self.since) = (crowd, 0);
        }
        // Overlap costs quota on every page, so it decays; but only while no two share a millisecond, for then one
        // message is enough to join on.
        if crowd <= 1 {
            self.calm = if before > 1 { self.calm + 1 } else { 0 };
        }
        if self.calm >= CALM {
            self.calm = 0;
            self.spare = (self.spare - 1).max(MIN_OVERLAP);
        }
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

    fn not_known(&mut self) {
        if self.by_cover == 0 {
            self.by_cover = self.by_cover_next;
            self.by_cover_next = (self.by_cover_next * 2).min(MAX_BY_COVER);
        }
    }

    /// A page could not be joined by itself. Says whether one between may help.
    pub(super) fn in_trouble(&mut self, offset: u64) -> bool {
        self.trouble += BRIDGED;
        // It was to be known again, and was not.
        if self.at >= offset + KNOWN_OF_CROWD as u64 {
            self.not_known();
        } else if self.crowd <= 1 {
            self.spare = (self.spare * 2).min(KNOWN);
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
