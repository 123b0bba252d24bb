//! A gateway as the commands that read from one meet it: one address, one key, one app, over HTTP or TLS.
//!
//! Invariants:
//! - The key comes from a file or the environment, never from the command line; it is in no message and in no `Debug`.
//! - Each request has a connection of its own (HTTP/1.1): one that is taken for dead is closed, and never met again.
//! - Nothing is waited for without end: not a connection, not a head, not the next bytes of a body. A gateway that
//!   lives says something each 15 seconds.
//! - Redirects are not followed: the key is for this address.

mod backoff;
mod fault;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::CliError;
use crate::http::headers::X_API_KEY;
use crate::kernel::files;
use crate::kernel::names::AppId;
use crate::kernel::secret::{Secret, SecretError, SecretSource};
use crate::tls::Anchors;

pub(super) use backoff::Backoff;
pub(super) use fault::Fault;

/// The variable that holds the key when no file is named.
const KEY_VARIABLE: &str = "RTM_GATEWAY_KEY";

const CONNECT: Duration = Duration::from_secs(10);
/// The head of an answer comes at once, or with the first heartbeat.
const HEAD: Duration = Duration::from_secs(45);
/// Three heartbeats.
const SILENCE: Duration = Duration::from_secs(45);
/// A refusal is small.
const LARGEST_REFUSAL: usize = 64 << 10;

/// Which gateway, as whom, and which app.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Target {
    /// The gateway's address, such as `https://gateway.example.net`
    #[arg(long, value_name = "URL", value_parser = base_url)]
    url: Uri,
    /// File that holds the caller's key [default: the environment variable `RTM_GATEWAY_KEY`]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The app
    #[arg(long, value_name = "ID", value_parser = AppId::parse)]
    pub(super) app: AppId,
    /// File of authorities (PEM) to trust beside the public ones
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Calls a gateway.
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// Without a slash at its end.
    base: String,
    key: HeaderValue,
}

impl Client {
    /// Reads the key and the authorities. Connects to nothing.
    pub(super) fn new(target: &Target) -> Result<Self, CliError> {
        let key = key(target.key_file.as_ref())?;
        let unusable = || CliError::Failed("the key holds what no header may hold".into());
        // The header's own memory is wiped with it.
        let mut key = HeaderValue::from_maybe_shared(Bytes::from_owner(key)).map_err(|_| unusable())?;
        key.set_sensitive(true);
        let tls = match &target.ca_file {
            None => Anchors::Public.client(),
            Some(path) => {
                let failed = |why| format!("--ca-file: cannot read {}: {why}", path.display());
                let pem = files::read(path, files::DOCUMENT).map_err(|why| CliError::Failed(failed(why)))?;
                Anchors::Beside(&pem).client()
            }
        };
        let tls = tls.map_err(|why| CliError::Failed(format!("--ca-file: {why}")))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { http, base: target.url.to_string().trim_end_matches('/').to_owned(), key })
    }

    /// GETs a path that needs no escaping. What is not 200 is a fault.
    pub(super) async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(HeaderName, &str)],
    ) -> Result<StreamedAnswer, Fault> {
        let mut uri = format!("{}{path}", self.base);
        if !query.is_empty() {
            let query = Serializer::new(String::new()).extend_pairs(query).finish();
            // Writing to a string cannot fail.
            let _ = write!(uri, "?{query}");
        }
        let mut request = Request::get(uri)
            .header(X_API_KEY, self.key.clone())
            .header(USER_AGENT, concat!("rtm-gateway/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Empty::new()).map_err(|why| Fault::Impossible(why.to_string()))?;
        match timeout(HEAD, self.http.request(request)).await {
            Err(_) => Err(Fault::Lost(format!("no answer in {} seconds", HEAD.as_secs()))),
            Ok(Err(why)) => Err(Fault::of(&why)),
            Ok(Ok(response)) if response.status() == StatusCode::OK => Ok(StreamedAnswer(response)),
            Ok(Ok(response)) => Err(refusal(response).await),
        }
    }
}

/// An answer of 200, whose body comes.
pub(super) struct StreamedAnswer(Response<Incoming>);

impl StreamedAnswer {
    /// Its head.
    pub(super) fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// The next bytes. `None`: it ended as its head said it would.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = timeout(SILENCE, self.0.body_mut().frame()).await;
            let silent = |_| Fault::Lost(format!("nothing came for {} seconds", SILENCE.as_secs()));
            match frame.map_err(silent)? {
                None => return Ok(None),
                Some(Err(why)) => return Err(Fault::of(&why)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// All of a small body.
    pub(super) async fn whole(self) -> Result<Bytes, Fault> {
        let body = Limited::new(self.0.into_body(), LARGEST_REFUSAL).collect();
        match timeout(SILENCE, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(why)) => Err(Fault::Lost(why.to_string())),
            Err(_) => Err(Fault::Lost("the answer did not end".into())),
        }
    }
}

/// What an answer that is not 200 says.
async fn refusal(response: Response<Incoming>) -> Fault {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = StreamedAnswer(response).whole().await.unwrap_or_default();
    Fault::refused(status, &headers, &body)
}

fn key(file: Option<&PathBuf>) -> Result<Secret, CliError> {
    let Some(path) = file else {
        let read = SecretSource::Env(KEY_VARIABLE.into()).read();
        return read.map_err(|why| CliError::Failed(format!("no key: {why}; name a file by --key-file, or set it")));
    };
    SecretSource::File(path.clone()).read().map_err(|why| {
        // The name is not repeated: it may be the key itself, given in the file's place.
        CliError::Failed(match why {
            SecretError::Unreadable { why, .. } => format!("no key: --key-file cannot be read: {why}"),
            SecretError::Stray(_, what) => format!("no key: --key-file has {what} around it"),
            SecretError::Unusable(_) | SecretError::NoVariable(_) => {
                "no key: --key-file is empty or is not one line of text".to_owned()
            }
        })
    })
}

/// An address to which paths can be added.
fn base_url(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "must be an address such as https://gateway.example.net")?;
    let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    match uri.authority() {
        Some(authority) if has_scheme && authority.as_str().contains('@') => {
            Err("must not hold user information: the key is read from --key-file")
        }
        Some(_) if has_scheme && uri.query().is_none() => Ok(uri),
        _ => Err("must be http:// or https:// with a host, and without a query"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_a_host_and_holds_no_secret() {
        for good in ["http://127.0.0.1:8080", "https://gateway.example.net/", "https://a/behind/here/"] {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for bad in ["gateway:8080", "/path", "ftp://a", "https://u:p@a", "https://a?key=1", ""] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_client_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "hunter2\n").unwrap();
        let url = base_url("https://a/b/").unwrap();
        let target = Target { url, key_file: Some(file), app: AppId::parse("app").unwrap(), ca_file: None };
        let client = Client::new(&target).unwrap();
        assert_eq!((client.base.as_str(), client.key.as_bytes()), ("https://a/b", &b"hunter2"[..]));
        assert!(!format!("{:?}", client.key).contains("hunter2"));
    }

    #[test]
    fn a_key_in_the_place_of_its_file_is_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let bad = dir.path().join("hunter2-bad");
        std::fs::write(&bad, "two\nlines").unwrap();
        let quoted = dir.path().join("hunter2-quoted");
        std::fs::write(&quoted, "'key'").unwrap();
        for (file, said) in [("hunter2".into(), "entity not found"), (bad, "one line"), (quoted, "quotes")] {
            let why = key(Some(&file)).unwrap_err().to_string();
            assert!(why.contains(said) && !why.contains("hunter2"), "{why}");
        }
    }
}
