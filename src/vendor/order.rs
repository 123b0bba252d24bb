//! An [`Order`]: one thing wanted from the vendor, stated in full.
//!
//! Invariants: an order names an [`Operation`], never a path; method, path, bucket and what may be done after a failure
//! follow from it in one place. Nothing of the caller's head is in it but the allow-listed headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::time::Instant;

use super::history::IN_PROGRESS_PAUSE;
use crate::kernel::names::{AppId, BucketName, ClientName, RegionName, Stream};
use crate::kernel::proof::Ground;

/// One of the vendor's operations, with its parameters as values (not yet percent-encoded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GET /rtm/vendor/{user_events|channel_events}`: removes what it returns.
    ReadEvents(Stream),
    /// `POST /rtm/message/history/query` with this body.
    CreateHistory(Bytes),
    /// `GET /rtm/message/history/query/{handle}`: the handle dies once messages came through it.
    FetchHistory(String),
    /// `GET /rtm/message/history/count` with these query parameters.
    CountHistory(Vec<(String, String)>),
    /// `POST /rtm/users/{user}/peer_messages`.
    PeerMessage(Message),
    /// `POST /rtm/users/{user}/channel_messages`.
    ChannelMessage(Message),
}

/// The vendor's endpoints, as metrics, logs and the admin API name them. The names are ours: no request is built from
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Reads of users' events.
    UserEvents,
    /// Reads of channels' events.
    ChannelEvents,
    /// History: a query is made.
    HistoryCreate,
    /// History: what a query has found is fetched.
    HistoryGet,
    /// History: messages are counted.
    HistoryCount,
    /// Messages to users.
    PeerMessages,
    /// Messages to channels.
    ChannelMessages,
}

impl Endpoint {
    /// All of them, in the order of their declaration: each stands at its own `as usize`.
    pub const ALL: [Self; 7] = [
        Self::UserEvents,
        Self::ChannelEvents,
        Self::HistoryCreate,
        Self::HistoryGet,
        Self::HistoryCount,
        Self::PeerMessages,
        Self::ChannelMessages,
    ];

    /// Its label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserEvents => "user_events",
            Self::ChannelEvents => "channel_events",
            Self::HistoryCreate => "history_create",
            Self::HistoryGet => "history_get",
            Self::HistoryCount => "history_count",
            Self::PeerMessages => "peer_messages",
            Self::ChannelMessages => "channel_messages",
        }
    }
}

/// What a message order carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The user who sends.
    pub user: String,
    /// The caller's query parameters (the vendor has `wait_for_ack`).
    pub query: Vec<(String, String)>,
    /// The caller's body, unread.
    pub body: Bytes,
}

/// What may be done when an exchange fails after its request may have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// The read may have removed events: never cancel, never send again for this reading.
    Destructive,
    /// Asking twice is the same as asking once.
    Idempotent,
    /// The vendor may have acted: never send again.
    Once,
}

