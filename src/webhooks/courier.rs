//! The [`Courier`]: delivers by one configuration, until there is another or there is nothing to deliver any more.
//!
//! One loop: reads what the [`Engine`] has room for, sends what it lets start, tells it what came of it, writes the records.
//!
//! Invariants: a slot is free only when what was done with it is on record. On leaving, tries under way end first (their
//! time-out bounds that) and what came of them is recorded; what was taken in and is not done is given back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::condition::{Disabled, Fault};
use super::endpoint::{AFTER_FAILURE, Command, Endpoint, Left, Wish};
use super::engine::{Engine, Next, Rules, Verdict, Which};
use super::entry::Entry;
use super::intake::{Intake, Load};
use super::lane::{Lane, account, place};
use super::message::{Message, most_entries};
use super::outcome::Outcome;
use super::record::Record;
use super::standing::Standing;
use super::target::Target;
use crate::clock::UnixMillis;
use crate::config::WebhookFrom;
use crate::events::{Ack, Delivery, Filter, From, GivenUp, Read, ReadError};
use crate::metrics::{WebhookLabels, WebhookOutcomeLabels};
use crate::names::{Stream, SubscriptionName};
use crate::store::{Error, NoteKind};

/// See the module.
pub(super) struct Courier<'e> {
    endpoint: &'e mut Endpoint,
    target: Arc<Target>,
    filter: Arc<Filter>,
    engine: Engine<Load>,
    lanes: Vec<Lane>,
    tries: FuturesUnordered<BoxFuture<'static, Tried>>,
    reads: FuturesUnordered<BoxFuture<'static, (usize, Result<Delivery, ReadError>)>>,
    saving: OptionFuture<BoxFuture<'static, Saved>>,
    /// After a failure of the store, nothing is saved before.
    save_from: Instant,
    /// Whether the endpoint's condition is not on record.
    has_new_condition: bool,
    /// Who waits for what is not on record yet.
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    leaving: Option<Left>,
}

/// What ended.
enum Tried {
    Sent { which: Which, outcome: Outcome, began: Instant },
    Buried { which: Which, events: u64, result: Result<(), ReadError> },
}

struct Saved {
    records: Vec<(usize, Record)>,
    /// Whether the condition was to be written.
    condition: bool,
    done: Vec<Which>,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    result: Result<(), Error>,
}

impl<'e> Courier<'e> {
    /// Goes on from the endpoint's records.
    pub(super) fn new(endpoint: &'e mut Endpoint, target: Arc<Target>) -> Self {
        let config = &target.config;
        let most = most_entries(config.format);
        let lane = |&stream: &Stream| Lane::new(stream, Intake::new(endpoint.record_of(stream), most));
        let lanes: Vec<Lane> = config.streams.iter().map(lane).collect();
        let rules =
            Rules { max_in_flight: config.max_in_flight, max_attempts: config.max_attempts, retry: config.retry };
        let patterns = &config.filter;
        let filter = Arc::new(Filter::new(&patterns.kinds, &patterns.user_ids, &patterns.group_ids));
        let save_from = endpoint.means.clock.now();
        let mut engine = Engine::new(rules, lanes.len());
        let asked = endpoint.condition.as_ref().map_or(0, |condition| condition.quiet_until);
        // However the clock was set meanwhile, it does not last longer than the longest wait.
        let quiet = UnixMillis(asked).since(endpoint.means.clock.wall_ms()).min(config.retry.max);
        if !quiet.is_zero() {
            engine.keep_quiet(save_from + quiet);
        }
        Self {
            engine,
            filter,
            lanes,
            target,
            endpoint,
            tries: FuturesUnordered::new(),
            reads: FuturesUnordered::new(),
            saving: None.into(),
            save_from,
            has_new_condition: false,
            waiting: Vec::new(),
            leaving: None,
        }
    }

