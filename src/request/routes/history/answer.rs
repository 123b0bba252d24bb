//! The answers of history and count: `{"result":"success","request_id":"…",` and the members the service made.

use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{HeaderMap, StatusCode};

use crate::history::{Answer, AnswerState, Error};
use crate::http::body::{Body, Frames};
use crate::http::headers;
use crate::http::headers::prefer::{PREFERENCE_APPLIED, Prefer};
use crate::kernel::names::AppId;
use crate::request::refusal::Refusal;
use crate::request::request_log::RequestLog;
use crate::request::response::{HandlerResponse, Origin};
use crate::upstream::egress::Reply;

/// What the service said, as an answer.
pub(in crate::request::routes) fn shape(
    said: Result<Answer, Error>,
    app: &AppId,
    log: &RequestLog,
) -> Result<HandlerResponse, Refusal> {
    let answer = match said {
        Ok(answer) => answer,
        Err(Error::Refused(reply)) => return Ok(passed_on(&reply)),
        Err(error) => return Err(error.into()),
    };
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let status = match answer.state {
        AnswerState::Done | AnswerState::InProgress => StatusCode::OK,
        AnswerState::Accepted => {
            if let Some(place) = location(&answer, app) {
                headers.insert(LOCATION, place);
            }
            StatusCode::ACCEPTED
        }
    };
    let mut frames = Frames::default();
    // An id needs no escaping: see its module.
    frames.push(format!(r#"{{"result":"success","request_id":"{}","#, log.id()).as_bytes());
    for chunk in answer.members {
        frames.share(chunk);
    }
    frames.push(b"}");
    Ok(HandlerResponse::of_gateway(status, headers, frames.into_body()))
}

/// Says which preferences were honoured.
pub(in crate::request::routes) fn say_applied(served: &mut HandlerResponse, prefer: &Prefer, cap: Duration) {
    if let Some(applied) = prefer.applied(cap).filter(|_| served.origin == Origin::Gateway) {
        served.headers.insert(PREFERENCE_APPLIED, applied);
    }
}

/// The vendor's refusal of a caller's own request, with its body.
pub(super) fn passed_on(reply: &Reply) -> HandlerResponse {
    HandlerResponse::of_vendor(
        reply.status,
        headers::coming_back(reply.headers.clone()),
        Body::from(reply.body.clone()),
    )
}

/// `Location` of an accepted query. The body's `location` is the vendor's form of it, where `~` stands for the project.
fn location(answer: &Answer, app: &AppId) -> Option<HeaderValue> {
    let rest = answer.location.as_deref()?.strip_prefix('~')?;
    HeaderValue::try_from(format!("/dev/v2/project/{app}{rest}")).ok()
}
