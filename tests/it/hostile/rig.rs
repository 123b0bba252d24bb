//! Sends bytes, and says how it ended: what was answered to whom, and whether the connection was closed.
//!
//! Requests are told apart by the `X-Request-Id` that each answer repeats: the case's own, that of a request hidden in
//! its body, and that of a harmless one that follows on the same connection.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::front::stage::{DEADLINE, RTM, Stage, request};

/// A body that the gateway would make a call to the vendor from.
pub(super) const QUERY: &str = r#"{"filter":{"source":"a","start_time":1,"end_time":9}}"#;

/// A request that the gateway would make a call to the vendor from, if it took it for one.
pub(super) fn hidden() -> String {
    let target = format!("{RTM}/message/history/count?source=hidden&start_time=0&end_time=9");
    request("GET", &target, "all", "X-Request-Id: hidden\r\n", "")
}

/// A POST of a history query with these headers, each line with its end.
pub(super) fn post(headers: &str, body: &str) -> Vec<u8> {
    let target = format!("{RTM}/message/history/query");
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: all-key\r\nX-Request-Id: case\r\n{headers}\r\n{body}")
        .into()
}

/// `QUERY` in one chunk, and the end.
pub(super) fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// Harmless, and answered 404.
fn following() -> String {
    request("GET", "/nothing/here", "all", "X-Request-Id: following\r\n", "")
}

/// What must become of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Refused or not answered, and the connection closed: where the next request begins is in doubt.
    Closed,
    /// Refused. What follows is answered as what it is, or the connection is closed.
    Refused,
}

/// How a case ended.
#[derive(Debug)]
struct Ended {
    /// Status and request id of each answer.
    answers: Vec<(u16, String)>,
    closed: bool,
    all: String,
}

/// Sends each case, and after it a harmless request, on a connection of its own, and judges the end. The vendor must
/// hear of none.
pub(super) async fn judge(stage: &Stage, class: &str, ends: Ends, cases: Vec<Vec<u8>>) {
    let mut outcomes = BTreeMap::<String, usize>::new();
    let count = cases.len();
    for case in cases {
        let ended = send(stage, &[&case, following().as_bytes()].concat()).await;
        let said = || format!("{class}: {:?}\n{}", String::from_utf8_lossy(&case), ended.all);
        let own = ended.answers.iter().find(|(_, id)| id != "following");
        let followed = ended.answers.iter().find(|(_, id)| id == "following");
        assert!(ended.answers.iter().all(|(_, id)| id != "hidden"), "a hidden request was answered: {}", said());
        assert!(ended.answers.len() - usize::from(followed.is_some()) <= 1, "answered twice: {}", said());
        assert!(own.is_none_or(|(status, _)| (400..500).contains(status)), "{}", said());
        match ends {
            Ends::Closed => assert!(ended.closed && followed.is_none(), "went on: {}", said()),
            Ends::Refused => assert!(followed.is_none_or(|(status, _)| *status == 404), "{}", said()),
        }
        let end = if followed.is_some() { "goes on" } else { "closed" };
        *outcomes.entry(own.map_or(format!("no answer, {end}"), |(s, _)| format!("{s}, {end}"))).or_default() += 1;
        assert_eq!(stage.sim.stats().received(), 0, "the vendor heard: {}", said());
    }
    println!("hostile | {class} | {count} cases | {outcomes:?} | 0 vendor calls");
}

/// Sends bytes and reads until the harmless request is answered or the connection ends.
async fn send(stage: &Stage, bytes: &[u8]) -> Ended {
    let (mut reading, mut writing) = stage.connect().await.into_split();
    let mut all = Vec::with_capacity(16 << 10);
    let talking = async {
        let mut closed = false;
        // A gateway that refuses early may close before it has read all.
        let sending = async { drop(writing.write_all(bytes).await) };
        let hearing = async {
            while !answers(&String::from_utf8_lossy(&all)).iter().any(|(_, id)| id == "following") {
                match reading.read_buf(&mut all).await {
                    Ok(0) | Err(_) => {
                        closed = true;
                        break;
                    }
                    Ok(_) => {}
                }
            }
        };
        tokio::join!(sending, hearing);
        closed
    };
    let closed = tokio::time::timeout(DEADLINE, talking).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    let closed = closed.unwrap_or_else(|_| panic!("{:?} was waited for; {all}", String::from_utf8_lossy(bytes)));
    Ended { answers: answers(&all), closed, all }
}

/// The answers in these bytes, but for `100 Continue`.
fn answers(mut all: &str) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = all.split_once("\r\n\r\n") {
        let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
        let status = head.strip_prefix("HTTP/1.").expect("an answer")[2..5].parse().unwrap();
        let length = field("content-length: ").map_or(0, |l| l.parse().unwrap());
        if status != 100 {
            answers.push((status, field("x-request-id: ").expect("every answer of ours has one")));
        }
        // An answer to HEAD has a length, and no body.
        let body = if rest.starts_with("HTTP/1.") { 0 } else { length };
        all = rest.get(body..).unwrap_or_default();
    }
    answers
}
