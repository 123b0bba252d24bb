//! The names of things: apps, clients, regions, streams, subscriptions, endpoints, buckets.
//!
//! Invariants: a value of these types has passed its rule, so it can stand in a path, a log line, a metric label or a
//! file name without escaping (users' ids and handles are not of these types: they are anybody's text).

mod host_name;
mod pattern;
mod spiffe_id;
mod stream;

use std::fmt;
use std::sync::Arc;

pub use host_name::HostName;
pub use pattern::Pattern;
pub use spiffe_id::{BadSpiffeId, SpiffeId};
pub use stream::{Stream, Streams};

/// A name that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {max} characters of A-Z a-z 0-9 {extra}")]
pub struct BadName {
    max: usize,
    extra: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When it is empty, too long, or holds another character.
            pub fn parse(text: &str) -> Result<Self, BadName> {
                let fits = |c: char| c.is_ascii_alphanumeric() || ($extra.contains(c) && c != ' ');
                // Dots alone would read as a path's dot segments.
                let dots = text.bytes().all(|b| b == b'.');
                if text.len() > $max || dots || !text.chars().all(fits) {
                    return Err(BadName { max: $max, extra: $extra });
                }
                Ok(Self(text.into()))
            }

            /// The name as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// An App ID at the vendor: one quota, one credential, one set of event queues.
    AppId, 64, "_ -"
);
name!(
    /// One who calls the gateway.
    ClientName, 128, "_ - ."
);
name!(
    /// One of the vendor's places that serves an app. Events are cached by region.
    RegionName, 64, "_ - ."
);
name!(
    /// A reader's place in a stream, shared by those who name it.
    SubscriptionName, 128, "_ - ."
);
name!(
    /// An address that an app's events are pushed to.
    WebhookName, 64, "_ - ."
);

impl ClientName {
    /// The name as a label that many series share.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// As whom the gateway itself reads events. No configured client's name holds a `$`, so none can be taken for it.
    #[must_use]
    pub fn of_pollers() -> Self {
        Self(OF_POLLERS.into())
    }
}

impl From<&ClientName> for SubscriptionName {
    /// A client's default subscription. No caller's name holds a `$`: nobody else can name it, or take it in advance.
    fn from(client: &ClientName) -> Self {
        Self(format!("{OF_CLIENT}{client}").into())
    }
}

impl From<&WebhookName> for SubscriptionName {
    /// A webhook's own place in each of its streams. No caller's name holds a `$`.
    fn from(webhook: &WebhookName) -> Self {
        Self(format!("{OF_WEBHOOK}{webhook}").into())
    }
}

const OF_POLLERS: &str = "$pollers";
const OF_CLIENT: &str = "$client.";
const OF_WEBHOOK: &str = "$webhook.";

impl SubscriptionName {
    /// A name as it is stored and shown: a caller's, or one of the gateway's own.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse_stored(text: &str) -> Result<Self, BadName> {
        if let Some(webhook) = text.strip_prefix(OF_WEBHOOK) {
            return WebhookName::parse(webhook).map(|webhook| Self::from(&webhook));
        }
        match text.strip_prefix(OF_CLIENT) {
            Some(client) => ClientName::parse(client).map(|client| Self::from(&client)),
            None => Self::parse(text),
        }
    }

    /// The subscription that a client means: its default one if it names none, or itself.
    #[must_use]
    pub fn meant_by(client: &ClientName, named: Option<Self>) -> Self {
        named.filter(|name| name.as_str() != client.as_str()).unwrap_or_else(|| Self::from(client))
    }

    /// The default subscription of the client of this name, if a client can have it.
    #[must_use]
    pub fn default_of_namesake(&self) -> Option<Self> {
        ClientName::parse(&self.0).ok().map(|client| Self::from(&client))
    }

    /// The client whose default subscription it is, if it is one's.
    #[must_use]
    pub fn client(&self) -> Option<ClientName> {
        self.0.strip_prefix(OF_CLIENT).and_then(|name| ClientName::parse(name).ok())
    }

    /// Whether it is a client's default subscription.
    #[must_use]
    pub fn is_of_client(&self) -> bool {
        self.0.starts_with(OF_CLIENT)
    }

    /// The webhook whose place it is, if it is one's.
    #[must_use]
    pub fn webhook(&self) -> Option<WebhookName> {
        self.0.strip_prefix(OF_WEBHOOK).and_then(|name| WebhookName::parse(name).ok())
    }

    /// Whether it is a webhook's place.
    #[must_use]
    pub fn is_of_webhook(&self) -> bool {
        self.0.starts_with(OF_WEBHOOK)
    }
}

/// A limit the vendor counts by itself, as `[apps.quota]` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BucketName {
    UserEvents,
    ChannelEvents,
    HistoryCreate,
    HistoryGet,
    HistoryCount,
    Messages,
}

impl BucketName {
    /// All buckets of an app.
    pub const ALL: [Self; 6] = [
        Self::UserEvents,
        Self::ChannelEvents,
        Self::HistoryCreate,
        Self::HistoryGet,
        Self::HistoryCount,
        Self::Messages,
    ];

    /// The name in configuration, metrics and `RateLimit` headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserEvents => "user_events",
            Self::ChannelEvents => "channel_events",
            Self::HistoryCreate => "history_create",
            Self::HistoryGet => "history_get",
            Self::HistoryCount => "history_count",
            Self::Messages => "messages",
        }
    }

    /// The bucket of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|b| b.as_str() == text)
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a client may be allowed to do with an app (`actions` in an `allow` entry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Events,
    History,
    Count,
    Messages,
}

impl Action {
    /// Every action that an `allow` entry may name.
    pub const ALL: [Self; 4] = [Self::Events, Self::History, Self::Count, Self::Messages];

    /// The name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::History => "history",
            Self::Count => "count",
            Self::Messages => "messages",
        }
    }

    /// The action of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_a_path_or_a_label_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "a\"", "é", &"x".repeat(129)] {
            assert!(ClientName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(AppId::parse("a.b").is_err());
        assert_eq!(AppId::parse("a_B-9").unwrap().as_str(), "a_B-9");
        assert_eq!(ClientName::parse("billing.prod").unwrap().as_str(), "billing.prod");
    }

    #[test]
    fn the_gateway_s_own_places_have_names_that_no_caller_can_write() {
        let client = ClientName::parse("crm").unwrap();
        let own = SubscriptionName::from(&client);
        assert_eq!((own.as_str(), own.client(), own.webhook()), ("$client.crm", Some(client.clone()), None));
        assert!(SubscriptionName::parse("$client.crm").is_err() && SubscriptionName::parse("$webhook.crm").is_err());
        assert_eq!(SubscriptionName::parse_stored("$client.crm"), Ok(own.clone()));
        assert!(SubscriptionName::parse_stored("$client.").is_err() && SubscriptionName::parse_stored("$x.y").is_err());
        let webhook = SubscriptionName::parse_stored("$webhook.crm").unwrap();
        assert!(webhook.is_of_webhook() && !webhook.is_of_client() && !own.is_of_webhook());
        assert!(ClientName::parse(ClientName::of_pollers().as_str()).is_err());
        // Who names itself, or nothing, means its own.
        let named = |text: &str| SubscriptionName::parse(text).ok();
        assert_eq!(SubscriptionName::meant_by(&client, None), own);
        assert_eq!(SubscriptionName::meant_by(&client, named("crm")), own);
        assert_eq!(SubscriptionName::meant_by(&client, named("team")).as_str(), "team");
    }
}
