//! The connections to the vendor: HTTP/1.1 and HTTP/2, TLS, a proxy if need be; each app and kind of request has its
//! own.
//!
//! Invariants:
//! - Only a [`Signed`](crate::upstream::credentials::Signed) request can be sent, and sending one gives an
//!   [`Exchange`], which owns the request's seat until the head of the answer is there.
//! - Whether a failed request may have been acted on is decided in one place, [`Fault::of`], and in doubt it may.
//! - Nothing the vendor sends is unbounded: heads, bodies, the time each may take, and what all of them hold together
//!   ([`memory`]).
//! - What must fail apart shares no connection: each [`Lanes`] has its own.
//!
//! hyper-util's client sends a request once more when the pooled connection it was meant for turned out closed before
//! one byte of it was written. That is no second exchange: the seat is told once, and a destructive read is read once.
//! A connection's own task is spawned by hyper-util's executor and ends with the pool or with its connection.

mod body;
mod connector;
mod exchange;
mod fault;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod goaway;
mod lane;
mod lanes;
mod max_age;
pub(crate) mod memory;
mod no_proxy;
mod observer;
mod password;
mod proxy_connector;
pub(crate) mod retry_after;
mod tunnel;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::config;
use crate::kernel::clock::Clock;
use crate::kernel::dns::{Resolver, Use};
use crate::kernel::files::{self, Content, Unreadable};
use crate::tls::{Anchors, AnchorsError};
pub(crate) use body::{BodyError, BodyFault, read_body, read_body_leased, read_body_partial};
use connector::{ConnectLimits, Connector};
pub(crate) use exchange::Exchange;
pub(crate) use fault::{Fault, was_turned_away};
use lane::HttpClient;
pub(crate) use lanes::Lanes;
pub use memory::Bounds;
use observer::{ConnectionObserver, ObservedConnector};

/// Bytes of an answer's body: a hundred times the largest the vendor's limits allow (1000 events of some 120 bytes).
pub const MAX_BODY: usize = 16 << 20;

/// Bytes of an answer's head, and of the read buffer of an HTTP/1.1 connection.
const MAX_HEAD: usize = 128 << 10;

/// Bytes of an answer's header fields on HTTP/2, unpacked.
const MAX_FIELDS: u32 = 64 << 10;

/// Idle connections are closed after this long: before most load balancers do it.
const IDLE: Duration = Duration::from_secs(30);

/// Idle connections that a lane keeps.
const IDLE_CONNECTIONS: usize = 128;

/// A silent HTTP/2 connection under load is asked for a sign of life this often, and given up after [`ALIVE_TIMEOUT`].
const ALIVE_EVERY: Duration = Duration::from_secs(20);
const ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one answer on HTTP/2 that may come unread.
const STREAM_WINDOW: u32 = 256 << 10;

/// Bytes of all answers on one HTTP/2 connection that may come unread. Answers that wait for [`memory`] leave theirs
/// unread, at most [`Bounds::waiting`] of them; all of them together leave a fifth of it to others, so that none of
/// these waits because they do.
const CONNECTION_WINDOW: u32 = 320 * STREAM_WINDOW;

/// Why connections cannot be made with these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// `upstream.ca_file` cannot be read.
    #[error("upstream.ca_file: cannot read {path}: {why}")]
    Unreadable {
        path: PathBuf,
        #[source]
        why: Unreadable,
    },
    /// `upstream.ca_file` holds no certificate, or one that cannot be used.
    #[error("upstream.ca_file: {path} {why}")]
    BadAnchors {
        path: PathBuf,
        #[source]
        why: AnchorsError,
    },
    /// The TLS library refuses its set-up.
    #[error(transparent)]
    Tls(AnchorsError),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What connections are made of. What they are for is a [`Lanes`]' affair.
pub(crate) struct Upstream {
    connector: Connector,
    settings: Settings,
    clock: Clock,
}

/// What it was built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    connect_timeout: Duration,
    ca_file: Option<(PathBuf, Content)>,
    proxy: Option<config::Proxy>,
}

impl Settings {
    /// Reads what the configuration names.
    pub(crate) fn read(config: &config::Upstream) -> Result<Self, SettingsError> {
        let read = |path: &PathBuf| match files::read(path, files::DOCUMENT) {
            Ok(pem) => Ok((path.clone(), pem)),
            Err(why) => Err(SettingsError::Unreadable { path: path.clone(), why }),
        };
        Ok(Self {
            connect_timeout: config.connect_timeout,
            ca_file: config.ca_file.as_ref().map(read).transpose()?,
            proxy: config.proxy.clone(),
        })
    }

    /// When the first authority of `upstream.ca_file` runs out, in seconds since 1970.
    pub(crate) fn ca_ends(&self) -> Option<i64> {
        self.ca_file.as_ref().and_then(|(_, pem)| Anchors::Beside(pem).first_end())
    }

    fn tls(&self) -> Result<ClientConfig, SettingsError> {
        match &self.ca_file {
            None => Anchors::Public.client().map_err(SettingsError::Tls),
            Some((path, pem)) => {
                Anchors::Beside(pem).client().map_err(|why| SettingsError::BadAnchors { path: path.clone(), why })
            }
        }
    }
}

impl Upstream {
    /// Without connections.
    pub(crate) fn new(settings: Settings, clock: &Clock) -> Result<Self, SettingsError> {
        let limits = ConnectLimits { timeout: settings.connect_timeout, max_age: max_age::MAX_AGE };
        let (tls, proxy) = (settings.tls()?, settings.proxy.clone());
        // All lanes share the names' addresses and the sessions of TLS, which a new connection resumes.
        let connector = Connector::new(Resolver::of(Use::Vendor), tls, limits, proxy, clock.clone());
        Ok(Self { connector, settings, clock: clock.clone() })
    }

    /// Connections of which somebody is told.
    fn client(&self, observer: Arc<dyn ConnectionObserver>) -> HttpClient {
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(MAX_HEAD)
            .http2_max_header_list_size(MAX_FIELDS)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(ALIVE_EVERY)
            .http2_keep_alive_timeout(ALIVE_TIMEOUT)
            .build(ObservedConnector::new(self.connector.clone(), observer))
    }

    /// See [`Settings::ca_ends`].
    pub(crate) fn ca_ends(&self) -> Option<i64> {
        self.settings.ca_ends()
    }

    /// Whether it was built from these settings.
    pub(crate) fn is(&self, settings: &Settings) -> bool {
        self.settings == *settings
    }
}
