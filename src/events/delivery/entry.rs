//! What a reader is shown of the entries of a log, and what one says, whatever form it is given in.

use std::ops::Range;

use bytes::Bytes;

use crate::store::{Batch, Content};

/// What an entry says.
pub(crate) enum EntryContent<'a> {
    /// An event, as the vendor wrote it.
    Event(Bytes),
    /// Events may have been lost here, and why.
    PossibleLoss(&'a str),
}

impl<'a> EntryContent<'a> {
    /// Of one of a batch's entries.
    pub(crate) fn of(batch: &'a Batch, index: usize) -> Self {
        match &batch.content {
            Content::Events(events) => Self::Event(events.slice(index..index + 1)),
            Content::PossibleLoss(reason) => Self::PossibleLoss(reason),
            Content::Damaged(_) => Self::PossibleLoss("damaged"),
        }
    }
}

/// Which of these entries of a batch a reader is shown. Damaged entries have one marker, at the last of them: thousands
/// that all say the same would tell nobody more, and a place after the last is where reading goes on.
pub(crate) fn shown(content: &Content, entries: Range<usize>) -> Range<usize> {
    match content {
        Content::Damaged(_) => entries.end.saturating_sub(1)..entries.end,
        Content::Events(_) | Content::PossibleLoss(_) => entries,
    }
}
