//! How a stream takes over from its caller's earlier ones.
//!
//! Why: whoever comes again with `Last-Event-ID` says how far it got. Its old connection may not be known to be dead,
//! and what was written to it counts neither as read nor as given back. So the new stream looks for the old one,
//! settles for it what the caller has, gives back the rest, and ends it: otherwise both would go on, and the old one
//! would give events to nobody. The old one is where the caller got to the place that it names, and any that it opened
//! from that same place: of those nothing has reached it.
//!
//! How one takes over from others, while none else of its client and subscription does:
//! 1. Those that were listed before it and are its caller's are over: they read nothing and say nothing from then on.
//!    One that is over before its own turn to take over came takes nothing over: a later one speaks for it.
//! 2. It waits until none of them is in the middle of reading, or of saying, something.
//! 3. In one go, which nothing cuts short: what they have on their way is settled or given back, and what the caller
//!    does not have is given again. In a stream of both logs that is stored before anything is given.
//!
//! Invariant: only the same client's word counts.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::stream_session::{StreamSession, given};
use super::stream_sessions::StreamSessions;
use crate::events::log::ReadError;
use crate::events::{CursorPair, Events};
use crate::kernel::names::{Stream, Streams};

/// How long a new stream waits for others of its caller, which are over, to let go of what they were about to read.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A stream takes over from those that were listed before it, as far as they are its caller's, who got to `last`.
pub(super) async fn take_over(
    sessions: &StreamSessions,
    session: &StreamSession,
    mut earlier: Vec<Arc<StreamSession>>,
    events: &Events,
    streams: Streams,
    last: CursorPair,
) -> Result<(), ReadError> {
    let (app, name) = (&session.key.app, &session.key.subscription);
    let _taking_over = session.takeover.lock().await;
    if session.is_over() {
        return Ok(());
    }
    earlier.retain(|earlier| earlier.ends_for(streams, &last));
    let over = earlier.iter().map(|earlier| earlier.rests());
    let _ = tokio::time::timeout(MAX_WAIT, join_all(over)).await;
    // From here on nothing waits: a caller that leaves does so before all of it, or after.
    let mut unheard = <[Vec<Range<u64>>; 2]>::default();
    let all = sessions.take_sent(session, &earlier, streams, &last);
    for (sent, stream) in all.into_iter().flat_map(|sent| sent.into_iter().zip(Stream::ALL)) {
        unheard[stream as usize].extend(sent.yield_to(given(&last, stream)));
    }
    for &stream in streams.each() {
        let place = (last.of(stream), last.was_given(stream));
        match events.resume((app, stream), name, place, &unheard[stream as usize]) {
            // It is not there any more, or of another store: then reading goes on where the subscription is.
            Ok(()) | Err(ReadError::NoSuchSubscription | ReadError::Expired { .. }) => {}
            // An app need not have both.
            Err(ReadError::NoSuchStream) if streams == Streams::All => {}
            Err(why) => return Err(why),
        }
    }
    if streams == Streams::All {
        // The places in this stream say how far its caller got in a log only once it is given something of that: until
        // then nobody says again after a kill what was said now.
        for &stream in streams.each() {
            match events.keep_place((app, stream), name).await {
                Ok(()) | Err(ReadError::NoSuchSubscription | ReadError::NoSuchStream) => {}
                Err(why) => return Err(why),
            }
        }
    }
    Ok(())
}
