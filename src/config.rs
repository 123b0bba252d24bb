//! The configuration, checked. Raw TOML comes in by [`load`]; what is in these types has passed every rule.
//!
//! Invariants: a [`Config`] is complete (every default filled in) and consistent (names unique, references resolve);
//! it holds no secret, only where secrets are kept. Durations are positive unless said otherwise.

mod apps;
mod checks;
mod clients;
mod document;
pub(crate) mod documented;
mod draft;
mod entry;
mod events;
pub mod finding;
mod history;
mod jwt;
mod key_path;
pub mod load;
mod pem;
mod quota;
pub mod reference;
mod secrets;
mod sections;
pub mod show;
mod spelling;
mod survey;
mod tls;
mod upstream;
pub(crate) mod values;
mod webhooks;

pub use apps::{App, Credential, Region};
pub use clients::{Allow, Client, ClientMode};
pub use events::Events;
pub use history::History;
pub use jwt::{JwksUrl, Jwt, JwtAlgorithm, JwtKeys};
pub use quota::{Limit, Quota, QuotaRule};
pub use sections::{Admin, Listen, Log, LogFormat, ProxyProtocol, Server, Store, UnixOwner};
pub use tls::{ClientAuth, ServerTls};
pub use upstream::{Breaker, Proxy, ProxyAuthorization, RetryBudget, Upstream};
pub(crate) use webhooks::parse_webhook_url;
pub use webhooks::{Patterns, Retry, Webhook, WebhookFormat, WebhookFrom, WebhookUrl};

/// A whole configuration file, with its defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[server]`: where callers connect.
    pub server: Server,
    /// `[admin]`: health, metrics, admin API.
    pub admin: Admin,
    pub log: Log,
    pub store: Store,
    /// `[upstream]`: how the vendor is reached.
    pub upstream: Upstream,
    /// `[identity.jwt]`: whose tokens are believed.
    pub jwt: Option<Jwt>,
    /// `[[apps]]`, ids unique.
    pub apps: Vec<App>,
    /// `[[clients]]`, names unique.
    pub clients: Vec<Client>,
}
