//! rtm-gateway: an authenticating reverse proxy for a vendor's real-time-messaging REST API.
//!
//! # The life of a request
//!
//! ```text
//! listener --Conn--> identity --Client--> policy --Grant--> route --Call--> admission --Admitted--+ (the spine: flow)
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
//!    egress:  quota --Seat--> credentials --Signed--> pool --Reply--> back to whoever ordered
//! ```
//!
//! Each arrow is a type that only the stage before it can make, so a request that nobody identified, granted, admitted,
//! metered or signed cannot be expressed. Nothing else reaches the vendor than [`upstream::egress`]; nothing else
//! writes event logs than the pollers in [`events`]; nothing spawns but [`kernel::task`].
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`kernel`] | clocks, names, secrets, tasks, files: what everything else stands on |
//! | [`http`] | bodies, headers, the name of a request |
//! | [`vendor`] | what is wanted of the vendor, and its wire formats |
//! | [`config`] | TOML in, checked values out |
//! | [`store`] | stable storage |
//! | [`tls`] | of the callers' listeners; whom we trust |
//! | [`upstream`] | the way to the vendor: quota, credentials, connections, and [`egress`](upstream::egress), the only door |
//! | [`events`] | read once, kept durably, handed to many subscribers |
//! | [`history`] | one answer for the vendor's dance of queries and handles |
//! | [`webhooks`] | events pushed to addresses |
//! | [`request`] | a caller's request, stage by stage |
//! | [`services`] | all parts of one gateway, and a configuration put in force in them |
//! | [`admin`] | the operators' port |
//! | [`server`] | what listens |
//! | [`app`] | the composition root; reload, the log, the stop |
//! | [`cli`] | the command line |
//! | [`simulator`] | aside: the vendor, strict and scriptable, for tests, benches and the demo |
//!
//! A room imports only from those before it, and so does a module inside a room from its neighbours;
//! `tests/it/layers.rs` holds the whole order, so there is no circle.

#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
mod tests;

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod events;
pub mod history;
pub mod http;
pub mod kernel;
pub mod request;
pub mod server;
pub mod services;
pub mod simulator;
pub mod store;
pub mod tls;
pub mod upstream;
pub mod vendor;
pub mod webhooks;
