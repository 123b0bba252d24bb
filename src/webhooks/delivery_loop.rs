//! The [`DeliveryLoop`]: delivers by one configuration, until there is another or there is nothing to deliver any more.
//!
//! One loop: takes from the webhook's subscriptions what the [`Pace`] has a slot for, sends it, has what came of it
//! recorded. What waits for its time, or for its turn, waits in the subscription.
//!
//! Invariants: a slot is free only when what was done with it is on stable storage. On leaving, tries under way end
//! first (their time-out bounds that) and what came of them is recorded; what else was taken is given back, untried.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::condition::{Disabled, Fault, StoredCondition};
use super::endpoint::{AFTER_FAILURE, Command, Endpoint, LoopEnd, Switch, TryNow};
use super::message::{Message, most_entries};
use super::outcome::Outcome;
use super::pace::{Disposition, Pace, Rules, Verdict};
use super::parcel::{Parcel, Recorder};
use super::schedule::SPREAD;
use super::target::Target;
use crate::config::{Webhook, WebhookFrom};
use crate::events::{Ack, Delivery, DeliveryOrder, Filter, InHand, ReadError, ReadFrom, ReadRequest, StartAt};
use crate::kernel::clock::UnixMillis;
use crate::kernel::metrics::{WebhookLabels, WebhookOutcomeLabels};
use crate::kernel::names::{ClientName, Stream, SubscriptionName, WebhookName};
use crate::kernel::sync::lock;

pub(super) struct DeliveryLoop<'e> {
    endpoint: &'e mut Endpoint,
    target: Arc<Target>,
    condition: Arc<StoredCondition>,
    filter: Arc<Filter>,
    recorder: Recorder,
    pace: Pace,
    lanes: Vec<Lane>,
    /// The lane whose turn it is.
    turn: usize,
    under_way: usize,
    tries: FuturesUnordered<BoxFuture<'static, SlotEvent>>,
    reads: FuturesUnordered<BoxFuture<'static, (usize, Result<Delivery, ReadError>)>>,
    /// Markers that wait here, until they are to be looked at.
    rests: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Words to operators whose commands are being stored.
    answers: FuturesUnordered<BoxFuture<'static, ()>>,
    leaving: Option<LoopEnd>,
}

/// One of the webhook's streams.
struct Lane {
    stream: Stream,
    /// Whether a read is under way.
    is_read: bool,
    /// What was taken and waits for a slot: a parcel of entries, and a marker for its time.
    waiting: Vec<Parcel>,
}

/// What ended, in a slot of this lane.
enum SlotEvent {
    Sent { lane: usize, parcel: Parcel, outcome: Outcome, began: Instant },
    Unsent(Parcel),
    Recorded { lane: usize, waits: Option<Parcel> },
}

impl<'e> DeliveryLoop<'e> {
    /// Goes on from where the subscriptions are, and from the endpoint's condition.
    pub(super) fn new(endpoint: &'e mut Endpoint, target: Arc<Target>, condition: Arc<StoredCondition>) -> Self {
        let Webhook { name, streams, max_in_flight, max_attempts, retry, .. } = &target.config;
        let mut pace = Pace::new(Rules { max_in_flight: *max_in_flight, max_attempts: *max_attempts, retry: *retry });
        let clock = &endpoint.deps.clock;
        // An operator's word ends every wait, once.
        let longest = if std::mem::take(&mut endpoint.is_hurried) { Duration::ZERO } else { retry.max };
        let asked = condition.get().quiet_until;
        if asked > 0 {
            // However the clock was set meanwhile, it does not last longer than the longest wait. When it is over,
            // nothing was taken since.
            pace.keep_quiet(clock.now() + UnixMillis(asked).since(clock.wall_ms()).min(longest));
        }
        let patterns = &target.config.filter;
        let filter = Arc::new(Filter::new(&patterns.kinds, &patterns.user_ids, &patterns.group_ids));
        let place = SubscriptionName::from(name);
        for &stream in streams {
            let (keeps_units, longest) = (most_entries(target.config.format) > 1, longest.mul_f64(1.0 + SPREAD));
            endpoint.deps.events.reopen(&endpoint.app, stream, &place, keeps_units, longest);
        }
        let recorder = Recorder {
            deps: endpoint.deps.clone(),
            app: endpoint.app.clone(),
            place,
            labels: endpoint.labels(),
            condition: Arc::clone(&condition),
            leaving: CancellationToken::new(),
        };
        let lane = |&stream: &Stream| Lane { stream, is_read: false, waiting: Vec::new() };
        Self {
            pace,
            filter,
            recorder,
            lanes: streams.iter().map(lane).collect(),
            target,
            condition,
            endpoint,
            turn: 0,
            under_way: 0,
            tries: FuturesUnordered::new(),
            reads: FuturesUnordered::new(),
            rests: FuturesUnordered::new(),
            answers: FuturesUnordered::new(),
            leaving: None,
        }
    }

