//! The effective configuration, for people and for the admin API: every default filled in, every secret hidden.
//!
//! Invariant: nothing secret is printed, nor where to find it, nor the hash of a key (a guessed key could be proved by
//! it). What is printed has the shape of the file: with the hidden values filled in again it loads to the same.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::{
    Allow, App, Client, ClientMode, Config, Credential, Jwt, JwtKeys, Listen, LogFormat, Patterns, QuotaRule, Retry,
    Server, ServerTls, Upstream, Webhook, WebhookUrl,
};
use crate::kernel::names::BucketName;

/// What stands in a secret's place.
pub const REDACTED: &str = "\"<redacted>\"";

/// The configuration as TOML, in the order of the documented file.
#[must_use]
pub fn toml(config: &Config) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut page, config);
    page
}

/// The same as JSON.
#[must_use]
pub fn json(config: &Config) -> serde_json::Value {
    // What `toml` writes is TOML: a test holds it to that for every kind of value.
    toml::from_str(&toml(config)).unwrap_or_default()
}

fn write_all(page: &mut String, config: &Config) -> fmt::Result {
    let Config { server, admin, log, store, upstream, jwt, apps, clients } = config;
    write_server(page, server)?;
    writeln!(page, "\n[admin]\nlisten = {}", listen(&admin.listen))?;
    if admin.api_key_sha256.is_some() {
        writeln!(page, "api_key_sha256 = {REDACTED}")?;
    }
    writeln!(page, "hosts = {}", array(admin.hosts.iter().map(quoted)))?;
    let format = match log.format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    writeln!(page, "\n[log]\nlevel = {}\nformat = {}\naccess = {}", quoted(&log.level), quoted(format), log.access)?;
    writeln!(page, "\n[store]\nkind = \"embedded\"\npath = {}", quoted(store.path.display()))?;
    write_upstream(page, upstream)?;
    if let Some(jwt) = jwt {
        write_jwt(page, jwt)?;
    }
    for app in apps {
        write_app(page, app)?;
    }
    for client in clients {
        write_client(page, client)?;
    }
    Ok(())
}

fn write_server(page: &mut String, server: &Server) -> fmt::Result {
    writeln!(page, "[server]")?;
    writeln!(page, "listen = {}", array(server.listen.iter().map(listen)))?;
    writeln!(page, "max_connections = {}", server.max_connections)?;
    writeln!(page, "max_requests = {}", server.max_requests)?;
    writeln!(page, "max_streams = {}", server.max_streams)?;
    writeln!(page, "request_body_limit = {}", size(server.request_body_limit as u64))?;
    writeln!(page, "header_read_timeout = {}", duration(server.header_read_timeout))?;
    writeln!(page, "idle_timeout = {}", duration(server.idle_timeout))?;
    writeln!(page, "write_timeout = {}", duration(server.write_timeout))?;
    writeln!(page, "shutdown_grace = {}", duration(server.shutdown_grace))?;
    writeln!(page, "unix_mode = {}", quoted(format_args!("{:04o}", server.unix_mode)))?;
    let owner = server.unix_owner;
    if owner != super::UnixOwner::default() {
        let number = |id: Option<u32>| id.map_or(String::new(), |id| id.to_string());
        writeln!(page, "unix_owner = {}", quoted(format_args!("{}:{}", number(owner.uid), number(owner.gid))))?;
    }
    if let Some(client) = &server.anonymous_client {
        writeln!(page, "anonymous_client = {}", quoted(client))?;
    }
    writeln!(page, "hosts = {}", array(server.hosts.iter().map(quoted)))?;
    let Some(ServerTls { cert, key: _, client_ca, client_auth, client_crl }) = &server.tls else { return Ok(()) };
    // The private key itself may stand in its path's place, where nobody looked yet.
    writeln!(page, "[server.tls]\ncert = {}\nkey = {REDACTED}", quoted(cert.display()))?;
    if let Some(file) = client_ca {
        writeln!(page, "client_ca = {}", quoted(file.display()))?;
    }
    writeln!(page, "client_auth = {}", quoted(client_auth.as_str()))?;
    if !client_crl.is_empty() {
        writeln!(page, "client_crl = {}", array(client_crl.iter().map(|file| quoted(file.display()))))?;
    }
    Ok(())
}

