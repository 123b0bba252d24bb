//! The parts of a gateway's configuration that the tests' stages share.

use std::path::Path;

use sha2::{Digest as _, Sha256};

/// A caller whose key is `NAME-key`; `more` are further lines of its stanza.
pub(crate) fn client(name: &str, more: &str) -> String {
    let digest: String = Sha256::digest(format!("{name}-key")).iter().map(|b| format!("{b:02x}")).collect();
    format!("[[clients]]\nname = \"{name}\"\napi_key_sha256 = \"{digest}\"\n{more}\n")
}

/// What an operator's port, a store below `dir` and the app `demo-app` at the vendor of this base URL need; its credential
/// is in the files `key` and `secret` of `dir`. `quota` are further lines of `[apps.quota]`; lines of `[apps.events]` may
/// follow.
pub(crate) fn demo_app(dir: &Path, vendor: &str, quota: &str) -> String {
    let dir = dir.display();
    format!(
        r#"
[admin]
listen = "127.0.0.1:0"
[store]
path = "{dir}/data"
[[apps]]
id = "demo-app"
regions = [{{ name = "here", base_url = "{vendor}" }}]
[apps.credential]
kind = "basic"
api_key = {{ file = "{dir}/key" }}
api_secret = {{ file = "{dir}/secret" }}
[apps.quota]
user_events = {{ requests = 1000, per = "1s" }}
channel_events = {{ requests = 1000, per = "1s" }}
{quota}
[apps.events]
poll_interval = "10ms"
poll_interval_idle = "20ms"
"#
    )
}
