//! Sending messages: the caller's body goes to the vendor as it is, and the vendor's answer comes back as it is.
//!
//! Invariants: of the caller's head only the allow-listed headers leave; the user id in the path is one the client may
//! send as (checked with the grant). A body that is JSON and lacks what every message has is refused before it costs
//! anything; any other is the vendor's to judge. An answer that is the caller's to deal with passes (2xx, what
//! [`is_for_the_caller`] says, and 503); any other says that gateway and vendor do not understand each other, and is
//! 502.

use std::fmt;

use hyper::header::CONTENT_ENCODING;
use hyper::{HeaderMap, StatusCode};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{RequestContext, read_body};
use crate::http::body::Body;
use crate::http::headers;
use crate::http::headers::prefer::{PREFERENCE_APPLIED, Prefer};
use crate::kernel::proof::Work;
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;
use crate::request::route::Addressee;
use crate::vendor::is_for_the_caller;
use crate::vendor::order::{Message, Operation, Order};

/// Forwards a message.
///
/// # Errors
/// What egress says, or the vendor's own failure.
pub async fn forward(
    context: RequestContext<'_>,
    to: Addressee,
    user: String,
    query: Vec<(String, String)>,
) -> Result<HandlerResponse, Refusal> {
    let cap = context.live.request_timeout;
    let prefer = Prefer { respond_async: false, ..Prefer::of(&context.head.headers) };
    let ground = context.ground(Work::Message);
    let body = read_body(context.live, context.body, context.guard, context.log).await?;
    check(to, &context.head.headers, &body)?;
    let message = Message { user, query, body };
    let (now, wait) = (context.gateway.clock.now(), prefer.within(cap));
    let order = Order {
        app: context.app.id.clone(),
        operation: match to {
            Addressee::Peer => Operation::PeerMessage(message),
            Addressee::Channel => Operation::ChannelMessage(message),
        },
        proof: Some(ground),
        payer: context.payer,
        sharers: None,
        is_repeat: false,
        // Who would not wait at all is sent now or not; of what was sent it wants to know.
        seat_by: (wait.is_zero()).then_some(now),
        deadline: now + if wait.is_zero() { cap } else { wait },
        sent: None,
        retry_after_limit: None,
        region: None,
        headers: headers::leaving(&context.head.headers),
    };
    let reply = context.gateway.egress.send_into(&order, context.log.costs()).await.map_err(|failed| failed.why)?;
    // It is about our App ID. Passed on, it would look like a refusal of the caller's own credential.
    if reply.status == StatusCode::FORBIDDEN {
        return Err(Refusal::AppRefused);
    }
    if !passes(reply.status) {
        return Err(Refusal::BadUpstream(format!("the vendor answered {}", reply.status)));
    }
    let mut headers = headers::coming_back(reply.headers);
    if let Some(applied) = prefer.applied(cap) {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    Ok(HandlerResponse::of_vendor(reply.status, headers, Body::from(reply.body)))
}

fn passes(status: StatusCode) -> bool {
    status.is_success() || is_for_the_caller(status) || status == StatusCode::SERVICE_UNAVAILABLE
}

/// Refuses a message that lacks what the vendor needs of every one. Only what is plainly there to be read is looked at:
/// a coded body, or one that is no JSON, goes on as it is.
fn check(to: Addressee, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let coded =
        headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if coded {
        return Ok(());
    }
    let wanted = match to {
        Addressee::Peer => ["destination", "payload"],
        Addressee::Channel => ["channel_name", "payload"],
    };
    // JSON is UTF-8, so text in another character set is none.
    let Ok(text) = std::str::from_utf8(body) else { return Ok(()) };
    let there = match serde_json::from_str(text) {
        Ok(MessageMembers(there)) => there,
        // JSON, but no object: it has no members.
        Err(_) if text.trim_ascii().is_empty() || serde_json::from_str::<IgnoredAny>(text).is_ok() => Vec::new(),
        Err(_) => return Ok(()),
    };
    let missing = |name: &&&str| !there.contains(*name);
    let missing: Vec<_> = wanted.iter().filter(missing).copied().collect();
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(Refusal::bad(format!("{one} is missing"))),
        all => Err(Refusal::bad(format!("{} are missing", all.join(" and ")))),
    }
}

/// What a message may be asked for.
const KNOWN: [&str; 3] = ["destination", "channel_name", "payload"];

/// Which of [`KNOWN`] a JSON object has. Of a member that is there twice the vendor may take either, so it is missing
/// only if it is each time.
struct MessageMembers(Vec<&'static str>);

impl<'de> Deserialize<'de> for MessageMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = MessageMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut there = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    let known = KNOWN.into_iter().find(|known| is_named(known, name.get()));
                    there.extend(known.filter(|known| !there.contains(known) && is_there(known, value.get())));
                }
                Ok(MessageMembers(there))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Whether a member's name, as the body has it, is this.
fn is_named(known: &str, name: &str) -> bool {
    if !name.contains('\\') {
        return name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(known);
    }
    // No text can hold an escaped lone surrogate, so such a name is none of these.
    serde_json::from_str::<String>(name).is_ok_and(|name| name == known)
}

fn is_there(name: &str, value: &str) -> bool {
    match value {
        "null" => false,
        // A message may be empty; whom it is for may not.
        "\"\"" => name == "payload",
        _ => true,
    }
}
