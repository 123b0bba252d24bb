//! Values as TOML writes them.

use std::fmt::Display;
use std::time::Duration;

/// In the largest unit that says it exactly: a sum of many parts is longer than what is read.
pub(super) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let exact = units.iter().find(|(_, size)| nanos > 0 && nanos.is_multiple_of(*size));
    exact.map_or_else(|| quoted("0s"), |(unit, size)| quoted(format_args!("{}{unit}", nanos / size)))
}

/// In the largest unit that says it exactly.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let exact = units.iter().find(|(_, bits)| bytes.trailing_zeros() >= *bits && bytes > 0);
    exact.map_or_else(
        || quoted(format_args!("{bytes}B")),
        |(unit, bits)| quoted(format_args!("{}{unit}", bytes >> bits)),
    )
}

/// A TOML text, escaped as need be.
pub(super) fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

pub(super) fn array(entries: impl Iterator<Item = String>) -> String {
    format!("[{}]", entries.collect::<Vec<_>>().join(", "))
}

/// A single value by itself, as most people write it.
pub(super) fn one_or_more(entries: impl Iterator<Item = String>) -> String {
    let mut entries: Vec<String> = entries.collect();
    match (entries.len(), entries.pop()) {
        (1, Some(only)) => only,
        (_, last) => array(entries.into_iter().chain(last)),
    }
}
