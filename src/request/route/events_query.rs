//! [`EventsQuery`]: the parameters of an events read.
//!
//! Invariant: a parameter that is unknown, given twice or not understood is refused by its name; none is ignored.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::Form;
use super::query::{duration, pairs, start, unknown};
use crate::events::{CursorPair, Filter, StartAt};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{Stream, Streams, SubscriptionName};
use crate::request::refusal::Refusal;
use crate::vendor::order::Payer;

/// The longest a caller may have us wait for events.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The most events in one answer: as many as the vendor gives.
const MAX_EVENTS: usize = 1000;
/// How many events are leased at a time when nothing is said.
const MAX_LEASED: usize = 100;
/// The most patterns of one filter, and the longest, in bytes: each is held against each event.
const MAX_PATTERNS: usize = 64;
const MAX_PATTERN: usize = 256;
/// How long a batch may be leased, and how often given.
const LEASES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(12 * 3600);
const ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=1000;

/// The parameters of an events read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsQuery {
    /// `subscription`; `None`: the one of the client's name.
    pub(super) subscription: Option<SubscriptionName>,
    /// Of `from` or `after`, whichever is there.
    pub start: Start,
    pub limit: usize,
    /// `wait`, at most a minute.
    pub wait: Option<Duration>,
    /// `type`, `user_id` and `group_id`.
    pub filter: Arc<Filter>,
    /// How, with `ack=explicit`.
    pub ack: Option<ExplicitAck>,
    /// `lastEventId` or `last_event_id`: what the reader of a stream has.
    pub last_event_id: Option<CursorPair>,
}

/// Explicit acknowledgement, as far as the reader says how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExplicitAck {
    /// How long an event is leased, if it is said.
    pub lease: Option<Duration>,
    /// After how many attempts an event is given up, if it is said.
    pub max_attempts: Option<u32>,
}

/// Where an events read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where the subscription is; a new one begins here.
    Stored(StartPosition),
    /// After this place, moving nothing.
    After(StartPosition),
}

/// Where a new subscription begins, or a read without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    Earliest,
    Latest,
    Since(UnixMillis),
    After(CursorPair),
}

impl StartPosition {
    /// In one of the streams.
    #[must_use]
    pub fn of(self, stream: Stream) -> StartAt {
        match self {
            Self::Earliest => StartAt::Earliest,
            Self::Latest => StartAt::Latest,
            Self::Since(time) => StartAt::Since(time),
            Self::After(marks) => StartAt::After(marks.of(stream)),
        }
    }
}

impl EventsQuery {
    /// Reads a query string of a read of these streams. The vendor's form takes a part of the parameters only.
    ///
    /// # Errors
    /// 400, naming the parameter.
    pub fn parse(query: Option<&str>, streams: Streams, form: Form) -> Result<Self, Refusal> {
        Self::of_pairs(pairs(query)?, streams, form)
    }

    /// The same of parameters that were read already, wherever they stood.
    pub(super) fn of_pairs(
        pairs: impl IntoIterator<Item = (String, String)>,
        streams: Streams,
        form: Form,
    ) -> Result<Self, Refusal> {
        let (mut subscription, mut limit, mut wait, mut from, mut after) = (None, None, None, None, None);
        let (mut ack, mut lease, mut max_attempts) = (None, None, None);
        let (mut last_event_id, mut remembered) = (None, None);
        let mut patterns = Patterns::default();
        let marks = |value: &str| CursorPair::read(value, streams).ok();
        for (name, value) in pairs {
            match (name.as_str(), form) {
                ("subscription", _) => once(&name, &mut subscription, SubscriptionName::parse(&value).ok())?,
                ("limit", _) => once(&name, &mut limit, value.parse().ok().filter(|n| (1..=MAX_EVENTS).contains(n)))?,
                ("wait", _) => once(&name, &mut wait, duration(&value))?,
                ("from", _) => once(&name, &mut from, begin(&value, streams))?,
                ("after", _) => once(&name, &mut after, begin(&value, streams))?,
                (_, Form::Vendor) => return Err(unknown(&name)),
                ("type" | "user_id" | "group_id", _) => patterns.push(&name, value)?,
                ("ack", _) => once(&name, &mut ack, explicit(&value))?,
                ("lease", _) => once(&name, &mut lease, duration(&value).filter(|time| LEASES.contains(time)))?,
                ("max_attempts", _) => {
                    once(&name, &mut max_attempts, value.parse().ok().filter(|n| ATTEMPTS.contains(n)))?;
                }
                ("last_event_id", _) => once(&name, &mut last_event_id, marks(&value))?,
                // Before the first event there is nothing to remember, as with an empty header.
                ("lastEventId", _) if value.is_empty() => once(&name, &mut remembered, Some(None))?,
                ("lastEventId", _) => once(&name, &mut remembered, marks(&value).map(Some))?,
                _ => return Err(unknown(&name)),
            }
        }
        let start = match (from, after) {
            (Some(_), Some(_)) => return Err(Refusal::bad("from: says where a subscription starts, not with `after`")),
            (from, None) => Start::Stored(from.unwrap_or(StartPosition::Earliest)),
            (None, Some(after)) => Start::After(after),
        };
        let ack = match (ack, lease, max_attempts) {
            (Some(true), ..) if streams == Streams::All => {
                return Err(Refusal::bad("ack: explicit acknowledgement is of one stream at a time"));
            }
            (Some(true), ..) if matches!(start, Start::After(_)) => {
                return Err(Refusal::bad("ack: there is nothing to acknowledge with `after`"));
            }
            (Some(true), lease, max_attempts) => Some(ExplicitAck { lease, max_attempts }),
            (_, Some(_), _) => return Err(Refusal::bad("lease: only with ack=explicit")),
            (_, _, Some(_)) => return Err(Refusal::bad("max_attempts: only with ack=explicit")),
            (_, None, None) => None,
        };
        // What a browser's stand-in for `EventSource` adds to a URL is newer than what was written there.
        let last_event_id = remembered.flatten().or(last_event_id);
        let limit = limit.unwrap_or(if ack.is_some() { MAX_LEASED } else { MAX_EVENTS });
        let wait = wait.map(|wait: Duration| wait.min(MAX_WAIT));
        Ok(Self { subscription, start, limit, wait, filter: patterns.filter(), ack, last_event_id })
    }

