//! [`Stream`] and [`Streams`]: which of the vendor's event queues.

use std::fmt;

use super::BucketName;

/// One of the vendor's two destructive event queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Logins and logouts.
    UserEvents,
    /// Joins and leaves of channels.
    ChannelEvents,
}

impl Stream {
    /// Both streams, as `Streams::All` reads them.
    pub const ALL: [Self; 2] = [Self::UserEvents, Self::ChannelEvents];

    /// The stream's name in paths, configuration and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserEvents => "user_events",
            Self::ChannelEvents => "channel_events",
        }
    }

    /// The stream of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// The bucket its reads are counted in.
    #[must_use]
    pub fn bucket(self) -> BucketName {
        match self {
            Self::UserEvents => BucketName::UserEvents,
            Self::ChannelEvents => BucketName::ChannelEvents,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an events read reads: one stream, or both together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Streams {
    One(Stream),
    /// Both, in the order received.
    All,
}

impl Streams {
    /// The name in paths and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One(stream) => stream.as_str(),
            Self::All => "all",
        }
    }

    /// What is of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "all" { Some(Self::All) } else { Stream::parse(text).map(Self::One) }
    }

    /// The streams that are read, one by one.
    #[must_use]
    pub fn each(self) -> &'static [Stream] {
        match self {
            Self::One(Stream::UserEvents) => &[Stream::UserEvents],
            Self::One(Stream::ChannelEvents) => &[Stream::ChannelEvents],
            Self::All => &Stream::ALL,
        }
    }
}

impl fmt::Display for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
