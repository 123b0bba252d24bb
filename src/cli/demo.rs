//! x
use super::CliError;
use std::io::Write;
/// x
#[derive(Debug, clap::Args)]
pub struct Args {}
/// x
pub fn run(_a: &Args, _o: &mut dyn Write) -> Result<(), CliError> {
    Ok(())
}
