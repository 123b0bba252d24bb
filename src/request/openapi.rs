//! The OpenAPI document: all that callers and operators may ask, served at `/openapi.json` on both ports, to anybody.
//!
//! Invariants: the document lists exactly the operations that the tables of [`operations`](crate::request::route::operations) list, of
//! both ports; each port's code says for each request it serves which operation it is, so a route cannot be added without
//! an entry (`tests/it/openapi.rs` holds the two equal). It holds nothing of the configuration.

/// The document (OpenAPI 3.1, JSON).
pub const DOCUMENT: &str = include_str!("openapi/document.json");
