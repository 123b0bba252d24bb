//! [`Turns`]: one at a time, and the clients in turn.
//!
//! Invariants: at most one [`Turn`] lives. Of those who wait, each client's first goes once before any client's second:
//! so what a client waits for depends on how many clients wait, not on how much any of them wants. Whoever stops
//! waiting leaves no gap: a turn that nobody takes goes on to the next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::kernel::names::ClientName;
use crate::kernel::sync::lock;

/// Who may go now, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<TurnQueue>);

#[derive(Debug, Default)]
struct TurnQueue {
    /// Whose turn it is.
    current: Option<ClientName>,
    /// Clients that wait, but for that one; who is first is next.
    order: VecDeque<ClientName>,
    of: HashMap<ClientName, VecDeque<oneshot::Sender<Turn>>>,
    given: u64,
}

/// That it is one's turn, until it is dropped.
#[derive(Debug)]
pub(in crate::events) struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// Waits for a turn of this client.
    pub(super) async fn turn(self: &Arc<Self>, client: &ClientName) -> Turn {
        let waiting = {
            let mut all = lock(&self.0);
            if all.current.is_none() {
                all.current = Some(client.clone());
                all.given += 1;
                return Turn(Some(Arc::clone(self)));
            }
            let (sender, waiting) = oneshot::channel();
            let TurnQueue { current, order, of, .. } = &mut *all;
            let of_client = of.entry(client.clone()).or_default();
            if of_client.is_empty() && current.as_ref() != Some(client) {
                order.push_back(client.clone());
            }
            of_client.push_back(sender);
            waiting
        };
        match waiting.await {
            Ok(turn) => turn,
            // A sender is only dropped after it has sent.
            Err(_) => Turn(None),
        }
    }

    /// How many turns were given.
    #[cfg(test)]
    pub(super) fn given(&self) -> u64 {
        lock(&self.0).given
    }

    /// Who is next of those who still wait.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut all = lock(&self.0);
        let TurnQueue { current, order, of, given } = &mut *all;
        // Behind those who came while it had its turn.
        order.extend(current.take().filter(|client| of.contains_key(client)));
        while let Some(client) = order.pop_front() {
            let Some(of_client) = of.get_mut(&client) else { continue };
            let first = std::iter::from_fn(|| of_client.pop_front()).find(|sender| !sender.is_closed());
            if of_client.is_empty() {
                of.remove(&client);
            }
            if first.is_some() {
                *given += 1;
                *current = Some(client);
                return first;
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        while let Some(next) = turns.next() {
            match next.send(Turn(Some(Arc::clone(&turns)))) {
                Ok(()) => return,
                // It does not wait any more. Its turn is this one still.
                Err(mut unused) => unused.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn client(name: &str) -> ClientName {
        ClientName::parse(name).unwrap()
    }

    #[tokio::test]
    async fn one_goes_at_a_time_and_clients_alternate() {
        let turns = Arc::new(Turns::default());
        let mut held = turns.turn(&client("a")).await;
        let names = ["a", "a", "a", "b", "c", "b"].map(client);
        let mut waiting: Vec<_> = names.iter().map(|name| Some(Box::pin(turns.turn(name)))).collect();
        let mut order = Vec::new();
        for future in waiting.iter_mut().flatten() {
            assert!(future.now_or_never().is_none());
        }
        // One of `a` has left.
        waiting[1] = None;
        while waiting.iter().any(Option::is_some) {
            drop(held);
            let mut went = None;
            for (n, place) in waiting.iter_mut().enumerate() {
                if let Some(turn) = place.as_mut().and_then(|future| future.now_or_never()) {
                    assert!(went.is_none(), "two at once");
                    went = Some(turn);
                    order.push(names[n].as_str());
                    *place = None;
                }
            }
            held = went.expect("somebody's turn");
        }
        assert_eq!(order, ["b", "c", "a", "b", "a"]);
        drop(held);
        assert!(turns.turn(&client("d")).now_or_never().is_some(), "free again");
    }
}
