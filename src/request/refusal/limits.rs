//! What a request may find used up: one of its client's ceilings, or a room of the gateway's own.

use std::num::NonZeroU32;

/// One of a client's ceilings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// `max_concurrent`.
    MaxConcurrent(NonZeroU32),
    /// `requests_per_second`.
    RequestsPerSecond(NonZeroU32),
}

impl Ceiling {
    /// As the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxConcurrent(_) => "max_concurrent",
            Self::RequestsPerSecond(_) => "requests_per_second",
        }
    }

    /// How many it allows.
    #[must_use]
    pub fn most(self) -> NonZeroU32 {
        match self {
            Self::MaxConcurrent(most) | Self::RequestsPerSecond(most) => most,
        }
    }
}

/// What the gateway itself had no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// `server.max_requests` are in hand.
    MaxRequests,
    /// The client has its share of them.
    FairShare,
    /// `server.max_streams` are open, or the client has its share of them.
    Streams,
    /// All connections have requests in hand, or the client has its share of them.
    Connections,
    /// Bodies take all memory that is for them, or the client's have its share.
    BodyMemory,
    /// The vendor has answered, and answers take all memory that is for them, or the client's have its share.
    ResponseMemory,
    /// Too many history queries are under way, or too many of this client's.
    HistoryJobs,
    /// Too many of this client's requests wait for a seat of the vendor's quota.
    QuotaLine,
}

impl Shed {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::MaxRequests,
        Self::FairShare,
        Self::Streams,
        Self::Connections,
        Self::BodyMemory,
        Self::ResponseMemory,
        Self::HistoryJobs,
        Self::QuotaLine,
    ];

    /// Its label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxRequests => "max_requests",
            Self::FairShare => "fair_share",
            Self::Streams => "streams",
            Self::Connections => "connections",
            Self::BodyMemory => "body_memory",
            Self::ResponseMemory => "response_memory",
            Self::HistoryJobs => "history_jobs",
            Self::QuotaLine => "quota_line",
        }
    }

    /// What the operator reads.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::MaxRequests => "overloaded: server.max_requests are in hand",
            Self::FairShare => "overloaded: the client has its share of server.max_requests in hand",
            Self::Streams => "overloaded: server.max_streams are open, or the client has its share of them",
            Self::Connections => {
                "overloaded: the client has its share of server.max_connections, each with a request in hand"
            }
            Self::BodyMemory => "overloaded: no memory for more request bodies",
            Self::ResponseMemory => {
                "overloaded: no memory for more of the vendor's answers; it was asked, and has answered"
            }
            Self::HistoryJobs => "overloaded: too many history queries are under way",
            Self::QuotaLine => "overloaded: too many orders wait for a seat of the vendor's quota",
        }
    }
}
