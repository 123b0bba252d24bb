//! Places of clients that an older gateway stored under the client's own name: they become that client's default ones.
//!
//! Older gateways knew a client's default subscription by its name alone, which others could use while no client of
//! that name was configured. Now it has a name that nobody can write: `$client.NAME`.
//!
//! Invariants: whose a place is is decided by its owner as the store has it; only where none is recorded (a place, or a
//! copy, of a gateway that kept none) does a client's name decide, as it did then, and once: what was nobody's then is
//! shared, whoever comes by that name later. Each place is renamed with all that belongs to it in one step: a start
//! that is cut short goes on at the next. Done once, there is nothing left to do: no owner of today's has a place of
//! its own name.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;

use super::notes::SubscriptionRecords;
use crate::kernel::names::SubscriptionName;
use crate::store::{Error, LogKey, Store};

/// Gives clients their places among those of a log. `clients` are the names of those that are configured.
///
/// # Errors
/// When the store fails: some places may have their new names there.
pub(in crate::events) async fn give(
    store: &dyn Store,
    log: &LogKey,
    all: &mut HashMap<SubscriptionName, SubscriptionRecords>,
    clients: &HashSet<&str>,
) -> Result<(), Error> {
    let is_nobodys = |(name, recalled): (&SubscriptionName, &SubscriptionRecords)| {
        recalled.owner.by.is_none() && name.default_of_namesake().is_some()
    };
    let decides_by_name = all.iter().any(is_nobodys) && !was_decided(store, log).await?;
    let new_name = |(name, recalled): (&SubscriptionName, &SubscriptionRecords)| {
        let is_its_own = match &recalled.owner.by {
            Some(by) => by.as_str() == name.as_str(),
            None => decides_by_name && clients.contains(name.as_str()),
        };
        let default = name.default_of_namesake().filter(|default| is_its_own && !all.contains_key(default));
        default.map(|default| (name.clone(), default))
    };
    let renamed: Vec<_> = all.iter().filter_map(new_name).collect();
    for some in renamed.chunks(AT_ONCE) {
        let each = some.iter().map(|(from, to)| store.rename_subscription(log, from, to));
        join_all(each).await.into_iter().collect::<Result<(), Error>>()?;
    }
    if !renamed.is_empty() {
        let (app, stream, subscriptions) = (&log.app, log.stream, renamed.len());
        tracing::info!(%app, %stream, subscriptions, "clients' own subscriptions are called $client.NAME from now on");
    }
    for (from, to) in renamed {
        if let Some(mut recalled) = all.remove(&from) {
            recalled.owner.by = to.client();
            all.insert(to, recalled);
        }
    }
    if decides_by_name && all.iter().any(is_nobodys) {
        store.change_facts(vec![(decided(log).into(), Some(1))]).await?;
    }
    Ok(())
}

/// Whether the places of this log whose owner is not recorded are known to be shared.
async fn was_decided(store: &dyn Store, log: &LogKey) -> Result<bool, Error> {
    let name = decided(log);
    Ok(store.facts(DECIDED).await?.iter().any(|(known, _)| *known == name))
}

fn decided(log: &LogKey) -> String {
    format!("{DECIDED}{}/{}", log.app, log.stream)
}

/// Begins the names of the facts that say so.
const DECIDED: &str = "shared by name: ";

/// How many are renamed together.
const AT_ONCE: usize = 256;
