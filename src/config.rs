//! The configuration, checked. Raw TOML comes in by [`load`]; what is in these types has passed every rule.
//!
//! Invariants: a [`Config`] is complete (every default filled in) and consistent (names unique, references resolve);
//! it holds no secret, only where secrets are kept. Durations are positive unless said otherwise.

mod apps;
mod checks;
mod clients;
mod document;
pub(crate) mod documented;
pub mod finding;
mod jwt;
pub mod load;
pub mod reference;
mod sections;
pub mod show;
mod survey;
mod tls;
mod upstream;
pub(crate) mod values;
mod webhooks;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use self::document::by_default;
use crate::kernel::names::{Action, AppId, BucketName, ClientName, HostName, Pattern, RegionName, SpiffeId, Stream};
use crate::kernel::secret::SecretSource;
pub use jwt::{JwksUrl, Jwt, JwtAlgorithm, JwtKeys};
pub use tls::{ClientAuth, ServerTls};
pub use upstream::{Breaker, Proxy, ProxyAuthorization, RetryBudget, Upstream};
pub(crate) use webhooks::parse_webhook_url;
pub use webhooks::{Patterns, Retry, Webhook, WebhookFormat, WebhookFrom, WebhookUrl};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[server]`: where callers connect.
    pub server: Server,
    /// `[admin]`: health, metrics, admin API.
    pub admin: Admin,
    /// `[log]`.
    pub log: Log,
    /// `[store]`.
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

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `"127.0.0.1:8080"`.
    Tcp(SocketAddr),
    /// `"unix:/run/rtm-gateway/gateway.sock"`.
    Unix(PathBuf),
}

/// As the configuration writes it.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where to listen; at least one.
    pub listen: Vec<Listen>,
    /// Beyond this, connections without a request in hand are closed for newcomers.
    pub max_connections: usize,
    /// Bytes of a caller's request body.
    pub request_body_limit: usize,
    /// How long a caller may take to send a request's head.
    pub header_read_timeout: Duration,
    /// How long a caller's connection is kept without a request.
    pub idle_timeout: Duration,
    /// How long a stop waits for what runs.
    pub shutdown_grace: Duration,
    /// Callers without credentials become this client. Only on loopback and Unix sockets.
    pub anonymous_client: Option<ClientName>,
    /// Whom a request of that client may name as its host, beside this machine and the vendor's.
    pub hosts: Vec<HostName>,
    /// How long a caller may take nothing of an answer that is there for it.
    pub write_timeout: Duration,
    /// Requests in hand at a time; more are answered 503 at once.
    pub max_requests: usize,
    /// Streams of events (SSE) open at a time; more are answered 503 at once. They are not among the requests in hand.
    pub max_streams: usize,
    /// Permission bits of Unix sockets.
    pub unix_mode: u32,
    /// Whose Unix sockets are.
    pub unix_owner: UnixOwner,
    /// Encrypts all TCP listeners.
    pub tls: Option<ServerTls>,
}

/// User and group of a socket's file; `None` leaves it to the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixOwner {
    /// The user's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen.
    pub listen: Listen,
    /// SHA-256 of the key that opens all but health and metrics. Needed unless `listen` is loopback or a Unix socket.
    pub api_key_sha256: Option<[u8; 32]>,
    /// Whom a request may name as its host, beside this machine, where no key is needed.
    pub hosts: Vec<HostName>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A filter as in `RUST_LOG`; checked.
    pub level: String,
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// One line a request.
    pub access: bool,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogFormat {
    Json,
    Text,
}

/// `[store]`: the embedded one (`redis` comes later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Folder of the data files.
    pub path: PathBuf,
}

/// One of `[[apps]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The App ID.
    pub id: AppId,
    /// At least one, names unique; the first serves what keeps no state in a region.
    pub regions: Vec<Region>,
    /// What opens the vendor's door.
    pub credential: Credential,
    /// The vendor's limits.
    pub quota: Quota,
    /// `[apps.events]`.
    pub events: Events,
    /// `[apps.history]`.
    pub history: History,
    /// `[[apps.webhooks]]`, names unique.
    pub webhooks: Vec<Webhook>,
}

/// One of an app's regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name; `"default"` if none was given.
    pub name: RegionName,
    /// Scheme and authority, no path.
    pub base_url: Uri,
}

/// `[apps.credential]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// HTTP Basic.
    Basic {
        /// Left of the colon; holds no colon.
        api_key: SecretSource,
        /// Right of the colon.
        api_secret: SecretSource,
    },
    /// A minted RTM token.
    Token {
        /// Signs the token.
        app_certificate: SecretSource,
        /// The user the token is for.
        uid: String,
    },
}

/// N requests in any window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// N.
    pub requests: NonZeroU32,
    /// The window's length.
    pub per: Duration,
}

/// A bucket of its own, or another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaRule {
    /// Its own limit.
    Own(Limit),
    /// Counted in that bucket, which has its own limit (sharing does not chain).
    Share(BucketName),
}

