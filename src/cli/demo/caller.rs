//! A service that calls the gateway over real HTTP, as the demo's actors do.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// No answer of the demo is larger.
const LARGEST: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// A caller with a key.
#[derive(Clone)]
pub(super) struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    gateway: SocketAddr,
    key: &'static str,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The JSON body; null when there was none.
    pub(super) body: Value,
}

impl Caller {
    pub(super) fn new(gateway: SocketAddr, key: &'static str) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), gateway, key }
    }

    /// GETs a path.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(Method::GET, path, None).await
    }

    /// POSTs JSON to a path.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.gateway))
            .header("x-api-key", self.key)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|e| e.to_string())?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| e.to_string())?;
            let status = response.status();
            let bytes = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|e| e.to_string())?;
            let body = serde_json::from_slice(&bytes.to_bytes()).unwrap_or(Value::Null);
            Ok(Answer { status, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| format!("no answer to {path} in a minute"))?
    }
}

impl Answer {
    /// The body, if the status is 200.
    pub(super) fn ok(self) -> Result<Value, String> {
        if self.status == StatusCode::OK { Ok(self.body) } else { Err(format!("{}: {}", self.status, self.body)) }
    }
}
