//! From the vendor into a log.
//!
//! | file | what |
//! |---|---|
//! | `poller` | reads from the vendor; knows when a read is lost, and keeps what came |
//! | `appender` | puts what pollers bring into a log, each read once |
//! | `copy_filter` | drops what another region returned already, by the rule of `dedup` |
//! | `dropped_copies` | tells the next run what that was |
//! | `reorder_buffer` | with an `order_window`: what waits for its turn by the vendor's time |
//! | `reorder_task` | moves it into the log when that has come |
//! | `quarantine` | answers that could not be read to their end |
//! | `pending_writes` | what a forced stop left in hand |
//!
//! Invariants: nothing the vendor returned whole is dropped; a poller reads only when the store can keep what it reads.

pub(super) mod appender;
mod copy_filter;
mod dedup;
mod dropped_copies;
pub(super) mod pending_writes;
pub(super) mod poller;
pub(super) mod quarantine;
mod reorder_buffer;
mod reorder_task;
