//! `Accept` (RFC 9110, 12.5.1): which of the forms we have a caller would rather get, and whether it takes one at all.
//!
//! Invariants: reading is tolerant, a range that is malformed is as if it had not been sent; a header that is absent or
//! cannot be read refuses nothing.

use hyper::HeaderMap;
use hyper::header::ACCEPT;

/// Which of the media types `offered` the caller likes best, by its place among them. Of two that it likes alike, the
/// one it names more closely; then the one offered first.
#[must_use]
pub fn preferred(headers: &HeaderMap, offered: &[&str]) -> usize {
    let lines = lines(headers);
    let (mut best, mut liked) = (0, (0, 0));
    for (place, media_type) in offered.iter().enumerate() {
        // The closest range that fits says how much it is liked.
        let fits = ranges(&lines).filter_map(|range| Some((range.closeness(media_type)?, range.weight?)));
        // The most specific range has precedence (RFC 9110, 12.5.1): by closeness first, then by weight.
        let Some((closeness, weight)) = fits.max() else { continue };
        if weight > 0 && (weight, closeness) > liked {
            (best, liked) = (place, (weight, closeness));
        }
    }
    best
}

/// Whether the caller takes one of these media types, as `type/subtype` in lower case.
#[must_use]
pub fn takes(headers: &HeaderMap, kinds: &[&str]) -> bool {
    let lines = lines(headers);
    if lines.first().is_none_or(|first| first.trim().is_empty()) {
        return true;
    }
    let fits = |range: &Range<'_>| kinds.iter().any(|kind| range.closeness(kind).is_some());
    ranges(&lines).any(|range| !range.is_refused && fits(&range))
}

fn lines(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect()
}

fn ranges<'a>(lines: &[&'a str]) -> impl Iterator<Item = Range<'a>> {
    lines.iter().flat_map(|line| line.split(',')).filter_map(Range::parse)
}

struct Range<'a> {
    kind: &'a str,
    subkind: &'a str,
    /// In thousandths. `None`: what stands there is no weight.
    weight: Option<u16>,
    is_refused: bool,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subkind) = parts.next()?.split_once('/')?;
        let mut range = Self { kind, subkind, weight: Some(1000), is_refused: false };
        for part in parts {
            if let Some((name, value)) = part.split_once('=')
                && name.trim().eq_ignore_ascii_case("q")
            {
                let q: Option<f64> = value.trim().parse().ok();
                range.is_refused |= q == Some(0.0);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
                let thousandths = q.filter(|q| (0.0..=1.0).contains(q)).map(|q| (q * 1000.0).round() as u16);
                range.weight = range.weight.and(thousandths);
            }
        }
        Some(range)
    }

    /// How closely it names a media type; `None` when it does not. Parameters are not looked at: what is offered has
    /// none.
    fn closeness(&self, media_type: &str) -> Option<u8> {
        let (kind, subkind) = media_type.split_once('/')?;
        match (self.kind, self.subkind) {
            ("*", "*") => Some(1),
            (range, "*") if range.eq_ignore_ascii_case(kind) => Some(2),
            (range, sub) if range.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subkind) => Some(3),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn the_form_a_caller_likes_best_is_found() {
        let ours = ["application/json", "text/event-stream"];
        for (lines, form) in [
            (&[][..], 0),
            (&["*/*"], 0),
            (&["text/event-stream"], 1),
            (&["Text/Event-Stream;charset=utf-8"], 1),
            (&["text/*"], 1),
            (&["text/event-stream, */*"], 1),
            (&["application/json, text/event-stream"], 0),
            (&["application/json;q=0.5, text/event-stream"], 1),
            (&["application/json", "text/event-stream;q=0.9"], 0),
            (&["*/*;q=0.9, text/event-stream;q=0.8"], 0),
            (&["text/event-stream;q=0"], 0),
            (&["application/json;q=0, */*"], 1),
            (&["text/event-stream;q=0, text/*"], 0),
            (&["text/html"], 0),
            (&["text/event-stream;q=2", "nonsense", ";;", "application/json;q=0.1"], 0),
            (&["text/html", "text/event-stream ; Q=0.001"], 1),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(ACCEPT, HeaderValue::from_static(line));
            }
            assert_eq!(preferred(&headers, &ours), form, "{lines:?}");
        }
    }

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
