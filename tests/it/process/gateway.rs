//! The gateway's process, its configuration and who asks it.

use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rtm_gateway::simulator::{App, Sim};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::child::{BINARY, Running};
use crate::support::client::Client;

pub(crate) const APP: &str = "app-1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A vendor that knows the gateway's credential.
pub(crate) async fn vendor() -> Sim {
    Sim::start(App::new(APP).basic("api-key", "api-secret")).await.unwrap()
}

/// The folder of one gateway: configuration, secrets and data.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    /// Two clients, `one` and `two`, whose keys are their names; one app behind `vendor`.
    pub(crate) fn new(vendor: &Sim) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(home.path("key"), "api-key").unwrap();
        fs::write(home.path("secret"), "api-secret\n").unwrap();
        home.write(&format!("{}{}{}", home.base(vendor), client("one"), client("two")));
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("gateway.toml")
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// All but the clients.
    pub(crate) fn base(&self, vendor: &Sim) -> String {
        format!(
            r#"
[server]
listen = ["127.0.0.1:0"]
shutdown_grace = "10s"
[admin]
listen = "127.0.0.1:0"
[store]
path = "{dir}/data"
[[apps]]
id = "{APP}"
regions = [{{ name = "here", base_url = "{url}" }}]
[apps.credential]
kind = "basic"
api_key = {{ file = "{dir}/key" }}
api_secret = {{ file = "{dir}/secret" }}
[apps.events]
poll_interval = "100ms"
poll_interval_idle = "100ms"
"#,
            dir = self.dir.path().display(),
            url = vendor.base_url(),
        )
    }
}

impl Home {
    /// The next start is on the same port as this gateway's.
    pub(crate) fn stay_at(&self, gateway: &Gateway) {
        let config = fs::read_to_string(self.config()).unwrap();
        let listen = format!("listen = [\"{}\"]", gateway.callers);
        self.write(&config.replace("listen = [\"127.0.0.1:0\"]", &listen));
    }
}

/// A client whose key is its name and who may do everything.
pub(crate) fn client(name: &str) -> String {
    let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[[clients]]\nname = \"{name}\"\napi_key_sha256 = \"{hash}\"\n\
         allow = [{{ app = \"*\", actions = [\"events\", \"history\", \"count\", \"messages\"] }}]\n"
    )
}

/// A running gateway. Killed when dropped.
pub(crate) struct Gateway {
    running: Running,
    pub(crate) callers: SocketAddr,
    pub(crate) operators: SocketAddr,
}

impl Gateway {
    pub(crate) fn start(home: &Home) -> Self {
        Self::of(Command::new(BINARY), &home.config())
    }

    /// Starts it, unless it ends by itself: then what it said.
    pub(crate) fn try_start(home: &Home) -> Result<Self, String> {
        let mut probe = Running::serve(Command::new(BINARY), &home.config());
        // It ends, or it says that it is ready: whichever is first.
        if probe.heard("ready").is_none() {
            probe.wait();
            return Err(String::from_utf8(probe.written()).unwrap());
        }
        drop(probe);
        Ok(Self::start(home))
    }

    /// Starts it by a command that takes the gateway's arguments, and waits until it is ready.
    pub(crate) fn of(command: Command, config: &Path) -> Self {
        Self::grown(Running::serve(command, config))
    }

    /// Starts it with a log that is not read any more once it is ready.
    pub(crate) fn unheard(home: &Home) -> Self {
        Self::grown(Running::serve_unread(Command::new(BINARY), &home.config()))
    }

    /// A process that was started before: waits until it is ready.
    pub(crate) fn grown(running: Running) -> Self {
        let (callers, operators) = running.ready();
        Self { running, callers, operators }
    }

    /// SIGKILL, and the process is gone.
    pub(crate) fn kill(self) {
        self.running.kill();
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> ExitStatus {
        self.running.ended().await
    }

    /// A caller with this key.
    pub(crate) async fn caller(&self, key: &str) -> Client {
        Client::http1(self.callers).await.with("x-api-key", key)
    }

    /// What the operator's port says.
    pub(crate) async fn admin(&self, path: &str) -> (u16, Value) {
        let reply = Client::http1(self.operators).await.get(path).await.unwrap();
        (reply.status.as_u16(), reply.json())
    }

    /// Asks the operator's port until the answer is as wanted.
    pub(crate) async fn admin_says(&self, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
        let asking = async {
            loop {
                let (status, body) = self.admin(path).await;
                if wanted(status, &body) {
                    return body;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{path} never said what was wanted"))
    }
}

impl Deref for Gateway {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

/// A path of the vendor's API.
pub(crate) fn api(path: &str) -> String {
    format!("/dev/v2/project/{APP}/rtm/{path}")
}
