//! The command line: one file a command.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage (clap's own), 3 done in part and can be gone on with.

mod check;
mod client;
mod client_key;
mod config;
mod demo;
mod events;
mod harden;
mod history;
mod serve;
pub mod signals;
mod simulate;
mod stdout;
mod token;
mod usage;

use std::io;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

use crate::kernel::clock::Clock;
use crate::kernel::version::{COMMIT, VERSION};
use signals::Signals;

/// The version, and the commit where the build said it.
static SHOWN_VERSION: LazyLock<String> = LazyLock::new(|| match COMMIT {
    "unknown" => VERSION.to_owned(),
    commit => format!("{VERSION} ({commit})"),
});

/// An authenticating reverse proxy for a vendor's real-time-messaging REST API.
#[derive(Debug, Parser)]
#[command(name = "rtm-gateway", version = SHOWN_VERSION.as_str(), about, after_help = EXAMPLE)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::ServeArgs),
    /// Validate a configuration as `serve` would, and print it in full with every secret redacted
    Check(check::CheckArgs),
    /// Print every key of the configuration: a file to begin with, or a JSON Schema
    Config(config::ConfigArgs),
    /// Show the whole job on loopback: a simulated vendor, a gateway, real requests
    Demo(demo::DemoArgs),
    /// Run the simulated vendor alone
    Simulate(simulate::SimulateArgs),
    /// Mint or explain RTM tokens
    Token(token::TokenArgs),
    /// Make a caller's key and its `[[clients]]` stanza
    ClientKey(client_key::ClientKeyArgs),
    /// Read events through a gateway
    Events(events::EventsArgs),
    /// Read history through a gateway
    History(history::HistoryArgs),
}

/// Why a command ended without having done its work. Exit status 1.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What went wrong, for people.
    #[error("{0}")]
    Failed(String),
    /// A part was done, and can be gone on with. Exit status 3.
    #[error("{0}")]
    Partial(String),
    /// It has been written to stderr already.
    #[error("failed")]
    Reported,
    /// The output could not be written, or the system gave no runtime.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The gateway could not run, or ended by itself.
    #[error(transparent)]
    Run(#[from] crate::app::RunError),
    /// Logging could not be set up.
    #[error(transparent)]
    Log(#[from] crate::app::telemetry::Error),
}

impl Cli {
    /// Runs the command that the process was started with.
    ///
    /// `early` are the signals that are listened for already, if any are.
    #[must_use]
    pub fn main(early: Option<io::Result<Signals>>) -> ExitCode {
        crate::app::telemetry::hush_panics();
        match Self::try_parse() {
            Ok(cli) => cli.run(early),
            Err(why) => usage::exit(why),
        }
    }

    /// Runs the command and says how it ended.
    fn run(self, early: Option<io::Result<Signals>>) -> ExitCode {
        let (mut out, mut err) = (io::stdout(), io::stderr());
        let done = match self.command {
            Command::Serve(args) => early
                .unwrap_or_else(Signals::listen)
                .map_err(CliError::from)
                .and_then(|signals| serve::run(&args, signals)),
            Command::Check(args) => check::run(&args, &mut out, &mut err),
            Command::Config(args) => config::run(&args, &mut out),
            Command::Demo(args) => demo::run(&args, &mut out),
            Command::Simulate(args) => simulate::run(&args, &mut out),
            Command::Token(args) => token::run(&args, &Clock::system(), &mut out),
            Command::ClientKey(args) => client_key::run(&args, &mut out),
            Command::Events(args) => events::run(&args, &mut err),
            Command::History(args) => history::run(&args, &mut err),
        };
        match done {
            Ok(()) => return ExitCode::SUCCESS,
            Err(CliError::Reported) => {}
            Err(why @ CliError::Partial(_)) => {
                crate::app::telemetry::tell(&format!("rtm-gateway: {why}"));
                return ExitCode::from(PARTIAL);
            }
            // A reader who has seen enough (`| head`) is no failure to speak of.
            Err(CliError::Io(why)) if why.kind() == io::ErrorKind::BrokenPipe => {}
            Err(why) => crate::app::telemetry::tell(&format!("rtm-gateway: {why}")),
        }
        ExitCode::FAILURE
    }
}

/// The exit status of what was done in part.
const PARTIAL: u8 = 3;

const EXAMPLE: &str = "\
Example:
  rtm-gateway demo

See it work first with `demo`; then write a configuration and `check` it; then `serve` it.";