fn write_upstream(page: &mut String, upstream: &Upstream) -> fmt::Result {
    writeln!(page, "\n[upstream]\nvendor = {}", quoted(upstream.vendor.as_str()))?;
    writeln!(page, "connect_timeout = {}", duration(upstream.connect_timeout))?;
    if let Some(first) = upstream.first_byte_timeout {
        writeln!(page, "first_byte_timeout = {}", duration(first))?;
    }
    writeln!(page, "idle_timeout = {}", duration(upstream.idle_timeout))?;
    writeln!(page, "request_timeout = {}", duration(upstream.request_timeout))?;
    writeln!(page, "max_retry_after = {}", duration(upstream.max_retry_after))?;
    if let Some(file) = &upstream.ca_file {
        writeln!(page, "ca_file = {}", quoted(file.display()))?;
    }
    if let Some(proxy) = &upstream.proxy {
        let url = proxy.url.to_string();
        writeln!(page, "proxy = {}", quoted(url.trim_end_matches('/')))?;
        if let Some(authorization) = &proxy.authorization {
            writeln!(page, "proxy_user = {}\nproxy_password = {REDACTED}", quoted(&authorization.user))?;
        }
        writeln!(page, "no_proxy = {}", array(proxy.no_proxy.iter().map(quoted)))?;
    }
    let (retry, breaker) = (upstream.retry_budget, upstream.breaker);
    writeln!(page, "[upstream.retry]\npercent = {}\nmin_per_second = {}", retry.percent, retry.min_per_second)?;
    writeln!(page, "[upstream.breaker]\nfailures = {}\nopen_for = {}", breaker.failures, duration(breaker.open_for))
}

fn write_jwt(page: &mut String, jwt: &Jwt) -> fmt::Result {
    writeln!(page, "\n[identity.jwt]\nissuer = {}", quoted(&jwt.issuer))?;
    writeln!(page, "audience = {}", one_or_more(jwt.audience.iter().map(quoted)))?;
    match &jwt.keys {
        JwtKeys::File(file) => writeln!(page, "jwks_file = {}", quoted(file.display()))?,
        JwtKeys::Url(from) => {
            writeln!(page, "jwks_url = {}", quoted(from.url.with_path()))?;
            if let Some(file) = &from.ca_file {
                writeln!(page, "jwks_ca_file = {}", quoted(file.display()))?;
            }
            if from.token_file.is_some() {
                writeln!(page, "jwks_token_file = {REDACTED}")?;
            }
            writeln!(page, "jwks_refresh = {}", duration(from.refresh))?;
            writeln!(page, "jwks_allow_private_targets = {}", from.allow_private_targets)?;
        }
    }
    writeln!(page, "algorithms = {}", array(jwt.algorithms.iter().map(|algorithm| quoted(algorithm.as_str()))))?;
    writeln!(page, "leeway = {}", duration(jwt.leeway))
}

fn write_app(page: &mut String, app: &App) -> fmt::Result {
    let App { id, regions, credential, quota, events, history, webhooks } = app;
    let regions = regions.iter().map(|region| {
        let base_url = region.base_url.to_string();
        format!("{{ name = {}, base_url = {} }}", quoted(&region.name), quoted(base_url.trim_end_matches('/')))
    });
    writeln!(page, "\n[[apps]]\nid = {}\nregions = {}", quoted(id), array(regions))?;
    writeln!(page, "[apps.credential]")?;
    match credential {
        Credential::Basic { .. } => {
            writeln!(page, "kind = \"basic\"\napi_key = {REDACTED}\napi_secret = {REDACTED}")?;
        }
        Credential::Token { uid, .. } => {
            writeln!(page, "kind = \"token\"\napp_certificate = {REDACTED}\nuid = {}", quoted(uid))?;
        }
    }
    writeln!(page, "[apps.quota]")?;
    for bucket in BucketName::ALL {
        match quota.rule(bucket) {
            QuotaRule::Own(limit) => {
                let per = duration(limit.per);
                writeln!(page, "{bucket} = {{ requests = {}, per = {per} }}", limit.requests)?;
            }
            QuotaRule::Share(other) => writeln!(page, "{bucket} = {{ share = {} }}", quoted(other))?,
        }
    }
    writeln!(page, "[apps.events]\nstreams = {}", array(events.streams.iter().map(quoted)))?;
    writeln!(page, "poll_interval = {}", duration(events.poll_interval))?;
    writeln!(page, "poll_interval_idle = {}", duration(events.poll_interval_idle))?;
    writeln!(page, "retention = {}", duration(events.retention))?;
    writeln!(page, "retention_bytes = {}", size(events.retention_bytes))?;
    writeln!(page, "max_read_bytes = {}", size(events.max_read_bytes))?;
    writeln!(page, "dedup_window = {}", duration(events.dedup_window))?;
    writeln!(page, "subscription_ttl = {}", duration(events.subscription_ttl))?;
    writeln!(page, "max_subscriptions_per_client = {}", events.max_subscriptions_per_client)?;
    writeln!(page, "order_window = {}", duration(events.order_window))?;
    writeln!(page, "[apps.history]\ndeadline = {}", duration(history.deadline))?;
    writeln!(page, "handle_ttl = {}\nmax_limit = {}", duration(history.handle_ttl), history.max_limit)?;
    writeln!(page, "keep_going = {}", duration(history.keep_going))?;
    webhooks.iter().try_for_each(|webhook| write_webhook(page, webhook))
}

