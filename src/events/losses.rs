//! What may have been lost, of all streams, for operators: markers and damage in the logs ([`LossIndex`]), and what
//! retention took of subscriptions before they were read ([`LossHistory`]).
//!
//! Invariant: all of it is of the store, so a restart changes nothing of what is told.
//!
//! [`LossIndex`]: super::log::loss_index::LossIndex
//! [`LossHistory`]: super::subscription::LossSpan

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use super::app_stream::AppStream;
use super::log::loss::{Loss, MarkedOutage, Marker};
use super::log::loss_index::{FoundLoss, LossKind};
use super::subscription::{LossSpan, Subscription};
use super::{Events, ReadError};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{AppId, Stream};
use crate::store::{LogKey, Sequence};

/// Which losses are asked for.
#[derive(Clone, Debug, Default)]
pub struct LossQuery {
    /// Of this app alone.
    pub app: Option<AppId>,
    /// Of this stream alone.
    pub stream: Option<Stream>,
    /// Those that ended at this time or later.
    pub since: Option<UnixMillis>,
    /// Those that began before this time.
    pub until: Option<UnixMillis>,
    /// Those after this one.
    pub after: Option<LossPlace>,
    /// At most so many.
    pub limit: usize,
}

/// What may have been lost, or was.
#[derive(Clone, Debug, Serialize)]
pub struct LossRecord {
    /// `possible_loss` (a marker in the stream), `damaged` (of the store) or `retention` (of a subscription).
    pub kind: &'static str,
    /// See the table in `docs/events.md`.
    pub reason: String,
    /// How often each reason came up, where a marker says so.
    pub reasons: BTreeMap<String, u64>,
    /// How many reads ended in doubt; `None` where no read did.
    pub count: Option<u64>,
    /// When it began.
    pub from: String,
    /// When it ended.
    pub to: String,
    pub app: String,
    pub stream: &'static str,
    /// Where it was read; `None` where that is not known, or it concerns no region.
    pub region: Option<String>,
    /// Its place: the marker's, or of the last entry that was lost.
    pub cursor: String,
    /// Whose loss it is; `None`: of all who read the stream.
    pub subscription: Option<String>,
    /// How many events were lost; `None`: nobody knows.
    pub events: Option<u64>,
}

/// One page of losses, by the time at which they began.
#[derive(Clone, Debug)]
pub struct LossPage {
    pub losses: Vec<LossRecord>,
    /// Where the next page goes on; `None` when this is the last.
    pub next: Option<LossPlace>,
    /// Whether there are older ones, within the time that was asked for, which are not told: too many.
    pub left_out: bool,
}

/// A loss's place in the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LossPlace {
    from: UnixMillis,
    app: String,
    stream: Stream,
    at: u64,
    /// Empty for a loss of the stream.
    subscription: String,
}

/// A text that no list of losses has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place in the list of losses")]
pub struct NotALossPlace;

impl fmt::Display for LossPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, app, stream, at, subscription } = self;
        write!(f, "{}/{app}/{stream}/{at}/{subscription}", from.0)
    }
}

impl FromStr for LossPlace {
    type Err = NotALossPlace;

    fn from_str(text: &str) -> Result<Self, NotALossPlace> {
        let parts: Vec<_> = text.splitn(5, '/').collect();
        let [from, app, stream, at, subscription] = parts[..] else { return Err(NotALossPlace) };
        let (from, at) = from.parse().ok().zip(at.parse().ok()).ok_or(NotALossPlace)?;
        let stream = Stream::parse(stream).ok_or(NotALossPlace)?;
        Ok(Self { from: UnixMillis(from), app: app.to_owned(), stream, at, subscription: subscription.to_owned() })
    }
}

