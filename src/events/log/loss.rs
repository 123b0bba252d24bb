//! [`Loss`]: why events may have been lost. A fixed set: the reasons are a metric's label and a marker's text.

use std::collections::BTreeMap;

use crate::kernel::clock::UnixMillis;
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
    /// Events that were stored cannot be read any more.
    Damaged,
}

impl Loss {
    /// All of them, as `docs/events.md` lists them.
    #[cfg(test)]
    pub(in crate::events) const ALL: [Self; 13] = [
        Self::Timeout,
        Self::Reset,
        Self::CutBody,
        Self::TooLarge,
        Self::Status408,
        Self::Status5xx,
        Self::Unparsable,
        Self::NotSuccess,
        Self::Overflow,
        Self::Stopped,
        Self::UncleanStop,
        Self::Retention,
        Self::Damaged,
    ];

    /// Those that a poller may come to.
    pub(in crate::events) const OF_A_READ: [Self; 11] = [
        Self::Timeout,
        Self::Reset,
        Self::CutBody,
        Self::TooLarge,
        Self::Status408,
        Self::Status5xx,
        Self::Unparsable,
        Self::NotSuccess,
        Self::Overflow,
        Self::Stopped,
        Self::UncleanStop,
    ];

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
            Self::Damaged => "damaged",
        }
    }

    /// The marker.
    pub(in crate::events) fn marker(self) -> Content {
        Content::PossibleLoss(self.as_str().to_owned())
    }
}

/// What a marker says, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) struct Marker {
    pub(in crate::events) reason: String,
    /// How often each reason came up.
    pub(in crate::events) reasons: BTreeMap<String, u64>,
    /// How many reads ended in doubt; `None` where no read did.
    pub(in crate::events) count: Option<u64>,
    /// When the first doubt was, and the last.
    pub(in crate::events) from: UnixMillis,
    pub(in crate::events) to: UnixMillis,
}

impl Marker {
    /// Reads a marker that was written then.
    pub(in crate::events) fn read(text: &str, written_at: UnixMillis) -> Self {
        Self { reason: text.to_owned(), reasons: BTreeMap::new(), count: None, from: written_at, to: written_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reason has its row in the page that operators read, and each row is a reason.
    #[test]
    fn the_table_of_reasons_lists_each_of_them() {
        let page = include_str!("../../../docs/events.md");
        let (_, table) = page.split_once("| reason | what happened |").expect("the table of reasons");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let rows: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
        let reasons: Vec<&str> = rows.iter().map(|cells| cells[0].trim_matches('`')).collect();
        assert_eq!(reasons, Loss::ALL.map(Loss::as_str));
        assert!(rows.iter().all(|cells| cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty())), "{rows:?}");
    }
}
