//! The documented file is the default, and loads with every key turned on.

use std::collections::BTreeSet;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{from_text, read, survey};
use crate::config::{Config, Credential, Events, History, Quota, documented};

const SHIPPED: &str = documented::TEXT;

/// The file with every key turned on, and secrets that are there.
fn turned_on(dir: &Path) -> String {
    let path = |name: &str| format!("\"{}\"", dir.join(name).display());
    std::fs::write(dir.join("secret"), "hunter2").unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("ca.pem"), made.cert.pem()).unwrap();
    super::write_key(&dir.join("server.key"), &made.signing_key);
    std::fs::write(dir.join("crl.pem"), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
    std::fs::write(dir.join("signing"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    std::fs::write(dir.join("jwks.json"), "{\"keys\":[]}").unwrap();
    let text = documented::turned_on(false);
    text.replace("{ env = \"RTM_API_KEY\" }", &format!("{{ file = {} }}", path("secret")))
        .replace("{ env = \"RTM_APP_CERTIFICATE\" }", &format!("{{ file = {} }}", path("secret")))
        .replace("\"/run/secrets/rtm-api-secret\"", &path("secret"))
        .replace("\"certs/upstream-ca.pem\"", &path("ca.pem"))
        .replace("\"certs/server.pem\"", &path("ca.pem"))
        .replace("\"certs/server.key\"", &path("server.key"))
        .replace("\"certs/client-ca.pem\"", &path("ca.pem"))
        .replace("\"certs/client-crl.pem\"", &path("crl.pem"))
        .replace("\"certs/jwks.json\"", &path("jwks.json"))
        .replace("\"/run/secrets/proxy-password\"", &path("secret"))
        .replace("\"/run/secrets/crm-webhook\"", &path("signing"))
        .replace("\"certs/crm-ca.pem\"", &path("ca.pem"))
        .replace("listen = [\"127.0.0.1:8080\"]", "listen = [\"127.0.0.1:8080\", \"unix:/tmp/gateway.sock\"]")
}

#[test]
fn its_active_keys_are_the_defaults_and_it_loads_as_it_is() {
    let root = DeTable::parse(SHIPPED).unwrap();
    let (config, found) = read(SHIPPED, root.get_ref());
    assert_eq!(config, Some(Config::default()));
    assert_eq!(found.faults, []);
    let loaded = from_text(SHIPPED, Path::new("gateway.toml")).unwrap();
    let warned: Vec<&str> = loaded.warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(warned, ["apps", "clients"]);
}

#[test]
fn its_examples_load_once_turned_on_and_show_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = from_text(&turned_on(dir.path()), Path::new("gateway.toml")).unwrap();
    assert_eq!(loaded.warnings, []);
    let of = |name: &str| dir.path().join(name);
    let named = ["ca.pem", "crl.pem", "jwks.json", "secret", "server.key", "signing"].map(of);
    assert_eq!(loaded.files, [&named[..], &["gateway.toml".into()]].concat());
    let app = &loaded.config.apps[0];
    assert_eq!((app.quota, &app.events, &app.history), (Quota::default(), &Events::default(), &History::default()));
    assert!(matches!(loaded.config.apps[1].credential, Credential::Token { .. }));
    assert_eq!(loaded.config.clients[0].weight.get(), 1);
}

/// That each key is in it, and nothing else, `config::reference` holds.
#[test]
fn every_key_with_a_default_is_on_in_it() {
    let asked = survey().paths();
    // Nothing is on in the file but keys; so each key that has a default is written down as on.
    let mut on = BTreeSet::new();
    keys(DeTable::parse(SHIPPED).unwrap().get_ref(), "", &mut on);
    let inside_what_is_off = ["admin.tls.", "apps", "clients.", "identity.", "server.tls.", "upstream.proxy_password."];
    let entries = |key: &str| inside_what_is_off.iter().any(|off| key.starts_with(off));
    let off: Vec<&str> = asked.difference(&on).map(String::as_str).filter(|key| !entries(key)).collect();
    let optional = [
        "admin.api_key_sha256",
        "admin.read_key_sha256",
        "admin.tls",
        "clients",
        "identity",
        "server.anonymous_client",
        "server.tls",
        "server.unix_owner",
        "upstream.ca_file",
        "upstream.first_byte_timeout",
        "upstream.no_proxy",
        "upstream.proxy",
        "upstream.proxy_password",
        "upstream.proxy_user",
    ];
    assert_eq!(off, optional);
}

#[test]
fn a_secret_pasted_in_place_of_any_value_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let text = turned_on(dir.path());
    let lines: Vec<&str> = text.lines().collect();
    let mut tried = 0;
    for (n, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) else { continue };
        for value in
            ["\"s3cr3t/hunter2\"", "[\"s3cr3t/hunter2\"]", "{ env = \"s3cr3t\" }", "{ file = \"s3cr3t/hunter2\" }"]
        {
            let pasted = format!("{key} = {value}");
            let mut lines = lines.clone();
            lines[n] = &pasted;
            let told = match from_text(&lines.join("\n"), Path::new("gateway.toml")) {
                Ok(loaded) => format!("{:?}", loaded.warnings),
                Err(faults) => format!("{faults:?}"),
            };
            assert!(!told.contains("s3cr3t"), "{told}");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

fn keys(table: &DeTable<'_>, path: &str, written: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        let tables: Vec<&DeTable<'_>> = match value.get_ref() {
            DeValue::Table(table) => vec![table],
            DeValue::Array(entries) => entries.iter().filter_map(|entry| entry.get_ref().as_table()).collect(),
            _ => Vec::new(),
        };
        for table in tables {
            keys(table, &path, written);
        }
        written.insert(path);
    }
}
