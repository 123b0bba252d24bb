//! `rtm-gateway events tail`: events as they come, for people and for pipes.
//!
//! Invariants:
//! - Each event is printed once, in order, across cut connections: it goes on after the last that was printed.
//! - Without `--subscription` nothing is taken from anybody: it reads by a place of its own.
//! - Only events go to stdout (as JSON also what the gateway says between them); all else goes to stderr.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use hyper::header::{ACCEPT, HeaderName};
use tokio::time::sleep;

use super::entry::{Entry, OutputFormat};
use super::sse::{Event, Parser};
use crate::cli::CliError;
use crate::cli::client::{Backoff, Client, Fault, StreamedAnswer, Target};
use crate::cli::signals::stop_on_signal;
use crate::cli::stdout::Stdout;
use crate::http::headers::X_RTM_CURSOR;
use crate::kernel::names::{Streams, SubscriptionName};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The first wait, until the gateway says another.
const RETRY: Duration = Duration::from_secs(1);

/// Prints events as they come, until Ctrl-C. Reconnects by itself and goes on after the last event it printed.
///
/// Exit status: 0 ended by Ctrl-C, SIGTERM, --limit or a reader that left; 1 refused by the gateway, or stdout failed;
/// 2 wrong usage.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TailArgs {
    #[command(flatten)]
    target: Target,
    /// Which events: `user_events`, `channel_events`, or `all` in the order received
    #[arg(long, value_parser = streams)]
    stream: Streams,
    /// Read as this subscription: what is printed is taken from it, and is not given to its other readers
    #[arg(long, value_name = "NAME", value_parser = SubscriptionName::parse)]
    subscription: Option<SubscriptionName>,
    /// Where to begin: earliest, latest, a time such as `2026-11-25T00:00:00Z`, or a cursor [default: latest; of a
    /// subscription: where it is, or the earliest if it is new]
    #[arg(long, value_name = "PLACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    from: Option<String>,
    /// Only such events: `type=…`, `user_id=…` or `group_id=…`, where `*` stands for any run. Several of one kind: any
    /// of them; several kinds: all
    #[arg(long = "filter", value_name = "KIND=PATTERN", value_parser = filter)]
    filters: Vec<(&'static str, String)>,
    /// How to print them
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    /// ConnectionEnd after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "subscription")]
    limit: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  rtm-gateway events tail --url https://gateway.example.net --key-file key --app my-app --stream user_events
  rtm-gateway events tail --url http://127.0.0.1:8080 --key-file key --app my-app --stream all \\
    --from 2026-11-25T08:00:00Z --filter 'type=Log*' --output json | jq .event

Without --subscription nobody's events are taken. --limit is not for a subscription: what is on its way when the
command ends may count as taken.";

/// Prints events until it is told to stop; what is not an event goes to `err`.
/// Fails when the gateway refuses, or stdout cannot be written.
pub(super) fn run(args: &TailArgs, err: &mut dyn Write) -> Result<(), CliError> {
    let client = Client::new(&args.target)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(async {
        let stop = stop_on_signal()?.asked;
        let mut tail = Tail { args, client, err, out: Stdout::default(), last: None, printed: 0, is_lost: false };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            done = tail.follow() => done,
            () = Stdout::left() => Ok(()),
        }
    });
    // A write that its reader does not take is not waited for.
    runtime.shutdown_background();
    match done {
        Err(CliError::Io(why)) if why.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

struct Tail<'a> {
    args: &'a TailArgs,
    client: Client,
    err: &'a mut dyn Write,
    out: Stdout,
    /// The cursor of the last event printed, or of where reading began.
    last: Option<String>,
    printed: u64,
    is_lost: bool,
}

/// Why a connection ended.
enum ConnectionEnd {
    Fault(Fault),
    Output(std::io::Error),
    Enough,
}

impl From<Fault> for ConnectionEnd {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Tail<'_> {
    async fn follow(&mut self) -> Result<(), CliError> {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let fault = match self.connect(&mut backoff).await {
                ConnectionEnd::Enough => return Ok(()),
                ConnectionEnd::Output(why) => return Err(why.into()),
                ConnectionEnd::Fault(fault) if !fault.may_pass() => return Err(CliError::Failed(fault.to_string())),
                ConnectionEnd::Fault(fault) => fault,
            };
            let wait = backoff.next(fault.retry_after());
            self.is_lost = true;
            self.say(&format!("connection lost: {fault}; trying again in {:.1} s", wait.as_secs_f64()));
            sleep(wait).await;
        }
    }

    /// Reads one connection to its end.
    async fn connect(&mut self, backoff: &mut Backoff) -> ConnectionEnd {
        let mut answer = match self.open().await {
            Ok(answer) => answer,
            Err(fault) => return fault.into(),
        };
        if std::mem::take(&mut self.is_lost) {
            self.say("connected again");
        }
        // A place that was named by `latest` or a time is kept: what comes while the connection is down is not missed.
        let begun = answer.headers().get(X_RTM_CURSOR).and_then(|cursor| cursor.to_str().ok());
        if self.last.is_none() {
            self.last = begun.map(str::to_owned);
        }
        let mut parser = Parser::default();
        loop {
            let events = match answer.chunk().await {
                Ok(Some(chunk)) => parser.push(&chunk),
                Ok(None) => return Fault::Lost("the gateway ended the stream".into()).into(),
                Err(fault) => return fault.into(),
            };
            let events = match events {
                Ok(events) => events,
                Err(why) => return Fault::Lost(why.to_string()).into(),
            };
            *backoff = Backoff::new(parser.retry().unwrap_or(RETRY));
            if let Err(end) = self.print(&events).await {
                return end;
            }
        }
    }

    async fn open(&self) -> Result<StreamedAnswer, Fault> {
        let args = self.args;
        let mut query = Vec::new();
        match (&args.subscription, &args.from) {
            (None, from) => query.push(("after", from.as_deref().unwrap_or("latest"))),
            (Some(name), from) => {
                query.push(("subscription", name.as_str()));
                query.extend(from.as_deref().map(|from| ("from", from)));
            }
        }
        query.extend(args.filters.iter().map(|(kind, pattern)| (*kind, pattern.as_str())));
        let mut headers = vec![(ACCEPT, "text/event-stream")];
        headers.extend(self.last.as_deref().map(|last| (LAST_EVENT_ID, last)));
        let path = format!("/v1/apps/{}/events/{}", args.target.app, args.stream);
        self.client.get(&path, &query, &headers).await
    }

    /// Prints events that came together, flushed to the last line.
    async fn print(&mut self, events: &[Event]) -> Result<(), ConnectionEnd> {
        let (mut lines, mut data, mut is_enough) = (Vec::new(), Vec::new(), false);
        let mut last = None;
        for event in events {
            let stream = if event.stream.is_empty() { self.args.stream.as_str() } else { &event.stream };
            let Some(entry) = Entry::read(event, &mut data) else {
                self.say("an event was passed over: it is no JSON");
                continue;
            };
            if let Some(warning) = entry.warning() {
                self.say(&warning);
            }
            entry.push(&mut lines, self.args.output, stream, event);
            last = Some(&event.id);
            self.printed += u64::from(matches!(entry, Entry::Event(_)));
            if self.args.limit == Some(self.printed) {
                is_enough = true;
                break;
            }
        }
        if !lines.is_empty() {
            self.out.write(lines).await.map_err(|torn| ConnectionEnd::Output(torn.into()))?;
        }
        if let Some(last) = last.filter(|last| !last.is_empty()) {
            self.last = Some(last.clone());
        }
        if is_enough { Err(ConnectionEnd::Enough) } else { Ok(()) }
    }

    fn say(&mut self, text: &str) {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(self.err, "rtm-gateway: {text}");
    }
}

fn streams(text: &str) -> Result<Streams, &'static str> {
    Streams::parse(text).ok_or("must be user_events, channel_events or all")
}

fn filter(text: &str) -> Result<(&'static str, String), &'static str> {
    let (kind, pattern) = text.split_once('=').ok_or("must be KIND=PATTERN, such as type=Login")?;
    let kinds = ["type", "user_id", "group_id"];
    let kind = kinds.into_iter().find(|known| *known == kind).ok_or("its kind must be type, user_id or group_id")?;
    Ok((kind, pattern.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_a_kind_and_a_pattern_that_may_hold_anything() {
        assert_eq!(filter("user_id=a=b*"), Ok(("user_id", "a=b*".into())));
        assert!(filter("Login").is_err() && filter("uid=1").is_err());
    }
}
