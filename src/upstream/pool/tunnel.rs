//! A tunnel through an HTTP proxy: CONNECT (RFC 9110 section 9.3.6), also for `http://` hosts, so that a proxy that may
//! be anybody's never reads the vendor's credential.
//!
//! Invariants: whatever goes wrong here, no byte of the vendor's request was sent. The proxy's answer is bounded in
//! size by [`HEAD`] and in time by `connect_timeout`. What the proxy is shown is in no error: an error tells its
//! status, in our own words. hyper speaks the HTTP; the connection is taken back when the proxy has agreed.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::http::HeaderValue;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::password::Password;
use crate::kernel::cause::Cause;
use crate::kernel::secret::SecretError;
use crate::upstream::credentials::basic_header;

/// Bytes of the head of a proxy's answer.
const HEAD: usize = 16 << 10;

/// Why there is no tunnel. It shows no source: of a connection that fails the innermost error is told, and that must be
/// this one, which names the proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TunnelError {
    #[error("the proxy cannot be reached: {0}")]
    Unreachable(Cause),
    #[error("the proxy wants other credentials than upstream.proxy_user and proxy_password (407)")]
    Unauthorized,
    #[error("the proxy does not allow the vendor's host ({0})")]
    Forbidden(StatusCode),
    #[error("the proxy cannot reach the vendor ({0})")]
    Failed(StatusCode),
    #[error("the proxy speaks no HTTP, or was cut off: {0}")]
    Broken(Cause),
    #[error("the proxy spoke before it was spoken to")]
    Early,
    #[error("upstream.proxy_password: {0}")]
    Password(#[from] SecretError),
    #[error("the vendor's address cannot stand in a CONNECT request")]
    BadTarget,
}

/// What a proxy is shown, if it asks.
pub(super) struct ProxyLogin {
    pub(super) user: String,
    pub(super) password: Password,
}

/// Asks a proxy, over a connection to it, for a tunnel to the host of `to`.
pub(super) async fn open(
    tcp: TokioIo<TcpStream>,
    login: Option<&ProxyLogin>,
    to: &Uri,
) -> Result<TokioIo<TcpStream>, TunnelError> {
    let request = request(login, to).await?;
    let broken = |error: hyper::Error| {
        let words = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        TunnelError::Broken(Cause::of(words, error))
    };
    let (mut sender, connection) = http1::Builder::new().max_buf_size(HEAD).handshake(tcp).await.map_err(broken)?;
    let connection = connection.without_shutdown();
    tokio::pin!(connection);
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let mut parts = None;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer.map_err(broken)?,
            ended = &mut connection, if parts.is_none() => parts = Some(ended.map_err(broken)?),
        }
    };
    match answer.status() {
        status if status.is_success() => {}
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => return Err(TunnelError::Unauthorized),
        status if status.is_server_error() => return Err(TunnelError::Failed(status)),
        status => return Err(TunnelError::Forbidden(status)),
    }
    let parts = match parts {
        Some(parts) => parts,
        None => connection.await.map_err(broken)?,
    };
    if parts.read_buf.is_empty() { Ok(parts.io) } else { Err(TunnelError::Early) }
}

async fn request(login: Option<&ProxyLogin>, to: &Uri) -> Result<Request<Empty<Bytes>>, TunnelError> {
    let host = to.host().ok_or(TunnelError::BadTarget)?;
    let port = to.port_u16().unwrap_or(if to.scheme_str() == Some("https") { 443 } else { 80 });
    let target = format!("{host}:{port}");
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target.parse().map_err(|_| TunnelError::BadTarget)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(target).map_err(|_| TunnelError::BadTarget)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("rtm-gateway/", env!("CARGO_PKG_VERSION"))));
    if let Some(login) = login {
        let password = login.password.current().await?;
        headers.insert(PROXY_AUTHORIZATION, basic_header(&login.user, &password).ok_or(TunnelError::BadTarget)?);
    }
    Ok(request)
}
