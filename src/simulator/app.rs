//! An app at the simulated vendor: who may use it, its limits, and in which of the vendor's manners it answers.

use std::time::Duration;

use super::auth::Credential;
use super::limits::Limits;
use crate::kernel::secret::Secret;

/// An app, as it is given to a [`World`](super::World).
#[derive(Clone, Debug)]
pub struct App {
    pub id: String,
    /// Any of these opens it.
    pub credentials: Vec<Credential>,
    pub limits: Limits,
    pub rules: Rules,
}

impl App {
    /// An app nothing opens yet, with the vendor's own limits.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), credentials: Vec::new(), limits: Limits::default(), rules: Rules::default() }
    }

    /// Opened by Basic `key:secret` too.
    #[must_use]
    pub fn basic(mut self, key: &str, secret: &str) -> Self {
        self.credentials.push(Credential::Basic { key: key.to_owned(), secret: Secret::new(secret.to_owned()) });
        self
    }

    /// Opened by tokens signed with this certificate too.
    #[must_use]
    pub fn certificate(mut self, certificate: &str) -> Self {
        self.credentials.push(Credential::Certificate(Secret::new(certificate.to_owned())));
        self
    }

    /// How many requests each endpoint takes of this app before it answers 429.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// With changed manners.
    #[must_use]
    pub fn rules(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self
    }
}

/// Whose dialect is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// anyRTC: `x-ar-token`, times in seconds.
    #[default]
    AnyRtc,
    /// Agora: `x-agora-token`, times in ISO-8601.
    Agora,
}

impl Dialect {
    /// The headers that carry a token and its uid.
    pub(super) fn token_headers(self) -> (&'static str, &'static str) {
        match self {
            Self::AnyRtc => ("x-ar-token", "x-ar-uid"),
            Self::Agora => ("x-agora-token", "x-agora-uid"),
        }
    }
}

/// The vendor's manners. The default is its page to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub dialect: Dialect,
    /// How often a handle, or a count, is `in progress` before it is ready.
    pub in_progress: u32,
    /// How long a caller has to wait after `in progress` (the page: 2 seconds).
    pub recheck: Duration,
    /// A handle that was not fetched dies after this, with 410 (*field*).
    pub handle_ttl: Duration,
    /// What handles look like.
    pub handles: HandleStyle,
    /// How a fetch of a spent or unknown handle is answered.
    pub dead_handle: DeadHandle,
    /// When a query looks at the messages.
    pub snapshot: Snapshot,
    /// How old a message may be for the history (the page: 7 days).
    pub history_retention: Duration,
    /// How old a message may be for the count (the page: 14 days).
    pub count_retention: Duration,
    /// The name of the list of messages: the page's example says `messages`, its table `message`.
    pub messages_member: &'static str,
    /// The name of an event's time: `ms`, or *field* `ts`.
    pub ms_member: &'static str,
    /// The name of an event's channel: `group_id`, or *field* `channel_id`.
    pub group_member: &'static str,
    /// Events and answers carry members nobody has heard of.
    pub unknown_members: bool,
    /// How many events a queue holds (the page: 2000).
    pub queue_capacity: usize,
    /// How many events one read returns (the page: 1000).
    pub read_limit: usize,
    /// `Retry-After` of a 429, as it stands.
    pub retry_after: Option<String>,
    /// Sent messages go into the history even when their sender did not ask for it.
    pub keep_all_messages: bool,
    /// The answer to a sent message carries its body in `echo`.
    pub echo: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            dialect: Dialect::AnyRtc,
            in_progress: 0,
            recheck: Duration::from_secs(2),
            handle_ttl: Duration::from_secs(300),
            handles: HandleStyle::Padded,
            dead_handle: DeadHandle::NotExist,
            snapshot: Snapshot::Fetch,
            history_retention: Duration::from_secs(7 * 24 * 3600),
            count_retention: Duration::from_secs(14 * 24 * 3600),
            messages_member: "messages",
            ms_member: "ms",
            group_member: "group_id",
            unknown_members: false,
            queue_capacity: 2000,
            read_limit: 1000,
            retry_after: None,
            keep_all_messages: false,
            echo: false,
        }
    }
}

/// What handles look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleStyle {
    /// `123456123456`, as on the page.
    Digits,
    /// `MjIzMDA3OjEyODA5MzkyOQ==`: *field*.
    Padded,
    /// With `/`, `+` and `=` in it: what base64 of anything may hold.
    Awkward,
}

/// How a fetch of a spent or unknown handle is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadHandle {
    /// 200 with `code: "resource not exist"`, as on the page.
    NotExist,
    /// 404 with the same body.
    NotFound,
    /// 410: *field*.
    Gone,
}

/// When a query looks at the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// When its result is fetched.
    Fetch,
    /// When it is created.
    Create,
}
