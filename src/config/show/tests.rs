//! What is shown can be read again, and shows no secret.

use std::path::Path;

use super::*;
use crate::config::ClientAuth;
use crate::config::load::from_text;

/// Every kind of value, none at its default.
pub(crate) fn everything(secret: &str, signing: &str) -> String {
    let hash = |digit: &str| digit.repeat(64);
    format!(
        r#"
[server]
listen = ["[::1]:8081", "unix:/tmp/a \"b\".sock"]
max_connections = 7
request_body_limit = "1025B"
header_read_timeout = "1500ms"
idle_timeout = "100s"
anonymous_client = "side.car"
proxy_protocol = "v2"
hosts = ["Gateway.corp.example.", "[fd00::2]"]
max_requests = 8
max_streams = 9
write_timeout = "3s"
unix_mode = "0600"
unix_owner = ":7"
[admin]
listen = "0.0.0.0:9091"
api_key_sha256 = "{a}"
read_key_sha256 = "{c}"
hosts = ["Admin.corp.example", "[fd00::1]"]
[log]
level = "info,rtm_gateway::quota=debug"
format = "text"
access = false
[store]
path = 'C:\data'
[upstream]
vendor = "agora"
connect_timeout = "1m 1s"
first_byte_timeout = "2s"
idle_timeout = "4s"
max_retry_after = "2m"
proxy = "http://proxy.corp:3128"
proxy_user = "u"
proxy_password = {{ file = "{secret}" }}
no_proxy = [".corp", "10.0.0.0/8"]
retry = {{ percent = 0, min_per_second = 1 }}
breaker = {{ failures = 0, open_for = "1s" }}
[identity.jwt]
issuer = "https://issuer"
audience = ["one", "two"]
jwks_url = "https://issuer/keys?x=y"
jwks_token_file = "{secret}"
jwks_refresh = "1m"
jwks_allow_private_targets = true
algorithms = ["EdDSA", "PS512"]
leeway = "0s"
[[apps]]
id = "one"
regions = [{{ name = "cn", base_url = "http://localhost:8000/" }}, {{ name = "eu", base_url = "https://[::1]" }}]
credential = {{ kind = "basic", api_key = {{ file = "{secret}" }}, api_secret = {{ file = "{secret}" }} }}
quota = {{ messages = {{ share = "history_get" }}, user_events = {{ requests = 3, per = "90s" }} }}
events = {{ streams = ["user_events"], retention_bytes = "3MB", max_read_bytes = "5MB", dedup_window = "0s", order_window = "2s", subscription_ttl = "0s", max_subscriptions_per_client = 3 }}
history = {{ deadline = "20s", handle_ttl = "1m", max_limit = 5, keep_going = "0s" }}
[[apps.webhooks]]
name = "crm.eu"
url = "http://localhost:8000/hook?a=b"
streams = ["user_events"]
filter = {{ type = "Log*", user_id = ["a", "\"b"] }}
secrets = [{{ file = "{signing}" }}]
format = "batch"
max_in_flight = 4
timeout = "3s"
max_attempts = 2
retry = {{ initial = "1s", max = "90s" }}
from = "latest"
allow_private_targets = true
[[apps]]
id = "two"
credential = {{ kind = "token", app_certificate = {{ file = "{secret}" }}, uid = "用户" }}
[[clients]]
name = "side.car"
weight = 3
allow = [{{ app = "*", actions = ["count"] }}, {{ app = "two", actions = ["messages"], users = ["bot-*", "\"'"] }}]
[[clients]]
name = "keyed"
api_key_sha256 = "{b}"
spiffe_id = "spiffe://corp/a"
dns_san = ["a.svc", "b.svc"]
jwt_subject = "s"
unix_uid = [0, 1000]
max_concurrent = 5
requests_per_second = 6
mode = "report"
"#,
        a = hash("a"),
        b = hash("b"),
        c = hash("c"),
    )
}

#[test]
fn what_is_shown_loads_to_the_same_once_the_hidden_values_are_filled_in() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "hunter2").unwrap();
    let path = secret.path().to_str().unwrap();
    let signing = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(signing.path(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let signing = signing.path().to_str().unwrap();
    // These two do not go together.
    for line in ["anonymous_client = \"side.car\"\n", "proxy_protocol = \"v2\"\n"] {
        let text = everything(path, signing).replace(line, "");
        let config = from_text(&text, Path::new("x")).unwrap().config;
        shown_loads_to_the_same(&config, path, signing);
    }
}

fn shown_loads_to_the_same(config: &Config, path: &str, signing: &str) {
    let shown = toml(config);
    assert!(!shown.contains("whsec") && !shown.contains(signing), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains(path) && !shown.contains("aaaa"), "{shown}");
    assert_eq!(shown.matches(REDACTED).count(), 9);
    assert!(!shown.contains("hook?a=b") && !shown.contains("x=y"), "{shown}");
    let shown = shown.replace("8000/<redacted>", "8000/hook?a=b").replace("keys?<redacted>", "keys?x=y");
    let mut again = shown;
    for digit in ["a", "c", "b"] {
        again = again.replacen(&format!("sha256 = {REDACTED}"), &format!("sha256 = \"{}\"", digit.repeat(64)), 1);
    }
    again = again.replace(&format!("secrets = [{REDACTED}]"), &format!("secrets = [{{ file = \"{signing}\" }}]"));
    again = again.replace(&format!("token_file = {REDACTED}"), &format!("token_file = {path:?}"));
    again = again.replace(REDACTED, &format!("{{ file = \"{path}\" }}"));
    assert_eq!(&from_text(&again, Path::new("x")).unwrap().config, config);
}

#[test]
fn where_the_private_key_is_kept_is_not_shown_nor_a_key_in_its_paths_place() {
    let mut config = Config::default();
    let tls = ServerTls {
        cert: "/run/tls.crt".into(),
        key: "/run/hunter2.key".into(),
        client_ca: None,
        client_auth: ClientAuth::Off,
        client_crl: Vec::new(),
    };
    (config.server.tls, config.admin.tls) = (Some(tls.clone()), Some(tls));
    let shown = toml(&config);
    for section in ["server", "admin"] {
        let said = format!("[{section}.tls]\ncert = \"/run/tls.crt\"\nkey = {REDACTED}\n");
        assert!(shown.contains(&said), "{shown}");
    }
    assert!(!json(&config).to_string().contains("hunter2"));
}

#[test]
fn the_longest_durations_are_shown_as_they_can_be_read() {
    for (text, shown) in [("184461615s 1000ms", "184461616s"), ("3649d 23h 59m 59s 1ns", "315359999000000001ns")] {
        let with = |text: &str| from_text(&format!("[server]\nshutdown_grace = \"{text}\""), Path::new("x")).unwrap();
        let page = toml(&with(text).config);
        assert!(page.contains(&format!("shutdown_grace = \"{shown}\"")), "{page}");
        assert_eq!(with(shown).config, with(text).config);
    }
}

#[test]
fn the_json_form_says_the_same() {
    let shown = json(&Config::default());
    assert_eq!(shown["server"]["request_body_limit"], "1MiB");
    assert_eq!(shown["upstream"]["request_timeout"], "10s");
    assert_eq!(shown["log"]["access"], true);
}
