//! The `rtm-gateway` binary: parses the command line and runs one command.

use std::process::ExitCode;

use clap::Parser as _;
use rtm_gateway::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
