//! `rtm-gateway history export`: all messages of a window, in a file or on stdout.
//!
//! Invariants:
//! - Messages are written when the cursor after them has come, and none else: what a cut stream gave beyond its last
//!   cursor is thrown away and given again. So each message is written once, across cut connections.
//! - It is complete if and only if the stream's own `end` was read, whose count is that of what it gave.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::ACCEPT;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::export_args::ExportArgs;
use super::line::{BadLine, Lines, StreamLine};
use super::output::{ExportOutput, PipedExport};
use super::partial_file::{PartialFile, PartialFileError, Window};
use super::progress::Progress;
use crate::cli::CliError;
use crate::cli::client::{Backoff, Client, Fault};
use crate::cli::signals::stop_on_signal;
use crate::cli::stdout::Stdout;
use crate::kernel::clock::Clock;

const RETRY: Duration = Duration::from_millis(500);
/// Tries in a row that bring nothing.
const MAX_TRIES: u32 = 6;
/// How often a file is synced and its record written.
const CHECKPOINT: Duration = Duration::from_secs(2);
/// How long the count is waited for, which is only for show.
const COUNT: Duration = Duration::from_secs(10);

/// Exports; what is not a message goes to `err`.
/// Fails with [`CliError::Partial`] when there is something to go on with; else that it failed.
pub(super) fn run(args: &ExportArgs, err: &mut dyn Write) -> Result<(), CliError> {
    let client = Client::new(&args.target)?;
    let clock = Clock::system();
    let request = args.request(&clock);
    let output = if args.output.as_os_str() == "-" {
        ExportOutput::Stdout(PipedExport::new(args.gzip))
    } else {
        let opened = PartialFile::begin(&args.output, &request, args.restart);
        ExportOutput::File(Box::new(opened.map_err(|why: PartialFileError| CliError::Failed(why.to_string()))?))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(export(args, &client, clock, (output, request.window), err));
    // A write that its reader does not take is not waited for.
    runtime.shutdown_background();
    done
}

async fn export(
    args: &ExportArgs,
    client: &Client,
    clock: Clock,
    (output, window): (ExportOutput, Window),
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let stop = stop_on_signal()?.asked;
    let is_piped = matches!(output, ExportOutput::Stdout(_));
    let window = if let ExportOutput::File(part) = &output { part.window().clone() } else { window };
    let before = output.messages();
    if before > 0 {
        let _ = writeln!(err, "rtm-gateway: going on after {before} messages");
    }
    let mut query = args.query(&window);
    let total = tokio::select! {
        () = stop.cancelled() => None,
        total = count(client, args, &query) => total,
    };
    query.push(("order", args.order.as_str()));
    let synced = clock.now();
    let progress = Progress::new(err, clock.clone(), before, total);
    let mut run = Export { client, path: args.path("v1/apps", "history"), query, output, progress, clock, synced };
    // A file is written on although stdout's reader has left.
    let left = async { if is_piped { Stdout::left().await } else { std::future::pending().await } };
    let why = tokio::select! {
        biased;
        () = stop.cancelled() => Err("it was told to stop".to_owned()),
        done = run.complete() => done,
        () = left => Err("nobody reads stdout any more".to_owned()),
    };
    let Export { mut output, progress, .. } = run;
    let why = match why {
        Ok(()) => match output.finish().await {
            Ok(()) => {
                progress.end("complete", output.messages());
                return Ok(());
            }
            Err(why) => format!("the output cannot be completed: {why}"),
        },
        Err(why) => why,
    };
    let messages = output.messages();
    progress.end("not complete", messages);
    Err(output.leave(&why, messages))
}

/// How many messages there are in all, when the gateway tells.
async fn count(client: &Client, args: &ExportArgs, query: &[(&str, &str)]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Count {
        count: u64,
    }
    let path = args.path("dev/v2/project", "rtm/message/history/count");
    let asking = async {
        let body = client.get(&path, query, &[]).await.ok()?.whole().await.ok()?;
        serde_json::from_slice::<Count>(&body).ok()
    };
    timeout(COUNT, asking).await.ok()?.map(|found| found.count)
}

struct Export<'a> {
    client: &'a Client,
    path: String,
    query: Vec<(&'a str, &'a str)>,
    output: ExportOutput,
    progress: Progress<'a>,
    clock: Clock,
    synced: Instant,
}

/// Why a stream ended before its end.
enum StreamError {
    Fault(Fault),
    Output(std::io::Error),
}

impl From<Fault> for StreamError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Export<'_> {
    async fn complete(&mut self) -> Result<(), String> {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let before = self.output.cursor().map(str::to_owned);
            let fault = match self.stream().await {
                Ok(()) => return Ok(()),
                Err(StreamError::Output(why)) if why.kind() == ErrorKind::BrokenPipe => {
                    return Err("nobody reads stdout any more".into());
                }
                Err(StreamError::Output(why)) => return Err(format!("the output cannot be written: {why}")),
                Err(StreamError::Fault(fault)) if !fault.may_pass() => return Err(fault.to_string()),
                Err(StreamError::Fault(fault)) => fault,
            };
            if self.output.cursor() != before.as_deref() {
                backoff.progress();
            }
            if backoff.tries() + 1 >= MAX_TRIES {
                return Err(format!("{fault}; given up after {MAX_TRIES} tries without progress"));
            }
            let wait = backoff.next(fault.retry_after());
            self.progress.say(&format!("the stream was cut: {fault}; trying again in {:.1} s", wait.as_secs_f64()));
            sleep(wait).await;
        }
    }

    /// Reads one stream. `Ok`: to its end.
    async fn stream(&mut self) -> Result<(), StreamError> {
        let cursor = self.output.cursor().map(str::to_owned);
        let mut query = self.query.clone();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let mut answer = self.client.get(&self.path, &query, &[(ACCEPT, "application/x-ndjson")]).await?;
        let (mut lines, mut pending) = (Lines::default(), Vec::new());
        let (mut count, mut all) = (0, 0);
        let bad = |why: BadLine| Fault::Refused(why.to_string());
        loop {
            let Some(chunk) = answer.chunk().await? else {
                return Err(Fault::Lost("it ended without its last line".into()).into());
            };
            lines.push(&chunk).map_err(bad)?;
            while let Some(line) = lines.next() {
                match StreamLine::read(line).map_err(bad)? {
                    StreamLine::Message => {
                        pending.extend_from_slice(line);
                        pending.push(b'\n');
                        count += 1;
                    }
                    StreamLine::Cursor(cursor) => {
                        all += count;
                        self.keep(std::mem::take(&mut pending), std::mem::take(&mut count), &cursor).await?;
                    }
                    StreamLine::End { messages, .. } if messages != all + count => {
                        let why = format!("the gateway counted {messages} messages, but {} came", all + count);
                        return Err(Fault::Refused(why).into());
                    }
                    StreamLine::End { cursor, .. } => return self.keep(pending, count, &cursor).await,
                    StreamLine::Broken { status, detail, .. } => {
                        // What came is whole up to the last cursor line; the rest comes again.
                        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                        return Err(Fault::said(status, &detail, None).into());
                    }
                }
            }
        }
    }

    async fn keep(&mut self, text: Vec<u8>, messages: u64, cursor: &str) -> Result<(), StreamError> {
        self.output.append(text, messages, cursor).await.map_err(StreamError::Output)?;
        self.progress.more(messages);
        let now = self.clock.now();
        if let ExportOutput::File(part) = &mut self.output
            && now - self.synced >= CHECKPOINT
        {
            self.synced = now;
            part.checkpoint().map_err(StreamError::Output)?;
        }
        Ok(())
    }
}
