//! What all regions of the simulated vendor share: apps with their limits and messages, and what callers did wrong.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::app::{App, Rules};
use super::auth::Credential;
use super::handles::Handles;
use super::limits::{CountedRequest, Counters, Limits};
use super::messages::{Message, Messages};
use super::region::Region;
use super::violation::Violation;
use super::{Endpoint, lock};
use crate::kernel::clock::Clock;
use crate::kernel::names::BucketName;

/// How much is remembered, and how regions hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many of the last requests each region remembers; zero turns it off (for benches).
    pub seen: usize,
    /// How many event texts each list of a ledger holds; zero keeps numbers only (for benches).
    pub ledger: usize,
    /// An event that occurs in one region can be read in all.
    pub replicate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { seen: 4096, ledger: 1_000_000, replicate: false }
    }
}

/// The shared part of the simulated vendor. Cheap to clone.
#[derive(Clone)]
pub struct World(Arc<WorldState>);

struct WorldState {
    clock: Clock,
    options: Options,
    accounts: Mutex<HashMap<String, Arc<Account>>>,
    /// Weak: a region holds its world.
    regions: Mutex<Vec<Weak<Region>>>,
    violations: Mutex<Violations>,
    hook: Mutex<Option<Hook>>,
    serial: AtomicU64,
}

type Hook = Box<dyn FnMut(&World, Endpoint) + Send>;

/// The first of them, and how many there were.
#[derive(Default)]
struct Violations {
    first: Vec<Violation>,
    total: u64,
}

/// How many violations are kept.
const KEPT: usize = 10_000;

impl World {
    /// A world without apps.
    #[must_use]
    pub fn new(clock: Clock, options: Options) -> Self {
        Self(Arc::new(WorldState {
            clock,
            options,
            accounts: Mutex::default(),
            regions: Mutex::default(),
            violations: Mutex::default(),
            hook: Mutex::default(),
            serial: AtomicU64::new(0),
        }))
    }

    /// Adds an app. Of two with one id, the last holds.
    pub fn add(&self, app: App) {
        let account = Arc::new(Account::new(&app));
        lock(&self.0.accounts).insert(app.id, account);
    }

    /// Replaces an app's credentials, as when a secret is rotated at the vendor.
    pub fn set_credentials(&self, app: &str, credentials: Vec<Credential>) {
        self.change(app, |settings| settings.credentials = credentials);
    }

    /// Changes an app's manners.
    pub fn set_rules(&self, app: &str, change: impl FnOnce(&mut Rules)) {
        self.change(app, |settings| change(&mut settings.rules));
    }

    /// Changes an app's limits.
    pub fn set_limits(&self, app: &str, limits: Limits) {
        if let Some(account) = self.account(app) {
            lock(&account.counters).relimit(limits);
        }
    }

    /// Somebody else spends the same App ID: so many requests now. Callers may be refused for it; it is no violation.
    pub fn spend(&self, app: &str, bucket: BucketName, requests: usize) {
        if let Some(account) = self.account(app) {
            lock(&account.counters).spend(bucket, requests, self.0.clock.now());
        }
    }

    /// Adds a message to the history. One without a time gets the present.
    pub fn add_message(&self, app: &str, message: Message) {
        if let Some(account) = self.account(app) {
            let message = if message.ms == 0 { message.at(self.0.clock.wall_ms().0) } else { message };
            lock(&account.messages).add(message);
        }
    }

    /// Puts messages into the history of an app, as if they had been sent.
    pub fn add_messages(&self, app: &str, messages: impl IntoIterator<Item = Message>) {
        messages.into_iter().for_each(|message| self.add_message(app, message));
    }

    /// Removes messages, as when they expire.
    pub fn remove_messages(&self, app: &str, unwanted: impl Fn(&Message) -> bool) {
        if let Some(account) = self.account(app) {
            lock(&account.messages).remove(unwanted);
        }
    }

    /// Makes a user a member of a channel: it receives the channel's messages.
    pub fn join(&self, app: &str, channel: &str, user: &str) {
        if let Some(account) = self.account(app) {
            lock(&account.messages).join(channel, user);
        }
    }

    /// Ends a membership.
    pub fn leave(&self, app: &str, channel: &str, user: &str) {
        if let Some(account) = self.account(app) {
            lock(&account.messages).leave(channel, user);
        }
    }

    /// Calls this before each request is counted: to let messages arrive or expire between two calls, say.
    pub fn before_each(&self, hook: impl FnMut(&Self, Endpoint) + Send + 'static) {
        *lock(&self.0.hook) = Some(Box::new(hook));
    }

    /// What callers did wrong, oldest first (the first 10000).
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.0.violations).first.clone()
    }

    /// The violations that are breaches of a limit.
    #[must_use]
    pub fn breaches(&self) -> Vec<Violation> {
        self.violations().into_iter().filter(|v| v.kind.is_over_limit()).collect()
    }

    /// The violations so far, which are then forgotten.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut *lock(&self.0.violations)).first
    }

    /// The world's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) fn options(&self) -> Options {
        self.0.options
    }

    pub(super) fn account(&self, app: &str) -> Option<Arc<Account>> {
        lock(&self.0.accounts).get(app).cloned()
    }

    pub(super) fn run_hook(&self, endpoint: Endpoint) {
        if let Some(hook) = lock(&self.0.hook).as_mut() {
            hook(self, endpoint);
        }
    }

    pub(super) fn violate(&self, violation: Violation) {
        let mut violations = lock(&self.0.violations);
        violations.total += 1;
        if violations.first.len() < KEPT {
            violations.first.push(violation);
        }
    }

    pub(super) fn violations_total(&self) -> u64 {
        lock(&self.0.violations).total
    }

    pub(super) fn serial(&self) -> u64 {
        self.0.serial.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn join_region(&self, region: &Arc<Region>) {
        lock(&self.0.regions).push(Arc::downgrade(region));
    }

    pub(super) fn regions(&self) -> Vec<Arc<Region>> {
        lock(&self.0.regions).iter().filter_map(Weak::upgrade).collect()
    }

    fn change(&self, app: &str, change: impl FnOnce(&mut Settings)) {
        if let Some(account) = self.account(app) {
            change(Arc::make_mut(&mut lock(&account.settings)));
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// An app's state.
pub(super) struct Account {
    settings: Mutex<Arc<Settings>>,
    counters: Mutex<Counters>,
    pub(super) messages: Mutex<Messages>,
    pub(super) handles: Mutex<Handles>,
}

/// What of an app can change while it runs.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) credentials: Vec<Credential>,
    pub(super) rules: Rules,
}

impl Account {
    fn new(app: &App) -> Self {
        Self {
            settings: Mutex::new(Arc::new(Settings { credentials: app.credentials.clone(), rules: app.rules.clone() })),
            counters: Mutex::new(Counters::new(app.limits)),
            messages: Mutex::default(),
            handles: Mutex::default(),
        }
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        lock(&self.settings).clone()
    }

    /// Counts a request now.
    pub(super) fn count(&self, bucket: BucketName, clock: &Clock) -> CountedRequest {
        let mut counters = lock(&self.counters);
        // Read inside the lock: instants of one window never run backwards.
        counters.count(bucket, clock.now())
    }
}
