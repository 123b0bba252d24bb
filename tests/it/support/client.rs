//! A small HTTP client for tests: one connection, HTTP/1.1 or HTTP/2, and raw bytes where a well-behaved client would
//! not go. It adds nothing to a request but `Host`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rtm_gateway::kernel::task::{Kind, Tasks};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than anything a test waits for on purpose.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The body did not end as its head said it would.
    pub(crate) broken: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.body))
    }
}

/// One connection.
pub(crate) struct Client {
    sender: Sender,
    authority: String,
    headers: HeaderMap,
    _tasks: Tasks,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(crate) async fn http1(addr: SocketAddr) -> Self {
        Self::http1_over(TcpStream::connect(addr).await.unwrap(), &addr.to_string()).await
    }

    pub(crate) async fn http2(addr: SocketAddr) -> Self {
        Self::http2_over(TcpStream::connect(addr).await.unwrap(), &addr.to_string()).await
    }

    pub(crate) async fn http1_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, authority: &str) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        Self::new(Sender::Http1(sender), authority, async { drop(connection.await) })
    }

    pub(crate) async fn http2_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, authority: &str) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        Self::new(Sender::Http2(sender), authority, async { drop(connection.await) })
    }

    fn new(sender: Sender, authority: &str, connection: impl Future<Output = ()> + Send + 'static) -> Self {
        let tasks = Tasks::new();
        tasks.spawn(Kind::Linger, connection);
        Self { sender, authority: authority.to_owned(), headers: HeaderMap::new(), _tasks: tasks }
    }

    /// Sends this header with every request.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), value.parse().unwrap());
        self
    }

    /// Sends `Authorization: Basic` with every request.
    pub(crate) fn basic(self, user: &str, password: &str) -> Self {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.with("authorization", &format!("Basic {encoded}"))
    }

    pub(crate) async fn get(&mut self, target: &str) -> hyper::Result<Reply> {
        self.request(Method::GET, target, &[], "").await
    }

    pub(crate) async fn post(&mut self, target: &str, body: &str) -> hyper::Result<Reply> {
        self.request(Method::POST, target, &[("content-type", "application/json")], body).await
    }

    pub(crate) async fn request(
        &mut self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> hyper::Result<Reply> {
        let response = self.head(method, target, headers, body).await?;
        let (head, mut body) = response.into_parts();
        let (mut bytes, mut broken) = (BytesMut::new(), false);
        let reading = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else {
                    broken = true;
                    break;
                };
                bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("the body came to an end");
        let (status, version) = (head.status, head.version);
        Ok(Reply { status, version, headers: head.headers, body: bytes.freeze(), broken })
    }

    /// The answer's head, with its body still to be read.
    pub(crate) async fn head(
        &mut self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        *request.method_mut() = method;
        *request.headers_mut() = self.headers.clone();
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let sending = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    *request.uri_mut() = target.parse().unwrap();
                    let host = HeaderValue::from_str(&self.authority).unwrap();
                    request.headers_mut().entry(HOST).or_insert(host);
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    *request.uri_mut() = format!("http://{}{target}", self.authority).parse::<Uri>().unwrap();
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        tokio::time::timeout(DEADLINE, sending).await.expect("an answer or an end came")
    }

    /// Resolves when the other side has ended the connection.
    pub(crate) async fn ended(&mut self) {
        let watching = std::future::poll_fn(|cx| {
            let ready = match &mut self.sender {
                Sender::Http1(sender) => sender.poll_ready(cx),
                Sender::Http2(sender) => sender.poll_ready(cx),
            };
            match ready {
                std::task::Poll::Ready(Err(_)) => std::task::Poll::Ready(()),
                std::task::Poll::Ready(Ok(())) => {
                    // Ready is no news; the end is seen by asking again.
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        });
        tokio::time::timeout(DEADLINE, watching).await.expect("the connection was ended");
    }
}

/// Sends these bytes and returns all that comes until the other side ends the connection.
pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after an answer is as good an end as any.
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(DEADLINE, reading).await.expect("the connection was ended");
    answer
}
