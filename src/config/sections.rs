//! The sections that stand once: `[server]`, `[admin]`, `[log]`, `[store]`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::document::node::Node;
use super::document::table::{Table, by_default};
use super::tls::{self, ServerTls};
use crate::kernel::files;
use crate::kernel::names::{ClientName, HostName};

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

/// `[server]`: the callers' port, and what it bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where to listen; at least one.
    pub listen: Vec<Listen>,
    /// Beyond this, connections without a request in hand are closed for newcomers.
    pub max_connections: usize,
    /// Bytes of a caller's request body.
    pub request_body_limit: usize,
    /// Whether callers come through a balancer that says whose connection it carries. Not on Unix sockets.
    pub proxy_protocol: ProxyProtocol,
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

/// `server.proxy_protocol`: the header that each TCP connection of a caller begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None: callers connect themselves.
    Off,
    /// A line of text.
    V1,
    /// The binary form.
    V2,
}

impl ProxyProtocol {
    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// User and group of a socket's file; `None` leaves it to the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixOwner {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// `[admin]`: the operators' port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: Listen,
    /// SHA-256 of the key that opens all but health and metrics. Needed unless `listen` is loopback or a Unix socket.
    pub api_key_sha256: Option<[u8; 32]>,
    /// SHA-256 of a second key, which opens what is only looked at. There is none without the first.
    pub read_key_sha256: Option<[u8; 32]>,
    /// Whom a request may name as its host, beside this machine, where no key is needed.
    pub hosts: Vec<HostName>,
    /// Encrypts the port, if it is a TCP port.
    pub tls: Option<ServerTls>,
}

impl Admin {
    /// The section without the one inside it: what is read at the start only.
    #[must_use]
    pub fn without_tls(&self) -> Self {
        Self { tls: None, ..self.clone() }
    }
}

/// `[log]`: what is logged, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A filter as in `RUST_LOG`; checked.
    pub level: String,
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// One line a request.
    pub access: bool,
}

/// `log.format`: what a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Default for Server {
    fn default() -> Self {
        by_default("server", server)
    }
}

impl Default for Admin {
    fn default() -> Self {
        by_default("admin", admin)
    }
}

impl Default for Log {
    fn default() -> Self {
        by_default("log", log)
    }
}

impl Default for Store {
    fn default() -> Self {
        by_default("store", store)
    }
}

pub(super) fn server(t: &Table<'_>) -> Server {
    let proxy_protocols = [ProxyProtocol::Off, ProxyProtocol::V1, ProxyProtocol::V2].map(|it| (it.as_str(), it));
    Server {
        listen: t.or_default("listen", listens),
        max_connections: t.or_default("max_connections", |n| n.count(1_000_000).map(|n| n as usize)),
        request_body_limit: t.or_default("request_body_limit", body_limit),
        proxy_protocol: t.or_default("proxy_protocol", |n| n.one_of(&proxy_protocols)),
        header_read_timeout: t.or_default("header_read_timeout", Node::duration),
        idle_timeout: t.or_default("idle_timeout", Node::duration),
        shutdown_grace: t.or_default("shutdown_grace", Node::duration),
        anonymous_client: t.take("anonymous_client").and_then(|n| n.name(ClientName::parse)),
        hosts: t.or_default("hosts", |n| n.set("[\"gateway.corp.example\"]", host)),
        write_timeout: t.or_default("write_timeout", Node::duration),
        max_requests: t.or_default("max_requests", |n| n.count(1_000_000).map(|n| n as usize)),
        max_streams: t.or_default("max_streams", |n| n.count(1_000_000).map(|n| n as usize)),
        unix_mode: t.or_default("unix_mode", mode),
        unix_owner: t.take("unix_owner").and_then(owner).unwrap_or_default(),
        tls: t.take("tls").and_then(|node| node.table(tls::server).flatten()),
    }
}

