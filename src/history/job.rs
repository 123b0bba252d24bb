//! A [`Job`]: work for all who want the same, and what makes two requests the same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::query::Query;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{AppId, ClientName};
use crate::kernel::sync::lock;
use crate::upstream::egress::{Failure, WorkCosts};
use crate::vendor::history::Filter;
use crate::vendor::order::{Payer, Sent, Sharer};

/// What is asked of the vendor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    Messages(Query),
    Count(Filter),
}

impl Question {
    /// Which messages it is about.
    pub(super) fn filter(&self) -> &Filter {
        match self {
            Self::Messages(query) => &query.filter,
            Self::Count(filter) => filter,
        }
    }
}

/// What makes two requests the same. Never equal across apps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct JobKey {
    pub(super) app: AppId,
    pub(super) question: Question,
}

/// What a job made.
#[derive(Debug)]
pub(super) struct Product {
    /// The rendered member that holds it: `"messages":[…]` or `"count":N`.
    pub(super) member: Bytes,
}

pub(super) type Outcome = Result<Arc<Product>, Error>;

/// A job, or what is left of it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) key: JobKey,
    /// When it was begun: its answer is as of then, or later.
    pub(super) began: UnixMillis,
    /// Whether nothing can be sent into its window any more.
    pub(super) is_past: bool,
    /// What it has cost at the vendor up to now.
    pub(super) costs: WorkCosts,
    /// Whether it has asked the vendor.
    pub(super) sent: Sent,
    /// When it is given up, promise or no.
    pub(super) end: Instant,
    pub(super) deadline: watch::Sender<Instant>,
    /// Who waits for it now.
    pub(super) sharers: watch::Sender<Vec<Sharer>>,
    pub(super) outcome: watch::Sender<Option<(Instant, Outcome)>>,
    /// Why it waits for a later deadline, when it does for want of quota.
    pub(super) stuck: watch::Sender<Option<Failure>>,
    pub(super) abandoned: CancellationToken,
    /// The handle of each client that was given one.
    pub(super) handles: Mutex<Vec<ClientHandle>>,
}

/// A client's handle to a job's result.
#[derive(Debug)]
pub(super) struct ClientHandle {
    pub(super) client: ClientName,
    pub(super) text: Arc<str>,
    /// It was given, also, to one that asked after the job began, and came back for what it had asked for then.
    pub(super) is_owed: bool,
}

impl Job {
    /// A job that nobody waits for yet.
    pub(super) fn new(
        number: u64,
        key: JobKey,
        began: UnixMillis,
        is_past: bool,
        deadline: Instant,
        end: Instant,
    ) -> Self {
        Self {
            number,
            key,
            began,
            is_past,
            costs: WorkCosts::default(),
            sent: Sent::default(),
            end,
            deadline: watch::Sender::new(deadline.min(end)),
            sharers: watch::Sender::default(),
            outcome: watch::Sender::new(None),
            stuck: watch::Sender::new(None),
            abandoned: CancellationToken::new(),
            handles: Mutex::default(),
        }
    }

    /// When it ended, and how; `None` while it is under way.
    pub(super) fn outcome(&self) -> Option<(Instant, Outcome)> {
        self.outcome.borrow().clone()
    }

    /// Whether the client's handle was given to one that came back for what it had asked for before.
    pub(super) fn is_owed_to(&self, client: &ClientName) -> bool {
        let handles = lock(&self.handles);
        handles.iter().any(|handle| handle.is_owed && handle.client == *client)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.outcome.borrow().is_none()
    }

    /// When the last of those who wait for it gives up.
    pub(super) fn deadline(&self) -> watch::Receiver<Instant> {
        self.deadline.subscribe()
    }

    /// Waits so long for it to get stuck for want of quota, and says how.
    pub(super) async fn stuck(&self, patience: Duration) -> Option<Failure> {
        let mut stuck = self.stuck.subscribe();
        timeout(patience, stuck.wait_for(Option::is_some)).await.ok()?.ok()?.clone()
    }

    /// Resolves when nobody wants it any more.
    pub(super) async fn abandoned(&self) {
        self.abandoned.cancelled().await;
    }

    /// How many wait for it.
    pub(super) fn callers(&self) -> usize {
        self.sharers.borrow().iter().map(|sharer| sharer.callers).sum()
    }

    /// One more waits for it. (Who sends its orders is told of clients, not of each caller.)
    pub(super) fn come(&self, payer: &Payer) {
        self.sharers.send_if_modified(|sharers| {
            let known = sharers.iter_mut().find(|sharer| sharer.payer == *payer);
            let is_new = known.is_none();
            match known {
                Some(sharer) => sharer.callers += 1,
                None => sharers.push(Sharer { payer: payer.clone(), callers: 1 }),
            }
            is_new
        });
    }

    /// One of them leaves.
    pub(super) fn leave(&self, payer: &Payer) {
        self.sharers.send_if_modified(|sharers| {
            let Some(at) = sharers.iter().position(|sharer| sharer.payer == *payer) else { return false };
            sharers[at].callers -= 1;
            let was_last = sharers[at].callers == 0;
            if was_last {
                sharers.remove(at);
            }
            was_last
        });
    }

    pub(super) fn extend(&self, to: Instant) {
        let to = to.min(self.end);
        let is_later = self.deadline.send_if_modified(|deadline| {
            let later = to > *deadline;
            *deadline = to.max(*deadline);
            later
        });
        if is_later {
            // What could not be had by then may be by now.
            self.stuck.send_replace(None);
        }
    }

    /// Nobody waits for it, and after that nobody comes back.
    pub(super) fn goes_on_until(&self, until: Instant) {
        self.extend(until);
        self.deadline.send_replace(until.min(self.end));
    }
}
