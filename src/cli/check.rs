//! `rtm-gateway check`: all that is wrong with a configuration, or all that it comes to.

use std::io::Write;
use std::path::PathBuf;

use super::CliError;
use crate::clock::Clock;
use crate::config::{load, show};
use crate::metrics::Metrics;
use crate::tls::Tls;

/// Checks a configuration and prints what it comes to, every default filled in and every secret hidden.
///
/// Reads everything that `serve` would, secrets and certificates too, and binds nothing. Warnings and faults go to
/// stderr as `FILE:LINE: key.path: what. mend.`
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway check --config config/gateway.toml")]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Prints the effective configuration to `out`, warnings and faults to `err`.
///
/// # Errors
/// [`CliError::Told`] when there are faults; they are written by then.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let file = &args.config;
    match load::from_file(file) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(err, "warning: {}", warning.in_file(file))?;
            }
            if let Some(tls) = &loaded.config.server.tls
                && let Err(why) = Tls::open(tls, &Clock::system(), &Metrics::new())
            {
                writeln!(err, "{}: {why}", file.display())?;
                return Err(CliError::Told);
            }
            write!(out, "{}", show::toml(&loaded.config))?;
            out.flush()?;
            Ok(())
        }
        Err(faults) => {
            for warning in &faults.warnings {
                writeln!(err, "warning: {}", warning.in_file(file))?;
            }
            writeln!(err, "{faults}")?;
            Err(CliError::Told)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Result<(), CliError>, String, String, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "hunter2").unwrap();
        let config = dir.path().join("gateway.toml");
        std::fs::write(&config, text.replace("$DIR", dir.path().to_str().unwrap())).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = run(&Args { config }, &mut out, &mut err);
        (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), dir)
    }

    const GOOD: &str = "[[apps]]\nid = \"a\"\n[apps.credential]\nkind = \"basic\"\napi_key = { file = \"$DIR/secret\" }\n\
                        api_secret = { file = \"$DIR/secret\" }\n";

    #[test]
    fn a_good_configuration_is_printed_whole_without_its_secrets() {
        let (result, out, err, dir) = check(GOOD);
        assert!(result.is_ok());
        assert!(out.contains("api_key = \"<redacted>\"") && out.contains("poll_interval = \"200ms\""), "{out}");
        assert!(!out.contains("hunter2") && !out.contains(dir.path().to_str().unwrap()), "{out}");
        let file = dir.path().join("gateway.toml");
        assert!(err.starts_with(&format!("warning: {}:1: clients: is empty", file.display())), "{err}");
    }

    #[test]
    fn each_fault_is_a_line_that_says_where_and_what_to_do() {
        let (result, out, err, dir) = check(&format!("[server]\nlisten = 1\nport = 2\n{GOOD}"));
        assert!(matches!(result, Err(CliError::Told)));
        assert_eq!(out, "");
        let file = dir.path().join("gateway.toml").display().to_string();
        let lines: Vec<&str> = err.lines().filter(|line| !line.starts_with("warning")).collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[0].starts_with(&format!("{file}:2: server.listen: must be an array. Write [")), "{err}");
        assert!(lines[1].starts_with(&format!("{file}:3: server.port: is not a known key. ")), "{err}");
    }
}
