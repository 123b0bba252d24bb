//! What a route hands to the spine: an answer on its way out.

use hyper::{HeaderMap, StatusCode};

use crate::events::Receipt;
use crate::http::body::Body;

/// An answer on its way out.
#[derive(Debug)]
pub struct HandlerResponse {
    pub status: StatusCode,
    /// Its headers, but for those that every answer has.
    pub headers: HeaderMap,
    pub body: Body,
    /// Who decided the status.
    pub origin: Origin,
    /// What stands for the events in it.
    pub receipts: Vec<Receipt>,
}

impl HandlerResponse {
    /// An answer of the gateway's own, without events.
    #[must_use]
    pub(crate) fn of_gateway(status: StatusCode, headers: HeaderMap, body: Body) -> Self {
        Self { status, headers, body, origin: Origin::Gateway, receipts: Vec::new() }
    }

    /// The vendor's answer, passed on: its status and body, and of its headers those that may come back.
    #[must_use]
    pub(crate) fn of_vendor(status: StatusCode, headers: HeaderMap, body: Body) -> Self {
        Self { status, headers, body, origin: Origin::Vendor, receipts: Vec::new() }
    }
}

/// Who decided a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The gateway, also where it made its answer from the vendor's (events, history, count).
    Gateway,
    /// The vendor: status and body are its own.
    Vendor,
}

impl Origin {
    /// The word in `X-RTM-Origin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Vendor => "vendor",
        }
    }
}
