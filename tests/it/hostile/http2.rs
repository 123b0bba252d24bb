//! HTTP/2 heads that lie, and connections that break the protocol: the sections of RFC 9113 that h2spec walks through,
//! and what becomes a second request when somebody writes it down as HTTP/1.1.

use std::collections::BTreeMap;

use super::frames::*;
use super::rig::QUERY;
use crate::front::stage::{RTM, Stage};

type Headers<'a> = Vec<(&'a [u8], &'a [u8])>;

fn count() -> String {
    format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9")
}

/// The heads' usual parts, with this path.
fn usual<'a>(method: &'a str, path: &'a str) -> Headers<'a> {
    vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"gateway"),
        (b":path", path.as_bytes()),
        (b"x-api-key", b"all-key"),
    ]
}

fn get(path: &str) -> Vec<u8> {
    block(&usual("GET", path))
}

/// Sends frames on a connection of their own, then a harmless request on a stream that they do not use, and judges:
/// refused, reset, or the connection ended; and if it did not end, the harmless request is answered as what it is.
async fn judge(stage: &Stage, class: &str, cases: Vec<Vec<u8>>) {
    const FOLLOWING: u32 = 1001;
    let mut outcomes = BTreeMap::<&str, usize>::new();
    let count = cases.len();
    for (n, case) in cases.into_iter().enumerate() {
        let mut caller = Caller::connect(stage, &[]).await;
        let following = frame(HEADERS, END_STREAM | END_HEADERS, FOLLOWING, &get("/nothing/here"));
        caller.send(&[case, following].concat()).await;
        let is_judged = |heard: &Heard| heard.statuses.keys().any(|s| *s != FOLLOWING) || !heard.resets.is_empty();
        let heard = caller
            .hear(|heard| heard.goaway.is_some() || (heard.statuses.contains_key(&FOLLOWING) && is_judged(heard)))
            .await;
        let own = heard.statuses.iter().find(|(stream, _)| **stream != FOLLOWING);
        assert!(own.is_none_or(|(_, status)| (400..500).contains(status)), "{class} {n}: {heard:?}");
        assert!(heard.statuses.get(&FOLLOWING).is_none_or(|status| *status == 404), "{class} {n}: {heard:?}");
        let outcome = match heard {
            Heard { goaway: Some(_), .. } => "GOAWAY",
            Heard { closed: true, .. } => "closed",
            _ if own.is_some() => "4xx",
            Heard { resets, .. } if !resets.is_empty() => "RST_STREAM",
            _ => panic!("{class} {n} was passed over: {heard:?}"),
        };
        *outcomes.entry(outcome).or_default() += 1;
        assert_eq!(stage.sim.stats().received(), 0, "{class} {n}: the vendor heard");
    }
    println!("hostile | HTTP/2: {class} | {count} cases | {outcomes:?} | 0 vendor calls");
}

