use std::time::SystemTime;

use rcgen::KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};

use super::*;
use crate::kernel::names::BadSpiffeId;
use test_support::certificates::{Authority, Says};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000)
}

fn read(says: &Says) -> Result<PeerCertificate, BadCertificate> {
    PeerCertificate::read(Authority::new("ca").issue(says).chain)
}

#[test]
fn a_workloads_certificate_has_exactly_one_uri_and_a_key_usage() {
    const ID: &str = "spiffe://corp/ns/prod/sa/billing";
    let svid = Says::uri(now(), ID);
    let with = |change: fn(&mut Says)| {
        let mut says = svid.clone();
        change(&mut says);
        read(&says).unwrap().names().map(|names| names.spiffe_id.as_ref().map(ToString::to_string))
    };
    assert_eq!(with(|_| {}), Ok(Some(ID.to_owned())));
    assert_eq!(with(|says| says.dns = vec!["billing.prod.svc"]), Ok(Some(ID.to_owned())));
    assert_eq!(with(|says| says.usages.push(KeyEncipherment)), Ok(Some(ID.to_owned())));
    assert_eq!(with(|says| says.uris.push("https://corp/x")), Err(BadNames::SecondUri));
    assert_eq!(with(|says| says.uris.insert(0, "https://corp/x")), Err(BadNames::SecondUri));
    assert_eq!(with(|says| says.uris.push("spiffe://corp/other")), Err(BadNames::SecondUri));
    assert_eq!(with(|says| says.usages.clear()), Err(BadNames::NoKeyUsage));
    for (uri, why) in [
        ("spiffe://corp", BadSpiffeId::NoPath),
        ("SPIFFE://corp/a", BadSpiffeId::Scheme),
        ("spiffe:corp/a", BadSpiffeId::Scheme),
        ("spiffe://corp/a/../b", BadSpiffeId::Path),
    ] {
        let names = read(&Says::uri(now(), uri)).unwrap();
        assert_eq!(names.names().unwrap_err(), BadNames::SpiffeId(why), "{uri}");
    }
    // Another URI is no claim to be a workload.
    let other = read(&Says { dns: vec!["a.svc"], ..Says::uri(now(), "https://corp/x") }).unwrap();
    assert_eq!(other.names(), Ok(&Names { spiffe_id: None, dns: vec!["a.svc".to_owned()] }));
}

#[test]
fn what_signs_certificates_or_cannot_sign_a_handshake_is_not_for_calling() {
    let with = |usages: &[rcgen::KeyUsagePurpose], authority| {
        let says = Says { usages: usages.to_vec(), authority, ..Says::nothing(now()) };
        read(&says).map(drop)
    };
    assert_eq!(with(&[], false), Ok(()));
    assert_eq!(with(&[DigitalSignature], false), Ok(()));
    assert_eq!(with(&[DigitalSignature], true), Err(BadCertificate::Authority));
    assert_eq!(with(&[DigitalSignature, KeyCertSign], false), Err(BadCertificate::Authority));
    assert_eq!(with(&[DigitalSignature, CrlSign], false), Err(BadCertificate::Authority));
    assert_eq!(with(&[KeyEncipherment], false), Err(BadCertificate::NoSignatures));
    assert_eq!(PeerCertificate::read(Vec::new()).map(drop), Err(BadCertificate::Malformed));
    let garbage = PeerCertificate::read(vec![CertificateDer::from(vec![0x30, 3, 1, 2, 3])]);
    assert_eq!(garbage.map(drop), Err(BadCertificate::Malformed));
}

#[test]
fn dns_names_are_taken_in_lower_case_and_a_wildcard_stays_a_text() {
    let says = Says { dns: vec!["Billing.Prod.SVC", "*.prod.svc", "10.0.0.1"], ..Says::nothing(now()) };
    let certificate = read(&says).unwrap();
    assert_eq!(certificate.names().unwrap().dns, ["billing.prod.svc", "*.prod.svc"]);
    let many = Says { dns: vec!["a.svc"; MAX_NAMES + 1], ..Says::nothing(now()) };
    assert_eq!(read(&many).unwrap().names(), Err(BadNames::TooMany));
}

#[test]
fn a_certificate_is_good_through_the_last_second_it_names() {
    let certificate = read(&Says::nothing(now())).unwrap();
    let end = UnixMillis::from(now() + test_support::certificates::DAY);
    assert!(!certificate.has_expired(UnixMillis(end.0 + 999)));
    assert!(certificate.has_expired(UnixMillis(end.0 + 1000)));
}

#[test]
fn connections_that_show_the_same_share_one_and_what_nobody_shows_any_more_is_let_go() {
    let (authority, shown) = (Authority::new("ca"), CertificateTable::default());
    let says = |serial| Says { serial, ..Says::nothing(now()) };
    let chain = authority.issue(&says(1)).chain;
    let one = shown.one(PeerCertificate::read(chain.clone()).unwrap());
    assert!(Arc::ptr_eq(&one, &shown.one(PeerCertificate::read(chain).unwrap())));
    let other = shown.one(PeerCertificate::read(authority.issue(&says(2)).chain).unwrap());
    assert!(!Arc::ptr_eq(&one, &other));
    for serial in 3..250 {
        drop(shown.one(PeerCertificate::read(authority.issue(&says(serial)).chain).unwrap()));
    }
    assert!(shown.len() <= 64);
    assert!(Arc::ptr_eq(&one, &shown.one(PeerCertificate::read(one.chain().to_vec()).unwrap())));
}
