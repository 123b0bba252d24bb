//! How many file descriptors this process may have, and who gets them.
//!
//! Invariants: callers' connections never take the last ones: the operator's port, the store and the connections to the
//! vendor have their part, however low the limit is. Every caller's connection is one descriptor; so is each connection
//! to the vendor and each file that is open. Where descriptors run out all the same (the limit was lowered from
//! outside, say) the accept loops pause, calls to the vendor fail before anything is sent, and all go on by themselves.

use crate::kernel::conn::places::most_leaving;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most connections to the operator's port.
const OPERATORS: usize = 64;
/// What the gateway itself has at most: connections to the vendor, files of the store, files that are read again.
const OWN: usize = 512;
/// Connections to the vendor that an app has when it does everything at a time: it shares none with another.
const OF_AN_APP: usize = 4;
/// Open at the start, where the system does not tell.
const OPEN: usize = 32;

/// Connections that may be had at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// By callers, over all listeners.
    pub callers: usize,
    /// By operators.
    pub operators: usize,
}

/// Lets the process have as many descriptors as it may: the usual soft limit is below `max_connections`.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused by a sandbox, the old limit stays, and there are fewer to share.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// How many this process could have open after [`raise_limit`].
#[must_use]
pub fn most() -> usize {
    getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

/// What there is to share now. Says in the log where it is less than is wanted.
#[must_use]
pub fn share_out(max_connections: usize, listeners: usize, apps: usize) -> Shares {
    let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let own = OWN.max(apps.saturating_mul(OF_AN_APP));
    let shares = shares(max_connections, listeners, own, limit, open());
    if shares.callers < max_connections {
        tracing::warn!(
            max_connections,
            in_force = shares.callers,
            descriptors = limit,
            "fewer connections than server.max_connections: raise the limit of open files (ulimit -n, LimitNOFILE)"
        );
    }
    shares
}

fn shares(max_connections: usize, listeners: usize, own: usize, limit: usize, open: usize) -> Shares {
    let left = limit.saturating_sub(open);
    let operators = (left / 8).clamp(1, OPERATORS);
    let own = (left / 4).min(own);
    // Each accept loop has one connection in its hand that waits for a slot.
    let waiting = listeners + 1;
    // And there are connections whose place was given to another and that are not gone yet.
    let left = left.saturating_sub(operators + most_leaving(operators) + own + waiting);
    let callers = left.saturating_sub(most_leaving(left)).clamp(1, max_connections.max(1));
    Shares { callers, operators }
}

/// How many are open. The one that looks is counted too.
fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(OPEN, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_get_what_they_want_or_what_is_left() {
        assert_eq!(shares(10_000, 2, OWN, usize::MAX, 20), Shares { callers: 10_000, operators: 64 });
        assert_eq!(shares(10_000, 2, OWN, 1 << 20, 20), Shares { callers: 10_000, operators: 64 });
        assert_eq!(shares(10_000, 1, OWN, 1024, 24), Shares { callers: 1000 - 64 - 8 - 250 - 2 - 64, operators: 64 });
        assert_eq!(shares(10_000, 1, OWN, 96, 16), Shares { callers: 80 - 10 - 1 - 20 - 2 - 5, operators: 10 });
        assert_eq!(shares(10_000, 1, OWN, 10, 16), Shares { callers: 1, operators: 1 });
        assert_eq!(shares(5, 1, OWN, 1024, 24), Shares { callers: 5, operators: 64 });
        // Many apps have many connections to the vendor.
        let (few, many) = (shares(10_000, 1, OWN, 8192, 24), shares(10_000, 1, 4 * 400, 8192, 24));
        assert!(few.callers - many.callers > 900 && many.callers > 4000, "{few:?} {many:?}");
    }

    #[test]
    fn the_system_says_how_many_are_open() {
        let before = open();
        let _more = [(); 3].map(|()| std::fs::File::open("/dev/null").unwrap());
        // Other tests open and close files meanwhile.
        assert!(before > 3 && open() > 3);
    }
}
