//! How many streams there may be, and whose.
//!
//! Invariants: no client can have all of them (see [`share`](crate::kernel::share)); a place is free again when its
//! [`StreamPermit`] is dropped.

use std::sync::{Arc, Mutex, MutexGuard};

use super::error::Error;
use crate::kernel::names::ClientName;
use crate::kernel::share::Holdings;
use crate::kernel::sync::lock;

/// Most streams at a time. Each holds a few MiB at most: see `pager::in_flight`.
const MAX_STREAMS: usize = 128;

/// The streams under way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamPermits(Arc<Mutex<Holdings>>);

/// Leave for one stream to be under way, until it is dropped.
#[derive(Debug)]
pub(super) struct StreamPermit {
    permits: StreamPermits,
    client: ClientName,
}

impl StreamPermits {
    pub(super) fn enter(&self, client: &ClientName) -> Result<StreamPermit, Error> {
        let mut table = self.table();
        if !table.may_take(client, 1, MAX_STREAMS) {
            return Err(Error::Crowded);
        }
        table.take(client, 1);
        Ok(StreamPermit { permits: self.clone(), client: client.clone() })
    }

    fn table(&self) -> MutexGuard<'_, Holdings> {
        lock(&self.0)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.permits.table().give_back(&self.client, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_takes_all_places_and_what_ends_makes_room() {
        let streams = StreamPermits::default();
        let client = |name: &str| ClientName::parse(name).unwrap();
        let mut places: Vec<_> = std::iter::from_fn(|| streams.enter(&client("greedy")).ok()).collect();
        assert!((MAX_STREAMS / 2..MAX_STREAMS).contains(&places.len()), "{}", places.len());
        let other = streams.enter(&client("other"));
        assert!(other.is_ok());
        assert!(matches!(streams.enter(&client("greedy")), Err(Error::Crowded)));
        places.pop();
        drop(other);
        assert!(streams.enter(&client("greedy")).is_ok());
        drop(places);
        assert_eq!(*streams.table(), Holdings::default());
    }
}
