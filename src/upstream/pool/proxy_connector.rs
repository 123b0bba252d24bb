//! The way to a host: straight, or through the proxy.
//!
//! Invariant: what comes out is a connection to the host itself, so that TLS above it ends at the vendor and its name
//! is verified there, whatever lies between.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::BoxError;
use super::no_proxy::NoProxy;
use super::password::Password;
use super::tunnel::{self, ProxyLogin, TunnelError};
use crate::config::Proxy;
use crate::kernel::cause::Cause;
use crate::kernel::clock::Clock;
use crate::kernel::targets::innermost;

/// Connects to a host over `C`, which makes TCP connections.
#[derive(Clone)]
pub(super) struct ProxyConnector<C> {
    tcp: C,
    proxy: Option<Arc<ProxyRoute>>,
}

struct ProxyRoute {
    url: Uri,
    login: Option<ProxyLogin>,
    except: NoProxy,
}

impl<C> ProxyConnector<C> {
    pub(super) fn new(tcp: C, proxy: Option<Proxy>, clock: &Clock) -> Self {
        let proxy = proxy.map(|Proxy { url, authorization, no_proxy }| {
            let password = |source| Password::new(source, clock.clone());
            let login = authorization.map(|it| ProxyLogin { user: it.user, password: password(it.password) });
            Arc::new(ProxyRoute { url, login, except: NoProxy::new(&no_proxy) })
        });
        Self { tcp, proxy }
    }
}

impl<C> Service<Uri> for ProxyConnector<C>
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
        let Some(proxy) = self.proxy.clone().filter(|proxy| !proxy.except.covers(&to)) else {
            let connecting = self.tcp.call(to);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        let connecting = self.tcp.call(proxy.url.clone());
        Box::pin(async move {
            let unreachable =
                |error: BoxError| TunnelError::Unreachable(Cause::boxed(innermost(&*error).to_string(), error));
            let tcp = connecting.await.map_err(|error| unreachable(error.into()))?;
            Ok(tunnel::open(tcp, proxy.login.as_ref(), &to).await?)
        })
    }
}
