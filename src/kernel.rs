//! What everything else stands on, and what knows nothing of vendors, requests or events.
//!
//! | module | what |
//! | --- | --- |
//! | `clock` | time: paused in tests, so nothing else reads it |
//! | `task` | tasks with an owner, a cancel rule and a place in the stop; threads for work that blocks |
//! | `fast_map` | maps whose keys nobody outside chooses |
//! | `sync`, `backoff` | taking a lock; how long to wait before the next try |
//! | `cause` | why something failed, with the error that said so |
//! | `names`, `share` | the names of things; how much of a bounded thing one client may hold |
//! | `secret` | values that cannot be printed, and finding them in what others wrote |
//! | `files`, `dns` | what may hang: files that others write, names that others resolve |
//! | `targets`, `standard_webhooks` | where a fetch may go; signatures of webhooks |
//! | `conn`, `proof` | what is known of a connection; what let in something that goes on for long |
//! | `metrics`, `heap` | every metric, in one file; memory given back to the system |
//! | `trouble` | what fails of a gateway that is of use all the same |
//! | `log_list` | several texts as one field of a log line |
//! | `version` | which program this is |

pub(crate) mod backoff;
pub mod cause;
pub mod clock;
pub mod conn;
pub mod dns;
pub mod fast_map;
pub mod files;
pub mod heap;
pub mod log_list;
pub mod metrics;
pub mod names;
pub mod proof;
pub mod secret;
pub mod share;
pub mod standard_webhooks;
pub mod sync;
pub mod targets;
pub mod task;
#[cfg(test)]
pub(crate) mod testing;
pub mod trouble;
pub mod version;
