//! Reading the vendor's answer to an events read, and what an event says.
//!
//! Invariants: an event's text is what the vendor wrote, byte for byte; nothing here changes or orders it. Where an
//! answer cannot be read any further the events before are told, those alone that are whole: more text could have made
//! nothing else of them. Readers are tolerant: members and types not known here pass.
//!
//! Facts (the vendor's page, sections 1 and 2): `{"result":"success","request_id":…,"events":[…]}`; at most 1000 events
//! in one answer; at most 2000 kept for each App ID. *Field*: `ts` for `ms`, `channel_id` for `group_id`; numbers as
//! strings.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::kernel::cause::Cause;
use crate::kernel::names::Stream;

/// The most events one answer holds. An answer with as many may have left events behind.
pub const MAX_IN_ONE_READ: usize = 1000;

/// The most events the vendor keeps for an App ID; the newest overwrites the oldest.
pub const KEPT_BY_VENDOR: u32 = 2000;

/// What an answer says beside its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// The word in `result` when it is not `success`.
    pub refused: Option<String>,
    /// Whether there is a list of events, or its beginning.
    pub has_list: bool,
    /// Why it cannot be read to its end.
    pub fault: Option<UnreadableEvents>,
}

/// Where an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnreadableEvents(#[source] Cause);

/// Reads an answer's body, and hands on the text of each event that is whole, oldest first.
///
/// No `events` member is the same as none, as long as no other member could hold events under another name; `null` is
/// none too. A missing `result` is success. A byte order mark is passed over (RFC 8259, section 8.1).
pub fn read<'a>(body: &'a [u8], event: impl FnMut(&'a str)) -> ReadSummary {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // Not parsed into values and written again: a number's digits, escapes and the order of members are the vendor's.
    let (mut seen, mut event) = (AnswerSoFar::default(), event);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Whole { body, seen: &mut seen, event: &mut event }.deserialize(&mut json).and_then(|()| json.end());
    let refused = seen.result.filter(|result| result != "success");
    let fault = match read {
        Err(why) => Some(UnreadableEvents(Cause::new(why))),
        // To call it empty could lose events for good: the vendor has removed what this answer holds.
        Ok(()) if !seen.has_list && refused.is_none() && seen.other_list => {
            Some(UnreadableEvents("no member `events`".into()))
        }
        Ok(()) => None,
    };
    ReadSummary { refused, has_list: seen.has_list, fault }
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

impl Facts<'_> {
    /// Whose it is: events of one user, or of one channel, keep their order.
    #[must_use]
    pub fn whose(&self, stream: Stream) -> Option<&str> {
        match stream {
            Stream::UserEvents => self.user_id.as_deref(),
            Stream::ChannelEvents => self.group_id.as_deref(),
        }
    }
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

/// What was seen of an answer so far.
#[derive(Default)]
struct AnswerSoFar {
    result: Option<String>,
    has_list: bool,
    /// Whether a member not known here is a list or an object.
    other_list: bool,
}

/// Reads the members of an answer.
struct Whole<'r, 'de, F> {
    body: &'de [u8],
    seen: &'r mut AnswerSoFar,
    event: &'r mut F,
}

impl<'de, F: FnMut(&'de str)> DeserializeSeed<'de> for Whole<'_, 'de, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&'de str)> Visitor<'de> for Whole<'_, 'de, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `events`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                // Given twice, both are kept: dropping one would drop events.
                "events" => map.next_value_seed(List { body: self.body, seen: self.seen, event: self.event })?,
                "result" => {
                    let raw: &RawValue = map.next_value()?;
                    self.seen.result = Some(text(raw).map_or_else(|| raw.get().to_owned(), Cow::into_owned));
                }
                _ => {
                    let raw: &RawValue = map.next_value()?;
                    self.seen.other_list |= raw.get().starts_with(['[', '{']);
                }
            }
        }
        Ok(())
    }
}

/// Reads a list of events, or `null`.
struct List<'r, 'de, F> {
    body: &'de [u8],
    seen: &'r mut AnswerSoFar,
    event: &'r mut F,
}

impl<'de, F: FnMut(&'de str)> DeserializeSeed<'de> for List<'_, 'de, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&'de str)> Visitor<'de> for List<'_, 'de, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.seen.has_list = true;
        while let Some(raw) = list.next_element::<&RawValue>()? {
            if is_whole(raw.get(), self.body) {
                (self.event)(raw.get());
            }
        }
        Ok(())
    }
}

