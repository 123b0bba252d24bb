//! Reading an answer's body: whole, within a size and a time.
//!
//! Invariants: what has come is never thrown away with an error (a destructive read cannot be repeated). A body of one
//! piece is not copied.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

/// Why a body is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// The connection ended, or the framing broke.
    Cut {
        /// What happened.
        why: String,
        /// What had come.
        partial: Bytes,
    },
    /// It took too long, or paused for too long.
    Slow {
        /// What had come.
        partial: Bytes,
    },
    /// It is larger than the limit.
    TooLarge,
}

/// Reads all of a body, of `limit` bytes at most, until then, with no pause longer than `idle`.
pub(crate) async fn read_body(
    mut body: Incoming,
    limit: usize,
    until: Instant,
    idle: Duration,
) -> Result<Bytes, BodyFault> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(BodyFault::TooLarge);
    }
    let mut got = Pieces { announced, ..Pieces::default() };
    loop {
        let frame = match timeout_at(until, timeout(idle, body.frame())).await.flatten() {
            Err(_) => return Err(BodyFault::Slow { partial: got.whole() }),
            Ok(None) => return Ok(got.whole()),
            Ok(Some(Err(error))) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                return Err(BodyFault::Cut { why: cause.unwrap_or_else(|| error.to_string()), partial: got.whole() });
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers are of no use to anyone here.
        let Ok(data) = frame.into_data() else { continue };
        if got.len() + data.len() > limit {
            return Err(BodyFault::TooLarge);
        }
        got.push(data);
    }
}

#[derive(Default)]
struct Pieces {
    announced: usize,
    first: Bytes,
    rest: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.rest.is_empty() {
            // The announcement is only believed up to a point.
            self.rest.reserve(self.announced.min(1 << 20).max(self.first.len() + data.len()));
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&data);
    }

    fn whole(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}
