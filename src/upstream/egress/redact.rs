//! The vendor's answer without what it repeats of the gateway's credential.
//!
//! Invariants: nothing of an answer goes on but through [`Cleaning`] and [`clean_headers`], so neither callers, logs,
//! the store nor the quarantine ever hold a credential that the vendor repeated. Data without one are passed on
//! uncopied. A body that came encoded (nobody asked for that) cannot be searched: it is withheld. That of an events
//! read, which must not lose what it has removed, is [decoded](super::coding) first; in a coding that is not known it
//! goes to the quarantine as it came.
//!
//! Searching takes some 0.3 ms a MiB, 5 at worst. So that it keeps no worker from its other connections, what is
//! encoded and what is more than [`ASIDE`] is searched elsewhere, so many at a time; events' answers have places of
//! their own there.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::CONTENT_ENCODING;
use hyper::{HeaderMap, StatusCode};

use super::events_body::{EncodedBody, PartialBody};
use crate::kernel::cause::Cause;
use crate::kernel::secret::redact::{Redactor, Text};
use crate::kernel::task::{Lane, Tasks};
use crate::upstream::pool::BodyFault;
use crate::upstream::pool::memory::Lease;
use crate::vendor::order::Safety;

/// Bytes that are searched at once, by whoever has read them.
const ASIDE: usize = 256 << 10;

/// So many larger ones are searched at a time; and so many of events'.
const AT_A_TIME: usize = 2;

/// A body and its place in memory, if it needs one.
pub(super) struct LeasedBody {
    pub(super) bytes: Bytes,
    pub(super) lease: Option<Lease>,
}

impl LeasedBody {
    /// One that needs no place.
    pub(super) fn small(bytes: Bytes) -> Self {
        Self { bytes, lease: None }
    }

    pub(super) fn empty() -> Self {
        Self::small(Bytes::new())
    }
}

/// Where bodies are searched.
pub(super) struct Cleaning {
    tasks: Tasks,
    answers: Lane,
    events: Lane,
}

impl Cleaning {
    pub(super) fn new(tasks: &Tasks) -> Self {
        Self {
            tasks: tasks.clone(),
            answers: Lane::new("redact-answers", AT_A_TIME),
            events: Lane::new("redact-events", AT_A_TIME),
        }
    }

    /// Cleans a body, whole or in part. What it becomes may be larger: then its lease must be, too.
    pub(super) async fn clean(
        &self,
        redactor: &Arc<Redactor>,
        status: StatusCode,
        body: Result<LeasedBody, BodyFault>,
    ) -> Result<LeasedBody, BodyFault> {
        let whole = if status.is_success() { Text::Data } else { Text::Words };
        match body {
            Ok(body) => {
                let mut body = self.search(redactor, body, whole).await?;
                let size = body.bytes.len();
                let fits = body.lease.as_mut().is_none_or(|lease| lease.reaches(size));
                if fits { Ok(body) } else { Err(BodyFault::too_large()) }
            }
            Err(BodyFault::Cut { why, partial }) => {
                let body = self.search(redactor, LeasedBody::small(partial), Text::Cut).await?;
                Err(BodyFault::Cut { why, partial: body.bytes })
            }
            Err(BodyFault::Slow { partial }) => {
                let body = self.search(redactor, LeasedBody::small(partial), Text::Cut).await?;
                Err(BodyFault::Slow { partial: body.bytes })
            }
            Err(BodyFault::TooLarge { .. }) => Err(BodyFault::too_large()),
        }
    }

    /// Decodes and cleans what came of the answer to a read of events.
    pub(super) async fn clean_events(
        &self,
        redactor: &Arc<Redactor>,
        status: StatusCode,
        coded: EncodedBody,
    ) -> PartialBody {
        let redactor = redactor.clone();
        let aside = coded.is_encoded() || coded.len() > ASIDE;
        let work = move || {
            let PartialBody { body, fault } = coded.decode();
            let kind = match (status.is_success(), fault.is_some()) {
                (true, false) => Text::Data,
                (true, true) => Text::CutData,
                (false, false) => Text::Words,
                (false, true) => Text::Cut,
            };
            PartialBody { body: redactor.clean(body, kind), fault }
        };
        if !aside {
            return work();
        }
        Box::pin(self.tasks.blocking(&self.events, work))
            .await
            .unwrap_or_else(|panicked| PartialBody::nothing(Cause::new(panicked)))
    }

    async fn search(&self, redactor: &Arc<Redactor>, body: LeasedBody, kind: Text) -> Result<LeasedBody, BodyFault> {
        let (redactor, size) = (redactor.clone(), body.bytes.len());
        // The lease goes along: should nobody wait any more, the body is still there until it was searched.
        let clean = move || LeasedBody { bytes: redactor.clean(body.bytes, kind), lease: body.lease };
        if size <= ASIDE {
            return Ok(clean());
        }
        // In a box, as few are so large.
        let done = Box::pin(self.tasks.blocking(&self.answers, clean)).await;
        done.map_err(|panicked| BodyFault::Cut { why: Cause::new(panicked), partial: Bytes::new() })
    }
}

