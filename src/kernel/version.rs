//! Which program this is.

/// Its version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, as whoever built it said in `RTM_GATEWAY_COMMIT`. Not asked of git: the same source
/// gives the same program wherever it is built, and a commit builds nothing anew.
pub const COMMIT: &str = match option_env!("RTM_GATEWAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
