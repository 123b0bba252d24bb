//! The OpenAPI document: all that callers and operators may ask, served at `/openapi.json` on both ports, to anybody.
//!
//! Invariants: the document lists exactly the operations that the tables of [`operations`](crate::request::route::operations) list, of
//! both ports; each port's code says for each request it serves which operation it is, so a route cannot be added without
//! an entry (`tests/it/openapi.rs` holds the two equal). It holds nothing of the configuration.

use hyper::{Method, Uri};

use crate::request::refusal::Refusal;
use crate::request::route::query;

/// Where it is.
pub const PATH: &str = "/openapi.json";

/// The document (OpenAPI 3.1, JSON).
pub const DOCUMENT: &str = include_str!("openapi/document.json");

/// Whether this is asked for.
///
/// # Errors
/// 405 for another method than GET and HEAD, 400 for a parameter.
pub fn is_asked(method: &Method, uri: &Uri) -> Result<bool, Refusal> {
    match (uri.path(), method) {
        (PATH, &(Method::GET | Method::HEAD)) => query::none(uri.query()).map(|()| true),
        (PATH, _) => Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" }),
        _ => Ok(false),
    }
}
