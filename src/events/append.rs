//! What pollers bring, put into a log: each event once, and in the vendor's order where that is asked for.
//!
//! | file | what |
//! |---|---|
//! | `appender` | puts what pollers bring into a log, each read once |
//! | `copy_filter` | drops what another region returned already, by the rule of `dedup` |
//! | `dropped_copies` | tells the next run what that was |
//! | `reorder_buffer` | with an `order_window`: what waits for its turn by the vendor's time |
//! | `reorder_task` | moves it into the log when that has come |
//!
//! Invariant: nothing that a poller brings is dropped but copies of what the log has, or will have.

mod appender;
mod copy_filter;
mod dedup;
mod dropped_copies;
mod reorder_buffer;
mod reorder_task;

pub(super) use self::appender::{AppendOutcome, AppendRequest, Appender, STORE_RETRY};
