//! [`Shelf`]: a [`Book`], where there is one.
//!
//! Why: a book is large, even an empty one, and of the thousands of subscriptions most never have an entry in it.

use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use super::Book;

/// Holds a book from the first change on. Without one it is read as an empty one.
#[derive(Debug, Default)]
pub(in crate::events) struct Shelf(Option<Box<Book>>);

static EMPTY: LazyLock<Book> = LazyLock::new(Book::default);

impl Shelf {
    /// For a change that means nothing to an empty book: none is made for it.
    pub(in crate::events) fn used(&mut self) -> Option<&mut Book> {
        self.0.as_deref_mut()
    }

    /// Ends all leases and forgets all entries.
    pub(in crate::events) fn clear(&mut self) {
        if let Some(mut book) = self.0.take() {
            book.clear();
        }
    }
}

impl Deref for Shelf {
    type Target = Book;

    fn deref(&self) -> &Book {
        self.0.as_deref().unwrap_or_else(|| &EMPTY)
    }
}

impl DerefMut for Shelf {
    fn deref_mut(&mut self) -> &mut Book {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::events::leases::New;

    #[test]
    fn a_book_is_made_by_the_first_change_and_not_by_looking() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        assert_eq!((shelf.len(), shelf.first_after(0), shelf.next_due()), (0, None, None));
        shelf.clear();
        assert!(shelf.used().is_none());
        shelf.admit([New { at: 5, key: 1, attempts: 0, delay_until: None, alone: false }], now);
        assert_eq!((shelf.len(), shelf.used().map(|book| book.len())), (1, Some(1)));
        shelf.clear();
        assert_eq!((shelf.len(), shelf.used().is_none()), (0, true));
    }
}