/// Cleans an answer's headers. Says whether its body is to be withheld.
pub(super) fn clean_headers(redactor: &Redactor, safety: Safety, headers: &mut HeaderMap) -> bool {
    let tainted: Vec<_> =
        headers.iter().filter(|(_, v)| redactor.is_in(v.as_bytes())).map(|(n, _)| n.clone()).collect();
    for name in tainted {
        headers.remove(name);
    }
    let withheld = safety != Safety::Destructive && is_encoded(headers);
    if withheld {
        headers.remove(CONTENT_ENCODING);
    }
    withheld
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::upstream::egress::coding;

    const TOKEN: &str = "006the-token-of-the-app";

    async fn cleaned(
        status: u16,
        safety: Safety,
        encoding: &str,
        body: Result<&str, BodyFault>,
    ) -> (HeaderMap, String) {
        let redactor = Arc::new(Redactor::new([TOKEN.as_bytes()]));
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", encoding.parse().unwrap());
        headers.insert("retry-after", format!("7; {TOKEN}").parse().unwrap());
        headers.insert("content-type", "text/plain".parse().unwrap());
        let body = body.map(|body| LeasedBody::small(Bytes::copy_from_slice(body.as_bytes())));
        let status = StatusCode::from_u16(status).unwrap();
        if clean_headers(&redactor, safety, &mut headers) {
            return (headers, String::new());
        }
        let cleaning = Cleaning::new(&Tasks::new());
        let body = if safety == Safety::Destructive {
            let came = PartialBody::of(body.map(|body| body.bytes));
            let coded = EncodedBody::new(coding::of(&headers), came, 1 << 20);
            cleaning.clean_events(&redactor, status, coded).await.body
        } else {
            match cleaning.clean(&redactor, status, body).await {
                Ok(LeasedBody { bytes, .. })
                | Err(BodyFault::Cut { partial: bytes, .. } | BodyFault::Slow { partial: bytes }) => bytes,
                Err(BodyFault::TooLarge { .. }) => Bytes::new(),
            }
        };
        (headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn whatever_the_status_a_repeated_credential_goes_no_further() {
        let echo = format!("bad token {TOKEN}!");
        for status in [200, 400, 404, 500] {
            for safety in [Safety::Destructive, Safety::Idempotent, Safety::Once] {
                let (headers, body) = cleaned(status, safety, "identity", Ok(&echo)).await;
                assert_eq!(body, "bad token <redacted>!");
                let names: Vec<_> = headers.keys().map(hyper::header::HeaderName::as_str).collect();
                assert_eq!(names.len(), 2, "{names:?}");
                assert!(!names.contains(&"retry-after"));
            }
        }
        let partial = Bytes::copy_from_slice(format!("bad {}", &TOKEN[..9]).as_bytes());
        let cut = BodyFault::Cut { why: "reset".into(), partial: partial.clone() };
        assert_eq!(cleaned(200, Safety::Destructive, "identity", Err(cut)).await.1, "bad <redacted>");
        assert_eq!(cleaned(200, Safety::Once, "identity", Err(BodyFault::Slow { partial })).await.1, "bad <redacted>");
    }

    #[tokio::test]
    async fn what_cannot_be_searched_is_withheld_unless_events_would_be_lost() {
        let (headers, body) = cleaned(400, Safety::Once, "gzip", Ok("packed")).await;
        assert_eq!((body.as_str(), headers.get("content-encoding")), ("", None));
        assert_eq!(cleaned(200, Safety::Destructive, "zstd", Ok("packed")).await.1, "packed");
    }

    #[tokio::test]
    async fn an_encoded_answer_of_events_is_searched_as_what_it_says() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(format!(r#"{{"events":[{{"a":"{TOKEN}"}}]}}"#).as_bytes()).unwrap();
        let packed = Bytes::from(packed.finish().unwrap());
        let cleaning = Cleaning::new(&Tasks::new());
        let redactor = Arc::new(Redactor::new([TOKEN.as_bytes()]));
        for cut in [0, 9] {
            let came = PartialBody { body: packed.slice(..packed.len() - cut), fault: None };
            let coded = EncodedBody::new(Ok(vec![coding::Coding::Gzip]), came, 1 << 20);
            let PartialBody { body, fault } = cleaning.clean_events(&redactor, StatusCode::OK, coded).await;
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.starts_with(r#"{"events":[{"a":"<redacted>"#), "{text}");
            assert_eq!(fault.is_some(), cut > 0);
        }
    }
}
