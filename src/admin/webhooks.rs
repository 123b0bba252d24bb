//! What an operator changes of a webhook: whether it is sent anything, and what it did not take.
//!
//! A webhook of one stream needs no `stream` anywhere here; of several, a cursor alone does not say which.

use std::collections::BTreeMap;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Content;
use super::call::Call;
use super::dead_letters::{SHOWN, asked, limit, shown, wanted};
use super::rejection::Rejection;
use super::trace::{Done, Facts, Trace};
use super::turns::Turns;
use crate::events::{Cursor, CursorPair, ReadError, Redeliver, SubscriptionStatus};
use crate::kernel::names::{AppId, Stream, Streams, SubscriptionName, WebhookName};
use crate::services::Parts;
use crate::webhooks::{CommandError, TryNow};

/// Which webhook a path names.
pub(super) struct WebhookPath {
    app: AppId,
    name: WebhookName,
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RedeliverRequest {
    #[serde(default)]
    cursors: Vec<String>,
    #[serde(default)]
    all: bool,
    stream: Option<String>,
}

/// What a list's parameters say.
struct ListQuery {
    /// In the order in which they are shown.
    streams: Vec<Stream>,
    /// Of several streams it is a place in each.
    after: CursorPair,
    limit: usize,
}

/// `POST …/webhooks/{name}/enable`, and `…/disable`.
pub(super) async fn switch(
    call: &Call<'_>,
    turns: &Turns,
    trace: &mut Trace,
    which: &WebhookPath,
    enabled: bool,
) -> Result<Done, Rejection> {
    let _turn = turns.of_subscription(&which.app, &which.place()).await;
    let change = trace.changes(which.state(call));
    let webhooks = &call.parts.webhooks;
    match enabled {
        true => webhooks.enable(&which.app, &which.name).await?,
        false => webhooks.disable(&which.app, &which.name).await?,
    }
    Ok(change.done(which.state(call), Content::Json(json!({ "enabled": enabled }))))
}

/// `POST /admin/v1/webhooks/{app}/{name}/try`.
pub(super) async fn try_now(
    call: &Call<'_>,
    turns: &Turns,
    trace: &mut Trace,
    which: &WebhookPath,
) -> Result<Done, Rejection> {
    let _turn = turns.of_subscription(&which.app, &which.place()).await;
    let change = trace.changes(which.state(call));
    let (result, in_flight) = match call.parts.webhooks.try_now(&which.app, &which.name).await? {
        TryNow::Trying { in_flight } => ("trying", in_flight),
        TryNow::UnderWay { in_flight } => ("under_way", in_flight),
        TryNow::NothingWaits => ("nothing_waits", 0),
        TryNow::Disabled => return Err(CommandError::Disabled.into()),
    };
    let after = Facts::of("result", result).and("in_flight", in_flight);
    Ok(change.done(after, Content::Json(json!({ "result": result, "in_flight": in_flight }))))
}

/// `GET /admin/v1/webhooks`: those that are configured, then those that are not any more and have left a place.
pub(super) fn all(parts: &Parts) -> Value {
    let mut all: Vec<Value> = parts.webhooks.status().into_iter().map(|webhook| json!(webhook)).collect();
    // By app, then stream: of one webhook both streams together.
    let mut removed = BTreeMap::<(String, String), Vec<SubscriptionStatus>>::new();
    for left in parts.events.subscriptions().into_iter().filter(|subscription| subscription.orphan) {
        let name = SubscriptionName::parse_stored(&left.subscription).ok().and_then(|name| name.webhook());
        if let Some(name) = name {
            removed.entry((left.app.clone(), name.to_string())).or_default().push(left);
        }
    }
    all.extend(removed.into_iter().map(|((app, name), left)| {
        let streams: Vec<_> = left.iter().map(|subscription| subscription.stream).collect();
        let lag: u64 = left.iter().map(|subscription| subscription.lag).sum();
        let letters: u64 = left.iter().map(|subscription| subscription.dead_letters).sum();
        json!({ "app": app, "name": name, "state": "removed", "streams": streams, "lag": lag, "dead_letters": letters })
    }));
    json!({ "webhooks": all })
}

impl WebhookPath {
    /// Reads the values of a path's parameters.
    ///
    /// # Errors
    /// 404 when there is none, 400 for parameters that mean nothing.
    pub(super) fn named_by(call: &Call<'_>, values: &[&str]) -> Result<Self, Rejection> {
        only_known(call)?;
        let parsed = match values {
            [app, name, ..] => AppId::parse(app).ok().zip(WebhookName::parse(name).ok()),
            _ => None,
        };
        let found = parsed.and_then(|(app, name)| {
            let streams = call.parts.webhooks.streams(&app, &name)?;
            Some(Self { app, name, streams })
        });
        found.ok_or_else(|| Rejection::nowhere(CommandError::NoSuchWebhook))
    }