    /// The subscription to read, for this client.
    #[must_use]
    pub fn subscription(&self, payer: &Payer) -> SubscriptionName {
        SubscriptionName::meant_by(&payer.client, self.subscription.clone())
    }

    /// Takes what the head of a stream's request says of where to go on. Checks that nothing is asked that only the
    /// other form knows.
    pub(super) fn for_stream(&mut self, last_event_id: Option<&str>, streams: Streams) -> Result<(), Refusal> {
        if self.wait.is_some() {
            return Err(Refusal::bad("wait: a stream goes on until it is ended"));
        }
        if let Some(text) = last_event_id.filter(|text| !text.is_empty()) {
            let marks = CursorPair::read(text, streams);
            let marks = marks.map_err(|_| Refusal::bad("Last-Event-ID: not a cursor of this gateway and stream"))?;
            // What the reader remembers is newer than what is written in its URL.
            self.last_event_id = Some(marks);
        }
        if let (Start::After(after), Some(last)) = (&mut self.start, self.last_event_id) {
            *after = StartPosition::After(last);
        }
        Ok(())
    }

    /// Checks that nothing is asked that only a stream knows.
    pub(super) fn for_one_answer(&self) -> Result<(), Refusal> {
        match self.last_event_id {
            Some(_) => Err(Refusal::bad("last_event_id: only with `Accept: text/event-stream`; read with `after`")),
            None => Ok(()),
        }
    }
}

/// The patterns of a filter, as they come.
#[derive(Default)]
struct Patterns {
    kinds: Vec<String>,
    user_ids: Vec<String>,
    group_ids: Vec<String>,
}

impl Patterns {
    fn push(&mut self, member: &str, pattern: String) -> Result<(), Refusal> {
        if self.kinds.len() + self.user_ids.len() + self.group_ids.len() == MAX_PATTERNS {
            return Err(Refusal::bad(format!("{member}: a filter has at most {MAX_PATTERNS} patterns")));
        }
        if pattern.len() > MAX_PATTERN {
            return Err(Refusal::bad(format!("{member}: a pattern has at most {MAX_PATTERN} bytes")));
        }
        match member {
            "type" => self.kinds.push(pattern),
            "user_id" => self.user_ids.push(pattern),
            _ => self.group_ids.push(pattern),
        }
        Ok(())
    }

    fn filter(&self) -> Arc<Filter> {
        // A stream keeps it: all who name none share one.
        static ALL: LazyLock<Arc<Filter>> = LazyLock::new(Arc::default);
        let filter = Filter::new(&self.kinds, &self.user_ids, &self.group_ids);
        if filter.is_all() { Arc::clone(&ALL) } else { Arc::new(filter) }
    }
}

fn once<T>(name: &str, place: &mut Option<T>, value: Option<T>) -> Result<(), Refusal> {
    let value = value.ok_or_else(|| Refusal::bad(format!("{name}: not understood ({})", expected(name))))?;
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad(format!("{name}: given twice"))),
    }
}

fn expected(name: &str) -> &'static str {
    match name {
        "subscription" => "1 to 128 of A-Z a-z 0-9 _ - .",
        "limit" => "1 to 1000",
        "wait" => "a duration such as 20s",
        "from" | "after" => "earliest, latest, an RFC 3339 time, or a cursor of this stream",
        "ack" => "auto or explicit",
        "lease" => "a duration from 1s to 12h",
        "max_attempts" => "1 to 1000",
        _ => "a cursor of this gateway and stream",
    }
}

fn begin(text: &str, streams: Streams) -> Option<StartPosition> {
    if let Ok(marks) = CursorPair::read(text, streams) {
        return Some(StartPosition::After(marks));
    }
    match start(text)? {
        StartAt::Earliest => Some(StartPosition::Earliest),
        StartAt::Latest => Some(StartPosition::Latest),
        StartAt::Since(time) => Some(StartPosition::Since(time)),
        // Of one stream, where both are read.
        StartAt::After(_) => None,
    }
}

/// Whether acknowledgement is explicit.
fn explicit(text: &str) -> Option<bool> {
    match text {
        "explicit" => Some(true),
        "auto" => Some(false),
        _ => None,
    }
}
