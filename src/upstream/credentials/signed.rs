//! A request as it leaves.
//!
//! Invariants: the target's scheme and authority come from the configuration, its path from the operation; the only
//! headers are the caller's that [may leave](headers::may_leave), those named here, the credential's, and what
//! hyper adds (`Host`, `Content-Length`). The secret's value is marked sensitive: HTTP/2 does not index it and
//! `Debug` does not show it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Uri};

use super::Pass;
use crate::http::headers;
use crate::kernel::names::AppId;
use crate::kernel::secret::redact::Redactor;
use crate::upstream::quota::Seat;
use crate::vendor;
use crate::vendor::order::{Operation, Order, Safety};

/// How the gateway calls itself when no caller has a name.
static AGENT: HeaderValue = HeaderValue::from_static(concat!("rtm-gateway/", env!("CARGO_PKG_VERSION")));

/// Where a region's requests go: from the checked configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Base {
    scheme: Scheme,
    authority: Authority,
}

/// A request that may leave, with all that follows from its going: the seat it takes and the credential it shows.
///
/// Nobody else than this module makes one, so nothing is sent that has no seat or shows no credential:
///
/// ```compile_fail
/// use rtm_gateway::upstream::credentials::Signed;
/// let unmetered = Signed { ..todo!() };
/// ```
///
/// What fails there are the fields, which are private; the type itself can be named:
///
/// ```
/// use rtm_gateway::upstream::credentials::Signed;
/// fn kept(signed: Signed) -> Signed {
///     signed
/// }
/// ```
pub struct Signed {
    request: Request<Full<Bytes>>,
    seat: Seat,
    pass: Pass,
}

/// A target that is no URI. Cannot happen for percent-encoded paths below `http::uri`'s length limit of 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadTarget;

impl Base {
    /// The scheme and authority of a `base_url`; `None` when it lacks one.
    pub(crate) fn new(base_url: &Uri) -> Option<Self> {
        Some(Self { scheme: base_url.scheme()?.clone(), authority: base_url.authority()?.clone() })
    }

    /// The host, with its port if it is not the scheme's own.
    pub(crate) fn host(&self) -> &str {
        self.authority.as_str()
    }

    fn target(&self, app: &AppId, operation: &Operation) -> Result<Uri, BadTarget> {
        let path = PathAndQuery::from_maybe_shared(Bytes::from(vendor::target(app, operation)));
        let mut parts = hyper::http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.map_err(|_| BadTarget)?);
        Uri::from_parts(parts).map_err(|_| BadTarget)
    }
}

impl Signed {
    /// The request of an order, to be sent to `base` from `seat` under `pass`.
    pub(crate) fn new(order: &Order, base: &Base, seat: Seat, pass: Pass) -> Result<Self, BadTarget> {
        let mut request = Request::new(Full::new(order.operation.body()));
        *request.method_mut() = order.operation.method();
        *request.uri_mut() = base.target(&order.app, &order.operation)?;
        *request.headers_mut() = headers(order, &pass);
        Ok(Self { request, seat, pass })
    }

    /// Knows what it shows, for answers that repeat it.
    pub(crate) fn redactor(&self) -> Arc<Redactor> {
        self.pass.redactor()
    }

    /// For whoever sends it.
    pub(crate) fn into_parts(self) -> (Request<Full<Bytes>>, Seat, Pass) {
        (self.request, self.seat, self.pass)
    }
}

fn headers(order: &Order, pass: &Pass) -> HeaderMap {
    // Room for these, the credential and `Host` without growing.
    let mut out = HeaderMap::with_capacity(12);
    // Looked at again, whoever ordered: this is the last place before they leave.
    for (name, value) in order.headers.iter().filter(|(name, _)| headers::may_leave(name)) {
        out.append(name, value.clone());
    }
    out.entry(USER_AGENT).or_insert_with(|| AGENT.clone());
    if order.operation.method() == Method::POST {
        // All the vendor's bodies are JSON (its page); the gateway's own orders need not say so.
        out.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    if order.operation.safety() == Safety::Destructive {
        // Without a word, any coding would do; and what was read cannot be asked for again.
        out.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    for (name, value) in &pass.shown.headers {
        out.insert(name, value.clone());
    }
    out
}