fn write_webhook(page: &mut String, webhook: &Webhook) -> fmt::Result {
    let url = match &webhook.url {
        WebhookUrl::Written(url) => quoted(url),
        WebhookUrl::Kept(_) => REDACTED.to_owned(),
    };
    writeln!(page, "[[apps.webhooks]]\nname = {}\nurl = {url}", quoted(&webhook.name))?;
    writeln!(page, "streams = {}", array(webhook.streams.iter().map(quoted)))?;
    let Patterns { kinds, user_ids, group_ids } = &webhook.filter;
    let named = [("type", kinds), ("user_id", user_ids), ("group_id", group_ids)];
    let named = named.iter().filter(|(_, patterns)| !patterns.is_empty());
    let named = named.map(|(key, patterns)| format!("{key} = {}", array(patterns.iter().map(quoted))));
    writeln!(page, "filter = {{ {} }}", named.collect::<Vec<_>>().join(", "))?;
    writeln!(page, "secrets = {}", array(webhook.secrets.iter().map(|_| REDACTED.to_owned())))?;
    writeln!(page, "format = {}", quoted(webhook.format.as_str()))?;
    writeln!(page, "max_in_flight = {}\ntimeout = {}", webhook.max_in_flight, duration(webhook.timeout))?;
    let Retry { initial, max } = webhook.retry;
    writeln!(page, "max_attempts = {}", webhook.max_attempts)?;
    writeln!(page, "retry = {{ initial = {}, max = {} }}", duration(initial), duration(max))?;
    writeln!(page, "from = {}", quoted(webhook.from.as_str()))?;
    if let Some(file) = &webhook.ca_file {
        writeln!(page, "ca_file = {}", quoted(file.display()))?;
    }
    writeln!(page, "allow_private_targets = {}", webhook.allow_private_targets)
}

fn write_client(page: &mut String, client: &Client) -> fmt::Result {
    writeln!(page, "\n[[clients]]\nname = {}", quoted(&client.name))?;
    let keys = client.api_key_sha256.iter().map(|_| REDACTED.to_owned());
    let ways = [
        ("api_key_sha256", one_or_more(keys)),
        ("spiffe_id", one_or_more(client.spiffe_id.iter().map(quoted))),
        ("dns_san", one_or_more(client.dns_san.iter().map(quoted))),
        ("jwt_subject", one_or_more(client.jwt_subject.iter().map(quoted))),
        ("unix_uid", one_or_more(client.unix_uid.iter().map(u32::to_string))),
    ];
    for (key, shown) in ways.iter().filter(|(_, shown)| shown != "[]") {
        writeln!(page, "{key} = {shown}")?;
    }
    if let Some(most) = client.max_concurrent {
        writeln!(page, "max_concurrent = {most}")?;
    }
    if let Some(most) = client.requests_per_second {
        writeln!(page, "requests_per_second = {most}")?;
    }
    if client.mode != ClientMode::Enforce {
        writeln!(page, "mode = {}", quoted(client.mode.as_str()))?;
    }
    writeln!(page, "weight = {}\nallow = {}", client.weight, array(client.allow.iter().map(allow)))
}

