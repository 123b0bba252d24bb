//! What is known of the runs before this one, and what this one leaves to the next.
//!
//! Invariants: a run that ended in order says when that was and, of each bucket with requests whose end it did not see,
//! until when the vendor may count them. It says so before its end is recorded, so that a record that is lost reads as
//! a run that did not end in order. How long ago something was is told by the machine's time since boot alone: the wall
//! clock may have jumped. After a boot, or on another machine, what was to last so long at that end lasts so long from
//! now on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limit;
use crate::kernel::clock::{BootTime, Clock};
use crate::kernel::names::{AppId, BucketName};
use crate::store::{Error, Store};
use crate::upstream::quota::{Begin, cycle};

/// What is known of the run before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastShutdown {
    /// It is known that there was none. (A new store does not say so: its folder may have been lost.)
    None,
    /// It ended in order this long ago.
    Clean(Duration),
    /// It did not end in order, or nobody knows.
    Unknown,
}

/// Requests that the vendor may still count, by what counts them: until when.
pub(super) type CountedUntil = HashMap<(AppId, BucketName), Instant>;

/// How buckets begin.
#[derive(Clone, Debug)]
pub struct PreviousRun {
    previous_run: LastShutdown,
    sent: CountedUntil,
}

/// When the last run ended in order: which boot, and milliseconds since then.
const STOPPED_BOOT: &str = "stopped: boot";
const STOPPED_AT: &str = "stopped: since boot";
/// Before an app and an endpoint: until when what was sent may be counted, in milliseconds since that boot.
const SENT: &str = "sent: ";

impl PreviousRun {
    /// What the store knows.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of(store: &dyn Store, clock: &Clock) -> Result<Self, Error> {
        let stopped = match (store.fact(STOPPED_BOOT).await?, store.fact(STOPPED_AT).await?) {
            (Some(boot), Some(millis)) => Some(BootTime { boot, millis }),
            _ => None,
        };
        let (now, since_boot) = (clock.now(), clock.boot());
        let ago = since_boot.zip(stopped).and_then(|(now, stopped)| now.since(stopped));
        let previous_run = match (store.last_clean_stop(), ago) {
            (Some(_), Some(ago)) => LastShutdown::Clean(ago),
            _ => LastShutdown::Unknown,
        };
        let mut sent = CountedUntil::new();
        for (name, until) in store.facts(SENT).await? {
            let Some(key) = parse(&name) else { continue };
            let lasted = Duration::from_millis(until.saturating_sub(stopped.map_or(until, |stopped| stopped.millis)));
            // How long before now it was that it had so long to last.
            let at = match ago {
                Some(ago) => now.checked_add(lasted).and_then(|at| at.checked_sub(ago)),
                None => now.checked_add(lasted),
            };
            sent.extend(at.map(|at| (key, at)));
        }
        Ok(Self { previous_run, sent })
    }

    /// From here on buckets are made by reloads.
    pub(super) fn opened(&mut self) {
        self.previous_run = LastShutdown::Unknown;
    }

    /// How a bucket with this limit begins in which these are counted: full only if the vendor can hold nothing against
    /// us any more.
    pub(super) fn begin<'n>(
        &self,
        app: &AppId,
        endpoints: impl IntoIterator<Item = &'n BucketName>,
        limit: Limit,
        now: Instant,
    ) -> Begin {
        let sent = endpoints.into_iter().filter_map(|name| self.sent.get(&(app.clone(), *name))).max();
        match sent {
            Some(until) if *until + cycle(limit) > now => Begin::UsedUntil(*until),
            _ => self.previous_run.begin(limit.per),
        }
    }

    /// What of it the vendor may still count.
    pub(super) fn sent_after(&self, now: Instant) -> impl Iterator<Item = (&(AppId, BucketName), Instant)> {
        self.sent.iter().filter(move |(_, until)| **until > now).map(|(key, until)| (key, *until))
    }
}

impl From<LastShutdown> for PreviousRun {
    fn from(previous_run: LastShutdown) -> Self {
        Self { previous_run, sent: CountedUntil::new() }
    }
}

impl LastShutdown {
    /// How a bucket with this window begins: full only if the vendor can hold nothing against us any more.
    #[must_use]
    pub fn begin(self, window: Duration) -> Begin {
        let limit = Limit { requests: std::num::NonZeroU32::MIN, per: window };
        match self {
            Self::None => Begin::Full,
            Self::Clean(ago) if ago > cycle(limit) => Begin::Full,
            Self::Clean(_) | Self::Unknown => Begin::Empty,
        }
    }
}

/// Notes for the next run that this one ends now, and what the vendor may still count. To be called before the store
/// records a clean stop, without which it means nothing.
///
/// # Errors
/// When the store fails.
pub(super) async fn note_stop(store: &dyn Store, clock: &Clock, sent: &CountedUntil) -> Result<(), Error> {
    let now = clock.now();
    let BootTime { boot, millis } = clock.boot().unwrap_or(BootTime { boot: 0, millis: 0 });
    let mut facts: HashMap<_, _> = store.facts(SENT).await?.into_iter().map(|(name, _)| (name, None)).collect();
    for ((app, endpoint), until) in sent {
        let lasts = u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
        // A millisecond more: both are rounded down.
        let until = millis.saturating_add(lasts).saturating_add(1);
        facts.insert(format!("{SENT}{endpoint} {app}"), Some(until));
    }
    let facts = facts.into_iter().map(|(name, number)| (Cow::Owned(name), number));
    let stopped = [(Cow::Borrowed(STOPPED_BOOT), Some(boot)), (Cow::Borrowed(STOPPED_AT), Some(millis))];
    store.change_facts(stopped.into_iter().chain(facts).collect()).await
}

fn parse(name: &str) -> Option<(AppId, BucketName)> {
    let (endpoint, app) = name.strip_prefix(SENT)?.split_once(' ')?;
    Some((AppId::parse(app).ok()?, BucketName::parse(endpoint)?))
}

#[cfg(test)]
mod tests;
