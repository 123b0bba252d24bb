//! From the vendor into a log.
//!
//! | file | what |
//! |---|---|
//! | `poller` | reads from the vendor; knows when a read is lost, and keeps what came |
//! | `quarantine` | answers that could not be read to their end |
//! | `pending_writes` | what a forced stop left in hand |
//!
//! Invariants: nothing the vendor returned whole is dropped; a poller reads only when the store can keep what it reads.

pub(super) mod pending_writes;
pub(super) mod poller;
pub(super) mod quarantine;
