//! A peer of the measure: the smallest proxy on hyper that does what the gateway does to a forwarded message. So this
//! is what the gateway's own libraries cost. The key is checked and taken off, the vendor's credential put on, the App
//! ID counted against a limit; both connections are kept, and heads and answers have time-outs.
//!
//! From the environment: `LISTEN` and `UPSTREAM` (`127.0.0.1:PORT`), `UPSTREAM_TLS` (`1`: yes), `TLS_CERT` and
//! `TLS_KEY` (the listener speaks TLS, with HTTP/2, where they are given), `CA`, `WORKERS`, `API_KEY`, `BASIC`
//! (`name:secret`).

use base64::Engine;
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

/// So many an App ID may send in a second: counted, never reached.
const LIMIT: f64 = 1_000_000.0;

/// How long a request's head, and the upstream's answer, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The certificate's name of the upstream.
const UPSTREAM_NAME: &str = "upstream.test";

type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// Every name is the upstream's address.
#[derive(Clone)]
struct Fixed(SocketAddr);

impl tower_service::Service<Name> for Fixed {
    type Response = std::iter::Once<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(std::iter::once(self.0)))
    }
}

/// A token bucket for each App ID.
#[derive(Default)]
struct Buckets(Mutex<HashMap<Box<str>, (f64, Instant)>>);

impl Buckets {
    fn admit(&self, app: &str) -> bool {
        let now = Instant::now();
        let mut buckets = self.0.lock().expect("no holder panics");
        let Some((tokens, filled)) = buckets.get_mut(app) else {
            buckets.insert(app.into(), (LIMIT - 1.0, now));
            return true;
        };
        *tokens = (*tokens + now.duration_since(*filled).as_secs_f64() * LIMIT).min(LIMIT);
        *filled = now;
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

struct Proxy {
    client: Client<HttpsConnector<HttpConnector<Fixed>>, Incoming>,
    scheme: Scheme,
    authority: Authority,
    key: Vec<u8>,
    credential: HeaderValue,
    host: HeaderValue,
    buckets: Buckets,
}

fn refuse(status: StatusCode) -> Answer {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from_static(b"{\"error\":\"refused\"}"))));
    *response.status_mut() = status;
    response
}

fn app_of(path: &str) -> Option<&str> {
    path.strip_prefix("/dev/v2/project/")?.split('/').next()
}

impl Proxy {
    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let key = request.headers().get("x-api-key");
        if !key.is_some_and(|key| bool::from(key.as_bytes().ct_eq(&self.key))) {
            return refuse(StatusCode::UNAUTHORIZED);
        }
        let Some(app) = app_of(request.uri().path()) else { return refuse(StatusCode::NOT_FOUND) };
        if !self.buckets.admit(app) {
            return refuse(StatusCode::TOO_MANY_REQUESTS);
        }
        let headers = request.headers_mut();
        headers.remove("x-api-key");
        headers.remove(CONNECTION);
        headers.insert(AUTHORIZATION, self.credential.clone());
        headers.insert(HOST, self.host.clone());
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = self.upstream_uri(path);
        *request.version_mut() = Version::HTTP_11;
        match tokio::time::timeout(PATIENCE, self.client.request(request)).await {
            Ok(Ok(response)) => response.map(Either::Left),
            Ok(Err(_)) => refuse(StatusCode::BAD_GATEWAY),
            Err(_) => refuse(StatusCode::GATEWAY_TIMEOUT),
        }
    }

    fn upstream_uri(&self, path: Option<PathAndQuery>) -> Uri {
        let mut parts = hyper::http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = path;
        Uri::from_parts(parts).expect("a request that was read has a path")
    }
}

/// Serves a connection in the protocol that was agreed on. How it ends is nobody's concern here.
async fn serve(proxy: Arc<Proxy>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, http2: bool) {
    let service = service_fn(|request| {
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    let stream = TokioIo::new(stream);
    if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        drop(builder.timer(TokioTimer::new()).serve_connection(stream, service).await);
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        drop(builder.serve_connection(stream, service).await);
    }
}

async fn accept(proxy: Arc<Proxy>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    match tls {
        None => serve(proxy, stream, false).await,
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else { return };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            serve(proxy, stream, http2).await;
        }
    }
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn client_tls() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(setting("CA")).expect("the CA is readable")).expect("the CA is good");
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

fn listener_tls() -> Option<TlsAcceptor> {
    let cert = setting("TLS_CERT");
    if cert.is_empty() {
        return None;
    }
    let chain = vec![CertificateDer::from_pem_file(cert).expect("the certificate is readable")];
    let key = PrivateKeyDer::from_pem_file(setting("TLS_KEY")).expect("the key is readable");
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the certificate is good");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Some(TlsAcceptor::from(Arc::new(config)))
}

fn proxy() -> Proxy {
    let upstream: SocketAddr = setting("UPSTREAM").parse().expect("UPSTREAM is an address");
    let mut connector = HttpConnector::new_with_resolver(Fixed(upstream));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(client_tls())
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let credential = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(setting("BASIC")));
    Proxy {
        client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(2048).build(https),
        scheme: if setting("UPSTREAM_TLS") == "1" { Scheme::HTTPS } else { Scheme::HTTP },
        authority: format!("{UPSTREAM_NAME}:{}", upstream.port()).parse().expect("a name and a port"),
        key: setting("API_KEY").into_bytes(),
        credential: HeaderValue::from_str(&credential).expect("base64 is a header value"),
        host: HeaderValue::from_static(UPSTREAM_NAME),
        buckets: Buckets::default(),
    }
}

async fn run() {
    let proxy = Arc::new(proxy());
    let tls = listener_tls();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option that all systems have");
    socket.bind(setting("LISTEN").parse().expect("LISTEN is an address")).expect("the port is free");
    let listener = socket.listen(4096).expect("a bound socket listens");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A connection whose other end is gone already is noticed by its first read.
        let _ = stream.set_nodelay(true);
        tokio::spawn(accept(Arc::clone(&proxy), stream, tls.clone()));
    }
}

fn main() {
    let workers: usize = setting("WORKERS").parse().expect("WORKERS is a number");
    let mut runtime = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.worker_threads(workers).enable_all().build().expect("a runtime").block_on(run());
}
