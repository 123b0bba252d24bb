//! No byte of a secret comes out: everything is planted, everything is driven, everything that comes out is searched.
//! A binary of its own: it looks at whole processes, their logs, their memory and their ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests"
)]

#[path = "../it/client.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod client;
mod commands;
mod drive;
mod inside;
#[path = "../it/issuer.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod issuer;
mod memory;
mod panics;
mod plants;
mod rig;
mod search;
mod vendor;
mod ways_in;
