//! Who becomes a client by a certificate, and who does not.

use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose::{CodeSigning, ServerAuth};
use rcgen::KeyUsagePurpose::{DigitalSignature, KeyCertSign, KeyEncipherment};
use rustls::AlertDescription::{
    CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown, DecryptError, UnknownCA,
    UnsupportedCertificate,
};

use super::stage::{BILLING, CRM, Stage, VERSIONS};
use test_support::certificates::{Authority, DAY, Says};

#[tokio::test]
async fn a_certificate_that_names_a_client_is_enough() {
    for client_auth in ["optional", "required"] {
        let stage = Stage::start(client_auth).await;
        let now = stage.now();
        for version in VERSIONS {
            for (says, key, expected) in [
                (Says::uri(now, BILLING), None, 200),
                (Says::dns(now, CRM), None, 200),
                (Says { purposes: Vec::new(), usages: Vec::new(), ..Says::dns(now, CRM) }, None, 200),
                (Says::uri(now, "spiffe://corp/ns/prod/sa/nobody"), None, 401),
                (Says::dns(now, "*.prod.svc"), None, 401),
                (Says::nothing(now), None, 401),
                (Says::nothing(now), Some("crm-key"), 200),
                (Says::nothing(now), Some("wrong"), 401),
                (Says::uri(now, BILLING), Some("wrong"), 401),
                (Says { uris: vec![BILLING, "spiffe://corp/x"], ..Says::nothing(now) }, None, 401),
                (Says { usages: Vec::new(), ..Says::uri(now, BILLING) }, None, 401),
            ] {
                let made = stage.callers.issue(&says);
                let answer = stage.ask(&stage.caller(Some(&made), version), key).await;
                assert_eq!(answer, Ok(expected), "{:?} {:?} {key:?}", says.uris, says.dns);
            }
        }
        stage.stopped().await;
    }
}

#[tokio::test]
async fn who_has_no_certificate_may_show_a_key_where_a_certificate_is_optional() {
    for version in VERSIONS {
        let stage = Stage::start("optional").await;
        let caller = stage.caller(None, version);
        assert_eq!(stage.ask(&caller, Some("crm-key")).await, Ok(200));
        assert_eq!(stage.ask(&caller, None).await, Ok(401));
        let stage = Stage::start("required").await;
        let caller = stage.caller(None, version);
        let refused = stage.ask(&caller, Some("crm-key")).await;
        assert_eq!(refused, Err(CertificateRequired));
        assert_eq!(stage.metric("rtm_gateway_tls_handshakes_total{outcome=\"no_certificate\"}"), 1);
        // One that nobody asked for is not looked at.
        let stage = Stage::start("off").await;
        assert_eq!(stage.ask(&stage.caller(Some(&stage.billing()), version), None).await, Ok(401));
    }
}

#[tokio::test]
async fn a_bad_certificate_of_any_kind_is_refused_in_the_handshake_whatever_else_is_shown() {
    let stage = Stage::start("optional").await;
    let now = stage.now();
    stage.write("crl.pem", stage.callers.revokes(&[9], now + DAY));
    assert_eq!(stage.reload().await.refused, 0);
    let good = Says::uri(now, BILLING);
    let issue = |says: Says| stage.callers.issue(&says);
    let second = Duration::from_secs(1);
    let kinds = [
        ("expired", issue(Says { until: now - second, ..good.clone() }), CertificateExpired),
        ("not yet good", issue(Says { from: now + DAY / 2, ..good.clone() }), CertificateExpired),
        ("revoked", issue(Says { serial: 9, ..good.clone() }), CertificateRevoked),
        ("of another authority", Authority::new("others").issue(&good), UnknownCA),
        ("of another authority of the same name", Authority::new("callers").issue(&good), DecryptError),
        ("of an authority without a revocation list", stage.callers.below("between", 3).issue(&good), UnknownCA),
        ("a server's", issue(Says { purposes: vec![ServerAuth], ..good.clone() }), UnsupportedCertificate),
        ("a program's", issue(Says { purposes: vec![CodeSigning], ..good.clone() }), UnsupportedCertificate),
        ("an authority's", issue(Says { authority: true, ..good.clone() }), CertificateUnknown),
        (
            "one that signs certificates",
            issue(Says { usages: vec![DigitalSignature, KeyCertSign], ..good.clone() }),
            UnsupportedCertificate,
        ),
        ("one that cannot sign", issue(Says { usages: vec![KeyEncipherment], ..good.clone() }), UnsupportedCertificate),
    ];
    for version in VERSIONS {
        for (kind, made, alert) in &kinds {
            let refused = stage.ask(&stage.caller(Some(made), version), Some("crm-key")).await;
            assert_eq!(refused, Err(*alert), "{kind}");
        }
        // Somebody else's certificate, without its key.
        let (billing, other) = (stage.billing(), stage.billing());
        let thief = stage.caller_with(billing.chain, &other.key, version);
        assert_eq!(stage.ask(&thief, Some("crm-key")).await, Err(DecryptError));
        assert_eq!(stage.ask(&stage.caller(Some(&issue(good.clone())), version), None).await, Ok(200));
    }
    stage.stopped().await;
}