impl Operation {
    /// The HTTP method.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::ReadEvents(_) | Self::FetchHistory(_) | Self::CountHistory(_) => Method::GET,
            Self::CreateHistory(_) | Self::PeerMessage(_) | Self::ChannelMessage(_) => Method::POST,
        }
    }

    /// The bucket the vendor counts it in.
    #[must_use]
    pub fn bucket(&self) -> BucketName {
        match self {
            Self::ReadEvents(stream) => stream.bucket(),
            Self::CreateHistory(_) => BucketName::HistoryCreate,
            Self::FetchHistory(_) => BucketName::HistoryGet,
            Self::CountHistory(_) => BucketName::HistoryCount,
            Self::PeerMessage(_) | Self::ChannelMessage(_) => BucketName::Messages,
        }
    }

    /// Which of the vendor's endpoints serves it.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::ReadEvents(Stream::UserEvents) => Endpoint::UserEvents,
            Self::ReadEvents(Stream::ChannelEvents) => Endpoint::ChannelEvents,
            Self::CreateHistory(_) => Endpoint::HistoryCreate,
            Self::FetchHistory(_) => Endpoint::HistoryGet,
            Self::CountHistory(_) => Endpoint::HistoryCount,
            Self::PeerMessage(_) => Endpoint::PeerMessages,
            Self::ChannelMessage(_) => Endpoint::ChannelMessages,
        }
    }

    /// What may be done after a failure.
    #[must_use]
    pub fn safety(&self) -> Safety {
        match self {
            Self::ReadEvents(_) => Safety::Destructive,
            // A query made twice leaves one unused handle behind; it costs nothing but quota.
            Self::CreateHistory(_) | Self::CountHistory(_) => Safety::Idempotent,
            // The handle may be dead already: the resolver makes the query anew instead.
            Self::FetchHistory(_) | Self::PeerMessage(_) | Self::ChannelMessage(_) => Safety::Once,
        }
    }

    /// Whether it sends a message, whose answer its caller gets as it is.
    #[must_use]
    pub fn is_message(&self) -> bool {
        matches!(self, Self::PeerMessage(_) | Self::ChannelMessage(_))
    }

    /// Whether any region can serve it. Events and handles are in the region where they were made.
    #[must_use]
    pub fn keeps_no_state(&self) -> bool {
        match self {
            Self::ReadEvents(_) | Self::FetchHistory(_) => false,
            Self::CreateHistory(_) | Self::CountHistory(_) | Self::PeerMessage(_) | Self::ChannelMessage(_) => true,
        }
    }

    /// How long the vendor is left alone after an answer that did not come in time: it may have said `in progress`, and
    /// may be on its way.
    #[must_use]
    pub fn rest_after_timeout(&self) -> Duration {
        match self {
            Self::CountHistory(_) => IN_PROGRESS_PAUSE,
            // Of these none can say so, or none is asked again.
            Self::ReadEvents(_)
            | Self::CreateHistory(_)
            | Self::FetchHistory(_)
            | Self::PeerMessage(_)
            | Self::ChannelMessage(_) => Duration::ZERO,
        }
    }

    /// The body to send, empty for a GET.
    #[must_use]
    pub fn body(&self) -> Bytes {
        match self {
            Self::CreateHistory(body) => body.clone(),
            Self::PeerMessage(message) | Self::ChannelMessage(message) => message.body.clone(),
            Self::ReadEvents(_) | Self::FetchHistory(_) | Self::CountHistory(_) => Bytes::new(),
        }
    }
}

/// Who pays for an order with its share of the quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payer {
    /// The client, or the gateway itself for its own reads.
    pub client: ClientName,
    /// Its share of a contended bucket, at least 1.
    pub weight: u32,
}

/// Those of one client who wait for a piece of work that several share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// In whose line the work may wait for a seat, too.
    pub payer: Payer,
    /// How many they are.
    pub callers: usize,
}

/// Whether something has gone to the vendor for a piece of work. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<AtomicBool>);

impl Sent {
    /// Something goes to the vendor now.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the vendor may have been asked: what it answers may be older than a question that comes now.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// One thing wanted from the vendor. Handed to `egress`.
#[derive(Clone, Debug)]
pub struct Order {
    /// The app it is for.
    pub app: AppId,
    /// What is wanted.
    pub operation: Operation,
    /// Who pays.
    pub payer: Payer,
    /// All who wait for it, as they come and leave: its seat comes when the first of them would get one. `None`: nobody
    /// but the payer.
    pub sharers: Option<watch::Receiver<Vec<Sharer>>>,
    /// What let the caller in who waits for it: withdrawn, the order waits no longer. `None`: nobody waits for it
    /// alone.
    pub proof: Option<Ground>,
    /// Whether it asks once more what failed: whoever sends it has asked the retry budget, and it is not sent once more
    /// for a failure of its own.
    pub is_repeat: bool,
    /// Until when a seat is waited for, where that is sooner than the deadline.
    pub seat_by: Option<Instant>,
    /// When the payer gives up: no seat is waited for beyond it.
    pub deadline: Instant,
    /// Set before the order goes out. `None`: nobody asks.
    pub sent: Option<Sent>,
    /// The most of the vendor's `Retry-After` that this order's bucket obeys for its sake; `None`: as configured.
    pub retry_after_limit: Option<Duration>,
    /// The region to ask, and no other. `None`: the first of the app's that can be reached, if the operation keeps no
    /// state there; else the first.
    pub region: Option<RegionName>,
    /// The caller's allow-listed headers (`Accept`, `Content-Type`, …). Anything else in it is not sent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
