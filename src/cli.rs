//! The commands.

pub mod check;
pub mod client_key;
pub mod token;

use std::io;

/// Why a command ended without having done its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What went wrong, for people. Exit status 1.
    #[error("{0}")]
    Failed(String),
    /// It has been written to stderr already. Exit status 1.
    #[error("failed")]
    Told,
    /// The output could not be written. Exit status 1.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}