fn allow(entry: &Allow) -> String {
    let app = entry.app.as_ref().map_or("*", |app| app.as_str());
    let actions = array(entry.actions.iter().map(|action| quoted(action.as_str())));
    let users = entry.users.as_ref().map_or(String::new(), |users| {
        format!(", users = {}", array(users.iter().map(|pattern| quoted(pattern.as_str()))))
    });
    format!("{{ app = {}, actions = {actions}{users} }}", quoted(app))
}

fn listen(listen: &Listen) -> String {
    quoted(listen)
}

/// In the largest unit that says it exactly: a sum of many parts is longer than what is read.
fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let exact = units.iter().find(|(_, size)| nanos > 0 && nanos.is_multiple_of(*size));
    exact.map_or_else(|| quoted("0s"), |(unit, size)| quoted(format_args!("{}{unit}", nanos / size)))
}

/// In the largest unit that says it exactly.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let exact = units.iter().find(|(_, bits)| bytes.trailing_zeros() >= *bits && bytes > 0);
    exact.map_or_else(
        || quoted(format_args!("{bytes}B")),
        |(unit, bits)| quoted(format_args!("{}{unit}", bytes >> bits)),
    )
}

/// A TOML text, escaped as need be.
fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn array(entries: impl Iterator<Item = String>) -> String {
    format!("[{}]", entries.collect::<Vec<_>>().join(", "))
}

/// A single value by itself, as most people write it.
fn one_or_more(entries: impl Iterator<Item = String>) -> String {
    let mut entries: Vec<String> = entries.collect();
    match (entries.len(), entries.pop()) {
        (1, Some(only)) => only,
        (_, last) => array(entries.into_iter().chain(last)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
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
hosts = ["Gateway.corp.example.", "[fd00::2]"]
max_requests = 8
max_streams = 9
write_timeout = "3s"
unix_mode = "0600"
unix_owner = ":7"
[admin]
listen = "0.0.0.0:9091"
api_key_sha256 = "{a}"
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
        let config = from_text(&everything(path, signing), Path::new("x")).unwrap().config;
        let shown = toml(&config);
        assert!(!shown.contains("whsec") && !shown.contains(signing), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains(path) && !shown.contains("aaaa"), "{shown}");
        assert_eq!(shown.matches(REDACTED).count(), 8);
        assert!(!shown.contains("hook?a=b") && !shown.contains("x=y"), "{shown}");
        let shown = shown.replace("8000/<redacted>", "8000/hook?a=b").replace("keys?<redacted>", "keys?x=y");
        let mut again = shown.replacen(&format!("sha256 = {REDACTED}"), &format!("sha256 = \"{}\"", "a".repeat(64)), 1);
        again = again.replacen(&format!("sha256 = {REDACTED}"), &format!("sha256 = \"{}\"", "b".repeat(64)), 1);
        again = again.replace(&format!("secrets = [{REDACTED}]"), &format!("secrets = [{{ file = \"{signing}\" }}]"));
        again = again.replace(&format!("token_file = {REDACTED}"), &format!("token_file = {path:?}"));
        again = again.replace(REDACTED, &format!("{{ file = \"{path}\" }}"));
        assert_eq!(from_text(&again, Path::new("x")).unwrap().config, config);
    }

    #[test]
    fn where_the_private_key_is_kept_is_not_shown_nor_a_key_in_its_paths_place() {
        let mut config = Config::default();
        config.server.tls = Some(ServerTls {
            cert: "/run/tls.crt".into(),
            key: "/run/hunter2.key".into(),
            client_ca: None,
            client_auth: ClientAuth::Off,
            client_crl: Vec::new(),
        });
        let shown = toml(&config);
        assert!(shown.contains(&format!("cert = \"/run/tls.crt\"\nkey = {REDACTED}\n")), "{shown}");
        assert!(!json(&config).to_string().contains("hunter2"));
    }

    #[test]
    fn the_longest_durations_are_shown_as_they_can_be_read() {
        for (text, shown) in [("184461615s 1000ms", "184461616s"), ("3649d 23h 59m 59s 1ns", "315359999000000001ns")] {
            let with =
                |text: &str| from_text(&format!("[server]\nshutdown_grace = \"{text}\""), Path::new("x")).unwrap();
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
}
