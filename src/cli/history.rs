//! `rtm-gateway history`: the messages of an app, read through a gateway.

mod export;
mod export_args;
mod line;
mod output;
mod packed;
mod partial_file;
mod progress;

use std::io::Write;

use super::CliError;

/// Reads history through a gateway.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct HistoryArgs {
    #[command(subcommand)]
    command: HistoryCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum HistoryCommand {
    Export(export_args::ExportArgs),
}

/// Runs the command; what is not a message goes to `err`.
/// Fails when the export is not complete.
pub(super) fn run(args: &HistoryArgs, err: &mut dyn Write) -> Result<(), CliError> {
    match &args.command {
        HistoryCommand::Export(args) => export::run(args, err),
    }
}