impl Events {
    /// What may have been lost, oldest first.
    ///
    /// # Errors
    /// When there is no such stream, or the store fails.
    pub async fn losses(&self, query: &LossQuery) -> Result<LossPage, ReadError> {
        let is_asked = |key: &LogKey| {
            query.app.as_ref().is_none_or(|app| *app == key.app)
                && query.stream.is_none_or(|stream| stream == key.stream)
        };
        let streams: Vec<_> =
            self.streams().iter().filter(|(key, _)| is_asked(key)).map(|(_, s)| Arc::clone(s)).collect();
        if streams.is_empty() && (query.app.is_some() || query.stream.is_some()) {
            return Err(ReadError::NoSuchStream);
        }
        let (mut all, mut left_out) = (Vec::new(), false);
        for stream in streams {
            let (found, is_cut) = stream.losses.list(&stream.log, query.since).await?;
            left_out |= is_cut;
            all.extend(found.into_iter().map(|found| of_stream(&stream, found)));
            for subscription in stream.registry.all() {
                all.extend(
                    subscription.loss_spans().into_iter().map(|span| of_subscription(&stream, &subscription, span)),
                );
            }
        }
        all.retain(|(place, until, _)| {
            query.since.is_none_or(|since| *until >= since)
                && query.until.is_none_or(|end| place.from < end)
                && query.after.as_ref().is_none_or(|after| place > after)
        });
        all.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let has_more = all.len() > query.limit;
        all.truncate(query.limit);
        let next = all.last().map(|(place, ..)| place.clone()).filter(|_| has_more);
        let losses = all.into_iter().map(|(.., record)| record).collect();
        Ok(LossPage { losses, next, left_out })
    }
}

/// With its place, and when it ended.
type Placed = (LossPlace, UnixMillis, LossRecord);

fn of_stream(stream: &AppStream, found: FoundLoss) -> Placed {
    let FoundLoss { at, received_at, region, what } = found;
    let (kind, marker, region, events) = match what {
        LossKind::Marker(text) => ("possible_loss", Marker::read(&text), Some(region.to_string()), None),
        LossKind::Damaged(entries) => ("damaged", Marker::of(Loss::Damaged), None, Some(entries)),
    };
    // Of what is no outage nothing is known but when it was written.
    let (reasons, count, from, to) = match marker.outage {
        Some(MarkedOutage { count, reasons, from, to }) => (reasons, Some(count), from, to),
        None => (BTreeMap::new(), None, received_at, received_at),
    };
    let LogKey { app, stream: name } = stream.log.key();
    let place = LossPlace { from, app: app.to_string(), stream: *name, at: at.0, subscription: String::new() };
    let record = LossRecord {
        kind,
        reason: marker.reason,
        reasons,
        count,
        from: from.to_string(),
        to: to.to_string(),
        app: app.to_string(),
        stream: name.as_str(),
        region,
        cursor: stream.log.cursor(at).to_string(),
        subscription: None,
        events,
    };
    (place, to, record)
}

fn of_subscription(stream: &AppStream, subscription: &Subscription, span: LossSpan) -> Placed {
    let LogKey { app, stream: name } = stream.log.key();
    let (from, to) = (UnixMillis(span.from), UnixMillis(span.to));
    let of = subscription.name().to_string();
    let place = LossPlace { from, app: app.to_string(), stream: *name, at: span.first, subscription: of.clone() };
    let record = LossRecord {
        kind: "retention",
        reason: Loss::Retention.as_str().to_owned(),
        reasons: std::collections::BTreeMap::new(),
        count: None,
        from: from.to_string(),
        to: to.to_string(),
        app: app.to_string(),
        stream: name.as_str(),
        region: None,
        cursor: stream.log.cursor(Sequence(span.last)).to_string(),
        subscription: Some(of),
        events: Some(span.events),
    };
    (place, to, record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_list_is_what_its_text_says() {
        for subscription in ["", "crm", "$webhook.a"] {
            let place = LossPlace {
                from: UnixMillis(7),
                app: "demo-app".to_owned(),
                stream: Stream::UserEvents,
                at: 9,
                subscription: subscription.to_owned(),
            };
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for text in ["", "7", "7/a/b/9/", "7/a/user_events/x/", "x/a/user_events/9/", "7/a/user_events/9"] {
            assert_eq!(text.parse::<LossPlace>(), Err(NotALossPlace), "{text}");
        }
    }
}
