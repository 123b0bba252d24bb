//! The operators' port over TLS: its certificate and its change, certificates of operators, and who is refused.

use rustls::AlertDescription::CertificateRevoked;
use rustls::ClientConfig;

use super::stage::{CRM, Stage, VERSIONS, alert};
use crate::support::client::{Client, raw};
use crate::support::log_lines::LogLines;
use test_support::certificates::{DAY, Made, Says};

const MUTUAL: &str = "client_ca = \"$DIR/ca.pem\"\nclient_auth = \"required\"\nclient_crl = \"$DIR/crl.pem\"";

async fn operator(stage: &Stage, caller: &ClientConfig) -> Client {
    Client::http1_over(Stage::connect_to(stage.admin, caller).await.unwrap(), "localhost").await
}

fn of(stage: &Stage, serial: u8, name: &'static str) -> Made {
    stage.callers.issue(&Says { serial, ..Says::dns(stage.now(), name) })
}

#[tokio::test]
async fn the_operators_port_speaks_tls_and_shows_a_new_certificate_once_its_files_have_changed() {
    let stage = Stage::for_operators("").await;
    let caller = stage.caller(None, VERSIONS[1]);
    let shown = async || {
        let stream = Stage::connect_to(stage.admin, &caller).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown().await;
    assert_eq!(operator(&stage, &caller).await.get("/readyz").await.unwrap().status, 200);
    // The host that is named is looked at as ever: a page's own name leads nowhere.
    let stream = Stage::connect_to(stage.admin, &caller).await.unwrap();
    let mut rebound = Client::http1_over(stream, "evil.example").await;
    assert_eq!(rebound.get("/admin/v1/apps").await.unwrap().status, 421);
    let plain = raw(stage.admin, b"GET /admin/v1/apps HTTP/1.1\r\nHost: localhost\r\nX-API-Key: k\r\n\r\n").await;
    let plain = String::from_utf8(plain).unwrap();
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.contains("this port speaks TLS"), "{plain}");

    let mut idle = operator(&stage, &caller).await;
    assert_eq!(idle.get("/admin/v1/apps").await.unwrap().status, 200);
    let made = stage.servers.issue(&Says::dns(stage.now(), "127.0.0.1"));
    stage.write("admin.pem", made.pem());
    let state = stage.reload().await;
    assert!(state.last_refusal.as_ref().unwrap()[0].contains("admin.tls"), "{state:?}");
    assert_eq!(shown().await, first, "a certificate without its key replaces nothing");
    stage.write("admin.key", made.key_pem());
    let state = stage.reload().await;
    assert_eq!((state.applied, state.needs_restart.as_slice()), (1, &[][..]));
    assert_eq!(shown().await, made.chain[0]);
    assert_eq!(idle.get("/admin/v1/apps").await.unwrap().status, 200, "what is open goes on");
    // Other files take its place as the same ones do; that there is TLS at all waits for a restart.
    let text = std::fs::read_to_string(stage.config_file()).unwrap();
    let dir = stage.folder.path().display();
    let without = format!("[admin.tls]\ncert = \"{dir}/admin.pem\"\nkey = \"{dir}/admin.key\"\n");
    assert!(text.contains(&without), "{text}");
    stage.configure(&text.replace(&without, ""));
    assert_eq!(stage.reload().await.needs_restart, ["admin.tls"]);
    assert_eq!(shown().await, made.chain[0]);
    let made = stage.servers.issue(&Says::dns(stage.now(), "127.0.0.1"));
    stage.write("moved.pem", made.pem());
    stage.write("moved.key", made.key_pem());
    stage.configure(&text.replace("admin.pem", "moved.pem").replace("admin.key", "moved.key"));
    assert_eq!(stage.reload().await.needs_restart, [""; 0]);
    assert_eq!(shown().await, made.chain[0]);
    let gauge = r#"rtm_gateway_certificate_expiry_seconds{role="admin_server"}"#;
    assert!(
        stage.metric(gauge) > 0 && stage.metric(r#"rtm_gateway_operator_tls_handshakes_total{outcome="full"}"#) > 0
    );
    drop((idle, rebound));
    stage.stopped().await;
}

#[tokio::test]
async fn an_operator_without_a_good_certificate_is_not_let_in_and_one_whose_certificate_is_revoked_stays_no_operator() {
    let lines = LogLines::of_this_process();
    for version in VERSIONS {
        let stage = Stage::for_operators(MUTUAL).await;
        let (ann, bob) = (of(&stage, 7, "ann.ops"), of(&stage, 8, CRM));
        let [ann, bob] = [&ann, &bob].map(|made| stage.caller(Some(made), version));
        let nobody = Stage::connect_to(stage.admin, &stage.caller(None, version)).await;
        if let Ok(stream) = nobody {
            // With TLS 1.3 the refusal comes after the caller's own last word.
            let mut client = Client::http1_over(stream, "localhost").await;
            assert!(client.get("/healthz").await.is_err());
        }
        let (mut hers, mut his) = (operator(&stage, &ann).await, operator(&stage, &bob).await);
        let letters = "/admin/v1/apps/demo-app/events/user_events/subscriptions/ann-looked/dead-letters";
        assert_eq!(hers.get(letters).await.unwrap().status, 404);
        assert_eq!(his.get("/admin/v1/apps").await.unwrap().status, 200);
        let told =
            lines.those(|line| line["target"] == "rtm_gateway::operator" && line["subscription"] == "ann-looked");
        assert_eq!(told.last().unwrap()["certificate"], "ann.ops", "{told:?}");
        stage.write("crl.pem", stage.callers.revokes(&[7], stage.now() + DAY));
        assert_eq!(stage.reload().await.applied, 1);
        let refused = hers.get("/admin/v1/apps").await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.header("connection")), (401, Some("close")));
        assert_eq!(his.get("/admin/v1/apps").await.unwrap().status, 200);
        match Stage::connect_to(stage.admin, &ann).await {
            Err(refused) => assert_eq!(alert(&refused), CertificateRevoked),
            Ok(stream) => {
                let mut client = Client::http1_over(stream, "localhost").await;
                assert!(client.get("/healthz").await.is_err());
            }
        }
        assert_eq!(stage.metric(r#"rtm_gateway_operator_requests_refused_total{reason="certificate"}"#), 1);
        drop((hers, his));
        stage.stopped().await;
    }
}
