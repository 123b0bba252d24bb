//! The messages of one app, and what a filter selects from them.
//!
//! Invariant: messages are kept in the order of their times; of equal times, in the order in which they came.
//!
//! | source | destination | selects |
//! | --- | --- | --- |
//! | - | user | all messages the user received, those of channels it is in included |
//! | - | channel | all messages of the channel |
//! | user | - | all messages the user sent |
//! | user | other user | peer messages from one to the other |
//! | user | channel | messages the user sent to the channel |

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::query::{Filter, Query};
use crate::kernel::clock::UnixMillis;

/// One kept message, with the vendor's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who received it: a user or a channel.
    pub dst: String,
    /// To a user or to a channel.
    pub message_type: MessageKind,
    /// When, in milliseconds since 1970. Zero when added: now.
    #[serde(default)]
    pub ms: u64,
    pub payload: String,
    pub src: String,
}

/// To whom a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    PeerMessage,
    ChannelMessage,
}

impl Message {
    /// A message from user to user, now.
    #[must_use]
    pub fn peer(src: &str, dst: &str, payload: &str) -> Self {
        let (src, dst, payload) = (src.to_owned(), dst.to_owned(), payload.to_owned());
        Self { dst, message_type: MessageKind::PeerMessage, ms: 0, payload, src }
    }

    /// A message from a user to a channel, now.
    #[must_use]
    pub fn channel(src: &str, dst: &str, payload: &str) -> Self {
        Self { message_type: MessageKind::ChannelMessage, ..Self::peer(src, dst, payload) }
    }

    /// The same at that time, in milliseconds since 1970.
    #[must_use]
    pub fn at(self, ms: u64) -> Self {
        Self { ms, ..self }
    }
}

/// An app's messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    kept: Vec<Arc<Message>>,
    members: HashMap<String, HashSet<String>>,
}

impl Messages {
    pub(super) fn add(&mut self, message: Message) {
        // Behind those of its millisecond: equals keep the order in which they came, in both directions.
        let at = self.kept.partition_point(|m| m.ms <= message.ms);
        self.kept.insert(at, Arc::new(message));
    }

    pub(super) fn remove(&mut self, unwanted: impl Fn(&Message) -> bool) {
        self.kept.retain(|m| !unwanted(m));
    }

    pub(super) fn join(&mut self, channel: &str, user: &str) {
        self.members.entry(channel.to_owned()).or_default().insert(user.to_owned());
    }

    pub(super) fn leave(&mut self, channel: &str, user: &str) {
        if let Some(members) = self.members.get_mut(channel) {
            members.remove(user);
        }
    }

    /// A page of what the filter selects from messages not older than `oldest`.
    pub(super) fn page(&self, query: &Query, oldest: UnixMillis) -> Vec<Arc<Message>> {
        let selected = self.kept[self.range(&query.filter, oldest)].iter();
        let fits = |m: &&Arc<Message>| self.fits(m, &query.filter);
        let page = |messages: &mut dyn Iterator<Item = &Arc<Message>>| {
            messages.skip(query.offset).take(query.limit).cloned().collect()
        };
        if query.descending { page(&mut selected.rev().filter(fits)) } else { page(&mut selected.filter(fits)) }
    }

    /// How many the filter selects from messages not older than `oldest`.
    pub(super) fn count(&self, filter: &Filter, oldest: UnixMillis) -> usize {
        self.kept[self.range(filter, oldest)].iter().filter(|m| self.fits(m, filter)).count()
    }

    /// Both ends of the filter's times are in it: `end_time` means that instant, not the whole second.
    fn range(&self, filter: &Filter, oldest: UnixMillis) -> Range<usize> {
        let start = filter.start.saturating_mul(1000).max(oldest.0);
        let end = filter.end.saturating_mul(1000);
        let first = self.kept.partition_point(|m| m.ms < start);
        first..self.kept.partition_point(|m| m.ms <= end).max(first)
    }

    fn fits(&self, message: &Message, filter: &Filter) -> bool {
        let from = filter.source.as_ref().is_none_or(|s| *s == message.src);
        from && filter.destination.as_ref().is_none_or(|d| {
            let received = || {
                // The page's table: a user as the only destination selects its channels' messages, too.
                message.message_type == MessageKind::ChannelMessage
                    && filter.source.is_none()
                    && self.members.get(&message.dst).is_some_and(|members| members.contains(d))
            };
            *d == message.dst || received()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(messages: &Messages, source: &str, destination: &str) -> String {
        let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let filter = Filter { source: set(source), destination: set(destination), start: 1, end: 2 };
        let query = Query { filter: filter.clone(), offset: 0, limit: 100, descending: false };
        let page = messages.page(&query, UnixMillis(1500));
        assert_eq!(page.len(), messages.count(&filter, UnixMillis(1500)));
        page.iter().map(|m| m.payload.as_str()).collect()
    }

    #[test]
    fn the_table_of_filters_holds() {
        let mut messages = Messages::default();
        for (at, message) in [
            (2000, Message::channel("b", "room", "4")),
            (1500, Message::peer("a", "b", "1")),
            (1499, Message::peer("a", "b", "expired")),
            (1600, Message::peer("b", "a", "2")),
            (1700, Message::channel("a", "room", "3")),
            (2001, Message::peer("a", "b", "late")),
        ] {
            messages.add(message.at(at));
        }
        messages.join("room", "c");
        for (source, destination, expected) in [
            ("", "b", "1"),
            ("", "room", "34"),
            ("a", "", "13"),
            ("a", "b", "1"),
            ("a", "room", "3"),
            ("", "c", "34"),
            ("a", "c", ""),
        ] {
            assert_eq!(select(&messages, source, destination), expected, "{source} -> {destination}");
        }
        messages.leave("room", "c");
        assert_eq!(select(&messages, "", "c"), "");
    }

    #[test]
    fn pages_and_both_orders() {
        let mut messages = Messages::default();
        for n in 0..30_u64 {
            messages.add(Message::peer("a", "b", &n.to_string()).at(1000 + n / 3));
        }
        let filter = Filter { source: Some("a".into()), destination: None, start: 1, end: 5 };
        let texts = |query: Query| {
            let page = messages.page(&query, UnixMillis(0));
            page.iter().map(|m| m.payload.parse().unwrap()).collect::<Vec<u32>>()
        };
        let ascending = Query { filter, offset: 18, limit: 20, descending: false };
        assert_eq!(texts(ascending.clone()), (18..30).collect::<Vec<_>>());
        let descending = Query { descending: true, ..ascending };
        assert_eq!(texts(descending), (0..12).rev().collect::<Vec<_>>());
    }
}