#[tokio::test]
async fn a_head_that_lies_is_refused_or_its_stream_is_reset() {
    let stage = Stage::with("", "streams = []").await;
    let path = count();
    let with = |change: &dyn Fn(&mut Headers<'_>)| {
        let mut headers = usual("GET", &path);
        change(&mut headers);
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&headers))
    };
    let set = |name: &'static [u8], value: &'static [u8]| {
        with(&move |headers| headers.iter_mut().filter(|h| h.0 == name).for_each(|h| h.1 = value))
    };
    let add = |name: &'static [u8], value: &'static [u8]| with(&move |headers| headers.push((name, value)));
    let without = |name: &'static [u8]| with(&move |headers| headers.retain(|h| h.0 != name));

    let pseudo = vec![
        without(b":method"),
        without(b":path"),
        without(b":scheme"),
        add(b":method", b"GET"),
        add(b":path", b"/"),
        add(b":scheme", b"http"),
        add(b":authority", b"gateway"),
        add(b":status", b"200"),
        add(b":unknown", b"x"),
        add(b":protocol", b"websocket"),
        add(b":", b"x"),
        with(&|headers| headers.insert(0, (b":unknown", b"x"))),
        with(&|headers| headers.insert(0, (b":status", b"200"))),
        with(&|headers| headers.insert(0, (b":path", b"/"))),
        with(&|headers| headers.insert(0, (b":method", b"POST"))),
        with(&|headers| headers.rotate_left(1)),
        with(&|headers| headers.insert(0, (b"x", b"y"))),
        set(b":path", b""),
        set(b":path", b"*"),
        set(b":path", b"x"),
        set(b":path", b"http://evil/dev"),
        set(b":path", b"//evil/dev"),
        set(b":path", b"/a b"),
        set(b":path", b"/a HTTP/1.1\r\nHost: evil\r\n\r\nGET /b"),
        set(b":path", b"/a\r\nX: y"),
        set(b":path", b"/a\0"),
        set(b":path", b"/a\t"),
        set(b":path", b"/a#b"),
        set(b":path", b"/a\\..\\b"),
        set(b":path", b"/../dev"),
        set(b":path", b"/%2e%2e/dev"),
        set(b":path", b"/\xff"),
        set(b":method", b""),
        set(b":method", b"GET /evil HTTP/1.1\r\nX: y"),
        set(b":method", b"G T"),
        set(b":method", b"GET\r"),
        set(b":method", b"get"),
        set(b":method", b"CONNECT"),
        set(b":method", b"PRI"),
        set(b":scheme", b""),
        set(b":scheme", b"ftp"),
        set(b":scheme", b"file"),
        set(b":scheme", b"http://evil/?"),
        set(b":scheme", b"http\r\n"),
        set(b":scheme", b"javascript"),
        set(b":authority", b"u@gateway"),
        set(b":authority", b"u:p@gateway"),
        set(b":authority", b"gateway/x"),
        set(b":authority", b"gateway\r\nX: y"),
        set(b":authority", b"gate way"),
        set(b":authority", b"gateway:99999x"),
        set(b":authority", b"gateway#x"),
        add(b"host", b"evil"),
        add(b"host", b""),
        with(&|headers| headers.extend([(&b"host"[..], &b"gateway"[..]), (b"host", b"gateway")])),
        with(&|headers| {
            headers.retain(|h| h.0 != b":authority");
            headers.push((b"host", b"u@gateway"));
        }),
    ];
    judge(&stage, "pseudo-headers", pseudo).await;

    let fields = vec![
        add(b"Uppercase", b"x"),
        add(b"", b"x"),
        add(b"a b", b"x"),
        add(b"a:b", b"x"),
        add(b"a\r\nb", b"x"),
        add(b"a\0", b"x"),
        add(b"\x7f", b"x"),
        add(b"\xc3\xa9", b"x"),
        add(b"connection", b"close"),
        add(b"connection", b"x-api-key"),
        add(b"proxy-connection", b"keep-alive"),
        add(b"keep-alive", b"timeout=5"),
        add(b"transfer-encoding", b"chunked"),
        add(b"upgrade", b"h2c"),
        add(b"te", b"gzip"),
        add(b"te", b"trailers, chunked"),
        add(b"x", b"a\r\nTransfer-Encoding: chunked"),
        add(b"x", b"a\nb"),
        add(b"x", b"a\rb"),
        add(b"x", b"a\0b"),
        add(b"x", b"\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n"),
        add(b"x", b" a"),
        add(b"x", b"a "),
        add(b"x", b"\ta"),
        add(b"x", b"a\t"),
        add(b"x", b"a\x7f"),
        add(b"user-agent", b"a\r\nX-Evil: b"),
        add(b"content-length", b"5"),
        add(b"content-length", b"x"),
        add(b"content-length", b"-1"),
        add(b"content-length", b"+0"),
        add(b"content-length", b"0, 0"),
        add(b"content-length", b"99999999999999999999"),
        with(&|headers| (0..101).for_each(|_| headers.push((b"x", b"y")))),
    ];
    judge(&stage, "headers", fields).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_makes_no_request() {
    let stage = Stage::with("", "streams = []").await;
    let query = format!("{RTM}/message/history/query");
    let with = |length: &str, parts: &[&[u8]], end: bool| {
        let mut headers = usual("POST", &query);
        headers.push((b"content-length", length.as_bytes()));
        let mut frames = frame(HEADERS, END_HEADERS, 1, &block(&headers));
        for (n, part) in parts.iter().enumerate() {
            let last = end && n + 1 == parts.len();
            frames.extend(frame(DATA, if last { END_STREAM } else { 0 }, 1, part));
        }
        frames
    };
    let body = QUERY.as_bytes();
    let (less, more) = ((body.len() - 1).to_string(), (body.len() + 1).to_string());
    let trailer = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&[(b"content-length", b"5")]));
    let pseudo = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&[(b":path", b"/evil")]));
    let unended = frame(HEADERS, END_HEADERS, 1, &block(&[(b"x", b"y")]));
    let length = body.len().to_string();
    let cases = vec![
        with(&less, &[body], true),
        with(&more, &[body], true),
        with("0", &[body], true),
        with(&less, &[&body[..5], &body[5..]], true),
        with(&more, &[&body[..5], &body[5..], b""], true),
        with("1", &[body, body], true),
        [with(&more, &[body], false), trailer.clone()].concat(),
        [with(&length, &[body], false), trailer].concat(),
        [with(&length, &[body], false), pseudo].concat(),
        [with(&length, &[body], false), unended].concat(),
    ];
    judge(&stage, "length of the body", cases).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_connection_that_breaks_the_protocol_ends_or_its_stream_does() {
    let stage = Stage::with("", "streams = []").await;
    let path = count();
    let head = get(&path);
    let nowhere = get("/nothing/at/all");
    let open = frame(HEADERS, END_HEADERS, 1, &nowhere);
    let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let after = |bytes: Vec<u8>| [open.clone(), bytes].concat();
    let cases = vec![
        // Streams (RFC 9113, 5.1).
        frame(HEADERS, END_STREAM | END_HEADERS, 0, &head),
        frame(HEADERS, END_STREAM | END_HEADERS, 2, &head),
        [frame(HEADERS, END_STREAM | END_HEADERS, 5, &nowhere), frame(HEADERS, END_STREAM | END_HEADERS, 3, &head)]
            .concat(),
        [frame(HEADERS, END_STREAM | END_HEADERS, 1, &nowhere), frame(DATA, 0, 1, b"x")].concat(),
        [frame(HEADERS, END_STREAM | END_HEADERS, 1, &nowhere), frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)]
            .concat(),
        frame(DATA, END_STREAM, 1, b"x"),
        frame(DATA, END_STREAM, 0, b"x"),
        frame(DATA, END_STREAM, 2, b"x"),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(RST_STREAM, 0, 0, &[0; 4]),
        after(frame(RST_STREAM, 0, 1, &[0; 3])),
        frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()),
        frame(CONTINUATION, END_HEADERS, 1, &head),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &head].concat()),
        after(frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &head].concat())),
        frame(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, &[&[0, 0, 0, 1, 0][..], &head].concat()),
        // Frames' sizes and padding (4.2, 6.1).
        frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[&[255][..], &head[..20]].concat()),
        after(frame(DATA, PADDED, 1, &[200, 0, 0])),
        after(frame(DATA, 0, 1, &vec![0; 16_385])),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &vec![0; 16_385]),
        frame(200, 0, 0, &vec![0; 16_385]),
        after(frame(PRIORITY, 0, 0, &[0; 5])),
        // SETTINGS (6.5).
        frame(SETTINGS, 0, 1, &setting(3, 1)),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, ACK, 0, &setting(3, 1)),
        frame(SETTINGS, 0, 0, &setting(2, 2)),
        frame(SETTINGS, 0, 0, &setting(4, 1 << 31)),
        frame(SETTINGS, 0, 0, &setting(5, 16_383)),
        frame(SETTINGS, 0, 0, &setting(5, 1 << 24)),
        // PING, GOAWAY, WINDOW_UPDATE (6.7 to 6.9).
        frame(PING, 0, 1, &[0; 8]),
        frame(PING, 0, 0, &[0; 7]),
        frame(GOAWAY, 0, 1, &[0; 8]),
        frame(WINDOW_UPDATE, 0, 0, &0_u32.to_be_bytes()),
        frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
        after(frame(WINDOW_UPDATE, 0, 1, &0_u32.to_be_bytes())),
        after(frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes())),
        // A head in pieces with something in between (6.10).
        [frame(HEADERS, END_STREAM, 1, &head[..10]), frame(PING, 0, 0, &[0; 8])].concat(),
        [frame(HEADERS, END_STREAM, 1, &head[..10]), frame(CONTINUATION, END_HEADERS, 3, &head[10..])].concat(),
        [frame(HEADERS, END_STREAM, 1, &head[..10]), frame(HEADERS, END_HEADERS, 1, &head[10..])].concat(),
        // Compression (RFC 7541): an index beyond the tables, nothing at index 0, an integer and a string without end,
        // a table larger than allowed, a change of its size in the middle, bad Huffman code.
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x80]),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&head[..], &[0xfe]].concat()),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&[0xff][..], &[0xff; 20]].concat()),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&head[..], &[0, 0x7f, 0xff, 0xff, 0x7f]].concat()),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&integer_update(1 << 30)[..], &head].concat()),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&head[..], &[0x20]].concat()),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&head[..], &[0, 0x81, 0xff, 1, b'x']].concat()),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &head[..head.len() - 1]),
    ];
    judge(&stage, "protocol", cases).await;
    stage.stopped().await;
}

