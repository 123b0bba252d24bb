//! What an answer to an events read means: what is kept, and whether events may have been lost.
//!
//! | ended with | events | marker | quarantine | what may have happened |
//! |---|---|---|---|---|
//! | 2xx that can be read | all | – | – | |
//! | 2xx, `result` not `success` | any | `not_success` | if none | the vendor's word is unclear |
//! | 2xx that cannot be read to its end, or not be decoded | before the fault | `unparsable` | what there is | |
//! | 408 | before a fault | `status_408` | if a fault is in its list | it gave up, perhaps after removing events |
//! | 5xx but 501 | before a fault | `status_5xx` | if a fault is in its list | also 503: a balancer's, when the server died |
//! | one of these, cut in the body | before the cut | `cut_body` | what came | events were removed before they were sent |
//! | one of these, larger than `max_read_bytes` | up to there | `too_large` | so much of it | |
//! | died or timed out after sending | – | `reset`, `timeout` | – | |
//! | 501, 4xx, 3xx | – | – | – | nothing: the vendor refused |
//! | never sent, or never processed by the vendor's word | – | – | – | nothing |
//!
//! Invariants: no event that came whole before a fault is dropped, whatever the status, and what comes from the fault
//! on is kept; bodies of error answers (load balancers' pages) do not fill the quarantine.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;

use crate::kernel::clock::UnixMillis;
use crate::store::EventText;
use crate::upstream::egress::{Failed, Failure, Reply};
use crate::upstream::pool::retry_after;
use crate::vendor::events::{ReadSummary, read};

use super::pieces::Pieces;
use crate::events::log::loss::Loss;

/// What came of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct Outcome {
    /// What is to be stored, oldest first.
    pub(in crate::events) events: Vec<EventText>,
    /// Whether events may have been lost.
    pub(in crate::events) loss: Option<Loss>,
    /// What cannot be read to its end, and why.
    pub(in crate::events) unreadable: Option<(Bytes, String)>,
    /// What went wrong, for operators.
    pub(in crate::events) error: Option<String>,
    /// What kind of thing that is; of an error alone.
    pub(in crate::events) failure: Option<ReadFailure>,
    /// When the vendor, or our own quota, wants to be asked again.
    pub(in crate::events) retry_after: Option<Duration>,
    /// Whether the read had been given up before.
    pub(in crate::events) is_late: bool,
}

/// What keeps a poller from reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum ReadFailure {
    /// The vendor will not answer this read, or we may not send it: that ends only when somebody does something.
    Refused,
    /// There is no credential that the vendor takes. Probes are told so by who keeps it.
    NoCredential,
    /// The vendor fails, or cannot be reached.
    Failing,
    /// Nothing was sent because others are served, or the vendor asked for patience: that ends by itself.
    Busy,
}

impl Outcome {
    /// How many events there are.
    pub(in crate::events) fn count(&self) -> usize {
        self.events.iter().map(EventText::len).sum()
    }
}

/// Judges how a read ended.
pub(in crate::events) fn judge(result: Result<Reply, Failed>, now: UnixMillis) -> Outcome {
    match result {
        Ok(reply) => judge_reply(&reply, now),
        Err(Failed { why, .. }) => judge_failure(&why),
    }
}

/// The events of a body that are whole, and what it says beside them.
fn parse(body: &[u8]) -> (Vec<EventText>, ReadSummary) {
    let mut pieces = Pieces::default();
    let said = read(body, |event| pieces.push(event));
    (pieces.finish(), said)
}

/// The events of a body that are whole, after so many of them, and how many there are with these.
pub(in crate::events) fn after(body: &[u8], passed: u64) -> (Vec<EventText>, u64) {
    let (mut pieces, mut count) = (Pieces::default(), 0);
    read(body, |event| {
        count += 1;
        if count > passed {
            pieces.push(event);
        }
    });
    (pieces.finish(), count)
}

fn judge_reply(reply: &Reply, now: UnixMillis) -> Outcome {
    let status = reply.status;
    if status.is_success() {
        return judge_success(reply);
    }
    let loss = match status {
        StatusCode::REQUEST_TIMEOUT => Some(Loss::Status408),
        StatusCode::NOT_IMPLEMENTED => None,
        _ if status.is_server_error() => Some(Loss::Status5xx),
        _ => None,
    };
    let (events, said) = if loss.is_some() { parse(&reply.body) } else { Default::default() };
    let hint = reply.headers.get(RETRY_AFTER).and_then(|value| retry_after::parse(value, now));
    let failure = match status {
        StatusCode::TOO_MANY_REQUESTS => ReadFailure::Busy,
        _ if loss.is_some() => ReadFailure::Failing,
        _ => ReadFailure::Refused,
    };
    Outcome {
        events,
        loss,
        failure: Some(failure),
        unreadable: said.fault.filter(|_| said.has_list).map(|why| (reply.body.clone(), shown(&why.to_string()))),
        error: Some(format!("the vendor answered {status}")),
        retry_after: hint,
        is_late: false,
    }
}

