//! `rtm-gateway events`: the events of an app, read through a gateway.

mod shown;
mod sse;
mod tail;

use std::io::Write;

use super::CliError;

/// Reads events through a gateway.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    Tail(tail::Args),
}

/// Runs the command; what is not an event goes to `err`.
///
/// # Errors
/// When the gateway refuses, or stdout cannot be written.
pub fn run(args: &Args, err: &mut dyn Write) -> Result<(), CliError> {
    match &args.command {
        Command::Tail(args) => tail::run(args, err),
    }
}