/// A dynamic table size update (RFC 7541, 6.3).
fn integer_update(size: usize) -> Vec<u8> {
    let mut bytes = integer(5, size);
    bytes[0] |= 0x20;
    bytes
}

#[tokio::test]
async fn what_is_legal_reaches_the_vendor_as_one_request_of_ours() {
    let stage = Stage::with("", "streams = []").await;
    let path = count();
    let mut headers = usual("GET", &path);
    headers.extend([
        (&b"user-agent"[..], &b"a%0d%0aX-Evil: b"[..]),
        (b"x-forwarded-host", b"evil"),
        (b"x-http-method-override", b"DELETE"),
        (b"te", b"trailers"),
        (b"cookie", b"a=b"),
        (b"cookie", b"c=d"),
        (b"host", b"gateway"),
    ]);
    let mut caller = Caller::connect(&stage, &[]).await;
    caller.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&headers))).await;
    let heard = caller.hear(|heard| !heard.whole.is_empty()).await;
    assert_eq!(heard.statuses, BTreeMap::from([(1, 200)]), "{heard:?}");
    let seen = stage.sim.seen();
    assert_eq!(seen.len(), 1);
    let mut names: Vec<&str> = seen[0].headers.keys().map(hyper::header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert!(names.iter().all(|n| matches!(*n, "accept" | "authorization" | "host" | "user-agent")), "{names:?}");
    stage.stopped().await;
}
