//! Query strings: strict where the parameters are ours, passed on where they are the vendor's.
//!
//! Invariant: a parameter that is unknown, given twice or not understood is refused by its name; none is ignored.

use std::time::Duration;

use crate::clock::UnixMillis;
use crate::config::values::parse_duration;
use crate::events::{Cursor, From};
use crate::names::SubscriptionName;
use crate::refusal::Refusal;
use crate::route::path::decode;

/// The longest a caller may have us wait for events.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The most events in one answer: as many as the vendor gives.
const MOST_EVENTS: usize = 1000;

/// The parameters of an events read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsQuery {
    /// `subscription`; `None`: the one of the client's name.
    pub(super) subscription: Option<SubscriptionName>,
    /// `from` or `after`.
    pub start: Start,
    /// `limit`.
    pub limit: usize,
    /// `wait`, at most a minute.
    pub wait: Duration,
}

/// Where an events read begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where the subscription is; a new one begins here.
    Stored(From),
    /// After this place, moving nothing.
    After(Cursor),
}

impl EventsQuery {
    /// Reads a query string.
    ///
    /// # Errors
    /// 400, naming the parameter.
    pub fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut subscription = None;
        let mut limit = None;
        let mut wait = None;
        let mut from = None;
        let mut after = None;
        for (name, value) in pairs(query)? {
            match name.as_str() {
                "subscription" => once(&name, &mut subscription, SubscriptionName::parse(&value).ok())?,
                "limit" => once(&name, &mut limit, value.parse().ok().filter(|n| (1..=MOST_EVENTS).contains(n)))?,
                "wait" => once(&name, &mut wait, duration(&value))?,
                "from" => once(&name, &mut from, start(&value))?,
                "after" => once(&name, &mut after, value.parse().ok())?,
                _ => return Err(unknown(&name)),
            }
        }
        let start = match (from, after) {
            (Some(_), Some(_)) => return Err(Refusal::bad("from: says where a subscription starts, not with `after`")),
            (from, None) => Start::Stored(from.unwrap_or(From::Earliest)),
            (None, Some(after)) => Start::After(after),
        };
        let wait = wait.unwrap_or_default().min(LONGEST_WAIT);
        Ok(Self { subscription, start, limit: limit.unwrap_or(MOST_EVENTS), wait })
    }
}

/// Refuses any parameter.
pub(super) fn none(query: Option<&str>) -> Result<(), Refusal> {
    match pairs(query)?.first() {
        None => Ok(()),
        Some((name, _)) => Err(unknown(name)),
    }
}

/// The pairs of a query string, decoded (`+` is a space). Empty pairs are passed over.
pub(crate) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
    let all = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    all.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = text(name).ok_or_else(|| Refusal::bad("query: a name holds a bad percent-encoding"))?;
        let value =
            text(value).ok_or_else(|| Refusal::bad(format!("{}: holds a bad percent-encoding", printable(&name))))?;
        Ok((name, value))
    })
    .collect()
}

/// What was encoded, when that is UTF-8 without control characters.
fn text(raw: &str) -> Option<String> {
    let spaced = raw.replace('+', " ");
    decode(&spaced).filter(|text| !text.chars().any(char::is_control)).map(std::borrow::Cow::into_owned)
}

fn once<T>(name: &str, place: &mut Option<T>, value: Option<T>) -> Result<(), Refusal> {
    let value = value.ok_or_else(|| Refusal::bad(format!("{name}: not understood ({})", expected(name))))?;
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad(format!("{name}: given twice"))),
    }
}

fn expected(name: &str) -> &'static str {
    match name {
        "subscription" => "1 to 128 of A-Z a-z 0-9 _ - .",
        "limit" => "1 to 1000",
        "wait" => "a duration such as 20s",
        "from" => "earliest, latest, an RFC 3339 time or a cursor",
        _ => "a cursor of this gateway",
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::bad(format!("{}: unknown parameter", printable(name)))
}

/// A parameter's name as answers and the log may repeat it: a word. Anything else is the caller's own text, and may be a
/// key that was pasted into the wrong place.
pub(crate) fn printable(name: &str) -> &str {
    let is_word = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b'-';
    if (1..=24).contains(&name.len()) && name.bytes().all(is_word) { name } else { "…" }
}

/// `20s`, or plain seconds.
fn duration(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_secs).or_else(|| parse_duration(text))
}

/// Where a subscription is to begin or to go: `earliest`, `latest`, an RFC 3339 time or a cursor.
pub(crate) fn start(text: &str) -> Option<From> {
    match text {
        "earliest" => Some(From::Earliest),
        "latest" => Some(From::Latest),
        text => match text.parse() {
            Ok(cursor) => Some(From::After(cursor)),
            Err(_) => {
                let time: jiff::Timestamp = text.parse().ok()?;
                Some(From::Since(UnixMillis(u64::try_from(time.as_millisecond()).unwrap_or(0))))
            }
        },
    }
}
