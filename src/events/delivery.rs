//! What a reader asks for and what it gets.
//!
//! | file | what |
//! | --- | --- |
//! | `request` | what is asked: from where, how much, how it is settled; why it cannot be served |
//! | `run` | entries of one batch, and how many more a read has room for |
//! | `receipt` | what stands for entries on their way |
//! | `reader` | serves one read: from memory, from the store, or when something comes |
//!
//! Invariants: a [`Delivery`] holds entries in order without a gap (but for what retention took or the reader does not
//! want), oldest first; its text is shared with every other reader, never copied.

pub(super) mod reader;
mod receipt;
mod request;
mod run;

pub use self::receipt::Receipt;
pub use self::request::{MAX_IN_ONE_READ, ReadError, ReadFrom, ReadRequest, StartAt, StreamNumber};
pub(super) use self::run::Room;
pub use self::run::Run;
use super::{Cursor, Leased};
use crate::store::Sequence;

/// What a read found. Dropping `receipt` without [`Receipt::handed_over`] gives the entries again to the next read.
#[derive(Debug)]
pub struct Delivery {
    /// The entries, oldest first. May be empty.
    pub runs: Vec<Run>,
    /// The place after the last entry.
    pub next: Cursor,
    /// Entries stored after `next`.
    pub lag: u64,
    /// How many entries retention removed before this subscription was given them; told once, and markers are wanted: then
    /// the first run is a marker of it.
    pub lost: u64,
    /// The first of those, where that is known; of those that are to be told, where there are no entries.
    pub lost_from: Option<Sequence>,
    /// To be told when the response was handed over whole.
    pub receipt: Receipt,
    /// What is to be acknowledged, when that was asked for and there is something.
    pub leased: Option<Leased>,
}
