//! Files that hang, have no end, or are in the middle of being written: they stop nothing, and are not taken for whole.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rtm_gateway::kernel::names::Stream;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use super::gateway::{APP, Gateway, Home, api, client, vendor};
use crate::support::child::BINARY;
use crate::support::waiting::pause;

/// Puts a FIFO that nobody writes to in a file's place.
fn fifo(path: &Path) {
    let beside = path.with_extension("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &beside, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    fs::rename(beside, path).unwrap();
}

/// Puts a file without an end there.
fn endless(path: &Path) {
    let beside = path.with_extension("endless");
    symlink("/dev/zero", &beside).unwrap();
    fs::rename(beside, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_s_file_that_hangs_or_has_no_end_stops_neither_events_nor_reloads_nor_the_end() {
    for spoil in [fifo, endless] {
        let vendor = vendor().await;
        let home = Home::new(&vendor);
        let gateway = Gateway::start(&home);
        let mut caller = gateway.caller("one").await;
        assert_eq!(caller.get(&api("vendor/user_events")).await.unwrap().status, 200);
        spoil(&home.path("secret"));
        gateway.signal(Signal::HUP);
        let config = gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["refused"] != 0).await;
        assert!(config["reload"]["last_refusal"].to_string().contains("it is not a regular file"), "{config}");
        // The last good value serves its grace.
        vendor.emit_many(APP, Stream::UserEvents, 3);
        let reply = caller.get(&api("vendor/user_events?wait=15s")).await.unwrap();
        assert_eq!(reply.json()["events"].as_array().unwrap().len(), 3, "{}", reply.text());
        let mut stranger = gateway.caller("nobody").await;
        assert_eq!(stranger.get(&api("vendor/user_events")).await.unwrap().status, 401);
        assert_eq!(gateway.admin("/healthz").await.0, 200);
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_that_is_named_is_refused_with_a_sentence_when_it_hangs_or_has_no_end() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let base = home.base(&vendor);
    let bad = home.path("bad").display().to_string();
    let tls = |key: &str| {
        format!(
            "{base}\n[server.tls]\ncert = \"certs/server.pem\"\nkey = \"certs/server.key\"\nclient_ca = \"certs/client-ca.pem\"\n{key} = \"{bad}\"\n"
        )
    };
    let without = |text: &str, key: &str| {
        let mut seen = false;
        let keep = |line: &&str| !line.starts_with(&format!("{key} =")) || std::mem::replace(&mut seen, true);
        text.lines().filter(keep).collect::<Vec<_>>().join("\n")
    };
    let jwt = |keys: &str| format!("{base}\n[identity.jwt]\nissuer = \"https://i\"\naudience = \"a\"\n{keys}\n");
    let webhook =
        |rest: &str| format!("{base}\n[[apps.webhooks]]\nname = \"crm\"\nurl = \"https://crm.svc/\"\n{rest}\n");
    let configurations = [
        ("api_key", base.replace(&home.path("key").display().to_string(), &bad)),
        ("upstream.ca_file", format!("{}\n[upstream]\nca_file = \"{bad}\"\n", base)),
        (
            "upstream.proxy_password",
            format!(
                "{base}\n[upstream]\nproxy = \"http://p:1\"\nproxy_user = \"u\"\nproxy_password = {{ file = \"{bad}\" }}\n"
            ),
        ),
        ("server.tls.cert", without(&tls("cert"), "cert")),
        ("server.tls.key", without(&tls("key"), "key")),
        ("server.tls.client_ca", without(&tls("client_ca"), "client_ca")),
        ("server.tls.client_crl", tls("client_crl")),
        ("jwks_file", jwt(&format!("jwks_file = \"{bad}\""))),
        ("jwks_ca_file", jwt(&format!("jwks_url = \"https://i/k\"\njwks_ca_file = \"{bad}\""))),
        ("jwks_token_file", jwt(&format!("jwks_url = \"https://i/k\"\njwks_token_file = \"{bad}\""))),
        ("secrets", webhook(&format!("secrets = [{{ file = \"{bad}\" }}]"))),
        ("webhooks[0].ca_file", webhook(&format!("secrets = []\nca_file = \"{bad}\""))),
    ];
    for spoil in [fifo, endless] {
        spoil(&home.path("bad"));
        for (key, text) in &configurations {
            home.write(text);
            let (status, told) = check(&home.config());
            let line = told.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {told}"));
            assert!(status == 1 && line.contains("it is not a regular file"), "{key}: {told}");
        }
        spoil(&home.config());
        let (status, told) = check(&home.config());
        assert!(status == 1 && told.contains("cannot be read: it is not a regular file. "), "{told}");
        fs::remove_file(home.config()).unwrap();
    }
}

/// Status and stderr.
fn check(config: &Path) -> (i32, String) {
    let mut command = Command::new(BINARY);
    let output = command.args(["check", "--config"]).arg(config).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_was_refused_for_a_file_is_applied_once_that_file_is_put_right() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let keys = home.path("jwks.json");
    let jwt = format!("[identity.jwt]\nissuer = \"https://i\"\naudience = \"a\"\njwks_file = {keys:?}\n");
    // First the configuration, then what it names: a mount that comes a moment later.
    fifo(&keys);
    home.write(&format!("{}{}{}{}{jwt}", home.base(&vendor), client("one"), client("two"), client("three")));
    gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["refused"] == 1).await;
    let mut three = gateway.caller("three").await;
    assert_eq!(three.get(&api("vendor/user_events")).await.unwrap().status, 401);
    fs::remove_file(&keys).unwrap();
    fs::write(&keys, "{\"keys\":[]}").unwrap();
    gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["applied"] == 1).await;
    assert_eq!(three.get(&api("vendor/user_events")).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_written_in_two_halves_is_applied_whole() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let mut two = gateway.caller("two").await;
    let (half, whole) = (
        format!("{}{}", home.base(&vendor), client("one")),
        format!("{}{}{}{}", home.base(&vendor), client("one"), client("two"), client("three")),
    );
    // In place, as an editor or `cp` writes it: cut to nothing, then the first half, which is a good configuration.
    let began = Instant::now();
    home.write(&half);
    while began.elapsed() < Duration::from_millis(1500) {
        let status = two.get(&api("vendor/user_events")).await.unwrap().status;
        // A machine that stood still for long proves nothing.
        assert!(status == 200 || began.elapsed() > Duration::from_secs(3), "half a configuration was applied");
        pause(Duration::from_millis(50)).await;
    }
    home.write(&whole);
    gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["applied"] == 1).await;
    assert_eq!(two.get(&api("vendor/user_events")).await.unwrap().status, 200);
    let mut three = gateway.caller("three").await;
    assert_eq!(three.get(&api("vendor/user_events")).await.unwrap().status, 200);
    // SIGHUP applies what it finds, at once.
    home.write(&half);
    gateway.signal(Signal::HUP);
    gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["applied"] == 2).await;
    assert_eq!(two.get(&api("vendor/user_events")).await.unwrap().status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_after_the_configuration_that_names_it_completes_the_change() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let later = |name: &str| home.base(&vendor).replace("/secret\"", &format!("/{name}\""));
    // A file that is looked at while it is written may be refused once more.
    let refused_since = async |before: u64| {
        let more = |_, body: &Value| body["reload"]["refused"].as_u64().unwrap() > before;
        gateway.admin_says("/admin/v1/config", more).await["reload"]["refused"].as_u64().unwrap()
    };
    let mut refused = 0;
    // As a ConfigMap whose Secret is mounted later; and as one that is written in two halves meanwhile.
    for (applied, (name, half)) in (1..).zip([("other", None), ("another", Some(" half a secret "))]) {
        home.write(&format!("{}{}", later(name), client("three")));
        refused = refused_since(refused).await;
        if let Some(half) = half {
            fs::write(home.path(name), half).unwrap();
            refused = refused_since(refused).await;
        }
        fs::write(home.path(name), "api-secret\n").unwrap();
        gateway.admin_says("/admin/v1/config", |_, body| body["reload"]["applied"] == applied).await;
        let mut three = gateway.caller("three").await;
        assert_eq!(three.get(&api("vendor/user_events")).await.unwrap().status, 200);
    }
}
