//! The bytes of a connection: where requests begin and end, and which heads lie.
//!
//! Input: the sizes of the first pieces that they come in, each a byte up to a line break; the bytes.

use rtm_gateway::kernel::conn::Fault;
use rtm_gateway::server::listener::fuzzing::{Observation, follow};

/// Heads that are asked about.
const HEADS: usize = 6;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Some(line_end) = data.iter().position(|&b| b == b'\n') else { return };
    let (sizes, bytes) = (&data[..line_end], &data[line_end + 1..]);
    if bytes.is_empty() {
        return;
    }
    let seen = follow([bytes], HEADS);
    assert_eq!(follow(bytes.chunks(1), HEADS), seen, "byte by byte");
    assert_eq!(follow(pieces(sizes, bytes), HEADS), seen, "in pieces");
    assert!(seen.quotes.iter().all(|&at| bytes[at] == b'"') && seen.quotes.is_sorted());
    if !b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".starts_with(&bytes[..bytes.len().min(24)]) && !bytes.starts_with(b"PRI") {
        as_hypers_parser_says(bytes, &seen);
    }
}

fn pieces<'a>(sizes: &[u8], bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for &size in sizes {
        let (piece, more) = rest.split_at(rest.len().min(usize::from(size)));
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    pieces
}

/// Each head that hyper's parser reads is judged as its headers say, up to the first that hyper would refuse.
fn as_hypers_parser_says(bytes: &[u8], seen: &Observation) {
    let mut at = 0;
    for head in 0..HEADS {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = request.parse(&bytes[at..]) else { return };
        let named = |name: &str| {
            request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value).collect::<Vec<_>>()
        };
        let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
        let digits = |value: &[u8]| {
            let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            text.and_then(|text| text.parse::<u64>().ok())
        };
        let Some(lengths) = lengths.iter().map(|value| digits(value)).collect::<Option<Vec<_>>>() else { return };
        let expected = if !codings.is_empty() && !lengths.is_empty() {
            Some(Fault::TwoLengths)
        } else if lengths.len() > 1 {
            Some(Fault::LengthTwice)
        } else {
            // Also in a method, where it may be but no method of ours has it.
            let line = [request.method, request.path];
            line.iter().flatten().any(|word| word.contains('#')).then_some(Fault::Fragment)
        };
        let found = seen.faults[head];
        // We are stricter than hyper's parser in some things, but never laxer; what is told is the first that was seen.
        let stricter = matches!(
            found,
            Some(
                Fault::BareLineFeed
                    | Fault::Coding
                    | Fault::LengthOdd
                    | Fault::LookAlike
                    | Fault::Expectation
                    | Fault::Unfollowed
            )
        );
        assert!(found == expected || stricter, "{head}: {found:?} for {expected:?}");
        if found.is_some() {
            return;
        }
        at += length;
        ends_where_hypers_parser_says(&bytes[..at], lengths.is_empty() && codings.is_empty());
        match (lengths.last(), codings.is_empty()) {
            (Some(length), _) => match usize::try_from(*length).ok().filter(|length| *length <= bytes.len() - at) {
                Some(length) => at += length,
                None => return,
            },
            (None, true) => {}
            (None, false) => match after_chunks(&bytes[at..]) {
                Some(used) => at += used,
                None => return,
            },
        }
    }
}

/// Between two requests at the end of a head without a body, and not before.
fn ends_where_hypers_parser_says(bytes: &[u8], no_body: bool) {
    if no_body {
        assert!(follow([bytes], 0).between, "after a head");
    }
    assert!(!follow([&bytes[..bytes.len() - 1]], 0).between, "within a head");
}

/// The length of a chunked body without trailers, as hyper's parser reads its sizes.
fn after_chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((used, size))) = httparse::parse_chunk_size(&bytes[at..]) else {
            return None;
        };
        at += used;
        if size == 0 {
            return bytes[at..].starts_with(b"\r\n").then_some(at + 2);
        }
        at = at.checked_add(usize::try_from(size).ok()?)?;
        if !bytes.get(at..)?.starts_with(b"\r\n") {
            return None;
        }
        at += 2;
    }
}
