//! A connector that connects to judged addresses only.
//!
//! Invariant: every way to an address passes the guard. hyper-util resolves nothing when the host is an IP address, so
//! those are judged with the URL; all others come through the resolver, whose answers are judged here.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::{Guard, TargetRefused};
use crate::kernel::dns::{Resolver, Use};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes TCP connections to what a [`Guard`] lets through. TLS goes around it.
#[derive(Clone, Debug)]
pub struct Connector<R = Resolver> {
    guard: Guard,
    http: HttpConnector<Judged<R>>,
}

impl Connector {
    /// By the system's resolver, on the threads of that use; looking up a name may take so long, and so may connecting.
    #[must_use]
    pub fn new(guard: Guard, connect_timeout: Duration, what: Use) -> Self {
        Self::with_resolver(guard, connect_timeout, Resolver::of(what))
    }
}

impl<R> Connector<R>
where
    R: Service<Name, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
    R::Response: Iterator<Item = SocketAddr>,
{
    /// By a resolver of one's own.
    pub fn with_resolver(guard: Guard, connect_timeout: Duration, resolver: R) -> Self {
        let mut http = HttpConnector::new_with_resolver(Judged { guard, resolver, patience: connect_timeout });
        // The TLS around it hands on `https`, which the connector would refuse by itself.
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        Self { guard, http }
    }
}

impl<R> Service<Uri> for Connector<R>
where
    R: Service<Name, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
    R::Response: Iterator<Item = SocketAddr>,
{
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        // Again, though configuration judged it: an address from a file may have changed since.
        if let Err(refused) = self.guard.judge(&to) {
            return Box::pin(async move { Err(refused.into()) });
        }
        let connecting = self.http.call(to);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

/// A resolver whose answers are judged.
#[derive(Clone, Debug)]
pub(super) struct Judged<R> {
    guard: Guard,
    resolver: R,
    patience: Duration,
}

impl<R> Service<Name> for Judged<R>
where
    R: Service<Name, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    R::Response: Iterator<Item = SocketAddr>,
{
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.resolver.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (guard, host, patience) = (self.guard, name.as_str().to_owned(), self.patience);
        let resolving = self.resolver.call(name);
        Box::pin(async move {
            // The connect timeout begins with the addresses, so the look-up needs one of its own.
            let resolved = tokio::time::timeout(patience, resolving).await;
            let resolved = resolved.map_err(|_| format!("looking up {host} takes longer than {patience:?}"))?;
            let addresses: Vec<_> = resolved.map_err(Into::into)?.collect();
            if addresses.is_empty() {
                return Err(TargetRefused::NoAddress(host).into());
            }
            // Here, between look-up and connection, where what is judged is what is connected to: a check before would
            // be asked a second answer.
            for address in &addresses {
                guard.judge_address(&host, address.ip())?;
            }
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
pub(super) fn judged_for_tests<R>(guard: Guard, resolver: R) -> Judged<R> {
    Judged { guard, resolver, patience: Duration::from_secs(60) }
}
