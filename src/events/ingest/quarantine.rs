//! The quarantine: answers that could not be read to their end, to be looked at, and read again.
//!
//! Invariant: an event of such an answer goes into the log once. How many of them did is noted in the step in which they do.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::events::ingest::poller::answer;
use crate::events::log::Log;
use crate::events::{Events, ReadError};
use crate::kernel::names::{AppId, Stream};
use crate::store::{Content, Error, EventText, NewBatch, QuarantineEntry, Together};

/// What reading an answer again brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAgain {
    /// How many of its events went into the log now.
    pub redelivered: u64,
    /// How many of them did so far.
    pub delivered: u64,
}

impl Events {
    /// The answers of a stream that could not be read to their end and have numbers below `before`, newest first, at most
    /// `most`.
    ///
    /// # Errors
    /// When there is no such stream, or the store fails.
    pub async fn quarantined(
        &self,
        app: &AppId,
        stream: Stream,
        before: u64,
        most: usize,
    ) -> Result<Vec<QuarantineEntry>, ReadError> {
        Ok(self.0.store.quarantined(&self.log(app, stream)?.key, before, most).await?)
    }

    /// One of these answers by its number, with its body in pieces; `None` when there is none.
    ///
    /// # Errors
    /// When there is no such stream, or the store fails.
    pub async fn quarantined_body(
        &self,
        app: &AppId,
        stream: Stream,
        id: u64,
    ) -> Result<Option<(QuarantineEntry, Vec<Bytes>)>, ReadError> {
        Ok(self.0.store.quarantined_body(&self.log(app, stream)?.key, id).await?)
    }

    /// Reads such an answer again, and appends those of its events that are whole and not in the log yet, as if they had
    /// come now. `None` when there is none.
    ///
    /// # Errors
    /// When there is no such stream, or the store fails.
    pub async fn read_again(&self, app: &AppId, stream: Stream, id: u64) -> Result<Option<ReadAgain>, ReadError> {
        let log = self.log(app, stream)?;
        let reading = Arc::clone(&log);
        Ok(log.shared.to_its_end(async move { reading.read_again(id).await }).await?)
    }
}

impl Log {
    async fn read_again(self: &Arc<Self>, id: u64) -> Result<Option<ReadAgain>, Error> {
        // Held all the while: nobody else reads it again, or appends.
        let mut writer = self.writer().await;
        let Some((entry, pieces)) = self.store.quarantined_body(&self.key, id).await? else { return Ok(None) };
        let (events, delivered) = undelivered(pieces, entry.delivered);
        if events.is_empty() {
            return Ok(Some(ReadAgain { redelivered: 0, delivered: entry.delivered }));
        }
        let batch = |events| NewBatch {
            received_at: self.clock.wall_ms(),
            region: entry.region.clone(),
            content: Content::Events(events),
        };
        let batches = events.into_iter().map(batch).collect();
        let all = Together { batches, redelivered: Some((id, delivered)), ..Together::default() };
        match self.append(&mut writer, all, None).await {
            Ok(appended) => Ok(Some(ReadAgain { redelivered: appended.kept, delivered })),
            Err(why) => {
                // The word alone may have been stored. Nothing is lost if this fails, too: the answer is there to be looked at.
                let word = Together { redelivered: Some((id, entry.delivered)), ..Together::default() };
                if let Err(error) = self.store.commit(&self.key, word).await {
                    tracing::error!(app = %self.key.app, stream = %self.key.stream, id, %error, "it is not known which events of a quarantined answer are in the log");
                }
                Err(why)
            }
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
