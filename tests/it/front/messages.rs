//! Messages go out as they came in, but for whose they are.

use rtm_gateway::simulator::{Endpoint, Fault};

use super::stage::{RTM, Stage, VENDOR_SECRET, request};

fn message(client: &str, user: &str) -> String {
    let headers = "Content-Type: application/json; x=y\r\nAccept: a/b\r\nAccept-Language: zh\r\nUser-Agent: old\r\n\
                   Cookie: c=d\r\nX-Ar-Token: stolen\r\nX-Forwarded-For: 1.2.3.4\r\nTraceparent: 00-1\r\n\
                   Authorization: Basic dmVuZG9yOmE=\r\nConnection: X-Hop\r\nX-Hop: 1\r\n";
    let body = r#"{"destination":"用户","enable_historical_messaging":true,"payload":"Hello"}"#;
    request("POST", &format!("{RTM}/users/{user}/peer_messages?wait_for_ack=true"), client, headers, body)
}

#[tokio::test]
async fn of_the_callers_head_only_what_the_vendor_needs_leaves() {
    let stage = Stage::with("", "streams = []").await;
    let answer = stage.raw(message("all", "%E7%94%A8%20a")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("x-rtm-origin"), Some("vendor"));
    let seen = stage.sim.seen().pop().unwrap();
    assert_eq!(seen.target, format!("{RTM}/users/%E7%94%A8%20a/peer_messages?wait_for_ack=true"));
    assert!(std::str::from_utf8(&seen.body).unwrap().contains("用户"));
    let mut names: Vec<&str> = seen.headers.keys().map(hyper::header::HeaderName::as_str).collect();
    names.sort_unstable();
    let allowed =
        ["accept", "accept-language", "authorization", "content-length", "content-type", "host", "user-agent"];
    assert_eq!(names, allowed);
    assert_eq!(seen.header("content-type"), Some("application/json; x=y"));
    assert!(!seen.header("authorization").unwrap().contains("dmVuZG9yOmE="));
}

#[tokio::test]
async fn a_client_sends_only_as_the_users_it_may_send_as() {
    let stage = Stage::with("", "streams = []").await;
    assert_eq!(stage.raw(message("bot", "bot-7")).await.status, 200);
    let answer = stage.raw(message("bot", "alice")).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    assert_eq!(stage.sim.seen().len(), 1);
}

#[tokio::test]
async fn the_vendors_refusal_passes_and_its_failure_does_not() {
    let stage = Stage::with("", "streams = []").await;
    for status in [400, 404, 408, 410] {
        stage.sim.on(Endpoint::PeerMessages, Fault::status(status));
        let answer = stage.raw(message("all", "a")).await;
        assert_eq!((answer.status, answer.header("x-rtm-origin")), (status, Some("vendor")), "{answer:?}");
    }
    for status in [301, 403, 500, 503] {
        stage.sim.on(Endpoint::PeerMessages, Fault::status(status));
        let answer = stage.raw(message("all", "a")).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "bad_upstream"));
    }
    // Each was sent once.
    assert_eq!(stage.sim.seen().len(), 8);
    let told = format!("{:?}", stage.raw(message("all", "a")).await);
    assert!(!told.contains(VENDOR_SECRET));
}