    /// How it stands, in a word.
    fn state(&self, call: &Call<'_>) -> Facts {
        let all = call.parts.webhooks.status();
        let this = all.iter().find(|it| it.app == self.app.as_str() && it.name == self.name.as_str());
        Facts::of("state", this.map_or("gone", |webhook| webhook.state))
    }

    /// How many dead letters it has, in these of its streams.
    fn letters(&self, parts: &Parts, streams: &[Stream]) -> u64 {
        let status = |&stream: &Stream| parts.events.subscription_status(&self.app, stream, &self.place()).ok();
        streams.iter().filter_map(status).map(|status| status.dead_letters).sum()
    }

    fn place(&self) -> SubscriptionName {
        SubscriptionName::from(&self.name)
    }

    /// The one stream that is meant.
    fn one(&self, stream: Option<Stream>) -> Result<Stream, Rejection> {
        match (stream, &self.streams[..]) {
            (Some(stream), _) | (None, &[stream]) => Ok(stream),
            _ => Err(Rejection::bad("stream: the webhook has several; which one is meant?")),
        }
    }

    fn stream(&self, text: &str) -> Result<Stream, Rejection> {
        let stream = Stream::parse(text).filter(|stream| self.streams.contains(stream));
        stream.ok_or_else(|| Rejection::bad("stream: the webhook has no such stream"))
    }