fn judge_success(reply: &Reply) -> Outcome {
    if reply.body.is_empty() && reply.status == StatusCode::NO_CONTENT {
        return Outcome::default();
    }
    let (events, said) = parse(&reply.body);
    let (loss, why, is_kept) = match (said.fault, said.refused) {
        (Some(fault), _) => (Loss::Unparsable, shown(&fault.to_string()), true),
        (None, Some(result)) => (Loss::NotSuccess, format!("result is {:?}", shown(&result)), events.is_empty()),
        (None, None) => return Outcome { events, ..Outcome::default() },
    };
    Outcome {
        events,
        loss: Some(loss),
        unreadable: is_kept.then(|| (reply.body.clone(), why.clone())),
        error: Some(why),
        failure: Some(ReadFailure::Failing),
        retry_after: None,
        is_late: false,
    }
}

fn judge_failure(why: &Failure) -> Outcome {
    match why {
        Failure::TimedOut { sent: true } => doubt(Loss::Timeout, why.to_string(), None),
        Failure::Lost { partial, retry_after, .. } => {
            let loss = if partial.is_some() { Loss::CutBody } else { Loss::Reset };
            Outcome { retry_after: *retry_after, ..doubt(loss, why.to_string(), partial.as_ref()) }
        }
        Failure::Overlong { came, .. } => doubt(Loss::TooLarge, why.to_string(), Some(came)),
        Failure::Undecodable { came, .. } => doubt(Loss::Unparsable, why.to_string(), Some(came)),
        // Reads of events need no room, and what is too large of them is kept up to a limit.
        Failure::TooLarge | Failure::NoRoom => doubt(Loss::TooLarge, why.to_string(), None),
        Failure::QuotaSpent { retry_after, .. }
        | Failure::RegionDown { retry_after, .. }
        | Failure::AskedToWait { retry_after, .. } => {
            Outcome { retry_after: Some(*retry_after), ..unread(ReadFailure::Busy, why) }
        }
        Failure::TimedOut { sent: false } | Failure::Crowded(_) | Failure::Stopping => unread(ReadFailure::Busy, why),
        Failure::CredentialUnavailable(_) | Failure::CredentialRefused => unread(ReadFailure::NoCredential, why),
        Failure::NoSuchApp => unread(ReadFailure::Refused, why),
        Failure::Unreachable(_) | Failure::Unproven(_) | Failure::Unprocessed(_) => unread(ReadFailure::Failing, why),
    }
}

fn unread(failure: ReadFailure, why: &Failure) -> Outcome {
    Outcome { error: Some(why.to_string()), failure: Some(failure), ..Outcome::default() }
}

