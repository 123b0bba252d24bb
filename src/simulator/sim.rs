//! The handle on one listening region: starts and stops it, scripts it, and says what it saw.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Endpoint;
use super::app::App;
use super::conn::{self, Conn, Transport, Wire};
use super::fault::Fault;
use super::lock;
use super::messages::Message;
use super::queue::{EventsRead, Ledger};
use super::region::{AcceptFault, Idle, Region};
use super::script::Profile;
use super::seen::Seen;
use super::stats::Stats;
use super::violation::Violation;
use super::world::{Options, World};
use crate::kernel::clock::Clock;
use crate::kernel::names::Stream;
use crate::kernel::task::Kind;

/// How long [`Sim::wait_until`] waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where and how a region listens.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// The address; `None` is a free port of 127.0.0.1.
    pub addr: Option<SocketAddr>,
    /// TLS, if any. ALPN is set to `h2` and `http/1.1` if it is empty.
    pub tls: Option<Arc<ServerConfig>>,
}

/// A listening region of the simulated vendor. Cheap to clone.
#[derive(Clone)]
pub struct Sim {
    region: Arc<Region>,
    listener: Arc<Listener>,
}

struct Listener {
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    /// Ends accepting, and is told when the socket is closed. `None` while down.
    open: Mutex<Option<(CancellationToken, CancellationToken)>>,
}

/// What was waited for did not come about. Shows what did.
#[derive(Clone, Debug, thiserror::Error)]
#[error("waited in vain; the simulator saw {0:?}")]
pub struct InVain(pub Box<Stats>);

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
        let addr = listen.addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let socket = TcpListener::bind(addr).await?;
        let tls = listen.tls.map(|mut config| {
            if config.alpn_protocols.is_empty() {
                Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            }
            TlsAcceptor::from(config)
        });
        let listener = Listener { addr: socket.local_addr()?, tls, open: Mutex::default() };
        let sim = Self { region: Region::new(region, world), listener: Arc::new(listener) };
        sim.accept(socket);
        Ok(sim)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr
    }

    /// Its base URL: scheme and authority.
    #[must_use]
    pub fn base_url(&self) -> String {
        let scheme = if self.listener.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.listener.addr)
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
        let open = lock(&self.listener.open).take();
        if let Some((stop, closed)) = open {
            stop.cancel();
            closed.cancelled().await;
        }
        self.cut_all(false);
    }

    /// Listens again at the same address.
    ///
    /// # Errors
    /// When somebody else took the address.
    pub async fn up(&self) -> io::Result<()> {
        if lock(&self.listener.open).is_none() {
            self.accept(TcpListener::bind(self.listener.addr).await?);
        }
        Ok(())
    }

    /// A connection without a socket: for tests with paused time. Speaks what its user speaks, without TLS.
    #[must_use]
    pub fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.serve(far, None);
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
    pub fn seen(&self) -> Vec<Seen> {
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
    pub async fn wait_until(&self, wanted: impl FnMut(&Stats) -> bool + Send) -> Result<Stats, InVain> {
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
    ) -> Result<Stats, InVain> {
        let waited = tokio::time::timeout(patience, self.region.wait(&mut wanted)).await;
        waited.map(|()| self.stats()).map_err(|_| InVain(Box::new(self.stats())))
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
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener { addr, tls: None, open: Mutex::default() };
        Self { region: region.clone(), listener: Arc::new(listener) }
    }

    fn accept(&self, socket: TcpListener) {
        let (stop, closed) = (CancellationToken::new(), CancellationToken::new());
        *lock(&self.listener.open) = Some((stop.clone(), closed.clone()));
        let sim = self.clone();
        self.spawn(async move {
            let all = sim.region.tasks.stopping();
            loop {
                let accepted = tokio::select! {
                    accepted = socket.accept() => accepted,
                    () = stop.cancelled() => break,
                    () = all.cancelled() => break,
                };
                match accepted {
                    Ok((tcp, _)) => sim.admit(tcp),
                    // Out of descriptors, say: accepting again at once would fail again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
            drop(socket);
            closed.cancel();
        });
    }

    fn admit(&self, tcp: TcpStream) {
        // Answers are small: without this they would wait for acknowledgements.
        let _ = tcp.set_nodelay(true);
        let fault = lock(&self.region.accept_faults).pop_front();
        match fault {
            None => self.serve(tcp, self.listener.tls.clone()),
            Some(AcceptFault::Reset) => tcp.reset_at_end(),
            Some(AcceptFault::Stall) => {
                let stop = self.region.tasks.stopping();
                self.spawn(async move {
                    stop.cancelled().await;
                    drop(tcp);
                });
            }
        }
    }

    fn serve(&self, transport: impl Transport, tls: Option<TlsAcceptor>) {
        let region = self.region.clone();
        let mut number = 0;
        region.update(|stats| {
            stats.connections += 1;
            stats.open += 1;
            number = stats.connections;
        });
        let conn = Conn::new(number);
        lock(&region.conns).insert(number, conn.clone());
        self.spawn(async move {
            let wire = Wire::new(transport, conn.clone());
            let serving = async {
                match tls {
                    None => conn::serve(region.clone(), conn.clone(), wire).await,
                    Some(acceptor) => {
                        let stop = region.tasks.stopping();
                        let handshake = stop.run_until_cancelled(acceptor.accept(wire)).await;
                        if let Some(Ok(tls)) = handshake {
                            conn::serve(region.clone(), conn.clone(), tls).await;
                        }
                    }
                }
            };
            region.guarded(serving).await;
            conn::close(&region, &conn);
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let region = self.region.clone();
        self.region.tasks.spawn(Kind::Simulator, async move { region.guarded(work).await });
    }
}
