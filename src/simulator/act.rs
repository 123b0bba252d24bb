//! What each call does to the world.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;

use super::answer::Answer;
use super::app::{DeadHandle, Rules, Snapshot};
use super::handles::Fetch;
use super::messages::Message;
use super::query::{self, Query};
use super::queue::Queue;
use super::region::Region;
use super::serve::RoutedRequest;
use super::target::Call;
use super::violation::ViolationKind;
use super::world::Account;
use super::{Endpoint, lock};

/// Acts on a request that may come in.
pub(super) fn act(region: &Arc<Region>, account: &Account, asked: &RoutedRequest) -> Answer {
    let settings = account.settings();
    let done = Action { region, account, asked, rules: &settings.rules, id: request_id(region) };
    match &asked.call {
        Call::Events(stream) => {
            let handover = Queue::take(&region.queue(&asked.app, *stream), settings.rules.read_limit, asked.received);
            Answer::events(&done.id, handover, &settings.rules)
        }
        Call::Create => done.create(),
        Call::Fetch(handle) => done.fetch(handle),
        Call::Count => done.count(),
        Call::Peer(user) => done.send(user, false),
        Call::Channel(user) => done.send(user, true),
    }
}

struct Action<'a> {
    region: &'a Region,
    account: &'a Account,
    asked: &'a RoutedRequest,
    rules: &'a Rules,
    id: String,
}

impl Action<'_> {
    fn create(&self) -> Answer {
        let query = match query::from_body(&self.asked.body, self.rules.dialect) {
            Ok(query) => query,
            Err(why) => return self.malformed(why),
        };
        let snapshot = (self.rules.snapshot == Snapshot::Create).then(|| self.page(&query));
        let now = self.region.world.clock().now();
        let handle = lock(&self.account.handles).create(query.clone(), snapshot, self.rules.handles, now);
        Answer::created(&query, &handle)
    }

    fn fetch(&self, handle: &str) -> Answer {
        let now = self.region.world.clock().now();
        let (fetch, early) = lock(&self.account.handles).fetch(handle, self.rules, now);
        if let Some(early) = early {
            self.violate(ViolationKind::TooSoon { endpoint: Endpoint::HistoryGet, early, of: handle.to_owned() });
        }
        if matches!(fetch, Fetch::Unknown | Fetch::Spent { heard: true }) {
            self.violate(ViolationKind::DeadHandle { handle: handle.to_owned() });
        }
        match fetch {
            Fetch::InProgress(told) => Answer::in_progress(&self.id, told, now),
            Fetch::Ready { query, snapshot, heard } => {
                let page = snapshot.unwrap_or_else(|| self.page(&query));
                Answer::messages(&self.id, &page, self.rules, heard)
            }
            Fetch::Expired => Answer::not_exist(&self.id, StatusCode::GONE),
            Fetch::Unknown | Fetch::Spent { .. } => {
                let status = match self.rules.dead_handle {
                    DeadHandle::NotExist => StatusCode::OK,
                    DeadHandle::NotFound => StatusCode::NOT_FOUND,
                    DeadHandle::Gone => StatusCode::GONE,
                };
                Answer::not_exist(&self.id, status)
            }
        }
    }

    fn count(&self) -> Answer {
        let filter = match query::from_parameters(self.asked.head.uri.query(), self.rules.dialect) {
            Ok(filter) => filter,
            Err(why) => return self.malformed(why),
        };
        let now = self.region.world.clock().now();
        let (in_progress, early) = lock(&self.account.handles).count(&filter, self.rules, now);
        if let Some(early) = early {
            let of = self.asked.head.uri.query().unwrap_or_default().to_owned();
            self.violate(ViolationKind::TooSoon { endpoint: Endpoint::HistoryCount, early, of });
        }
        if let Some(told) = in_progress {
            return Answer::in_progress(&self.id, told, now);
        }
        let oldest = self.region.world.clock().wall_ms().before(self.rules.count_retention);
        Answer::count(lock(&self.account.messages).count(&filter, oldest), self.rules)
    }

    fn send(&self, user: &str, to_channel: bool) -> Answer {
        let Ok(sent) = serde_json::from_slice::<SentMessage>(&self.asked.body) else {
            return self.malformed("the body is no message".into());
        };
        let to = if to_channel { sent.channel_name } else { sent.destination };
        let Some(to) = to.filter(|to| !to.is_empty()) else { return self.malformed("nobody to send to".into()) };
        if sent.enable_historical_messaging || self.rules.keep_all_messages {
            let message = if to_channel { Message::channel } else { Message::peer }(user, &to, &sent.payload);
            self.region.world.add_message(&self.asked.app, message);
        }
        Answer::sent(&self.id, &self.asked.body, self.rules)
    }

    fn page(&self, query: &Query) -> Vec<Arc<Message>> {
        let oldest = self.region.world.clock().wall_ms().before(self.rules.history_retention);
        lock(&self.account.messages).page(query, oldest)
    }

    fn malformed(&self, why: String) -> Answer {
        let answer = Answer::no(StatusCode::BAD_REQUEST, &why);
        self.violate(ViolationKind::Malformed { why });
        answer
    }

    fn violate(&self, kind: ViolationKind) {
        self.region.violate(&self.asked.app, kind);
    }
}

/// The body of both kinds of message (*field*). Other members are taken and ignored.
#[derive(Deserialize)]
struct SentMessage {
    destination: Option<String>,
    channel_name: Option<String>,
    payload: String,
    #[serde(default)]
    enable_historical_messaging: bool,
}

/// Digits, as in the page's examples.
fn request_id(region: &Region) -> String {
    format!("{}{:011}", region.world.clock().wall_ms().0, region.world.serial())
}
