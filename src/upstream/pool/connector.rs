//! Making one connection: name, TCP, proxy, TLS, all within one time-out.
//!
//! Invariants: `connect_timeout` covers everything until a request could be written, so a peer that accepts and then
//! says nothing cannot hold a seat longer than that. An error here means nothing was sent.
//!
//! A name is looked up for each connection ([`dns`](crate::kernel::dns)), and the wait for it is a part of the
//! time-out. Its addresses are tried one after another; those of the other family are raced from [`OTHER_FAMILY_AFTER`]
//! on (RFC 8305).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use super::BoxError;
use super::max_age::AgingStream;
use super::proxy_connector::ProxyConnector;
use crate::config::Proxy;
use crate::kernel::clock::Clock;
use crate::kernel::dns::Resolver;

/// RFC 8305 section 8: the recommended Connection Attempt Delay.
const OTHER_FAMILY_AFTER: Duration = Duration::from_millis(250);

/// The connection could not be made in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no connection within {0:?}")]
pub(super) struct ConnectTimedOut(Duration);

type Stream = AgingStream<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// Connects to `http://` and `https://`; ALPN decides between HTTP/2 and HTTP/1.1 on TLS.
#[derive(Clone)]
pub(super) struct Connector<R = Resolver> {
    https: HttpsConnector<ProxyConnector<HttpConnector<R>>>,
    limits: ConnectLimits,
    clock: Clock,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectLimits {
    pub(super) timeout: Duration,
    pub(super) max_age: Duration,
}

impl<R> Connector<R>
where
    HttpConnector<R>: Clone,
{
    pub(super) fn new(
        resolver: R,
        tls: ClientConfig,
        limits: ConnectLimits,
        proxy: Option<Proxy>,
        clock: Clock,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        // Requests are small and whole: waiting to fill a segment only costs time.
        tcp.set_nodelay(true);
        // Shared between a name's addresses, so that the first does not use up the others' time.
        tcp.set_connect_timeout(Some(limits.timeout));
        tcp.set_happy_eyeballs_timeout(Some(OTHER_FAMILY_AFTER));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(ProxyConnector::new(tcp, proxy, &clock));
        Self { https, limits, clock }
    }
}

impl<R> Service<Uri> for Connector<R>
where
    HttpConnector<R>: Service<Uri, Response = TokioIo<TcpStream>, Future: Send + 'static, Error: Into<BoxError>>,
{
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (connecting, limits, clock) = (self.https.call(to), self.limits, self.clock.clone());
        Box::pin(async move {
            match tokio::time::timeout(limits.timeout, connecting).await {
                Ok(connected) => Ok(AgingStream::new(connected?, clock.now(), limits.max_age)),
                Err(_) => Err(ConnectTimedOut(limits.timeout).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
