//! Looking up names, on threads that nothing else uses: `getaddrinfo` may hang for as long as name servers let it.
//!
//! Invariants:
//! - At most one look-up of a name is under way, and all who want it wait for that one. It cannot be cancelled; who
//!   waits may leave at any time.
//! - A look-up that hangs keeps its own thread and nothing else: names have [`MAX_THREADS`] threads for each [`Use`],
//!   and no use takes another's. So what a webhook's name does is no matter of the vendor's, and neither is one of the
//!   store's.
//! - A name whose look-up takes longer than [`PATIENCE`], or fails, still has the addresses of its last good look-up,
//!   for [`BELIEVED_FOR`]. The look-up goes on meanwhile, and what it finds is used from then on.
//! - Names come from the configuration; those that nobody asked for in so long are forgotten.
//!
//! The threads are the process's, as name servers are: two gateways in one process share them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use crate::kernel::clock::Clock;
use crate::kernel::sync::lock;
use crate::kernel::task;

/// A look-up may take so long before the last good addresses are used instead.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// How old the last good addresses may be.
pub const BELIEVED_FOR: Duration = Duration::from_secs(3600);

/// Look-ups of one use at a time; more wait for one of these to end.
const MAX_THREADS: usize = 32;

/// More names than this are not kept without a look at who is idle.
const SWEPT_FROM: usize = 256;

/// What names are looked up for. Each has threads of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The vendor's hosts, and the proxy on the way to them.
    Vendor,
    Webhooks,
    /// The host of the token issuer's keys.
    KeySets,
}

/// Looks up names for one use. Cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Lookups>);

struct Lookups {
    thread: &'static str,
    threads: usize,
    look_up: Box<AddressSource>,
    clock: Clock,
    state: Mutex<LookupTable>,
}

/// Asks for a name's addresses, and may block.
type AddressSource = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

type Addresses = Arc<[SocketAddr]>;

#[derive(Default)]
struct LookupTable {
    names: HashMap<Arc<str>, Known>,
    /// At so many those that are idle are dropped, but not below [`SWEPT_FROM`].
    sweep_at: usize,
    /// Names that wait for a thread.
    waiting: VecDeque<Lookup>,
    threads: usize,
}

#[derive(Default)]
struct Known {
    /// The last good addresses, and when they were asked for.
    good: Option<(Addresses, Instant)>,
    under_way: Option<UnderWay>,
    /// The last good ones are used for want of new ones.
    in_need: bool,
}

#[derive(Clone)]
struct UnderWay {
    began: Instant,
    end: watch::Receiver<Option<Result<Addresses, LookUpError>>>,
}

/// A look-up to be done.
struct Lookup {
    name: Arc<str>,
    began: Instant,
    tell: watch::Sender<Option<Result<Addresses, LookUpError>>>,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot look up {name}: {why}")]
pub struct LookUpError {
    name: Arc<str>,
    why: String,
}

impl Resolver {
    /// The process's resolver for one use.
    #[must_use]
    pub fn of(what: Use) -> Self {
        static VENDOR: LazyLock<Resolver> = LazyLock::new(|| Resolver::system("dns-vendor"));
        static WEBHOOKS: LazyLock<Resolver> = LazyLock::new(|| Resolver::system("dns-webhooks"));
        static KEY_SETS: LazyLock<Resolver> = LazyLock::new(|| Resolver::system("dns-keys"));
        match what {
            Use::Vendor => VENDOR.clone(),
            Use::Webhooks => WEBHOOKS.clone(),
            Use::KeySets => KEY_SETS.clone(),
        }
    }

    /// One that asks the system (`getaddrinfo`, which orders addresses by RFC 6724).
    fn system(thread: &'static str) -> Self {
        Self::with(thread, MAX_THREADS, Clock::system(), |name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    /// One that asks what it is given, on so many threads of that name at most.
    #[must_use]
    pub fn with(
        thread: &'static str,
        threads: usize,
        clock: Clock,
        look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Lookups { thread, threads, look_up: Box::new(look_up), clock, state: Mutex::default() }))
    }

