//! The operations of the callers' port, as the OpenAPI document names them.
//!
//! Invariant: every [`Route`] is one of them: a new kind of request does not compile until it has an entry.

use super::{AckAction, Addressee, Form, Kind, Route};
use crate::kernel::names::{Stream, Streams};

/// A table of operations: an enum with a variant for each, its method, its path's template and its name.
macro_rules! operations {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $method:literal $path:literal $id:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant,)+ }

        impl $name {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its method.
            #[must_use]
            pub fn method(self) -> &'static str {
                match self { $(Self::$variant => $method,)+ }
            }

            /// The template of its path, as the document has it.
            #[must_use]
            pub fn path(self) -> &'static str {
                match self { $(Self::$variant => $path,)+ }
            }

            /// Its name in the document, its `operationId`.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)+ }
            }
        }
    };
}
pub(crate) use operations;

operations! {
    /// What callers may ask.
    Operation {
        UserEventsAsVendor = "GET" "/dev/v2/project/{app}/rtm/vendor/user_events" "readUserEventsAsVendor",
        ChannelEventsAsVendor = "GET" "/dev/v2/project/{app}/rtm/vendor/channel_events" "readChannelEventsAsVendor",
        Events = "GET" "/v1/apps/{app}/events/{stream}" "readEvents",
        Ack = "POST" "/v1/apps/{app}/events/{stream}/ack" "acknowledgeEvents",
        Nack = "POST" "/v1/apps/{app}/events/{stream}/nack" "giveEventsBack",
        Extend = "POST" "/v1/apps/{app}/events/{stream}/extend" "extendLease",
        Next = "POST" "/v1/apps/{app}/events/{stream}/next" "nextEvents",
        HistoryQuery = "POST" "/dev/v2/project/{app}/rtm/message/history/query" "queryHistory",
        HistoryFetch = "GET" "/dev/v2/project/{app}/rtm/message/history/query/{handle}" "fetchHistory",
        HistoryCount = "GET" "/dev/v2/project/{app}/rtm/message/history/count" "countHistory",
        HistoryStream = "GET" "/v1/apps/{app}/history" "streamHistory",
        PeerMessages = "POST" "/dev/v2/project/{app}/rtm/users/{user}/peer_messages" "sendPeerMessage",
        ChannelMessages = "POST" "/dev/v2/project/{app}/rtm/users/{user}/channel_messages" "sendChannelMessage",
    }
}

impl Route {
    /// Which operation it is.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match &self.kind {
            Kind::Events { streams: Streams::One(Stream::UserEvents), form: Form::Vendor, .. } => {
                Operation::UserEventsAsVendor
            }
            Kind::Events { streams: Streams::One(Stream::ChannelEvents), form: Form::Vendor, .. } => {
                Operation::ChannelEventsAsVendor
            }
            // The vendor has no route for both: `all` is of the native routes only.
            Kind::Events { streams: Streams::All, .. } | Kind::Events { form: Form::Native | Form::Stream, .. } => {
                Operation::Events
            }
            Kind::Acknowledge { what: AckAction::Ack, .. } => Operation::Ack,
            Kind::Acknowledge { what: AckAction::Nack, .. } => Operation::Nack,
            Kind::Acknowledge { what: AckAction::Extend, .. } => Operation::Extend,
            Kind::NextEvents { .. } => Operation::Next,
            Kind::HistoryQuery => Operation::HistoryQuery,
            Kind::HistoryFetch { .. } => Operation::HistoryFetch,
            Kind::Count { .. } => Operation::HistoryCount,
            Kind::HistoryStream { .. } => Operation::HistoryStream,
            Kind::Message { to: Addressee::Peer, .. } => Operation::PeerMessages,
            Kind::Message { to: Addressee::Channel, .. } => Operation::ChannelMessages,
        }
    }
}
