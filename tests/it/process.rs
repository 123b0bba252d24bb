//! The real binary as an operator meets it: signals, `kill -9`, reloads, a full disk. Against the simulated vendor.

mod acknowledged;
mod commands;
mod descriptors;
mod export;
mod files;
mod full_disk;
pub(crate) mod gateway;
mod kill;
mod log;
mod memory;
mod reload;
mod resumed;
mod stop;
mod storage;
mod tail;
mod webhooks;
