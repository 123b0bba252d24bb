//! A [`Target`]: what the configuration and the files it names say of a webhook, ready to be used: its address, its
//! keys, its connections.
//!
//! Invariants: connections are the webhook's own: no other's use them up. The address is judged with each connection,
//! resolved once for it ([`crate::kernel::targets`]); a redirect is an answer. No more is read of an answer than lets
//! the connection be used again, and nothing of it is kept.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{timeout, timeout_at};

use super::message::Message;
use super::outcome::Outcome;
use crate::config::{self, Webhook, WebhookUrl};
use crate::kernel::clock::Clock;
use crate::kernel::dns::Use;
use crate::kernel::files::{self, Content, Unreadable};
use crate::kernel::names::AppId;
use crate::kernel::secret::{PrivateUrl, Secret, SecretError, SecretSource};
use crate::kernel::standard_webhooks::{self, BadKey, Key};
use crate::kernel::targets::{self, Guard, TargetRefused, innermost};
use crate::tls::{Anchors, AnchorsError};
use crate::upstream::pool::{read_body, was_turned_away};

/// Bytes of an answer's head.
const MAX_HEAD: usize = 64 << 10;

/// Of an answer's body no more is read than this, nor for longer: only to use the connection again.
const MAX_BODY: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_millis(500);

/// How often a message is sent again within a try because the endpoint did not process it.
const MAX_TURNED_AWAY: u32 = 2;

/// Idle connections are closed after this long.
const IDLE: Duration = Duration::from_secs(30);

/// Why a webhook cannot be what the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("webhook {name} of app {app}: {why}")]
pub struct BuildError {
    app: AppId,
    name: crate::kernel::names::WebhookName,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("secrets: {0}")]
    Secret(#[from] SecretError),
    #[error("secrets[{0}] {1}")]
    Key(usize, BadKey),
    #[error("ca_file: cannot read {0}: {1}")]
    Unreadable(PathBuf, Unreadable),
    #[error("ca_file {0}")]
    Anchors(#[from] AnchorsError),
    #[error("url: {0}")]
    UrlFile(SecretError),
    #[error("url: {0} holds no https:// (or http://) address")]
    Url(SecretSource),
    #[error("url: {0}")]
    Target(#[from] TargetRefused),
}

pub(super) struct Target {
    pub(super) app: AppId,
    pub(super) config: Webhook,
    files: Files,
    keys: Vec<Key>,
    client: Client<HttpsConnector<targets::Connector>, Full<Bytes>>,
    clock: Clock,
}

/// What the named files and variables held.
#[derive(PartialEq, Eq)]
struct Files {
    url: PrivateUrl,
    secrets: Vec<Secret>,
    anchors: Option<Content>,
}

impl Target {
    /// Reads what the configuration names, and makes no connection.
    pub(super) fn new(app: &AppId, config: &Webhook, clock: &Clock) -> Result<Self, BuildError> {
        let fault = |why| BuildError { app: app.clone(), name: config.name.clone(), why };
        let files = Files::read(config).map_err(fault)?;
        let keys = files.secrets.iter().enumerate();
        let keys = keys.map(|(n, secret)| Key::parse(secret).map_err(|why| Why::Key(n, why)));
        let keys = keys.collect::<Result<_, _>>().map_err(fault)?;
        let client = client(config, &files.url, files.anchors.as_ref().map(|pem| pem.as_slice())).map_err(fault)?;
        Ok(Self { app: app.clone(), config: config.clone(), files, keys, client, clock: clock.clone() })
    }

    /// Whether all of it is the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.config == other.config && self.files == other.files
    }

    /// When the first authority of its `ca_file` runs out, in seconds since 1970.
    pub(super) fn ca_ends(&self) -> Option<i64> {
        Anchors::or_public(self.files.anchors.as_ref().map(|pem| pem.as_slice())).first_end()
    }

    /// Where it leads, for people.
    pub(super) fn url(&self) -> &PrivateUrl {
        &self.files.url
    }

    /// What receivers verify by, of those keys that are ed25519.
    pub(super) fn public_keys(&self) -> Vec<String> {
        self.keys.iter().filter_map(Key::public).collect()
    }

    /// Sends a message once; again at once if the endpoint says that it did not process it (a server that goes away).
    pub(super) async fn send(&self, message: &Message) -> Outcome {
        let most = self.config.timeout;
        let until = self.clock.now() + most;
        let mut turned_away = 0;
        let answer = loop {
            let Some(request) = self.request(message) else { return Outcome::Unreachable("no such request".into()) };
            match timeout_at(until, self.client.request(request)).await {
                Err(_) => return Outcome::Slow(most),
                Ok(Err(error)) if turned_away < MAX_TURNED_AWAY && was_turned_away(&error) => turned_away += 1,
                Ok(Err(error)) => {
                    let cause = innermost(&error);
                    return match cause.downcast_ref::<TargetRefused>() {
                        Some(refused) => Outcome::Forbidden(refused.clone()),
                        None => Outcome::Unreachable(cause.to_string()),
                    };
                }
                Ok(Ok(answer)) => break answer,
            }
        };
        let outcome = Outcome::of(answer.status(), answer.headers(), self.clock.wall_ms());
        // What the head says holds, whatever becomes of the body.
        let _ = timeout(BODY_TIME, read_body(answer.into_body(), MAX_BODY, until, BODY_TIME)).await;
        outcome
    }

    /// Signed now. `None` when it cannot be written as HTTP, which what is configured always can.
    fn request(&self, message: &Message) -> Option<Request<Full<Bytes>>> {
        let timestamp = self.clock.wall_ms().seconds();
        let signatures = standard_webhooks::signatures(&self.keys, &message.id, timestamp, &message.body);
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.files.url.expose().clone();
        let headers: &mut HeaderMap = request.headers_mut();
        headers.extend(message.headers.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("rtm-gateway/", env!("CARGO_PKG_VERSION"))));
        headers.insert("webhook-id", HeaderValue::from_str(&message.id).ok()?);
        headers.insert("webhook-timestamp", HeaderValue::from(timestamp));
        headers.insert("webhook-signature", HeaderValue::from_str(&signatures).ok()?);
        Some(request)
    }
}

impl Files {
    fn read(config: &Webhook) -> Result<Self, Why> {
        let url = match &config.url {
            WebhookUrl::Written(url) => url.clone(),
            WebhookUrl::Kept(source) => {
                let kept = source.read().map_err(Why::UrlFile)?;
                let uri = config::parse_webhook_url(kept.expose()).ok_or_else(|| Why::Url(source.clone()))?;
                PrivateUrl::new(uri)
            }
        };
        let secrets = config.secrets.iter().map(SecretSource::read).collect::<Result<_, _>>()?;
        let read =
            |path: &PathBuf| files::read(path, files::DOCUMENT).map_err(|why| Why::Unreadable(path.clone(), why));
        Ok(Self { url, secrets, anchors: config.ca_file.as_ref().map(read).transpose()? })
    }
}

fn client(
    config: &Webhook,
    url: &PrivateUrl,
    anchors: Option<&[u8]>,
) -> Result<Client<HttpsConnector<targets::Connector>, Full<Bytes>>, Why> {
    let guard = Guard::new(config.allow_private_targets);
    guard.judge(url.expose())?;
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(Anchors::or_public(anchors).client()?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(targets::Connector::new(guard, config.timeout, Use::Webhooks));
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(config.max_in_flight)
        .http1_max_buf_size(MAX_HEAD)
        .build(https))
}
