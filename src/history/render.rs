//! The members of the answers, as JSON text.
//!
//! Invariants: messages stand in it byte for byte as the vendor wrote them; the part that holds them is made once for a
//! job and shared by all who get it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use super::Error;
use super::query::Query;

const LIST: &[u8] = b"\"messages\":[";

/// Bytes of one list.
const LIST_MAX: usize = 64 << 20;

/// Bytes of all lists being written at a time.
const ALL_MAX: usize = 512 << 20;

/// Counts what all lists being written hold together, so that many large ones cannot take all memory. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    used: Arc<AtomicUsize>,
    one: usize,
    all: usize,
}

impl Default for Desk {
    fn default() -> Self {
        Self { used: Arc::default(), one: LIST_MAX, all: ALL_MAX }
    }
}

/// A list of messages being written, as the member `"messages":[…]`.
pub(super) struct MessageList {
    text: BytesMut,
    desk: Desk,
    counted: usize,
}

impl MessageList {
    pub(super) fn new(desk: Desk) -> Self {
        Self { text: BytesMut::from(LIST), desk, counted: 0 }
    }

    /// Adds messages.
    pub(super) fn extend(&mut self, messages: &[Bytes]) -> Result<(), Error> {
        let more = messages.iter().map(|message| message.len() + 1).sum();
        self.counted += more;
        if self.desk.used.fetch_add(more, Ordering::Relaxed) > self.desk.all {
            return Err(Error::Crowded);
        }
        if self.counted > self.desk.one {
            return Err(Error::BadRequest(format!("limit selects more than {} bytes of messages", self.desk.one)));
        }
        for message in messages {
            if self.text.len() > LIST.len() {
                self.text.extend_from_slice(b",");
            }
            self.text.extend_from_slice(message);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Bytes {
        self.text.extend_from_slice(b"]");
        // A buffer that grew by doubling would hold up to twice its text for as long as the result is kept.
        Bytes::copy_from_slice(&self.text)
    }
}

impl Drop for MessageList {
    fn drop(&mut self) {
        self.desk.used.fetch_sub(self.counted, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_being_written_are_bounded_each_and_together() {
        let desk = Desk { one: 1000, all: 3000, ..Desk::default() };
        let piece = [Bytes::from(vec![b'1'; 499])];
        let mut lists: Vec<_> = (0..3).map(|_| MessageList::new(desk.clone())).collect();
        for list in &mut lists {
            (0..2).for_each(|_| list.extend(&piece).unwrap());
        }
        assert!(matches!(lists[0].extend(&piece), Err(Error::BadRequest(_))));
        let mut one_more = MessageList::new(desk.clone());
        assert!(matches!(one_more.extend(&piece), Err(Error::Crowded)));
        drop((lists, one_more));
        assert_eq!(desk.used.load(Ordering::Relaxed), 0);
        let mut list = MessageList::new(desk);
        list.extend(&["1".into()]).unwrap();
        list.extend(&["2".into(), "3".into()]).unwrap();
        assert_eq!(list.finish(), "\"messages\":[1,2,3]");
    }
}