pub(super) fn admin(t: &Table<'_>) -> Admin {
    Admin {
        listen: t.or_default("listen", Node::listen),
        api_key_sha256: t.take("api_key_sha256").and_then(Node::sha256),
        read_key_sha256: t.take("read_key_sha256").and_then(Node::sha256),
        hosts: t.or_default("hosts", |n| n.set("[\"admin.corp.example\"]", host)),
        tls: t.take("tls").and_then(|node| node.table(tls::server).flatten()),
    }
}

pub(super) fn log(t: &Table<'_>) -> Log {
    Log {
        level: t.or_default("level", log_level),
        format: t.or_default("format", |n| n.one_of(&[("json", LogFormat::Json), ("text", LogFormat::Text)])),
        access: t.or_default("access", Node::flag),
    }
}

pub(super) fn store(t: &Table<'_>) -> Store {
    t.later(&["url"]);
    if let Some(kind) = t.take("kind") {
        match kind.value().as_str() {
            Some("redis") => kind.fault::<()>("\"redis\" is not available in this version", "Write \"embedded\""),
            _ => kind.one_of(&[("embedded", ())]),
        };
    }
    let path = t.or_default("path", Node::path);
    // A disk that hangs is the store's to tell: it must not keep a reload from taking effect.
    if let Some(node) = t.take("path")
        && node.looks()
        && files::is_no_folder(&path)
    {
        node.fault::<()>("names something that is not a folder", "Name a folder; it is made if it is not there");
    }
    Store { path }
}

fn listens(node: Node<'_>) -> Option<Vec<Listen>> {
    let like = "[\"127.0.0.1:8080\"]";
    let listens = node.clone().set(like, Node::listen)?;
    if listens.is_empty() {
        return node.fault("must name at least one address", format!("Write {like}"));
    }
    Some(listens)
}

fn host(node: Node<'_>) -> Option<HostName> {
    match HostName::parse(node.clone().text()?) {
        Some(host) => Some(host),
        None => node.fault("must be a host's name or address, without port or *", "Write it as its URL has it"),
    }
}

/// Permission bits as `chmod` takes them.
fn mode(node: Node<'_>) -> Option<u32> {
    let text = node.clone().text()?;
    match u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600) {
        Some(mode) => Some(mode),
        None => node
            .fault("must be permission bits, as \"0660\", with the owner's", "Write it as chmod takes it, in quotes"),
    }
}

/// `"UID"`, `"UID:GID"` or `":GID"`.
fn owner(node: Node<'_>) -> Option<UnixOwner> {
    let text = node.clone().text()?;
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    match (number(uid), number(gid)) {
        (Some(uid), Some(gid)) if uid.is_some() || gid.is_some() => Some(UnixOwner { uid, gid }),
        _ => node.fault("must be numbers of a user and a group, as \"1000:1000\"", "`id` prints them"),
    }
}

/// Bodies are held whole, so their limit must stay far below the memory of a machine.
fn body_limit(node: Node<'_>) -> Option<usize> {
    match node.clone().size()? {
        bytes @ ..=0x4000_0000 => usize::try_from(bytes).ok(),
        _ => node.fault("must be at most 1GiB: a body is held in memory", "Write a smaller size"),
    }
}

/// A filter of log lines.
fn log_level(node: Node<'_>) -> Option<String> {
    let text = node.clone().text()?;
    // The filter takes any word for a module's name, so a mistyped level would silence the log without a fault.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.contains(&word.to_ascii_lowercase().as_str());
    let is_module = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b":_-".contains(&b));
    let clear = |part: &str| match part.rsplit_once('=') {
        Some((module, level)) => is_module(module) && is_level(level),
        None => is_level(part),
    };
    if text.split(',').map(str::trim).all(clear) {
        let ours = |part: &str| part.starts_with("rtm_gateway") || !part.contains('=');
        if !text.split(',').map(str::trim).all(ours) {
            node.warn(
                "names a library, of which nothing below info is logged: heads would be, with keys",
                "Leave it out",
            );
        }
        return Some(text.to_owned());
    }
    node.fault(
        format!("must be one of {}, or module=level, several with commas between", levels.join(", ")),
        "As \"info\", or \"info,rtm_gateway::upstream::quota=debug\"",
    )
}
