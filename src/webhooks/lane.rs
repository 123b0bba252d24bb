//! A [`Lane`]: a stream as it is read from one place for a webhook. Its number is that of the engine's lane.

use super::intake::Intake;
use crate::names::Stream;

/// See the module.
pub(super) struct Lane {
    pub(super) stream: Stream,
    pub(super) intake: Intake,
    /// Whether a read is under way.
    pub(super) is_read: bool,
    /// The stream is read from another place now, in another lane.
    pub(super) is_closed: bool,
}

impl Lane {
    pub(super) fn new(stream: Stream, intake: Intake) -> Self {
        Self { stream, intake, is_read: false, is_closed: false }
    }
}
