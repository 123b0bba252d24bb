//! Promises kept, a file each, over real sockets against the simulated vendor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod client;
mod delivery_model;
mod deploy;
mod egress;
mod events_service;
mod front;
mod history_service;
mod hostile;
mod issuer;
mod kept_stores;
mod layers;
mod openapi;
mod readme;
mod settings;
mod simulator;
mod soak_growth;
mod soak_ledger;
mod source;
mod tls;
mod webhooks;
