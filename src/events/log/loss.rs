//! [`Loss`]: why events may have been lost. A fixed set: the reasons are a metric's label, and stand in markers. And
//! [`Marker`]: what a marker says, and how it is stored.
//!
//! A marker is stored as a text: its reason alone, or of an outage, ` ` and one JSON object behind it. (So older
//! gateways can read it, and nobody takes it for an event, which is JSON from its first byte on.)

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::{Serialize, Serializer};

use crate::kernel::clock::UnixMillis;
use crate::store::Content;

/// What a marker says. As JSON: what readers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The only reason, or the first.
    pub reason: String,
    /// What more is known of an outage.
    pub outage: Option<MarkedOutage>,
}

/// What a marker says of an outage: a time in which reads ended in doubt, up to the first that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedOutage {
    /// How many reads ended in doubt.
    pub count: u64,
    /// How often each reason came up.
    pub reasons: BTreeMap<String, u64>,
    /// When the first of them ended.
    pub from: UnixMillis,
    /// When events were read again.
    pub to: UnixMillis,
}

/// An outage as it is stored. It is on disk: members may be added, none changed.
#[derive(serde::Serialize, serde::Deserialize)]
struct StoredOutage {
    count: u64,
    reasons: BTreeMap<String, u64>,
    from: u64,
    to: u64,
}

impl Marker {
    /// Of a reason alone.
    pub(in crate::events) fn of(reason: Loss) -> Self {
        Self { reason: reason.as_str().to_owned(), outage: None }
    }

    /// Reads a marker's text, whatever version wrote it.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let of_outage = |(reason, outage): (&str, &str)| {
            let StoredOutage { count, reasons, from, to } = serde_json::from_str(outage).ok()?;
            let outage = MarkedOutage { count, reasons, from: UnixMillis(from), to: UnixMillis(to) };
            Some(Self { reason: reason.to_owned(), outage: Some(outage) })
        };
        text.split_once(' ').and_then(of_outage).unwrap_or_else(|| Self { reason: text.to_owned(), outage: None })
    }

    /// As it stands in a log.
    pub(in crate::events) fn content(&self) -> Content {
        Content::PossibleLoss(self.to_string())
    }
}

/// As it is stored.
impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        let Some(MarkedOutage { count, reasons, from, to }) = &self.outage else { return Ok(()) };
        let outage = StoredOutage { count: *count, reasons: reasons.clone(), from: from.0, to: to.0 };
        write!(f, " {}", serde_json::to_string(&outage).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Marker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Members<'a> {
            reason: &'a str,
            #[serde(flatten)]
            outage: Option<OutageMembers<'a>>,
        }
        #[derive(serde::Serialize)]
        struct OutageMembers<'a> {
            count: u64,
            reasons: &'a BTreeMap<String, u64>,
            from: String,
            to: String,
        }
        let outage = self.outage.as_ref().map(|MarkedOutage { count, reasons, from, to }| OutageMembers {
            count: *count,
            reasons,
            from: from.to_string(),
            to: to.to_string(),
        });
        Members { reason: &self.reason, outage }.serialize(serializer)
    }
}

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

    /// Those that a poller may come to; the others are found in what is stored.
    pub(in crate::events) fn of_a_poller() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|loss| !matches!(loss, Self::Retention | Self::Damaged))
    }

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_stored_of_a_marker_is_read_as_it_was_and_older_ones_too() {
        let outage = MarkedOutage {
            count: 12,
            reasons: BTreeMap::from([("timeout".to_owned(), 2), ("status_5xx".to_owned(), 10)]),
            from: UnixMillis(1_800_000_000_000),
            to: UnixMillis(1_800_000_060_000),
        };
        let record = Marker { reason: "timeout".to_owned(), outage: Some(outage) };
        let text = record.to_string();
        let stored =
            r#"timeout {"count":12,"reasons":{"status_5xx":10,"timeout":2},"from":1800000000000,"to":1800000060000}"#;
        assert_eq!(text, stored);
        assert_eq!(Marker::read(&text), record);
        let told = json!({
            "reason": "timeout", "count": 12, "reasons": { "timeout": 2, "status_5xx": 10 },
            "from": "2027-01-15T08:00:00.000Z", "to": "2027-01-15T08:01:00.000Z",
        });
        assert_eq!(serde_json::to_value(&record).unwrap(), told);
        for old in ["timeout", "the vendor did not answer", "reset {", ""] {
            assert_eq!(Marker::read(old), Marker { reason: old.to_owned(), outage: None });
            assert_eq!(Marker::read(old).to_string(), old);
            assert_eq!(serde_json::to_value(Marker::read(old)).unwrap(), json!({ "reason": old }));
        }
    }

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
