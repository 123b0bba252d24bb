//! A vendor in place of egress, for tests with paused time: a fixed list of messages, one-shot handles, scripted
//! faults.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::config::{Quota, QuotaRule};
use crate::kernel::names::{AppId, BucketName, ClientName, RegionName};
use crate::kernel::testing::pass;
use crate::upstream::egress::{Costs, Failed, Failure, Orders, Reply, WorkCosts};
use crate::vendor::order::{Operation, Order};

/// How long egress waits for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// What happens to one order instead of the usual.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// `code: "in progress"`; the handle lives.
    InProgress,
    /// This status and body; the handle lives.
    Says(u16, &'static str),
    /// This status, with a `Retry-After` of so many seconds; the handle lives.
    Asks(u16, u64),
    /// The handle is used, and the answer is this.
    Spoilt(&'static str),
    /// The handle is used, and the answer is lost.
    Lost,
    /// No answer until egress gives it up, or the order's deadline.
    Hangs,
    /// The answer comes after so many milliseconds, if it is waited for so long; then the handle lives no more.
    Takes(u64),
    /// A seat comes after so many milliseconds; then it goes out, and is answered as usual.
    SeatAfter(u64),
    /// No seat before the order's deadline, found out at once.
    NoSeat,
    /// No seat came until the order wanted one.
    NoSeatInTime,
}

#[derive(Debug, Default)]
struct State {
    handles: HashMap<String, Bytes>,
    acts: HashMap<&'static str, VecDeque<Act>>,
    seen: Vec<(Duration, Order)>,
    /// How often a repeat is still refused.
    refusals: u32,
}

/// The vendor.
#[derive(Debug)]
pub(super) struct Scripted {
    began: Instant,
    latency: Duration,
    messages: Vec<String>,
    state: Mutex<State>,
}

impl Scripted {
    pub(super) fn new(messages: usize) -> Self {
        let text =
            |n| format!(r#"{{"dst": "d","ms":{},"payload":"\u00e9{n}"}}"#, 1_500_000_000_000_u64 + n as u64 * 10);
        Self {
            began: Instant::now(),
            latency: Duration::from_millis(100),
            messages: (0..messages).map(text).collect(),
            state: Mutex::default(),
        }
    }

    /// The text of messages `from..to`, as a list.
    pub(super) fn list(&self, from: usize, to: usize) -> String {
        format!("[{}]", self.messages[from..to].join(","))
    }

    pub(super) fn script(&self, endpoint: &'static str, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().unwrap().acts.entry(endpoint).or_default().extend(acts);
    }

    /// The retry budget is spent, for so many questions.
    pub(super) fn refuse_repeats(&self, times: u32) {
        self.state.lock().unwrap().refusals = times;
    }

    /// Nothing more happens instead of the usual.
    pub(super) fn heal(&self, endpoint: &'static str) {
        self.state.lock().unwrap().acts.remove(endpoint);
    }

    /// When each order for an endpoint came.
    pub(super) fn seen(&self, endpoint: &str) -> Vec<Duration> {
        let state = self.state.lock().unwrap();
        state
            .seen
            .iter()
            .filter(|(_, order)| order.operation.endpoint().as_str() == endpoint)
            .map(|(at, _)| *at)
            .collect()
    }

    pub(super) fn orders(&self) -> Vec<Order> {
        self.state.lock().unwrap().seen.iter().map(|(_, order)| order.clone()).collect()
    }

    fn evaluate(&self, body: &[u8]) -> Bytes {
        let query: Value = serde_json::from_slice(body).unwrap();
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let (offset, limit) = (number(&query["offset"]), number(&query["limit"]));
        assert!([20, 50, 100].contains(&limit));
        let seconds = |at: &str| query["filter"][at].as_u64().unwrap() * 1000;
        let (start, end) = (seconds("start_time"), seconds("end_time") + 999);
        let within =
            |text: &&String| (start..=end).contains(&crate::vendor::history::message_ms(text.as_bytes()).unwrap());
        let mut selected: Vec<_> = self.messages.iter().filter(within).map(String::as_str).collect();
        if query["order"] == "desc" {
            selected.reverse();
        }
        let page: Vec<_> = selected.into_iter().skip(offset).take(limit).collect();
        format!(r#"{{"code":"ok","messages":[{}],"request_id":"v","result":"success"}}"#, page.join(",")).into()
    }

    fn answer(&self, operation: &Operation) -> (u16, Bytes) {
        let mut state = self.state.lock().unwrap();
        match operation {
            Operation::CreateHistory(body) => {
                let handle = format!("{}==", state.handles.len());
                state.handles.insert(handle.clone(), self.evaluate(body));
                (200, format!(r#"{{"result":"success","location":"~/rtm/message/history/query/{handle}"}}"#).into())
            }
            Operation::FetchHistory(handle) => match state.handles.get_mut(handle) {
                Some(page) if !page.is_empty() => (200, std::mem::take(page)),
                _ => (200, r#"{"result":"success","code":"resource not exist"}"#.into()),
            },
            Operation::CountHistory(_) => (200, format!(r#"{{"code":"ok","count":{}}}"#, self.messages.len()).into()),
            other => panic!("{other:?}"),
        }
    }

    fn spend(&self, operation: &Operation) {
        if let Operation::FetchHistory(handle) = operation {
            self.state.lock().unwrap().handles.insert(handle.clone(), Bytes::new());
        }
    }
}

fn costs() -> Costs {
    Costs { exchanges: 1, ..Costs::default() }
}

#[async_trait]
impl Orders for Scripted {
    fn may_repeat(&self, _: &AppId, _: &ClientName) -> bool {
        let mut state = self.state.lock().unwrap();
        let is_refused = state.refusals > 0;
        state.refusals = state.refusals.saturating_sub(1);
        !is_refused
    }

    async fn send_for(&self, order: Order, work: &WorkCosts) -> Result<Reply, Failed> {
        let ended = self.send(order).await;
        work.add(match &ended {
            Ok(reply) => &reply.costs,
            Err(failed) => &failed.costs,
        });
        ended
    }

    async fn send(&self, order: Order) -> Result<Reply, Failed> {
        let operation = order.operation.clone();
        let (deadline, seat_by) = (order.deadline, order.seat_by.unwrap_or(order.deadline).min(order.deadline));
        let act = {
            let act =
                self.state.lock().unwrap().acts.get_mut(operation.endpoint().as_str()).and_then(VecDeque::pop_front);
            if let Some(Act::SeatAfter(ms)) = act {
                pass(Duration::from_millis(ms)).await;
            }
            let mut state = self.state.lock().unwrap();
            if let Some(sent) = order.sent.as_ref().filter(|_| !matches!(act, Some(Act::NoSeat | Act::NoSeatInTime))) {
                sent.set();
            }
            state.seen.push((self.began.elapsed(), order));
            act
        };
        let QuotaRule::Own(limit) = Quota::default().messages else { panic!("the default is its own") };
        let retry_after = Duration::from_secs(7);
        let spent = Failure::QuotaSpent { bucket: BucketName::HistoryCreate, limit, retry_after, vendor: None };
        let failed = |why| Err(Failed { why, costs: costs() });
        pass(self.latency).await;
        let mut headers = HeaderMap::new();
        let (status, body) = match act {
            None | Some(Act::SeatAfter(_)) => self.answer(&operation),
            Some(Act::InProgress) => (200, r#"{"result":"success","code":"in progress"}"#.into()),
            Some(Act::Says(status, body)) => (status, body.into()),
            Some(Act::Asks(status, seconds)) => {
                headers.insert(RETRY_AFTER, seconds.into());
                (status, "busy".into())
            }
            Some(Act::Spoilt(body)) => {
                self.spend(&operation);
                (200, body.into())
            }
            Some(Act::Lost) => {
                self.spend(&operation);
                return failed(Failure::Lost { why: "reset".into(), partial: None, retry_after: None });
            }
            Some(Act::Hangs) => {
                sleep_until(deadline.min(Instant::now() + REQUEST_TIMEOUT)).await;
                self.spend(&operation);
                return failed(Failure::TimedOut { sent: true });
            }
            Some(Act::Takes(ms)) => {
                let answer = self.answer(&operation);
                let came = Instant::now() + Duration::from_millis(ms);
                sleep_until(came.min(deadline)).await;
                if came > deadline {
                    return failed(Failure::TimedOut { sent: true });
                }
                answer
            }
            Some(Act::NoSeat) => return failed(spent),
            Some(Act::NoSeatInTime) => {
                sleep_until(seat_by).await;
                return failed(spent);
            }
        };
        Ok(Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body,
            region: RegionName::parse("default").unwrap(),
            costs: costs(),
        })
    }
}