/// Whether an event would be the same if the body went on. A number at its end might have had more digits.
fn is_whole(event: &str, body: &[u8]) -> bool {
    let end = event.as_ptr() as usize + event.len() - body.as_ptr() as usize;
    !event.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        || matches!(body.get(end), Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b']'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events that are whole, and what else is said.
    fn parse(body: &[u8]) -> (Vec<&str>, ReadSummary) {
        let mut events = Vec::new();
        let said = read(body, |event| events.push(event));
        (events, said)
    }

    #[test]
    fn events_keep_every_byte() {
        let body = "{\"result\":\"success\",\"request_id\":\"1\",\"extra\":[1], \"events\" : [ {\"ms\":1.0e3 , \
                    \"type\":\"Log\\u0069n\",\"new\":{\"a\":[ ]}} ,\n {\"type\":\"用户\"}, 7, null ]}";
        let expected =
            ["{\"ms\":1.0e3 , \"type\":\"Log\\u0069n\",\"new\":{\"a\":[ ]}}", "{\"type\":\"用户\"}", "7", "null"];
        let marked = format!("\u{feff}{body}");
        for body in [body, &marked] {
            let (events, said) = parse(body.as_bytes());
            assert_eq!((events, said.fault, said.refused), (expected.to_vec(), None, None));
        }
    }

    #[test]
    fn an_answer_without_events_is_empty_unless_they_may_hide_under_another_name() {
        for empty in [r#"{"result":"success","events":[]}"#, r#"{"events":null}"#, r#"{"result":"success","n":1}"#] {
            let (events, said) = parse(empty.as_bytes());
            assert_eq!((events.len(), said.fault), (0, None), "{empty}");
        }
        for bad in [
            "",
            "OK",
            "[]",
            "<html></html>",
            r#"{"result":"success","event":[{}]}"#,
            r#"{"result":"success","events":{}}"#,
        ] {
            let (events, said) = parse(bad.as_bytes());
            assert!(events.is_empty() && said.fault.is_some(), "{bad}");
        }
    }

    #[test]
    fn the_events_before_a_fault_are_told() {
        for (body, whole) in [
            (&br#"{"result":"success","events":[{"a":1}"#[..], &["{\"a\":1}"][..]),
            (br#"{"events":[1,22,33"#, &["1", "22"]),
            (br#"{"events":[1,22,33,"#, &["1", "22", "33"]),
            (br#"{"events":[1,22,33x"#, &["1", "22"]),
            (br#"{"events":[1,22] tail"#, &["1", "22"]),
            (br#"{"events":[{}]} tail"#, &["{}"]),
            (br#"{"events":[{},{"a":],{}]}"#, &["{}"]),
            (b"{\"events\":[{},\"\xff\",{}]}", &["{}"]),
        ] {
            let (events, said) = parse(body);
            assert_eq!(events, whole, "{}", body.escape_ascii());
            assert!(said.fault.is_some() && said.has_list);
        }
    }

    #[test]
    fn a_result_that_is_not_success_is_told_and_its_events_are_kept() {
        let (events, said) = parse(br#"{"result":"failed","events":[{}],"events":[{"b":1}]}"#);
        assert_eq!(said.refused.as_deref(), Some("failed"));
        assert_eq!(events, ["{}", r#"{"b":1}"#]);
        assert_eq!(parse(br#"{"result":false}"#).1.refused.as_deref(), Some("false"));
    }

    /// Events as JSON of all kinds, with the blanks around them.
    fn lists() -> impl Strategy<Value = Vec<(String, String)>> {
        let text = prop_oneof![
            "[a-z,\\]\\[{} ]{0,8}".prop_map(|text| serde_json::Value::from(text).to_string()),
            any::<i32>().prop_map(|n| n.to_string()),
            Just("-1.5e3".to_owned()),
            Just("null".to_owned()),
            Just("[[],{}]".to_owned()),
            "[a-z\"\\\\用]{0,6}".prop_map(|text| serde_json::json!({ "user_id": text, "n": [1, {}] }).to_string()),
        ];
        prop::collection::vec((text, "[ \n]{0,2}"), 0..12)
    }

    properties! {
        #[test]
        fn of_an_answer_that_was_cut_anywhere_exactly_the_whole_events_are_told(list in lists(), at in 0.0..1.0f64) {
            let mut body = r#"{"result":"success","events":["#.to_owned();
            let mut ends = Vec::new();
            for (n, (text, blanks)) in list.iter().enumerate() {
                body.push_str(if n > 0 { "," } else { "" });
                body.push_str(blanks);
                body.push_str(text);
                // A number is known by what stands behind it.
                let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
                ends.push(body.len() + usize::from(is_number));
                body.push_str(blanks);
            }
            body.push_str("]}");
            let cut = (body.len() as f64 * at) as usize;
            let (events, said) = parse(&body.as_bytes()[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let texts: Vec<_> = list[..whole].iter().map(|(text, _)| text.as_str()).collect();
            prop_assert_eq!(events, texts);
            prop_assert!(said.fault.is_some());
            prop_assert_eq!(parse(body.as_bytes()).0.len(), list.len());
        }
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
