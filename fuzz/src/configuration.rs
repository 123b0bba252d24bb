//! Configurations: whatever is written, faults say where and nothing secret, and what loads is shown as it loads.
//!
//! Input: the text. Texts that name files elsewhere than in `fuzz/files` are passed over: loading looks at such files.

use std::path::Path;

use rtm_gateway::config::finding::{Faults, Finding};
use rtm_gateway::config::load::{Loaded, from_text};
use rtm_gateway::config::{Client, Config, Jwt, JwtKeys, Upstream, show};
use rtm_gateway::kernel::secret::{PrivateUrl, SecretSource};
use toml::Value;

/// What stands for a secret that was pasted into a wrong place.
const PASTED: &str = "hunter2";

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value = text.parse::<toml::Table>().ok().map(Value::Table);
    if value.as_ref().is_some_and(names_other_files) {
        return;
    }
    match from_text(text, Path::new("gateway.toml")) {
        Ok(Loaded { config, warnings, files, .. }) => {
            assert!(value.is_some(), "it is no TOML");
            findings_stand_in_the_file(text, &warnings);
            assert!(files.contains(&"gateway.toml".into()) && files.is_sorted());
            what_is_shown_loads_to_the_same(&config);
        }
        Err(faults) => {
            assert!(!faults.faults.is_empty());
            findings_stand_in_the_file(text, &faults.faults);
            findings_stand_in_the_file(text, &faults.warnings);
            no_value_is_repeated(&faults, value.as_ref());
        }
    }
}

fn names_other_files(value: &Value) -> bool {
    match value {
        Value::Table(table) => table.values().any(names_other_files),
        Value::Array(list) => list.iter().any(names_other_files),
        Value::String(text) => {
            // Without a slash it is a name in the working directory, with a scheme a path that is not there.
            let harmless = ["fuzz/files/", "http://", "https://", "unix:", "spiffe://"];
            text.contains('/') && (text.contains("..") || !harmless.iter().any(|start| text.starts_with(start)))
        }
        _ => false,
    }
}

fn findings_stand_in_the_file(text: &str, findings: &[Finding]) {
    for finding in findings {
        assert!(!finding.what.is_empty() && !finding.mend.is_empty());
        // At the end of a text that ends with a line break, there is one line more.
        let lines: Vec<&str> = text.split('\n').collect();
        if let Some(line) = finding.line {
            assert!((1..=lines.len()).contains(&line), "{finding:?}");
            let column = finding.column.expect("a line has a column");
            assert!((1..=lines[line - 1].chars().count() + 1).contains(&column), "{finding:?}");
        }
    }
}

fn no_value_is_repeated(faults: &Faults, value: Option<&Value>) {
    // Keys are repeated: they are what a finding is about.
    if !value.is_some_and(|value| has_key(value, PASTED)) {
        assert!(!faults.to_string().contains(PASTED), "{faults}");
        assert!(!faults.warnings.iter().any(|finding| format!("{finding:?}").contains(PASTED)), "{faults:?}");
    }
}

fn has_key(value: &Value, part: &str) -> bool {
    match value {
        Value::Table(table) => table.iter().any(|(key, value)| key.contains(part) || has_key(value, part)),
        Value::Array(list) => list.iter().any(|value| has_key(value, part)),
        _ => false,
    }
}

fn what_is_shown_loads_to_the_same(config: &Config) {
    let shown = show::toml(config);
    let filled = filled(&shown);
    let again = from_text(&filled, Path::new("gateway.toml")).unwrap_or_else(|why| panic!("{why}\n{filled}")).config;
    assert_eq!(show::toml(&again), shown);
    assert!(show::json(config).is_object(), "{shown}");
    let Config { server, admin, log, store, upstream, jwt, apps, clients } = again;
    assert_eq!((&server, &log, &store), (&config.server, &config.log, &config.store));
    assert_eq!(without_token(jwt), without_token(config.jwt.clone()));
    assert_eq!(admin.listen, config.admin.listen);
    assert_eq!(without_secrets(upstream), without_secrets(config.upstream.clone()));
    for (app, other) in apps.iter().zip(&config.apps) {
        assert_eq!((&app.id, &app.regions, &app.quota), (&other.id, &other.regions, &other.quota));
        assert_eq!((&app.events, &app.history), (&other.events, &other.history));
    }
    for (client, other) in clients.iter().zip(&config.clients) {
        assert_eq!(Client { api_key_sha256: other.api_key_sha256.clone(), ..client.clone() }, *other);
    }
}

fn without_secrets(mut upstream: Upstream) -> Upstream {
    if let Some(basic) = upstream.proxy.as_mut().and_then(|proxy| proxy.authorization.as_mut()) {
        basic.password = SecretSource::Env(String::new());
    }
    upstream
}

fn without_token(mut jwt: Option<Jwt>) -> Option<Jwt> {
    if let Some(JwtKeys::Url(from)) = jwt.as_mut().map(|jwt| &mut jwt.keys) {
        from.token_file = None;
        from.url = PrivateUrl::new("https://issuer/".parse().expect("it is an address"));
    }
    jwt
}

/// The shown configuration with secrets in the places of those that are hidden: a hash of its own for each key.
fn filled(shown: &str) -> String {
    // Of addresses only a part is hidden.
    let shown = shown.replace("/<redacted>\"", "/x\"").replace("?<redacted>\"", "?x\"");
    let mut filled = String::new();
    for (n, part) in shown.split(show::REDACTED).enumerate() {
        if n > 0 {
            let key = filled.rsplit_once('=').map_or("", |(before, _)| before.trim_end());
            filled += &if key.ends_with("sha256") {
                format!("\"{n:064x}\"")
            } else if key.ends_with("jwks_token_file") {
                "\"fuzz/files/secret\"".to_owned()
            } else {
                "{ file = \"fuzz/files/secret\" }".to_owned()
            };
        }
        filled += part;
    }
    filled
}
