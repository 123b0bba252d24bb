//! The members of the answers, as JSON text.
//!
//! Invariants: messages stand in it byte for byte as the vendor wrote them; the part that holds them is made once for a
//! job and shared by all who get it.

use bytes::{Bytes, BytesMut};

use super::query::Query;

const LIST: &[u8] = b"\"messages\":[";

/// A list of messages being written, as the member `"messages":[…]`.
pub(super) struct MessageList(BytesMut);

impl MessageList {
    pub(super) fn new() -> Self {
        Self(BytesMut::from(LIST))
    }

    pub(super) fn push(&mut self, message: &[u8]) {
        if self.0.len() > LIST.len() {
            self.0.extend_from_slice(b",");
        }
        self.0.extend_from_slice(message);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn finish(mut self) -> Bytes {
        self.0.extend_from_slice(b"]");
        // A buffer that grew by doubling would hold up to twice its text for as long as the result is kept.
        if self.0.capacity() > self.0.len() + self.0.len() / 8 {
            Bytes::copy_from_slice(&self.0)
        } else {
            self.0.freeze()
        }
    }
}

/// The member of a count.
pub(super) fn count(count: u64) -> Bytes {
    format!("\"count\":{count}").into()
}

/// `"code"` alone.
pub(super) fn code(code: &str) -> Bytes {
    format!("\"code\":\"{code}\"").into()
}

/// `"code"` and what a caller asked for, and where the messages can be fetched (again). Our own location: URL-safe.
pub(super) fn located(code: &str, query: &Query, location: &str) -> Bytes {
    format!(
        "\"code\":\"{code}\",\"offset\":{},\"limit\":{},\"order\":\"{}\",\"location\":\"{location}\"",
        query.offset,
        query.limit,
        query.direction.as_str(),
    )
    .into()
}
