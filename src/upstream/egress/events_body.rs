//! The body of an answer to a read of events, of which nothing is thrown away: what came of it, and what is missing.

use std::time::Duration;

use bytes::Bytes;

use super::Failure;
use super::coding::{self, Coding, Decoded};
use crate::upstream::pool::BodyFault;

/// What came of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) body: Bytes,
    pub(super) fault: Option<Missing>,
}

/// Why the rest did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The connection ended, or it took too long.
    Cut(String),
    /// It is larger than the limit, by so many bytes at least.
    TooLarge(u64),
    /// It cannot be decoded.
    Coding(String),
}

impl Came {
    /// What was read of it.
    pub(super) fn of(read: Result<Bytes, BodyFault>) -> Self {
        let (body, fault) = match read {
            Ok(body) => (body, None),
            Err(BodyFault::Cut { why, partial }) => (partial, Some(Missing::Cut(why))),
            Err(BodyFault::Slow { partial }) => (partial, Some(Missing::Cut("the answer did not end in time".into()))),
            Err(BodyFault::TooLarge { partial, beyond }) => (partial, Some(Missing::TooLarge(beyond))),
        };
        Self { body, fault }
    }

    /// Nothing of it can be told.
    pub(super) fn nothing(why: String) -> Self {
        Self { body: Bytes::new(), fault: Some(Missing::Cut(why)) }
    }

    /// All of it, or what came, why no more did, and how long the vendor wants to be left alone.
    pub(super) fn whole(self, retry_after: Option<Duration>) -> Result<Bytes, Failure> {
        let came = self.body;
        match self.fault {
            None => Ok(came),
            Some(Missing::Cut(why)) => Err(Failure::Lost { why: why.into(), partial: Some(came), retry_after }),
            Some(Missing::TooLarge(beyond)) => Err(Failure::Overlong { beyond, came }),
            Some(Missing::Coding(why)) => Err(Failure::Undecodable { why: why.into(), came }),
        }
    }
}

/// What came of a body, as it came.
pub(super) struct Coded {
    codings: Result<Vec<Coding>, coding::Fault>,
    came: Came,
    /// Bytes that are held of it when it is decoded.
    limit: usize,
}

impl Coded {
    pub(super) fn new(codings: Result<Vec<Coding>, coding::Fault>, came: Came, limit: usize) -> Self {
        Self { codings, came, limit }
    }

    pub(super) fn is_encoded(&self) -> bool {
        self.codings.as_ref().is_ok_and(|codings| !codings.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.came.body.len()
    }

    /// Decodes it as far as that can be done. What was wrong first is told.
    pub(super) fn decode(self) -> Came {
        let Self { codings, came: Came { body, fault }, limit } = self;
        let Decoded { body, fault: broken } = match codings {
            Ok(codings) => coding::decode(&codings, body, limit),
            Err(unknown) => Decoded { body, fault: Some(unknown) },
        };
        let broken = broken.map(|broken| match broken {
            coding::Fault::Broken(why) => Missing::Coding(why),
            coding::Fault::TooLarge(beyond) => Missing::TooLarge(beyond),
        });
        Came { body, fault: fault.or(broken) }
    }
}
