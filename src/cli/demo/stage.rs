//! What the demo plays on: a simulated vendor with some history, and a gateway in front of it, in one process.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::app::{App, RunError};
use crate::cli::CliError;
use crate::config::{Listen, load};
use crate::kernel::clock::Clock;
use crate::kernel::task::{Kind, Tasks};
use crate::simulator::{self, Message, Sim};

/// The demo's App ID.
pub(super) const APP: &str = "demo-app";
/// Messages in the channel `lobby`.
pub(super) const MESSAGES: usize = 250;

/// Vendor and gateway, running.
pub(super) struct Stage {
    pub(super) vendor: Sim,
    pub(super) gateway: SocketAddr,
    pub(super) operator: SocketAddr,
    stop: CancellationToken,
    running: Tasks,
    folder: Folder,
}

impl Stage {
    /// Starts both and waits until they answer.
    pub(super) async fn start(port: u16, admin_port: u16) -> Result<Self, CliError> {
        let vendor = Sim::start(simulator::App::new(APP).basic("demo-api-key", "demo-api-secret")).await?;
        let now = vendor.world().clock().wall_ms().0;
        let said = |n: usize| {
            let at = now - Duration::from_secs(3600).as_millis() as u64 + n as u64 * 1000;
            Message::channel(&format!("user-{}", n % 7), "lobby", &format!("message {n}")).at(at)
        };
        vendor.world().add_messages(APP, (0..MESSAGES).map(said));
        let folder = Folder::new()?;
        let file = folder.0.join("gateway.toml");
        std::fs::write(folder.0.join("api-key"), "demo-api-key")?;
        std::fs::write(folder.0.join("api-secret"), "demo-api-secret")?;
        std::fs::write(&file, configuration(&folder.0, &vendor.base_url(), port, admin_port))?;
        let loaded = load::from_file(&file).map_err(|faults| CliError::Failed(faults.to_string()))?;
        let app = App::build(loaded.config, Clock::system()).await.map_err(RunError::from)?;
        let (Some(Listen::Tcp(gateway)), Listen::Tcp(operator)) = (app.addresses().pop(), app.admin_address()) else {
            return Err(CliError::Failed("the demo listens on TCP".into()));
        };
        let (stop, running) = (CancellationToken::new(), Tasks::new());
        let told = stop.clone();
        running.spawn(Kind::Accept, async move {
            if let Err(why) = app.run(told, None).await {
                tracing::error!(%why, "the gateway ended");
            }
        });
        Ok(Self { vendor, gateway, operator, stop, running, folder })
    }

    /// Stops both in order and removes the folder.
    pub(super) async fn end(self) -> Result<(), CliError> {
        self.stop.cancel();
        self.running.finish(Duration::from_secs(10)).await;
        self.vendor.stop().await;
        drop(self.folder);
        Ok(())
    }
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|why| io::Error::other(why.to_string()))?;
        let path = std::env::temp_dir().join(format!("rtm-gateway-demo-{:016x}", u64::from_ne_bytes(name)));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is a few files in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn configuration(folder: &Path, vendor: &str, port: u16, admin_port: u16) -> String {
    let folder = folder.display();
    let hash = |key: &str| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (crm, audit, bot) = (hash("demo-crm"), hash("demo-audit"), hash("demo-bot"));
    format!(
        r#"
[server]
listen = ["127.0.0.1:{port}"]
shutdown_grace = "5s"

[admin]
listen = "127.0.0.1:{admin_port}"

[store]
path = "{folder}/data"

[[apps]]
id = "{APP}"
regions = [{{ name = "loopback", base_url = "{vendor}" }}]
[apps.credential]
kind = "basic"
api_key = {{ file = "{folder}/api-key" }}
api_secret = {{ file = "{folder}/api-secret" }}

[[clients]]
name = "crm"
api_key_sha256 = "{crm}"
allow = [{{ app = "*", actions = ["events", "history", "count"] }}]

[[clients]]
name = "audit"
api_key_sha256 = "{audit}"
allow = [{{ app = "*", actions = ["events", "history", "count"] }}]

[[clients]]
name = "bot"
api_key_sha256 = "{bot}"
allow = [{{ app = "*", actions = ["messages"], users = ["bot-*"] }}]
"#
    )
}
