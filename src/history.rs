//! History and count: the vendor's create-handle-poll dance as one answer.
//!
//! To be written by its owner; the signatures are the contract with the routes and the composition root.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::egress::{Costs, Failure};
use crate::names::AppId;
use crate::order::Payer;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct History;

/// How a caller wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who asks and pays.
    pub payer: Payer,
    /// When it gives up waiting.
    pub deadline: Instant,
    /// `Cache-Control: no-cache`: go past kept results.
    pub fresh: bool,
    /// `Prefer: respond-async`: do not wait at all.
    pub respond_async: bool,
}

/// An answer to a caller: a JSON body whose `request_id` is still to be written.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How it ended.
    pub state: State,
    /// The members of the body after `request_id`, rendered: `"code":"ok",…` without braces. Shared between callers.
    pub members: Vec<Bytes>,
    /// What it cost this caller (nothing when it was shared or kept).
    pub costs: Costs,
}

/// How far a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The messages are there: 200.
    Done,
    /// `Prefer: respond-async`: 202 with `location`.
    Accepted,
    /// A GET of a handle whose work goes on: 200 with `code: "in progress"`, as the vendor says it.
    InProgress,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A parameter is wrong; the text names it. 400.
    #[error("{0}")]
    BadRequest(String),
    /// The deadline passed; the work goes on. 504 with `code: "in progress"` and this `location`, when there is one.
    #[error("the deadline passed; the work goes on")]
    StillRunning {
        /// Where the result will be; `None` for a count.
        location: Option<String>,
    },
    /// No such handle, or not this client's, or expired. 410 with `code: "resource not exist"`.
    #[error("no such handle")]
    NoSuchHandle,
    /// The vendor refused the caller's request: its status and body pass through.
    #[error("the vendor refused the request")]
    Refused(Arc<crate::egress::Reply>),
    /// The vendor's answers cannot be understood. 502.
    #[error("the vendor's answer cannot be understood: {0}")]
    BadUpstream(String),
    /// Egress failed.
    #[error(transparent)]
    Egress(#[from] Failure),
    /// Too much is being resolved already. 503.
    #[error("too many queries under way")]
    Crowded,
}

impl History {
    /// `POST …/history/query`: parses the body, resolves the query and pages through it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn query(&self, _app: &AppId, _body: &[u8], _terms: Terms) -> Result<Answer, Error> {
        unimplemented!()
    }

    /// `GET …/history/query/{handle}`: the result of a query this client made.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch(&self, _app: &AppId, _handle: &str, _terms: Terms) -> Result<Answer, Error> {
        unimplemented!()
    }

    /// `GET …/history/count`: parses the query string and waits out `in progress`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count(&self, _app: &AppId, _query: Option<&str>, _terms: Terms) -> Result<Answer, Error> {
        unimplemented!()
    }
}
