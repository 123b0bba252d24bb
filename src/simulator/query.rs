//! What a history query or a count asks for, read as strictly as the vendor's page states it.

use jiff::civil::{DateTime, date};
use serde_json::{Map, Value};

use super::app::Dialect;

/// A filter and a page of what it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) filter: Filter,
    pub(super) offset: usize,
    pub(super) limit: usize,
    pub(super) descending: bool,
}

/// Which messages. At least one of source and destination is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Filter {
    pub(super) source: Option<String>,
    pub(super) destination: Option<String>,
    /// Seconds since 1970, in it.
    pub(super) start: u64,
    /// Seconds since 1970; at least `start`.
    pub(super) end: u64,
}

/// Reads the body that creates a query.
pub(super) fn from_body(body: &[u8], dialect: Dialect) -> Result<Query, String> {
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else { return Err("the body is no JSON object".into()) };
    check_case(&body, &["filter", "offset", "limit", "order"])?;
    let Some(Value::Object(filter)) = body.get("filter") else { return Err("filter is no object".into()) };
    check_case(filter, &["source", "destination", "start_time", "end_time"])?;
    let text = |name: &str| match filter.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} is no string")),
    };
    let time = |name: &str| match filter.get(name) {
        None => Err(format!("{name} is missing")),
        Some(Value::String(text)) => time(text, dialect).ok_or_else(|| format!("{name} is no time")),
        Some(Value::Number(number)) if dialect == Dialect::AnyRtc => {
            number.as_u64().ok_or_else(|| format!("{name} is no time"))
        }
        Some(_) => Err(format!("{name} is no time")),
    };
    let number = |name: &str, default: usize| match body.get(name) {
        None => Ok(default),
        Some(value) => value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| format!("{name} is wrong")),
    };
    let limit = number("limit", 20)?;
    if ![20, 50, 100].contains(&limit) {
        return Err("limit is not 20, 50 or 100".into());
    }
    let descending = match body.get("order").map(Value::as_str) {
        None | Some(Some("asc")) => false,
        Some(Some("desc")) => true,
        Some(_) => return Err("order is neither asc nor desc".into()),
    };
    let filter = Filter::new(text("source")?, text("destination")?, time("start_time")?, time("end_time")?)?;
    Ok(Query { filter, offset: number("offset", 0)?, limit, descending })
}

/// Reads the parameters of a count. Values may be quoted and the query may begin with `&`, as on the vendor's page.
pub(super) fn from_parameters(query: Option<&str>, dialect: Dialect) -> Result<Filter, String> {
    let (mut source, mut destination, mut start, mut end) = (None, None, None, None);
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(&value);
        let time = || time(value, dialect).ok_or_else(|| format!("{name} is no time"));
        let twice = match &*name {
            "source" => source.replace(value.to_owned()).is_some(),
            "destination" => destination.replace(value.to_owned()).is_some(),
            "start_time" => start.replace(time()?).is_some(),
            "end_time" => end.replace(time()?).is_some(),
            other => return Err(format!("parameter {other:?} is not known")),
        };
        if twice {
            return Err(format!("{name} is there twice"));
        }
    }
    Filter::new(source, destination, start.ok_or("start_time is missing")?, end.ok_or("end_time is missing")?)
}

impl Filter {
    fn new(source: Option<String>, destination: Option<String>, start: u64, end: u64) -> Result<Self, String> {
        // Field: public clients send an empty text for "not set".
        let source = source.filter(|s| !s.is_empty());
        let destination = destination.filter(|d| !d.is_empty());
        if source.is_none() && destination.is_none() {
            return Err("neither source nor destination is set".into());
        }
        if start > end {
            return Err("start_time is after end_time".into());
        }
        Ok(Self { source, destination, start, end })
    }
}

fn time(text: &str, dialect: Dialect) -> Option<u64> {
    match dialect {
        Dialect::AnyRtc if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Dialect::AnyRtc => None,
        Dialect::Agora => {
            // By the calendar: a timestamp's range ends before the year 9999 does.
            let time: DateTime = text.strip_suffix('Z')?.parse().ok()?;
            u64::try_from(time.duration_since(date(1970, 1, 1).at(0, 0, 0, 0)).as_secs()).ok()
        }
    }
}

/// Bodies are case-sensitive; a known name in other letters is a mistake, an unknown name is not.
fn check_case(members: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    let wrong = members.keys().find(|name| known.iter().any(|k| *k != *name && k.eq_ignore_ascii_case(name)));
    wrong.map_or(Ok(()), |name| Err(format!("{name:?}: letter case matters")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Query, String> {
        from_body(text.as_bytes(), Dialect::AnyRtc)
    }

    #[test]
    fn the_pages_example_and_both_kinds_of_times_are_read() {
        let query =
            body(r#"{"filter":{"source":"","destination":"b","start_time":1,"end_time":"9"},"offset":100}"#).unwrap();
        let filter = Filter { source: None, destination: Some("b".into()), start: 1, end: 9 };
        assert_eq!(query, Query { filter: filter.clone(), offset: 100, limit: 20, descending: false });
        let agora =
            r#"{"filter":{"destination":"b","start_time":"1970-01-01T00:00:01Z","end_time":"1970-01-01T00:00:09Z"}}"#;
        assert_eq!(from_body(agora.as_bytes(), Dialect::Agora).unwrap().filter, filter);
        assert!(body(agora).is_err());
        for (text, seconds) in [
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("2019-08-01T01:22:10Z", Some(1_564_622_530)),
            ("2019-08-01T01:22:10+00:00", None),
            ("1969-12-31T23:59:59Z", None),
            ("9", None),
        ] {
            assert_eq!(time(text, Dialect::Agora), seconds, "{text}");
        }
        let quoted = from_parameters(Some("&destination=%22b%22&start_time=1&end_time=\"9\""), Dialect::AnyRtc);
        assert_eq!(quoted, Ok(filter));
    }

    #[test]
    fn what_the_page_does_not_allow_is_refused() {
        for wrong in [
            "[]",
            r#"{"filter":{"start_time":1,"end_time":9}}"#,
            r#"{"filter":{"source":"a","start_time":9,"end_time":1}}"#,
            r#"{"filter":{"source":"a","start_time":1}}"#,
            r#"{"filter":{"Source":"a","destination":"b","start_time":1,"end_time":9}}"#,
            r#"{"filter":{"source":"a","start_time":1,"end_time":9},"limit":10}"#,
            r#"{"filter":{"source":"a","start_time":1,"end_time":9},"offset":-1}"#,
            r#"{"filter":{"source":"a","start_time":1,"end_time":9},"order":"ASC"}"#,
        ] {
            assert!(body(wrong).is_err(), "{wrong}");
        }
        assert!(from_parameters(Some("source=a&start_time=1&end_time=9&source=b"), Dialect::AnyRtc).is_err());
        assert!(from_parameters(None, Dialect::AnyRtc).is_err());
    }
}
