//! [`StreamSessions`]: which streams of subscriptions are open, and what is remembered of those that are gone.
//!
//! Invariants: a session can be found as long as anything of it is on its way, also when its stream has ended; of what
//! it was given out of order something is known for longer. Whoever looks for one that goes at this moment finds it
//! among the open ones or among the past ones, never among neither: both lists have one lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::sent_entries::SentEntries;
use super::stream_session::{SessionKey, StreamSession, is_its_own};
use crate::events::CursorPair;
use crate::events::subscription::StreamNumber;
use crate::kernel::names::{AppId, ClientName, Stream, Streams, SubscriptionName};
use crate::kernel::sync::lock;

/// How many streams that are gone, and were given something out of order, are remembered.
const MAX_PAST: usize = 256;

/// The open streams of subscriptions.
#[derive(Debug, Default)]
pub(crate) struct StreamSessions {
    list: Mutex<SessionList>,
    /// How many there were.
    opened: AtomicU64,
}

#[derive(Debug, Default)]
struct SessionList {
    open: BTreeMap<SessionKey, Arc<StreamSession>>,
    /// Those that are gone, the last at the end.
    past: VecDeque<PastSession>,
}

/// What is remembered of a stream that is gone.
#[derive(Debug)]
struct PastSession {
    client: ClientName,
    key: SessionKey,
    began: Option<CursorPair>,
    sent: [SentEntries; 2],
}

/// A stream that is about to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRequest<'a> {
    pub(crate) app: &'a AppId,
    pub(crate) streams: Streams,
    pub(crate) client: &'a ClientName,
    pub(crate) subscription: &'a SubscriptionName,
    /// How far its caller got in an earlier one, if it says so.
    pub(crate) last: Option<CursorPair>,
}

impl StreamSessions {
    /// Lists a new stream. Also returns its client's others of the subscription: of two, the later knows of the
    /// earlier.
    pub(super) fn begin(&self, request: &SessionRequest<'_>) -> (Arc<StreamSession>, Vec<Arc<StreamSession>>) {
        let SessionRequest { app, client, subscription, last, .. } = *request;
        // Held from the look at the others until this one is listed.
        let mut list = self.list();
        let number = StreamNumber::MIN.saturating_add(self.opened.fetch_add(1, Ordering::Relaxed));
        let key = |number| SessionKey { app: app.clone(), subscription: subscription.clone(), number };
        let earlier = list.open.range(key(StreamNumber::MIN)..key(number)).map(|(_, earlier)| earlier);
        let earlier: Vec<Arc<StreamSession>> = earlier.filter(|earlier| earlier.client == *client).cloned().collect();
        // All of a client that are there have the same.
        let takeover = earlier.first().map(|earlier| Arc::clone(&earlier.takeover)).unwrap_or_default();
        let session = Arc::new(StreamSession::new(client.clone(), key(number), last, takeover));
        list.open.insert(key(number), Arc::clone(&session));
        (session, earlier)
    }

    /// Nothing of a session is on its way any more.
    pub(super) fn end(&self, session: &StreamSession) {
        // Before it is looked what there is: whoever takes over finds it here or there.
        let mut list = self.list();
        let mut sent = session.take_sent();
        sent.iter_mut().for_each(|sent| sent.in_flight.clear());
        // What was given in order lies after the caller's place, and comes again without that.
        let is_in_order =
            |(sent, stream): (&SentEntries, Stream)| sent.is_in_order(session.began.map(|began| began.of(stream)));
        if !sent.iter().zip(Stream::ALL).all(is_in_order) {
            if list.past.len() == MAX_PAST {
                list.past.pop_front();
            }
            let (client, key) = (session.client.clone(), session.key.clone());
            list.past.push_back(PastSession { client, key, began: session.began, sent });
        }
        list.open.remove(&session.key);
    }

    /// What there is of streams that are over, and of those that are gone, of the same client and subscription, of
    /// which the caller speaks. One that goes at this moment is one or the other.
    pub(super) fn take_sent(
        &self,
        by: &StreamSession,
        over: &[Arc<StreamSession>],
        streams: Streams,
        last: &CursorPair,
    ) -> Vec<[SentEntries; 2]> {
        let is_of_it = |past: &PastSession| {
            (&past.client, &past.key.app, &past.key.subscription) == (&by.client, &by.key.app, &by.key.subscription)
                && is_its_own(past.began.as_ref(), &past.sent, streams, last)
        };
        let mut list = self.list();
        let (own, rest): (VecDeque<PastSession>, VecDeque<PastSession>) =
            std::mem::take(&mut list.past).into_iter().partition(is_of_it);
        list.past = rest;
        let over = over.iter().map(|over| over.take_sent());
        own.into_iter().map(|past| past.sent).chain(over).collect()
    }

    fn list(&self) -> MutexGuard<'_, SessionList> {
        lock(&self.list)
    }
}
