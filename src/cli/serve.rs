//! `rtm-gateway serve`: runs the gateway until it is told to stop.

use std::io::Write;
use std::path::PathBuf;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::CliError;
use super::harden::harden;
use crate::app::{App, Stop, Watch};
use crate::clock::Clock;
use crate::config::{Config, LogFormat};
use crate::descriptors::raise_limit;
use crate::reload;
use crate::telemetry::{self, Lines};

/// What `serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway serve --config config/gateway.toml\n\n\
    SIGTERM and Ctrl-C stop it in order, a second one hurries that. SIGHUP, or a changed file, reloads the configuration.")]
pub struct Args {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Log as one JSON object a line, or as text for people; goes before log.format
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Json,
    Text,
}

/// Runs the gateway.
///
/// # Errors
/// When the configuration is not valid, an address is taken, or the store cannot be opened.
pub fn run(args: &Args, err: &mut dyn Write) -> Result<(), CliError> {
    // Before the first secret is read.
    let hardened = harden();
    // And before what takes time: who asks for a reload or for new log files while we read does not mean to end us.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    spare_signals(&runtime)?;
    let (loaded, seen) = reload::read(&args.config);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => {
            writeln!(err, "{faults}")?;
            return Err(CliError::Told);
        }
    };
    let format = match args.log_format {
        Some(Format::Json) => LogFormat::Json,
        Some(Format::Text) => LogFormat::Text,
        None => loaded.config.log.format,
    };
    raise_limit();
    let log = telemetry::init(&loaded.config.log.level, format)?;
    if let Err(why) = hardened {
        tracing::warn!(%why, "core dumps cannot be turned off here: see to it outside");
    }
    for warning in &loaded.warnings {
        tracing::warn!(warning = %warning.in_file(&args.config), "configuration");
    }
    let watch = Watch { path: args.config.clone(), seen, levels: Some(log.levels.clone()) };
    serve(runtime, loaded.config, watch, &log.lines).map_err(|why| {
        // By the log's way out: nobody may read stderr.
        log.lines.tell(&format!("rtm-gateway: {why}"));
        CliError::Told
    })
}

/// From now on these end nothing, whoever listens for them. A SIGHUP that comes before the reloader listens is lost, and
/// not missed: the file's change is found without it.
fn spare_signals(runtime: &Runtime) -> std::io::Result<()> {
    let _entered = runtime.enter();
    for spared in [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()] {
        let _ = signal(spared)?;
    }
    Ok(())
}

fn serve(runtime: Runtime, config: Config, watch: Watch, log: &Lines) -> Result<(), CliError> {
    let done: Result<(), CliError> = runtime.block_on(async {
        let stop = stop_on_signal()?;
        let app = App::build(config, Clock::system()).await.map_err(crate::app::RunError::from)?;
        log.count_dropped_in(&app.parts().metrics.log_lines_dropped);
        for address in app.addresses() {
            tracing::info!(%address, "listening for callers");
        }
        tracing::info!(address = %app.admin_address(), "listening for operators");
        app.run(stop, Some(watch)).await?;
        Ok(())
    });
    // What must end has ended. A look at files that hang need not.
    runtime.shutdown_background();
    done
}

/// What SIGTERM and SIGINT ask for: the first a stop in order, the second that it be hurried. The signals that others
/// mean something by (USR1, USR2) are passed over, not died of.
pub(super) fn stop_on_signal() -> std::io::Result<Stop> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Whoever listens once takes the signal's deadly meaning from it for good.
    for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        let _ = signal(ignored)?;
    }
    let stop = Stop::default();
    let told = stop.clone();
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process: there is no group to own it")]
    tokio::spawn(async move {
        for told in [told.asked, told.hurried] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.cancel();
        }
    });
    Ok(stop)
}
