//! Sending messages: the caller's body goes to the vendor as it is, and the vendor's answer comes back as it is.
//!
//! Invariants: of the caller's head only the allow-listed headers leave; the user id in the path is one the client
//! may send as (checked with the grant). An answer that is the caller's to deal with passes (2xx, 400, 404, 408,
//! 410); any other says that gateway and vendor do not understand each other, and is 502.

use hyper::StatusCode;

use super::{Asked, read_body};
use crate::body::Body;
use crate::flow::Served;
use crate::flow::trail::Origin;
use crate::headers;
use crate::headers::prefer::{PREFERENCE_APPLIED, Prefer};
use crate::order::{Message, Operation, Order};
use crate::refusal::Refusal;
use crate::route::Addressee;

/// Forwards a message.
///
/// # Errors
/// What egress says, or the vendor's own failure.
pub async fn forward(
    asked: Asked<'_>,
    to: Addressee,
    user: String,
    query: Vec<(String, String)>,
) -> Result<Served, Refusal> {
    let cap = asked.live.request_timeout;
    let prefer = Prefer { respond_async: false, ..Prefer::of(&asked.head.headers) };
    let proof = asked.proof();
    let body = read_body(asked.live, asked.body, asked.trail).await?;
    let message = Message { user, query, body };
    let order = Order {
        app: asked.app.id.clone(),
        operation: match to {
            Addressee::Peer => Operation::PeerMessage(message),
            Addressee::Channel => Operation::ChannelMessage(message),
        },
        proof: Some(proof),
        payer: asked.payer,
        deadline: asked.gateway.clock.now() + prefer.within(cap),
        region: None,
        headers: headers::leaving(&asked.head.headers),
    };
    let reply = match asked.gateway.egress.send(order).await {
        Ok(reply) => reply,
        Err(failed) => {
            asked.trail.costs(failed.costs);
            return Err(failed.why.into());
        }
    };
    asked.trail.costs(reply.costs);
    if !passes(reply.status) {
        return Err(Refusal::BadUpstream(format!("the vendor answered {}", reply.status)));
    }
    let mut headers = headers::coming_back(&reply.headers);
    if let Some(applied) = prefer.applied(cap) {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    Ok(Served {
        status: reply.status,
        headers,
        body: Body::from(reply.body),
        origin: Origin::Vendor,
        receipts: Vec::new(),
    })
}

fn passes(status: StatusCode) -> bool {
    let of_the_caller = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::REQUEST_TIMEOUT, StatusCode::GONE];
    status.is_success() || of_the_caller.contains(&status)
}
