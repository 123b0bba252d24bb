//! The operators' port: whom a request must name, and what may be asked of its head alone.

use std::net::SocketAddr;

use rtm_gateway::admin::Operation;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Endpoint, Fault};
use serde_json::{Value, json};

use super::stage::{APP, Stage};
use crate::support::client::{DEADLINE, raw};
use crate::support::waiting::{found, found_within};

/// A whole answer on a connection of its own.
async fn ask(port: SocketAddr, method: &str, target: &str, headers: &str) -> (u16, String) {
    let request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    let answer = String::from_utf8(raw(port, request.as_bytes()).await).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

fn target(operation: Operation) -> String {
    let filled = operation.path().replace("{app}", APP).replace("{stream}", "user_events").replace("{name}", "all");
    filled.replace("{cursor}", "AAAAAAAAAAAAAAAAAAAAAAAAAAA").replace("{id}", "1")
}

#[tokio::test]
async fn without_a_key_the_operators_port_does_nothing_for_a_request_that_names_another_host() {
    let stage = Stage::start().await;
    assert_eq!(stage.get("/dev/v2/project/demo-app/rtm/vendor/user_events").await.status, 200);
    for operation in Operation::all() {
        let open = ["/", "/healthz", "/readyz", "/metrics"].contains(&operation.path());
        for host in ["evil.example", "evil.example:9090", "localhost.evil.example", "0.0.0.0", ""] {
            let (status, answer) =
                ask(stage.admin, operation.method(), &target(operation), &format!("Host: {host}\r\n")).await;
            let (expected, said) = if open { (200, "HTTP/1.1") } else { (421, r#""code":"misdirected""#) };
            assert!(status == expected && answer.contains(said), "{operation:?} as {host}: {answer}");
        }
    }
    let absolute = "http://evil.example/admin/v1/apps";
    assert_eq!(ask(stage.admin, "GET", absolute, "Host: localhost\r\n").await.0, 421);
    for host in ["localhost", "LOCALHOST.:9090", "127.0.0.1", "[::1]:80"] {
        assert_eq!(ask(stage.admin, "GET", "/admin/v1/apps", &format!("Host: {host}\r\n")).await.0, 200, "{host}");
    }
    let (_, subscriptions) = ask(stage.admin, "GET", "/admin/v1/subscriptions", "Host: localhost\r\n").await;
    assert!(subscriptions.contains(r#""subscription":"$client.all""#), "nothing was removed: {subscriptions}");
    stage.stopped().await;
}

#[tokio::test]
async fn with_a_key_any_host_may_be_named_and_configured_hosts_without_one() {
    let stage = Stage::start().await;
    let configure = |change: &dyn Fn(&mut rtm_gateway::config::Admin)| {
        let mut config = rtm_gateway::config::Config::clone(&stage.parts.config.load());
        change(&mut config.admin);
        stage.parts.config.store(std::sync::Arc::new(config));
    };
    configure(&|admin| admin.hosts = vec![rtm_gateway::kernel::names::HostName::parse("admin.corp.example").unwrap()]);
    let as_host = async |host: &str| ask(stage.admin, "GET", "/admin/v1/apps", &format!("Host: {host}\r\n")).await.0;
    assert_eq!((as_host("admin.corp.example:9090").await, as_host("corp.example").await), (200, 421));
    configure(&|admin| admin.api_key_sha256 = Some([7; 32]));
    assert_eq!(as_host("corp.example").await, 401);
    stage.stopped().await;
}

#[tokio::test]
async fn a_probe_asks_after_a_part_or_an_app_and_nothing_that_is_not_there() {
    let stage = Stage::start().await;
    let ready = async |query: &str| {
        let (status, answer) = ask(stage.admin, "GET", &format!("/readyz{query}"), "Host: localhost\r\n").await;
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    };
    for query in ["", "?for=events", "?for=messages&for=callers", "?app=demo-app&for=events", "?probe=kubelet"] {
        let (status, body) = ready(query).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["ready"], &body["degraded"]), (200, &true.into(), &json!([])), "{query}: {body}");
    }
    for (query, refused) in [
        ("?for=", 400),
        ("?for=everything", 400),
        ("?for=Events", 400),
        ("?app=", 400),
        ("?app=a/b", 400),
        ("?app=another", 404),
        ("?app=demo-app&app=another", 404),
    ] {
        let (status, body) = ready(query).await;
        assert!(status == refused && !body.contains("another"), "{query}: {status} {body}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn head_is_get_without_a_body_where_probes_and_tools_ask_and_elsewhere_405() {
    let stage = Stage::start().await;
    let host = "Host: localhost\r\n";
    for (port, target) in [
        (stage.admin, "/healthz"),
        (stage.admin, "/readyz"),
        (stage.admin, "/metrics"),
        (stage.admin, "/openapi.json"),
        (stage.addr, "/openapi.json"),
    ] {
        let (head, get) = (ask(port, "HEAD", target, host).await, ask(port, "GET", target, host).await);
        assert_eq!((head.0, get.0), (200, 200), "{target}");
        let (fields, body) = head.1.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "", "{target}");
        let length =
            |text: &str| text.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::to_owned);
        assert!(length(fields).is_some_and(|length| length != "0"), "{target}: {fields}");
        if target != "/metrics" {
            assert_eq!(length(fields), length(&get.1), "{target}");
        }
    }
    stage.sim.emit_many(APP, Stream::UserEvents, 3);
    let events = format!("/v1/apps/{APP}/events/user_events");
    let key = "Host: x\r\nX-API-Key: all-key\r\n";
    for target in [
        &events,
        "/dev/v2/project/demo-app/rtm/vendor/user_events",
        "/dev/v2/project/demo-app/rtm/message/history/count",
    ] {
        let (status, answer) = ask(stage.addr, "HEAD", target, key).await;
        assert!(status == 405 && answer.contains("allow: GET\r\n"), "{target}: {answer}");
    }
    assert_eq!(ask(stage.admin, "HEAD", "/admin/v1/backup", host).await.0, 405);
    let (_, read) = ask(stage.addr, "GET", &format!("{events}?wait=20s&limit=3"), key).await;
    assert!(read.contains(r#""events":[{"#), "HEAD took nothing: {read}");
    stage.stopped().await;
}

#[tokio::test]
async fn the_quarantine_is_listed_by_pages_given_whole_and_read_again() {
    let stage = Stage::start().await;
    let list = async |query: &str| {
        let (status, answer) =
            ask(stage.admin, "GET", &format!("/admin/v1/quarantine{query}"), "Host: localhost\r\n").await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<Value>(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let garbage = |n: u32| format!(r#"{{"events":[{{"n":{n}}},{{"n":1{n}}},<oops>]}}"#);
    for n in 0..3 {
        for endpoint in [Endpoint::UserEvents, Endpoint::ChannelEvents] {
            stage.sim.on(endpoint, Fault::garbage(&garbage(n)));
        }
    }
    // Six answers in the quarantine.
    found(async || (list("").await["quarantine"].as_array().unwrap().len() >= 6).then_some(())).await;
    let (mut paged, mut query) = (Vec::new(), "?limit=4".to_owned());
    loop {
        let page = list(&query).await;
        paged.extend(page["quarantine"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=4&after={next}");
    }
    assert_eq!(list("").await["quarantine"], Value::from(paged.clone()));
    for (at, answer) in paged.iter().enumerate() {
        let stream = if at < 3 { "user_events" } else { "channel_events" };
        assert_eq!((&answer["app"], &answer["stream"], &answer["delivered"]), (&APP.into(), &stream.into(), &2.into()));
        let item = format!("/admin/v1/quarantine/{APP}/{stream}/{}", answer["id"]);
        let (status, whole) = ask(stage.admin, "GET", &item, "Host: localhost\r\n").await;
        let body = garbage(2 - at as u32 % 3);
        assert!(status == 200 && whole.ends_with(&format!("\r\n\r\n{body}")), "{whole}");
        assert_eq!(answer["bytes"], body.len());
        let post = "Host: localhost\r\nContent-Length: 0\r\n";
        let (status, again) = ask(stage.admin, "POST", &format!("{item}/redeliver"), post).await;
        assert!(status == 200 && again.ends_with(r#"{"delivered":2,"redelivered":0}"#), "{again}");
    }
    for nowhere in
        ["other/user_events/1".to_owned(), format!("{APP}/user_events/99999"), format!("{APP}/user_events/x")]
    {
        let target = format!("/admin/v1/quarantine/{nowhere}");
        assert_eq!(ask(stage.admin, "GET", &target, "Host: localhost\r\n").await.0, 404, "{target}");
    }
    for (wrong, status) in [("?after=1", 400), ("?after=other/user_events/1", 404), ("?limit=0", 400), ("?more=1", 400)]
    {
        let target = format!("/admin/v1/quarantine{wrong}");
        assert_eq!(ask(stage.admin, "GET", &target, "Host: localhost\r\n").await.0, status, "{wrong}");
    }
    stage.stopped().await;
}

/// What Prometheus asks for.
const SCRAPER: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

#[tokio::test]
async fn the_page_of_metrics_is_in_the_classic_form_unless_the_other_is_preferred() {
    let stage = Stage::start().await;
    let classic = "text/plain; version=0.0.4; charset=utf-8";
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let cases = [
        ("", classic),
        ("Accept: */*\r\n", classic),
        ("Accept: text/html\r\n", classic),
        ("Accept: text/plain;version=0.0.4\r\n", classic),
        ("Accept: application/openmetrics-text;q=0.2, text/plain;q=0.5\r\n", classic),
        ("Accept: application/openmetrics-text\r\n", open),
        (&format!("Accept: {SCRAPER}\r\n"), open),
    ];
    for (accept, form) in cases {
        let (status, answer) = ask(stage.admin, "GET", "/metrics", &format!("Host: localhost\r\n{accept}")).await;
        assert_eq!(status, 200, "{answer}");
        let (head, page) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.to_ascii_lowercase().contains(&format!("content-type: {form}")), "{accept}: {head}");
        assert_eq!(page.contains("# EOF"), form == open, "{accept}");
        let requests = if form == open { "rtm_gateway_requests" } else { "rtm_gateway_requests_total" };
        assert!(page.contains(&format!("\n# TYPE {requests} counter\n")), "{accept}: {page}");
        assert!(page.contains("\nprocess_open_fds "), "{page}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn what_is_known_and_few_is_counted_from_the_start() {
    let stage = Stage::start().await;
    let source = r#"app="demo-app",stream="user_events",region="here""#;
    let series = [
        r#"requests_shed_total{reason="streams"} 0"#.to_owned(),
        r#"cache_requests_total{cache="history",outcome="miss"} 0"#.to_owned(),
        r#"proof_ended_total{work="stream",reason="expired"} 0"#.to_owned(),
        r#"connections_evicted_total{who="client"} 0"#.to_owned(),
        r#"history_streams_total{app="demo-app",end="broken"} 0"#.to_owned(),
        r#"history_stream_pages_total{app="demo-app"} 0"#.to_owned(),
        r#"event_streams{app="demo-app",stream="all"} 0"#.to_owned(),
        r#"upstream_retries_total{app="demo-app",reason="lost"} 0"#.to_owned(),
        r#"quota_rejections_total{app="demo-app",bucket="user_events"} 0"#.to_owned(),
        format!("events_quarantined_total{{{source}}} 0"),
        format!("events_overflow_suspected_total{{{source}}} 0"),
        format!("events_possible_loss_total{{{source},reason=\"timeout\"}} 0"),
    ];
    // The operators' port is the first to answer.
    let mut missing = Vec::new();
    let look = async || {
        let (_, page) = ask(stage.admin, "GET", "/metrics", "Host: localhost\r\n").await;
        missing = series.iter().filter(|series| !page.contains(&format!("\nrtm_gateway_{series}\n"))).collect();
        missing.is_empty().then_some(())
    };
    let found = found_within(DEADLINE, look).await;
    assert!(found.is_some(), "{missing:?}");
    stage.stopped().await;
}
