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
    for status in [400, 404, 408, 410, 415, 435, 503] {
        stage.sim.on(Endpoint::PeerMessages, Fault::status(status));
        let answer = stage.raw(message("all", "a")).await;
        assert_eq!((answer.status, answer.header("x-rtm-origin")), (status, Some("vendor")), "{answer:?}");
    }
    for (status, code) in [(301, "bad_upstream"), (403, "app_refused"), (500, "bad_upstream"), (409, "bad_upstream")] {
        stage.sim.on(Endpoint::PeerMessages, Fault::status(status));
        let answer = stage.raw(message("all", "a")).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, code));
    }
    // Each was sent once.
    assert_eq!(stage.sim.seen().len(), 11);
    let told = format!("{:?}", stage.raw(message("all", "a")).await);
    assert!(!told.contains(VENDOR_SECRET));
}

/// What the operators' port says of the app: its endpoints that are switched off.
async fn switched_off(stage: &Stage) -> Vec<String> {
    let apps = crate::support::client::Client::http1(stage.admin).await.get("/admin/v1/apps").await.unwrap().json();
    let off = apps["apps"][0]["switched_off"].as_array().unwrap().iter();
    off.map(|one| one["endpoint"].as_str().filter(|_| one["since"].is_string()).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_app_that_the_vendor_has_switched_off_is_told_so_on_every_route_and_shown_to_operators() {
    let stage = Stage::with("", "").await;
    assert_eq!(switched_off(&stage).await, [""; 0]);
    let history = r#"{"filter":{"destination":"lobby","start_time":1,"end_time":2}}"#;
    let json = "Content-Type: application/json\r\n";
    let count = format!("{RTM}/message/history/count?destination=lobby&start_time=1&end_time=2");
    let lines = "/v1/apps/demo-app/history?destination=lobby&start_time=1&end_time=2";
    let asks = [
        (Endpoint::PeerMessages, message("all", "a")),
        (Endpoint::HistoryCreate, request("POST", &format!("{RTM}/message/history/query"), "all", json, history)),
        (Endpoint::HistoryCreate, request("GET", lines, "all", "", "")),
        (Endpoint::HistoryCount, request("GET", &count, "all", "", "")),
    ];
    for (endpoint, ask) in asks {
        stage.sim.always(endpoint, Fault::status(403));
        let answer = stage.raw(&ask).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "app_refused"), "{ask}");
        assert!(answer.text().contains("switched off"), "{answer:?}");
        assert_eq!(answer.header("x-rtm-origin"), Some("gateway"));
    }
    stage.sim.always(Endpoint::UserEvents, Fault::status(403));
    let all = async {
        while switched_off(&stage).await != ["history_count", "history_create", "peer_messages", "user_events"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::stage::DEADLINE, all).await.expect("event reads show it, too");
    stage.sim.clear_faults();
    assert_eq!(stage.raw(message("all", "a")).await.status, 200);
    assert!(!switched_off(&stage).await.contains(&"peer_messages".to_owned()), "it serves again");
}

#[tokio::test]
async fn a_503_of_the_vendors_stays_503_on_every_route() {
    let stage = Stage::with("", "streams = []").await;
    let history = r#"{"filter":{"destination":"lobby","start_time":1,"end_time":2}}"#;
    let query =
        request("POST", &format!("{RTM}/message/history/query"), "all", "Content-Type: application/json\r\n", history);
    let count = format!("{RTM}/message/history/count?destination=lobby&start_time=1&end_time=2");
    for (endpoint, ask) in
        [(Endpoint::HistoryCreate, query), (Endpoint::HistoryCount, request("GET", &count, "all", "", ""))]
    {
        stage.sim.always(endpoint, Fault::status(503));
        assert_eq!(stage.raw(&ask).await.status, 503, "{ask}");
    }
}

#[tokio::test]
async fn a_message_without_what_every_message_has_is_refused_and_costs_nothing() {
    let stage = Stage::with("", "streams = []").await;
    let send = async |what: &str, headers: &str, body: &str| {
        stage.raw(request("POST", &format!("{RTM}/users/a/{what}"), "all", headers, body)).await
    };
    let json = "Content-Type: application/json\r\n";
    for (what, body, named) in [
        ("peer_messages", r#"{"payload":"x"}"#, "destination is missing"),
        ("peer_messages", r#"{"destination":null,"payload":"x"}"#, "destination is missing"),
        ("peer_messages", r#"{"destination":"","payload":"x"}"#, "destination is missing"),
        ("peer_messages", r#"{"destination":"b"}"#, "payload is missing"),
        ("peer_messages", r#" {"Destination":"b","payload":"x","channel_name":"c"}"#, "destination is missing"),
        ("channel_messages", r#"{"destination":"b","payload":"x"}"#, "channel_name is missing"),
        ("channel_messages", r#"{"channel_name":"c","payload":null}"#, "payload is missing"),
        ("channel_messages", "{}", "channel_name and payload are missing"),
        ("peer_messages", "[]", "destination and payload are missing"),
        ("peer_messages", "\"x\"", "destination and payload are missing"),
        ("peer_messages", "", "destination and payload are missing"),
    ] {
        for headers in [json, "", "Content-Type: text/plain\r\nContent-Encoding: identity\r\n"] {
            let answer = send(what, headers, body).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{what} {body}");
            assert!(answer.text().contains(named), "{body}: {}", answer.text());
        }
    }
    assert_eq!(stage.sim.seen().len(), 0, "the vendor was not asked");
    let free = stage
        .parts
        .egress
        .bucket(
            &rtm_gateway::kernel::names::AppId::parse(super::stage::APP).unwrap(),
            rtm_gateway::kernel::names::BucketName::Messages,
        )
        .unwrap();
    assert_eq!((free.in_flight, free.waiting), (0, 0));
}

#[tokio::test]
async fn a_message_that_the_vendor_may_take_is_the_vendors_to_judge() {
    let stage = Stage::with("", "streams = []").await;
    let json = "Content-Type: application/json\r\n";
    let gbk = "Content-Type: application/json; charset=gbk\r\n";
    // What is coded, what is no JSON, what is there in another form.
    let bodies: [(&str, &[u8]); 13] = [
        ("Content-Encoding: gzip\r\n", b"{}"),
        (json, b"{\"payload\":"),
        ("Content-Type: text/plain\r\n", b"hello"),
        (json, br#"{"destination":5,"payload":{}}"#),
        (json, br#"{"destination":"b","payload":""}"#),
        // JSON is UTF-8.
        (gbk, b"{\"destination\":\"b\",\"payload\":\"\xd6\xd0\xce\xc4\"}"),
        (json, b"{\"destination\":\"b\",\"payload\":\"x\",\"\xe9t\xe9\":1}"),
        (json, b"\xef\xbb\xbf{}"),
        (json, b"{\0}\0"),
        // A name that no text can hold is not that of a member that is wanted.
        (json, br#"{"\ud800":1,"destination":"b","payload":"\udc00"}"#),
        (json, br#"{"dest\u0069nation":"b","payload":"x"}"#),
        // Which of two counts is not for us to say.
        (json, br#"{"destination":"b","destination":null,"payload":"x","payload":null}"#),
        (json, br#"{"destination":"","destination":"b","payload":null,"payload":"x"}"#),
    ];
    for (n, (headers, body)) in bodies.into_iter().enumerate() {
        let headers = format!("{headers}Content-Length: {}\r\n", body.len());
        let head = request("POST", &format!("{RTM}/users/a/peer_messages"), "all", &headers, "");
        stage.raw([head.as_bytes(), body].concat()).await;
        let seen = stage.sim.seen();
        assert_eq!((seen.len(), &*seen[n].body), (n + 1, body), "{}", String::from_utf8_lossy(body));
    }
}
