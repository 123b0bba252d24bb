//! Logs: one JSON object a line on stderr, or text for people.
//!
//! Invariants: one subscriber for the process, set by the commands that run for long and by nothing else. The level can
//! be changed while running. Who logs never waits for who reads the log (see [`Lines`]). A panic is logged by its place
//! alone: its message may quote anything. What libraries say below `info` is never logged, whatever the level: hyper,
//! h2 and rustls trace whole heads, credentials included.

mod json_line;
mod lines;
mod moved;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use crate::config::LogFormat;

pub use self::json_line::JsonLine;
pub use self::lines::Lines;

/// How long a process that ends waits for what it has logged to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long a panic waits for its line to be written, in case the process dies of it.
const PANIC_LINE: Duration = Duration::from_millis(200);

/// The log of the process. What is buffered when it is dropped is written within a bounded time.
#[derive(Debug)]
pub struct Log {
    pub levels: Levels,
    /// The lines on their way.
    pub lines: Lines,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.flush(LAST_LINES);
    }
}

/// Changes the level of a running process.
#[derive(Clone, Debug)]
pub struct Levels(reload::Handle<Targets, Registry>);

/// Logging cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is no filter (checked by the configuration already).
    #[error("log.level is no filter: {0}")]
    Level(String),
    /// Another subscriber was set before.
    #[error("logging is set up already")]
    Twice,
    /// The system gave no thread or no descriptor.
    #[error("cannot log to stderr: {0}")]
    NoWriter(#[from] io::Error),
}

/// Sets up logging for the process. `RUST_LOG` goes before `level` when it is set.
///
/// # Errors
/// When the level does not parse, or logging was set up before.
pub fn init(level: &str, format: LogFormat) -> Result<Log, Error> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = Lines::to_stderr(format)?;
    let layer = match format {
        LogFormat::Json => fmt::layer().event_format(JsonLine).with_writer(lines.clone()).boxed(),
        LogFormat::Text => fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(lines.clone()).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(ceiling()).with(layer).try_init().map_err(|_| Error::Twice)?;
    let panics = lines.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        tracing::error!(place = place_of(panic), thread = thread.name().unwrap_or_default(), "panic");
        panics.flush(PANIC_LINE);
    }));
    Ok(Log { levels: Levels(handle), lines })
}

/// Says something on stderr where there is no log, line by line. Whoever reads it is waited for no longer than for a
/// log's last lines: a process that has nothing more to do ends, although nobody reads why.
pub fn tell(text: &str) {
    // Without a thread for it nobody is told.
    if let Ok(lines) = Lines::to_stderr(LogFormat::Text) {
        text.lines().for_each(|line| lines.tell(line));
        lines.flush(LAST_LINES);
    }
}

/// Makes every panic of a process that has no log say where it was, and nothing else, on stderr.
pub fn hush_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(io::stderr(), "rtm-gateway: panic at {}", place_of(panic));
    }));
}

fn place_of(panic: &std::panic::PanicHookInfo<'_>) -> String {
    panic.location().map(ToString::to_string).unwrap_or_default()
}

impl Levels {
    /// Changes the level. `RUST_LOG`, when set, stays in force.
    ///
    /// # Errors
    /// When the level does not parse.
    pub fn set(&self, level: &str) -> Result<(), Error> {
        let filter = filter(level)?;
        self.0.reload(filter).map_err(|e| Error::Level(e.to_string()))
    }
}

#[expect(clippy::disallowed_methods, reason = "RUST_LOG is read from the environment, as everywhere")]
fn filter(level: &str) -> Result<Targets, Error> {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let level = moved::renamed(asked.as_deref().unwrap_or(level));
    let parts: Vec<&str> = level.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    // The parser's own words would repeat the text, which comes from a file or the environment.
    parts.join(",").parse().map_err(|_| Error::Level("it does not parse".into()))
}

/// The most that is logged: of the gateway everything, of libraries what is for operators.
fn ceiling() -> Targets {
    Targets::new().with_target("rtm_gateway", LevelFilter::TRACE).with_default(LevelFilter::INFO)
}
