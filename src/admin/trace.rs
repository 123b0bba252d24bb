//! [`Trace`]: what operators do is told in the log, one WARN line an act, whatever came of it.
//!
//! Invariants: an act's handler returns a [`Done`], and a `Done` is had only for what was before and what is after, or
//! for what was shown: an act whose trace was forgotten does not compile. The line is written when the trace is
//! dropped, so there is one also when the act was refused, failed, or its operator left in the middle. No key is in it,
//! and nothing of an event; of a path only what the operation's template has a parameter for.

use std::fmt::{Display, Write as _};

use hyper::StatusCode;

use super::answer::{Answer, Content};
use super::operations::Act;
use super::operator::Operator;
use super::rejection::Rejection;
use crate::kernel::conn::Conn;
use crate::kernel::names::SubscriptionName;

/// Of all lines about operators. A filter of `log.level`, and of whoever collects the log, can name it.
pub(super) const TARGET: &str = "rtm_gateway::operator";
/// The most of a value from a path that a line shows, in bytes: longer than any name.
const MAX_OF_VALUE: usize = 200;

/// Facts in a line: `cursor=… lag=12`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(String);

impl Facts {
    /// One.
    pub(super) fn of(name: &'static str, value: impl Display) -> Self {
        Self::default().and(name, value)
    }

    /// And another.
    pub(super) fn and(mut self, name: &'static str, value: impl Display) -> Self {
        let gap = if self.0.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{gap}{name}={value}");
        self
    }
}

/// What is known of an act.
pub(super) struct Trace {
    act: Act,
    peer: String,
    /// A name in the certificate that was shown.
    certificate: Option<String>,
    operator: Operator,
    about: About,
    before: Option<Facts>,
    after: Option<Facts>,
    shown: Option<Facts>,
    /// Its answer's status, and why it was refused or failed.
    outcome: Option<(StatusCode, Option<String>)>,
}

/// What an act is about.
#[derive(Debug, Default)]
struct About {
    app: Option<String>,
    stream: Option<String>,
    subscription: Option<String>,
    webhook: Option<String>,
    /// The number of a quarantined answer, or a dead letter's cursor.
    id: Option<String>,
}

/// A change that is under way.
pub(super) struct Change<'t>(&'t mut Trace);

/// An act that was done, and what is answered. Made by its trace alone.
pub(super) struct Done(Content);

impl Trace {
    /// Of an act that is asked for; `values` stand in its path for the parameters.
    pub(super) fn begin(act: Act, operator: Operator, conn: Option<&Conn>, values: &[&str]) -> Self {
        let peer = conn.map(|conn| conn.peer.to_string()).unwrap_or_default();
        let names = conn.and_then(Conn::certificate).and_then(|certificate| certificate.names().ok());
        let certificate = names.and_then(|names| {
            let spiffe_id = names.spiffe_id.as_ref().map(ToString::to_string);
            spiffe_id.or_else(|| names.dns.first().cloned())
        });
        let about = About::of(act, values);
        Self { act, peer, certificate, operator, about, before: None, after: None, shown: None, outcome: None }
    }

    /// Which subscription is meant by the name in the path.
    pub(super) fn means(&mut self, subscription: &SubscriptionName) {
        self.about.subscription = Some(subscription.to_string());
    }

    /// Something is about to be changed that is like this.
    pub(super) fn changes(&mut self, before: Facts) -> Change<'_> {
        self.before = Some(before);
        Change(self)
    }

    /// This was shown.
    pub(super) fn shows(&mut self, shown: Facts, content: Content) -> Done {
        self.shown = Some(shown);
        Done(content)
    }

    /// What came of it.
    pub(super) fn end(mut self, outcome: Result<Done, Rejection>) -> Answer {
        self.outcome = Some(match &outcome {
            Ok(Done(_)) => (StatusCode::OK, None),
            Err(rejection) => (rejection.status, Some(rejection.detail.clone())),
        });
        outcome.map(|Done(content)| content)
    }
}

impl Change<'_> {
    /// A part of it is done, and it is like this now: what comes may fail.
    pub(super) fn so_far(&mut self, after: Facts) {
        self.0.after = Some(after);
    }

    /// It is done, and is like this now.
    pub(super) fn done(self, after: Facts, content: Content) -> Done {
        self.0.after = Some(after);
        Done(content)
    }
}

impl About {
    fn of(act: Act, values: &[&str]) -> Self {
        let is_of_webhook = act.path().contains("/webhooks/");
        let mut about = Self::default();
        for (name, value) in act.parameters().zip(values) {
            let place = match name {
                "app" => &mut about.app,
                "stream" => &mut about.stream,
                "name" if is_of_webhook => &mut about.webhook,
                "name" => &mut about.subscription,
                _ => &mut about.id,
            };
            *place = value.get(..value.floor_char_boundary(MAX_OF_VALUE)).map(str::to_owned);
        }
        about
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let text = |facts: &Option<Facts>| facts.as_ref().map(|Facts(text)| text.clone());
        let About { app, stream, subscription, webhook, id } = &self.about;
        let (status, why) = self.outcome.take().unzip();
        let outcome = match status {
            // What it had begun to change is done to its end all the same.
            None => "cut_off",
            Some(status) if status.is_server_error() => "failed",
            Some(status) if status.is_client_error() => "refused",
            Some(_) => "done",
        };
        tracing::warn!(
            target: TARGET,
            peer = self.peer,
            operator = self.operator.as_str(),
            certificate = self.certificate,
            operation = self.act.id(),
            app,
            stream,
            subscription,
            webhook,
            id,
            before = text(&self.before),
            after = text(&self.after),
            shown = text(&self.shown),
            outcome,
            status = status.map(|status| status.as_u16()),
            why = why.flatten(),
            "an operator acted"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_act_is_about_is_in_its_path() {
        let about = About::of(Act::ClearDeadLetter, &["a", "user_events", "s", "c"]);
        let of = |it: &Option<String>| it.clone().unwrap_or_default();
        assert_eq!([&about.app, &about.stream, &about.subscription, &about.id].map(of), ["a", "user_events", "s", "c"]);
        let about = About::of(Act::ClearWebhookDeadLetter, &["a", "hook", &"é".repeat(200)]);
        assert_eq!((of(&about.webhook).as_str(), about.subscription, of(&about.id).len()), ("hook", None, 200));
    }

    #[test]
    fn facts_stand_side_by_side() {
        assert_eq!(Facts::of("letters", 3).and("asked", "all"), Facts("letters=3 asked=all".into()));
    }
}
