//! From the vendor into a log.
//!
//! | file | what |
//! |---|---|
//! | `poller` | reads from the vendor; knows when a read is lost, and keeps what came |
//! | `appender` | puts what pollers bring into a log, each read once |
//! | `dedup`, `dropped` | drops what another region returned already; what that was, from one run to the next |
//! | `reorder_buffer`, `reorder_task` | with an `order_window`: what waits for its turn by the vendor's time, and who moves it into the log |
//! | `quarantine` | answers that could not be read to their end |
//! | `pending_writes` | what a forced stop left in hand |
//!
//! Invariants: nothing the vendor returned whole is dropped; a poller reads only when the store can keep what it reads.

pub(super) mod appender;
pub(super) mod dedup;
pub(super) mod dropped;
pub(super) mod pending_writes;
pub(super) mod poller;
pub(super) mod quarantine;
pub(super) mod reorder_buffer;
pub(super) mod reorder_task;
