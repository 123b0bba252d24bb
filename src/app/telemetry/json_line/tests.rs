use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The lines of what `work` logs.
fn lines(work: impl FnOnce()) -> Vec<String> {
    let written = Written::default();
    let layer = tracing_subscriber::fmt::layer().event_format(JsonLine).with_writer(written.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn lists_are_arrays_numbers_are_numbers_and_anything_else_is_a_text() {
    let (names, nothing): (List, List) = (["a,b", "\"c\""].into_iter().collect(), List::default());
    let why = io::Error::other("it \"broke\"");
    let lines = lines(|| {
        tracing::warn!(
            target: "rtm_gateway::somewhere",
            names = names.field(),
            nothing = nothing.field(),
            n = 7_u64,
            less = -1_i64,
            ms = 0.25,
            is = true,
            text = "two\nlines",
            shown = %"x",
            why = &why as &(dyn Error + 'static),
            "said"
        );
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let said: Value = serde_json::from_str(line).unwrap();
    let timestamp = said["timestamp"].as_str().unwrap();
    assert!(timestamp.parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
    let expected = json!({
        "timestamp": timestamp, "level": "WARN", "message": "said", "names": ["a,b", "\"c\""], "nothing": [], "n": 7,
        "less": -1, "ms": 0.25, "is": true, "text": "two\nlines", "shown": "x", "why": "it \"broke\"",
        "target": "rtm_gateway::somewhere",
    });
    assert_eq!(said, expected);
}

#[test]
fn nothing_that_a_value_holds_begins_a_line_or_a_member() {
    let forged = "x\"}\n{\"level\":\"ERROR\",\"message\":\"forged\u{2028}\u{7f}\r";
    let list: List = [forged].into_iter().collect();
    let lines = lines(|| tracing::info!(text = forged, list = list.field(), debug = ?forged, "{forged}"));
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let said: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&said["text"], &said["list"]), (&json!(forged), &json!([forged])));
    assert_eq!((&said["level"], &said["message"]), (&json!("INFO"), &json!(forged)));
}
