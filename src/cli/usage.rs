//! Wrong usage, said without repeating what was typed: a secret on the command line must not land in a build's log too.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// What stands for the user's own text.
const HIDDEN: &str = "...";

/// Prints what clap has to say, and says how the process ends. It ends although nobody reads that: `serve` listens for
/// the signals by now that would end a process that waits for a reader. A terminal has one, and gets it in colours.
pub(super) fn exit(mut why: Error) -> ExitCode {
    hide(&mut why);
    if why.use_stderr() && !io::stderr().is_terminal() {
        crate::app::telemetry::tell(&why.render().to_string());
    } else {
        // A closed stream leaves nobody to tell.
        let _ = why.print();
    }
    u8::try_from(why.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Takes the user's values out of an error. Names of flags stay: they are ours, or begin with `--` and end before `=`.
fn hide(why: &mut Error) {
    if matches!(why.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return;
    }
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        if why.get(kind).is_some() {
            why.insert(kind, ContextValue::String(HIDDEN.to_owned()));
        }
    }
    let is_text = |value: &ContextValue| matches!(value, ContextValue::String(text) if !text.starts_with("--"));
    if why.kind() == ErrorKind::UnknownArgument && why.get(ContextKind::InvalidArg).is_some_and(is_text) {
        why.insert(ContextKind::InvalidArg, ContextValue::String(HIDDEN.to_owned()));
    }
    // Tips repeat it.
    why.remove(ContextKind::Suggested);
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn wrong_usage_is_explained_without_the_users_text() {
        let secret = "hunter2-hunter2";
        let certificate = ["token", "mint", "--app-id", "a", "--certificate-file", "f", "--uid", "u"];
        for arguments in [
            &[secret][..],
            &["token", secret],
            &["token", "inspect", "006", secret],
            &["token", "mint", "--app-id", secret, secret],
            &["token", "mint", "--app-id", "hunter2 hunter2-hunter2"],
            &[&certificate[..], &["--ts", secret]].concat(),
            &[&certificate[..], &["--privilege-expire", secret]].concat(),
            &[&certificate[..], &["--no-such=hunter2-hunter2"]].concat(),
            &["serve", "--log-format", secret],
            &["serve", "--config", "f", "-hunter2-hunter2"],
            &["client-key", "hunter2-hunter2 not-a-name"],
        ] {
            let Err(mut why) = Cli::try_parse_from([&["rtm-gateway"][..], arguments].concat()) else {
                panic!("{arguments:?} is right usage");
            };
            hide(&mut why);
            let said = why.render().to_string();
            assert!(!said.contains("unter2") && said.contains("--help"), "{arguments:?}: {said}");
        }
    }
}
