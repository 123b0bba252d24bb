//! A refusal as `application/problem+json` (RFC 9457), with the vendor's `result: "failed"` beside.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use super::{Ceiling, Shed};
use crate::http::headers::{RATELIMIT, RATELIMIT_POLICY};
use crate::http::request_id::RequestId;
use crate::request::refusal::Refusal;

/// How long a caller should stay away when nothing better is known.
const A_WHILE: Duration = Duration::from_secs(1);

/// When to look whether a subscription has gone: one goes when somebody removes it, or nobody has read it for days.
const SUBSCRIPTIONS_GO: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: String,
    code: &'a str,
    result: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limited_by: Option<&'a str>,
}

/// What a refusal tells software beside its status and code.
#[derive(Default)]
struct Extras<'a> {
    earliest: Option<&'a str>,
    lost: Option<u64>,
    location: Option<&'a str>,
    /// How one may say who one is.
    challenges: &'static [&'static str],
    /// The methods that the path takes.
    allow: Option<&'static str>,
    retry_after: Option<Duration>,
    rate_limit: Option<RateLimit>,
    /// Whose limit it was: the `gateway`'s count, or the `vendor`'s own 429.
    limited_by: Option<&'static str>,
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
struct RateLimit {
    left: String,
    policy: String,
}

impl Refusal {
    /// What the caller reads.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::BadRequest(detail) => detail.clone(),
            Self::Unauthenticated => {
                "no known key, token or certificate was presented (X-API-Key, Authorization: Bearer or Basic)".into()
            }
            Self::Misdirected => "a request without a credential must name this machine as its host; \
                 server.hosts lists its names beside localhost"
                .into(),
            Self::CrossSite => "another site's page may ask nothing here without a credential of its own".into(),
            Self::Forbidden => "this client may not do this with this app, or there is no such app".into(),
            Self::NoSuchRoute => "there is nothing at this path: see /openapi.json".into(),
            Self::MethodNotAllowed { allow } => format!("this path takes {allow}"),
            Self::NotAcceptable { kind } => format!("this path answers with {kind}, which `Accept` does not take"),
            Self::RequestTimeout => "the request's body did not come in time".into(),
            Self::CursorExpired { .. } => "the cursor is older than what is kept: go on from `earliest`".into(),
            Self::LeaseExpired => "the lease has run out, was given back, or never was: \
                 its events are delivered to the next reader"
                .into(),
            Self::TooManySubscriptions { most: Some(most) } => {
                format!("this client has {most} subscriptions of the stream, as many as it may: use one of them")
            }
            Self::TooManySubscriptions { most: None } => "the stream has as many subscriptions as it may have".into(),
            Self::NoSuchHandle => "there is no such query result (any more): create the query again".into(),
            Self::BodyTooLarge { limit } => format!("a request's body may have {limit} bytes"),
            Self::UnsupportedMediaType => "the body must be application/json in UTF-8, without content encoding".into(),
            Self::HeadersTooLarge => "the request's head is too large".into(),
            Self::QuotaExceeded { bucket, limit, in_force: Some(in_force), .. } => format!(
                "no request of {bucket} could be sent within the deadline: the vendor itself refuses them (429) although \
                 the gateway's count had room, so that {in_force} in {} are sent for now",
                humantime::format_duration(limit.per)
            ),
            Self::QuotaExceeded { bucket, limit, in_force: None, .. } => format!(
                "no request of {bucket} could be sent within the deadline: {} in {} are allowed",
                limit.requests,
                humantime::format_duration(limit.per)
            ),
            Self::ClientLimit { ceiling: Ceiling::MaxConcurrent(most), .. } => {
                format!("this client has {most} requests under way, as many as it may have: wait for one to end")
            }
            Self::ClientLimit { ceiling: Ceiling::RequestsPerSecond(most), .. } => {
                format!("this client may make {most} requests a second")
            }
            Self::Shed { what: Shed::FairShare | Shed::HistoryJobs, .. } => {
                "the gateway has too much under way for this client: try again".into()
            }
            Self::Shed { what: Shed::ResponseMemory, .. } => {
                "the vendor has answered, and the gateway had no memory for its answer in time: \
                 a message may have been sent"
                    .into()
            }
            Self::Shed { .. } => "the gateway is overloaded: try again".into(),
            Self::Internal(_) => "the gateway failed on this request".into(),
            Self::BadUpstream(_) => "the vendor's answer could not be used".into(),
            Self::AppRefused => {
                "the vendor refuses this app (403): its App ID, or this feature of it, is switched off there; \
                 only the account's owner can switch it on"
                    .into()
            }
            Self::CredentialRefused => "the vendor refuses the gateway's credential: an operator must fix it".into(),
            Self::Unavailable(_) => "the gateway cannot serve this now: try again".into(),
            Self::RegionDown { .. } => "the vendor is not asked for a while: nothing was sent".into(),
            Self::CredentialUnavailable(_) => "the gateway has no credential for the vendor now".into(),
            Self::UpstreamTimeout { sent: true, .. } => {
                "the vendor did not answer in time; it may have acted on the request".into()
            }
            Self::UpstreamTimeout { sent: false, .. } => {
                "there was no connection to the vendor in time: nothing was sent".into()
            }
            Self::StillRunning { location: Some(_) } => "the result is not there yet: fetch it at `location`".into(),
            Self::StillRunning { location: None } => "the result is not there yet: ask again".into(),
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self, id: &RequestId) -> Bytes {
        let (code, status) = (self.code(), self.status());
        let Extras { earliest, lost, location, limited_by, .. } = self.extras();
        let problem = Problem {
            kind: format!("urn:rtm-gateway:problem:{}", code.replace(' ', "_")),
            title: status.canonical_reason().unwrap_or("Refused"),
            status: status.as_u16(),
            detail: self.detail(),
            code,
            result: "failed",
            request_id: id.as_str(),
            earliest,
            lost,
            location,
            limited_by,
        };
        // Strings and numbers always serialize; the fallback is a body without details, not a panic.
        serde_json::to_vec(&problem).unwrap_or_else(|_| br#"{"result":"failed"}"#.to_vec()).into()
    }

    /// The headers, but for the request's id and origin.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let Extras { challenges, allow, retry_after, rate_limit, .. } = self.extras();
        for challenge in challenges {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(allow) = allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(time) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(ceil_seconds(time)));
        }
        if let Some(RateLimit { left, policy }) = rate_limit {
            set(&mut headers, RATELIMIT, left);
            set(&mut headers, RATELIMIT_POLICY, policy);
        }
        headers
    }

    /// The methods that the path takes, where it was the method that is refused.
    #[must_use]
    pub(crate) fn allow(&self) -> Option<&'static str> {
        self.extras().allow
    }

    fn extras(&self) -> Extras<'_> {
        let none = Extras::default();
        match self {
            Self::Unauthenticated => Extras { challenges: &CHALLENGES, ..none },
            Self::MethodNotAllowed { allow } => Extras { allow: Some(allow), ..none },
            Self::CursorExpired { earliest, lost } => Extras { earliest: Some(earliest), lost: *lost, ..none },
            Self::TooManySubscriptions { .. } => Extras { retry_after: Some(SUBSCRIPTIONS_GO), ..none },
            Self::QuotaExceeded { bucket, limit, retry_after, in_force, .. } => {
                let most = in_force.unwrap_or(limit.requests.get());
                let limited_by = Some(if in_force.is_some() { "vendor" } else { "gateway" });
                let left = format!(r#""{bucket}";r=0;t={}"#, ceil_seconds(*retry_after));
                let policy = format!(r#""{bucket}";q={most};w={}"#, ceil_seconds(limit.per));
                let rate_limit = Some(RateLimit { left, policy });
                Extras { retry_after: Some(*retry_after), rate_limit, limited_by, ..none }
            }
            Self::ClientLimit { ceiling, retry_after } => {
                let rate_limit = Some(ceiling_reached(*ceiling, *retry_after));
                Extras { retry_after: Some(*retry_after), rate_limit, ..none }
            }
            Self::Shed { retry_after, .. } | Self::RegionDown { retry_after, .. } => {
                Extras { retry_after: Some(*retry_after), ..none }
            }
            Self::Unavailable(_) | Self::CredentialUnavailable(_) => Extras { retry_after: Some(A_WHILE), ..none },
            Self::StillRunning { location } => {
                Extras { location: location.as_deref(), retry_after: Some(A_WHILE), ..none }
            }
            Self::BadRequest(_)
            | Self::Misdirected
            | Self::CrossSite
            | Self::Forbidden
            | Self::NoSuchRoute
            | Self::NotAcceptable { .. }
            | Self::RequestTimeout
            | Self::LeaseExpired
            | Self::NoSuchHandle
            | Self::BodyTooLarge { .. }
            | Self::UnsupportedMediaType
            | Self::HeadersTooLarge
            | Self::Internal(_)
            | Self::BadUpstream(_)
            | Self::AppRefused
            | Self::CredentialRefused
            | Self::UpstreamTimeout { .. } => none,
        }
    }
}

/// Both take a key; Bearer takes a token, too.
const CHALLENGES: [&str; 2] = [r#"Bearer realm="rtm-gateway""#, r#"Basic realm="rtm-gateway""#];

fn ceiling_reached(ceiling: Ceiling, retry_after: Duration) -> RateLimit {
    let (name, most) = (ceiling.name(), ceiling.most());
    match ceiling {
        // A quota unit of the draft's own registry; it has no window, and nobody knows when it is free again.
        Ceiling::MaxConcurrent(_) => RateLimit {
            left: format!(r#""{name}";r=0"#),
            policy: format!(r#""{name}";q={most};qu="concurrent-requests""#),
        },
        Ceiling::RequestsPerSecond(_) => RateLimit {
            left: format!(r#""{name}";r=0;t={}"#, ceil_seconds(retry_after)),
            policy: format!(r#""{name}";q={most};w=1"#),
        },
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// Whole seconds, rounded up, at least 1: "now" would only bring the caller back too early.
fn ceil_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}
