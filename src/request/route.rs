//! The URL space, parsed once: a request's method and target in, a [`Route`] out, then a [`Call`] inside a grant.
//!
//! Invariants: everything a request says in its path and query is a value here, decoded and checked; no later stage
//! looks at the caller's URL again. What cannot be read is 400 and names the parameter, what is nowhere is 404, what
//! takes another method is 405.

mod ack_request;
pub mod browsers;
mod call;
mod events_query;
mod kind;
mod next_request;
pub(crate) mod operations;
pub(crate) mod path;
pub(crate) mod query;
pub mod target;

use hyper::{HeaderMap, Method, Uri};

use crate::http::headers::accept;
use crate::kernel::names::{Action, AppId, Stream, Streams};
use crate::request::refusal::Refusal;

pub use ack_request::{AckAction, AckRequest};
pub use call::{AppRequest, Call};
pub use events_query::{EventsQuery, ExplicitAck, Start, StartPosition};
pub use kind::{Addressee, Form, Kind};
pub use next_request::NextRequest;
pub use operations::Operation;

/// What anybody may ask, known or not: looked for before it is asked who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenRoute {
    /// `GET /openapi.json`.
    Document,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub app: AppId,
    pub kind: Kind,
}

/// Segments of the longest route.
const MOST_SEGMENTS: usize = 8;

/// The forms of a native read, the one for whoever does not say first.
const NATIVE_FORMS: [&str; 2] = ["application/json", "text/event-stream"];

impl OpenRoute {
    /// Reads a request's target. `None`: it is for callers we know.
    ///
    /// # Errors
    /// 405 for another method than GET and HEAD, 400 for a parameter.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Option<Self>, Refusal> {
        // By its text: another spelling of the path is nobody's, and is 404 for those we know.
        match (uri.path(), method) {
            ("/openapi.json", &(Method::GET | Method::HEAD)) => query::none(uri.query()).map(|()| Some(Self::Document)),
            ("/openapi.json", _) => Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" }),
            _ => Ok(None),
        }
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Document => "openapi",
        }
    }
}

impl Route {
    /// Reads a request's target.
    ///
    /// # Errors
    /// 400, 404 or 405; 403 for an app id that no app can have, as for any app that does not exist.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Self, Refusal> {
        // Its target is a host, not a path (RFC 9110, 9.3.6).
        if method == Method::CONNECT {
            return Err(Refusal::MethodNotAllowed { allow: "GET, POST" });
        }
        let segments = path::segments(uri.path())?;
        // Of one that is longer than any route, its first segments are none.
        let mut names = [""; MOST_SEGMENTS + 1];
        names.iter_mut().zip(&segments).for_each(|(name, segment)| *name = segment.as_ref());
        let names = &names[..segments.len().min(names.len())];
        let get = || allow(method, &Method::GET, "GET");
        let post = || allow(method, &Method::POST, "POST");
        let (app, kind) = match names {
            ["dev", "v2", "project", app, "rtm", rest @ ..] => match rest {
                ["vendor", stream @ ("user_events" | "channel_events")] => {
                    (app, events(stream, Form::Vendor, uri, get)?)
                }
                ["message", "history", "query"] => {
                    post()?;
                    query::none(uri.query())?;
                    (app, Kind::HistoryQuery)
                }
                ["message", "history", "query", handle] => {
                    get()?;
                    query::none(uri.query())?;
                    (app, Kind::HistoryFetch { handle: (*handle).to_owned() })
                }
                ["message", "history", "count"] => {
                    get()?;
                    (app, Kind::Count { query: query::pairs(uri.query())? })
                }
                ["users", user, "peer_messages"] => (app, message(Addressee::Peer, user, uri, post)?),
                ["users", user, "channel_messages"] => (app, message(Addressee::Channel, user, uri, post)?),
                _ => return Err(Refusal::NoSuchRoute),
            },
            ["v1", "apps", app, "events", stream] => (app, events(stream, Form::Native, uri, get)?),
            ["v1", "apps", app, "events", stream, what] => {
                let stream = Stream::parse(stream).ok_or(Refusal::NoSuchRoute)?;
                let kind = match *what {
                    "next" => Kind::NextEvents { stream },
                    what => Kind::Acknowledge { stream, what: AckAction::parse(what).ok_or(Refusal::NoSuchRoute)? },
                };
                post()?;
                query::none(uri.query())?;
                (app, kind)
            }
            ["v1", "apps", app, "history"] => {
                get()?;
                (app, Kind::HistoryStream { query: query::pairs(uri.query())? })
            }
            _ => return Err(Refusal::NoSuchRoute),
        };
        // Last, so that an id which no app can have is refused in the same way as one which no app has.
        Ok(Self { app: AppId::parse(app).map_err(|_| Refusal::Forbidden)?, kind })
    }

    /// The same, in the form that the caller accepts.
    ///
    /// # Errors
    /// 400 when something is asked that this form does not know.
    pub fn accepted(mut self, headers: &HeaderMap) -> Result<Self, Refusal> {
        if let Kind::Events { streams, form, query } = &mut self.kind {
            if *form == Form::Native && accept::preferred(headers, &NATIVE_FORMS) == 1 {
                *form = Form::Stream;
                query.for_stream(headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?")), *streams)?;
            } else {
                query.for_one_answer()?;
            }
        }
        Ok(self)
    }

    /// What a client must be allowed to do for it.
    #[must_use]
    pub fn action(&self) -> Action {
        self.kind.action()
    }
}

fn events(stream: &str, form: Form, uri: &Uri, get: impl Fn() -> Result<(), Refusal>) -> Result<Kind, Refusal> {
    let streams = Streams::parse(stream).ok_or(Refusal::NoSuchRoute)?;
    get()?;
    Ok(Kind::Events { streams, form, query: EventsQuery::parse(uri.query(), streams, form)? })
}

fn message(to: Addressee, user: &str, uri: &Uri, post: impl Fn() -> Result<(), Refusal>) -> Result<Kind, Refusal> {
    post()?;
    let query = query::pairs(uri.query())?;
    Ok(Kind::Message { to, user: user.to_owned(), query })
}

fn allow(method: &Method, wanted: &Method, allow: &'static str) -> Result<(), Refusal> {
    if method == wanted { Ok(()) } else { Err(Refusal::MethodNotAllowed { allow }) }
}

#[cfg(test)]
mod tests;
