//! [`Source`]: where a caller's answer comes from, and what it is to this caller.

use std::sync::Arc;

use super::error::Error;
use super::job::{Job, Outcome};
use super::jobs::Caller;
use super::terms::Terms;
use crate::kernel::clock::UnixMillis;
use crate::upstream::egress::{Account, Failure};

/// A job under way that the caller waits for, or what is kept of one that has ended.
pub(super) struct Source {
    job: Arc<Job>,
    /// Its place among those who wait; none where the job has ended.
    caller: Option<Caller>,
    /// This client had asked for it before, and left before it was there.
    is_owed: bool,
}

impl Source {
    /// A result that was kept. It was made for others, and costs this caller nothing; or for this client, which had
    /// left, and then this request is told of what it has cost, too.
    pub(super) fn kept(job: Arc<Job>, is_owed: bool, account: &Account) -> Self {
        if is_owed {
            job.costs.share();
            account.charge(&job.costs);
        }
        Self { job, caller: None, is_owed }
    }

    /// A job that runs already, for this caller too from now on.
    pub(super) fn joined(caller: Caller, is_owed: bool, account: &Account) -> Self {
        caller.job.costs.share();
        Self { is_owed, ..Self::own(caller, account) }
    }

    /// A job that the caller began.
    pub(super) fn own(caller: Caller, account: &Account) -> Self {
        account.charge(&caller.job.costs);
        Self { job: Arc::clone(&caller.job), caller: Some(caller), is_owed: false }
    }

    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    /// When it was asked for, where that was before this request.
    pub(super) fn as_of(&self) -> Option<UnixMillis> {
        self.is_owed.then_some(self.job.began)
    }

    /// How it ended; `None` when the caller's deadline came first.
    /// Fails when what let the caller in was withdrawn first: it leaves, and is given nothing.
    pub(super) async fn outcome(&self, terms: &Terms) -> Result<Option<Outcome>, Error> {
        let outcome = match &self.caller {
            None => self.job.outcome().map(|(_, outcome)| outcome),
            Some(caller) => tokio::select! {
                biased;
                how = terms.proof.withdrawn() => return Err(Failure::from(how).into()),
                outcome = caller.wait(terms.deadline) => outcome,
            },
        };
        // After a reload this waits for the judgement by the new configuration: what was made may be withdrawn by it.
        terms.proof.goes_on().await.map_err(Failure::from)?;
        Ok(outcome)
    }

    /// The caller was given a handle: the job goes on to its end, also without callers.
    pub(super) fn promise(&self) {
        if let Some(caller) = &self.caller {
            caller.promise();
        }
    }

    /// The caller was told all that it wanted for now: nothing is owed to it.
    pub(super) fn is_content(&self) {
        if let Some(caller) = &self.caller {
            caller.is_content();
        }
    }
}
