//! [`Loss`]: why events may have been lost. A fixed set: the reasons are a metric's label and a marker's text.

use crate::store::Content;

/// Why events may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::events) enum Loss {
    /// The vendor did not answer a read in time.
    Timeout,
    /// The connection died after the read was sent, before an answer began.
    Reset,
    /// The connection died in the middle of the answer; what came is in the quarantine.
    CutBody,
    /// The answer was larger than any may be, and not kept.
    TooLarge,
    /// The vendor said that it timed out.
    Status408,
    /// The vendor failed, perhaps after it had removed events from its queue.
    Status5xx,
    /// The answer could not be read; it is in the quarantine.
    Unparsable,
    /// The answer said that it was no success.
    NotSuccess,
    /// Two full reads after a pause: the vendor may have overwritten events before they could be read.
    Overflow,
    /// The gateway was stopped before a read was answered.
    Stopped,
    /// The last run did not end in order: a read may have been under way.
    UncleanStop,
    /// Retention removed events before this subscription had read them.
    Retention,
}

impl Loss {
    /// The label and the marker's reason.
    pub(in crate::events) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::CutBody => "cut_body",
            Self::TooLarge => "too_large",
            Self::Status408 => "status_408",
            Self::Status5xx => "status_5xx",
            Self::Unparsable => "unparsable",
            Self::NotSuccess => "not_success",
            Self::Overflow => "overflow",
            Self::Stopped => "stopped",
            Self::UncleanStop => "unclean_stop",
            Self::Retention => "retention",
        }
    }

    /// The marker.
    pub(in crate::events) fn marker(self) -> Content {
        Content::PossibleLoss(self.as_str().to_owned())
    }
}
