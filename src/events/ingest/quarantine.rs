//! The quarantine: answers that could not be read to their end, to be looked at, and read again.
//!
//! Invariant: an event of such an answer goes into the log once. How many of them did is noted in the step in which
//! they do.

use bytes::{Bytes, BytesMut};

use super::poller::answer;
use crate::events::append::Appender;
use crate::store::{Commit, Content, Error, EventText, NewBatch};

/// What reading an answer again brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAgain {
    /// How many of its events went into the log now.
    pub redelivered: u64,
    /// How many of them did so far.
    pub delivered: u64,
}

/// Reads an answer again, and appends those of its events that are whole and not in the log yet, as if they had come
/// now. `None` when there is none of that number.
///
/// # Errors
/// When the store fails.
pub(in crate::events) async fn read_again(appender: &Appender, id: u64) -> Result<Option<ReadAgain>, Error> {
    // Held all the while: nobody else reads it again, or appends.
    let mut pipeline = appender.pipeline().await;
    let (store, key) = (appender.log().store(), appender.log().key());
    let Some((entry, pieces)) = store.quarantined_body(key, id).await? else { return Ok(None) };
    let (events, delivered) = undelivered(pieces, entry.delivered);
    if events.is_empty() {
        return Ok(Some(ReadAgain { redelivered: 0, delivered: entry.delivered }));
    }
    let batch = |events| NewBatch {
        received_at: appender.clock().wall_ms(),
        region: entry.region.clone(),
        content: Content::Events(events),
    };
    let batches = events.into_iter().map(batch).collect();
    let all = Commit { batches, redelivered: Some((id, delivered)), ..Commit::default() };
    match appender.append_locked(&mut pipeline, all, None).await {
        Ok(outcome) => Ok(Some(ReadAgain { redelivered: outcome.stored, delivered })),
        Err(why) => {
            // The word alone may have been stored. Nothing is lost if this fails, too: the answer is there to be looked
            // at.
            let word = Commit { redelivered: Some((id, entry.delivered)), ..Commit::default() };
            if let Err(error) = store.commit(key, word).await {
                tracing::error!(app = %key.app, stream = %key.stream, id, %error, "it is not known which events of a quarantined answer are in the log");
            }
            Err(why)
        }
    }
}

/// The whole events of a body after the first `delivered`, and how many there are with these.
fn undelivered(pieces: Vec<Bytes>, delivered: u64) -> (Vec<EventText>, u64) {
    let mut body = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        body.extend_from_slice(&piece);
    }
    answer::after(&body, delivered)
}
