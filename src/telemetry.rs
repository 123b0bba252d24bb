//! Logs: one JSON object a line on stderr, or text for people.
//!
//! Invariants: one subscriber for the process, set by the commands that run for long and by nothing else. The level can
//! be changed while running. A panic is logged by its place alone: its message may quote anything. What libraries say
//! below `info` is never logged, whatever the level: hyper, h2 and rustls trace whole heads, credentials included.

use std::io::{IsTerminal as _, Write as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config::LogFormat;

/// Changes the level of a running process.
#[derive(Clone, Debug)]
pub struct Levels(reload::Handle<EnvFilter, Registry>);

/// Logging cannot be set up or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The level is no filter (checked by the configuration already).
    #[error("log.level is no filter: {0}")]
    Level(String),
    /// Another subscriber was set before.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the process. `RUST_LOG` goes before `level` when it is set.
///
/// # Errors
/// When the level does not parse, or logging was set up before.
pub fn init(level: &str, format: LogFormat) -> Result<Levels, Error> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = match format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
        LogFormat::Text => fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(ceiling()).with(lines).try_init().map_err(|_| Error::Twice)?;
    hush_panics();
    Ok(Levels(handle))
}

/// Makes every panic of the process say where it was, and nothing else: in the log if there is one, else on stderr.
pub fn hush_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if tracing::dispatcher::has_been_set() {
            let thread = std::thread::current();
            tracing::error!(place, thread = thread.name().unwrap_or_default(), "panic");
        } else {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "rtm-gateway: panic at {place}");
        }
    }));
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
fn filter(level: &str) -> Result<EnvFilter, Error> {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let level = asked.as_deref().unwrap_or(level);
    // Such text makes the parser panic, not fail; the configuration refuses it already.
    if !level.is_ascii() {
        return Err(Error::Level("holds a character that no filter has".into()));
    }
    // The parser's own words would repeat the text, which comes from a file or the environment.
    EnvFilter::try_new(level).map_err(|_| Error::Level("it does not parse".into()))
}

/// The most that is logged: of the gateway everything, of libraries what is for operators.
fn ceiling() -> Targets {
    Targets::new().with_target("rtm_gateway", LevelFilter::TRACE).with_default(LevelFilter::INFO)
}
