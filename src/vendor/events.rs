//! Reading the vendor's answer to an events read, and what an event says.
//!
//! Invariants: an event's text is what the vendor wrote, byte for byte; nothing here changes or orders it. An answer is
//! either read whole or refused whole ([`Unreadable`]), so that what cannot be read can be kept as it came. Readers are
//! tolerant: members and types not known here pass.
//!
//! Facts (the vendor's page, sections 1 and 2): `{"result":"success","request_id":…,"events":[…]}`; at most 1000 events
//! in one answer; at most 2000 kept for each App ID. *Field*: `ts` for `ms`, `channel_id` for `group_id`; numbers as
//! strings.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The most events one answer holds. An answer with as many may have left events behind.
pub const MOST_IN_ONE_READ: usize = 1000;

/// The most events the vendor keeps for an App ID; the newest overwrites the oldest.
pub const KEPT_BY_VENDOR: u32 = 2000;

/// What an answer holds.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// The text of each event, oldest first.
    pub events: Vec<&'a str>,
    /// The word in `result` when it is not `success`.
    pub refused: Option<String>,
}

/// An answer that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// Reads an answer's body.
///
/// No `events` member is the same as none, as long as no other member could hold events under another name; `null` is
/// none too. A missing `result` is success.
///
/// # Errors
/// When it is not such a JSON object.
pub fn parse(body: &[u8]) -> Result<Answer<'_>, Unreadable> {
    let raw: RawAnswer<'_> = serde_json::from_slice(body).map_err(|e| Unreadable(e.to_string()))?;
    let refused = raw.result.filter(|result| result != "success");
    let events = match raw.events {
        Some(events) => events.into_iter().map(RawValue::get).collect(),
        None if refused.is_none() && raw.other_list => return Err(Unreadable("no member `events`".into())),
        None => Vec::new(),
    };
    Ok(Answer { events, refused })
}

/// What an event says, the vendor's spellings evened out. A member that is missing or of another kind is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// `type`.
    pub kind: Option<Cow<'a, str>>,
    /// `user_id`.
    pub user_id: Option<Cow<'a, str>>,
    /// `group_id`, or `channel_id`.
    pub group_id: Option<Cow<'a, str>>,
    /// `ms`, or `ts`: milliseconds since 1970 UTC.
    pub ms: Option<u64>,
}

/// Reads what an event says from its text.
#[must_use]
pub fn facts(event: &[u8]) -> Facts<'_> {
    let Ok(members) = serde_json::from_slice::<Members<'_>>(event) else { return Facts::default() };
    Facts {
        kind: members.kind.and_then(text),
        user_id: members.user_id.and_then(text),
        group_id: members.group_id.and_then(text).or_else(|| members.channel_id.and_then(text)),
        ms: members.ms.and_then(millis).or_else(|| members.ts.and_then(millis)),
    }
}

#[derive(serde::Deserialize)]
struct Members<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    group_id: Option<&'a RawValue>,
    #[serde(borrow)]
    channel_id: Option<&'a RawValue>,
    #[serde(borrow)]
    ms: Option<&'a RawValue>,
    #[serde(borrow)]
    ts: Option<&'a RawValue>,
}

/// A string's text, or a number's digits (*field*: ids come as numbers too).
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let raw = value.get();
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str::<Text<'_>>(raw).ok().map(|text| text.0),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(raw)),
        _ => None,
    }
}

fn millis(value: &RawValue) -> Option<u64> {
    text(value)?.parse().ok()
}

struct RawAnswer<'a> {
    result: Option<String>,
    events: Option<Vec<&'a RawValue>>,
    /// Whether a member not known here is a list or an object.
    other_list: bool,
}

impl<'de> Deserialize<'de> for RawAnswer<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = RawAnswer<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `events`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut answer = RawAnswer { result: None, events: None, other_list: false };
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        // Given twice, both are kept: dropping one would drop events.
                        "events" => {
                            if let Some(mut more) = map.next_value::<Option<Vec<&'de RawValue>>>()? {
                                answer.events.get_or_insert_default().append(&mut more);
                            }
                        }
                        "result" => {
                            let raw: &RawValue = map.next_value()?;
                            answer.result = Some(text(raw).map_or_else(|| raw.get().to_owned(), Cow::into_owned));
                        }
                        _ => {
                            let raw: &RawValue = map.next_value()?;
                            answer.other_list |= raw.get().starts_with(['[', '{']);
                        }
                    }
                }
                Ok(answer)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_every_byte() {
        let body = "{\"result\":\"success\",\"request_id\":\"1\",\"extra\":[1], \"events\" : [ {\"ms\":1.0e3 , \
                    \"type\":\"Log\\u0069n\",\"new\":{\"a\":[ ]}} ,\n {\"type\":\"用户\"}, 7, null ]}";
        let answer = parse(body.as_bytes()).unwrap();
        assert_eq!(
            answer.events,
            ["{\"ms\":1.0e3 , \"type\":\"Log\\u0069n\",\"new\":{\"a\":[ ]}}", "{\"type\":\"用户\"}", "7", "null"]
        );
        assert_eq!(answer.refused, None);
    }

    #[test]
    fn an_answer_without_events_is_empty_unless_they_may_hide_under_another_name() {
        for empty in [r#"{"result":"success","events":[]}"#, r#"{"events":null}"#, r#"{"result":"success","n":1}"#] {
            assert!(parse(empty.as_bytes()).unwrap().events.is_empty(), "{empty}");
        }
        for bad in [
            "",
            "OK",
            "[]",
            "<html></html>",
            r#"{"result":"success","event":[{}]}"#,
            r#"{"result":"success","events":{}}"#,
            r#"{"result":"success","events":[{"a":1}"#,
            r#"{"events":[]} tail"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"{\"events\":[\"\xff\"]}").is_err());
    }

    #[test]
    fn a_result_that_is_not_success_is_told_and_its_events_are_kept() {
        let answer = parse(br#"{"result":"failed","events":[{}],"events":[{"b":1}]}"#).unwrap();
        assert_eq!(answer.refused.as_deref(), Some("failed"));
        assert_eq!(answer.events, ["{}", r#"{"b":1}"#]);
        assert_eq!(parse(br#"{"result":false}"#).unwrap().refused.as_deref(), Some("false"));
    }

    #[test]
    fn both_spellings_of_an_event_say_the_same() {
        let old = facts(br#"{"group_id":"c","ms":1476095418189,"type":"Join","user_id":"u\n"}"#);
        let new = facts(br#"{"channel_id":"c","ts":"1476095418189","type":"Join","user_id":"u\n","more":[{}]}"#);
        assert_eq!(old, new);
        assert_eq!(old.kind.as_deref(), Some("Join"));
        assert_eq!(old.user_id.as_deref(), Some("u\n"));
        assert_eq!(old.group_id.as_deref(), Some("c"));
        assert_eq!(old.ms, Some(1_476_095_418_189));
        assert_eq!(facts(br#"{"user_id":42,"ms":null,"ts":-5}"#).user_id.as_deref(), Some("42"));
        assert_eq!(facts(b"7"), Facts::default());
    }
}
