//! Reading an answer's body: whole, within a size and a time, and within the [memory](super::memory) for answers where
//! others wait for it.
//!
//! Invariants: what has come is never thrown away with an error (a destructive read cannot be repeated). A body of one
//! piece is not copied. Where a lease is wanted nothing is read before it is there; of a body that does not say its
//! length, [`Bounds::small`](super::memory::Bounds::small) bytes and the rest of their piece. What was read is never
//! more than the lease, but for the moment in which a buffer grows.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use super::memory::{AnswerMemory, Lease};
use crate::kernel::cause::Cause;
use crate::kernel::names::ClientName;

/// Why a body is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// The connection ended, or the framing broke.
    Cut { why: Cause, partial: Bytes },
    /// It took too long, or paused for too long.
    Slow { partial: Bytes },
    /// It is larger than the limit.
    TooLarge {
        /// What had come of it, up to the limit; empty where a body that is not whole is of no use.
        partial: Bytes,
        /// So many bytes more there are at least.
        beyond: u64,
    },
}

impl BodyFault {
    /// It is larger than the limit, and nothing is kept of it.
    pub(crate) fn too_large() -> Self {
        Self::TooLarge { partial: Bytes::new(), beyond: 1 }
    }
}

/// Why there is no body that may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It did not come whole. What had come of it is not kept.
    Fault(BodyFault),
    /// There was no room for it in time.
    NoMemory,
}

/// Reads all of a body, of `limit` bytes at most, until then, with no pause longer than `idle`.
pub(crate) async fn read_body(
    body: Incoming,
    limit: usize,
    until: Instant,
    idle: Duration,
) -> Result<Bytes, BodyFault> {
    let mut reader = BodyReader::new(body, limit)?;
    while reader.more(until, idle).await? {}
    Ok(reader.got.whole())
}

/// Reads a body of which nothing may be thrown away: `limit` bytes of it are kept, and what comes beyond them is
/// counted, up to as many again.
pub(crate) async fn read_body_partial(
    body: Incoming,
    limit: usize,
    until: Instant,
    idle: Duration,
) -> Result<Bytes, BodyFault> {
    let announced = announced(&body).filter(|size| *size <= limit);
    let mut reader = BodyReader { body, announced, limit, got: Pieces::default() };
    let mut beyond = 0;
    while beyond <= limit as u64 {
        match reader.piece(until, idle).await {
            Ok(Some(mut piece)) => {
                let fits = piece.len().min(limit - reader.got.len());
                reader.keep(piece.split_to(fits));
                beyond += piece.len() as u64;
            }
            Ok(None) => break,
            Err(BodyFault::Cut { partial, .. } | BodyFault::Slow { partial }) if beyond > 0 => {
                return Err(BodyFault::TooLarge { partial, beyond });
            }
            Err(fault) => return Err(fault),
        }
    }
    let whole = reader.got.whole();
    if beyond == 0 { Ok(whole) } else { Err(BodyFault::TooLarge { partial: whole, beyond }) }
}

/// Reads all of a body, until then, with no pause longer than `idle`, within a client's share of the room. A small one
/// needs no lease.
pub(crate) async fn read_body_leased(
    memory: &AnswerMemory,
    client: &ClientName,
    body: Incoming,
    until: Instant,
    idle: Duration,
) -> Result<(Bytes, Option<Lease>), BodyError> {
    let bounds = memory.bounds();
    let whole = |fault| match fault {
        BodyFault::Cut { why, .. } => BodyError::Fault(BodyFault::Cut { why, partial: Bytes::new() }),
        BodyFault::Slow { .. } => BodyError::Fault(BodyFault::Slow { partial: Bytes::new() }),
        BodyFault::TooLarge { .. } => BodyError::Fault(BodyFault::too_large()),
    };
    let mut reader = BodyReader::new(body, bounds.answer).map_err(whole)?;
    // Where the announcement says it already, nothing is read before there is room.
    while reader.announced.unwrap_or(reader.got.len()) <= bounds.small {
        if !reader.more(until, idle).await.map_err(whole)? {
            return Ok((reader.got.whole(), None));
        }
    }
    let size = reader.announced.unwrap_or(bounds.answer);
    // In a box: few are as large.
    let leased = timeout_at(until, Box::pin(memory.lease(client, size))).await;
    let mut lease = leased.map_err(|_| BodyError::NoMemory)?.map_err(|_| BodyError::NoMemory)?;
    reader.limit = size;
    if reader.announced.is_some() {
        reader.got.reserve(size);
    }
    while reader.more(until, idle).await.map_err(whole)? {}
    lease.shrink(reader.got.capacity());
    Ok((reader.got.whole(), Some(lease)))
}

/// How long a body says it is.
fn announced(body: &Incoming) -> Option<usize> {
    body.size_hint().exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}

struct BodyReader {
    body: Incoming,
    /// How long it says it is. (HTTP holds it to that.)
    announced: Option<usize>,
    limit: usize,
    got: Pieces,
}

impl BodyReader {
    fn new(body: Incoming, limit: usize) -> Result<Self, BodyFault> {
        let announced = announced(&body);
        if announced.is_some_and(|size| size > limit) {
            return Err(BodyFault::too_large());
        }
        Ok(Self { body, announced, limit, got: Pieces::default() })
    }

    /// Reads a piece and keeps it, if there is one more.
    async fn more(&mut self, until: Instant, idle: Duration) -> Result<bool, BodyFault> {
        let Some(piece) = self.piece(until, idle).await? else { return Ok(false) };
        if self.got.len() + piece.len() > self.limit {
            return Err(BodyFault::too_large());
        }
        self.keep(piece);
        Ok(true)
    }

    /// Reads a piece, if there is one more.
    async fn piece(&mut self, until: Instant, idle: Duration) -> Result<Option<Bytes>, BodyFault> {
        let paused = Instant::now().checked_add(idle).map_or(until, |paused| paused.min(until));
        let frame = match timeout_at(paused, self.body.frame()).await {
            Err(_) => return Err(BodyFault::Slow { partial: self.got.take() }),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                // The library says "error reading a body"; why is one level below.
                let words = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                let why = Cause::of(words, error);
                return Err(BodyFault::Cut { why, partial: self.got.take() });
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers are of no use to anyone here.
        Ok(Some(frame.into_data().unwrap_or_default()))
    }

    fn keep(&mut self, piece: Bytes) {
        // The announcement is only believed up to a point.
        let likely = self.announced.unwrap_or(0).min(1 << 20);
        self.got.push(piece, likely, self.limit);
    }
}

#[derive(Default)]
struct Pieces {
    first: Bytes,
    rest: Vec<u8>,
}

impl Pieces {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Bytes of memory for it.
    fn capacity(&self) -> usize {
        self.first.len() + self.rest.capacity()
    }

    /// Makes room for so many in all, at once.
    fn reserve(&mut self, size: usize) {
        self.rest.reserve_exact(size.saturating_sub(self.rest.len()));
        self.rest.extend_from_slice(&std::mem::take(&mut self.first));
    }

    /// `likely`: how many there will be at least. `most`: no more come.
    fn push(&mut self, data: Bytes, likely: usize, most: usize) {
        if data.is_empty() {
            return;
        }
        if self.len() == 0 && self.rest.capacity() == 0 {
            self.first = data;
            return;
        }
        let len = self.len() + data.len();
        if self.rest.capacity() < len {
            let size = likely.max(2 * self.rest.capacity()).min(most).max(len);
            self.reserve(size);
        }
        self.rest.extend_from_slice(&data);
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self).whole()
    }

    fn whole(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.into() }
    }
}