/// `[apps.quota]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the bucket of that name")]
pub struct Quota {
    pub user_events: QuotaRule,
    pub channel_events: QuotaRule,
    pub history_create: QuotaRule,
    pub history_get: QuotaRule,
    pub history_count: QuotaRule,
    pub messages: QuotaRule,
}

impl Quota {
    /// The rule of a bucket.
    #[must_use]
    pub fn rule(&self, bucket: BucketName) -> QuotaRule {
        match bucket {
            BucketName::UserEvents => self.user_events,
            BucketName::ChannelEvents => self.channel_events,
            BucketName::HistoryCreate => self.history_create,
            BucketName::HistoryGet => self.history_get,
            BucketName::HistoryCount => self.history_count,
            BucketName::Messages => self.messages,
        }
    }
}

/// `[apps.events]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// The streams to read; may be empty.
    pub streams: Vec<Stream>,
    /// Between reads while events flow.
    pub poll_interval: Duration,
    /// Between reads while none do; at least `poll_interval`.
    pub poll_interval_idle: Duration,
    /// How long events are kept.
    pub retention: Duration,
    /// How many bytes of events each stream may keep.
    pub retention_bytes: u64,
    /// The largest answer to a read whose events are delivered whole, in bytes, decoded.
    pub max_read_bytes: u64,
    /// How long an event is remembered, to know it when another region returns it too. Zero turns it off.
    pub dedup_window: Duration,
    /// A subscription that nobody reads for so long is removed, unless it has dead letters. Zero turns it off. Left out, the
    /// greater of 7 days and `retention`.
    pub subscription_ttl: Duration,
    /// How many subscriptions of a stream a client may have.
    pub max_subscriptions_per_client: usize,
    /// How long an event waits for earlier ones of other regions before it gets its place. Zero: events stand in the order
    /// in which they came.
    pub order_window: Duration,
}

/// `[apps.history]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// How long one synchronous request may take.
    pub deadline: Duration,
    /// How long a result stays fetchable by its handle.
    pub handle_ttl: Duration,
    /// The largest `limit` a caller may ask for.
    pub max_limit: usize,
    /// How long work goes on for a caller who left before it was done. Zero: it ends with its last caller.
    pub keep_going: Duration,
}

/// One of `[[clients]]`. Each way to show itself may have several values, so that one can take over from another; no value
/// is another client's too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The name.
    pub name: ClientName,
    /// SHA-256 of its keys.
    pub api_key_sha256: Vec<[u8; 32]>,
    /// URI SAN of its certificate, as `spiffe://corp/ns/prod/sa/billing`.
    pub spiffe_id: Vec<SpiffeId>,
    /// DNS SAN of its certificate, in lower case.
    pub dns_san: Vec<String>,
    /// `sub` of its tokens.
    pub jwt_subject: Vec<String>,
    /// The user its process runs as, on Unix sockets.
    pub unix_uid: Vec<u32>,
    /// Share of a contended quota, at least 1.
    pub weight: NonZeroU32,
    /// Requests it may have in hand at a time; `None`: as many as the gateway takes.
    pub max_concurrent: Option<NonZeroU32>,
    /// Requests it may make in a second; `None`: as many as it likes.
    pub requests_per_second: Option<NonZeroU32>,
    /// Whether what it may not do is refused.
    pub mode: ClientMode,
    /// What it may do. Empty: nothing.
    pub allow: Vec<Allow>,
}

impl Client {
    /// A client with this name and rights, that nobody can be yet. For tests and defaults.
    #[must_use]
    pub fn named(name: ClientName, allow: Vec<Allow>) -> Self {
        Self {
            name,
            api_key_sha256: Vec::new(),
            spiffe_id: Vec::new(),
            dns_san: Vec::new(),
            jwt_subject: Vec::new(),
            unix_uid: Vec::new(),
            weight: NonZeroU32::MIN,
            max_concurrent: None,
            requests_per_second: None,
            mode: ClientMode::Enforce,
            allow,
        }
    }
}

/// `mode` of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMode {
    /// What it may not do is refused.
    Enforce,
    /// It is logged and counted, and done all the same.
    Report,
}

impl ClientMode {
    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
        }
    }
}

/// An entry of a client's `allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// `None` is `"*"`.
    pub app: Option<AppId>,
    /// What may be done with it.
    pub actions: Vec<Action>,
    /// Whom it may send messages as. `None`: anyone.
    pub users: Option<Vec<Pattern>>,
}

impl Default for Server {
    fn default() -> Self {
        by_default("server", sections::server)
    }
}

impl Default for Admin {
    fn default() -> Self {
        by_default("admin", sections::admin)
    }
}

impl Default for Log {
    fn default() -> Self {
        by_default("log", sections::log)
    }
}

impl Default for Store {
    fn default() -> Self {
        by_default("store", sections::store)
    }
}

impl Default for Quota {
    fn default() -> Self {
        by_default("apps.quota", apps::quota)
    }
}

impl Default for Events {
    fn default() -> Self {
        by_default("apps.events", apps::events)
    }
}

impl Default for History {
    fn default() -> Self {
        by_default("apps.history", apps::history)
    }
}
