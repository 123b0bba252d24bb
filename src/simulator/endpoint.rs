//! The vendor's endpoints as the simulator counts and scripts them.

use serde::{Deserialize, Serialize};

use crate::kernel::names::{BucketName, Stream};

/// One endpoint of the vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    UserEvents,
    ChannelEvents,
    HistoryCreate,
    HistoryGet,
    HistoryCount,
    PeerMessages,
    ChannelMessages,
}

impl Endpoint {
    /// All of them; an endpoint's place in it is `endpoint as usize`.
    pub const ALL: [Self; 7] = [
        Self::UserEvents,
        Self::ChannelEvents,
        Self::HistoryCreate,
        Self::HistoryGet,
        Self::HistoryCount,
        Self::PeerMessages,
        Self::ChannelMessages,
    ];

    /// Its name in the control API and in the configuration.
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

    /// The limit it is counted in.
    #[must_use]
    pub fn bucket(self) -> BucketName {
        match self {
            Self::UserEvents => BucketName::UserEvents,
            Self::ChannelEvents => BucketName::ChannelEvents,
            Self::HistoryCreate => BucketName::HistoryCreate,
            Self::HistoryGet => BucketName::HistoryGet,
            Self::HistoryCount => BucketName::HistoryCount,
            // Field: both kinds of message share one limit.
            Self::PeerMessages | Self::ChannelMessages => BucketName::Messages,
        }
    }
}

impl From<Stream> for Endpoint {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::UserEvents => Self::UserEvents,
            Stream::ChannelEvents => Self::ChannelEvents,
        }
    }
}
