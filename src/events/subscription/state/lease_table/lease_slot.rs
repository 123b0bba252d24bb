//! [`LeaseSlot`]: a [`LeaseTable`], where there is one.
//!
//! Why: a book is large, even an empty one, and of the thousands of subscriptions most never have an entry in it.

use std::ops::{Deref, DerefMut, RangeBounds};
use std::sync::LazyLock;

use tokio::time::Instant;

use super::{Hold, LeaseGrant, LeaseTable};

/// Holds a book from the first change on. Without one it is read as an empty one.
#[derive(Debug, Default)]
pub(in crate::events) struct LeaseSlot(Option<Box<LeaseTable>>);

static EMPTY: LazyLock<LeaseTable> = LazyLock::new(LeaseTable::default);

impl LeaseSlot {
    /// For a change that means nothing to an empty book: none is made for it.
    fn used(&mut self) -> Option<&mut LeaseTable> {
        self.0.as_deref_mut()
    }

    /// See [`LeaseTable::take`].
    pub(in crate::events) fn take(&mut self, limit: usize, hold: Hold, now: Instant) -> Option<LeaseGrant> {
        self.used()?.take(limit, hold, now)
    }

    /// See [`LeaseTable::advance`].
    pub(in crate::events) fn advance(&mut self, now: Instant) {
        if let Some(book) = self.used() {
            book.advance(now);
        }
    }

    /// See [`LeaseTable::cut`].
    pub(in crate::events) fn cut(&mut self, earliest: u64, now: Instant) -> Vec<u64> {
        self.used().map_or_else(Vec::new, |book| book.cut(earliest, now))
    }

    /// See [`LeaseTable::remove`].
    pub(in crate::events) fn remove(&mut self, at: u64, now: Instant) -> bool {
        self.used().is_some_and(|book| book.remove(at, now))
    }

    /// See [`LeaseTable::await_no_longer`].
    pub(in crate::events) fn await_no_longer(&mut self, range: impl RangeBounds<u64>, now: Instant) {
        if let Some(book) = self.used() {
            book.await_no_longer(range, now);
        }
    }

    /// Ends all leases and forgets all entries.
    pub(in crate::events) fn clear(&mut self) {
        if let Some(mut book) = self.0.take() {
            book.clear();
        }
    }
}

impl Deref for LeaseSlot {
    type Target = LeaseTable;

    fn deref(&self) -> &LeaseTable {
        self.0.as_deref().unwrap_or_else(|| &EMPTY)
    }
}

impl DerefMut for LeaseSlot {
    fn deref_mut(&mut self) -> &mut LeaseTable {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::subscription::state::NewEntry;

    #[test]
    fn a_book_is_made_by_the_first_change_and_not_by_looking() {
        let (mut shelf, now) = (LeaseSlot::default(), Instant::now());
        assert_eq!((shelf.len(), shelf.first_after(0), shelf.next_due()), (0, None, None));
        shelf.clear();
        assert!(shelf.used().is_none());
        shelf.admit([NewEntry { at: 5, key: 1, attempts: 0, delay_until: None, alone: false }], now);
        assert_eq!((shelf.len(), shelf.used().map(|book| book.len())), (1, Some(1)));
        shelf.clear();
        assert_eq!((shelf.len(), shelf.used().is_none()), (0, true));
    }
}
