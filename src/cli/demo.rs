//! `rtm-gateway demo`: the whole job on loopback, on real requests, without any set-up.
//!
//! Invariants: everything it starts is on 127.0.0.1 and ends with it; its data is in a temporary folder that goes with
//! it. A step that does not hold is said and makes the command fail.

mod caller;
mod stage;
mod steps;

use std::io::Write;
use std::time::Duration;

use super::CliError;
use super::signals::stop_on_signal;
use super::stdout::UntilStopped;
use crate::kernel::names::Stream;
use stage::{APP, Stage};

/// What `demo` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  rtm-gateway demo\n  rtm-gateway demo --once\n\n\
    Without --once it stays up, with curl lines to try, until Ctrl-C.")]
pub(super) struct DemoArgs {
    /// Exit after the walk-through: 0 if every step held
    #[arg(long)]
    once: bool,
    /// Port for callers on 127.0.0.1 [default: 8080; with --once a free one]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Port for operators on 127.0.0.1 [default: 9090; with --once a free one]
    #[arg(long, value_name = "N")]
    admin_port: Option<u16>,
}

/// Runs the walk-through, and then stays up unless told not to.
/// Fails when a port is taken, or a step did not hold.
pub(super) fn run(args: &DemoArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let free = |given: Option<u16>, usual| given.unwrap_or(if args.once { 0 } else { usual });
    let (port, admin_port) = (free(args.port, 8080), free(args.admin_port, 9090));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = stop_on_signal()?.asked;
        let out = &mut UntilStopped::new(out, std::io::stdout(), stop.clone());
        let stage = Stage::start(port, admin_port).await?;
        writeln!(out, "A simulated vendor, a gateway and a store are up, on loopback and in a temporary folder.\n")?;
        writeln!(out, "vendor   {}", stage.vendor.base_url())?;
        writeln!(out, "gateway  http://{}", stage.gateway)?;
        writeln!(out, "operator http://{}\n", stage.operator)?;
        let held = steps::walk(&stage, out).await?;
        if !args.once && held {
            write!(out, "{}", invitation(&stage))?;
            out.flush()?;
            stay(&stage, &stop).await;
        }
        stage.end().await?;
        if held { Ok(()) } else { Err(CliError::Failed("a step of the demo did not hold; see above".into())) }
    })
}

/// Lets a few events occur each second until `stop`.
async fn stay(stage: &Stage, stop: &tokio_util::sync::CancellationToken) {
    let trickle = async {
        loop {
            stage.vendor.generate(APP, Stream::UserEvents, 2.0, Duration::from_secs(60)).await;
        }
    };
    stop.run_until_cancelled(trickle).await;
}

fn invitation(stage: &Stage) -> String {
    let (gateway, operator) = (stage.gateway, stage.operator);
    format!(
        "Try it (two events occur each second; Ctrl-C ends it):

  curl -s -H 'X-API-Key: demo-crm' 'http://{gateway}/dev/v2/project/{APP}/rtm/vendor/user_events?limit=3&wait=5s'
  curl -s -H 'X-API-Key: demo-audit' 'http://{gateway}/v1/apps/{APP}/events/user_events?limit=3&wait=5s'
  curl -s -H 'X-API-Key: demo-crm' -H 'Content-Type: application/json' -d '{{\"filter\":{{\"destination\":\"lobby\",\"start_time\":1,\"end_time\":4000000000}},\"limit\":150}}' http://{gateway}/dev/v2/project/{APP}/rtm/message/history/query
  curl -s -H 'X-API-Key: demo-crm' 'http://{gateway}/dev/v2/project/{APP}/rtm/message/history/count?destination=lobby&start_time=1&end_time=4000000000'
  curl -sN -H 'X-API-Key: demo-audit' -H 'Accept: text/event-stream' 'http://{gateway}/v1/apps/{APP}/events/all?subscription=live'
  curl -sN -H 'X-API-Key: demo-crm' -H 'Accept: application/x-ndjson' 'http://{gateway}/v1/apps/{APP}/history?destination=lobby&start_time=1&end_time=4000000000'
  curl -s http://{operator}/admin/v1/subscriptions
"
    )
}