    /// Delivers until there is a reason not to, and says which.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> LoopEnd {
        loop {
            let now = self.endpoint.deps.clock.now();
            if self.leaving.is_none() {
                self.start(now);
                self.read(now);
            }
            self.show();
            if let Some(left) = self.leaving {
                self.recorder.leaving.cancel();
                self.reads.clear();
                self.lanes.iter_mut().for_each(|lane| lane.waiting.clear());
                if self.tries.is_empty() && self.answers.is_empty() {
                    if let Err(error) = self.condition.keep_all().await {
                        let (app, webhook) = (&self.endpoint.app, &self.endpoint.name);
                        tracing::warn!(%app, %webhook, %error, "when a webhook's last request was taken could not be stored");
                    }
                    return left;
                }
            }
            let is_open = self.leaving.is_none();
            let wake = self.wake(now).filter(|_| is_open);
            let nap = wake.unwrap_or(now);
            tokio::select! {
                // In this order: who is to stop takes on nothing more, and what has ended makes room before more is
                // taken.
                biased;
                () = stop.cancelled(), if is_open => self.leaving = Some(LoopEnd::Stopping),
                changed = self.endpoint.targets.changed(), if is_open => {
                    self.leaving = Some(if changed.is_ok() { LoopEnd::Changed } else { LoopEnd::Stopping });
                }
                command = self.endpoint.commands.recv(), if is_open => match command {
                    Some(command) => self.obey(command),
                    None => self.leaving = Some(LoopEnd::Stopping),
                },
                Some(()) = self.answers.next(), if !self.answers.is_empty() => {}
                Some(ended) = self.tries.next(), if !self.tries.is_empty() => self.ended(ended),
                Some(()) = self.rests.next(), if is_open && !self.rests.is_empty() => {}
                Some((lane, read)) = self.reads.next(), if !self.reads.is_empty() => self.take(lane, read),
                () = tokio::time::sleep_until(nap), if wake.is_some() => {}
            }
        }
    }

    /// When to look again though nothing happened.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let waiting = self.lanes.iter().flat_map(|lane| &lane.waiting).map(|parcel| parcel.due);
        let due = waiting.filter(|&due| due > now && self.pace.has_room()).min();
        due.into_iter().chain(self.pace.wake(now)).min()
    }

    fn is_in_order(&self) -> bool {
        self.target.config.max_in_flight == 1
    }

    /// Takes on in every stream, while there is a slot for what comes.
    fn read(&mut self, now: Instant) {
        if !self.pace.may_start(now) {
            return;
        }
        let is_in_order = self.is_in_order();
        let in_hand = in_hand(&self.target.config);
        for (n, lane) in self.lanes.iter_mut().enumerate() {
            // What is taken and not sent would hold up its keys. In order, so does a marker that waits.
            if lane.is_read || lane.waiting.iter().any(|parcel| is_in_order || !parcel.is_marker()) {
                continue;
            }
            lane.is_read = true;
            let config = &self.target.config;
            let from = match config.from {
                WebhookFrom::Earliest => StartAt::Earliest,
                WebhookFrom::Latest => StartAt::Latest,
            };
            let read = ReadRequest {
                place: ReadFrom::Subscription { name: self.recorder.place.clone(), from },
                client: account(&config.name),
                limit: most_entries(config.format),
                max_bytes: usize::MAX,
                wait: READ_WAIT,
                markers: true,
                filter: Arc::clone(&self.filter),
                ack: Ack::InHand(in_hand),
            };
            let (events, app, stream) = (self.endpoint.deps.events.clone(), self.endpoint.app.clone(), lane.stream);
            let reading = async move {
                let read = events.read(&app, stream, read).await;
                if read.is_err() {
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                (n, read)
            };
            self.reads.push(reading.boxed());
        }
    }

    /// Takes in what was read.
    fn take(&mut self, n: usize, read: Result<Delivery, ReadError>) {
        let (endpoint, lane) = (&*self.endpoint, &mut self.lanes[n]);
        lane.is_read = false;
        match read {
            Ok(delivery) => {
                let (store, now) = (endpoint.deps.events.epoch(), endpoint.deps.clock.now());
                let parcels = Parcel::all_of(delivery, self.target.config.format, store, now);
                self.rests.extend(parcels.iter().filter(|parcel| parcel.due > now).map(|marker| marker.rest().boxed()));
                lane.waiting.extend(parcels);
            }
            Err(error) => {
                let (app, webhook, stream) = (&endpoint.app, &endpoint.name, lane.stream);
                tracing::warn!(%app, %webhook, %stream, %error, "events could not be read for a webhook; trying again");
            }
        }
    }

    /// Sends what may be sent.
    fn start(&mut self, now: Instant) {
        self.lanes.iter_mut().for_each(|lane| lane.waiting.retain(|parcel| !parcel.is_void()));
        while self.pace.may_start(now) {
            let Some((lane, parcel)) = self.next(now) else { return };
            self.pace.started();
            if parcel.failures >= self.target.config.max_attempts {
                // It was about to be buried at the last stop.
                self.record(lane, parcel, Disposition::Bury, "given up when the gateway stopped".to_owned());
                continue;
            }
            let message =
                Message::new(self.target.config.format, &self.target.app, self.lanes[lane].stream, &parcel.entries);
            let target = Arc::clone(&self.target);
            let (recorder, clock) = (self.recorder.clone(), self.endpoint.deps.clock.clone());
            let (stream, unites) = (self.lanes[lane].stream, most_entries(self.target.config.format) > 1);
            let sending = async move {
                // Before its first byte: after a crash the same goes out again, under the id that its receiver may
                // know.
                if unites && !recorder.goes_out(stream, &parcel).await {
                    return SlotEvent::Unsent(parcel);
                }
                let began = clock.now();
                SlotEvent::Sent { lane, outcome: target.send(&message).await, parcel, began }
            };
            self.under_way += 1;
            self.tries.push(sending.boxed());
        }
    }

    /// What is to be sent next: each stream has its turn.
    fn next(&mut self, now: Instant) -> Option<(usize, Parcel)> {
        let (count, is_in_order) = (self.lanes.len(), self.is_in_order());
        for n in (0..count).map(|n| (self.turn + n) % count) {
            let waiting = &mut self.lanes[n].waiting;
            let due = |parcel: &Parcel| parcel.due <= now;
            let at =
                if is_in_order { waiting.first().is_some_and(due).then_some(0) } else { waiting.iter().position(due) };
            if let Some(at) = at {
                self.turn = n + 1;
                return Some((n, self.lanes[n].waiting.remove(at)));
            }
        }
        None
    }

    /// Has what follows for a parcel recorded, and why.
    fn record(&mut self, lane: usize, parcel: Parcel, next: Disposition, why: String) {
        let (recorder, stream) = (self.recorder.clone(), self.lanes[lane].stream);
        let recording =
            async move { SlotEvent::Recorded { lane, waits: recorder.record(stream, parcel, next, why).await } };
        self.tries.push(recording.boxed());
    }

    /// Takes note of what came of a try, or that it is on record.
    fn ended(&mut self, ended: SlotEvent) {
        let now = self.endpoint.deps.clock.now();
        let (lane, mut parcel, outcome, began) = match ended {
            SlotEvent::Sent { lane, parcel, outcome, began } => (lane, parcel, outcome, began),
            SlotEvent::Recorded { lane, waits } => {
                self.pace.ended();
                if let Some(marker) = waits {
                    self.rests.push(marker.rest().boxed());
                    self.lanes[lane].waiting.insert(0, marker);
                }
                return;
            }
            SlotEvent::Unsent(parcel) => {
                self.under_way -= 1;
                self.pace.ended();
                return drop(parcel);
            }
        };
        self.under_way -= 1;
        self.count(&outcome, now.saturating_duration_since(began));
        let verdict = match &outcome {
            Outcome::Delivered => Verdict::Delivered,
            Outcome::Gone => Verdict::NotCounted,
            Outcome::SlowDown { after, .. } => Verdict::SlowDown(*after),
            Outcome::Redirected(_)
            | Outcome::Refused(_)
            | Outcome::Slow(_)
            | Outcome::Unreachable(_)
            | Outcome::Forbidden(_) => Verdict::Failed,
        };
        // Before the pace hears of it: what is stored of the condition is what this try has changed.
        let (before, attempts) = ((self.pace.is_careful(), self.pace.quiet_until()), parcel.failures.saturating_add(1));
        let next = self.pace.finished(verdict, attempts, now, rand::rng().random_range(-1.0..=1.0));
        self.note_condition(&outcome, attempts, before, now);
        let (app, webhook) = (&self.endpoint.app, &self.endpoint.name);
        match (&outcome, next) {
            (Outcome::Delivered, _) => {
                let events = parcel.entries.len() as u64;
                self.endpoint.deps.metrics.webhook_delivered.get_or_create(&self.labels()).inc_by(events);
            }
            (Outcome::Gone, _) => {
                tracing::error!(%app, %webhook, "the endpoint answered 410; the webhook is disabled until it is enabled");
                self.disable("gone");
            }
            (why, Disposition::Bury) => {
                tracing::error!(%app, %webhook, %why, attempts, "an event goes to the webhook's dead letters");
                parcel.failures = attempts;
            }
            (why, _) => tracing::warn!(%app, %webhook, %why, attempts, "a webhook's try failed"),
        }
        self.record(lane, parcel, next, outcome.to_string());
    }

    fn count(&self, outcome: &Outcome, took: Duration) {
        let metrics = &self.endpoint.deps.metrics;
        let WebhookLabels { app, webhook } = self.labels();
        let labels = WebhookOutcomeLabels { app, webhook, outcome: outcome.label().to_owned() };
        metrics.webhook_attempts.get_or_create(&labels).inc();
        metrics.webhook_attempt.get_or_create(&self.labels()).observe(took.as_secs_f64());
    }

    /// What a restart must know of a try's outcome. Before, it was careful or not, and quiet until then.
    fn note_condition(
        &self,
        outcome: &Outcome,
        attempt: u32,
        (was_careful, quiet_before): (bool, Option<Instant>),
        now: Instant,
    ) {
        let wall = self.endpoint.deps.clock.wall_ms();
        if *outcome == Outcome::Delivered {
            return self.condition.succeeded(wall, was_careful && !self.pace.is_careful());
        }
        let quiet = self.pace.quiet_until().filter(|&until| Some(until) != quiet_before);
        self.condition.change(|condition| {
            condition.fault = Some(Fault::new(wall, outcome, attempt));
            condition.consecutive_failures = condition.consecutive_failures.saturating_add(1);
            if let Some(until) = quiet {
                condition.quiet_until = wall.after(until.saturating_duration_since(now)).0;
            }
        });
    }

    /// Sends nothing more.
    fn disable(&mut self, why: &str) {
        let disabled = Disabled::new(self.endpoint.deps.clock.wall_ms(), why);
        self.condition.change(|condition| {
            condition.disabled.get_or_insert(disabled);
        });
        self.endpoint.is_disabled(&self.condition);
        self.leaving = Some(LoopEnd::Changed);
    }

    fn obey(&mut self, command: Command) {
        let (switch, done) = match command {
            Command::Switch(switch, done) => (switch, done),
            Command::Try(told) => {
                // Who asked may have gone.
                let _ = told.send(self.try_now());
                return;
            }
        };
        match switch {
            Switch::Enable => {}
            Switch::Disable => {
                tracing::info!(app = %self.endpoint.app, webhook = %self.endpoint.name, "a webhook was disabled");
                self.disable("operator");
            }
        }
        let condition = Arc::clone(&self.condition);
        let answering = async move {
            // Who asked may have gone.
            let _ = done.send(condition.keep().await);
        };
        self.answers.push(answering.boxed());
    }

    /// Ends the waits of all that waits for its time, by beginning anew as at a change of the configuration: what is
    /// under way ends first, and nothing counts for a try that was none.
    fn try_now(&mut self) -> TryNow {
        let in_flight = self.under_way;
        let now = self.endpoint.deps.clock.now();
        let is_later = |due: Option<Instant>| due.is_some_and(|due| due > now);
        // What has failed just now is still on its way to where it waits.
        let is_recorded = self.tries.len() > in_flight && self.condition.get().consecutive_failures > 0;
        let waits = is_recorded
            || is_later(self.pace.quiet_until())
            || self.lanes.iter().any(|lane| {
                let next = self.endpoint.deps.events.tries(&self.endpoint.app, lane.stream, &self.recorder.place).next;
                is_later(next) || lane.waiting.iter().any(|parcel| parcel.due > now)
            });
        if waits {
            self.endpoint.is_hurried = true;
            self.leaving = Some(LoopEnd::Changed);
            return TryNow::Trying { in_flight };
        }
        match in_flight {
            // It has just begun, or begun anew: what is there goes out as soon as it is read.
            0 if self.has_something() => TryNow::Trying { in_flight },
            0 => TryNow::NothingWaits,
            _ => TryNow::UnderWay { in_flight },
        }
    }

    /// Whether there is anything that was not delivered, nor given up.
    fn has_something(&self) -> bool {
        self.lanes.iter().any(|lane| {
            let tries = self.endpoint.deps.events.tries(&self.endpoint.app, lane.stream, &self.recorder.place);
            tries.open > 0 || tries.lag > 0 || !lane.waiting.is_empty()
        })
    }

    fn show(&self) {
        let metrics = &self.endpoint.deps.metrics;
        let in_flight = i64::try_from(self.under_way).unwrap_or(i64::MAX);
        metrics.webhook_in_flight.get_or_create(&self.labels()).set(in_flight);
        let mut status = lock(&self.endpoint.status);
        status.in_flight = self.under_way;
        status.slowed = self.pace.is_careful();
        status.has_room = self.under_way < self.pace.most();
        status.quiet_until = self.pace.quiet_until();
    }

    fn labels(&self) -> WebhookLabels {
        self.endpoint.labels()
    }
}

/// How a webhook takes its events.
fn in_hand(config: &Webhook) -> InHand {
    let (most, many) = (most_entries(config.format), config.max_in_flight);
    // More than can be sent: keys whose first event waits must not keep others from having their turn.
    let units = match (most, many) {
        // Nothing is looked for beyond what is stuck.
        (1, 1) => 64,
        (_, 1) => 2,
        (1, _) => 256.max(many * 4),
        (..) => 16.max(many * 2),
    };
    let turns = if many == 1 { DeliveryOrder::All } else { DeliveryOrder::EachKey };
    InHand { turns, unites: most > 1, most_open: units * most }
}

/// Each endpoint reads on its own account.
fn account(name: &WebhookName) -> ClientName {
    ClientName::parse(&format!("webhook.{name}")).expect("a webhook's name is short, and of characters of a client's")
}

/// How long one read waits; then it is asked again.
const READ_WAIT: Duration = Duration::from_secs(600);
