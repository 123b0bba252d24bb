//! [`AppRuntime`]: what runs for one app: where its requests go, what they show, what they are counted in.

use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use super::buckets::{AppBucket, AppBuckets};
use super::budget::Budgets;
use super::endpoint::EndpointHealth;
use super::hosts::HostHealth;
use super::meters::{AppMeters, PerEndpoint, RegionMeters};
use super::retry::{Reason, Tries};
use super::switched_off::{SwitchedOff, SwitchedOffEndpoint};
use tokio::time::Instant;

use crate::kernel::names::{BucketName, ClientName, RegionName};
use crate::upstream::credentials::{Base, Credential};
use crate::upstream::pool::Lanes;
use crate::vendor::order::{Operation, Order, Safety};

/// One app.
pub(super) struct AppRuntime {
    pub(super) credential: Arc<Credential>,
    pub(super) meters: AppMeters,
    pub(super) budgets: Arc<Budgets>,
    pub(super) switched_off: Arc<SwitchedOff>,
    /// Bytes that are kept of an answer to a read of events, decoded.
    pub(super) max_read: usize,
    pub(super) regions: Vec<Region>,
    pub(super) buckets: AppBuckets,
}

/// One of an app's regions.
pub(super) struct Region {
    pub(super) name: RegionName,
    pub(super) base: Base,
    pub(super) meters: RegionMeters,
    pub(super) host: Arc<HostHealth>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) endpoints: Endpoints,
}

pub(super) type Endpoints = PerEndpoint<Arc<EndpointHealth>>;

impl AppRuntime {
    /// The endpoints that the vendor answers with 403.
    pub(super) fn switched_off(&self) -> Vec<SwitchedOffEndpoint> {
        self.switched_off.list(self.regions.iter().map(|region| &region.name))
    }

    /// The region that an order would be sent to at `at`: the one it names; else, if it keeps no state, the first that
    /// can be connected to, those last where its endpoint fails or that `tries` has failed with; else the first.
    pub(super) fn region(&self, order: &Order, tries: &Tries, at: Instant) -> Result<&Region, Failure> {
        let all = match &order.region {
            Some(name) => self.regions.iter().find(|r| r.name == *name).map(std::slice::from_ref),
            None if order.operation.keeps_no_state() => Some(&self.regions[..]),
            None => self.regions.get(..1),
        };
        let all = all.filter(|all| !all.is_empty()).ok_or(Failure::NoSuchApp)?;
        let has_failed = |region: &&Region| tries.has_failed(&region.name);
        let (fresh, failed) = (all.iter().filter(|region| !has_failed(region)), all.iter().filter(has_failed));
        let is_read = order.operation.safety() == Safety::Destructive;
        let mut failing = None;
        let mut shut: Option<(Duration, &Region)> = None;
        let mut held: Option<(Duration, &Region)> = None;
        for region in fresh.chain(failed) {
            let hold = region.endpoint(&order.operation).held_for(at).filter(|_| !is_read);
            match (region.host.look(at), hold) {
                (Ok(()), Some(left)) => {
                    if held.is_none_or(|(least, _)| left < least) {
                        held = Some((left, region));
                    }
                }
                (Ok(()), None) if region.endpoint(&order.operation).fails(at) => {
                    failing = failing.or(Some(region));
                }
                (Ok(()), None) => return Ok(region),
                (Err(wait), _) if shut.is_none_or(|(least, _)| wait < least) => shut = Some((wait, region)),
                (Err(_), _) => {}
            }
        }
        // One that fails is asked all the same where no other can be.
        if let Some(region) = failing {
            return Ok(region);
        }
        if let Some((retry_after, region)) = held {
            return Err(Failure::AskedToWait { region: region.name.clone(), retry_after });
        }
        let (retry_after, region) = shut.ok_or(Failure::NoSuchApp)?;
        Err(Failure::RegionDown { region: region.name.clone(), retry_after })
    }

    /// Whether an order may be sent again for this reason. If so it is counted, and what it takes of the
    /// client's budget is taken.
    pub(super) fn may_send_again(&self, reason: Reason, client: &ClientName, now: Instant) -> bool {
        if reason.is_budgeted() && !self.budgets.again(client, now) {
            self.meters.budget_exhausted.inc();
            return false;
        }
        self.meters.again(reason);
        true
    }

    /// The bucket an order of this name is counted in.
    pub(super) fn bucket(&self, name: BucketName) -> &AppBucket {
        let [user_events, channel_events, create, get, count, messages] = &self.buckets;
        match name {
            BucketName::UserEvents => user_events,
            BucketName::ChannelEvents => channel_events,
            BucketName::HistoryCreate => create,
            BucketName::HistoryGet => get,
            BucketName::HistoryCount => count,
            BucketName::Messages => messages,
        }
    }

    /// All its buckets, each once.
    pub(super) fn buckets(&self) -> impl Iterator<Item = &AppBucket> {
        let all = BucketName::ALL.into_iter().zip(&self.buckets);
        all.filter(|(name, bucket)| *name == bucket.name).map(|(_, bucket)| bucket)
    }
}

impl Region {
    /// All its endpoints.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<EndpointHealth>> {
        self.endpoints.iter()
    }

    /// The endpoint of an operation.
    pub(super) fn endpoint(&self, operation: &Operation) -> &Arc<EndpointHealth> {
        self.endpoints.of(operation)
    }
}
