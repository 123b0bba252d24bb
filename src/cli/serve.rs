//! `rtm-gateway serve`: runs the gateway until it is told to stop.

use std::path::PathBuf;

use super::CliError;
use super::harden::harden;
use super::signals::Signals;
use crate::app::reload;
use crate::app::telemetry::{self, Lines};
use crate::app::{App, Watch};
use crate::config::{Config, LogFormat};
use crate::kernel::clock::Clock;
use crate::server::descriptors::raise_limit;

/// What `serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway serve --config config/gateway.toml\n\n\
    SIGTERM and Ctrl-C stop it in order, a second one hurries that. SIGHUP, or a changed file, reloads the configuration.")]
pub(super) struct ServeArgs {
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
/// Fails when the configuration is not valid, an address is taken, or the store cannot be opened.
pub(super) fn run(args: &ServeArgs, signals: Signals) -> Result<(), CliError> {
    // Before the first secret is read.
    let hardened = harden();
    let (loaded, seen) = reload::read(&args.config);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => {
            telemetry::tell(&faults.to_string());
            return Err(CliError::Reported);
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
    serve(loaded.config, watch, signals, &log.lines).map_err(|why| {
        // By the log's way out: nobody may read stderr.
        log.lines.tell(&format!("rtm-gateway: {why}"));
        CliError::Reported
    })
}

fn serve(config: Config, watch: Watch, signals: Signals, log: &Lines) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done: Result<(), CliError> = runtime.block_on(async {
        let stop = signals.stop()?;
        let app = App::build(config, Clock::system()).await.map_err(crate::app::RunError::from)?;
        log.count_dropped_in(&app.parts().metrics.log_lines_dropped);
        for address in app.addresses() {
            tracing::info!(%address, "listening for callers");
        }
        tracing::info!(address = %app.admin_address(), "listening for operators");
        app.run(stop, Some(watch)).await?;
        Ok(())
    });
    // What must end has ended. A look at files that hang, or a disk that does, need not.
    runtime.shutdown_background();
    done
}
