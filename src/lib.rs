//! rtm-gateway: an authenticating reverse proxy for a vendor's real-time-messaging REST API.
//!
//! # The life of a request
//!
//! ```text
//! listener --Conn--> identity --Client--> policy --Grant--> route --Call--> admission --Admitted--+     (flow: the spine)
//!                                                                                                 |
//!         +------------------+--------------------+---------------------+--------------------------+
//!         v                  v                    v                     v
//!    routes/events      routes/history       routes/count        routes/messages
//!         |                  |                    |                     |
//!         v                  +---------+----------+                     |
//!    events (subscriptions)            v                                |
//!         ^                         history (jobs, pager, results)      |
//!      store (log) <- poller           |                                |
//!                        +----Order----+-------------Order--------------+
//!                        v
//!    egress:  quota --Seat--> credentials --Signed--> upstream --Reply--> back to whoever ordered
//! ```
//!
//! Each arrow is a type that only the stage before it can make, so a request that nobody identified, granted, admitted,
//! metered or signed cannot be expressed. Nothing else reaches the vendor than [`egress`](upstream::egress); nothing else writes event logs
//! than the pollers in [`events`]; nothing spawns but [`task`](kernel::task).
//!
//! | tier | modules |
//! | --- | --- |
//! | kernel | [`metrics`](kernel::metrics) [`clock`](kernel::clock) [`names`](kernel::names) [`share`](kernel::share) [`task`](kernel::task) [`files`](kernel::files) [`heap`](kernel::heap) [`secret`](kernel::secret) [`dns`](kernel::dns) [`targets`](kernel::targets) [`standard_webhooks`](kernel::standard_webhooks) [`conn`](kernel::conn) [`proof`](kernel::proof) [`descriptors`](server::descriptors) |
//! | http | [`body`](http::body) [`headers`](http::headers) [`request_id`](http::request_id) `http2` |
//! | facts | [`vendor`] (what is wanted of it, and its wire formats), [`config`] (TOML in, checked values out), [`telemetry`] |
//! | parts | [`store`] [`quota`](upstream::quota) [`credentials`](upstream::credentials) [`tls`] (of the callers' listeners; whom we trust) [`pool`](upstream::pool) [`jwks`](request::jwks) |
//! | door | [`egress`](upstream::egress) |
//! | services | [`events`] [`history`] [`webhooks`] |
//! | requests | [`refusal`](request::refusal) [`identity`](request::identity) [`policy`](request::policy) [`route`](request::route) [`openapi`](request::openapi) [`admission`](request::admission) [`streaming`](request::streaming) [`gateway`](request::gateway) [`response`](request::response) [`trail`](request::trail) [`routes`](request::routes) [`flow`](request::flow) |
//! | operators | [`services`] (all parts, and a configuration put in force in them) [`admin`] [`reload`] |
//! | edges | [`listener`](server::listener) [`app`] (the composition root) |
//! | roots | [`cli`] |
//! | aside | [`simulator`]: the vendor, strict and scriptable, for tests, benches and the demo |
//!
//! A module imports only from those before it in this table; `tests/it/layers.rs` holds it so.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod events;
pub mod history;
pub mod http;
pub mod kernel;
pub mod reload;
pub mod request;
pub mod server;
pub mod services;
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod vendor;
pub mod webhooks;
