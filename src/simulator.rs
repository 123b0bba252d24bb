//! The simulated vendor: strict about the vendor's page and its limits, scriptable in its faults, and exact about what
//! it saw. It serves tests, benches, the demo and the `simulate` command.
//!
//! Invariants:
//! - It shares no code with the gateway but the kernel: what it checks (credentials, paths, limits, times) it checks
//!   by itself, from the vendor's documents.
//! - Every sliding window of every limit is checked, not a refilled bucket. See [`limits`].
//! - An event is in one place: waiting, overwritten, handed over whole, or lost. See [`Ledger`].
//! - What a caller never heard it is not blamed for: an answer counts as heard when its last byte was flushed.
//!
//! A [`World`] holds the apps; a [`Sim`] is one listening region of it:
//!
//! ```
//! # use rtm_gateway::simulator::*;
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let sim = Sim::start(App::new("demo-app").basic("key", "secret")).await?;
//! sim.emit_user_event("demo-app", "Login", "alice");
//! sim.on(Endpoint::UserEvents, Fault::status(503));
//! // … a gateway reads from `sim.base_url()` …
//! sim.wait_until(|stats| stats.of(Endpoint::UserEvents).ok == 1).await?;
//! assert_eq!(sim.violations(), []);
//! sim.stop().await;
//! # Ok(())
//! # }
//! ```

mod act;
mod answer;
mod app;
mod auth;
mod body;
mod coding;
pub mod config;
mod conn;
mod control;
mod endpoint;
mod fault;
mod goaway;
mod handles;
mod headers;
pub mod limits;
mod listener;
mod load;
mod messages;
mod query;
mod queue;
mod region;
mod script;
mod seen;
mod serve;
mod sim;
mod stats;
mod streams;
mod target;
mod token;
mod units;
mod violation;
mod wire;
mod world;

use crate::kernel::sync::lock;

pub use app::{App, DeadHandle, Dialect, HandleStyle, Rules, Snapshot};
pub use auth::Credential;
pub use coding::Coding;
pub use endpoint::Endpoint;
pub use fault::{Canned, Fault};
pub use limits::{Limit, Limits};
pub use listener::Listen;
pub use messages::{Message, MessageKind};
pub use queue::{EventCounts, EventsRead, Ledger};
pub use region::{AcceptFault, Idle};
pub use script::{Chance, Profile};
pub use seen::SeenRequest;
pub use sim::{Sim, WaitTimeout};
pub use stats::{EndpointStats, Stats};
pub use violation::{Violation, ViolationKind};
pub use world::{Options, World};