    /// Delivers.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Left {
        let mut is_saving = false;
        loop {
            let now = self.endpoint.means.clock.now();
            match self.leaving {
                None => {
                    Stream::ALL.into_iter().for_each(|stream| self.move_if_sought(stream));
                    self.read();
                    self.start(now);
                }
                Some(left) => {
                    self.reads.clear();
                    let stuck = self.tries.is_empty() && now < self.save_from;
                    let is_at_rest = self.engine.is_at_rest() && !self.has_new_condition;
                    if !is_saving && (stuck || (self.tries.is_empty() && is_at_rest)) {
                        return left;
                    }
                }
            }
            if !is_saving && now >= self.save_from && self.has_changed() {
                (self.saving, is_saving) = (Some(self.save(now)).into(), true);
            }
            self.show(now);
            let is_open = self.leaving.is_none();
            let wake = self.wake(is_open, is_saving);
            let nap = wake.unwrap_or(now);
            tokio::select! {
                biased;
                () = stop.cancelled(), if is_open => self.leaving = Some(Left::Stopping),
                changed = self.endpoint.targets.changed(), if is_open => {
                    self.leaving = Some(if changed.is_ok() { Left::Changed } else { Left::Stopping });
                }
                command = self.endpoint.commands.recv(), if is_open => match command {
                    Some(command) => self.obey(command),
                    None => self.leaving = Some(Left::Stopping),
                },
                Some(saved) = &mut self.saving, if is_saving => {
                    (self.saving, is_saving) = (None.into(), false);
                    self.saved(saved);
                }
                Some(tried) = self.tries.next(), if !self.tries.is_empty() => self.tried(tried),
                Some((lane, read)) = self.reads.next(), if !self.reads.is_empty() => self.take(lane, read),
                () = tokio::time::sleep_until(nap), if wake.is_some() => {}
            }
        }
    }

    /// When to look again though nothing happened.
    fn wake(&self, is_open: bool, is_saving: bool) -> Option<Instant> {
        let start = self.engine.wake().filter(|_| is_open);
        let save = (!is_saving && self.has_changed()).then_some(self.save_from);
        start.into_iter().chain(save).min()
    }

    fn has_changed(&self) -> bool {
        self.has_new_condition
            || !self.waiting.is_empty()
            || (0..self.lanes.len()).any(|lane| self.engine.has_changed(lane))
    }

    /// Reads on in every stream that has room.
    fn read(&mut self) {
        let config = &self.target.config;
        let most = most_entries(config.format);
        // Others are looked for beyond those that wait for their turn again.
        let room = match (most, config.max_in_flight) {
            (1, 1) => 64,
            (1, many) => 256.max(many * 4),
            (_, many) => 16.max(many * 2),
        };
        for (n, lane) in self.lanes.iter_mut().enumerate() {
            let free = room.saturating_sub(self.engine.held(n));
            if lane.is_closed || lane.is_read || free == 0 {
                continue;
            }
            lane.is_read = true;
            let from = match config.from {
                WebhookFrom::Earliest => From::Earliest,
                WebhookFrom::Latest => From::Latest,
            };
            let read = Read {
                place: place(&config.name, from),
                client: account(&config.name),
                limit: if most == 1 { free.min(64) } else { most },
                wait: if lane.intake.is_behind() { Duration::ZERO } else { READ_WAIT },
                markers: true,
                filter: Arc::clone(&self.filter),
                ack: Ack::OnHandover,
            };
            let (events, app, stream) = (self.endpoint.means.events.clone(), self.endpoint.app.clone(), lane.stream);
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
        let delivery = match read {
            Ok(delivery) => delivery,
            Err(error) => {
                let (app, webhook, stream) = (&endpoint.app, &endpoint.name, lane.stream);
                tracing::warn!(%app, %webhook, %stream, %error, "events could not be read for a webhook; trying again");
                return;
            }
        };
        if lane.is_closed || delivery.receipt.place().is_some_and(|place| place != lane.intake.place()) {
            // It was taken at another place than this lane's: of an older one it is given back to nowhere; of a newer one
            // the next lane reads it.
            return;
        }
        let (now, wall) = (endpoint.means.clock.now(), endpoint.means.clock.wall_ms());
        let entries = Entry::all_of(&delivery.runs, delivery.next.epoch, self.endpoint.means.events.epoch());
        if entries.is_empty() {
            // Nothing was waited for while behind: there is nothing more.
            lane.intake.caught_up();
        }
        let is_leaving = |entry: &Entry| self.engine.is_leaving(Which { lane: n, first: entry.number() });
        if delivery.receipt.is_out_of_order() && entries.iter().any(is_leaving) {
            // Put back before it had left: what settles the old unit must not settle it.
            lane.is_read = true;
            let later = async move {
                tokio::time::sleep(UNTIL_IT_HAS_LEFT).await;
                (n, Ok(delivery))
            };
            self.reads.push(later.boxed());
            return;
        }
        let groups = match delivery.receipt.is_out_of_order() {
            true => lane.intake.take_put_back(entries, delivery.receipt),
            false => lane.intake.take(entries, delivery.next.at.0, delivery.receipt),
        };
        for group in groups {
            let entries = &group.load.entries;
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { continue };
            let (which, last) = (Which { lane: n, first: first.number() }, last.number());
            let mut keys: Vec<u64> = entries.iter().map(|entry| entry.key(lane.stream)).collect();
            keys.sort_unstable();
            keys.dedup();
            let tried = group.held.map_or((0, now), |held| {
                // However the clock was set meanwhile, nothing waits longer than the longest wait.
                let wait = UnixMillis(held.due).since(wall).min(self.target.config.retry.max);
                (held.attempts, now + wait)
            });
            match self.engine.load_mut(which) {
                // Put back (by a seek) while it is still here: it is tried once.
                Some(load) => load.reads.extend(group.load.reads),
                None => self.engine.add(which, last, keys, tried, group.load),
            }
        }
    }

    /// Sends what may be sent.
    fn start(&mut self, now: Instant) {
        while let Some(which) = self.engine.start(now) {
            let Some(unit) = self.engine.unit(which) else { continue };
            if unit.attempts >= self.target.config.max_attempts {
                // It was about to be buried at the last stop.
                self.engine.bury(which);
                self.bury(which, "given up when the gateway stopped");
                continue;
            }
            let stream = self.lanes[which.lane].stream;
            let message = Message::new(self.target.config.format, &self.target.app, stream, &unit.load.entries);
            let target = Arc::clone(&self.target);
            let sending = async move { Tried::Sent { which, outcome: target.send(&message).await, began: now } };
            self.tries.push(sending.boxed());
        }
    }

    /// Takes note of what came of a try.
    fn tried(&mut self, tried: Tried) {
        let now = self.endpoint.means.clock.now();
        let (which, outcome, began) = match tried {
            Tried::Sent { which, outcome, began } => (which, outcome, began),
            Tried::Buried { which, events, result: Ok(()) } => {
                self.endpoint.means.metrics.webhook_dead_letters.get_or_create(&self.labels()).inc_by(events);
                return self.engine.buried(which);
            }
            Tried::Buried { which, result: Err(error), .. } => {
                let (app, webhook) = (&self.endpoint.app, &self.endpoint.name);
                tracing::warn!(%app, %webhook, %error, "an event could not be put among the dead letters; trying again");
                return self.engine.not_buried(which, now + AFTER_FAILURE);
            }
        };
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
        let quiet_before = self.engine.quiet_until();
        let next = self.engine.finished(which, verdict, now, rand::rng().random_range(-1.0..=1.0));
        self.note_condition(&outcome, quiet_before, now);
        let attempts = self.engine.unit(which).map_or(0, |unit| unit.attempts);
        let (app, webhook) = (self.endpoint.app.clone(), self.endpoint.name.clone());
        match (outcome, next) {
            (Outcome::Delivered, _) => {
                let events = self.engine.unit(which).map_or(0, |unit| unit.load.entries.len() as u64);
                self.endpoint.means.metrics.webhook_delivered.get_or_create(&self.labels()).inc_by(events);
            }
            (Outcome::Gone, _) => {
                tracing::error!(%app, %webhook, "the endpoint answered 410; the webhook is disabled until it is enabled");
                self.disable("gone");
            }
            (why, Next::Bury) => {
                tracing::error!(%app, %webhook, %why, attempts, "an event goes to the webhook's dead letters");
                self.bury(which, &why.to_string());
            }
            (why, _) => tracing::warn!(%app, %webhook, %why, attempts, "a webhook's try failed"),
        }
    }

    /// Puts a unit among the dead letters.
    fn bury(&mut self, which: Which, why: &str) {
        let Some(unit) = self.engine.unit(which) else { return };
        let give_up = |entry: &Entry| GivenUp { cursor: entry.cursor, attempts: unit.attempts, reason: why.to_owned() };
        let given_up: Vec<GivenUp> = unit.load.entries.iter().map(give_up).collect();
        let (events, app, stream) =
            (self.endpoint.means.events.clone(), self.endpoint.app.clone(), self.lanes[which.lane].stream);
        let name = SubscriptionName::from(&self.endpoint.name);
        let burying = async move {
            let result = events.bury(&app, stream, &name, &given_up).await;
            Tried::Buried { which, events: given_up.len() as u64, result }
        };
        self.tries.push(burying.boxed());
    }

    fn count(&self, outcome: &Outcome, took: Duration) {
        let (metrics, clock) = (&self.endpoint.means.metrics, &self.endpoint.means.clock);
        let WebhookLabels { app, webhook } = self.labels();
        let labels = WebhookOutcomeLabels { app, webhook, outcome: outcome.label().to_owned() };
        metrics.webhook_attempts.get_or_create(&labels).inc();
        metrics.webhook_attempt.get_or_create(&self.labels()).observe(took.as_secs_f64());
        let mut standing = Standing::lock(&self.endpoint.standing);
        let at = clock.wall_ms();
        standing.last_try = Some(at);
        match outcome {
            Outcome::Delivered => standing.last_delivery = Some(at),
            why => standing.last_fault = Some((at, why.to_string())),
        }
    }

    /// What a restart must know of a try's outcome.
    fn note_condition(&mut self, outcome: &Outcome, quiet_before: Option<Instant>, now: Instant) {
        let wall = self.endpoint.means.clock.wall_ms();
        let condition = self.endpoint.condition.get_or_insert_default();
        if *outcome != Outcome::Delivered {
            condition.fault = Some(Fault { at: wall.0, why: outcome.to_string() });
            self.has_new_condition = true;
        }
        if let Some(until) = self.engine.quiet_until().filter(|&until| Some(until) != quiet_before) {
            condition.quiet_until = wall.after(until.saturating_duration_since(now)).0;
            self.has_new_condition = true;
        }
    }

    /// Sends nothing more.
    fn disable(&mut self, why: &str) {
        let disabled = Disabled::new(self.endpoint.means.clock.wall_ms(), why);
        self.endpoint.condition.get_or_insert_default().disabled.get_or_insert(disabled);
        self.has_new_condition = true;
        self.leaving = Some(Left::Changed);
    }

    /// Begins anew in a stream whose place is another now. What is under way ends, and what comes of it says nothing.
    fn move_if_sought(&mut self, stream: Stream) {
        let Some(n) = self.lane_of(stream) else { return };
        let place = SubscriptionName::from(&self.endpoint.name);
        // Where there is none, one that was there is gone.
        let place = self.endpoint.means.events.place_id(&self.endpoint.app, stream, &place).unwrap_or_default();
        if place == self.lanes[n].intake.place() {
            return;
        }
        // What they take would compete with the new lane's; of one that is dropped nothing is taken.
        self.reads.clear();
        self.lanes.iter_mut().for_each(|lane| lane.is_read = false);
        self.lanes[n].is_closed = true;
        self.engine.close_lane(n);
        let intake = Intake::new(Record::default().at(Some(place)), most_entries(self.target.config.format));
        self.lanes.push(Lane::new(stream, intake));
        let opened = self.engine.open_lane();
        self.engine.not_recorded(opened);
    }

    /// The lane in which a stream is read.
    fn lane_of(&self, stream: Stream) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.stream == stream && !lane.is_closed)
    }

    fn obey(&mut self, Command { wish, done }: Command) {
        match wish {
            Wish::Enable => {}
            Wish::Disable => {
                tracing::info!(app = %self.endpoint.app, webhook = %self.endpoint.name, "a webhook was disabled");
                self.disable("operator");
            }
            // Each step looks for that; this one follows at once.
            Wish::Moved => {}
        }
        self.waiting.push(done);
    }

    /// Writes the records of what has changed.
    fn save(&mut self, now: Instant) -> BoxFuture<'static, Saved> {
        let wall = self.endpoint.means.clock.wall_ms();
        let (mut records, mut notes, mut all_done) = (Vec::new(), Vec::new(), Vec::new());
        for n in (0..self.lanes.len()).filter(|n| self.engine.has_changed(*n)).collect::<Vec<_>>() {
            let (mut held, done) = self.engine.snapshot(n, (now, wall));
            let Lane { stream, intake, .. } = &self.lanes[n];
            held.extend(intake.awaited());
            held.sort_unstable_by_key(|held| held.first);
            let record = Record { place: intake.place(), claimed: intake.claimed(), held, disabled: None };
            notes.push((self.endpoint.log(*stream), vec![(self.endpoint.name.to_string(), Some(record.to_note()))]));
            records.push((n, record));
            all_done.extend(done);
        }
        let (store, waiting) = (Arc::clone(&self.endpoint.means.store), std::mem::take(&mut self.waiting));
        let is_new = std::mem::take(&mut self.has_new_condition);
        let condition = self.endpoint.condition.clone().filter(|_| is_new);
        let (app, name) = (self.endpoint.app.clone(), self.endpoint.name.clone());
        let saving = async move {
            let mut result = match &condition {
                Some(condition) => condition.keep(&*store, &app, &name).await,
                None => Ok(()),
            };
            for (log, notes) in notes {
                result = result.and(store.keep_notes(&log, NoteKind::Webhook, notes).await);
            }
            Saved { records, condition: is_new, done: all_done, waiting, result }
        };
        saving.boxed()
    }

    fn saved(&mut self, Saved { records, condition, done, waiting, result }: Saved) {
        match &result {
            Ok(()) => {
                for (n, record) in records.into_iter().filter(|(n, _)| !self.lanes[*n].is_closed) {
                    self.endpoint.records.insert(self.lanes[n].stream, record);
                }
                self.engine.recorded(&done).into_iter().for_each(Load::settle);
            }
            Err(error) => {
                let (app, webhook) = (&self.endpoint.app, &self.endpoint.name);
                tracing::warn!(%app, %webhook, %error, "a webhook's record could not be stored; trying again");
                records.iter().for_each(|(n, _)| self.engine.not_recorded(*n));
                self.has_new_condition |= condition;
                self.save_from = self.endpoint.means.clock.now() + AFTER_FAILURE;
            }
        }
        for done in waiting {
            // Who asked may have gone.
            let _ = done.send(result.clone());
        }
    }

    fn show(&self, now: Instant) {
        let in_flight = self.engine.under_way();
        let metrics = &self.endpoint.means.metrics;
        metrics.webhook_in_flight.get_or_create(&self.labels()).set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let wall = self.endpoint.means.clock.wall();
        let mut standing = Standing::lock(&self.endpoint.standing);
        standing.in_flight = in_flight;
        standing.held = (0..self.lanes.len()).map(|lane| self.engine.held(lane)).sum();
        standing.slowed = self.engine.is_careful();
        standing.failures = self.engine.most_attempts();
        standing.next_try = self.engine.next_try(now).map(|at| (wall + at.saturating_duration_since(now)).into());
    }

    fn labels(&self) -> WebhookLabels {
        self.endpoint.labels()
    }
}

/// How long what was put back waits for the unit that it was in to leave, before it is looked at again.
const UNTIL_IT_HAS_LEFT: Duration = Duration::from_millis(20);

/// How long one read waits; then it is asked again.
const READ_WAIT: Duration = Duration::from_secs(600);
