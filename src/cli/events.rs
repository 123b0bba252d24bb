//! `rtm-gateway events`: the events of an app, read through a gateway.

mod entry;
mod sse;
mod tail;

use std::io::Write;

use super::CliError;

/// Reads events through a gateway.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EventsArgs {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum EventsCommand {
    Tail(tail::TailArgs),
}

/// Runs the command; what is not an event goes to `err`.
/// Fails when the gateway refuses, or stdout cannot be written.
pub(super) fn run(args: &EventsArgs, err: &mut dyn Write) -> Result<(), CliError> {
    match &args.command {
        EventsCommand::Tail(args) => tail::run(args, err),
    }
}