    fn list_query(&self, call: &Call<'_>) -> Result<ListQuery, Rejection> {
        let (mut wanted, mut after, mut most) = (None, None, SHOWN);
        for (name, value) in call.query()? {
            match name.as_str() {
                "stream" => {
                    wanted = Some(match Streams::parse(&value) {
                        Some(Streams::All) => Streams::All,
                        _ => Streams::One(self.stream(&value)?),
                    });
                }
                "after" => after = Some(value),
                "limit" => most = limit(&value)?,
                _ => {}
            }
        }
        let streams = match (wanted, &after) {
            (Some(Streams::One(stream)), _) => vec![stream],
            (None, Some(_)) => vec![self.one(None)?],
            (Some(Streams::All) | None, _) => self.streams.clone(),
        };
        let after = after.map(|text| CursorPair::read(&text, together(&streams))).transpose();
        let after = after.map_err(|_| Rejection::bad("after: what `next` of a list says, with its `stream`"))?;
        Ok(ListQuery { streams, after: after.unwrap_or_default(), limit: most })
    }
}

/// What a place in these is a place in.
fn together(streams: &[Stream]) -> Streams {
    match *streams {
        [stream] => Streams::One(stream),
        _ => Streams::All,
    }
}

/// Refuses parameters that mean nothing.
fn only_known(call: &Call<'_>) -> Result<(), Rejection> {
    let known: &[&str] = match *call.method() {
        Method::GET => &["stream", "after", "limit"],
        Method::DELETE => &["stream"],
        _ => &[],
    };
    match call.query()?.iter().all(|(name, _)| known.contains(&name.as_str())) {
        true => Ok(()),
        false => Err(Rejection::bad(format_args!("known here: {}", known.join(", ")))),
    }
}

/// Of all streams, unless one is named; `next` goes on in all of them.
pub(super) async fn list(call: &Call<'_>, trace: &mut Trace, which: &WebhookPath) -> Result<Done, Rejection> {
    let ListQuery { streams, mut after, limit } = which.list_query(call)?;
    let mut all = Vec::<Value>::new();
    for &stream in &streams {
        let room = limit - all.len();
        if room == 0 {
            break;
        }
        let from = after.was_given(stream).then(|| after.of(stream));
        let found = call.parts.events.dead_letters(&which.app, stream, &which.place(), from, room).await;
        let letters = or_none(found)?;
        // Of each stream the cursor has a place of its own: what was not shown of the next ones is shown next time.
        if let Some(last) = letters.last() {
            after.give(stream, last.cursor);
        }
        all.extend(letters.iter().map(|letter| {
            let mut letter = shown(letter);
            letter["stream"] = stream.as_str().into();
            letter
        }));
    }
    let of = together(&streams);
    let next = (all.len() == limit).then(|| json!({ "stream": of.as_str(), "after": after.text(of) }));
    let facts = Facts::of("dead_letters", all.len());
    Ok(trace.shows(facts, Content::Json(json!({ "dead_letters": all, "next": next }))))
}

/// Of all streams, unless one is named.
pub(super) async fn clear(
    call: &Call<'_>,
    turns: &Turns,
    trace: &mut Trace,
    which: &WebhookPath,
    one: Option<Cursor>,
) -> Result<Done, Rejection> {
    let stream = call.query()?.into_iter().find(|(name, _)| name == "stream").map(|(_, stream)| stream);
    let stream = stream.map(|text| which.stream(&text)).transpose()?;
    let streams = match (stream, one) {
        (None, None) => which.streams.clone(),
        _ => vec![which.one(stream)?],
    };
    let _turn = turns.of_subscription(&which.app, &which.place()).await;
    let mut cleared = 0;
    let mut change = trace.changes(Facts::of("dead_letters", which.letters(call.parts, &streams)));
    let after = |cleared| Facts::of("dead_letters", which.letters(call.parts, &streams)).and("cleared", cleared);
    for &stream in &streams {
        let done = call.parts.events.clear_dead_letters(&which.app, stream, &which.place(), one).await;
        cleared += or_none(done)?;
        change.so_far(after(cleared));
    }
    if one.is_some() && cleared == 0 {
        return Err(Rejection::nowhere("there is no such dead letter"));
    }
    Ok(change.done(after(cleared), Content::Json(json!({ "cleared": cleared }))))
}

/// Of all streams, unless letters or one stream are named.
pub(super) async fn redeliver(
    call: Call<'_>,
    turns: &Turns,
    trace: &mut Trace,
    which: &WebhookPath,
) -> Result<Done, Rejection> {
    let parts = call.parts;
    let RedeliverRequest { cursors, all, stream } = call.json().await?;
    let stream = stream.map(|text| which.stream(&text)).transpose()?;
    let letters = wanted(&cursors, all)?;
    let streams = match (&letters, stream) {
        (Redeliver::All, None) => which.streams.clone(),
        _ => vec![which.one(stream)?],
    };
    let mut again = 0;
    let _turn = turns.of_subscription(&which.app, &which.place()).await;
    let before = which.letters(parts, &which.streams);
    let mut change = trace.changes(Facts::of("dead_letters", before).and("asked", asked(&letters)));
    for stream in streams {
        again += parts.webhooks.redeliver(&which.app, &which.name, stream, letters.clone()).await?;
        change.so_far(Facts::of("redelivered", again));
    }
    Ok(change.done(Facts::of("redelivered", again), Content::Json(json!({ "redelivered": again }))))
}

/// A webhook that has read nothing yet has no place, and nothing there.
fn or_none<T: Default>(found: Result<T, ReadError>) -> Result<T, ReadError> {
    match found {
        Err(ReadError::NoSuchSubscription) => Ok(T::default()),
        found => found,
    }
}
