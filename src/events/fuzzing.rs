//! A door for the fuzz targets (`fuzz/`) and the corpus test: what an answer to an events read leads to.
//!
//! Invariant: only what the poller itself calls is called here; nothing is decided.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};

use super::ingest::poller::answer;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::upstream::egress::{Costs, Failed, Failure, Reply};

/// What is kept of a read.
#[derive(Debug)]
pub struct Kept {
    /// The texts of the events to be stored.
    pub events: Vec<Bytes>,
    /// Why events may have been lost; marked in the stream.
    pub loss: Option<String>,
    /// What goes to the quarantine.
    pub quarantined: Option<Bytes>,
    /// When the vendor wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// What is kept of an answer of this status.
#[must_use]
pub fn answered(status: StatusCode, retry_after: Option<HeaderValue>, body: Bytes) -> Kept {
    let region = RegionName::parse("cn").expect("the literal keeps the rule of names");
    let headers: HeaderMap = retry_after.into_iter().map(|value| (RETRY_AFTER, value)).collect();
    kept(Ok(Reply { status, headers, body, region, costs: Costs::default() }))
}

/// What is kept of an answer that was cut off.
#[must_use]
pub fn cut(partial: Bytes) -> Kept {
    let why = Failure::Lost { why: "cut".into(), partial: Some(partial), retry_after: None };
    kept(Err(Failed { why, costs: Costs::default() }))
}

fn kept(read: Result<Reply, Failed>) -> Kept {
    let outcome = answer::judge(read, UnixMillis(0));
    Kept {
        events: outcome.events.iter().flat_map(|events| events.iter().collect::<Vec<_>>()).collect(),
        loss: outcome.loss.map(|loss| format!("{loss:?}")),
        quarantined: outcome.unreadable.map(|(body, _)| body),
        retry_after: outcome.retry_after,
    }
}
