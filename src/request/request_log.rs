//! A [`RequestLog`]: what is known of a request, written as one log line and counted once, when its answer ended.
//!
//! Invariants: the line is written on drop, so every request has one, however it ended; it says whether the answer was
//! handed over, which here is: given to the system whole. It holds no header value but what `user_agent` lets through,
//! no body, no path (users' ids and handles stand in paths), no app that is not configured, and of the query only the
//! parameters' names, as far as they are words. Labels of metrics come from the configuration and from fixed sets.

mod user_agent;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use crate::http::headers::X_RTM_ORIGIN;
use crate::http::request_id::{RequestId, X_REQUEST_ID};
use crate::kernel::clock::Clock;
use crate::kernel::conn::Peer;
use crate::kernel::log_list::List;
use crate::kernel::metrics::{CeilingLabels, Metrics, RequestLabels, RouteLabels, ShedLabels, WouldRefuseLabels};
use crate::kernel::names::{AppId, ClientName, SubscriptionName};
use crate::request::admission::Reason;
use crate::request::gateway::{Gateway, Live};
use crate::request::identity::{AuthFault, AuthMethod};
use crate::request::refusal::Refusal;
use crate::request::response::Origin;
use crate::request::route::query::printable;
use crate::request::route::{OpenRoute, Route};
use crate::upstream::egress::{Account, Costs, WorkCosts};
use user_agent::user_agent;

/// The most of a query's parameter names that a log line shows, in bytes.
const MAX_OF_QUERY: usize = 128;

/// What is known of a request.
pub struct RequestLog {
    clock: Clock,
    began: Instant,
    metrics: Metrics,
    access_log: bool,
    id: RequestId,
    peer: Peer,
    /// Empty where no line is written.
    user_agent: String,
    proof: Proof,
    method: &'static str,
    query: List,
    client: Option<ClientName>,
    app: Option<AppId>,
    subscription: Option<SubscriptionName>,
    route: &'static str,
    status: Option<StatusCode>,
    origin: Origin,
    code: Option<&'static str>,
    cause: Option<Arc<str>>,
    costs: Costs,
    /// What is done for it that may go on without it, and that others may share.
    account: Option<Account>,
    /// How long its body took to come.
    receive_time: Duration,
    /// When its answer was made.
    answered: Option<Instant>,
    /// The answer goes on for as long as it is made, or its caller likes.
    is_stream: bool,
    /// Of the answer's body, as far as the connection took it.
    bytes: u64,
    /// Why it would have been refused if its client were not in report mode.
    would_refuse: Option<Reason>,
    /// All of the answer was given to the system.
    is_handed_over: bool,
}

/// What is known of who calls.
#[derive(Clone, Copy, Debug)]
enum Proof {
    /// It was not asked: the request was refused before, or anybody may make it.
    NotAsked,
    By(AuthMethod),
    Fault(AuthFault),
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => Ok(()),
            Self::By(method) => method.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl RequestLog {
    /// Of a request that just came from this peer.
    #[must_use]
    pub fn begin(gateway: &Gateway, live: &Live, peer: Peer, head: &Parts) -> Self {
        Self {
            clock: gateway.clock.clone(),
            began: gateway.clock.now(),
            metrics: gateway.metrics.clone(),
            access_log: live.access_log,
            id: RequestId::of(&head.headers),
            peer,
            user_agent: if live.access_log { user_agent(&head.headers) } else { String::new() },
            proof: Proof::NotAsked,
            method: method_name(&head.method),
            query: query_names(head.uri.query().unwrap_or_default()),
            client: None,
            app: None,
            subscription: None,
            route: "unmatched",
            status: None,
            origin: Origin::Gateway,
            code: None,
            cause: None,
            costs: Costs::default(),
            account: None,
            receive_time: Duration::ZERO,
            answered: None,
            is_stream: false,
            bytes: 0,
            would_refuse: None,
            is_handed_over: false,
        }
    }

    /// The request's name.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Who calls, and how that is known.
    pub fn client(&mut self, name: &ClientName, method: AuthMethod) {
        self.client = Some(name.clone());
        self.proof = Proof::By(method);
    }

    /// Why it is not known who calls.
    pub fn unidentified(&mut self, fault: AuthFault) {
        self.proof = Proof::Fault(fault);
    }

    /// Which subscription is read, or spoken for.
    pub fn subscription(&mut self, name: &SubscriptionName) {
        self.subscription = Some(name.clone());
    }

    /// Its body begins to be waited for: what [`RequestLog::received`] is to be told.
    #[must_use]
    pub(crate) fn receive(&self) -> Instant {
        self.clock.now()
    }

    /// Its body is there, or will not come.
    pub(crate) fn received(&mut self, since: Instant) {
        self.receive_time += self.clock.now().saturating_duration_since(since);
    }

    /// What is asked, of an app that `exists` or not.
    pub fn route(&mut self, route: &Route, exists: bool) {
        self.route = route.kind.name();
        self.app = exists.then(|| route.app.clone());
    }

    /// What is asked, where anybody may.
    pub(crate) fn open_route(&mut self, route: OpenRoute) {
        self.route = route.name();
    }

    /// It was admitted, possibly only because its client is in report mode.
    pub fn admitted(&mut self, would_refuse: Option<Reason>) {
        if let (Some(reason), Some(client)) = (would_refuse, &self.client) {
            let labels = WouldRefuseLabels { client: client.to_string(), reason: reason.as_str().into() };
            self.metrics.would_refuse.get_or_create(&labels).inc();
        }
        self.would_refuse = would_refuse;
    }

    /// What it costs at the vendor: whoever asks there for it adds it up.
    pub(crate) fn costs(&mut self) -> &mut Costs {
        &mut self.costs
    }

    /// Where that is told as it comes about, for work that may go on without the request.
    pub(crate) fn account(&mut self) -> Account {
        self.account.get_or_insert_default().clone()
    }

    /// Why it was refused.
    pub fn refused(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::Shed { what, .. } => {
                let labels = ShedLabels { reason: what.as_str().into() };
                self.metrics.requests_shed.get_or_create(&labels).inc();
            }
            Refusal::ClientLimit { ceiling, .. } => {
                let client = self.client.as_ref().map_or("", ClientName::as_str).to_owned();
                let labels = CeilingLabels { client, limit: ceiling.name().into() };
                self.metrics.client_limit_rejections.get_or_create(&labels).inc();
            }
            _ => {}
        }
        self.code = Some(refusal.code());
        self.cause = refusal.cause().map(Into::into);
    }

