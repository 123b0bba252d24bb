//! The gateway's process, its configuration and its log.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rtm_gateway::simulator::{App, Sim};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::client::Client;

pub(crate) const APP: &str = "app-1";
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_rtm-gateway");
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
    child: Child,
    pub(crate) callers: SocketAddr,
    pub(crate) operators: SocketAddr,
    log: mpsc::Receiver<Value>,
    /// Of a log that is not read: told or dropped, it is read on, or closed.
    unread: Option<mpsc::Sender<()>>,
}

impl Gateway {
    pub(crate) fn start(home: &Home) -> Self {
        Self::of(Command::new(BINARY), &home.config())
    }

    /// Starts it, unless it ends by itself: then what it said.
    pub(crate) fn try_start(home: &Home) -> Result<Self, String> {
        let output = home.path("refusal");
        let file = fs::File::create(&output).unwrap();
        let mut probe = Command::new(BINARY);
        let mut child = probe.args(["serve", "--config"]).arg(home.config()).stderr(file).spawn().unwrap();
        // It ends, or it says that it is ready: whichever is first.
        loop {
            let said = fs::read_to_string(&output).unwrap_or_default();
            if child.try_wait().unwrap().is_some() {
                return Err(fs::read_to_string(&output).unwrap());
            }
            if said.contains("\"ready\"") {
                break;
            }
            std::thread::yield_now();
        }
        let _ = child.kill();
        let _ = child.wait();
        Ok(Self::start(home))
    }

    /// Starts it by a command that takes the gateway's arguments, and waits until it is ready.
    pub(crate) fn of(command: Command, config: &Path) -> Self {
        Self::heard(command, config, None)
    }

    /// Starts it with a log that is not read any more once it is ready.
    pub(crate) fn unheard(home: &Home) -> Self {
        let (tell, told) = mpsc::channel();
        let mut gateway = Self::heard(Command::new(BINARY), &home.config(), Some(told));
        gateway.unread = Some(tell);
        gateway
    }

    /// The log is read on.
    pub(crate) fn hear(&mut self) {
        self.unread.take().unwrap().send(()).unwrap();
    }

    /// The log's reader is gone.
    pub(crate) fn hang_up(&mut self) {
        drop(self.unread.take().unwrap());
        while self.log.recv_timeout(PATIENCE).is_ok() {}
    }

    fn heard(mut command: Command, config: &Path, pause: Option<mpsc::Receiver<()>>) -> Self {
        Self::grown(command.args(["serve", "--config"]).arg(config).stderr(Stdio::piped()).spawn().unwrap(), pause)
    }

    /// A process that was started before, with its log on a pipe: waits until it is ready.
    pub(crate) fn grown(mut child: Child, pause: Option<mpsc::Receiver<()>>) -> Self {
        let (say, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let entry = serde_json::from_str(&line).unwrap_or(Value::String(line));
                let is_ready = entry["message"] == "ready";
                let _ = say.send(entry);
                if let Some(pause) = &pause
                    && is_ready
                    && pause.recv().is_err()
                {
                    break;
                }
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut gateway = Self { child, callers: nowhere, operators: nowhere, log, unread: None };
        let address = |entry: Value| entry["address"].as_str().unwrap().parse().unwrap();
        gateway.callers = address(gateway.logged("listening for callers"));
        gateway.operators = address(gateway.logged("listening for operators"));
        gateway.logged("ready");
        gateway
    }

    /// The next log entry with that message.
    pub(crate) fn logged(&mut self, message: &str) -> Value {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(entry) if entry["message"] == message => return entry,
                Ok(entry) => seen.push(entry),
                Err(_) => panic!("never logged: {message}\n{seen:#?}"),
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// SIGKILL, and the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap()
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

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path of the vendor's API.
pub(crate) fn api(path: &str) -> String {
    format!("/dev/v2/project/{APP}/rtm/{path}")
}
