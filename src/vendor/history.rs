//! Wire formats of history and count: what is sent, and what the answers say.
//!
//! Facts, from the vendor's page unless marked *field*:
//! - create: `POST …/message/history/query` with `filter`, `offset`, `limit` (20, 50 or 100) and `order`; the answer's
//!   `location` is `~/rtm/message/history/query/` and the handle
//! - fetch: `code` is `ok`, `in progress` or `resource not exist`; the page's table calls the list `message`, its
//!   example `messages`
//! - `result` is `success`
//! - times are seconds since 1970 (*field*: the sister vendor takes `2019-08-01T01:22:10Z`)
//!
//! Invariants: readers take any JSON object, in any member order, with any members beside; a message is a slice of the
//! answer's own bytes, never parsed and written again. What cannot be read is said to be so, never guessed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Vendor;

/// What every location begins with; the handle follows.
pub const LOCATION: &str = "~/rtm/message/history/query/";

/// The vendor's page sizes, smallest first.
pub const PAGE_SIZES: [usize; 3] = [20, 50, 100];

/// How long the vendor wants to be left alone after `in progress`.
pub const IN_PROGRESS_PAUSE: Duration = Duration::from_secs(2);

/// Which end of the list comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Asc,
    /// Newest first.
    Desc,
}

impl Direction {
    /// The vendor's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

/// Which messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The sender; never empty.
    pub source: Option<Arc<str>>,
    /// The receiver, a user or a channel; never empty.
    pub destination: Option<Arc<str>>,
    /// First second of the window, since 1970 UTC.
    pub start: u64,
    /// Last second of the window, not before `start`. Whether the vendor takes all of that second is not documented.
    pub end: u64,
}

/// One query to the vendor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageQuery {
    /// Which messages.
    pub filter: Filter,
    /// How many to skip.
    pub offset: u64,
    /// How many to return: one of [`PAGE_SIZES`].
    pub limit: usize,
    /// In which order.
    pub direction: Direction,
}

#[derive(Serialize)]
struct CreateOut<'a> {
    filter: FilterOut<'a>,
    offset: u64,
    limit: usize,
    order: &'a str,
}

#[derive(Serialize)]
struct FilterOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'a str>,
    start_time: Time,
    end_time: Time,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Time {
    Seconds(u64),
    Iso(String),
}

impl Time {
    fn of(vendor: Vendor, seconds: u64) -> Self {
        // A timestamp's range ends a day before the calendar's, at which every time of a query lies.
        let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
        let since = i64::try_from(seconds).ok().map(jiff::SignedDuration::from_secs);
        let iso = || since.and_then(|since| epoch.checked_add(since).ok());
        match vendor {
            Vendor::AnyRtc => Self::Seconds(seconds),
            // Parsed times are within the calendar; seconds stand in for one that is not.
            Vendor::Agora => iso().map_or(Self::Seconds(seconds), |time| Self::Iso(format!("{time}Z"))),
        }
    }

    fn into_text(self) -> String {
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Iso(text) => text,
        }
    }
}

/// The body that creates a query.
#[must_use]
pub fn create_body(vendor: Vendor, query: &PageQuery) -> Bytes {
    let filter = &query.filter;
    let out = CreateOut {
        filter: FilterOut {
            source: filter.source.as_deref(),
            destination: filter.destination.as_deref(),
            start_time: Time::of(vendor, filter.start),
            end_time: Time::of(vendor, filter.end),
        },
        offset: query.offset,
        limit: query.limit,
        order: query.direction.as_str(),
    };
    // Strings and numbers alone always render.
    serde_json::to_vec(&out).unwrap_or_default().into()
}

