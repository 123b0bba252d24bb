//! Requests as they came.

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Version};
use tokio::time::Instant;

use super::Endpoint;

/// A request the simulator saw.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// The endpoint; `None` when the target was none.
    pub endpoint: Option<Endpoint>,
    pub method: Method,
    /// Path and query as they came.
    pub target: String,
    pub version: Version,
    /// All headers, the credential included.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// When it was counted against the limit; `None` when it was not.
    pub counted: Option<Instant>,
    /// The number of its connection, from 1.
    pub connection: u64,
}

impl SeenRequest {
    pub(super) fn new(
        head: &Parts,
        body: &Bytes,
        endpoint: Option<Endpoint>,
        counted: Option<Instant>,
        connection: u64,
    ) -> Self {
        Self {
            endpoint,
            method: head.method.clone(),
            target: head.uri.path_and_query().map_or_else(String::new, |pq| pq.as_str().to_owned()),
            version: head.version,
            headers: head.headers.clone(),
            body: body.clone(),
            counted,
            connection,
        }
    }

    /// A header's text, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
