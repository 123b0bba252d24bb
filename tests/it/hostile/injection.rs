//! Values that would be more than values if they were pasted: what the vendor received shows that they are not.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rtm_gateway::simulator::SeenRequest;

use crate::front::stage::{RTM, Stage, request};

/// What injection looks like, and what each value is once decoded.
const VALUES: [&str; 16] = [
    "a b",
    "a&source=b",
    "a?b=c",
    "a#b",
    "a;b",
    "a=b",
    "a+b",
    "a%2Fb",
    "a%0d%0aX-Evil: b",
    "..;",
    "...",
    "\u{2025}",
    "\u{ff0e}\u{ff0e}\u{2215}",
    "\u{560a}\u{560d}X-Evil:b",
    "\u{10d}\u{10a}",
    "'\"<>{}|^`[]@:",
];

fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// The vendor's request is one of ours: its path, its headers.
fn assert_whole(seen: &SeenRequest, headers: &[&str]) {
    assert!(seen.target.bytes().all(|b| b.is_ascii_graphic()), "{:?}", seen.target);
    let mut names: Vec<&str> = seen.headers.keys().map(hyper::header::HeaderName::as_str).collect();
    let ours = |name: &&str| {
        matches!(*name, "authorization" | "host" | "content-length" | "content-type")
            || (matches!(*name, "accept" | "user-agent") && !headers.contains(name))
    };
    names.retain(|name| !ours(name));
    assert_eq!(names, headers, "{:?}", seen.target);
    assert_eq!(seen.headers.len(), seen.headers.keys_len(), "no header twice");
}

#[tokio::test]
async fn a_value_in_a_path_or_a_query_reaches_the_vendor_as_that_value_and_nothing_else() {
    let stage = Stage::with("", "streams = []").await;
    let body = r#"{"destination":"x","payload":"y"}"#;
    for value in VALUES {
        let target = format!("{RTM}/users/{}/peer_messages?wait_for_ack={}", encoded(value), encoded(value));
        let answer = stage.raw(request("POST", &target, "all", "", body)).await;
        assert!(answer.status == 200 || answer.status == 400, "{value}: {answer:?}");
        let seen = stage.sim.seen().pop().unwrap();
        assert_whole(&seen, &[]);
        let (path, query) = seen.target.split_once('?').unwrap();
        let segments: Vec<&str> = path.split('/').collect();
        assert_eq!(segments.len(), 9, "{path}");
        assert_eq!(percent_decode_str(segments[7]).decode_utf8().unwrap(), value, "{path}");
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        assert_eq!(pairs, [("wait_for_ack".into(), value.into())], "{query}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn a_line_break_in_a_query_value_stays_in_it_or_is_refused() {
    let stage = Stage::with("", "streams = []").await;
    let body = r#"{"destination":"x","payload":"y"}"#;
    for odd in ["%0d%0aX-Evil:%20b", "%0aX-Evil:b", "%0d", "%00", "%0d%0a%0d%0aGET%20/evil", "%e5%98%8a%e5%98%8d"] {
        for (method, target, body) in [
            ("POST", format!("{RTM}/users/u/peer_messages?wait_for_ack=a{odd}"), body),
            ("POST", format!("{RTM}/users/u/channel_messages?a{odd}=b"), body),
            ("GET", format!("{RTM}/message/history/count?source=a{odd}&start_time=0&end_time=9"), ""),
        ] {
            let before = stage.sim.seen().len();
            let answer = stage.raw(request(method, &target, "all", "", body)).await;
            let seen = stage.sim.seen();
            assert!(answer.status < 500, "{target}: {answer:?}");
            assert!(answer.status == 400 || seen.len() > before, "{target}: {answer:?}");
            for seen in &seen[before..] {
                assert_whole(seen, &[]);
                assert!(!seen.target.to_ascii_lowercase().contains("x-evil: "), "{}", seen.target);
            }
        }
    }
    stage.stopped().await;
}

#[tokio::test]
async fn a_header_that_may_leave_reaches_the_vendor_as_one_header() {
    let stage = Stage::with("", "streams = []").await;
    let body = r#"{"destination":"x","payload":"y"}"#;
    let target = format!("{RTM}/users/u/peer_messages");
    for value in ["a%0d%0aX-Evil: b", "a\\r\\nX-Evil: b", "a\tb", "a, b;q=0", "\u{e9}\u{560a}\u{560d}X-Evil: b"] {
        for name in ["User-Agent", "Accept", "Accept-Language"] {
            let answer = stage.raw(request("POST", &target, "all", &format!("{name}: {value}\r\n"), body)).await;
            assert_eq!(answer.status, 200, "{name}: {value}: {answer:?}");
            let seen = stage.sim.seen().pop().unwrap();
            assert_whole(&seen, &[name.to_ascii_lowercase().as_str()]);
            assert_eq!(seen.headers[name].as_bytes(), value.as_bytes());
        }
    }
    stage.stopped().await;
}

#[tokio::test]
async fn an_answer_repeats_a_request_id_only_when_it_is_harmless() {
    let stage = Stage::with("", "streams = []").await;
    for id in ["<script>", "a b", "a%0d%0aX: y", "\u{e9}", &"x".repeat(500), "a\"b", "a\\b", "a,b"] {
        let answer = stage.raw(request("GET", "/nowhere", "all", &format!("X-Request-Id: {id}\r\n"), "")).await;
        assert_eq!(answer.status, 404);
        assert_ne!(answer.header("x-request-id"), Some(id));
    }
    stage.stopped().await;
}
