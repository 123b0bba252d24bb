//! A refusal as `application/problem+json` (RFC 9457), with the vendor's `result: "failed"` beside.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use super::Ceiling;
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
}

impl Refusal {
    /// The body.
    #[must_use]
    pub fn body(&self, id: &RequestId) -> Bytes {
        let code = self.code();
        let status = self.status();
        let problem = Problem {
            kind: format!("urn:rtm-gateway:problem:{}", code.replace(' ', "_")),
            title: status.canonical_reason().unwrap_or("Refused"),
            status: status.as_u16(),
            detail: self.detail(),
            code,
            result: "failed",
            request_id: id.as_str(),
            earliest: match self {
                Self::CursorExpired { earliest, .. } => Some(earliest),
                _ => None,
            },
            lost: match self {
                Self::CursorExpired { lost, .. } => *lost,
                _ => None,
            },
            location: match self {
                Self::StillRunning { location } => location.as_deref(),
                _ => None,
            },
        };
        // Strings and numbers always serialize; the fallback is a body without details, not a panic.
        serde_json::to_vec(&problem).unwrap_or_else(|_| br#"{"result":"failed"}"#.to_vec()).into()
    }

    /// The headers, but for the request's id and origin.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Unauthenticated => {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="rtm-gateway""#));
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Basic realm="rtm-gateway""#));
            }
            Self::MethodNotAllowed { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::QuotaExceeded { bucket, limit, retry_after } => {
                headers.insert(RETRY_AFTER, seconds(*retry_after));
                let left = format!(r#""{bucket}";r=0;t={}"#, ceil_seconds(*retry_after));
                let policy = format!(r#""{bucket}";q={};w={}"#, limit.requests, ceil_seconds(limit.per));
                set(&mut headers, RATELIMIT, left);
                set(&mut headers, RATELIMIT_POLICY, policy);
            }
            Self::ClientLimit { ceiling, retry_after } => {
                let (name, most) = (ceiling.name(), ceiling.most());
                headers.insert(RETRY_AFTER, seconds(*retry_after));
                let (left, policy) = match ceiling {
                    // A quota unit of the draft's own registry; it has no window, and nobody knows when it is free again.
                    Ceiling::MaxConcurrent(_) => {
                        (format!(r#""{name}";r=0"#), format!(r#""{name}";q={most};qu="concurrent-requests""#))
                    }
                    Ceiling::RequestsPerSecond(_) => {
                        let t = ceil_seconds(*retry_after);
                        (format!(r#""{name}";r=0;t={t}"#), format!(r#""{name}";q={most};w=1"#))
                    }
                };
                set(&mut headers, RATELIMIT, left);
                set(&mut headers, RATELIMIT_POLICY, policy);
            }
            Self::Shed { retry_after, .. } | Self::RegionDown { retry_after, .. } => {
                headers.insert(RETRY_AFTER, seconds(*retry_after));
            }
            Self::Unavailable(_) | Self::CredentialUnavailable(_) | Self::StillRunning { .. } => {
                headers.insert(RETRY_AFTER, seconds(A_WHILE));
            }
            Self::TooManySubscriptions { .. } => {
                headers.insert(RETRY_AFTER, seconds(SUBSCRIPTIONS_GO));
            }
            _ => {}
        }
        headers
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

fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(ceil_seconds(time))
}

#[cfg(test)]
mod tests {
    use super::super::Shed;
    use super::*;
    use crate::config::Limit;
    use crate::kernel::names::BucketName;
    use std::num::NonZeroU32;

    #[test]
    fn a_spent_quota_says_when_to_come_back_and_what_the_limit_is() {
        let limit = Limit { requests: NonZeroU32::new(100).unwrap(), per: Duration::from_millis(1500) };
        let refusal = Refusal::QuotaExceeded {
            bucket: BucketName::HistoryCreate,
            limit,
            retry_after: Duration::from_millis(2001),
        };
        let headers = refusal.headers();
        assert_eq!(headers[RETRY_AFTER], "3");
        assert_eq!(headers[RATELIMIT], r#""history_create";r=0;t=3"#);
        assert_eq!(headers[RATELIMIT_POLICY], r#""history_create";q=100;w=2"#);
        let body: serde_json::Value = serde_json::from_slice(&refusal.body(&RequestId::random())).unwrap();
        assert_eq!(body["status"], 429);
        assert_eq!(body["code"], "quota_exceeded");
        assert_eq!(body["result"], "failed");
    }

    #[test]
    fn a_ceiling_says_which_one_it_is_and_what_it_allows() {
        let most = NonZeroU32::new(5).unwrap();
        let retry_after = Duration::from_millis(200);
        for (ceiling, left, policy) in [
            (
                Ceiling::MaxConcurrent(most),
                r#""max_concurrent";r=0"#,
                r#""max_concurrent";q=5;qu="concurrent-requests""#,
            ),
            (Ceiling::RequestsPerSecond(most), r#""requests_per_second";r=0;t=1"#, r#""requests_per_second";q=5;w=1"#),
        ] {
            let refusal = Refusal::ClientLimit { ceiling, retry_after };
            assert_eq!((refusal.status().as_u16(), refusal.code()), (429, "client_limit_exceeded"));
            let headers = refusal.headers();
            assert_eq!(
                (&headers[RATELIMIT], &headers[RATELIMIT_POLICY]),
                (&left.parse().unwrap(), &policy.parse().unwrap())
            );
            assert_eq!(headers[RETRY_AFTER], "1");
        }
    }

    #[test]
    fn what_went_wrong_inside_is_not_told_to_callers() {
        let inside = "connect to 10.1.2.3:443 failed, key /run/secrets/x".to_owned();
        for refusal in [
            Refusal::Internal(inside.clone()),
            Refusal::BadUpstream(inside.clone()),
            Refusal::Unavailable(inside.clone()),
            Refusal::RegionDown { cause: inside.clone(), retry_after: Duration::from_secs(1) },
            Refusal::CredentialUnavailable(inside.clone()),
            Refusal::UpstreamTimeout { cause: inside.clone(), sent: true },
        ] {
            let body = String::from_utf8(refusal.body(&RequestId::random()).to_vec()).unwrap();
            assert!(!body.contains("10.1.2.3") && !body.contains("secrets"), "{body}");
            assert_eq!(refusal.cause(), Some(inside.as_str()));
        }
    }

    #[test]
    fn software_written_for_the_vendor_finds_its_own_words() {
        let location = Some("~/rtm/message/history/query/H".to_owned());
        let body = Refusal::StillRunning { location }.body(&RequestId::random());
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&body["code"], &body["location"]),
            (&"in progress".into(), &"~/rtm/message/history/query/H".into())
        );
        let gone = Refusal::NoSuchHandle;
        assert_eq!((gone.status().as_u16(), gone.code()), (410, "resource not exist"));
    }

    #[test]
    fn who_has_as_many_subscriptions_as_it_may_is_told_when_to_look_again() {
        for most in [Some(1000), None] {
            let refusal = Refusal::TooManySubscriptions { most };
            assert_eq!((refusal.status().as_u16(), refusal.code()), (429, "too_many_subscriptions"));
            assert_eq!(refusal.headers()[RETRY_AFTER], "60");
        }
    }

    #[test]
    fn an_answer_that_found_no_memory_cost_what_it_cost_and_may_have_been_acted_on() {
        let refusal = Refusal::shed(Shed::ResponseMemory);
        assert_eq!((refusal.status().as_u16(), refusal.code()), (503, "unavailable"));
        assert!(!refusal.cost_nothing() && refusal.detail().contains("may have been sent"));
        assert!(refusal.headers().contains_key(RETRY_AFTER));
        assert!(Refusal::shed(Shed::BodyMemory).cost_nothing());
    }
}
