//! What is not HTTP/1.1, or not quite.

use super::rig::{Ends, QUERY, judge, post};
use crate::front::stage::{RTM, Stage};

/// A GET that would reach the vendor, with this request line's parts and these bytes in place of header lines.
fn get(line: &str, headers: &[u8]) -> Vec<u8> {
    [line.as_bytes(), headers, b"X-API-Key: all-key\r\nX-Request-Id: case\r\n\r\n"].concat()
}

fn count() -> String {
    format!("{RTM}/message/history/count?source=a&start_time=0&end_time=9")
}

#[tokio::test]
async fn a_request_line_that_is_not_one_is_refused() {
    let stage = Stage::with("", "streams = []").await;
    let target = count();
    let lines = [
        format!("GET {target} HTTP/1.1\n"),
        format!("GET {target} HTTP/1.1\r"),
        format!("GET {target} HTTP/1.1\r\r\n"),
        format!("GET {target} HTTP/1.1 \r\n"),
        format!("GET  {target} HTTP/1.1\r\n"),
        format!("GET {target}  HTTP/1.1\r\n"),
        format!(" GET {target} HTTP/1.1\r\n"),
        format!("\tGET {target} HTTP/1.1\r\n"),
        format!("GET\t{target}\tHTTP/1.1\r\n"),
        format!("GET\u{b}{target} HTTP/1.1\r\n"),
        format!("GET {target}\u{c}HTTP/1.1\r\n"),
        format!("GET\0 {target} HTTP/1.1\r\n"),
        format!("GET {target}\0 HTTP/1.1\r\n"),
        format!("GET {target}\u{7f} HTTP/1.1\r\n"),
        format!("GET {target}\rX: y HTTP/1.1\r\n"),
        format!("GET {target}\nX: y HTTP/1.1\r\n"),
        format!("GET {target} HTTP/1.1\nX: y\r\n"),
        format!("GET {target} x HTTP/1.1\r\n"),
        format!("GET {target} HTTP/1.1 x\r\n"),
        format!("GET {target}\r\n"),
        format!("GET {target} \r\n"),
        format!("GET {target} HTTP\r\n"),
        format!("GET {target} HTTP/\r\n"),
        format!("GET {target} HTTP/1\r\n"),
        format!("GET {target} HTTP/1.\r\n"),
        format!("GET {target} HTTP/1.2\r\n"),
        format!("GET {target} HTTP/1.11\r\n"),
        format!("GET {target} HTTP/11.1\r\n"),
        format!("GET {target} HTTP/01.1\r\n"),
        format!("GET {target} HTTP/2\r\n"),
        format!("GET {target} HTTP/2.0\r\n"),
        format!("GET {target} HTTP/3.0\r\n"),
        format!("GET {target} HTTP/9.9\r\n"),
        format!("GET {target} HTTP/-1.1\r\n"),
        format!("GET {target} http/1.1\r\n"),
        format!("GET {target} HTTPS/1.1\r\n"),
        format!("GET {target} HTTP 1.1\r\n"),
        format!("GET {target} HTTP/1,1\r\n"),
        format!("GET {target} HTTP/1.1;x\r\n"),
        format!("GET {target} ICAP/1.0\r\n"),
        "GET HTTP/1.1\r\n".to_owned(),
        "GET  HTTP/1.1\r\n".to_owned(),
        "GET\r\n".to_owned(),
        " \r\n".to_owned(),
        "\0\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\n".to_owned(),
        format!("{target} GET HTTP/1.1\r\n"),
        format!("G@T {target} HTTP/1.1\r\n"),
        format!("G[E]T {target} HTTP/1.1\r\n"),
        format!("G\u{e9}T {target} HTTP/1.1\r\n"),
        format!("\u{feff}GET {target} HTTP/1.1\r\n"),
        // Other protocols.
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
        "EHLO evil\r\n".to_owned(),
        "*1\r\n$4\r\nPING\r\n".to_owned(),
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_owned(),
        "\r\n\r\n\0\r\nQUIT\n!\u{11}".to_owned(),
        // The preface of HTTP/2, but not quite.
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n".to_owned(),
        "pri * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nPRI * HTTP/2.0\r\n".to_owned(),
    ];
    let cases = lines.iter().map(|line| get(line, b"Host: a\r\n")).collect();
    judge(&stage, "request line", Ends::Closed, cases).await;
    // Line breaks before a request line: one or two are passed over, more are not, nor are bare ones.
    let before = ["\r\n".repeat(5), "\n".into(), "\r\n\n".into(), "\n\r\n".into(), "\r\n".repeat(100_000)];
    let good = get(&format!("GET {} HTTP/1.1\r\n", count()), b"Host: a\r\n");
    let cases = before.iter().map(|breaks| [breaks.as_bytes(), &good].concat()).collect();
    judge(&stage, "line breaks before a request", Ends::Closed, cases).await;
    // HTTP/0.9 has no version and no headers.
    judge(&stage, "HTTP/0.9", Ends::Closed, vec![format!("GET {}\r\n", count()).into()]).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_header_line_that_is_not_one_is_refused() {
    let stage = Stage::with("", "streams = []").await;
    let mut lines: Vec<Vec<u8>> = [
        "X : y",
        "X\t: y",
        " X: y",
        "\tX: y",
        " ",
        "\t",
        "X: y\r\n z",
        "X: y\r\n\tz",
        "X: y\r\n ",
        "X: y\n z",
        "X",
        "X y",
        ": y",
        ":",
        " : y",
        "X\r\n: y",
        "X: y\nZ: z",
        "X: y\rZ: z",
        "X: y\r\r\nZ: z",
        "X: y\n",
        "X: y\r",
        "X: \r\rz",
        "\rX: y",
        "\nX: y",
        "X\u{a0}: y",
        "X\u{e9}: y",
    ]
    .iter()
    .map(|line| line.as_bytes().to_vec())
    .collect();
    // No byte but those of a token may be in a name (RFC 9110, 5.6.2), and no control byte but tab in a value.
    for byte in (0..=0xff_u8).filter(|b| !b.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~:\r\n".contains(b)) {
        lines.push([b"X", &[byte][..], b"Y: z"].concat());
    }
    for byte in (0..0x20).chain([0x7f]).filter(|b| !b"\t\r\n".contains(b)) {
        lines.push([b"X: y", &[byte][..], b"z"].concat());
        lines.push([b"X: ", &[byte][..]].concat());
    }
    for place in ["first", "last"] {
        let cases = lines.iter().map(|line| {
            let line = [line, &b"\r\n"[..]].concat();
            let host = &b"Host: a\r\n"[..];
            let both = if place == "first" { [&line, host].concat() } else { [host, &line].concat() };
            get(&format!("GET {} HTTP/1.1\r\n", count()), &both)
        });
        judge(&stage, &format!("header line, {place}"), Ends::Closed, cases.collect()).await;
    }
    // Heads that end in more than one way.
    let ends = ["\n", "\r", "\n\r\n", "\r\r\n", "\n\n"];
    let cases = ends.iter().map(|end| {
        let mut case = get(&format!("GET {} HTTP/1.1\r\n", count()), b"Host: a\r\n");
        case.truncate(case.len() - 2);
        [&case, end.as_bytes()].concat()
    });
    judge(&stage, "end of the head", Ends::Closed, cases.collect()).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_host_that_is_missing_double_or_none_is_refused() {
    let stage = Stage::with("", "streams = []").await;
    let hosts = [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nhOST: b\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: u@a\r\n",
        "Host: u:p@a\r\n",
        "Host: a/b\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: http://a\r\n",
        "Host: a:b\r\n",
        "Host: a:80:80\r\n",
        "Host: a:99999\r\n",
        "Host: a:-1\r\n",
        "Host: [::1\r\n",
        "Host: ::1]\r\n",
        "Host: a\\b\r\n",
        "Host: a\0b\r\n",
        "Host: a\u{e9}\r\n",
        "Host: <a>\r\n",
        "Host: a\"\r\n",
    ];
    let cases = hosts.iter().map(|host| get(&format!("GET {} HTTP/1.1\r\n", count()), host.as_bytes()));
    judge(&stage, "Host", Ends::Refused, cases.collect()).await;
    stage.stopped().await;
}

#[tokio::test]
async fn nobody_is_upgraded_and_no_method_but_those_that_are_known_is_served() {
    let stage = Stage::with("", "streams = []").await;
    let methods = ["CONNECT", "TRACE", "TRACK", "OPTIONS", "DEBUG", "PROPFIND", "PRI", "get", "Get", "GETT", "SOURCE"];
    let mut cases = Vec::new();
    for method in methods {
        for target in [&count(), "*", "/", "gateway:443"] {
            cases.push(get(&format!("{method} {target} HTTP/1.1\r\n"), b"Host: a\r\n"));
        }
    }
    judge(&stage, "method", Ends::Refused, cases).await;
    let expected = [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    ];
    // An upgrade may be passed over (RFC 9110, 7.8): what comes is an answer to the request, and the bytes after it are
    // a request of HTTP/1.1 or nothing.
    for (n, headers) in expected.iter().enumerate() {
        let query = QUERY.replace(r#""a""#, &format!(r#""a{n}""#));
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
        let before = stage.sim.stats().received();
        let length = format!("{headers}Content-Length: {}\r\n", query.len());
        let answer = stage.raw([post(&length, &query), preface.into()].concat()).await;
        assert_eq!((answer.status, answer.header("upgrade")), (200, None), "{answer:?}");
        let seen = stage.sim.seen().pop().unwrap();
        assert!(["upgrade", "connection", "http2-settings"].iter().all(|name| seen.header(name).is_none()));
        assert_eq!(stage.sim.stats().received(), before + 2);
    }
    stage.stopped().await;
}