/// The query parameters of a count.
#[must_use]
pub fn count_parameters(vendor: Vendor, filter: &Filter) -> Vec<(String, String)> {
    let mut pairs = Vec::with_capacity(4);
    for (name, value) in [("source", &filter.source), ("destination", &filter.destination)] {
        if let Some(value) = value {
            pairs.push((name.to_owned(), value.to_string()));
        }
    }
    pairs.push(("start_time".to_owned(), Time::of(vendor, filter.start).into_text()));
    pairs.push(("end_time".to_owned(), Time::of(vendor, filter.end).into_text()));
    pairs
}

/// An answer that cannot be understood. The text holds nothing of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnreadableHistory(&'static str);

/// How far the vendor is with what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// Here it is.
    Ready(T),
    /// Ask again, not sooner than 2 seconds from now.
    Running,
    /// The handle is dead: used, expired or never known.
    Gone,
}

/// Whether an answer's `result` says that it is one. One that says nothing is taken for what else it says.
fn succeeded(result: Option<&RawValue>) -> Result<(), UnreadableHistory> {
    let word = result.map(|raw| serde_json::from_str::<Cow<'_, str>>(raw.get()));
    match word {
        None => Ok(()),
        Some(Ok(word)) if word.trim() == "success" => Ok(()),
        Some(_) => Err(UnreadableHistory("its result is not success")),
    }
}

#[derive(Deserialize)]
struct CreatedIn<'a> {
    #[serde(borrow)]
    location: Option<Cow<'a, str>>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// The handle in the answer to a create.
///
/// # Errors
/// When there is none that can stand in a path, or it is no success.
pub fn created(body: &[u8]) -> Result<String, UnreadableHistory> {
    let answer: CreatedIn<'_> =
        serde_json::from_slice(body).map_err(|_| UnreadableHistory("the answer to a query's creation is not JSON"))?;
    succeeded(answer.result)?;
    let location = answer.location.ok_or(UnreadableHistory("a created query has no location"))?;
    // The page writes `~/rtm/…`; an absolute path or URL would end alike.
    let end = &LOCATION[1..];
    let handle = location.split_once(end).map_or("", |(_, handle)| handle);
    if handle.bytes().all(|b| b == b'.') {
        return Err(UnreadableHistory("a created query's location holds no handle"));
    }
    Ok(handle.to_owned())
}

#[derive(Deserialize)]
struct AnswerIn<'a> {
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    count: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

enum Code {
    Ok,
    Running,
    Gone,
    /// Absent, or a word not on the vendor's page.
    Other,
}

impl AnswerIn<'_> {
    fn code(&self) -> Code {
        let Some(code) = self.code.and_then(|raw| serde_json::from_str::<Cow<'_, str>>(raw.get()).ok()) else {
            return Code::Other;
        };
        match code.trim() {
            "ok" => Code::Ok,
            "in progress" => Code::Running,
            "resource not exist" => Code::Gone,
            _ => Code::Other,
        }
    }
}

/// What came through a handle: the messages' own texts.
///
/// # Errors
/// When it is no JSON object, says neither that it is ready nor why not, or is no success.
pub fn fetched(body: &Bytes) -> Result<Progress<Vec<Bytes>>, UnreadableHistory> {
    let answer: AnswerIn<'_> =
        serde_json::from_slice(body).map_err(|_| UnreadableHistory("the answer to a fetch is not JSON"))?;
    let code = answer.code();
    match code {
        Code::Running => return Ok(Progress::Running),
        Code::Gone => return Ok(Progress::Gone),
        Code::Ok | Code::Other => succeeded(answer.result)?,
    }
    let list = match (code, answer.messages.or(answer.message)) {
        // `null` for an empty list is what some encoders write.
        (Code::Ok, None) => return Ok(Progress::Ready(Vec::new())),
        (_, None) => return Err(UnreadableHistory("a fetched query has neither a known code nor messages")),
        (_, Some(list)) => list,
    };
    let list: Vec<&RawValue> =
        serde_json::from_str(list.get()).map_err(|_| UnreadableHistory("a fetched query's messages are no list"))?;
    Ok(Progress::Ready(list.into_iter().map(|text| body.slice_ref(text.get().as_bytes())).collect()))
}

