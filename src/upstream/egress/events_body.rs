//! The body of an answer to a read of events, of which nothing is thrown away: what came of it, and what is missing.

use std::time::Duration;

use bytes::Bytes;

use super::Failure;
use super::coding::{self, Coding, DecodeError, Decoded};
use crate::kernel::cause::Cause;
use crate::upstream::pool::BodyFault;

/// What came of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartialBody {
    pub(super) body: Bytes,
    pub(super) fault: Option<BodyGap>,
}

/// Why the rest did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyGap {
    /// The connection ended, or it took too long.
    Cut(Cause),
    /// It is larger than the limit, by so many bytes at least.
    TooLarge(u64),
    /// It cannot be decoded.
    Coding(Cause),
}

impl PartialBody {
    /// What was read of it.
    pub(super) fn of(read: Result<Bytes, BodyFault>) -> Self {
        let (body, fault) = match read {
            Ok(body) => (body, None),
            Err(BodyFault::Cut { why, partial }) => (partial, Some(BodyGap::Cut(why))),
            Err(BodyFault::Slow { partial }) => (partial, Some(BodyGap::Cut("the answer did not end in time".into()))),
            Err(BodyFault::TooLarge { partial, beyond }) => (partial, Some(BodyGap::TooLarge(beyond))),
        };
        Self { body, fault }
    }

    /// Nothing of it can be told.
    pub(super) fn nothing(why: Cause) -> Self {
        Self { body: Bytes::new(), fault: Some(BodyGap::Cut(why)) }
    }

    /// All of it, or what came, why no more did, and how long the vendor wants to be left alone.
    pub(super) fn whole(self, retry_after: Option<Duration>) -> Result<Bytes, Failure> {
        let came = self.body;
        match self.fault {
            None => Ok(came),
            Some(BodyGap::Cut(why)) => Err(Failure::Lost { why, partial: Some(came), retry_after }),
            Some(BodyGap::TooLarge(beyond)) => Err(Failure::Overlong { beyond, came }),
            Some(BodyGap::Coding(why)) => Err(Failure::Undecodable { why, came }),
        }
    }
}

/// What came of a body, as it came.
pub(super) struct EncodedBody {
    codings: Result<Vec<Coding>, DecodeError>,
    came: PartialBody,
    /// Bytes that are held of it when it is decoded.
    limit: usize,
}

impl EncodedBody {
    pub(super) fn new(codings: Result<Vec<Coding>, DecodeError>, came: PartialBody, limit: usize) -> Self {
        Self { codings, came, limit }
    }

    pub(super) fn is_encoded(&self) -> bool {
        self.codings.as_ref().is_ok_and(|codings| !codings.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.came.body.len()
    }

    /// Decodes it as far as that can be done. What was wrong first is told.
    pub(super) fn decode(self) -> PartialBody {
        let Self { codings, came: PartialBody { body, fault }, limit } = self;
        let Decoded { body, fault: broken } = match codings {
            Ok(codings) => coding::decode(&codings, body, limit),
            Err(unknown) => Decoded { body, fault: Some(unknown) },
        };
        let broken = broken.map(|broken| match broken {
            DecodeError::Broken(why) => BodyGap::Coding(why),
            DecodeError::TooLarge(beyond) => BodyGap::TooLarge(beyond),
        });
        PartialBody { body, fault: fault.or(broken) }
    }
}
