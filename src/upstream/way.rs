//! The way to a host: straight, or through the proxy.
//!
//! Invariant: what comes out is a connection to the host itself, so that TLS above it ends at the vendor and its name is
//! verified there, whatever lies between.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::BoxError;
use super::no_proxy::NoProxy;
use super::tunnel::{self, TunnelError};
use crate::config::Proxy;
use crate::targets::innermost;

/// Connects to a host over `C`, which makes TCP connections.
#[derive(Clone)]
pub(super) struct Way<C> {
    tcp: C,
    proxy: Option<Arc<(Proxy, NoProxy)>>,
}

impl<C> Way<C> {
    pub(super) fn new(tcp: C, proxy: Option<Proxy>) -> Self {
        let proxy = proxy.map(|proxy| {
            let except = NoProxy::new(&proxy.no_proxy);
            Arc::new((proxy, except))
        });
        Self { tcp, proxy }
    }
}

impl<C> Service<Uri> for Way<C>
where
    C: Service<Uri, Response = TokioIo<TcpStream>, Future: Send + 'static>,
    C::Error: Into<BoxError>,
{
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(proxy) = self.proxy.clone().filter(|proxy| !proxy.1.covers(&to)) else {
            let connecting = self.tcp.call(to);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        let connecting = self.tcp.call(proxy.0.url.clone());
        Box::pin(async move {
            let unreachable = |error: BoxError| TunnelError::Unreachable(innermost(&*error).to_string());
            let tcp = connecting.await.map_err(|error| unreachable(error.into()))?;
            Ok(tunnel::open(tcp, &proxy.0, &to).await?)
        })
    }
}
