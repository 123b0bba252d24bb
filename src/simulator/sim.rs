//! The handle on one listening region: starts and stops it, scripts it, and says what it saw.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::DuplexStream;

use super::Endpoint;
use super::app::App;
use super::fault::Fault;
use super::listener::{Listen, Listener};
use super::lock;
use super::messages::Message;
use super::queue::{EventsRead, Ledger};
use super::region::{AcceptFault, Idle, Region};
use super::script::Profile;
use super::seen::SeenRequest;
use super::stats::Stats;
use super::violation::Violation;
use super::world::{Options, World};
use crate::kernel::clock::Clock;
use crate::kernel::names::Stream;

/// How long [`Sim::wait_until`] waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listening region of the simulated vendor. Cheap to clone.
#[derive(Clone)]
pub struct Sim {
    region: Arc<Region>,
    listener: Arc<Listener>,
}

/// What was waited for did not come about. Shows what did.
#[derive(Clone, Debug, thiserror::Error)]
#[error("waited in vain; the simulator saw {0:?}")]
pub struct WaitTimeout(pub Box<Stats>);

impl Sim {
    /// A world with one app and one region, on a free port of 127.0.0.1, on the system's clock.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn start(app: App) -> io::Result<Self> {
        let world = World::new(Clock::system(), Options::default());
        world.add(app);
        Self::listen(&world, "default", Listen::default()).await
    }

    /// A region of a world.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn listen(world: &World, region: &str, listen: Listen) -> io::Result<Self> {
        let region = Region::new(region, world);
        let listener = Listener::bind(region.clone(), listen).await?;
        Ok(Self { region, listener })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr
    }

    /// Its base URL: scheme and authority.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("{}://{}", self.listener.scheme(), self.listener.addr)
    }

    /// The region's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.region.name
    }

    /// The world it is a part of.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.region.world
    }

    /// The next request of an endpoint meets this fault. Called again: the one after it.
    pub fn on(&self, endpoint: Endpoint, fault: Fault) -> &Self {
        lock(&self.region.script).queue(endpoint, fault);
        self
    }

    /// Every request of an endpoint that meets no queued fault meets this one.
    pub fn always(&self, endpoint: Endpoint, fault: Fault) -> &Self {
        lock(&self.region.script).always(endpoint, fault);
        self
    }

    /// Faults by chance, beside the others.
    pub fn random(&self, profile: Profile) -> &Self {
        lock(&self.region.script).random(profile);
        self
    }

    /// No more faults.
    pub fn clear_faults(&self) -> &Self {
        lock(&self.region.script).clear();
        lock(&self.region.accept_faults).clear();
        self
    }

    /// The next connection meets this fault. Called again: the one after it.
    pub fn on_accept(&self, fault: AcceptFault) -> &Self {
        lock(&self.region.accept_faults).push_back(fault);
        self
    }

    /// What happens to connections between requests.
    pub fn idle(&self, idle: Idle) -> &Self {
        *lock(&self.region.idle) = idle;
        lock(&self.region.conns).values().for_each(|conn| conn.activity.notify_one());
        self
    }

    /// How many requests a new HTTP/2 connection takes at a time.
    pub fn max_streams(&self, streams: u32) -> &Self {
        self.region.max_streams.store(streams, Ordering::SeqCst);
        self
    }

    /// Ends all connections that have no request under way.
    pub fn close_idle(&self) {
        lock(&self.region.conns).values().filter(|conn| conn.is_idle()).for_each(|conn| conn.end(false));
    }

    /// Ends all connections. `reset`: with RST.
    pub fn cut_all(&self, reset: bool) {
        lock(&self.region.conns).values().for_each(|conn| conn.end(reset));
    }

    /// Closes the listening socket and all connections: new ones are refused until [`Sim::up`].
    pub async fn down(&self) {
        self.listener.close().await;
        self.cut_all(false);
    }

    /// Listens again at the same address.
    ///
    /// # Errors
    /// When somebody else took the address.
    pub async fn up(&self) -> io::Result<()> {
        self.listener.reopen().await
    }

    /// A connection without a socket: for tests with paused time. Speaks what its user speaks, without TLS.
    #[must_use]
    pub fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.listener.serve(far, None);
        near
    }

    /// Adds a message to the app's history.
    pub fn add_message(&self, app: &str, message: Message) {
        self.world().add_message(app, message);
    }

    /// What became of the events of a stream in this region.
    #[must_use]
    pub fn ledger(&self, app: &str, stream: Stream) -> Ledger {
        lock(&self.region.queue(app, stream)).ledger()
    }

    /// The reads of a stream in this region, in the order in which they took events.
    #[must_use]
    pub fn event_reads(&self, app: &str, stream: Stream) -> Vec<EventsRead> {
        lock(&self.region.queue(app, stream)).reads()
    }

    /// How often each kind of fault befell a request.
    #[must_use]
    pub fn faults_met(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.region.script).met().clone()
    }

    /// How many events of a stream wait in this region.
    #[must_use]
    pub fn waiting(&self, app: &str, stream: Stream) -> usize {
        lock(&self.region.queue(app, stream)).waiting()
    }

    /// What callers did wrong, in all regions of the world.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.world().violations()
    }

    /// The requests this region saw, as far as it remembers.
    #[must_use]
    pub fn seen(&self) -> Vec<SeenRequest> {
        self.region.seen()
    }

    /// This region's numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.region.stats()
    }

    /// Waits until this region's numbers are as wanted; gives up after 10 seconds.
    ///
    /// # Errors
    /// When they did not become so.
    pub async fn wait_until(&self, wanted: impl FnMut(&Stats) -> bool + Send) -> Result<Stats, WaitTimeout> {
        self.wait_within(PATIENCE, wanted).await
    }

    /// As [`Sim::wait_until`], giving up after `patience`.
    ///
    /// # Errors
    /// When they did not become so.
    pub async fn wait_within(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&Stats) -> bool + Send,
    ) -> Result<Stats, WaitTimeout> {
        let waited = tokio::time::timeout(patience, self.region.wait(&mut wanted)).await;
        waited.map(|()| self.stats()).map_err(|_| WaitTimeout(Box::new(self.stats())))
    }

    /// Stops listening and ends all connections. Returns when all its tasks are gone.
    ///
    /// # Panics
    /// When something inside has panicked: with that panic.
    pub async fn stop(&self) {
        self.region.tasks.finish(PATIENCE).await;
        if let Some(panic) = self.region.take_panic() {
            std::panic::resume_unwind(panic);
        }
    }

    pub(super) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    pub(super) fn of(region: &Arc<Region>) -> Self {
        Self { region: region.clone(), listener: Listener::without_socket(region.clone()) }
    }
}
