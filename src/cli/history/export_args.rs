//! [`ExportArgs`]: what `history export` takes, and which messages that asks for.
//!
//! Invariant: two command lines that ask for the same messages in the same form have the same digest, whenever they are
//! run; so an interrupted export goes on, and no other goes on in its place.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::partial_file::{ExportRequest, Window};
use crate::cli::client::Target;
use crate::kernel::clock::Clock;

/// How long the vendor keeps messages.
const KEPT: u64 = 7 * 86_400;

/// Exports messages, one JSON object a line, as the vendor wrote them.
///
/// Exit status: 0 complete; 1 failed, and nothing was kept; 2 wrong usage; 3 partial: the same command goes on where it
/// ended (to stdout: what was written is good, but incomplete).
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    who: Who,
    /// From when on: seconds since 1970, or a time such as `2026-11-25T00:00:00Z` [default: seven days ago]
    #[arg(long, value_name = "TIME")]
    start_time: Option<String>,
    /// Until when [default: now]
    #[arg(long, value_name = "TIME")]
    end_time: Option<String>,
    /// Oldest first, or newest first
    #[arg(long, value_enum, default_value = "asc")]
    pub(super) order: Order,
    /// The file to write, or - for stdout
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) output: PathBuf,
    /// Pack with gzip
    #[arg(long)]
    pub(super) gzip: bool,
    /// Begin anew: give up an interrupted export of that file, replace the file
    #[arg(long)]
    pub(super) restart: bool,
}

/// Whose messages.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Who {
    /// The user who sent them; one of this and --destination is needed
    #[arg(long, value_name = "USER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    source: Option<String>,
    /// The user or channel they were sent to
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    destination: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Order {
    Asc,
    Desc,
}

const EXAMPLES: &str = "\
Examples:
  rtm-gateway history export --url https://gateway.example.net --key-file key --app my-app --source alice \\
    --start-time 2026-11-24T00:00:00Z --end-time 2026-11-25T00:00:00Z --output alice.ndjson.gz --gzip
  rtm-gateway history export --url http://127.0.0.1:8080 --key-file key --app my-app --destination lobby | jq .payload

A file is written as FILE.part, with FILE.part.json beside it, and gets its name when it is complete. An export that was
interrupted, by whatever, goes on when the same command is run again.";

impl ExportArgs {
    pub(super) fn path(&self, before: &str, after: &str) -> String {
        format!("/{before}/{}/{after}", self.target.app)
    }

    pub(super) fn query<'a>(&'a self, window: &'a Window) -> Vec<(&'a str, &'a str)> {
        let who = [("source", &self.who.source), ("destination", &self.who.destination)];
        let mut query: Vec<_> = who.into_iter().filter_map(|(name, who)| Some((name, who.as_deref()?))).collect();
        query.extend([("start_time", window.start_time.as_str()), ("end_time", window.end_time.as_str())]);
        query
    }

    /// What tells this export from another. A time that is left open is the same export later, too.
    pub(super) fn request(&self, clock: &Clock) -> ExportRequest {
        let now = clock.wall_ms().seconds();
        let all = serde_json::json!([
            self.target.app.to_string(),
            self.who.source,
            self.who.destination,
            self.start_time,
            self.end_time,
            self.order.as_str(),
            self.gzip,
        ]);
        let digest = Sha256::digest(all.to_string()).iter().map(|byte| format!("{byte:02x}")).collect();
        let start_time = self.start_time.clone().unwrap_or_else(|| now.saturating_sub(KEPT).to_string());
        let end_time = self.end_time.clone().unwrap_or_else(|| now.to_string());
        ExportRequest { digest, window: Window { start_time, end_time }, is_packed: self.gzip }
    }
}

impl Order {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}