/// What a count says.
///
/// # Errors
/// When it is no JSON object, says neither a number nor why not, or is no success.
pub fn counted(body: &[u8]) -> Result<Progress<u64>, UnreadableHistory> {
    let answer: AnswerIn<'_> =
        serde_json::from_slice(body).map_err(|_| UnreadableHistory("the answer to a count is not JSON"))?;
    match answer.code() {
        Code::Running => Ok(Progress::Running),
        Code::Gone => Ok(Progress::Gone),
        Code::Ok | Code::Other => {
            succeeded(answer.result)?;
            let count = answer.count.and_then(whole_number);
            count.map(Progress::Ready).ok_or(UnreadableHistory("a count's answer has no number in it"))
        }
    }
}

#[derive(Deserialize)]
struct MessageIn<'a> {
    #[serde(borrow)]
    ms: Option<&'a RawValue>,
    #[serde(borrow)]
    ts: Option<&'a RawValue>,
}

/// When a message was sent, in milliseconds since 1970 UTC. *Field*: the sister vendor writes `ts` for `ms` elsewhere.
#[must_use]
pub fn message_ms(text: &[u8]) -> Option<u64> {
    let message: MessageIn<'_> = serde_json::from_slice(text).ok()?;
    let raw = message.ms.or(message.ts)?;
    whole_number(raw).or_else(|| {
        // Some encoders write numbers as 1.587009745719e12 or with a fraction, which is less than a millisecond.
        let float: f64 = raw.get().trim_matches('"').parse().ok()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^53")]
        (0.0..9_007_199_254_740_992.0).contains(&float).then_some(float as u64)
    })
}

