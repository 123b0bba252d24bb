//! [`FairLru`]: the results that are kept, and whose they are.
//!
//! Invariants: all together are bounded in bytes. Where there is no room the least recently used goes of whoever would
//! then hold most, so a client that fetches large lists takes none of what others, who hold less, were promised; when
//! it has nothing else there, what is new of it is not kept. One that another client has a handle to is that client's
//! from then on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::error::Error;
use super::job::Job;
use crate::kernel::names::ClientName;
use crate::kernel::share::Holdings;
use crate::kernel::sync::lock;

/// What a result takes beside its text.
const OVERHEAD: usize = 512;

/// A cache of results that is bounded in bytes, with shares.
#[derive(Debug)]
pub(super) struct FairLru {
    max_bytes: usize,
    kept: HashMap<u64, CachedJob>,
    /// Each client's, by their last use.
    order: BTreeMap<(ClientName, u64), u64>,
    held: Holdings,
    /// How often anything was put or used.
    uses: u64,
}

#[derive(Debug)]
struct CachedJob {
    job: Arc<Job>,
    bytes: usize,
    of: ClientName,
    used: u64,
    /// Whose it was before: they had to make room.
    before: Vec<ClientName>,
}

impl FairLru {
    /// For so many bytes.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, kept: HashMap::new(), order: BTreeMap::new(), held: Holdings::default(), uses: 0 }
    }

    /// Keeps a job that has ended, for the client that began it.
    pub(super) fn put(&mut self, job: &Arc<Job>, of: &ClientName) {
        self.remove(job.number);
        let bytes = bytes_of(job);
        while bytes <= self.max_bytes && self.held.taken() + bytes > self.max_bytes && self.make_room(of, bytes) {}
        if self.held.taken() + bytes <= self.max_bytes {
            self.add(CachedJob { job: Arc::clone(job), bytes, of: of.clone(), used: 0, before: Vec::new() });
        }
    }

    /// Takes the least recently used of whoever holds most, where `more` counts for who comes. Says whether there was
    /// one.
    fn make_room(&mut self, comes: &ClientName, more: usize) -> bool {
        let others = self.held.iter().filter(|(client, _)| *client != comes);
        let most = others.max_by_key(|(_, held)| *held).filter(|(_, held)| *held >= self.held.of(comes) + more);
        let most = most.map_or(comes, |(client, _)| client);
        let first = (most.clone(), 0)..=(most.clone(), u64::MAX);
        let Some(number) = self.order.range(first).next().map(|(_, number)| *number) else { return false };
        let Some(mut gone) = self.remove(number) else { return false };
        let handles = lock(&gone.job.handles);
        let was_its = |client: &ClientName| *client == gone.of || gone.before.contains(client);
        let heir = handles.iter().map(|handle| &handle.client).find(|client| !was_its(client)).cloned();
        drop(handles);
        if let Some(heir) = heir {
            gone.before.push(std::mem::replace(&mut gone.of, heir));
            self.add(gone);
        }
        true
    }

    fn add(&mut self, kept: CachedJob) {
        self.uses += 1;
        let kept = CachedJob { used: self.uses, ..kept };
        self.held.take(&kept.of, kept.bytes);
        self.order.insert((kept.of.clone(), kept.used), kept.job.number);
        self.kept.insert(kept.job.number, kept);
    }

    fn remove(&mut self, number: u64) -> Option<CachedJob> {
        let kept = self.kept.remove(&number)?;
        self.order.remove(&(kept.of.clone(), kept.used));
        self.held.give_back(&kept.of, kept.bytes);
        Some(kept)
    }

    /// A job, by its number. It is used by that.
    pub(super) fn get(&mut self, number: u64) -> Option<Arc<Job>> {
        let kept = self.remove(number)?;
        let job = Arc::clone(&kept.job);
        self.add(kept);
        Some(job)
    }

    /// A job, by its number, without using it.
    pub(super) fn peek(&self, number: u64) -> Option<&Arc<Job>> {
        self.kept.get(&number).map(|kept| &kept.job)
    }

    /// Leaves only those of which `stays` is true.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Job) -> bool) {
        let gone: Vec<u64> =
            self.kept.iter().filter(|(_, kept)| !stays(&kept.job)).map(|(number, _)| *number).collect();
        for number in gone {
            self.remove(number);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

fn bytes_of(job: &Job) -> usize {
    let text = match job.outcome() {
        Some((_, Ok(product))) => product.member.len(),
        Some((_, Err(Error::Refused(reply)))) => reply.body.len(),
        _ => 0,
    };
    let asked = job.key.question.filter();
    let names = [&asked.source, &asked.destination].into_iter().flatten().map(|name| name.len());
    text + names.sum::<usize>() + OVERHEAD
}

#[cfg(test)]
mod tests;
