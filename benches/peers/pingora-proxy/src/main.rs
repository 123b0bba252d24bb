//! A peer of the measure: what the gateway does to a forwarded message, on Pingora. The key is checked and taken off,
//! the vendor's credential put on, the App ID counted against a limit; both connections are kept.
//!
//! From the environment: `LISTEN` and `UPSTREAM` (`127.0.0.1:PORT`), `UPSTREAM_TLS` and `ACCESS_LOG` (`1`: yes),
//! `TLS_CERT` and `TLS_KEY` (the listener speaks TLS, with HTTP/2, where they are given), `CA`, `WORKERS`, `API_KEY`,
//! `BASIC` (`name:secret`).

use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HOST};
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::{Opt, ServerConf};
use pingora::upstreams::peer::HttpPeer;
use pingora_limits::rate::Rate;
use std::sync::LazyLock;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Requests of each App ID in the second that is under way.
static ADMITTED: LazyLock<Rate> = LazyLock::new(|| Rate::new(Duration::from_secs(1)));

/// So many an App ID may send in a second: counted, never reached.
const LIMIT: isize = 1_000_000;

/// The certificate's name of the upstream.
const UPSTREAM_NAME: &str = "upstream.test";

/// Whose lines are the access log. Pingora's own are not wanted.
const ACCESS: &str = "access";

struct Proxy {
    key: Vec<u8>,
    credential: HeaderValue,
    host: HeaderValue,
    upstream: HttpPeer,
    access_log: bool,
}

fn app_of(path: &str) -> Option<&str> {
    path.strip_prefix("/dev/v2/project/")?.split('/').next()
}

async fn refuse(session: &mut Session, status: u16) -> Result<bool> {
    session.respond_error_with_body(status, Bytes::from_static(b"{\"error\":\"refused\"}")).await?;
    Ok(true)
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        let head = session.req_header();
        let known = head.headers.get("x-api-key").is_some_and(|key| bool::from(key.as_bytes().ct_eq(&self.key)));
        if !known {
            return refuse(session, 401).await;
        }
        let Some(app) = app_of(head.uri.path()) else { return refuse(session, 404).await };
        if ADMITTED.observe(&app, 1) > LIMIT {
            return refuse(session, 429).await;
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.upstream.clone()))
    }

    async fn upstream_request_filter(&self, _: &mut Session, head: &mut RequestHeader, _: &mut ()) -> Result<()> {
        head.remove_header("x-api-key");
        head.insert_header(AUTHORIZATION, self.credential.clone())?;
        head.insert_header(HOST, self.host.clone())?;
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, _: &mut ()) {
        if self.access_log {
            let status = session.response_written().map_or(0, |response| response.status.as_u16());
            log::info!(target: ACCESS, "{} {status} {}", self.request_summary(session, &()), session.body_bytes_sent());
        }
    }
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn main() {
    env_logger::Builder::new().filter_module(ACCESS, log::LevelFilter::Info).init();
    let conf = ServerConf {
        threads: setting("WORKERS").parse().expect("WORKERS is a number"),
        ca_file: Some(setting("CA")),
        upstream_keepalive_pool_size: 2048,
        ..Default::default()
    };
    let mut server = Server::new_with_opt_and_conf(None::<Opt>, conf);
    server.bootstrap();
    let credential = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(setting("BASIC")));
    let upstream_tls = setting("UPSTREAM_TLS") == "1";
    let proxy = Proxy {
        key: setting("API_KEY").into_bytes(),
        credential: HeaderValue::from_str(&credential).expect("base64 is a header value"),
        host: HeaderValue::from_static(UPSTREAM_NAME),
        upstream: HttpPeer::new(setting("UPSTREAM"), upstream_tls, UPSTREAM_NAME.into()),
        access_log: setting("ACCESS_LOG") == "1",
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    match setting("TLS_CERT") {
        none if none.is_empty() => service.add_tcp(&setting("LISTEN")),
        cert => {
            let mut tls = TlsSettings::intermediate(&cert, &setting("TLS_KEY")).expect("the certificate is good");
            tls.enable_h2();
            service.add_tls_with_settings(&setting("LISTEN"), None, tls);
        }
    }
    server.add_service(service);
    server.run_forever();
}