/// A number, or a string of digits.
fn whole_number(raw: &RawValue) -> Option<u64> {
    raw.get().trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> PageQuery {
        let filter =
            Filter { source: None, destination: Some("用\"户".into()), start: 1_564_622_530, end: 1_564_622_531 };
        PageQuery { filter, offset: 3, limit: 20, direction: Direction::Desc }
    }

    #[test]
    fn times_are_sent_as_each_vendor_expects() {
        assert_eq!(
            create_body(Vendor::AnyRtc, &query()),
            r#"{"filter":{"destination":"用\"户","start_time":1564622530,"end_time":1564622531},"offset":3,"limit":20,"order":"desc"}"#
        );
        let agora = create_body(Vendor::Agora, &query());
        let agora = std::str::from_utf8(&agora).unwrap();
        assert!(agora.contains(r#""start_time":"2019-08-01T01:22:10Z","end_time":"2019-08-01T01:22:11Z""#), "{agora}");
        let pairs = count_parameters(Vendor::Agora, &query().filter);
        assert_eq!(pairs[0], ("destination".into(), "用\"户".into()));
        assert_eq!(pairs[1], ("start_time".into(), "2019-08-01T01:22:10Z".into()));
        assert_eq!(count_parameters(Vendor::AnyRtc, &query().filter)[2].1, "1564622531");
        let for_ever = Filter { end: 253_402_300_799, ..query().filter };
        assert_eq!(count_parameters(Vendor::Agora, &for_ever)[2].1, "9999-12-31T23:59:59Z");
    }

    #[test]
    fn messages_keep_their_bytes_whatever_the_list_is_called() {
        for name in ["message", "messages"] {
            let text = r#"{ "payload" : "\u00e9\n 1.0" ,"ms":1e0,"new":[[]]}"#;
            let body = format!(r#"{{"x":{{}},"{name}":[ {text} , 7],"result":"success","code":"ok"}}"#);
            assert_eq!(
                fetched(&body.into()).unwrap(),
                Progress::Ready(vec![Bytes::copy_from_slice(text.as_bytes()), "7".into()])
            );
        }
    }

    #[test]
    fn the_code_decides_and_what_says_nothing_is_unreadable() {
        let read = |text: &'static str| fetched(&Bytes::from_static(text.as_bytes()));
        assert_eq!(read(r#"{"code":"in progress","messages":[]}"#), Ok(Progress::Running));
        assert_eq!(read(r#"{"code":"resource not exist"}"#), Ok(Progress::Gone));
        assert_eq!(read(r#"{"code":"ok","messages":null}"#), Ok(Progress::Ready(vec![])));
        assert_eq!(read(r#"{"messages":[]}"#), Ok(Progress::Ready(vec![])));
        assert_eq!(read(r#"{"message":"why","messages":[1],"code":200}"#), Ok(Progress::Ready(vec!["1".into()])));
        for bad in [r#"{"result":"failed"}"#, "", "<html>", r#"{"code":"ok","messages":[{"#, r#"{"messages":"none"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(fetched(&Bytes::from_static(b"{\"code\":\"ok\",\"messages\":[\"\xff\"]}")).is_err());
        assert_eq!(counted(br#"{"code":"ok","count":"12"}"#), Ok(Progress::Ready(12)));
        assert_eq!(counted(br#"{"count":12}"#), Ok(Progress::Ready(12)));
        assert_eq!(counted(br#"{"code":"in progress"}"#), Ok(Progress::Running));
        for bad in [r#""failed""#, r#""""#, "false", "7", "[]"] {
            assert!(fetched(&format!(r#"{{"code":"ok","messages":[],"result":{bad}}}"#).into()).is_err(), "{bad}");
            assert!(fetched(&format!(r#"{{"result":{bad},"messages":[{{"ms":1}}]}}"#).into()).is_err(), "{bad}");
            assert!(counted(format!(r#"{{"code":"ok","count":0,"result":{bad}}}"#).as_bytes()).is_err(), "{bad}");
            let location = format!(r#"{{"location":"{LOCATION}1","result":{bad}}}"#);
            assert!(created(location.as_bytes()).is_err(), "{bad}");
            // What these say is known, whatever it is called.
            let gone = format!(r#"{{"result":{bad},"code":"resource not exist"}}"#);
            assert_eq!(fetched(&gone.into()), Ok(Progress::Gone));
        }
        for bad in [&br#"{"count":-1}"#[..], br#"{"count":1.5}"#, br#"{"code":"ok"}"#, b"[]"] {
            assert!(counted(bad).is_err());
        }
    }

    #[test]
    fn a_handle_is_all_that_follows_the_known_prefix() {
        let read = |location: &str| created(format!(r#"{{"location":"{location}"}}"#).as_bytes());
        assert_eq!(read("~/rtm/message/history/query/MjIz:a/b==").as_deref(), Ok("MjIz:a/b=="));
        assert_eq!(read(r"~\/rtm\/message\/history\/query\/1").as_deref(), Ok("1"));
        for bad in ["", "~/rtm/message/history/query/", "~/rtm/message/history/query/..", "123"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(created(b"{}").is_err());
    }

    #[test]
    fn deep_nesting_is_read_past() {
        let deep = format!(r#"{{"x":{}1{},"code":"in progress"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(fetched(&deep.into()), Ok(Progress::Running));
        assert_eq!(message_ms(br#"{"ts":"5","a":{"ms":1}}"#), Some(5));
        assert_eq!(message_ms(br#"{"ms":-5}"#), None);
        for float in ["1587009745719.0", "1.587009745719e12", "\"1587009745719.25\""] {
            assert_eq!(message_ms(format!("{{\"ms\":{float}}}").as_bytes()), Some(1_587_009_745_719), "{float}");
        }
        for none in ["1e300", "-0.5", "\"\"", "\"soon\"", "null", "true"] {
            assert_eq!(message_ms(format!("{{\"ms\":{none}}}").as_bytes()), None, "{none}");
        }
    }
}
