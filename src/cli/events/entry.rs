//! Events as `events tail` prints them: a line each.
//!
//! Invariants: an entry is one line, whatever it holds; as JSON, the vendor's event is its own text (but for line
//! breaks between its parts, which become spaces). As text, nothing that came from outside reaches a terminal as
//! control characters.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::sse::Event;
use crate::kernel::clock::UnixMillis;

/// How entries are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputFormat {
    /// One JSON object a line: cursor, stream, type, event
    Json,
    /// One line for people
    Text,
}

/// What came.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    /// One of the vendor's.
    Event(&'a RawValue),
    /// The gateway says that events may be missing here, and why.
    PossibleLoss(Map<String, Value>),
    /// The gateway says that what was to be read next is gone, and how much.
    Reset(Map<String, Value>),
}

#[derive(Serialize)]
struct JsonLine<'a> {
    cursor: &'a str,
    stream: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    #[serde(flatten)]
    members: Option<&'a Map<String, Value>>,
}

impl<'a> Entry<'a> {
    /// Reads an event. `None`: its data is no JSON.
    pub(super) fn read(event: &Event, data: &'a mut Vec<u8>) -> Option<Self> {
        data.clear();
        // Only between its parts: within a JSON string there is none.
        data.extend(event.data.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        // The vendor's own have their type within, whatever it is.
        let ours = |data: &[u8]| {
            let members: Map<String, Value> = serde_json::from_slice(data).ok()?;
            (!members.contains_key("type")).then_some(members)
        };
        match event.kind.as_str() {
            "possible_loss" if ours(data).is_some() => ours(data).map(Self::PossibleLoss),
            "reset" if ours(data).is_some() => ours(data).map(Self::Reset),
            _ => serde_json::from_slice(data).ok().map(Self::Event),
        }
    }

    /// What is to be told about it on stderr.
    pub(super) fn warning(&self) -> Option<String> {
        match self {
            Self::Event(_) => None,
            Self::PossibleLoss(members) => {
                let said = |name| members.get(name).map(word).unwrap_or_default();
                let outage = match members.get("count") {
                    Some(_) => format!(" ({} reads, {} to {})", said("count"), said("from"), said("to")),
                    None => String::new(),
                };
                Some(format!("events may be missing here: {}{outage}", said("reason")))
            }
            Self::Reset(members) => match members.get("lost").and_then(Value::as_u64) {
                Some(lost) => Some(format!("{lost} events are gone: they were older than what the gateway keeps")),
                None => Some("the gateway has another store now: reading goes on from its earliest event".into()),
            },
        }
    }

    /// Appends its line. Text has none for what is told on stderr.
    pub(super) fn push(&self, out: &mut Vec<u8>, output: OutputFormat, stream: &str, event: &Event) {
        match output {
            OutputFormat::Json => {
                let (raw, members) = match self {
                    Self::Event(raw) => (Some(*raw), None),
                    Self::PossibleLoss(members) | Self::Reset(members) => (None, Some(members)),
                };
                let line = JsonLine { cursor: &event.id, stream, kind: &event.kind, event: raw, members };
                // A vector takes all, and these always serialize.
                let _ = serde_json::to_writer(&mut *out, &line);
                out.push(b'\n');
            }
            OutputFormat::Text => {
                if let Self::Event(raw) = self {
                    out.extend_from_slice(text(raw, stream, &event.kind).as_bytes());
                }
            }
        }
    }
}

/// `2016-10-10T11:23:38.189Z user_events Login user_id=u1`
fn text(raw: &RawValue, stream: &str, kind: &str) -> String {
    let mut members: Map<String, Value> = serde_json::from_str(raw.get()).unwrap_or_default();
    let time = members.remove("ms").and_then(|ms| ms.as_u64()).map_or("-".into(), |ms| UnixMillis(ms).to_string());
    members.remove("type");
    let mut line = format!("{time} {stream} {}", word(&Value::from(kind)));
    for (name, value) in &members {
        line.push(' ');
        line.push_str(&word(&Value::from(name.as_str())));
        line.push('=');
        line.push_str(&word(value));
    }
    line.push('\n');
    line
}

/// A value as one word: a string without quotes if it can stand so, anything else as JSON.
fn word(value: &Value) -> String {
    match value {
        Value::String(text)
            if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-.:@/+".contains(c)) =>
        {
            text.clone()
        }
        // JSON escapes the control characters of ASCII, but not those above it.
        other => other.to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: OutputFormat, kind: &str, data: &str) -> (String, Option<String>) {
        let event = Event { id: "C1".into(), kind: kind.into(), data: data.into(), stream: String::new() };
        let (mut place, mut out) = (Vec::new(), Vec::new());
        let entry = Entry::read(&event, &mut place).unwrap();
        entry.push(&mut out, output, "user_events", &event);
        (String::from_utf8(out).unwrap(), entry.warning())
    }

    #[test]
    fn json_holds_the_vendors_own_text_on_one_line() {
        let data = "{\"type\":\"Login\",\n \"ms\":1476095418189 , \"n\":1.50,\"user_id\":\"u1\"}";
        let line = "{\"cursor\":\"C1\",\"stream\":\"user_events\",\"type\":\"Login\",\"event\":{\"type\":\"Login\",  \
                    \"ms\":1476095418189 , \"n\":1.50,\"user_id\":\"u1\"}}\n";
        assert_eq!(shown(OutputFormat::Json, "Login", data), (line.into(), None));
    }

    #[test]
    fn text_is_one_line_that_no_event_can_break() {
        let data = "{\"type\":\"Login\",\"ms\":1476095418189,\"user_id\":\"u 1\\n\\u001b[31m\\u009b\",\"n\":{\"a\":1}}";
        let (line, _) = shown(OutputFormat::Text, "Login", data);
        let wanted = "2016-10-10T10:30:18.189Z user_events Login n={\"a\":1} user_id=\"u 1\\n\\u001b[31m\u{fffd}\"\n";
        assert_eq!(line, wanted);
    }

    #[test]
    fn what_the_gateway_says_itself_is_told_and_not_taken_for_an_event() {
        let (line, told) = shown(OutputFormat::Json, "reset", "{\"earliest\":\"C1\",\"lost\":5}");
        let wanted =
            "{\"cursor\":\"C1\",\"stream\":\"user_events\",\"type\":\"reset\",\"earliest\":\"C1\",\"lost\":5}\n";
        assert_eq!(line, wanted);
        assert!(told.unwrap().starts_with("5 events are gone"));
        let (line, told) = shown(OutputFormat::Text, "possible_loss", "{\"reason\":\"damaged\"}");
        assert_eq!((line.as_str(), told.as_deref()), ("", Some("events may be missing here: damaged")));
        // A vendor that has such a type.
        assert_eq!(shown(OutputFormat::Json, "reset", "{\"type\":\"reset\",\"ms\":1}").1, None);
    }
}
