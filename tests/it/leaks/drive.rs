//! The drive: one gateway, everything that can be asked of it, and the search of all that came out.

use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use rtm_gateway::kernel::names::Stream;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::commands::{self, wrong_configurations};
use super::plants::Plants;
use super::rig::{BASIC, Gateway, Heap, Home, PATIENCE, TOKEN, Vendors, ask, few_key, files};
use super::search::Search;
use super::vendor::Target;
use crate::support::client;
use crate::support::waiting::{found_within, pause};

/// Codes that no request can bring about here: `internal` is a panic (see `panics.rs`), and the others are said, in words
/// that are always the same, to callers without any proof alone, whom this gateway does not take.
const NOT_OVER_THE_WIRE: [&str; 3] = ["internal", "misdirected", "cross_site"];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out_whatever_is_asked_and_whatever_goes_wrong() {
    let (plants, heap) = (Plants::new(), Heap::default());
    let vendors = Vendors::start(&plants).await;
    let home = Home::new(&plants, &vendors);
    let mut gateway = Gateway::start(&home, &plants);
    // In the store there is something to find.
    let public = "this-is-no-secret-and-must-be-found";
    vendors.basic.emit_user_event(BASIC, "Login", public);

    routes(&heap, &gateway, &plants).await;
    refusals(&heap, &gateway, &plants).await;
    malformed(&heap, &gateway, &plants).await;
    reload(&heap, &gateway, &plants, &home, &vendors).await;
    let basic = Target {
        sim: &vendors.basic,
        app: BASIC,
        http2: false,
        header: format!("Basic {}", STANDARD.encode(format!("{}:{}", plants.api_key, plants.api_secret))),
        plain: format!("{}:{}", plants.api_key, plants.api_secret),
    };
    let token = minted(&vendors, &plants);
    let token = Target { sim: &vendors.token, app: TOKEN, http2: true, header: token.clone(), plain: token };
    tokio::join!(
        basic.drive(&heap, &gateway, &plants),
        token.drive(&heap, &gateway, &plants),
        slow_body(&heap, &gateway, &plants),
        lost_secret(&heap, &gateway, &plants, &home),
        old_cursor(&heap, &gateway, &plants, &vendors),
    );
    after_the_faults(&heap, &gateway, &plants, &vendors).await;
    operators(&heap, &gateway, &plants).await;
    basic.refuse(&heap, &gateway, &plants).await;
    token.refuse(&heap, &gateway, &plants).await;
    rotated(&heap, &gateway, &plants, &home).await;
    operators(&heap, &gateway, &plants).await;
    commands::all(&heap, &plants, &home, &token.header);

    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    heap.add("stdout and stderr", gateway.written());
    let mut stored = Vec::new();
    for file in files(&home.path("data")) {
        stored.extend(fs::read(&file).unwrap());
    }
    assert!(stored.windows(public.len()).any(|w| w == public.as_bytes()), "the store is searched in vain");
    heap.add("the store", stored);
    minted(&vendors, &plants);

    was_driven(&heap, &gateway);
    let search = Search::new(&plants.list());
    // The vendor got what callers must not: the search would see it.
    for seen in [vendors.basic.seen(), vendors.token.seen()] {
        let heads = seen.iter().flat_map(|s| s.headers.values().map(|v| v.to_str().unwrap()));
        let heads = heads.collect::<Vec<_>>().join("\n");
        assert!(!search.find(heads.as_bytes()).is_empty());
        assert!(!heads.contains(&plants.caller_key) && !heads.contains(&plants.cookie), "a caller's secret left");
    }
    let mut leaks = Vec::new();
    for (from, text) in heap.texts() {
        leaks.extend(search.find(&text).into_iter().map(|leak| (from.clone(), leak)));
    }
    let total = leaks.len();
    // One view of each is enough to mend it.
    leaks.dedup_by(|a, b| (&a.0, &a.1.what) == (&b.0, &b.1.what));
    leaks.truncate(20);
    assert!(leaks.is_empty(), "{total} leaks, such as {leaks:#?}");
}

/// The token in use, and all before it.
fn minted(vendors: &Vendors, plants: &Plants) -> String {
    let mut last = None;
    for seen in vendors.token.seen() {
        if let Some(token) = seen.header("x-ar-token") {
            plants.minted(token, TOKEN);
            last = Some(token.to_owned());
        }
    }
    last.expect("the token app was driven")
}

fn rtm(app: &str, rest: &str) -> String {
    format!("/dev/v2/project/{app}/rtm/{rest}")
}

