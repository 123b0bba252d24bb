//! A door for the fuzz targets (`fuzz/`) and the corpus test: what is seen in the bytes of a connection.
//!
//! Invariant: only what a connection itself calls is called here; nothing is decided.

use super::framing::{Framing, Watch};
use crate::kernel::conn::Fault;

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Observation {
    /// What is wrong with each of the heads asked about.
    pub faults: Vec<Option<Fault>>,
    /// Where request lines hold quotation marks.
    pub quotes: Vec<usize>,
    /// Whether the bytes end between two requests.
    pub between: bool,
}

/// Follows the bytes of a connection that come in these pieces, and asks about so many heads.
#[must_use]
pub fn follow<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, heads: usize) -> Observation {
    let watch = Watch::default();
    let mut framing = Framing::new(watch.clone());
    let mut quotes = Vec::new();
    let mut at = 0;
    for piece in pieces {
        quotes.extend(framing.feed(piece).quotes.into_iter().map(|quote| at + quote));
        at += piece.len();
    }
    Observation {
        faults: (0..heads).map(|_| watch.next_head()).collect(),
        quotes,
        between: watch.is_between_requests(),
    }
}
