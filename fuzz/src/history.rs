//! Bodies of history queries: how they are understood, what the vendor is asked, and what the caller gets.
//!
//! Input: the body.

use rtm_gateway::history::fuzzing::{Asked, Understood, ask};
use rtm_gateway::vendor::Vendor;
use rtm_gateway::vendor::history::{Direction, PAGE_SIZES, PageQuery, create_body};
use serde_json::Value;

const MAX_LIMIT: usize = 1000;
/// Messages in the list that is read: more than a page, and than the pages that are asked for side by side.
const MESSAGES: u64 = 333;
/// The last second of the year 9999, before any offset: what both vendors' formats can hold.
const LATEST: u64 = 253_402_207_200;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let value = serde_json::from_slice::<Value>(data).ok();
    let asked = match ask(data, MAX_LIMIT, MESSAGES) {
        Ok(asked) => asked,
        Err(why) => {
            let why = why.to_string();
            assert!(["body", "filter", "offset", "limit", "order"].iter().any(|name| why.starts_with(name)), "{why}");
            assert!(value.is_none_or(|value| !is_in_order(&value)), "refused: {why}");
            return;
        }
    };
    if let Some(value) = &value {
        understood_as_json_says(&asked.query, value);
    }
    for query in &asked.sent {
        within_the_vendors_rules(query, &asked.query);
    }
    let Asked { query: Understood { from, to, offset, limit, direction, .. }, messages, .. } = asked;
    let all = (0..MESSAGES).map(|n| if direction == Direction::Asc { n } else { MESSAGES - 1 - n });
    let all = all.filter(|ms| from.is_none_or(|from| from <= *ms) && to.is_none_or(|to| *ms <= to));
    let wanted = all.skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(limit);
    let expected: Vec<String> = wanted.map(|ms| format!("{{\"ms\":{ms}}}")).collect();
    assert_eq!(messages, expected);
}

fn understood_as_json_says(query: &Understood, value: &Value) {
    let filter = &value["filter"];
    let text = |name: &str| filter[name].as_str().filter(|text| !text.is_empty());
    assert_eq!(query.filter.source.as_deref(), text("source"));
    assert_eq!(query.filter.destination.as_deref(), text("destination"));
    assert!(query.filter.source.is_some() || query.filter.destination.is_some());
    for (name, seconds) in [("start_time", query.filter.start), ("end_time", query.filter.end)] {
        match &filter[name] {
            // A window of whole seconds holds all that was asked for.
            Value::Number(number) => {
                let asked = number.as_f64().expect("a number");
                let rounded = if name == "start_time" { asked.floor() } else { asked.ceil() };
                assert_eq!(rounded, seconds as f64, "{name}");
            }
            Value::String(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                assert_eq!(digits.parse(), Ok(seconds), "{name}");
            }
            other => assert!(other.is_string(), "{name}: {other}"),
        }
    }
    assert!(query.filter.start <= query.filter.end);
    assert_eq!(query.offset, whole(&value["offset"]).unwrap_or(0));
    assert_eq!(query.limit as u64, whole(&value["limit"]).unwrap_or(20));
    assert_eq!(query.direction.as_str(), value["order"].as_str().unwrap_or("asc"));
}

/// A number that is whole, however it is written: JSON has one kind of number, and `20.0` is 20.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|n| n as u64))
}

/// Whether the vendor's own page would take it as it stands: then so must we.
fn is_in_order(value: &Value) -> bool {
    let known = |value: &Value, names: &[&str]| {
        value.as_object().is_some_and(|members| members.keys().all(|name| names.contains(&&**name)))
    };
    let filter = &value["filter"];
    let name = |name: &str| filter[name].as_str().is_some_and(|text| (1..=64).contains(&text.len()));
    let time = |name: &str| filter[name].as_u64().filter(|seconds| *seconds <= LATEST);
    known(value, &["filter", "offset", "limit", "order"])
        && known(filter, &["source", "destination", "start_time", "end_time"])
        && name("source")
        && name("destination")
        && time("start_time").zip(time("end_time")).is_some_and(|(start, end)| start <= end)
        && value["offset"].as_u64().is_some_and(|offset| offset < 1 << 32)
        && value["limit"].as_u64().is_some_and(|limit| PAGE_SIZES.contains(&(limit as usize)))
        && value["order"].as_str().is_some_and(|order| order == "asc" || order == "desc")
}

fn within_the_vendors_rules(query: &PageQuery, asked: &Understood) {
    assert!(PAGE_SIZES.contains(&query.limit), "{query:?}");
    // The other order is that of a look at the list's end.
    assert!(query.direction == asked.direction || query.offset == 0 && asked.limit > 100, "{query:?}");
    assert!(query.filter.start <= query.filter.end, "{query:?}");
    assert!(asked.filter.start <= query.filter.start && query.filter.end <= asked.filter.end, "{query:?}");
    for vendor in [Vendor::AnyRtc, Vendor::Agora] {
        let body = create_body(vendor, query);
        let value: Value = serde_json::from_slice(&body).expect("what is sent is JSON");
        let members: Vec<&String> = value.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["filter", "limit", "offset", "order"]);
        for name in ["start_time", "end_time"] {
            let time = &value["filter"][name];
            assert_eq!(time.is_string(), vendor == Vendor::Agora, "{time}");
            assert!(time.as_str().is_none_or(|text| text.len() == 20 && text.ends_with('Z')), "{time}");
        }
        for name in ["source", "destination"] {
            assert!(value["filter"].get(name).is_none_or(|text| text.as_str().is_some_and(|text| !text.is_empty())));
        }
        // Our own reader takes what we send for what we meant.
        let Understood { filter, offset, limit, direction, .. } =
            ask(&body, MAX_LIMIT, 0).expect("what is sent is accepted").query;
        assert_eq!(PageQuery { filter, offset, limit, direction }, *query);
    }
}
