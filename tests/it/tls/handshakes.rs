//! What is agreed on, and what becomes of those with whom nothing is.

use hyper::Version;
use rustls::{AlertDescription, ProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::stage::{EVENTS, Stage, VERSIONS};
use crate::support::client::{Client, raw};

#[tokio::test]
async fn tls_1_2_and_1_3_carry_http_1_and_2_as_alpn_agrees() {
    let stage = Stage::start("off").await;
    for version in VERSIONS {
        for (offered, agreed, http) in [
            (&["h2", "http/1.1"][..], Some("h2"), Version::HTTP_2),
            (&["http/1.1", "h2"], Some("h2"), Version::HTTP_2),
            (&["http/1.1"], Some("http/1.1"), Version::HTTP_11),
            (&[], None, Version::HTTP_11),
            (&[], None, Version::HTTP_2),
        ] {
            let mut caller = stage.caller(None, version);
            caller.alpn_protocols = offered.iter().map(|p| p.as_bytes().to_vec()).collect();
            let stream = stage.connect(&caller).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), agreed.map(str::as_bytes));
            let client = if http == Version::HTTP_2 {
                Client::http2_over(stream, "gateway").await
            } else {
                Client::http1_over(stream, "gateway").await
            };
            let mut client = client.with("x-api-key", "crm-key");
            for _ in 0..2 {
                let reply = client.get(EVENTS).await.unwrap();
                assert_eq!((reply.status.as_u16(), reply.version), (200, http), "{offered:?}");
            }
        }
        let mut caller = stage.caller(None, version);
        caller.alpn_protocols = vec![b"spdy/3".to_vec()];
        assert_eq!(stage.ask(&caller, None).await, Err(AlertDescription::NoApplicationProtocol));
    }
    assert_eq!(VERSIONS.map(|v| v.version), [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3]);
    stage.stopped().await;
}

#[tokio::test]
async fn what_was_agreed_on_is_what_is_spoken() {
    let stage = Stage::start("off").await;
    for (agreed, said) in
        [("http/1.1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ("h2", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")]
    {
        let mut caller = stage.caller(None, VERSIONS[1]);
        caller.alpn_protocols = vec![agreed.as_bytes().to_vec()];
        let mut stream = stage.connect(&caller).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let _ =
            tokio::time::timeout(crate::support::client::DEADLINE, reading).await.expect("the connection was ended");
        assert!(!String::from_utf8_lossy(&answer).contains("401"), "{agreed}");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so_and_goes_nowhere() {
    let stage = Stage::start("off").await;
    for request in [
        format!("GET {EVENTS} HTTP/1.1\r\nHost: a\r\nX-API-Key: crm-key\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000)),
    ] {
        let answer = String::from_utf8(raw(stage.addr, request.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("this port speaks TLS") && answer.contains("x-rtm-origin: gateway"), "{answer}");
    }
    // What is neither gets an alert at most.
    let answer = raw(stage.addr, b"\x00garbage garbage garbage").await;
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    let counted = |outcome: &str| stage.metric(&format!("rtm_gateway_tls_handshakes_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((counted("plain_text"), counted("full")), (3, 0));
    stage.stopped().await;
}

#[tokio::test]
async fn unix_sockets_and_the_operators_port_stay_as_they_are() {
    let stage = Stage::start("required").await;
    let unix = UnixStream::connect(stage.folder.path().join("gateway.sock")).await.unwrap();
    let mut caller = Client::http1_over(unix, "gateway").await.with("x-api-key", "crm-key");
    assert_eq!(caller.get(EVENTS).await.unwrap().status, 200);
    assert_eq!(Client::http1(stage.admin).await.get("/healthz").await.unwrap().status, 200);
    drop(caller);
    stage.stopped().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_and_gives_its_place_to_whoever_comes() {
    for (times, outcome) in [("header_read_timeout = \"200ms\"", "timed_out"), ("max_connections = 1", "no_place")] {
        let stage = Stage::with("off", times).await;
        let caller = stage.caller(None, VERSIONS[1]);
        // Nothing, and the beginning of a ClientHello.
        for beginning in [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]] {
            let mut mute = TcpStream::connect(stage.addr).await.unwrap();
            mute.write_all(beginning).await.unwrap();
            assert_eq!(stage.ask(&caller, Some("crm-key")).await, Ok(200));
            let mut rest = Vec::new();
            let _ = mute.read_to_end(&mut rest).await;
            assert!(rest.is_empty());
        }
        assert_eq!(stage.metric(&format!("rtm_gateway_tls_handshakes_total{{outcome=\"{outcome}\"}}")), 2);
        stage.stopped().await;
    }
}

#[tokio::test]
async fn handshakes_that_stall_shut_nobody_out_however_many() {
    let stage = Stage::with("off", "max_connections = 8\nheader_read_timeout = \"1h\"").await;
    let caller = stage.caller(None, VERSIONS[1]);
    let mut crowd = Vec::new();
    for n in 0..60 {
        let mut mute = TcpStream::connect(stage.addr).await.unwrap();
        let _ = mute.write_all(if n % 2 == 0 { b"" } else { &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3] }).await;
        crowd.push(mute);
        if n % 10 == 9 {
            assert_eq!(stage.ask(&caller, Some("crm-key")).await, Ok(200));
        }
    }
    drop(crowd);
    stage.stopped().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_handshake() {
    let stage = Stage::with("off", "header_read_timeout = \"1h\"\nshutdown_grace = \"1h\"").await;
    let _mute = TcpStream::connect(stage.addr).await.unwrap();
    let caller = stage.caller(None, VERSIONS[1]);
    // Accepted after the mute one.
    assert_eq!(stage.ask(&caller, Some("crm-key")).await, Ok(200));
    stage.stopped().await;
}
