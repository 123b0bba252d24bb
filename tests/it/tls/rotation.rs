//! Certificates, authorities and revocation lists that change while connections live.

use std::time::Duration;

use rustls::AlertDescription::{CertificateRevoked, UnknownCA};
use rustls::HandshakeKind;

use super::stage::{BILLING, CRM, EVENTS, Stage, VERSIONS};
use crate::support::client::Client;
use test_support::certificates::{Authority, DAY, Says};

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_the_old_ones_go_on() {
    let stage = Stage::start("off").await;
    let caller = stage.caller(None, VERSIONS[1]);
    let shown = async || {
        let stream = stage.connect(&caller).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown().await;
    let mut idle = stage.http1(&caller).await.with("x-api-key", "crm-key");
    assert_eq!(idle.get(EVENTS).await.unwrap().status, 200);
    let mut http2 = Client::http2_over(stage.connect(&caller).await.unwrap(), "gateway").await;
    http2 = http2.with("x-api-key", "billing-key");
    let waits = format!("{EVENTS}?wait=15s");
    let running = async {
        let reply = http2.get(&waits).await.unwrap();
        assert!(reply.text().contains("late"), "{}", reply.text());
    };
    let rotating = async {
        let made = stage.servers.issue(&Says::dns(stage.now(), "127.0.0.1"));
        // The certificate of another key: refused, also while the key is still to come.
        stage.write("server.pem", made.pem());
        let state = stage.reload().await;
        assert_eq!((state.applied, state.refused), (0, 1));
        assert!(state.last_refusal.as_ref().unwrap()[0].contains("server.tls"), "{state:?}");
        assert_eq!(shown().await, first);
        stage.write("server.key", made.key_pem());
        let state = stage.reload().await;
        assert_eq!((state.applied, state.last_refusal.clone()), (1, None));
        assert_eq!(shown().await, made.chain[0]);
        stage.sim.emit_user_event("demo-app", "Login", "late");
    };
    tokio::join!(running, rotating);
    assert_eq!(idle.get(EVENTS).await.unwrap().status, 200);
    drop((idle, http2));
    stage.stopped().await;
}

#[tokio::test]
async fn a_revoked_client_is_one_no_more_on_the_connection_it_has_nor_on_a_new_one() {
    for version in VERSIONS {
        let stage = Stage::start("optional").await;
        let now = stage.now();
        let billing = stage.caller(Some(&stage.billing()), version);
        let crm = stage.caller(Some(&stage.callers.issue(&Says { serial: 8, ..Says::dns(now, CRM) })), version);
        let mut revoked = stage.http1(&billing).await.with("x-api-key", "billing-key");
        let mut other = stage.http1(&crm).await;
        let mut by_key = stage.http1(&stage.caller(None, version)).await.with("x-api-key", "crm-key");
        for caller in [&mut revoked, &mut other, &mut by_key] {
            assert_eq!(caller.get(EVENTS).await.unwrap().status, 200);
        }
        stage.write("crl.pem", stage.callers.revokes(&[7], now + DAY));
        assert_eq!(stage.reload().await.applied, 1);
        let reply = revoked.get(EVENTS).await.unwrap();
        assert_eq!(reply.status, 401, "not forgiven by its key");
        assert_eq!(reply.header("connection"), Some("close"));
        revoked.ended().await;
        assert_eq!(stage.ask(&billing, Some("billing-key")).await, Err(CertificateRevoked));
        for caller in [&mut other, &mut by_key] {
            assert_eq!(caller.get(EVENTS).await.unwrap().status, 200, "on the same connection");
        }
        // A list that cannot be used leaves the one in force.
        stage.write("crl.pem", "garbage");
        assert_eq!(stage.reload().await.refused, 1);
        assert_eq!(stage.ask(&billing, None).await, Err(CertificateRevoked));
        drop((other, by_key));
        stage.stopped().await;
    }
}

#[tokio::test]
async fn a_session_is_resumed_until_the_authority_changes_and_not_past_it() {
    for version in VERSIONS {
        let stage = Stage::start("required").await;
        // Holds the sessions of all its connections.
        let caller = stage.caller(Some(&stage.billing()), version);
        let resumes = async || {
            let stream = stage.connect(&caller).await.unwrap();
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            let mut client = Client::http1_over(stream, "gateway").await;
            assert_eq!(client.get(EVENTS).await.unwrap().status, 200);
            resumed
        };
        assert!(!resumes().await);
        assert!(resumes().await);
        // A reload that changes nothing of TLS leaves sessions alone.
        assert_eq!(stage.reload().await.applied, 1);
        assert!(resumes().await);
        assert_eq!(stage.metric("rtm_gateway_tls_handshakes_total{outcome=\"resumed\"}"), 2);

        let others = Authority::new("others");
        stage.write("ca.pem", others.pem());
        stage.write("crl.pem", others.revokes(&[], stage.now() + DAY));
        assert_eq!(stage.reload().await.applied, 2);
        assert_eq!(stage.ask(&caller, None).await, Err(UnknownCA));
        stage.stopped().await;
    }
}

#[tokio::test]
async fn a_certificate_that_expires_ends_its_connection_and_is_not_brought_back_by_a_session() {
    for version in VERSIONS {
        let stage = Stage::with("required", "header_read_timeout = \"9h\"").await;
        let until = stage.now() + Duration::from_secs(60);
        let made = stage.callers.issue(&Says { until, ..Says::uri(stage.now(), BILLING) });
        let caller = stage.caller(Some(&made), version);
        let mut kept = stage.http1(&caller).await;
        let stream = stage.connect(&caller).await.unwrap();
        let mut http2 = Client::http2_over(stream, "gateway").await;
        for client in [&mut kept, &mut http2] {
            assert_eq!(client.get(EVENTS).await.unwrap().status, 200);
        }
        // Less than an idle HTTP/2 connection is kept.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(90)).await;
        tokio::time::resume();
        for client in [&mut kept, &mut http2] {
            assert_eq!(client.get(EVENTS).await.unwrap().status, 401);
            client.ended().await;
        }
        // The handshake of a resumed session does not look at the certificate; the gateway does.
        let stream = stage.connect(&caller).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let mut client = Client::http1_over(stream, "gateway").await;
        assert!(client.get(EVENTS).await.is_err());
        assert_eq!(stage.metric("rtm_gateway_tls_handshakes_total{outcome=\"bad_certificate\"}"), 1);
        stage.stopped().await;
    }
}
