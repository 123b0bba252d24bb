//! Chunked bodies that two readers end in two places.

use super::rig::{Ends, QUERY, chunked, hidden, judge, post};
use crate::front::stage::Stage;

fn with(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

#[tokio::test]
async fn a_chunk_that_two_readers_could_end_in_two_places_is_refused() {
    let stage = Stage::with("", "streams = []").await;
    let (size, hidden) = (QUERY.len(), hidden());
    let sized = |line: &str| with(&format!("{line}\r\n{QUERY}\r\n0\r\n\r\n{hidden}"));
    let sizes = [
        format!("0x{size:x}"),
        format!("0X{size:x}"),
        format!("+{size:x}"),
        format!("-{size:x}"),
        format!(" {size:x}"),
        format!("\t{size:x}"),
        format!("{size:x} "),
        format!("{size:x}\t"),
        format!("{size:x} ;a=b"),
        format!("{size:x}\0"),
        format!("{size:x}\u{b}"),
        format!("{size:x}\u{a0}"),
        format!("{size:x}_0"),
        format!("{size:x}.0"),
        format!("{size:x},{size:x}"),
        format!("{size:x}g"),
        format!("{size:x}h"),
        format!("{size:x}\r"),
        format!("{size:x}\r\r"),
        "\u{ff13}\u{ff15}".into(),
        String::new(),
        ";a=b".into(),
        "-1".into(),
        "-0".into(),
        "f".repeat(16),
        "f".repeat(17),
        "f".repeat(100),
        "8000000000000000".into(),
        "100000000000000000".into(),
        format!("1{:0>16x}", size),
        format!("{}{size:x}", "0".repeat(100)),
    ];
    judge(&stage, "odd chunk size", Ends::Closed, sizes.iter().map(|line| sized(line)).collect()).await;

    // Bare line feeds and the "funky chunks" of 2025: who ends a line at LF sees another chunk than who does not.
    let lines = [
        format!("{size:x}\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x}\r\n{QUERY}\n0\r\n\r\n{hidden}"),
        format!("{size:x}\r\n{QUERY}\r0\r\n\r\n{hidden}"),
        format!("{size:x}\r{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x}\r\n{QUERY}0\r\n\r\n{hidden}"),
        format!("{size:x}\r\n{QUERY}xx0\r\n\r\n{hidden}"),
        format!("{size:x}\r\n{QUERY}\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{:x}\r\n{QUERY}\r\n0\r\n\r\n{hidden}", size + 2),
        format!("{:x}\r\n{QUERY}\r\n0\r\n\r\n{hidden}", size - 1),
        format!("{size:x}\r\n{QUERY}\r\n0\n\r\n{hidden}"),
        format!("{size:x}\r\n{QUERY}\r\n0\r\n\n{hidden}"),
        format!("{size:x}\r\n{QUERY}\r\n0\n\n{hidden}"),
        format!("{size:x}\r\n{QUERY}\r\n0\r\r\n{hidden}"),
        format!("{size:x}\r\n{QUERY}\r\n0\r\n\r{hidden}"),
        format!("{size:x};\r\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x}; \r\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x};=x\r\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x};a\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x};a\nb\r\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x};a\rb\r\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x};a\0\r\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("{size:x};a\u{7f}\r\n{QUERY}\r\n0\r\n\r\n{hidden}"),
        format!("2;\n{QUERY}\r\n{:x}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", hidden.len() + 5),
        format!("{size:x};{}\n{QUERY}\r\n0\r\n\r\n{hidden}", "a".repeat(100)),
        format!("{size:x};{}\r\n{QUERY}\r\n0\r\n\r\n{hidden}", "a".repeat(20_000)),
        format!("{size:x};{}\r\n{QUERY}\r\n0\r\n\r\n{hidden}", "a".repeat(1 << 20)),
        // Many small ones: their sum is bounded too (CVE-2023-39326 was an amplification by extensions).
        format!("{}0\r\n\r\n{hidden}", format!("1;{}\r\n \r\n", "a".repeat(500)).repeat(100)),
    ];
    judge(&stage, "odd chunk", Ends::Closed, lines.iter().map(|body| with(body)).collect()).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_trailer_is_refused_for_what_it_might_be_taken_for() {
    let stage = Stage::with("", "streams = []").await;
    let trailers = [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Authorization: Bearer all-key",
        "X-API-Key: all-key",
        "Cookie: a=b",
        "Content-Type: text/plain",
        "Content-Encoding: gzip",
        "Expect: 100-continue",
        "Connection: close",
        "TE: trailers",
        "Trailer: X",
        "X-Checksum: y",
        // And what is no header.
        "X",
        ": x",
        "X : y",
        "X: a\0b",
        "X: a\rb",
        "X: a\n b",
        "X: y\nHost: evil",
        " X: y",
    ];
    let (size, hidden) = (QUERY.len(), hidden());
    let with_trailer = |line: &str| with(&format!("{size:x}\r\n{QUERY}\r\n0\r\n{line}\r\n\r\n{hidden}"));
    // Where the request ends is in no doubt; a trailer that is well-formed leaves the connection in step.
    let (named, broken) = trailers.split_at(13);
    for (class, ends, lines) in [("trailer", Ends::Refused, named), ("malformed trailer", Ends::Closed, broken)] {
        let cases = lines.iter().map(|line| {
            let case = String::from_utf8(with_trailer(line)).unwrap();
            // Behind a request that ends where everybody sees it another one may come: it is not hidden.
            if ends == Ends::Refused { case.replace(&hidden, "").into() } else { case.into() }
        });
        judge(&stage, class, ends, cases.collect()).await;
    }
    let many = format!("{size:x}\r\n{QUERY}\r\n0\r\n{}\r\n{hidden}", "X: y\r\n".repeat(10_000));
    let large = format!("{size:x}\r\n{QUERY}\r\n0\r\nX: {}\r\n\r\n{hidden}", "y".repeat(1 << 20));
    judge(&stage, "oversized trailers", Ends::Closed, vec![with(&many), with(&large)]).await;
    // What everybody reads alike is served.
    for body in [
        chunked(QUERY),
        format!("{size:X};a=b;c=\"d e\"\r\n{QUERY}\r\n0;x\r\n\r\n"),
        format!("{:04x}\r\n{}\r\n{:x}\r\n{}\r\n000\r\n\r\n", 5, &QUERY[..5], size - 5, &QUERY[5..]),
    ] {
        let answer = stage.raw(with(&body)).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    stage.stopped().await;
}