    /// A name's addresses. May be dropped at any time; the look-up goes on without it.
    ///
    /// # Errors
    /// When there are none, or the look-up failed and there is no good one of late.
    pub async fn look_up(&self, name: &str) -> Result<Addresses, LookUpError> {
        let name: Arc<str> = name.to_ascii_lowercase().into();
        let mut under_way = self.0.begin(&name);
        let is_known = self.0.last_good(&name).is_some();
        let end = under_way.end.wait_for(Option::is_some);
        let end = if is_known { timeout_at(under_way.began + PATIENCE, end).await.ok() } else { Some(end.await) };
        let error = |why: &str| LookUpError { name: name.clone(), why: why.to_owned() };
        let why = match end {
            Some(Ok(end)) => match &*end {
                Some(Ok(addresses)) => return Ok(addresses.clone()),
                Some(Err(why)) => why.clone(),
                None => error("no answer"),
            },
            Some(Err(_)) => error("the look-up was given up"),
            None => error("no answer in time"),
        };
        self.0.last_good_in_need(&name, &why).ok_or(why)
    }
}

impl Lookups {
    /// Joins the look-up that is under way, or begins one.
    fn begin(self: &Arc<Self>, name: &Arc<str>) -> UnderWay {
        let now = self.clock.now();
        let mut state = self.state();
        // Only a new name makes it grow, so only then is there a reason to look who can go.
        if state.names.len() >= state.sweep_at.max(SWEPT_FROM) && !state.names.contains_key(name) {
            state.names.retain(|_, known| known.under_way.is_some() || known.good_at(now).is_some());
            // Thousands may be in use, and not every new one is to look at them all.
            state.sweep_at = state.names.len() * 2;
        }
        let known = state.names.entry(name.clone()).or_default();
        if let Some(under_way) = &known.under_way {
            return under_way.clone();
        }
        let (tell, end) = watch::channel(None);
        let under_way = UnderWay { began: now, end };
        known.under_way = Some(under_way.clone());
        let lookup = Lookup { name: name.clone(), began: now, tell };
        if state.threads >= self.threads {
            state.waiting.push_back(lookup);
            return under_way;
        }
        state.threads += 1;
        drop(state);
        self.start(lookup);
        under_way
    }

    fn start(self: &Arc<Self>, lookup: Lookup) {
        let (lookups, name, tell) = (self.clone(), lookup.name.clone(), lookup.tell.clone());
        // Without a thread who waits learns it at once, and the next who asks tries again.
        if let Err(why) = task::thread(self.thread, move || lookups.work(lookup)) {
            let mut state = self.state();
            state.threads -= 1;
            if let Some(known) = state.names.get_mut(&name) {
                known.under_way = None;
            }
            drop(state);
            tell.send_replace(Some(Err(LookUpError { name, why: why.to_string() })));
        }
    }

    /// One look-up after another, until none waits.
    fn work(&self, first: Lookup) {
        let mut next = Some(first);
        while let Some(Lookup { name, began, tell }) = next.take() {
            let error = |why: String| LookUpError { name: name.clone(), why };
            let found = match catch_unwind(AssertUnwindSafe(|| (self.look_up)(&name))) {
                Ok(Ok(addresses)) if addresses.is_empty() => Err(error("it has no address".to_owned())),
                Ok(Ok(addresses)) => Ok(Addresses::from(addresses)),
                Ok(Err(why)) => Err(error(why.to_string())),
                Err(_) => Err(error("the look-up panicked".to_owned())),
            };
            let mut state = self.state();
            if let Some(known) = state.names.get_mut(&name) {
                known.under_way = None;
                if let Ok(addresses) = &found {
                    known.good = Some((addresses.clone(), began));
                    if std::mem::take(&mut known.in_need) {
                        tracing::info!(%name, "a name can be looked up again");
                    }
                }
            }
            // All before the word goes out: who hears it and asks again begins a look-up, and does not join one that is
            // over.
            next = state.waiting.pop_front();
            state.threads -= usize::from(next.is_none());
            drop(state);
            tell.send_replace(Some(found));
        }
    }

    fn last_good(&self, name: &str) -> Option<Addresses> {
        let now = self.clock.now();
        self.state().names.get(name).and_then(|known| known.good_at(now))
    }

    /// The same, and says so once.
    fn last_good_in_need(&self, name: &str, why: &LookUpError) -> Option<Addresses> {
        let now = self.clock.now();
        let mut state = self.state();
        let known = state.names.get_mut(name)?;
        let addresses = known.good_at(now)?;
        if !std::mem::replace(&mut known.in_need, true) {
            tracing::warn!(%why, "the last good addresses are used");
        }
        Some(addresses)
    }

    fn state(&self) -> MutexGuard<'_, LookupTable> {
        lock(&self.state)
    }
}

impl Known {
    fn good_at(&self, now: Instant) -> Option<Addresses> {
        let (addresses, at) = self.good.as_ref()?;
        (now.saturating_duration_since(*at) <= BELIEVED_FOR).then(|| addresses.clone())
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookUpError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookUpError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookUpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { Ok(resolver.look_up(name.as_str()).await?.to_vec().into_iter()) })
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.thread).finish()
    }
}

#[cfg(test)]
mod tests;
