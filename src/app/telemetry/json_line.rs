//! [`JsonLine`]: one event as one JSON object on one line, its fields at the top level.
//!
//! Invariants: the members are `timestamp`, `level`, the event's fields in their order, and `target` last. A field that
//! holds a list is an array; a number is a number, anything else a text. Whatever a value holds, it stays inside its
//! quotes: one event is one line.
//!
//! Not the formatter that tracing-subscriber has: that one makes a text of every list.

use std::error::Error;
use std::fmt;

use serde::Serializer as _;
use serde::ser::SerializeMap;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::kernel::log_list::List;

/// Bytes of a request's line, and of most others.
const LIKELY: usize = 1024;

/// Writes events as lines of JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Whole first: serde_json writes some two hundred pieces of bytes, and a writer of text looks at each of them.
        let mut line = Vec::with_capacity(LIKELY);
        object(&mut line, event).map_err(|_| fmt::Error)?;
        line.push(b'\n');
        writer.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

fn object(line: &mut Vec<u8>, event: &Event<'_>) -> Result<(), serde_json::Error> {
    let mut timestamp = String::new();
    // A clock that has no date leaves the line without one.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let about = event.metadata();
    let mut serializer = serde_json::Serializer::new(line);
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("timestamp", &timestamp)?;
    object.serialize_entry("level", about.level().as_str())?;
    let mut members = Members { object: &mut object, written: Ok(()), target: None };
    event.record(&mut members);
    let Members { written, target, .. } = members;
    written?;
    object.serialize_entry("target", target.as_deref().unwrap_or(about.target()))?;
    object.end()
}

/// An event's fields, written as they come.
struct Members<'o, M: SerializeMap> {
    object: &'o mut M,
    /// The first failure: nothing is written after it.
    written: Result<(), M::Error>,
    /// Where the event is from, if it came by the `log` crate: tracing knows only that it did.
    target: Option<String>,
}

impl<M: SerializeMap> Members<'_, M> {
    fn member(&mut self, field: &Field, value: &(impl serde::Serialize + ?Sized)) {
        if self.written.is_ok() {
            self.written = self.object.serialize_entry(field.name(), value);
        }
    }
}

impl<M: SerializeMap> Visit for Members<'_, M> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.target = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            _ => self.member(field, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        match value.downcast_ref::<List>() {
            Some(list) => self.member(field, list.texts()),
            None => self.member(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !field.name().starts_with("log.") {
            self.member(field, &format_args!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests;
