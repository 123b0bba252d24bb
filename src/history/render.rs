//! The members of the answers, as JSON text.
//!
//! Invariants: messages stand in it byte for byte as the vendor wrote them; the part that holds them is made once for a
//! job and shared by all who get it.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};

use super::error::Error;
use super::query::Query;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::ClientName;
use crate::kernel::share::{self, Holdings};
use crate::kernel::sync::lock;
use crate::vendor::history::Filter;

const LIST: &[u8] = b"\"messages\":[";

/// Bytes of one list.
const MAX_LIST_BYTES: usize = 64 << 20;

/// Bytes of all lists that are being written, kept, or on their way to callers.
const MAX_BYTES: usize = 512 << 20;

/// Counts what all lists hold together, each until its last copy is gone, so that neither many large ones nor slow
/// callers take all memory; and no client all that there is for them (see [`share`]). Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct MemoryBudget {
    held: Arc<Mutex<Holdings>>,
    one: usize,
    all: usize,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self { held: Arc::default(), one: MAX_LIST_BYTES, all: MAX_BYTES }
    }
}

impl MemoryBudget {
    fn table(&self) -> MutexGuard<'_, Holdings> {
        lock(&self.held)
    }
}

/// What one list holds. It counts for the client that began it.
#[derive(Debug)]
struct MemoryReservation {
    budget: MemoryBudget,
    client: ClientName,
    bytes: usize,
}

impl MemoryReservation {
    fn take(&mut self, more: usize) -> Result<(), Error> {
        if self.bytes + more > self.budget.one {
            return Err(Error::BadRequest(format!("limit selects more than {} bytes of messages", self.budget.one)));
        }
        let mut table = self.budget.table();
        if !table.may_take(&self.client, more, self.budget.all) {
            return Err(Error::Crowded);
        }
        table.take(&self.client, more);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.table().give_back(&self.client, self.bytes);
    }
}

/// A list of messages being written, as the member `"messages":[…]`.
pub(super) struct MessageList {
    text: BytesMut,
    held: MemoryReservation,
}

impl MessageList {
    pub(super) fn new(budget: MemoryBudget, client: &ClientName) -> Self {
        Self { text: BytesMut::from(LIST), held: MemoryReservation { budget, client: client.clone(), bytes: 0 } }
    }

    /// Adds messages.
    pub(super) fn extend(&mut self, messages: &[Bytes]) -> Result<(), Error> {
        self.held.take(messages.iter().map(|message| message.len() + 1).sum())?;
        for message in messages {
            if self.text.len() > LIST.len() {
                self.text.extend_from_slice(b",");
            }
            self.text.extend_from_slice(message);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Bytes {
        let Self { mut text, held } = self;
        text.extend_from_slice(b"]");
        // A buffer that grew by doubling would hold up to twice its text for as long as the result is kept.
        share::held_for(Bytes::copy_from_slice(&text), held)
    }
}

/// Lines below this size are copied together: a piece costs more than the copy.
const SMALL: usize = 1024;

/// A line for each message, and one for the cursor after them, in pieces; large messages are not copied.
pub(super) fn lines(messages: &[Bytes], cursor: &str) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut small = BytesMut::new();
    for message in messages {
        let message = on_one_line(message);
        if message.len() < SMALL {
            small.extend_from_slice(&message);
        } else {
            if !small.is_empty() {
                pieces.push(small.split().freeze());
            }
            pieces.push(message);
        }
        small.extend_from_slice(b"\n");
    }
    small.extend_from_slice(&cursor_line(cursor));
    pieces.push(small.freeze());
    pieces
}

/// A message's own text. Line breaks between its parts, which mean nothing in JSON, become spaces; within a string
/// there are none.
fn on_one_line(message: &Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', message).is_none() {
        return message.clone();
    }
    message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// The line that says where one can go on. A cursor needs no escaping.
fn cursor_line(cursor: &str) -> Bytes {
    format!("{{\"cursor\":\"{cursor}\"}}\n").into()
}

/// Says that a stream lives, and nothing else: JSON lets space stand in front of the next line.
pub(super) const ALIVE: Bytes = Bytes::from_static(b" ");

/// The last line of a stream that gave all there is.
pub(super) fn end_line(messages: u64, cursor: &str) -> Bytes {
    format!("{{\"end\":true,\"messages\":{messages},\"cursor\":\"{cursor}\"}}\n").into()
}

/// The member of a count.
pub(super) fn count(count: u64) -> Bytes {
    format!("\"count\":{count}").into()
}

/// The member that says since when an answer was owed.
pub(super) fn as_of(as_of: UnixMillis) -> Bytes {
    format!("\"as_of\":\"{as_of}\"").into()
}

/// The seconds that a count is of.
pub(super) fn range(filter: &Filter) -> Bytes {
    format!("\"start_time\":{},\"end_time\":{}", filter.start, filter.end).into()
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
    fn a_message_is_one_line_and_a_large_one_is_not_copied() {
        let large = Bytes::from(format!("\"{}\"", "x".repeat(SMALL)));
        let pieces = lines(&["{\"a\":\r\n 1}".into(), large.clone(), "2".into()], "c");
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        let large = std::str::from_utf8(&large).unwrap();
        assert_eq!(pieces.concat(), format!("{{\"a\":   1}}\n{large}\n2\n{{\"cursor\":\"c\"}}\n").as_bytes());
    }

    fn client(name: &str) -> ClientName {
        ClientName::parse(name).unwrap()
    }

    #[test]
    fn lists_are_bounded_each_and_together_until_their_last_copy_is_gone() {
        let budget = MemoryBudget { one: 1000, all: 3200, ..MemoryBudget::default() };
        let piece = [Bytes::from(vec![b'1'; 499])];
        let mut lists: Vec<_> = ["a", "b", "c"].map(|name| MessageList::new(budget.clone(), &client(name))).into();
        for list in &mut lists {
            (0..2).for_each(|_| list.extend(&piece).unwrap());
        }
        assert!(matches!(lists[0].extend(&piece), Err(Error::BadRequest(_))));
        let mut one_more = MessageList::new(budget.clone(), &client("d"));
        assert!(matches!(one_more.extend(&piece), Err(Error::Crowded)));
        let finished: Vec<_> = lists.into_iter().map(MessageList::finish).collect();
        let on_its_way = finished[0].clone();
        drop(finished);
        assert_eq!(budget.table().iter().collect::<Vec<_>>(), [(&client("a"), 1000)]);
        one_more.extend(&piece).unwrap();
        drop((on_its_way, one_more));
        assert_eq!(*budget.table(), Holdings::default());
        let mut list = MessageList::new(budget, &client("a"));
        list.extend(&["1".into()]).unwrap();
        list.extend(&["2".into(), "3".into()]).unwrap();
        assert_eq!(list.finish(), "\"messages\":[1,2,3]");
    }

    #[test]
    fn no_client_s_lists_take_all_there_is_for_them() {
        let budget = MemoryBudget { one: 1000, all: 10_000, ..MemoryBudget::default() };
        let piece = [Bytes::from(vec![b'1'; 499])];
        let list = |name: &str| {
            let mut list = MessageList::new(budget.clone(), &client(name));
            list.extend(&piece).map(|()| list.finish())
        };
        let greedy: Vec<_> = std::iter::from_fn(|| list("greedy").ok()).collect();
        assert_eq!(greedy.len(), 18);
        assert!(list("other").is_ok() && list("greedy").is_err());
    }
}
