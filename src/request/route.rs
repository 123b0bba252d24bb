//! The URL space, parsed once: a request's method and target in, a [`Route`] out, then a [`Call`] inside a grant.
//!
//! Invariants: everything a request says in its path and query is a value here, decoded and checked; no later stage
//! looks at the caller's URL again. What cannot be read is 400 and names the parameter, what is nowhere is 404, what
//! takes another method is 405. Only [`Route::within`] makes a [`Call`], so nothing runs that was not granted.

mod ack_request;
pub mod browsers;
mod events_query;
pub(crate) mod operations;
pub(crate) mod path;
pub(crate) mod query;
pub mod target;

use std::sync::Arc;

use hyper::{HeaderMap, Method, Uri};

use crate::config;
use crate::http::headers::accept;
use crate::kernel::names::{Action, AppId, Stream, Streams};
use crate::kernel::proof::{Basis, Life};
use crate::request::policy::{Grant, Terms};
use crate::request::refusal::Refusal;
use crate::vendor::order::Payer;

pub use ack_request::{AckAction, AckRequest};
pub use events_query::{EventsQuery, ExplicitAck, Start, StartPosition};
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
    /// Of which app.
    pub app: AppId,
    /// What.
    pub kind: Kind,
}

/// The kinds of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read of events.
    Events {
        /// Of which stream, or both.
        streams: Streams,
        /// In whose words.
        form: Form,
        /// From where, and how many.
        query: EventsQuery,
    },
    /// `POST …/events/{stream}/{ack|nack|extend}`.
    Acknowledge {
        /// Of which stream.
        stream: Stream,
        /// Which of the three.
        what: AckAction,
    },
    /// `POST …/history/query`.
    HistoryQuery,
    /// `GET …/history/query/{handle}`.
    HistoryFetch {
        /// The handle.
        handle: String,
    },
    /// `GET /v1/apps/{app}/history`.
    HistoryStream {
        /// The query parameters, decoded; the service reads them.
        query: Vec<(String, String)>,
    },
    /// `GET …/history/count`.
    Count {
        /// The query parameters, decoded; the service reads the vendor's odd forms of them.
        query: Vec<(String, String)>,
    },
    /// `POST …/users/{user}/{peer_messages|channel_messages}`.
    Message {
        /// To a user or to a channel.
        to: Addressee,
        /// As whom.
        user: String,
        /// The query parameters, passed on.
        query: Vec<(String, String)>,
    },
}

/// The form of an events read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As the vendor answers.
    Vendor,
    /// Our own: with cursors, times and markers.
    Native,
    /// Our own, as it goes: Server-Sent Events.
    Stream,
}

/// The forms of a native read, the one for whoever does not say first.
const NATIVE_FORMS: [&str; 2] = ["application/json", "text/event-stream"];

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Addressee {
    Peer,
    Channel,
}

/// What is asked, of which app, and who asks and pays.
#[derive(Debug)]
pub struct AppRequest {
    /// What.
    pub kind: Kind,
    /// Of which app.
    pub app: Arc<config::App>,
    /// Who pays for what it costs.
    pub payer: Payer,
    /// Why it may be done. What goes on for long is judged by it again after each reload.
    pub basis: Basis,
    /// How long what showed the caller is good by itself.
    pub life: Life,
}

/// A route the caller may use.
#[derive(Debug)]
pub struct Call {
    request: AppRequest,
    terms: Terms,
}

impl OpenRoute {
    /// Reads a request's target. `None`: it is for callers we know.
    ///
    /// # Errors
    /// 405 for another method than GET and HEAD, 400 for a parameter.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Option<Self>, Refusal> {
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
        if method == Method::CONNECT {
            return Err(Refusal::MethodNotAllowed { allow: "GET, POST" });
        }
        let segments = path::segments(uri.path())?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let get = || allow(method, &Method::GET, "GET");
        let post = || allow(method, &Method::POST, "POST");
        let (app, kind) = match segments.as_slice() {
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
                let what = AckAction::parse(what).ok_or(Refusal::NoSuchRoute)?;
                post()?;
                query::none(uri.query())?;
                (app, Kind::Acknowledge { stream, what })
            }
            ["v1", "apps", app, "history"] => {
                get()?;
                (app, Kind::HistoryStream { query: query::pairs(uri.query())? })
            }
            _ => return Err(Refusal::NoSuchRoute),
        };
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

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Events { streams, form: Form::Vendor, .. } => streams.as_str(),
            Kind::Events { streams, form: Form::Native, .. } => match streams {
                Streams::One(Stream::UserEvents) => "native_user_events",
                Streams::One(Stream::ChannelEvents) => "native_channel_events",
                Streams::All => "native_all",
            },
            Kind::Events { streams, form: Form::Stream, .. } => match streams {
                Streams::One(Stream::UserEvents) => "stream_user_events",
                Streams::One(Stream::ChannelEvents) => "stream_channel_events",
                Streams::All => "stream_all",
            },
            Kind::Acknowledge { what, .. } => match what {
                AckAction::Ack => "events_ack",
                AckAction::Nack => "events_nack",
                AckAction::Extend => "events_extend",
            },
            Kind::HistoryQuery => "history_query",
            Kind::HistoryFetch { .. } => "history_fetch",
            Kind::HistoryStream { .. } => "history_stream",
            Kind::Count { .. } => "history_count",
            Kind::Message { to: Addressee::Peer, .. } => "peer_messages",
            Kind::Message { to: Addressee::Channel, .. } => "channel_messages",
        }
    }

    /// The call, when the grant covers it, or its client is in report mode (then the call says so).
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when it does not, or there is no such app.
    pub fn within(self, grant: &Grant<'_>) -> Result<Call, Refusal> {
        let mut terms = grant.terms();
        let app = match (self.allowed(grant), grant.unenforced(&self.app)) {
            (Ok(app), _) => app,
            (Err(refusal), None) => return Err(refusal),
            (Err(_), Some(app)) => {
                terms.would_forbid = true;
                app
            }
        };
        let user = match &self.kind {
            Kind::Message { user, .. } => Some(user.as_str()),
            Kind::Events { .. }
            | Kind::Acknowledge { .. }
            | Kind::HistoryQuery
            | Kind::HistoryFetch { .. }
            | Kind::HistoryStream { .. }
            | Kind::Count { .. } => None,
        };
        let basis = grant.basis(&self.app, self.action(), user);
        let request = AppRequest { kind: self.kind, app, payer: grant.payer(), basis, life: grant.life() };
        Ok(Call { request, terms })
    }

    fn allowed(&self, grant: &Grant<'_>) -> Result<Arc<config::App>, Refusal> {
        let app = grant.app(&self.app, self.action())?;
        match &self.kind {
            Kind::Message { user, .. } if !grant.sends_as(&self.app, user) => Err(Refusal::Forbidden),
            _ => Ok(app),
        }
    }
}

impl Kind {
    /// What a client must be allowed to do for it.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Events { .. } | Self::Acknowledge { .. } => Action::Events,
            Self::HistoryQuery | Self::HistoryFetch { .. } | Self::HistoryStream { .. } => Action::History,
            Self::Count { .. } => Action::Count,
            Self::Message { .. } => Action::Messages,
        }
    }
}

impl Call {
    /// On which terms it is to be admitted.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Who pays.
    #[must_use]
    pub fn payer(&self) -> &Payer {
        &self.request.payer
    }

    /// What is asked. Of no use without an [`Admitted`](crate::request::admission::Admitted).
    #[must_use]
    pub fn into_request(self) -> AppRequest {
        self.request
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
