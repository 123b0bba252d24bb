//! Behind a balancer that passes TLS on and says whose connection it carries: the PROXY header comes before the handshake.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::stage::{EVENTS, Stage};
use crate::support::client::{Client, DEADLINE};
use crate::support::log_lines::LogLines;

#[tokio::test]
async fn the_announced_caller_shakes_hands_and_is_the_peer_on_http_1_and_on_http_2() {
    let lines = LogLines::of_this_process();
    let stage = Stage::with("required", "proxy_protocol = \"v1\"").await;
    for (is_http2, id) in [(false, "tls-announced-1"), (true, "tls-announced-2")] {
        let mut caller = stage.caller(Some(&stage.billing()), &TLS13);
        let mut tcp = TcpStream::connect(stage.addr).await.unwrap();
        // Byte by byte: the handshake begins behind the last one.
        tcp.set_nodelay(true).unwrap();
        for byte in b"PROXY TCP6 2001:db8::7 2001:db8::1 49152 443\r\n" {
            tcp.write_all(&[*byte]).await.unwrap();
        }
        if is_http2 {
            caller.alpn_protocols = vec![b"h2".to_vec()];
        }
        let name = ServerName::from(stage.addr.ip());
        let tls = TlsConnector::from(Arc::new(caller)).connect(name, tcp).await.unwrap();
        let mut client =
            if is_http2 { Client::http2_over(tls, "gateway").await } else { Client::http1_over(tls, "gateway").await };
        let reply = client.request(hyper::Method::GET, EVENTS, &[("x-request-id", id)], "").await.unwrap();
        assert_eq!(reply.status, 200);
        let line = lines.one(id).await;
        let said = [&line["peer"], &line["client"], &line["proof"]].map(|text| text.as_str().unwrap());
        assert_eq!(said, ["[2001:db8::7]:49152", "billing", "certificate"], "{line}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn a_handshake_without_the_header_is_not_begun() {
    let stage = Stage::with("off", "proxy_protocol = \"v2\"").await;
    let refused = stage.connect(&stage.caller(None, &TLS13)).await;
    assert!(refused.is_err());
    let mut tcp = TcpStream::connect(stage.addr).await.unwrap();
    tcp.write_all(b"\x16\x03\x01").await.unwrap();
    let mut came = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, tcp.read_to_end(&mut came)).await.expect("it was closed");
    assert_eq!(came, b"", "no alert: nobody spoke TLS");
    assert_eq!(stage.metric(r#"rtm_gateway_proxy_protocol_refused_total{reason="missing"}"#), 2);
    assert_eq!(stage.metric(r#"rtm_gateway_tls_handshakes_total{outcome="gone"}"#), 0);
    stage.stopped().await;
}
