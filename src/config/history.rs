//! `[apps.history]`: how long a history query may take, and how long its answer is kept.

use std::time::Duration;

use super::document::node::Node;
use super::document::table::{Table, by_default};

/// `[apps.history]`: the bounds of a history query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// How long one synchronous request may take.
    pub deadline: Duration,
    /// How long a result stays fetchable by its handle.
    pub handle_ttl: Duration,
    /// The largest `limit` a caller may ask for.
    pub max_limit: usize,
    /// How long work goes on for a caller who left before it was done. Zero: it ends with its last caller.
    pub keep_going: Duration,
}

impl Default for History {
    fn default() -> Self {
        by_default("apps.history", history)
    }
}

pub(super) fn history(t: &Table<'_>) -> History {
    let handle_ttl = t.or_default("handle_ttl", Node::duration);
    let history = History {
        deadline: t.or_default("deadline", Node::duration),
        handle_ttl,
        // For as long as anybody could come back for the result.
        keep_going: t.take("keep_going").and_then(Node::duration_or_off).unwrap_or(handle_ttl),
        max_limit: t.or_default("max_limit", |n| n.count(10_000_000).map(|n| n as usize)),
    };
    if history.handle_ttl < history.deadline
        && let Some(node) = t.take("handle_ttl").or_else(|| t.take("deadline"))
    {
        node.warn(
            "makes handle_ttl shorter than deadline: a handle may die before its work is done",
            "Raise handle_ttl",
        );
    }
    history
}