/// Every route of both apps, on both protocols, with the key in each form and other software's secrets beside it.
async fn routes(heap: &Heap, gateway: &Gateway, plants: &Plants) {
    let key = plants.caller_key.as_str();
    let bearer = format!("Bearer {key}");
    let basic = format!("Basic {}", STANDARD.encode(format!("all:{key}")));
    let cookie = format!("session={}", plants.cookie);
    let vendors = format!("Basic {}", STANDARD.encode(format!("{}:{}", plants.unknown_key, plants.wrong_admin_key)));
    let forms = [
        vec![("x-api-key", key), ("authorization", vendors.as_str())],
        vec![("authorization", bearer.as_str())],
        vec![("authorization", basic.as_str()), ("proxy-authorization", vendors.as_str())],
    ];
    let query = r#"{"filter":{"source":"a","start_time":0,"end_time":4102444800}}"#;
    let message = r#"{"destination":"b","channel_name":"b","payload":"hello","enable_historical_messaging":true}"#;
    for (app, http2) in [(BASIC, false), (BASIC, true), (TOKEN, false), (TOKEN, true)] {
        for form in &forms {
            let mut headers = form.clone();
            headers.extend([
                ("cookie", cookie.as_str()),
                ("x-ar-token", &plants.jwt),
                ("content-type", "application/json"),
            ]);
            let get = |rest: &str| (Method::GET, rtm(app, rest), "");
            for (method, target, body) in [
                get("vendor/user_events?limit=5"),
                get("vendor/channel_events"),
                (Method::GET, format!("/v1/apps/{app}/events/user_events?limit=5&subscription=more"), ""),
                (Method::POST, rtm(app, "message/history/query"), query),
                get("message/history/query/no-such-handle"),
                get("message/history/count?source=a&start_time=0&end_time=4102444800"),
                (Method::POST, rtm(app, "users/a/peer_messages"), message),
                (Method::POST, rtm(app, "users/a/channel_messages"), message),
            ] {
                ask(heap, gateway.callers, http2, (method, &target), &headers, body).await;
            }
        }
    }
}

