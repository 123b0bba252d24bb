//! [`Kind`]: every kind of task, and what its panic and a stop mean.

/// What a task is. Says what its end by panic and its cancellation mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes connections of one listener. Panic: stop the gateway. Stop: accept no more.
    Accept,
    /// Serves one connection. Panic: log. Stop: finish the requests in hand, then cut.
    Connection,
    /// Reads one stream of one region. Panic: stop the gateway. Stop: store the read in hand.
    Poller,
    /// Writes to the store. Panic: stop the gateway. Stop: last of all.
    StoreWriter,
    /// Ends leases that are over. Panic: stop the gateway. Stop: at once.
    Leases,
    /// Moves events whose turn has come into a log. Panic: stop the gateway. Stop: at once; what waits is stored.
    ReorderTask,
    /// Removes what is older than retention. Panic: log. Stop: at once.
    Retention,
    /// Waits for the answers of exchanges whose callers have left. Panic: log. Stop: when all have come; its group
    /// stops after those who could leave more behind.
    Linger,
    /// Resolves one history query or count, or streams one. Panic: log. Stop: at once.
    Resolver,
    /// Watches files and signals. Panic: stop the gateway. Stop: at once.
    Reload,
    /// Judges anew what proved those who have something under way. Panic: stop the gateway. Stop: at once.
    Judge,
    /// Fetches the keys of the token issuer. Panic: log; what was fetched is believed for a bounded time. Stop: at
    /// once.
    KeyKeeper,
    /// Looks at the files of credentials. Panic: stop the gateway. Stop: at once.
    SecretKeeper,
    /// Delivers to one webhook. Panic: stop the gateway. Stop: finish the tries under way.
    Webhook,
    /// A part of the simulated vendor. Panic: log. Stop: at once.
    Simulator,
}

impl Kind {
    /// Whether the gateway cannot go on without it.
    pub(super) fn is_vital(self) -> bool {
        let vital = [
            Self::Accept,
            Self::Poller,
            Self::StoreWriter,
            Self::ReorderTask,
            Self::Leases,
            Self::Reload,
            Self::Judge,
            Self::SecretKeeper,
            Self::Webhook,
        ];
        vital.contains(&self)
    }
}
