//! `rtm-gateway history`: the messages of an app, read through a gateway.

mod export;
mod line;
mod packed;
mod part;
mod progress;

use std::io::Write;

use super::CliError;

/// Reads history through a gateway.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    Export(export::Args),
}

/// Runs the command; what is not a message goes to `err`.
///
/// # Errors
/// When the export is not complete.
pub fn run(args: &Args, err: &mut dyn Write) -> Result<(), CliError> {
    match &args.command {
        Command::Export(args) => export::run(args, err),
    }
}
