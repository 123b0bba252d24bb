//! Callers without any proof: no web page may lead a browser to them.

use hyper::{Method, StatusCode};
use rtm_gateway::config::Config;
use rtm_gateway::kernel::names::HostName;
use rtm_gateway::simulator::Endpoint;
use tokio::net::{TcpStream, UnixStream};

use super::stage::{APP, Answer, RTM, Stage};
use crate::support::client::Client;

const EVENTS: &str = "/dev/v2/project/demo-app/rtm/vendor/user_events";

async fn anonymous() -> Stage {
    Stage::with("anonymous_client = \"all\"", "").await
}

async fn ask(stage: &Stage, line: &str, headers: &str) -> Answer {
    stage.raw(format!("{line}\r\n{headers}\r\n")).await
}

#[tokio::test]
async fn a_caller_without_proof_is_answered_only_where_it_names_this_machine() {
    let stage = anonymous().await;
    let port = stage.addr.port();
    stage.sim.emit_many(APP, rtm_gateway::kernel::names::Stream::UserEvents, 3);
    let get = format!("GET {EVENTS} HTTP/1.1");
    for host in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "[::2]:1",
        "",
    ] {
        let answer = ask(&stage, &get, &format!("Host: {host}\r\n")).await;
        assert_eq!((answer.status, answer.code().as_str()), (421, "misdirected"), "{host}");
    }
    // HTTP/1.0 need not name one; a browser does.
    assert_eq!(ask(&stage, &format!("GET {EVENTS} HTTP/1.0"), "").await.status, 421);
    assert_eq!(ask(&stage, &get, "").await.status, 400);
    assert_eq!(ask(&stage, &get, "Host: localhost\r\nHost: evil.example\r\n").await.status, 400);
    let absolute = format!("GET http://localhost:{port}{EVENTS} HTTP/1.1");
    assert_eq!(ask(&stage, &absolute, "Host: evil.example\r\n").await.status, 421, "whichever is believed");
    let absolute = format!("GET http://evil.example:{port}{EVENTS} HTTP/1.1");
    assert_eq!(ask(&stage, &absolute, "Host: localhost\r\n").await.status, 404, "nobody's open proxy");

    let body = r#"{"destination":"bob","payload":"x"}"#;
    let post = format!("POST {RTM}/users/bot-1/peer_messages HTTP/1.1");
    let rest = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let sent = stage.raw(format!("{post}\r\nHost: evil.example:{port}\r\n{rest}\r\n{body}")).await;
    assert_eq!((sent.status, stage.sim.stats().of(Endpoint::PeerMessages).counted), (421, 0));

    for host in
        ["localhost", "LocalHost.:9", "gateway.localhost", "127.0.0.1", "127.8.0.1", "[::1]:80", "[::ffff:127.0.0.1]"]
    {
        assert_eq!(ask(&stage, &get, &format!("Host: {host}\r\n")).await.status, 200, "{host}");
    }
    // As an http_proxy in front of the vendor.
    let vendor = stage.sim.addr();
    let proxied = ask(&stage, &format!("GET http://{vendor}{EVENTS} HTTP/1.1"), &format!("Host: {vendor}\r\n")).await;
    assert_eq!(proxied.status, 200);
    stage.stopped().await;
}

#[tokio::test]
async fn on_http2_the_authority_and_a_host_beside_it_are_held_to_the_same() {
    let stage = anonymous().await;
    let authority = stage.addr.to_string();
    for (named, status) in [
        (authority.as_str(), 200),
        ("LOCALHOST.", 200),
        ("[::1]:1", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8080", 421),
    ] {
        let tcp = TcpStream::connect(stage.addr).await.unwrap();
        let mut http2 = Client::http2_over(tcp, named).await;
        assert_eq!(http2.get(EVENTS).await.unwrap().status, StatusCode::from_u16(status).unwrap(), "{named}");
        let mut keyed = http2.with("x-api-key", "all-key");
        assert_eq!(keyed.get(EVENTS).await.unwrap().status, StatusCode::OK, "a key, as {named}");
    }
    let mut two = Client::http2(stage.addr).await.with("host", "evil.example");
    assert_eq!(two.get(EVENTS).await.unwrap().status, StatusCode::BAD_REQUEST);
    stage.stopped().await;
}

#[tokio::test]
async fn whoever_shows_a_proof_names_any_host_and_so_does_everybody_on_a_unix_socket() {
    let stage = anonymous().await;
    let get = format!("GET {EVENTS} HTTP/1.1");
    let evil = "Host: evil.example\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(ask(&stage, &get, &format!("{evil}X-API-Key: all-key\r\n")).await.status, 200);
    let wrong = ask(&stage, &get, &format!("{evil}X-API-Key: wrong\r\n")).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (401, "unauthenticated"), "nothing is said of hosts");
    let unix = UnixStream::connect(stage.socket_path()).await.unwrap();
    let mut unix = Client::http1_over(unix, "gateway").await;
    assert_eq!(unix.request(Method::GET, EVENTS, &[("sec-fetch-site", "cross-site")], "").await.unwrap().status, 200);
    drop(unix);
    stage.stopped().await;
}

#[tokio::test]
async fn server_hosts_names_further_hosts_from_the_next_reload_on() {
    let stage = anonymous().await;
    let as_host =
        async |host: &str| ask(&stage, &format!("GET {EVENTS} HTTP/1.1"), &format!("Host: {host}\r\n")).await.status;
    assert_eq!((as_host("gateway.corp.example").await, as_host("[fd00::1]").await), (421, 421));
    let mut config = Config::clone(&stage.parts.config.load());
    config.server.hosts = ["gateway.corp.example", "fd00::1"].map(|host| HostName::parse(host).unwrap()).to_vec();
    stage.parts.apply(&config).await.unwrap();
    assert_eq!((as_host("Gateway.Corp.Example.:8080").await, as_host("[FD00:0::1]:1").await), (200, 200));
    assert_eq!((as_host("corp.example").await, as_host("localhost").await), (421, 200));
    stage.stopped().await;
}

#[tokio::test]
async fn another_sites_page_takes_no_events_and_sends_no_messages_blind() {
    let stage = anonymous().await;
    stage.sim.emit_many(APP, rtm_gateway::kernel::names::Stream::UserEvents, 1);
    let get = format!("GET {EVENTS}?wait=10s HTTP/1.1");
    for page in
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://evil.example", "Origin: null"]
    {
        let answer = ask(&stage, &get, &format!("Host: localhost\r\n{page}\r\n")).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "cross_site"), "{page}");
    }
    for own in ["", "Sec-Fetch-Site: none\r\n", "Origin: http://localhost:5173\r\nSec-Fetch-Site: same-origin\r\n"] {
        assert_eq!(
            ask(
                &stage,
                &format!("GET {RTM}/message/history/count?source=a HTTP/1.1"),
                &format!("Host: localhost\r\n{own}")
            )
            .await
            .status,
            400,
            "{own}"
        );
    }
    let read = ask(&stage, &get, "Host: localhost\r\n").await;
    assert!(String::from_utf8_lossy(&read.body).contains(r#""events":[{"#), "nothing was taken: {read:?}");
    stage.stopped().await;
}
