//! A request whose end can be seen in two places: whoever stands before us and sees the other one lets a second request
//! through that nobody checked.

use super::rig::{Ends, QUERY, chunked, hidden, judge, post};
use crate::front::stage::Stage;

async fn quiet() -> Stage {
    Stage::with("", "streams = []").await
}

/// Header lines that somebody takes for `Transfer-Encoding: chunked` and somebody else does not. Whether the second is
/// us does not matter: with a `Content-Length` beside it, it is refused.
fn obfuscated() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t:\tchunked",
        "Transfer Encoding: chunked",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding\r\n : chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\n chunked",
        "Transfer-Encoding:\r\n\tchunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\r\r\nTransfer-Encoding: chunked",
        "X: y\n\nTransfer-Encoding: chunked",
        "Transfer\r-Encoding: chunked",
        "Transfer-Encoding: chunked\r",
        "Transfer-Encoding: chunked, cow",
        "Transfer-Encoding: cow, chunked",
        "Transfer-Encoding: , chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: cow chunked bar",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked; ext",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: ",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Content-Encoding: chunked",
        "Transfer-Encoding: ch\u{96}nked",
        "Transfer-Encoding: \u{212a}chunked",
        "Tran\u{17f}fer-Encoding: chunked",
        ": chunked\r\nTransfer-Encoding",
        "Transfer-Encoding",
    ]
    .iter()
    .map(|line| line.as_bytes().to_vec())
    .collect();
    // Far enough to the right that who looks at the first bytes only does not see it.
    lines.push(format!("Transfer-Encoding: {}xchunked", " ".repeat(200)).into());
    lines.push(format!("Transfer-Encoding: chunked{}x", " ".repeat(200)).into());
    // Smuggler's exhaustive list: every odd byte in every place.
    for byte in (0x00..0x20).chain(0x7f..=0xff_u8) {
        lines.push([&b"Transfer-Encoding:"[..], &[byte], b"chunked"].concat());
        lines.push([&b"Transfer-Encoding"[..], &[byte], b": chunked"].concat());
        lines.push([&[byte], &b"Transfer-Encoding: chunked"[..]].concat());
        lines.push([&b"Transfer-Encoding: chunked"[..], &[byte]].concat());
    }
    lines
}

/// Lines that RFC 9112 has everybody read as `Transfer-Encoding: chunked`.
const PLAIN: [&str; 7] = [
    "Transfer-Encoding: chunked",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding:  chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked\t",
    "TRANSFER-ENCODING: CHUNKED",
    "tRANSFER-eNCODING: cHUNKED",
];

fn with(lines: &[&[u8]], body: &str) -> Vec<u8> {
    let mut case = post("", "");
    case.truncate(case.len() - 2);
    for line in lines {
        case.extend_from_slice(line);
        case.extend_from_slice(b"\r\n");
    }
    [&case, &b"\r\n"[..], body.as_bytes()].concat()
}

#[tokio::test]
async fn a_length_and_a_coding_together_are_refused_whichever_comes_first_and_however_it_is_written() {
    let stage = quiet().await;
    let lines = || obfuscated().into_iter().chain(PLAIN.map(|line| line.as_bytes().to_vec()));
    let body = format!("{}{}", chunked(QUERY), hidden());
    // CL.TE: the length covers the hidden request.
    let long = format!("Content-Length: {}", body.len());
    let cl_te = lines().map(|te| with(&[long.as_bytes(), &te], &body)).collect();
    judge(&stage, "CL.TE", Ends::Closed, cl_te).await;
    // TE.CL: the length ends within the first chunk's size, the hidden request is the chunk.
    let inner = format!("{:x}\r\n{}\r\n0\r\n\r\n", hidden().len(), hidden());
    let te_cl = lines().map(|te| with(&[&te, b"Content-Length: 4"], &inner)).collect();
    judge(&stage, "TE.CL", Ends::Closed, te_cl).await;
    // TE.0 and CL.0: one of the two says that there is no body.
    let none = lines().map(|te| with(&[&te, b"Content-Length: 0"], &body)).collect();
    judge(&stage, "TE.0", Ends::Closed, none).await;
    stage.stopped().await;
}