fn doubt(loss: Loss, why: String, body: Option<&Bytes>) -> Outcome {
    Outcome {
        events: body.map(|body| parse(body).0).unwrap_or_default(),
        unreadable: body.map(|body| (body.clone(), why.clone())),
        loss: Some(loss),
        error: Some(why),
        failure: Some(ReadFailure::Failing),
        retry_after: None,
        is_late: false,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Characters of the vendor's own words that go into logs and the status: a stranger's text may be of any length.
const SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::names::RegionName;
    use crate::upstream::egress::Costs;

    fn reply(status: u16, body: &'static str) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        let mut headers = hyper::HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let region = RegionName::parse("cn").unwrap();
        judge(Ok(Reply { status, headers, body: body.into(), region, costs: Costs::default() }), UnixMillis(0))
    }

    fn failure(why: Failure) -> Outcome {
        judge(Err(Failed { why, costs: Costs::default() }), UnixMillis(0))
    }

    fn cut(came: &'static str, retry_after: Option<Duration>) -> Failure {
        Failure::Lost { why: "cut".into(), partial: Some(came.into()), retry_after }
    }

    fn text(outcome: &Outcome) -> String {
        let texts = outcome.events.iter().map(|events| str::from_utf8(events.text()).unwrap());
        texts.collect::<Vec<_>>().join(",")
    }

    #[test]
    fn an_answer_that_can_be_read_is_no_loss_whatever_else_is_in_it() {
        for body in [r#"{"result":"success","events":[{"a":1},7],"odd":[{}]}"#, r#"{"events":[{"a":1},7]}"#] {
            let outcome = reply(200, body);
            assert_eq!(text(&outcome), r#"{"a":1},7"#);
            assert_eq!((outcome.loss, outcome.unreadable, outcome.error), (None, None, None));
        }
        assert_eq!(reply(200, r#"{"result":"success","events":[]}"#), Outcome::default());
        assert_eq!(reply(204, ""), Outcome::default());
    }

    #[test]
    fn what_cannot_be_read_is_kept_whole_and_marked() {
        for (outcome, loss, kept) in [
            (reply(200, "<html>"), Loss::Unparsable, "<html>"),
            (reply(200, ""), Loss::Unparsable, ""),
            (reply(200, r#"{"result":"failed"}"#), Loss::NotSuccess, r#"{"result":"failed"}"#),
            (failure(cut("{\"ev", None)), Loss::CutBody, "{\"ev"),
        ] {
            assert_eq!(outcome.loss, Some(loss));
            assert_eq!(outcome.unreadable.unwrap().0, kept);
            assert_eq!(outcome.events, []);
        }
    }

    #[test]
    fn the_events_before_a_fault_are_delivered_and_the_whole_body_is_kept_with_their_number() {
        let text_cut = r#"{"result":"success","events":[{"a":1},{"b":2},{"c"#;
        let came = || Bytes::from_static(text_cut.as_bytes());
        for (outcome, loss) in [
            (reply(200, text_cut), Loss::Unparsable),
            (reply(503, text_cut), Loss::Status5xx),
            (failure(cut(text_cut, None)), Loss::CutBody),
            (failure(Failure::Overlong { beyond: 7, came: came() }), Loss::TooLarge),
            (failure(Failure::Undecodable { why: "no".into(), came: came() }), Loss::Unparsable),
        ] {
            assert_eq!((text(&outcome).as_str(), outcome.count()), (r#"{"a":1},{"b":2}"#, 2));
            assert_eq!((outcome.loss, outcome.unreadable.unwrap().0), (Some(loss), came()));
        }
    }

    #[test]
    fn an_answer_that_is_cut_is_obeyed_in_what_its_head_asked_for() {
        let asked = Some(Duration::from_secs(7));
        assert_eq!(failure(cut("<html>", asked)).retry_after, asked);
    }

    #[test]
    fn events_in_an_error_answer_are_kept_and_the_doubt_is_marked() {
        for (status, loss) in [(408, Loss::Status408), (500, Loss::Status5xx), (503, Loss::Status5xx)] {
            let outcome = reply(status, r#"{"result":"failed","events":[{}]}"#);
            assert_eq!(text(&outcome), "{}");
            assert_eq!((outcome.loss, &outcome.unreadable), (Some(loss), &None));
            assert_eq!(reply(status, "<html>").unreadable, None);
        }
        let refused = reply(200, r#"{"result":"failed","events":[{}]}"#);
        assert_eq!((refused.loss, &refused.unreadable), (Some(Loss::NotSuccess), &None));
        assert_eq!(text(&refused), "{}");
    }

    #[test]
    fn every_failure_in_doubt_is_marked_and_no_other() {
        use crate::kernel::names::BucketName;
        for why in [
            Failure::Crowded(BucketName::UserEvents),
            Failure::CredentialRefused,
            Failure::RegionDown { region: RegionName::parse("cn").unwrap(), retry_after: Duration::from_secs(1) },
            Failure::Unreachable("no".into()),
            Failure::Unprocessed("no".into()),
            Failure::TimedOut { sent: true },
            Failure::TimedOut { sent: false },
            Failure::Lost { why: "reset".into(), partial: None, retry_after: None },
            Failure::TooLarge,
            Failure::Overlong { beyond: 1, came: Bytes::new() },
            Failure::Undecodable { why: "no".into(), came: Bytes::new() },
            Failure::NoSuchApp,
            Failure::Stopping,
        ] {
            let outcome = failure(why.clone());
            assert_eq!(outcome.loss.is_some(), why.in_doubt(), "{why}");
            assert_eq!(outcome.error.as_deref(), Some(&why.to_string()[..]));
        }
        for status in [301, 400, 403, 404, 410, 501] {
            let outcome = reply(status, "no");
            assert_eq!((outcome.loss, outcome.retry_after), (None, Some(Duration::from_secs(7))), "{status}");
        }
    }
}
