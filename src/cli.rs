//! The command line: one file a command.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage (clap's own).

pub mod check;
pub mod client_key;
pub mod demo;
pub mod serve;
pub mod simulate;
pub mod token;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An authenticating reverse proxy for a vendor's real-time-messaging REST API.
#[derive(Debug, Parser)]
#[command(
    name = "rtm-gateway",
    version,
    about,
    after_help = "Example:\n  rtm-gateway demo\n\nSee it work first with `demo`; then write a configuration and `check` it; then `serve` it."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::Args),
    /// Validate a configuration as `serve` would, and print it in full with every secret redacted
    Check(check::Args),
    /// Show the whole job on loopback: a simulated vendor, a gateway, real requests
    Demo(demo::Args),
    /// Run the simulated vendor alone
    Simulate(simulate::Args),
    /// Mint or explain RTM tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Make a caller's key and its [[clients]] stanza
    ClientKey(client_key::Args),
}

impl Cli {
    /// Runs the command and says how it ended.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Simulate(args) => simulate::run(&args),
            Command::Token(command) => token::run(&command),
            Command::ClientKey(args) => client_key::run(&args),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                // A closed stderr leaves nobody to tell.
                let _ = writeln!(std::io::stderr(), "rtm-gateway: {why}");
                ExitCode::FAILURE
            }
        }
    }
}
