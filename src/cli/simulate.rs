//! `rtm-gateway simulate`: the simulated vendor alone, for people and for other machines' tests.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::CliError;
use super::signals::stop_on_signal;
use super::stdout::UntilStopped;
use crate::kernel::clock::Clock;
use crate::kernel::files;
use crate::kernel::names::Stream;
use crate::simulator::config::Config;
use crate::simulator::{Credential, Listen, Message, Sim, World};

/// What `simulate` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rtm-gateway simulate --listen 127.0.0.1:8801\n\n\
    Without a configuration it serves the app demo-app (key demo-key, secret demo-secret), in which an event of each \
    stream occurs every second. Ctrl-C stops it.")]
pub(super) struct SimulateArgs {
    /// Where the first region listens; port 0 is a free one
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Apps, limits, regions, event rates and faults (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the simulated vendor until SIGTERM or SIGINT.
/// Fails when the configuration is not valid or an address is taken.
pub(super) fn run(args: &SimulateArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let config = match &args.config {
        None => Config::demo(),
        Some(path) => {
            let failed = |why: String| CliError::Failed(format!("{}: {why}", path.display()));
            let text = files::read(path, files::CONFIGURATION).map_err(|why| failed(why.to_string()))?;
            let text = std::str::from_utf8(&text).map_err(|why| failed(why.to_string()))?;
            Config::parse(text).map_err(|e| failed(e.to_string()))?
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = stop_on_signal()?.asked;
        let mut out = UntilStopped::new(out, std::io::stdout(), stop.clone());
        serve(args.listen, &config, &stop, &mut out).await
    })
}

async fn serve(
    listen: SocketAddr,
    config: &Config,
    stop: &CancellationToken,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let world = config.world(Clock::system());
    let mut regions = vec![region(&world, "default", listen).await?];
    for (name, addr) in &config.regions {
        regions.push(region(&world, name, *addr).await?);
    }
    for sim in &regions {
        sim.random(config.faults.clone());
    }
    for (app, _) in &config.apps {
        for (minutes, message) in [
            (3, Message::peer("alice", "bob", "hello")),
            (2, Message::peer("bob", "alice", "hello yourself")),
            (1, Message::channel("alice", "lobby", "hello all")),
        ] {
            world.add_message(&app.id, message.at(world.clock().wall_ms().before(Duration::from_secs(60 * minutes)).0));
        }
    }
    out.write_all(greeting(&regions, config).as_bytes())?;
    out.flush()?;
    let load =
        config.apps.iter().filter(|(_, rate)| *rate > 0.0).flat_map(|(app, rate)| {
            Stream::ALL.map(|stream| regions[0].generate(&app.id, stream, *rate, Duration::MAX))
        });
    stop.run_until_cancelled(join_all(load)).await;
    stop.cancelled().await;
    for sim in &regions {
        sim.stop().await;
    }
    writeln!(out, "stopped; violations: {}", world.violations().len())?;
    Ok(())
}

async fn region(world: &World, name: &str, addr: SocketAddr) -> Result<Sim, CliError> {
    let listening = Sim::listen(world, name, Listen { addr: Some(addr), tls: None }).await;
    listening.map_err(|why| CliError::Failed(format!("cannot listen on {addr}: {why}")))
}

/// What it listens on, what opens it, and lines to try.
fn greeting(regions: &[Sim], config: &Config) -> String {
    let mut lines: Vec<String> =
        regions.iter().map(|sim| format!("simulated vendor, region {}: {}", sim.name(), sim.base_url())).collect();
    let base = regions.first().map(Sim::base_url).unwrap_or_default();
    for (app, _) in &config.apps {
        lines.push(format!("app {}:", app.id));
        for credential in &app.credentials {
            lines.push(match credential {
                // Its secrets are toys: without them nobody could try it.
                Credential::Basic { key, secret } => format!("  key {key}, secret {}", secret.expose()),
                Credential::Certificate(certificate) => format!("  certificate {}", certificate.expose()),
            });
        }
        let user = app.credentials.iter().find_map(|c| match c {
            Credential::Basic { key, secret } => Some(format!("-u '{key}:{}' ", secret.expose())),
            Credential::Certificate(_) => None,
        });
        if let Some(user) = user {
            let rtm = format!("'{base}/dev/v2/project/{}/rtm", app.id);
            lines.push(format!("  curl {user}{rtm}/vendor/user_events'"));
            lines.push(format!(
                "  curl {user}{rtm}/message/history/count?source=alice&start_time=0&end_time=4102444800'"
            ));
        }
        lines.push(format!("  curl -d '{{\"count\": 3}}' '{base}/_sim/apps/{}/events/user_events'", app.id));
    }
    lines.push("look on, and make it fail:".into());
    lines.push(format!("  curl '{base}/_sim/stats'"));
    lines.push(format!("  curl '{base}/_sim/violations'"));
    lines
        .push(format!("  curl -d '{{\"endpoint\": \"user_events\", \"fault\": \"drop_after\"}}' '{base}/_sim/faults'"));
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_says_how_to_reach_it_and_stops_when_told() {
        let stop = CancellationToken::new();
        let mut out = Told { stop: stop.clone(), text: Vec::new() };
        serve("127.0.0.1:0".parse().unwrap(), &Config::demo(), &stop, &mut out).await.unwrap();
        let text = String::from_utf8(out.text).unwrap();
        assert!(text.starts_with("simulated vendor, region default: http://127.0.0.1:"), "{text}");
        assert!(text.contains("key demo-key, secret demo-secret"), "{text}");
        assert!(text.ends_with("stopped; violations: 0\n"), "{text}");
    }

    /// Tells the command to stop once it has greeted.
    struct Told {
        stop: CancellationToken,
        text: Vec<u8>,
    }

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.stop.cancel();
            self.text.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
