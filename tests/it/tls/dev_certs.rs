//! `certs/make-dev-certs` makes what its README says, and curl gets in with it.

use std::process::{Command, Output};

use super::stage::{EVENTS, Stage};

fn make(folder: &std::path::Path, arguments: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/certs/make-dev-certs");
    let output = Command::new(script).args(arguments).env("OUT", folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn curl_gets_in_with_the_certificates_for_development_until_they_are_revoked() {
    let made = tempfile::tempdir().unwrap();
    let path = |name: &str| made.path().join(name);
    make(made.path(), &[]);
    make(made.path(), &["client", "reports", "DNS:reports.prod.svc"]);
    let stage = Stage::start("optional").await;
    let take = async |files: &[(&str, &str)]| {
        for (theirs, ours) in files {
            stage.write(ours, std::fs::read(path(theirs)).unwrap());
        }
        let state = stage.reload().await;
        assert_eq!(state.refused, 0, "{state:?}");
    };
    let server = [("server.pem", "server.pem"), ("server.key", "server.key")];
    take(&[&server[..], &[("client-ca.pem", "ca.pem"), ("client-crl.pem", "crl.pem")]].concat()).await;

    let curl = |client: Option<&str>, more: &[&str]| -> Output {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{http_code} HTTP/%{http_version}"]).arg("--cacert").arg(path("dev-ca.pem"));
        if let Some(client) = client {
            curl.arg("--cert").arg(path(&format!("{client}.pem"))).arg("--key").arg(path(&format!("{client}.key")));
        }
        curl.args(more).arg(format!("https://localhost:{}{EVENTS}", stage.addr.port())).output().unwrap()
    };
    let says = |client, more: &[&str]| String::from_utf8(curl(client, more).stdout).unwrap();
    assert_eq!(says(Some("billing"), &[]), "200 HTTP/2");
    assert_eq!(says(Some("billing"), &["--http1.1", "--tls-max", "1.2"]), "200 HTTP/1.1");
    assert_eq!(says(Some("crm"), &[]), "200 HTTP/2");
    assert_eq!(says(Some("reports"), &[]), "401 HTTP/2");
    assert_eq!(says(None, &[]), "401 HTTP/2");
    assert_eq!(says(None, &["--header", "X-API-Key: crm-key"]), "200 HTTP/2");

    make(made.path(), &["revoke", "billing"]);
    take(&[("client-crl.pem", "crl.pem")]).await;
    let refused = curl(Some("billing"), &[]);
    assert!(!refused.status.success() && refused.stdout.starts_with(b"000"), "{refused:?}");
    assert_eq!(says(Some("crm"), &[]), "200 HTTP/2");
    stage.stopped().await;
}
