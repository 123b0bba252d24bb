//! `rtm-gateway check`: all that is wrong with a configuration, or all that it comes to.

mod trials;

use std::io::Write;
use std::path::PathBuf;

use self::trials::TrialReport;
use super::CliError;
use crate::config::{App, load, show};
use crate::kernel::clock::Clock;
use crate::kernel::metrics::Metrics;
use crate::tls::{Tls, TlsDoor};

/// Checks a configuration and prints what it comes to, every default filled in and every secret hidden.
///
/// Reads everything that `serve` would, secrets and certificates too, and tries what it will need (addresses, the
/// store's folder) without leaving a trace; what a running gateway holds is a warning. Warnings and faults go to stderr
/// as `FILE:LINE: key.path: what. mend.`
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway check --config config/gateway.toml")]
pub(super) struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Look at the text alone: at no path, socket or secret that it names, as where it is not deployed.
    #[arg(long)]
    offline: bool,
}

/// Prints the effective configuration to `out`, warnings and faults to `err`.
/// Fails with [`CliError::Reported`] when there are faults; they are written by then.
pub(super) fn run(args: &CheckArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let file = &args.config;
    match if args.offline { load::offline(file) } else { load::from_file(file) } {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(err, "warning: {}", warning.in_file(file))?;
            }
            let tried = if args.offline { TrialReport::default() } else { trials::all(&loaded.config) };
            for warning in &tried.warnings {
                writeln!(err, "warning: {}", warning.in_file(file))?;
            }
            for fault in &tried.faults {
                writeln!(err, "{}", fault.in_file(file))?;
            }
            if !tried.faults.is_empty() {
                return Err(CliError::Reported);
            }
            let doors = [(TlsDoor::Callers, &loaded.config.server.tls), (TlsDoor::Operators, &loaded.config.admin.tls)];
            for (door, files) in doors.into_iter().filter(|_| !args.offline) {
                if let Some(files) = files
                    && let Err(why) = Tls::open(files, door, &Clock::system(), &Metrics::new())
                {
                    writeln!(err, "{}: {why}", file.display())?;
                    return Err(CliError::Reported);
                }
            }
            if let Some(note) = one_store(&loaded.config.apps) {
                writeln!(err, "note: {note}")?;
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
            Err(CliError::Reported)
        }
    }
}

/// What no configuration can show, and costs events when it is not known. `None`: no app's events are read.
fn one_store(apps: &[App]) -> Option<String> {
    let reading: Vec<_> = apps.iter().filter(|app| !app.events.streams.is_empty()).map(|app| app.id.as_str()).collect();
    (!reading.is_empty()).then(|| {
        format!(
            "exactly one gateway store may read the events of an App ID (here: {}): a second one takes a part of them, \
             unnoticed. Another gateway for it needs streams = [] in [apps.events]",
            reading.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Result<(), CliError>, String, String, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "hunter2").unwrap();
        let config = dir.path().join("gateway.toml");
        let [path, name] = [dir.path().as_os_str(), dir.path().file_name().unwrap()].map(|it| it.to_str().unwrap());
        std::fs::write(&config, text.replace("$DIR", path).replace("$NAME", name)).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = run(&CheckArgs { config, offline: false }, &mut out, &mut err);
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
        assert_eq!(
            err.matches("note: exactly one gateway store may read the events of an App ID (here: a)").count(),
            1
        );
        let (result, _, err, _dir) = check(&format!("{GOOD}[apps.events]\nstreams = []\n"));
        assert!(result.is_ok() && !err.contains("note:"), "{err}");
    }

    #[test]
    fn each_fault_is_a_line_that_says_where_and_what_to_do() {
        let (result, out, err, dir) = check(&format!("[server]\nlisten = 1\nport = 2\n{GOOD}"));
        assert!(matches!(result, Err(CliError::Reported)));
        assert_eq!(out, "");
        let file = dir.path().join("gateway.toml").display().to_string();
        let lines: Vec<&str> = err.lines().filter(|line| !line.starts_with("warning")).collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[0].starts_with(&format!("{file}:2: server.listen: must be an array. Write [")), "{err}");
        assert!(lines[1].starts_with(&format!("{file}:3: server.\"…\": is not a known key. ")), "{err}");
    }

    #[test]
    fn what_serve_needs_is_tried_and_nothing_is_left_behind() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sound = "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        for (text, said) in [
            (
                "[server]\nlisten = [\"unix:$DIR/s\", \"unix:$DIR/../$NAME/s\"]\n".to_owned(),
                "server.listen[1]: is another listener's path",
            ),
            (
                "[server]\nlisten = [\"unix:$DIR/data\"]\n[store]\npath = \"$DIR/data\"\n".to_owned(),
                "server.listen[0]: is a path that the store needs",
            ),
            (format!("{sound}[store]\npath = \"$DIR/secret/below\"\n"), "store.path: cannot hold the store"),
            ("[server]\nlisten = [\"unix:$DIR/none/s.sock\"]\n".to_owned(), "server.listen[0]: cannot be listened on"),
            ("[server]\nlisten = [\"unix:$DIR/secret\"]\n".to_owned(), "no socket"),
            ("[server]\nlisten = [\"192.0.2.1:80\"]\n".to_owned(), "server.listen[0]: cannot be listened on"),
            (
                format!("[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"unix:$DIR/{}\"\n", "s".repeat(120)),
                "admin.listen",
            ),
        ] {
            let (result, out, err, dir) = check(&format!("{text}{GOOD}"));
            assert!(matches!(result, Err(CliError::Reported)) && out.is_empty() && err.contains(said), "{text}: {err}");
            let left: std::collections::BTreeSet<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            assert_eq!(left, ["gateway.toml", "secret"].map(str::to_owned).into());
        }
        let address = taken.local_addr().unwrap();
        let running = format!("[server]\nlisten = [\"{address}\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n");
        let (result, _, err, _dir) = check(&format!("{running}[store]\npath = \"$DIR/data\"\n{GOOD}"));
        assert!(result.is_ok() && err.contains("server.listen[0]: another process listens"), "{err}");
    }

    #[test]
    fn offline_no_path_socket_or_secret_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("gateway.toml");
        let text = "[server]\nlisten = [\"192.0.2.1:80\", \"unix:/nowhere/s\"]\n[server.tls]\ncert = \"no.pem\"\nkey = \"no.key\"\n\
                    client_ca = \"no.pem\"\nclient_crl = \"no.crl\"\n[store]\npath = \"/etc/passwd\"\n[upstream]\nca_file = \"no.pem\"\n\
                    [identity.jwt]\nissuer = \"https://i\"\naudience = \"a\"\njwks_file = \"no.json\"\nalgorithms = [\"ES256\"]\n\
                    [[apps]]\nid = \"a\"\n[apps.credential]\nkind = \"basic\"\napi_key = { env = \"RTM_NOT_SET\" }\n\
                    api_secret = { file = \"/nowhere/secret\" }\n";
        std::fs::write(&config, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = run(&CheckArgs { config, offline: true }, &mut out, &mut err);
        assert!(result.is_ok(), "{}", String::from_utf8_lossy(&err));
    }
}
