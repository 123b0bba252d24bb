//! Behind a balancer that says whose connection it carries (the PROXY protocol), over plain TCP. Over TLS: `tls::balancer`.

use rtm_gateway::app::reload::Reloader;
use rtm_gateway::kernel::names::Stream;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::stage::{APP, DEADLINE, RTM, Stage, exchange, request};
use crate::support::client::Client;
use crate::support::log_lines::LogLines;
use crate::support::waiting::found;

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\r\n";

/// The same in the binary form, of `[2001:db8::7]:49152`, with something behind it that is passed over.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28".to_vec();
    header.extend(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07");
    header.extend([0; 15]);
    header.extend([1, 0xc0, 0, 1, 0xbb]);
    header.extend([0xea, 0, 1, 9]);
    header
}

fn events(id: &str) -> String {
    request("GET", &format!("{RTM}/vendor/user_events"), "all", &format!("X-Request-Id: {id}\r\n"), "")
}

/// All that comes until the other end has closed.
async fn until_closed(mut tcp: TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(DEADLINE, tcp.read_to_end(&mut came)).await.expect("it was closed");
    came
}

#[tokio::test]
async fn the_caller_that_a_balancer_announces_is_the_peer_on_http_1_and_on_http_2() {
    let lines = LogLines::of_this_process();
    for (version, header, peer) in [("v1", LINE.to_vec(), "192.0.2.7:49152"), ("v2", binary(), "[2001:db8::7]:49152")] {
        let stage = Stage::with(&format!("proxy_protocol = \"{version}\""), "").await;
        // In the same packet as the request, and byte by byte; then a second request on the same connection.
        let mut tcp = stage.connect().await;
        let id = |n: usize| format!("announced-{version}-{n}");
        let first = [&header[..], events(&id(1)).as_bytes()].concat();
        tcp.write_all(&first).await.unwrap();
        assert_eq!(super::stage::Answer::read(&mut tcp).await.status, 200);
        assert_eq!(exchange(&mut tcp, &events(&id(2))).await.status, 200);
        let mut tcp = stage.connect().await;
        tcp.set_nodelay(true).unwrap();
        for byte in &header {
            tcp.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(exchange(&mut tcp, &events(&id(3))).await.status, 200);

        let mut tcp = stage.connect().await;
        tcp.write_all(&header).await.unwrap();
        let mut client = Client::http2_over(tcp, "gateway").await.with("x-api-key", "all-key");
        let headers = [("x-request-id", &*id(4))];
        let target = format!("{RTM}/vendor/user_events");
        assert_eq!(client.request(hyper::Method::GET, &target, &headers, "").await.unwrap().status, 200);
        for n in 1..=4 {
            assert_eq!(lines.one(&id(n)).await["peer"], peer);
        }
        // A header of HTTP says nothing of who calls.
        let forged = "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n";
        let mut tcp = stage.connect().await;
        tcp.write_all(&header).await.unwrap();
        let text = events(&id(5)).replace("X-API-Key: all-key\r\n", forged);
        assert_eq!(exchange(&mut tcp, &text).await.status, 401);
        assert_eq!(lines.one(&id(5)).await["peer"], peer);
        let view = Client::http1(stage.admin).await.get("/admin/v1/clients").await.unwrap().json();
        let address = peer.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
        assert_eq!(view["unauthenticated"]["last"][0]["address"], address, "{view}");
        stage.stopped().await;
    }
}

#[tokio::test]
async fn a_connection_without_the_configured_header_is_closed_without_a_word_and_told_of_once() {
    let lines = LogLines::of_this_process();
    let stage = Stage::with("proxy_protocol = \"v1\"\nheader_read_timeout = \"200ms\"", "").await;
    let mut from = Vec::new();
    for bytes in [
        events("unannounced").into_bytes(),
        [&binary()[..], events("unannounced").as_bytes()].concat(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0".to_vec(),
        LINE[..20].to_vec(),
        [b"PROXY TCP4 192.0.2.007 198.51.100.1 49152 443\r\n", events("unannounced").as_bytes()].concat(),
        Vec::new(),
    ] {
        let mut tcp = stage.connect().await;
        from.push(tcp.local_addr().unwrap().to_string());
        let _ = tcp.write_all(&bytes).await;
        assert_eq!(until_closed(tcp).await, b"", "{bytes:?}");
    }
    assert_eq!(lines.of("unannounced"), Vec::<Value>::new());
    let metrics = stage.parts.metrics.text();
    for (reason, count) in [("missing", 4), ("malformed", 1), ("timed_out", 2)] {
        let line = format!("rtm_gateway_proxy_protocol_refused_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{metrics}");
    }
    let is_told = |line: &Value| line["level"] == "WARN" && from.iter().any(|peer| line["peer"] == **peer);
    let told = lines.those(is_told);
    assert_eq!((told.len(), &told[0]["peer"]), (1, &from[0].as_str().into()), "{told:?}");
    // Operators and Unix sockets need none.
    assert_eq!(Client::http1(stage.admin).await.get("/healthz").await.unwrap().status, 200);
    let mut unix = UnixStream::connect(stage.socket_path()).await.unwrap();
    assert_eq!(exchange(&mut unix, &events("unix-peer")).await.status, 200);
    let peer = lines.one("unix-peer").await["peer"].as_str().unwrap().to_owned();
    assert!(peer.starts_with("unix:uid="), "{peer}");
    stage.stopped().await;
}

#[tokio::test]
async fn what_announces_nobody_is_the_balancer_s_own() {
    let lines = LogLines::of_this_process();
    for (version, header) in [("v1", &b"PROXY UNKNOWN what ever\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")] {
        let stage = Stage::with(&format!("proxy_protocol = \"{version}\""), "").await;
        let mut tcp = stage.connect().await;
        let own = tcp.local_addr().unwrap().to_string();
        tcp.write_all(header).await.unwrap();
        let id = format!("nobody-{version}");
        assert_eq!(exchange(&mut tcp, &events(&id)).await.status, 200);
        assert_eq!(lines.one(&id).await["peer"], own);
        stage.stopped().await;
    }
}

#[tokio::test]
async fn a_reload_leaves_the_port_as_it_was_bound() {
    let stage = Stage::with("proxy_protocol = \"v1\"", "").await;
    let text = std::fs::read_to_string(stage.config_file()).unwrap();
    stage.write("gateway.toml", text.replace("proxy_protocol = \"v1\"", "anonymous_client = \"all\""));
    Reloader::new(stage.config_file(), stage.parts.clone(), None).reload().await;
    let state = stage.parts.reload.load_full();
    assert_eq!((state.applied, &*state.needs_restart), (1, &["server.proxy_protocol"][..]), "{state:?}");
    // The port still takes strangers from elsewhere: nobody is let in for nothing.
    let text = events("x").replace("X-API-Key: all-key\r\n", "").replace("Host: gateway", "Host: localhost");
    assert_eq!(until_closed_after(&stage, text.as_bytes()).await, b"");
    let mut tcp = stage.connect().await;
    tcp.write_all(LINE).await.unwrap();
    assert_eq!(exchange(&mut tcp, &text).await.status, 401);
    stage.sim.emit_many(APP, Stream::UserEvents, 1);
    let mut tcp = stage.connect().await;
    tcp.write_all(LINE).await.unwrap();
    found(async || (exchange(&mut tcp, &events("x")).await.text().contains("\"events\":[{")).then_some(())).await;
    stage.stopped().await;
}

async fn until_closed_after(stage: &Stage, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = stage.connect().await;
    let _ = tcp.write_all(bytes).await;
    until_closed(tcp).await
}