/// What is refused, with secrets in every place where they do not belong.
async fn refusals(heap: &Heap, gateway: &Gateway, plants: &Plants) {
    let (key, unknown) = (plants.caller_key.as_str(), plants.unknown_key.as_str());
    let at = gateway.callers;
    for http2 in [false, true] {
        let get = async |target: &str, headers: &[(&'static str, &str)]| {
            ask(heap, at, http2, (Method::GET, target), headers, "").await.status.as_u16()
        };
        let events = rtm(BASIC, "vendor/user_events");
        let wrong = STANDARD.encode(format!("all:{unknown}"));
        for shown in [
            ("x-api-key", unknown.to_owned()),
            ("authorization", format!("Bearer {unknown}")),
            ("authorization", format!("Basic {wrong}")),
            ("authorization", format!("Basic {unknown}")),
            ("authorization", format!("Bearer {}", plants.jwt)),
            ("authorization", unknown.to_owned()),
            ("authorization", format!("Digest {unknown}")),
        ] {
            assert_eq!(get(&events, &[(shown.0, &shown.1)]).await, 401);
        }
        for misplaced in [key, unknown, &plants.api_secret, &plants.jwt] {
            assert_eq!(get(&events, &[("user-agent", &format!("billing/2 {misplaced} (key={misplaced})"))]).await, 401);
        }
        assert_eq!(get(&format!("{events}?key={unknown}"), &[]).await, 401);
        let known = [("x-api-key", key)];
        assert_eq!(get(&format!("{events}?api_key={unknown}"), &known).await, 400);
        assert_eq!(get(&format!("{events}?{unknown}"), &known).await, 400);
        assert_eq!(get(&format!("{events}?{unknown}=1"), &known).await, 400);
        assert_eq!(get(&format!("{events}?limit={unknown}"), &known).await, 400);
        assert_eq!(get(&format!("{events}?after={unknown}"), &known).await, 400);
        assert_eq!(get(&format!("/{unknown}"), &known).await, 404);
        assert_eq!(get(&format!("/v1/apps/{unknown}/events/user_events"), &known).await, 403);
        assert_eq!(get(&rtm(unknown, "vendor/user_events"), &known).await, 403);
        assert_eq!(get(&rtm(BASIC, &format!("message/history/query/{unknown}")), &known).await, 410);
        assert_eq!(get(&rtm(BASIC, "users/a/peer_messages"), &known).await, 405);
        let history = format!("/v1/apps/{BASIC}/history?source=a&start_time=0&end_time=4102444800");
        assert_eq!(get(&history, &[("x-api-key", key), ("accept", "text/html")]).await, 406);
        assert_eq!(get(&format!("{history}&cursor={unknown}"), &known).await, 400);
        let native = format!("/v1/apps/{BASIC}/events/user_events");
        assert_eq!(get(&format!("{native}?user_id={unknown}&lease={unknown}"), &known).await, 400);
        assert_eq!(get(&rtm(BASIC, "message/history/count?source=a"), &[("x-api-key", &plants.reader_key)]).await, 403);
        let long = format!("{unknown}{}", "x".repeat(70_000));
        if !http2 {
            assert_eq!(get(&events, &[("x-api-key", key), ("x-much", &long)]).await, 431);
        }
        let post = async |rest: &str, kind: &str, body: &str| {
            let headers = [("x-api-key", key), ("content-type", kind), ("prefer", "wait=1")];
            ask(heap, at, http2, (Method::POST, &rtm(BASIC, rest)), &headers, body).await.status.as_u16()
        };
        let json = "application/json";
        assert_eq!(post("message/history/query", "text/plain", unknown).await, 415);
        assert_eq!(post("message/history/query", json, unknown).await, 400);
        assert_eq!(post("message/history/query", json, &format!(r#"{{"filter":{{"{unknown}":1}}}}"#)).await, 400);
        assert_eq!(
            post("message/history/query", json, &format!(r#"{{"filter":{{"source":"a","start_time":"{unknown}"}}}}"#))
                .await,
            400
        );
        assert_eq!(post("users/a/peer_messages", json, &long).await, 413);
        let message = async |app: &str| {
            let headers = [("x-api-key", key), ("content-type", json), ("prefer", "wait=1")];
            let target = rtm(app, "users/a/peer_messages");
            ask(heap, at, http2, (Method::POST, &target), &headers, MESSAGE).await.status.as_u16()
        };
        message("tight-app").await;
        assert_eq!(message("tight-app").await, 429);
        assert_eq!(message("away-app").await, 503);
        // One a second: on a machine however slow, one of many meets the ceiling.
        let few = few_key(plants);
        let mut met = false;
        for _ in 0..50 {
            met |= get(&events, &[("x-api-key", &few)]).await == 429;
        }
        assert!(met, "a ceiling that nobody reaches");
    }
}

/// What is hardly HTTP, with a secret in it.
async fn malformed(heap: &Heap, gateway: &Gateway, plants: &Plants) {
    let (key, unknown) = (&plants.caller_key, &plants.unknown_key);
    for text in [
        format!("{unknown} / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"),
        format!("GET /{unknown} HTTP/9.9\r\n\r\n"),
        format!("{unknown}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {unknown}@a\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"),
        format!("GET http://{unknown}@h/ HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n{unknown} : x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nX-API-Key: {unknown}\r\nConnection: close\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nContent-Length: {unknown}\r\n\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{unknown}{unknown}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\0{unknown}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: \"{unknown}\"\r\nConnection: close\r\n\r\n"),
    ] {
        heap.raw("answer to what is malformed", client::raw(gateway.callers, text.as_bytes()).await);
    }
}

/// A good reload, and every bad one.
async fn reload(heap: &Heap, gateway: &Gateway, plants: &Plants, home: &Home, vendors: &Vendors) {
    let right = home.text(plants, vendors);
    let said = async |what: &str, count: u64| {
        let asking = async {
            loop {
                let reply = gateway.admin(&plants.admin_key, "/admin/v1/config").await;
                if reply.json()["reload"][what].as_u64() >= Some(count) {
                    return reply;
                }
                tokio::task::yield_now().await;
            }
        };
        let reply = tokio::time::timeout(PATIENCE, asking).await.expect("the reload was noticed");
        heap.reply("/admin/v1/config", &reply);
    };
    let mut refused = 0;
    for wrong in wrong_configurations(plants, &right) {
        fs::write(home.config(), wrong).unwrap();
        gateway.signal(Signal::HUP);
        refused += 1;
        said("refused", refused).await;
    }
    fs::write(home.config(), &right).unwrap();
    fs::rename(home.path("lost"), home.path("elsewhere")).unwrap();
    gateway.signal(Signal::HUP);
    said("refused", refused + 1).await;
    fs::rename(home.path("elsewhere"), home.path("lost")).unwrap();
    gateway.signal(Signal::HUP);
    said("applied", 1).await;
}

/// A body that never ends: 408.
async fn slow_body(heap: &Heap, gateway: &Gateway, plants: &Plants) {
    let mut tcp = tokio::net::TcpStream::connect(gateway.callers).await.unwrap();
    let target = rtm(BASIC, "users/a/peer_messages");
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{}",
        plants.caller_key, plants.unknown_key
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("it is given up").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    heap.raw("answer to a slow body", answer);
}

/// One that is whole: what lacks something does not get as far as the credential.
const MESSAGE: &str = r#"{"destination":"b","payload":"hello"}"#;

/// A secret that goes away serves for its grace, and then no more.
async fn lost_secret(heap: &Heap, gateway: &Gateway, plants: &Plants, home: &Home) {
    fs::write(home.path("lost"), "").unwrap();
    let headers = [("x-api-key", plants.caller_key.as_str()), ("content-type", "application/json")];
    let target = rtm("lost-app", "users/a/peer_messages");
    let asking = found_within(PATIENCE, async || {
        ask(heap, gateway.callers, true, (Method::POST, &target), &headers, MESSAGE).await;
        // Each is kept and searched: some, not as many as there can be in half a minute.
        pause(Duration::from_millis(500)).await;
        (heap.said("credential_unavailable") > 0).then_some(())
    });
    asking.await.expect("the grace ends");
}

/// What the faults left behind: events with the credential in them, markers, a cursor that is too old.
async fn after_the_faults(heap: &Heap, gateway: &Gateway, plants: &Plants, vendors: &Vendors) {
    let headers = [("x-api-key", plants.caller_key.as_str())];
    for app in [BASIC, TOKEN] {
        for stream in Stream::ALL {
            let target = format!("/v1/apps/{app}/events/{}?subscription=late", stream.as_str());
            let masked = async {
                loop {
                    let reply = ask(heap, gateway.callers, false, (Method::GET, &target), &headers, "").await;
                    if reply.text().contains("<redacted>") {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, masked).await.expect("the event came, masked");
            let target = rtm(app, &format!("vendor/{}?subscription=vendors", stream.as_str()));
            ask(heap, gateway.callers, true, (Method::GET, &target), &headers, "").await;
        }
    }
    // A history that takes longer than its caller waits.
    vendors.token.world().set_rules(TOKEN, |rules| rules.in_progress = 2);
    let query = r#"{"filter":{"source":"slow","start_time":0,"end_time":4102444800}}"#;
    let headers =
        [("x-api-key", plants.caller_key.as_str()), ("prefer", "wait=1"), ("content-type", "application/json")];
    let target = rtm(TOKEN, "message/history/query");
    ask(heap, gateway.callers, false, (Method::POST, &target), &headers, query).await;
}

/// A cursor whose events retention has removed: 410.
async fn old_cursor(heap: &Heap, gateway: &Gateway, plants: &Plants, vendors: &Vendors) {
    let headers = [("x-api-key", plants.caller_key.as_str())];
    let get = async |query: &str| {
        let target = format!("/v1/apps/tight-app/events/user_events?{query}");
        ask(heap, gateway.callers, false, (Method::GET, &target), &headers, "").await
    };
    vendors.calm.emit_many("tight-app", Stream::UserEvents, 1);
    let cursor = get("wait=20s&limit=1").await.json()["next"].as_str().unwrap().to_owned();
    assert_eq!(get("subscription=one-too-many").await.status, 429);
    let lease = serde_json::json!({ "lease": "A".repeat(22) }).to_string();
    for what in ["ack", "nack", "extend"] {
        let target = format!("/v1/apps/tight-app/events/user_events/{what}");
        let headers = [headers[0], ("content-type", "application/json")];
        ask(heap, gateway.callers, true, (Method::POST, &target), &headers, &lease).await;
        ask(heap, gateway.callers, false, (Method::POST, &target), &headers, &plants.unknown_key).await;
    }
    vendors.calm.emit_many("tight-app", Stream::UserEvents, 1);
    let asking = found_within(PATIENCE, async || {
        get(&format!("after={cursor}")).await;
        pause(Duration::from_millis(500)).await;
        (heap.said("cursor_expired") > 0).then_some(())
    });
    asking.await.expect("retention removes what is old");
}

/// All that operators can ask, with the right key, a wrong one and none.
async fn operators(heap: &Heap, gateway: &Gateway, plants: &Plants) {
    let paths = [
        "apps",
        "regions",
        "identity",
        "backup",
        "quotas",
        "pollers",
        "subscriptions",
        "quarantine",
        "config",
        "nothing",
    ];
    let paths: Vec<_> = paths.iter().map(|path| format!("/admin/v1/{path}")).collect();
    let open = ["/healthz", "/readyz", "/metrics", "/"].map(str::to_owned);
    for path in paths.iter().chain(&open) {
        for key in [&plants.admin_key, &plants.read_key, &plants.wrong_admin_key, &plants.caller_key] {
            let reply = gateway.admin(key, path).await;
            heap.reply(path, &reply);
            if path == "/admin/v1/quarantine" && key == &plants.admin_key {
                let listed: serde_json::Value = serde_json::from_str(reply.text()).unwrap();
                let mut is_masked = false;
                for answer in listed["quarantine"].as_array().unwrap() {
                    let place = ["app", "stream"].map(|member| answer[member].as_str().unwrap()).join("/");
                    let reply = gateway.admin(key, &format!("{path}/{place}/{}", answer["id"])).await;
                    heap.reply(path, &reply);
                    is_masked |= reply.text().contains("<redacted>");
                }
                assert!(is_masked, "the quarantine holds what was repeated, masked");
            }
        }
        let headers = [("x-api-key", plants.wrong_admin_key.as_str())];
        ask(heap, gateway.operators, true, (Method::GET, path), &headers, "").await;
        ask(heap, gateway.operators, false, (Method::POST, path), &headers, &plants.unknown_key).await;
    }
    // Acts, which each leave a line in the log: done, refused to the read-only key, and to nobody.
    let subscription = format!("/admin/v1/apps/{BASIC}/events/user_events/subscriptions/all");
    for key in [&plants.admin_key, &plants.read_key, &plants.wrong_admin_key] {
        let headers = [("x-api-key", key.as_str()), ("content-type", "application/json")];
        for (method, below, body) in [
            (Method::POST, "/seek", r#"{ "to": "latest" }"#.to_owned()),
            (Method::POST, "/seek", format!(r#"{{ "to": "{}" }}"#, plants.unknown_key)),
            (Method::GET, "/dead-letters", String::new()),
            (Method::POST, "/dead-letters/redeliver", r#"{ "all": true }"#.to_owned()),
            (Method::DELETE, "/dead-letters", String::new()),
            (Method::DELETE, "", String::new()),
        ] {
            let target = format!("{subscription}{below}");
            ask(heap, gateway.operators, false, (method, &target), &headers, &body).await;
        }
    }
}

/// A secret is replaced while the gateway runs.
async fn rotated(heap: &Heap, gateway: &Gateway, plants: &Plants, home: &Home) {
    fs::write(home.path("secret"), &plants.second_secret).unwrap();
    gateway.logged("the credential has changed");
    for _ in 0..2 {
        let headers = [("x-api-key", plants.caller_key.as_str()), ("content-type", "application/json")];
        let target = rtm(BASIC, "users/a/peer_messages");
        ask(heap, gateway.callers, false, (Method::POST, &target), &headers, MESSAGE).await;
    }
}

/// The drives happened: each refusal was said, the log is as loud as it gets, what was repeated was masked.
fn was_driven(heap: &Heap, gateway: &Gateway) {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/request/refusal.rs")).unwrap();
    let (_, codes) = source.split_once("fn class(").unwrap();
    let (codes, _) = codes.split_once("\n    }\n").unwrap();
    let codes: Vec<_> = codes.split('"').skip(1).step_by(2).collect();
    assert!(codes.len() >= 18, "{codes:?}");
    let unsaid: Vec<_> = codes.iter().filter(|c| !NOT_OVER_THE_WIRE.contains(c) && heap.said(c) == 0).collect();
    assert!(unsaid.is_empty(), "never answered: {unsaid:?} of {:#?}", heap.answers());

    let written = gateway.written();
    let lines: Vec<Value> = written.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
    let of = |level: &str| lines.iter().filter(|l| l["level"] == level).collect::<Vec<_>>();
    assert!(!of("DEBUG").is_empty() && of("INFO").len() > 500, "{} lines", lines.len());
    for line in of("DEBUG").into_iter().chain(of("TRACE")) {
        assert!(line["target"].as_str().unwrap().starts_with("rtm_gateway"), "a library was heard: {line}");
    }
    let masked = heap.texts().iter().filter(|(_, t)| String::from_utf8_lossy(t).contains("<redacted>")).count();
    assert!(masked > 60, "{masked} texts with something masked");
    println!(
        "{} texts, {} log lines, {masked} with masks; answers: {:?}",
        heap.texts().len(),
        lines.len(),
        heap.answers()
    );
}
