//! What an answer to an events read means: what is kept, and whether events may have been lost.
//!
//! | ended with | events | marker | quarantine | what may have happened |
//! |---|---|---|---|---|
//! | 2xx that can be read | all | – | – | |
//! | 2xx, `result` not `success` | any | `not_success` | if none | the vendor's word is unclear |
//! | 2xx that cannot be read | – | `unparsable` | all of it | |
//! | 408 | any | `status_408` | – | the vendor gave up, perhaps after removing events |
//! | 5xx but 501 | any | `status_5xx` | – | also 503: a balancer says it when the server died on the request |
//! | one of these, cut in the middle of the body | – | `cut_body` | what came | the events were removed before they were sent |
//! | died or timed out after sending | – | `reset`, `timeout` | – | |
//! | larger than any answer may be | – | `too_large` | – | |
//! | 501, 4xx, 3xx | – | – | – | nothing: the vendor refused |
//! | never sent, or never processed by the vendor's word | – | – | – | nothing |
//!
//! Invariants: no event that came whole is dropped, whatever the status; bodies of error answers (load balancers' pages)
//! do not fill the quarantine.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;

use crate::clock::UnixMillis;
use crate::egress::{Failed, Failure, Reply};
use crate::store::EventText;
use crate::upstream::retry_after;
use crate::vendor::events::{Answer, parse};

use super::super::loss::Loss;

/// What came of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct Outcome {
    /// What is to be stored.
    pub(in crate::events) events: Option<EventText>,
    /// Whether events may have been lost.
    pub(in crate::events) loss: Option<Loss>,
    /// What cannot be read, and why.
    pub(in crate::events) unreadable: Option<(Bytes, String)>,
    /// What went wrong, for operators.
    pub(in crate::events) error: Option<String>,
    /// When the vendor, or our own quota, wants to be asked again.
    pub(in crate::events) retry_after: Option<Duration>,
}

/// Judges how a read ended.
pub(in crate::events) fn judge(result: Result<Reply, Failed>, now: UnixMillis) -> Outcome {
    match result {
        Ok(reply) => judge_reply(&reply, now),
        Err(Failed { why, .. }) => judge_failure(&why),
    }
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
    let events = loss.and_then(|_| parse(&reply.body).ok()).and_then(|answer| joined(&answer));
    let hint = reply.headers.get(RETRY_AFTER).and_then(|value| retry_after::parse(value, now));
    Outcome {
        events,
        loss,
        error: Some(format!("the vendor answered {status}")),
        retry_after: hint,
        ..Outcome::default()
    }
}

fn judge_success(reply: &Reply) -> Outcome {
    if reply.body.is_empty() && reply.status == StatusCode::NO_CONTENT {
        return Outcome::default();
    }
    match parse(&reply.body) {
        Ok(answer) => {
            let events = joined(&answer);
            let Some(result) = answer.refused else { return Outcome { events, ..Outcome::default() } };
            let why = format!("result is {:?}", result.chars().take(SHOWN).collect::<String>());
            Outcome {
                unreadable: events.is_none().then(|| (reply.body.clone(), why.clone())),
                events,
                loss: Some(Loss::NotSuccess),
                error: Some(why),
                retry_after: None,
            }
        }
        Err(why) => doubt(Loss::Unparsable, why.to_string().chars().take(SHOWN).collect(), Some(reply.body.clone())),
    }
}

fn judge_failure(why: &Failure) -> Outcome {
    match why {
        Failure::TimedOut { sent: true } => doubt(Loss::Timeout, why.to_string(), None),
        Failure::Lost { partial: Some(partial), retry_after, .. } => {
            Outcome { retry_after: *retry_after, ..doubt(Loss::CutBody, why.to_string(), Some(partial.clone())) }
        }
        Failure::Lost { partial: None, .. } => doubt(Loss::Reset, why.to_string(), None),
        // Reads of events need no room.
        Failure::TooLarge | Failure::NoRoom => doubt(Loss::TooLarge, why.to_string(), None),
        Failure::QuotaSpent { retry_after, .. }
        | Failure::RegionDown { retry_after, .. }
        | Failure::AskedToWait { retry_after, .. } => {
            Outcome { error: Some(why.to_string()), retry_after: Some(*retry_after), ..Outcome::default() }
        }
        Failure::TimedOut { sent: false }
        | Failure::Crowded(_)
        | Failure::CredentialUnavailable(_)
        | Failure::CredentialRefused
        | Failure::Unreachable(_)
        | Failure::Unproven(_)
        | Failure::Unprocessed(_)
        | Failure::NoSuchApp
        | Failure::Stopping => Outcome { error: Some(why.to_string()), ..Outcome::default() },
    }
}

fn doubt(loss: Loss, why: String, body: Option<Bytes>) -> Outcome {
    Outcome {
        unreadable: body.map(|body| (body, why.clone())),
        loss: Some(loss),
        error: Some(why),
        ..Outcome::default()
    }
}

fn joined(answer: &Answer<'_>) -> Option<EventText> {
    EventText::join(answer.events.iter().map(|event| event.as_bytes()))
}

/// Characters of the vendor's own words that go into logs and the status: a stranger's text may be of any length.
const SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Costs;
    use crate::names::RegionName;

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

    #[test]
    fn an_answer_that_can_be_read_is_no_loss_whatever_else_is_in_it() {
        for body in [r#"{"result":"success","events":[{"a":1},7],"odd":[{}]}"#, r#"{"events":[{"a":1},7]}"#] {
            let outcome = reply(200, body);
            assert_eq!(outcome.events.unwrap().text(), r#"{"a":1},7"#);
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
            assert_eq!(outcome.events, None);
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
            assert_eq!(outcome.events.unwrap().text(), "{}");
            assert_eq!(outcome.loss, Some(loss));
            assert_eq!(reply(status, "<html>").unreadable, None);
        }
        let refused = reply(200, r#"{"result":"failed","events":[{}]}"#);
        assert_eq!((refused.loss, refused.unreadable), (Some(Loss::NotSuccess), None));
        assert_eq!(refused.events.unwrap().text(), "{}");
    }

    #[test]
    fn every_failure_in_doubt_is_marked_and_no_other() {
        use crate::names::BucketName;
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
