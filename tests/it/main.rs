//! Promises kept, a file each, over real sockets against the simulated vendor, by the library in this process or by the binary in
//! one of its own. One program holds them all: it is linked once, and what waits for real time does so beside the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod corpus;
mod delivery_model;
mod deploy;
mod egress;
mod events_service;
mod front;
mod history_service;
mod hostile;
mod kept_stores;
mod layers;
#[allow(clippy::disallowed_methods, reason = "what is watched is in another process")]
mod leaks;
mod openapi;
mod peers;
#[allow(clippy::disallowed_methods, reason = "what is watched is in another process")]
mod process;
mod readme;
mod runbooks;
mod simulator;
mod soak_growth;
mod soak_ledger;
mod source;
mod store_kill;
mod support;
mod tls;
mod webhooks;
