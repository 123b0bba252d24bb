//! `rtm-gateway config`: every key of the configuration, as this version knows them.

use std::io::Write;

use super::CliError;
use crate::config::{documented, reference};

/// Prints every key of the configuration: as a file to begin with, a JSON Schema, or a table.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway config > gateway.toml")]
pub(super) struct ConfigArgs {
    /// In which form
    #[arg(long = "as", value_enum, default_value_t)]
    form: Form,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Form {
    /// The documented file: every key, its default, what it means.
    #[default]
    Toml,
    /// For editors, and for pipelines that write configurations.
    JsonSchema,
    /// The table of docs/configuration.md.
    Markdown,
}

/// Prints them.
/// Fails when `out` cannot be written.
pub(super) fn run(args: &ConfigArgs, out: &mut dyn Write) -> Result<(), CliError> {
    match args.form {
        Form::Toml => write!(out, "{}", documented::TEXT)?,
        Form::JsonSchema => writeln!(out, "{:#}", reference::schema())?,
        Form::Markdown => write!(out, "{}", reference::markdown())?,
    }
    out.flush()?;
    Ok(())
}
