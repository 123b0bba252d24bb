//! [`Kind`]: what can be asked of an app, with all that a request says of it in its path and query.

use super::{AckAction, EventsQuery};
use crate::kernel::names::{Action, Stream, Streams};

/// The kinds of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read of events.
    Events {
        /// Of which stream, or both.
        streams: Streams,
        /// In the vendor's words or ours, at once or as it goes.
        form: Form,
        /// From where, and how many.
        query: EventsQuery,
    },
    /// `POST …/events/{stream}/{ack|nack|extend}`.
    Acknowledge {
        stream: Stream,
        /// Which of the three.
        what: AckAction,
    },
    /// `POST …/events/{stream}/next`: what was leased is acknowledged, and the next is leased.
    NextEvents { stream: Stream },
    /// `POST …/history/query`.
    HistoryQuery,
    /// `GET …/history/query/{handle}`.
    HistoryFetch { handle: String },
    /// `GET /v1/apps/{app}/history`.
    HistoryStream {
        /// The query parameters, decoded; the service reads them.
        query: Vec<(String, String)>,
    },
    /// `GET …/history/count`.
    Count {
        /// The query parameters, decoded; the service reads the vendor's odd forms of them.
        query: Vec<(String, String)>,
    },
    /// `POST …/users/{user}/{peer_messages|channel_messages}`.
    Message {
        /// To a user or to a channel.
        to: Addressee,
        /// As whom: the grant must allow it.
        user: String,
        /// The query parameters, passed on.
        query: Vec<(String, String)>,
    },
}

/// The form of an events read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As the vendor answers.
    Vendor,
    /// Our own: with cursors, times and markers.
    Native,
    /// Our own, as it goes: Server-Sent Events.
    Stream,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    Peer,
    Channel,
}

impl Kind {
    /// What a client must be allowed to do for it.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Events { .. } | Self::Acknowledge { .. } | Self::NextEvents { .. } => Action::Events,
            Self::HistoryQuery | Self::HistoryFetch { .. } | Self::HistoryStream { .. } => Action::History,
            Self::Count { .. } => Action::Count,
            Self::Message { .. } => Action::Messages,
        }
    }

    /// As whom a message is sent.
    #[must_use]
    pub fn sender(&self) -> Option<&str> {
        match self {
            Self::Message { user, .. } => Some(user),
            Self::Events { .. }
            | Self::Acknowledge { .. }
            | Self::NextEvents { .. }
            | Self::HistoryQuery
            | Self::HistoryFetch { .. }
            | Self::HistoryStream { .. }
            | Self::Count { .. } => None,
        }
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Events { streams, form: Form::Vendor, .. } => streams.as_str(),
            Self::Events { streams, form: Form::Native, .. } => match streams {
                Streams::One(Stream::UserEvents) => "native_user_events",
                Streams::One(Stream::ChannelEvents) => "native_channel_events",
                Streams::All => "native_all",
            },
            Self::Events { streams, form: Form::Stream, .. } => match streams {
                Streams::One(Stream::UserEvents) => "stream_user_events",
                Streams::One(Stream::ChannelEvents) => "stream_channel_events",
                Streams::All => "stream_all",
            },
            Self::Acknowledge { what, .. } => match what {
                AckAction::Ack => "events_ack",
                AckAction::Nack => "events_nack",
                AckAction::Extend => "events_extend",
            },
            Self::NextEvents { .. } => "events_next",
            Self::HistoryQuery => "history_query",
            Self::HistoryFetch { .. } => "history_fetch",
            Self::HistoryStream { .. } => "history_stream",
            Self::Count { .. } => "history_count",
            Self::Message { to: Addressee::Peer, .. } => "peer_messages",
            Self::Message { to: Addressee::Channel, .. } => "channel_messages",
        }
    }
}
