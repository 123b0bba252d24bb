//! [`Missed`]: how many entries retention took before a subscription was given them, until a reader was told.
//!
//! Invariants: each is told once, or again when the response that told it did not arrive. It is stored with the cursor
//! that has passed these entries; until then it follows from the stored cursor and from where the log begins, so a cut
//! writes nothing.

/// What readers are to be told of.
#[derive(Debug, Default)]
pub(super) struct Missed {
    waiting: u64,
    /// In responses on their way.
    under_way: u64,
    /// As the store says; no number of entries when that is not known.
    stored: u64,
}

impl Missed {
    /// So many at the beginning, and what the store says.
    pub(super) fn new(waiting: u64, stored: u64) -> Self {
        Self { waiting, under_way: 0, stored }
    }

    /// So many more are gone.
    pub(super) fn add(&mut self, lost: u64) {
        self.waiting += lost;
    }

    /// All that nobody was told yet, for a response.
    pub(super) fn take(&mut self) -> u64 {
        let taken = std::mem::take(&mut self.waiting);
        self.under_way += taken;
        taken
    }

    /// A reader was told of so many.
    pub(super) fn told(&mut self, taken: u64) {
        self.under_way -= taken.min(self.under_way);
    }

    /// The response with so many did not arrive.
    pub(super) fn give_back(&mut self, taken: u64) {
        self.told(taken);
        self.waiting += taken;
    }

    /// Nobody is to be told of anything any more.
    pub(super) fn clear(&mut self) {
        (self.waiting, self.under_way) = (0, 0);
    }

    /// What the store is to say, when that is something new.
    pub(super) fn unsaved(&self) -> Option<u64> {
        let all = self.waiting + self.under_way;
        (all != self.stored).then_some(all)
    }

    /// The store may say anything.
    pub(super) fn doubt(&mut self) {
        self.stored = u64::MAX;
    }

    /// The store says so now.
    pub(super) fn saved(&mut self, stored: u64) {
        self.stored = stored;
    }
}