    /// The answer is made; a stream is only begun.
    pub(crate) fn answered(&mut self, status: StatusCode, origin: Origin, is_stream: bool) {
        self.answered = Some(self.clock.now());
        self.is_stream = is_stream;
        self.status = Some(status);
        self.origin = origin;
    }

    /// So many bytes of the answer's body were taken by the connection.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// All of the answer was given to the system.
    pub(crate) fn handed_over(&mut self) {
        self.is_handed_over = true;
    }

    /// Writes what every answer's head has.
    pub(crate) fn mark(&self, headers: &mut HeaderMap, origin: Origin) {
        headers.insert(X_REQUEST_ID, self.id.header_value());
        headers.insert(X_RTM_ORIGIN, HeaderValue::from_static(origin.as_str()));
    }

    fn write(&self) {
        let status = self.status.map_or(0, |s| s.as_u16());
        let now = self.clock.now();
        let time = now.saturating_duration_since(self.began);
        let send_time = self.answered.map_or(Duration::ZERO, |answered| now.saturating_duration_since(answered));
        let client = self.client.as_ref().map_or("", ClientName::as_str);
        // 499 as nginx counts it: the caller left before there was an answer.
        let label = if status == 0 { 499 } else { status };
        let who = self.client.as_ref().map_or_else(Arc::default, ClientName::shared);
        let labels = RequestLabels { route: self.route, client: who, status: label };
        self.metrics.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route: self.route };
        self.metrics.request_duration.get_or_create(&labels).observe(time.as_secs_f64());
        if self.answered.is_some() && !self.is_stream {
            self.metrics.response_send.observe(send_time.as_secs_f64());
        }
        let cause = self.cause.as_deref().unwrap_or_default();
        if !self.access_log {
            if status >= 500 {
                tracing::warn!(
                    target: "rtm_gateway::request::flow::trail",
                    request_id = %self.id,
                    peer = %self.peer,
                    client,
                    route = self.route,
                    status,
                    cause,
                    "request failed"
                );
            }
            return;
        }
        let work = self.account.as_ref().and_then(Account::work);
        let costs = work.map_or_else(|| self.costs.clone(), |work| work.sum(now));
        tracing::info!(
            target: "rtm_gateway::access",
            request_id = %self.id,
            peer = %self.peer,
            user_agent = &*self.user_agent,
            client,
            proof = %self.proof,
            app = self.app.as_ref().map_or("", AppId::as_str),
            method = self.method,
            route = self.route,
            query = self.query.field(),
            subscription = self.subscription.as_ref().map_or("", SubscriptionName::as_str),
            status,
            origin = self.origin.as_str(),
            code = self.code.unwrap_or_default(),
            cause,
            would_refuse = self.would_refuse.map_or("", Reason::as_str),
            receive_ms = millis(self.receive_time),
            queue_wait_ms = millis(costs.queue_wait),
            upstream_ms = millis(costs.upstream_time),
            upstream_exchanges = costs.exchanges,
            shared = work.is_some_and(WorkCosts::is_shared),
            upstream_request_id = costs.upstream_request_id.as_deref().unwrap_or_default(),
            send_ms = millis(send_time),
            bytes = self.bytes,
            duration_ms = millis(time),
            end = self.end(),
            "request"
        );
    }

    fn end(&self) -> &'static str {
        match (self.status, self.is_handed_over) {
            (_, true) => "handed_over",
            (Some(_), false) => "cut",
            (None, false) => "caller_left",
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.write();
    }
}

fn millis(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The methods of RFC 9110 by name. Any other is the caller's own text.
fn method_name(method: &Method) -> &'static str {
    let known = [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::HEAD, "HEAD"),
        (Method::PUT, "PUT"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::PATCH, "PATCH"),
        (Method::CONNECT, "CONNECT"),
        (Method::TRACE, "TRACE"),
    ];
    known.iter().find(|(known, _)| known == method).map_or("other", |(_, name)| name)
}

/// The parameters' names, as far as they are words; not all where they are too many.
fn query_names(query: &str) -> List {
    let mut names = List::default();
    let mut length = 0;
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let Some((name, _)) = pair.split_once('=') else {
            // No `=`: it could be a value as well as a name.
            continue;
        };
        length += name.len() + 1;
        if length > MAX_OF_QUERY {
            names.push("…");
            break;
        }
        names.push(printable(name).to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_query_only_names_are_kept() {
        let names = |query: &str| query_names(query).texts().join(" ");
        assert_eq!(names("limit=5&subscription=secret&&secret2&from=x"), "limit subscription from");
        assert_eq!(names("X3cret-9=&limit=&%41="), "… limit …");
        assert_eq!(names(""), "");
        let many = names(&"x=1&".repeat(500));
        assert!(many.len() < 140 && many.ends_with(" …"), "{many}");
    }
}
