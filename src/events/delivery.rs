//! What a reader asks for and what it gets, and how several streams and several of their readers become one.
//!
//! | file | what |
//! | --- | --- |
//! | `request` | what is asked: from where, how much, how it is settled |
//! | `entry` | what an entry says, whatever form it is given in |
//! | `receipt` | what stands for entries on their way |
//! | `reader`, `leasing` | serves one read: from memory, from the store, or when something comes; from a lease table |
//! | `merged_reader`, `stream_reader` | what one caller reads, one stream or both, read by read |
//! | `leased_reader` | the same of one stream, to be acknowledged |
//! | `stream_session`, `sent_entries` | one open stream of a subscription, and what it was given |
//! | `stream_sessions`, `session_handle` | those that are open, and what keeps one open |
//! | `takeover` | how a stream takes over from its caller's earlier ones |
//!
//! Invariants: a [`Delivery`] holds entries in order without a gap (but for what retention took or the reader does not
//! want), oldest first; its text is shared with every other reader, never copied.

mod entry;
mod leased_reader;
mod leasing;
mod merged_reader;
pub(super) mod reader;
mod receipt;
mod request;
mod sent_entries;
mod session_handle;
mod stream_reader;
mod stream_session;
mod stream_sessions;
mod takeover;

pub(crate) use self::entry::EntryContent;
pub(crate) use self::leased_reader::LeasedReader;
pub(crate) use self::merged_reader::{MergedReader, SessionOver};
pub use self::receipt::Receipt;
pub use self::request::{MAX_IN_ONE_READ, ReadFrom, ReadRequest};
pub(crate) use self::session_handle::SessionTurn;
pub(crate) use self::stream_reader::{MergedRun, StreamReadError};
pub(super) use self::stream_sessions::StreamSessions;
use super::log::Run;
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
    /// How many entries retention removed before this subscription was given them; told once, and markers are wanted:
    /// then the first run is a marker of it.
    pub lost: u64,
    /// The first of those, where that is known; of those that are to be told, where there are no entries.
    pub lost_from: Option<Sequence>,
    /// To be told when the response was handed over whole.
    pub receipt: Receipt,
    /// What is to be acknowledged, when that was asked for and there is something.
    pub leased: Option<Leased>,
}
