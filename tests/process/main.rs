//! The real binary as an operator meets it: signals, `kill -9`, reloads, a full disk. Against the simulated vendor.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod acknowledged;
#[path = "../it/client.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod client;
mod commands;
mod descriptors;
mod export;
mod files;
mod full_disk;
mod gateway;
mod kill;
mod log;
mod memory;
#[path = "../it/webhooks/receiver.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod receiver;
mod reload;
mod resumed;
mod stop;
mod storage;
mod tail;
mod webhooks;
