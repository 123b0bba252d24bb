//! `Accept` (RFC 9110, 12.5.1): whether a caller takes an answer of a kind.
//!
//! Invariant: a header that is absent or cannot be read refuses nothing.

use hyper::HeaderMap;
use hyper::header::ACCEPT;

/// Whether the caller takes one of these media types, as `type/subtype` in lower case.
#[must_use]
pub fn takes(headers: &HeaderMap, kinds: &[&str]) -> bool {
    let mut lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if lines.peek().is_none_or(|first| first.trim().is_empty()) {
        return true;
    }
    lines.flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|parameter| {
            let (key, value) = parameter.split_once('=').unwrap_or_default();
            key.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0)
        });
        let fits = |kind: &&str| match name.strip_suffix("/*") {
            Some("*") => true,
            Some(main) => kind.split_once('/').is_some_and(|(of, _)| of == main),
            None => **kind == name,
        };
        !refused && kinds.iter().any(fits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_wildcards_and_refusals_are_read() {
        let kinds = ["application/x-ndjson", "application/jsonl"];
        for (accept, taken) in [
            (&[][..], true),
            (&[""], true),
            (&["*/*"], true),
            (&["text/html, */*;q=0.1"], true),
            (&["application/*"], true),
            (&["Application/X-NDJSON; charset=utf-8"], true),
            (&["application/json", "application/jsonl ; q=0.5"], true),
            (&["application/json"], false),
            (&["text/*"], false),
            (&["application/x-ndjson;q=0"], false),
            (&["application/x-ndjson ; Q = 0.000, text/plain"], false),
            (&["nonsense"], false),
        ] {
            let headers: HeaderMap = accept.iter().map(|value| (ACCEPT, value.parse().unwrap())).collect();
            assert_eq!(takes(&headers, &kinds), taken, "{accept:?}");
        }
    }
}
