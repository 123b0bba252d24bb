//! [`Trouble`]: what fails of a gateway that is of use all the same, as probes are told.
//!
//! Invariant: it is told to everybody who reaches the operator's port, so it is made of words of this file, an App ID
//! and a time, which the metrics of the same port tell, too. What failed in particular (hosts, files, what the system
//! said) is told behind the admin key.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::AppId;

/// What of a gateway's work can be asked after by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Reading the vendor's events and keeping them.
    Events,
    /// What is sent to the vendor for callers: messages, history and counts.
    Messages,
    /// Taking callers' connections and requests.
    Callers,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Events, Self::Messages, Self::Callers];

    /// As `?for=` and answers name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Messages => "messages",
            Self::Callers => "callers",
        }
    }

    /// The part of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == name)
    }
}

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symptom {
    /// The store cannot keep an app's events.
    ReadingStopped,
    /// The vendor has not given events for a while: it refuses, fails, or cannot be reached.
    EventsNotGiven,
    /// The vendor refuses an app's credential (401).
    CredentialRefused,
    /// An app's credential cannot be read.
    CredentialUnavailable,
    /// The vendor has switched an app, or a feature of it, off (403).
    AppRefused,
    /// A listener of callers can take no more connections: the system gives none.
    AcceptPaused,
    /// The vendor refuses an app's requests (429) although the quota is kept.
    QuotaSpentByOthers,
}

impl Symptom {
    /// The word that software tells faults by.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::ReadingStopped => "reading_stopped",
            Self::EventsNotGiven => "events_not_given",
            Self::CredentialRefused => "credential_refused",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::AppRefused => "app_refused",
            Self::AcceptPaused => "accept_paused",
            Self::QuotaSpentByOthers => "quota_spent_by_others",
        }
    }

    /// The same as a sentence, and where to read on.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::ReadingStopped => {
                "the store cannot keep events: they are not read, and wait with the vendor; see /admin/v1/pollers"
            }
            Self::EventsNotGiven => {
                "the vendor gives no events: it refuses, fails, or cannot be reached; see /admin/v1/pollers"
            }
            Self::CredentialRefused => {
                "the vendor refuses the app's credential (401), and is asked once a minute whether it still does; see \
                 /admin/v1/apps"
            }
            Self::CredentialUnavailable => "the app's credential cannot be read; see /admin/v1/apps",
            Self::AppRefused => {
                "the vendor answers 403: it has switched the app, or a feature of it, off; see /admin/v1/apps"
            }
            Self::AcceptPaused => "new connections are not taken: the system has no descriptors or no memory for them",
            Self::QuotaSpentByOthers => {
                "the vendor refuses (429) although the quota is kept: somebody else spends this App ID's quota, or \
                 apps.quota allows more than the vendor; see /admin/v1/quotas"
            }
        }
    }

    /// Whether who asks after the part is told that it is of no use. What only makes it slower is not: a probe that
    /// took a gateway out for it would make what is slow stand still.
    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::ReadingStopped
            | Self::EventsNotGiven
            | Self::CredentialRefused
            | Self::CredentialUnavailable
            | Self::AppRefused
            | Self::AcceptPaused => true,
            Self::QuotaSpentByOthers => false,
        }
    }
}

/// A part that fails, of one app or of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    pub part: Part,
    /// Whose; `None`: everybody's.
    pub app: Option<AppId>,
    pub symptom: Symptom,
    /// Since when.
    pub since: UnixMillis,
}

impl Serialize for Trouble {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_struct("Trouble", 5)?;
        members.serialize_field("part", self.part.as_str())?;
        members.serialize_field("app", &self.app.as_ref().map(AppId::as_str))?;
        members.serialize_field("code", self.symptom.code())?;
        members.serialize_field("detail", self.symptom.detail())?;
        members.serialize_field("since", &self.since.to_string())?;
        members.end()
    }
}
