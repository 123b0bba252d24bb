//! Lists in headers (RFC 9110, 5.6.1), and items of the form `name` or `name=value`, as `Prefer` and `Cache-Control`
//! have them.
//!
//! Invariant: reading is tolerant, and a comma or semicolon within quotes divides nothing.

use std::borrow::Cow;

use hyper::HeaderMap;
use hyper::header::HeaderName;

/// The items of a list header of any number of lines, trimmed, without empty ones. Lines that are no text are passed
/// over.
pub(super) fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| divided(line, ',')).map(str::trim).filter(|item| !item.is_empty())
}

/// An item's name and value, without parameters after `;` and without quotes. No value and an empty one are the same.
#[must_use]
pub(super) fn named(item: &str) -> (&str, Cow<'_, str>) {
    let word = divided(item, ';').next().unwrap_or_default();
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let value = value.trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let value = match quoted {
        None => value.into(),
        Some(quoted) if quoted.contains('\\') => unescaped(quoted).into(),
        Some(quoted) => quoted.into(),
    };
    (name.trim(), value)
}

/// The text between those dividers that are in no quoted string.
fn divided(line: &str, by: char) -> impl Iterator<Item = &str> {
    // A quoted string may hold a divider, and a quote behind a backslash (RFC 9110, 5.6.4).
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return c == by && !quoted,
        }
        false
    })
}

fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    std::iter::from_fn(|| chars.next().and_then(|c| if c == '\\' { chars.next() } else { Some(c) })).collect()
}

#[cfg(test)]
mod tests {
    use hyper::header::{CACHE_CONTROL, HeaderValue};

    use super::*;

    #[test]
    fn what_is_within_quotes_divides_nothing() {
        let lines = ["a, b=\"1, x\" ;c=\"d,\\\"e\", , f", "\"g"];
        let headers = lines.map(|line| (CACHE_CONTROL, HeaderValue::from_str(line).unwrap()));
        let headers: HeaderMap = headers.into_iter().collect();
        let items: Vec<_> = items(&headers, &CACHE_CONTROL).collect();
        assert_eq!(items, ["a", "b=\"1, x\" ;c=\"d,\\\"e\"", "f", "\"g"]);
        assert_eq!(
            items.iter().map(|item| named(item)).collect::<Vec<_>>()[..2],
            [("a", "".into()), ("b", "1, x".into())]
        );
        assert_eq!(named("a = \"b\\\"\\\\c\""), ("a", "b\"\\c".into()));
    }
}
