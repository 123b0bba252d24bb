//! Query strings: strict where the parameters are ours, passed on where they are the vendor's.
//!
//! Invariant: what cannot be decoded is refused. A parameter's name is repeated to nobody unless it is a word.

use std::time::Duration;

use crate::config::values::parse_duration;
use crate::events::StartAt;
use crate::kernel::clock::UnixMillis;
use crate::request::refusal::Refusal;
use crate::request::route::path::decode;

/// Refuses any parameter.
pub(crate) fn none(query: Option<&str>) -> Result<(), Refusal> {
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
        let name = text(name).map_err(|held| Refusal::bad(format!("query: a name holds {held}")))?;
        let value = text(value).map_err(|held| Refusal::bad(format!("{}: holds {held}", printable(&name))))?;
        Ok((name, value))
    })
    .collect()
}

/// What was encoded.
///
/// # Errors
/// What it holds that it must not, when that is not UTF-8 without control characters.
fn text(raw: &str) -> Result<String, &'static str> {
    let spaced = raw.replace('+', " ");
    let text = decode(&spaced).ok_or("a bad percent-encoding")?;
    if text.chars().any(char::is_control) { Err("a control character") } else { Ok(text.into_owned()) }
}

/// A parameter that is not known here.
pub(super) fn unknown(name: &str) -> Refusal {
    Refusal::bad(format!("{}: unknown parameter", printable(name)))
}

/// A parameter's name as answers and the log may repeat it: a word. Anything else is the caller's own text, and may be
/// a key that was pasted into the wrong place.
pub(crate) fn printable(name: &str) -> &str {
    let is_word = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b'-';
    if (1..=24).contains(&name.len()) && name.bytes().all(is_word) { name } else { "…" }
}

/// `20s`, or plain seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_secs).or_else(|| parse_duration(text))
}

/// Where a subscription is to begin or to go: `earliest`, `latest`, an RFC 3339 time or a cursor.
pub(crate) fn start(text: &str) -> Option<StartAt> {
    match text {
        "earliest" => Some(StartAt::Earliest),
        "latest" => Some(StartAt::Latest),
        text => match text.parse() {
            Ok(cursor) => Some(StartAt::After(cursor)),
            Err(_) => {
                let time: jiff::Timestamp = text.parse().ok()?;
                Some(StartAt::Since(UnixMillis(u64::try_from(time.as_millisecond()).unwrap_or(0))))
            }
        },
    }
}
