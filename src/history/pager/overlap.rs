//! [`Overlap`]: how many messages neighbouring pages of a series share.
//!
//! Each costs one part in a hundred of the quota, so it follows from what was met of late, and decays at once. Where no
//! two messages share a millisecond a few see to it that one may expire; where some do, as many as let the next page
//! begin before them; where many do, a few again, by which it is known again ([`Run::join`](super::run::Run::join)).
//! Where the list moves as it is read, as many more as it moved from page to page of late: a page that begins too late
//! costs those under way behind it.

use super::PAGE;

/// How many messages neighbours share at first. One may expire between two evaluations.
const FIRST: usize = 3;

/// How many at least: with fewer even a list that rests would not be covered.
const MIN: usize = 2;

/// So many of one millisecond are many; with fewer neighbours share all of them and one more.
const MANY: usize = 7;

/// How many they share where just so many do, where more do, and where a crowd does: of more, fewer are known again.
const KNOWN: usize = 6;
const KNOWN_OF_MORE: usize = 5;
pub(super) const KNOWN_OF_CROWD: usize = 4;
const CROWD: usize = 16;

/// How many at most.
const MAX: usize = PAGE * 2 / 3;

/// After so many pages in a row that shared more than they had to, they share one less.
const CALM: u32 = 32;

/// For so many pages a crowd is remembered, and how far the list moved.
const REMEMBERED: u32 = 4;

/// How far it has moved at least, as far as is known, where a page begins behind all that was read.
const MOVED: usize = 8;

/// For so many that pages were not known again; each time for twice as many, up to the last.
const BY_COVER: u32 = 8;
const MAX_BY_COVER: u32 = 1024;

/// What was met of late.
pub(super) struct Overlap {
    /// The least that neighbours share.
    spare: usize,
    calm: u32,
    /// How many of one millisecond there were in a page of late, and how many pages ago.
    crowd: usize,
    crowd_since: u32,
    /// By how many messages the list moved from page to page of late, and how many pages ago.
    drift: usize,
    drift_since: u32,
    /// For so many pages none is expected to be known again: the order differs, or messages are alike.
    by_cover: u32,
    /// For so many the next time.
    by_cover_next: u32,
}

impl Default for Overlap {
    fn default() -> Self {
        Self {
            spare: FIRST,
            calm: 0,
            // Nothing is known yet: many, so that neighbours share enough to be known again, until a few pages have
            // told.
            crowd: MANY + 1,
            crowd_since: REMEMBERED - 1,
            drift: 0,
            drift_since: 0,
            by_cover: 0,
            by_cover_next: BY_COVER,
        }
    }
}

impl Overlap {
    /// How many messages neighbours share that hold so many each.
    pub(super) fn of(&self, size: usize) -> usize {
        let for_crowd = match self.crowd {
            0 | 1 => 0,
            // What has moved is not known again, for its offset says another place than its texts do: a page has to
            // begin before the crowd.
            crowd if (self.by_cover > 0 || self.drift > 0) && crowd + 2 + self.drift <= MAX => crowd + 2,
            crowd if crowd < MANY => crowd + 1,
            MANY => KNOWN,
            crowd if crowd < CROWD => KNOWN_OF_MORE,
            _ => KNOWN_OF_CROWD,
        };
        (self.spare.max(for_crowd) + self.drift).min(size * 2 / 3)
    }

    /// By how many messages the list moved from page to page of late.
    pub(super) fn drift(&self) -> u64 {
        self.drift as u64
    }

    /// A page begins later than its offset says, by so many if that is known.
    pub(super) fn moved(&mut self, by: Option<u64>) {
        let by = by.and_then(|by| usize::try_from(by).ok()).unwrap_or(self.drift * 2).max(MOVED);
        (self.drift, self.drift_since) = (self.drift.max(by).min(MAX), 0);
    }

    /// A page was joined that the list had moved by so many since the one before; so many in it share a millisecond,
    /// and so many come before the run's last.
    pub(super) fn joined(&mut self, drift: usize, crowd: usize, before: usize) {
        self.drift_since += 1;
        if drift >= self.drift || self.drift_since >= REMEMBERED {
            (self.drift, self.drift_since) = (drift.min(MAX), 0);
        }
        self.by_cover = self.by_cover.saturating_sub(1);
        self.crowd_since += 1;
        if crowd >= self.crowd || self.crowd_since >= REMEMBERED {
            (self.crowd, self.crowd_since) = (crowd, 0);
        }
        // It decays only while no two share a millisecond, for then one message is enough to join on.
        if crowd <= 1 {
            self.calm = if before > 1 { self.calm + 1 } else { 0 };
        }
        if self.calm >= CALM {
            self.calm = 0;
            self.spare = (self.spare - 1).max(MIN);
        }
    }

    /// A page was to be known again, and was not.
    pub(super) fn not_known(&mut self) {
        if self.by_cover == 0 {
            self.by_cover = self.by_cover_next;
            self.by_cover_next = (self.by_cover_next * 2).min(MAX_BY_COVER);
        }
    }

    /// A page began too late to be joined, or to be known again.
    pub(super) fn too_few(&mut self) {
        if self.crowd <= 1 {
            self.spare = (self.spare * 2).min(KNOWN);
        }
    }
}
