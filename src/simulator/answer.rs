//! What a request had as its effect and what is answered to it, in the vendor's words.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::StatusCode;
use tokio::time::Instant;

use super::app::Rules;
use super::fault::Canned;
use super::handles::LastInProgress;
use super::lock;
use super::messages::Message;
use super::query::Query;
use super::queue::Handover;

/// An answer before it is given its shape.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) retry_after: Option<String>,
    pub(super) body: Bytes,
    pub(super) effect: Effect,
}

/// What is to be told when the answer has gone out whole. Dropped instead, it did not.
pub(super) enum Effect {
    None,
    /// Events were handed over.
    Events(Handover),
    /// The caller has the messages: it knows that the handle is dead.
    Spent(Arc<AtomicBool>),
    /// The caller knows that it has to wait, from this instant.
    InProgress(LastInProgress, Instant),
}

impl Effect {
    pub(super) fn whole(self, now: Instant) {
        match self {
            Self::None => {}
            Self::Events(handover) => handover.whole(now),
            Self::Spent(heard) => heard.store(true, Ordering::SeqCst),
            Self::InProgress(told, at) => *lock(&told) = Some(at),
        }
    }
}

impl Answer {
    fn json(status: StatusCode, body: String, effect: Effect) -> Self {
        let content_type = "application/json".to_owned();
        Self { status, content_type, retry_after: None, body: body.into(), effect }
    }

    pub(super) fn ok(body: String, effect: Effect) -> Self {
        Self::json(StatusCode::OK, body, effect)
    }

    /// Says no. The shape of such bodies is not documented (*field*: anything goes).
    pub(super) fn no(status: StatusCode, why: &str) -> Self {
        let why = serde_json::Value::from(why);
        Self::json(status, format!(r#"{{"result":"failed","code":{why}}}"#), Effect::None)
    }

    pub(super) fn too_many(rules: &Rules) -> Self {
        let no = Self::no(StatusCode::TOO_MANY_REQUESTS, "too many requests");
        Self { retry_after: rules.retry_after.clone(), ..no }
    }

    pub(super) fn canned(canned: Canned) -> Self {
        Self {
            status: StatusCode::from_u16(canned.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            content_type: canned.content_type,
            retry_after: canned.retry_after,
            body: canned.body.into(),
            effect: Effect::None,
        }
    }

    /// The answer goes out now: a wait that it asks for starts.
    pub(super) fn stamp(&mut self, now: Instant) {
        if let Effect::InProgress(_, at) = &mut self.effect {
            *at = now;
        }
    }

    pub(super) fn events(request_id: &str, handover: Handover, rules: &Rules) -> Self {
        let bytes: usize = handover.events().iter().map(|e| e.len() + 1).sum();
        let mut body = String::with_capacity(bytes + 96);
        body.push_str(r#"{"result":"success","request_id":""#);
        body.push_str(request_id);
        body.push('"');
        unknown(&mut body, rules);
        body.push_str(r#","events":["#);
        for (at, event) in handover.events().iter().enumerate() {
            if at > 0 {
                body.push(',');
            }
            body.push_str(event);
        }
        body.push_str("]}");
        Self::ok(body, Effect::Events(handover))
    }

    pub(super) fn created(query: &Query, handle: &str) -> Self {
        let Query { offset, limit, descending, .. } = query;
        let order = if *descending { "desc" } else { "asc" };
        let location = format!("~/rtm/message/history/query/{handle}");
        Self::ok(
            format!(
                r#"{{"result":"success","offset":{offset},"limit":{limit},"order":"{order}","location":"{location}"}}"#
            ),
            Effect::None,
        )
    }

    pub(super) fn messages(request_id: &str, page: &[Arc<Message>], rules: &Rules, heard: Arc<AtomicBool>) -> Self {
        let list = page.iter().map(|m| serde_json::to_string(&**m).unwrap_or_default()).collect::<Vec<_>>().join(",");
        let mut body = format!(r#"{{"code":"ok","{}":[{list}],"request_id":"{request_id}""#, rules.messages_member);
        unknown(&mut body, rules);
        body.push_str(r#","result":"success"}"#);
        Self::ok(body, Effect::Spent(heard))
    }

    pub(super) fn in_progress(request_id: &str, told: LastInProgress, now: Instant) -> Self {
        let body = format!(r#"{{"code":"in progress","request_id":"{request_id}","result":"success"}}"#);
        Self::ok(body, Effect::InProgress(told, now))
    }

    pub(super) fn not_exist(request_id: &str, status: StatusCode) -> Self {
        let body = format!(r#"{{"code":"resource not exist","request_id":"{request_id}","result":"success"}}"#);
        Self::json(status, body, Effect::None)
    }

    pub(super) fn count(count: usize, rules: &Rules) -> Self {
        let mut body = format!(r#"{{"result":"success","code":"ok","count":{count}"#);
        unknown(&mut body, rules);
        body.push('}');
        Self::ok(body, Effect::None)
    }

    pub(super) fn sent(request_id: &str, received: &[u8], rules: &Rules) -> Self {
        let mut body = format!(r#"{{"result":"success","request_id":"{request_id}","code":"message_sent""#);
        if rules.echo {
            let _ = write!(body, r#","echo":{}"#, String::from_utf8_lossy(received));
        }
        body.push('}');
        Self::ok(body, Effect::None)
    }
}

/// A member nobody has heard of.
fn unknown(body: &mut String, rules: &Rules) {
    if rules.unknown_members {
        body.push_str(r#","next_version":{"a":[1.50,null]}"#);
    }
}
