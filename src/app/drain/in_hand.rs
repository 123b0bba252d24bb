//! [`InHand`]: what a stop waits for, as its log lines say it.

use std::cmp::Reverse;
use std::time::Duration;

use crate::kernel::log_list::List;
use crate::kernel::names::ClientName;
use crate::services::Parts;

/// How many clients a line names; the rest are one number.
const NAMED: usize = 10;

/// What is under way that somebody waits for, or that must come to its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct InHand {
    /// How many requests of each client that has any; those with most first.
    clients: Vec<(ClientName, usize)>,
    /// Streams and exports of callers that are open.
    streams: usize,
    /// Reads of events that the vendor has not answered, or that are being stored.
    reads: usize,
    /// Requests to webhooks.
    webhook_attempts: usize,
    /// Exchanges with the vendor whose callers have left.
    exchanges: usize,
}

impl InHand {
    /// As it is now.
    pub(super) fn of(parts: &Parts) -> Self {
        let by_client = parts.gateway.admission.by_client();
        let streams = by_client.values().map(|client| client.streams).sum();
        let clients = by_client.into_iter().map(|(name, client)| (name, client.requests));
        let mut clients: Vec<_> = clients.filter(|(_, requests)| *requests > 0).collect();
        clients.sort_by(|(a, most), (b, more)| (Reverse(most), a).cmp(&(Reverse(more), b)));
        Self {
            clients,
            streams,
            reads: parts.events.reads_under_way(),
            webhook_attempts: parts.webhooks.in_flight(),
            exchanges: parts.egress.detached_exchanges(),
        }
    }

    fn requests(&self) -> usize {
        self.clients.iter().map(|(_, requests)| requests).sum()
    }

    /// `billing 3`, `crm 1`.
    fn clients(&self) -> List {
        let (named, others) = self.clients.split_at(self.clients.len().min(NAMED));
        let mut list: List = named.iter().map(|(name, requests)| format!("{name} {requests}")).collect();
        if !others.is_empty() {
            list.push(format!("others {}", others.iter().map(|(_, requests)| requests).sum::<usize>()));
        }
        list
    }

    /// The stop goes on.
    pub(super) fn tell(&self, left: Duration) {
        tracing::info!(
            requests = self.requests(),
            clients = self.clients().field(),
            streams = self.streams,
            event_reads = self.reads,
            webhook_attempts = self.webhook_attempts,
            exchanges = self.exchanges,
            grace_left_seconds = left.as_secs(),
            "draining: what is waited for"
        );
    }

    /// The grace is over, and so many tasks were cut off with it.
    pub(super) fn tell_cut(&self, connections: usize, pollers: usize, webhooks: usize) {
        tracing::warn!(
            connections,
            pollers,
            webhooks,
            requests = self.requests(),
            clients = self.clients().field(),
            streams = self.streams,
            event_reads = self.reads,
            webhook_attempts = self.webhook_attempts,
            "grace is over; cut"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_named_by_what_they_have_and_few_of_them() {
        let client = |name: &str, requests| (ClientName::parse(name).unwrap(), requests);
        let mut in_hand = InHand { clients: [client("billing", 3), client("crm", 1)].into(), ..InHand::default() };
        assert_eq!((in_hand.requests(), in_hand.clients().texts()), (4, &["billing 3".into(), "crm 1".into()][..]));
        in_hand.clients.extend((0..10).map(|n| client(&format!("z{n}"), 1)));
        let told = in_hand.clients();
        assert_eq!((told.texts().len(), told.texts().last().unwrap().as_ref()), (NAMED + 1, "others 2"));
        assert_eq!(InHand::default().clients().texts().len(), 0);
    }
}