#[tokio::test]
async fn a_coding_that_is_not_chunked_alone_is_refused_without_a_length_too() {
    let stage = quiet().await;
    let body = format!("{}{}", chunked(QUERY), hidden());
    let odd = |line: &Vec<u8>| {
        let lower = line.to_ascii_lowercase();
        // Tab around a value is white space to everybody.
        lower != b"transfer-encoding:\tchunked" && lower != b"transfer-encoding: chunked\t"
    };
    let alone = obfuscated().into_iter().filter(odd).map(|te| with(&[&te], &body)).collect();
    judge(&stage, "TE.TE", Ends::Closed, alone).await;
    // HTTP/1.0 has no codings (RFC 9112, 6.1).
    let old = PLAIN.map(|line| {
        let case = String::from_utf8(with(&[line.as_bytes(), b"Connection: keep-alive"], &body)).unwrap();
        case.replacen("HTTP/1.1", "HTTP/1.0", 1).into()
    });
    judge(&stage, "TE in HTTP/1.0", Ends::Closed, old.to_vec()).await;
    // Where everybody reads the same, it is served: the vendor hears of each once.
    for line in PLAIN {
        let answer = stage.raw(with(&[line.as_bytes()], &chunked(QUERY))).await;
        assert_eq!(answer.status, 200, "{line}: {answer:?}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn a_length_that_is_not_one_plain_number_is_refused() {
    let stage = quiet().await;
    let length = QUERY.len();
    let body = format!("{QUERY}{}", hidden());
    let values = [
        format!("+{length}"),
        format!("-{length}"),
        format!("0{length}"),
        format!("0x{length:x}"),
        format!("{length:#o}"),
        format!("{length},{length}"),
        format!("{length}, {length}"),
        format!("{length}, {}", length + 1),
        format!("{length}, {length}, {length}"),
        format!("{length},"),
        format!(",{length}"),
        format!("{length};"),
        format!("{length} {length}"),
        format!("{length}\t1"),
        format!("{length}.0"),
        format!("{length}e0"),
        format!("{length}_0"),
        format!("\"{length}\""),
        format!("{length}\u{b}"),
        format!("\u{b}{length}"),
        format!("\u{a0}{length}"),
        format!("{length}\0"),
        format!("{length}\r"),
        "\u{ff15}\u{ff13}".into(),
        format!("{}{length}", " ".repeat(300) + "x"),
        "-0".into(),
        "+0".into(),
        "00".into(),
        "0x".into(),
        "-1".into(),
        String::new(),
        "x".into(),
        "9223372036854775807".into(),
        "9223372036854775808".into(),
        "18446744073709551615".into(),
        "18446744073709551616".into(),
        "99999999999999999999999999999999".into(),
    ];
    let single = values.iter().map(|value| post(&format!("Content-Length: {value}\r\n"), &body)).collect();
    judge(&stage, "odd Content-Length", Ends::Closed, single).await;
    let lines = [
        (format!("Content-Length: {length}"), format!("Content-Length: {length}")),
        (format!("Content-Length: {length}"), format!("Content-Length: {}", body.len())),
        (format!("Content-Length: {}", body.len()), format!("Content-Length: {length}")),
        (format!("Content-Length: {length}"), "content-length: 0".into()),
        ("Content-Length: 0".into(), format!("CONTENT-LENGTH: {length}")),
        (format!("Content-Length: {length}"), "Content-Length:".into()),
        (format!("Content-Length: {length}"), format!("Content-Length : {length}")),
        (format!("Content-Length: {length}"), format!("Content_Length: {}", body.len())),
        (format!("Content_Length: {length}"), "X: y".into()),
        (format!("Content-Length\0: {length}"), "X: y".into()),
        (format!("Content Length: {length}"), "X: y".into()),
        (format!("X: y\nContent-Length: {length}"), "X: y".into()),
        (format!("X: y\rContent-Length: {length}"), "X: y".into()),
        (format!(" Content-Length: {length}"), "X: y".into()),
        (format!("Content-Length:\r\n {length}"), "X: y".into()),
    ];
    let twice = lines.iter().map(|(a, b)| with(&[a.as_bytes(), b.as_bytes()], &body)).collect();
    judge(&stage, "Content-Length twice or in disguise", Ends::Closed, twice).await;
    stage.stopped().await;
}

#[tokio::test]
async fn what_a_request_without_use_for_a_body_carries_is_never_taken_for_the_next_request() {
    let stage = quiet().await;
    let hidden = hidden();
    let mut cases = Vec::new();
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "PUT", "PATCH"] {
        for target in ["/nowhere", "/dev/v2/project/demo-app/rtm/message/history/query/x/y"] {
            for expect in ["", "Expect: 100-continue\r\n"] {
                let head =
                    format!("{method} {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: all-key\r\nX-Request-Id: case\r\n");
                // As much body as it says, and as chunks.
                cases.push(format!("{head}{expect}Content-Length: {}\r\n\r\n{hidden}", hidden.len()).into());
                cases.push(format!("{head}{expect}Transfer-Encoding: chunked\r\n\r\n{}", chunked(&hidden)).into());
            }
        }
    }
    judge(&stage, "body of a request that has no use for it (CL.0, Expect)", Ends::Refused, cases).await;
    // Refused before its body is read: what comes then is its body still.
    let early = |headers: &str| {
        let target = "/dev/v2/project/demo-app/rtm/message/history/query";
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\nX-Request-Id: case\r\n{headers}");
        [
            format!("{head}Content-Length: {}\r\n\r\n{hidden}", hidden.len()).into_bytes(),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked(&hidden)).into_bytes(),
        ]
    };
    let cases = [early(""), early("Expect: 100-continue\r\n"), early("Connection: keep-alive\r\n")].concat();
    judge(&stage, "body of a request refused by its head", Ends::Refused, cases).await;
    let odd = ["100-continue, x", "y 100-continue", "100-continue\r\nExpect: y", "200-ok", "", "\"100-continue\""]
        .map(|value| post(&format!("Expect: {value}\r\nContent-Length: {}\r\n", QUERY.len()), QUERY));
    judge(&stage, "odd Expect", Ends::Closed, odd.to_vec()).await;
    stage.stopped().await;
}
