//! The effective configuration, for people and for the admin API: every default filled in, every secret hidden.
//!
//! Invariant: nothing secret is printed, nor where to find it, nor the hash of a key (a guessed key could be proved by
//! it). What is printed has the shape of the file: with the hidden values filled in again it loads to the same.

mod literal;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt::{self, Write};

use self::literal::{array, duration, one_or_more, quoted, size};
use super::{
    Admin, Allow, App, Client, ClientMode, Config, Credential, Jwt, JwtKeys, LogFormat, Patterns, QuotaRule, Retry,
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
    write_admin(page, admin)?;
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
    writeln!(page, "listen = {}", array(server.listen.iter().map(quoted)))?;
    writeln!(page, "max_connections = {}", server.max_connections)?;
    writeln!(page, "max_requests = {}", server.max_requests)?;
    writeln!(page, "max_streams = {}", server.max_streams)?;
    writeln!(page, "request_body_limit = {}", size(server.request_body_limit as u64))?;
    writeln!(page, "proxy_protocol = {}", quoted(server.proxy_protocol.as_str()))?;
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
    write_tls(page, "server.tls", server.tls.as_ref())
}

fn write_admin(page: &mut String, admin: &Admin) -> fmt::Result {
    let Admin { listen, api_key_sha256, read_key_sha256, hosts, tls } = admin;
    writeln!(page, "\n[admin]\nlisten = {}", quoted(listen))?;
    for (key, digest) in [("api_key_sha256", api_key_sha256), ("read_key_sha256", read_key_sha256)] {
        if digest.is_some() {
            writeln!(page, "{key} = {REDACTED}")?;
        }
    }
    writeln!(page, "hosts = {}", array(hosts.iter().map(quoted)))?;
    write_tls(page, "admin.tls", tls.as_ref())
}

fn write_tls(page: &mut String, section: &str, tls: Option<&ServerTls>) -> fmt::Result {
    let Some(ServerTls { cert, key: _, client_ca, client_auth, client_crl }) = tls else { return Ok(()) };
    // The private key itself may stand in its path's place, where nobody looked yet.
    writeln!(page, "[{section}]\ncert = {}\nkey = {REDACTED}", quoted(cert.display()))?;
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
        // `Uri` writes a slash that nobody wrote, as the path.
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
