//! The real binary with everything planted, and the heap of all that comes out of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use hyper::Method;
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::simulator::{App, Limit, Limits, Listen, Options, Sim, World};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::plants::Plants;
use crate::support::child::{BINARY, Running};
use crate::support::client::{Client, Reply};
use crate::support::server_tls::certified;

pub(crate) const BASIC: &str = "basic-app";
pub(crate) const TOKEN: &str = "token-app";
/// Longer than anything is waited for on purpose.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// All that came out, by where.
#[derive(Default)]
pub(crate) struct Heap {
    texts: Mutex<Vec<(String, Vec<u8>)>>,
    /// How often each status and code was answered to callers.
    answers: Mutex<BTreeMap<(u16, String), usize>>,
}

impl Heap {
    pub(crate) fn add(&self, from: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.texts.lock().unwrap().push((from.into(), text.into()));
    }

    pub(crate) fn reply(&self, from: &str, reply: &Reply) {
        let mut text = format!("{}\n", reply.status).into_bytes();
        for (name, value) in &reply.headers {
            text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        text.extend_from_slice(&reply.body);
        let is_ours = reply.headers.get("x-rtm-origin").is_some_and(|v| v == "gateway");
        self.count(reply.status.as_u16(), if is_ours { &reply.body } else { b"" });
        self.add(from, text);
    }

    /// An answer of the gateway as it came from the socket.
    pub(crate) fn raw(&self, from: &str, answer: Vec<u8>) {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            self.count(head.split(' ').nth(1).unwrap().parse().unwrap(), body.as_bytes());
        }
        self.add(from, answer);
    }

    fn count(&self, status: u16, body: &[u8]) {
        let code = serde_json::from_slice::<Value>(body).ok().and_then(|v| Some(v["code"].as_str()?.to_owned()));
        *self.answers.lock().unwrap().entry((status, code.unwrap_or_default())).or_default() += 1;
    }

    pub(crate) fn texts(&self) -> Vec<(String, Vec<u8>)> {
        self.texts.lock().unwrap().clone()
    }

    pub(crate) fn answers(&self) -> BTreeMap<(u16, String), usize> {
        self.answers.lock().unwrap().clone()
    }

    pub(crate) fn said(&self, code: &str) -> usize {
        self.answers().iter().filter(|((_, said), _)| said == code).map(|(_, times)| times).sum()
    }
}

/// A vendor for each app: the one plain, the other on TLS with HTTP/2.
pub(crate) struct Vendors {
    pub(crate) basic: Sim,
    pub(crate) token: Sim,
    /// Of the apps that are not driven through faults.
    pub(crate) calm: Sim,
    pub(crate) authority: String,
}

impl Vendors {
    pub(crate) async fn start(plants: &Plants) -> Self {
        let limits = Limits::all(Limit::per_second(100_000));
        let world = World::new(Clock::system(), Options::default());
        world.add(App::new(BASIC).basic(&plants.api_key, &plants.api_secret).limits(limits));
        let basic = Sim::listen(&world, "default", Listen::default()).await.unwrap();
        let world = World::new(Clock::system(), Options::default());
        world.add(App::new("tight-app").basic(&plants.api_key, &plants.api_secret).limits(limits));
        world.add(App::new("lost-app").basic(&plants.api_key, &plants.lost_secret).limits(limits));
        let calm = Sim::listen(&world, "default", Listen::default()).await.unwrap();
        let (tls, authority) = certified(&[]);
        let world = World::new(Clock::system(), Options::default());
        world.add(App::new(TOKEN).certificate(&plants.certificate).limits(limits));
        let token = Sim::listen(&world, "default", Listen { addr: None, tls: Some(tls) }).await.unwrap();
        Self { basic, token, calm, authority }
    }
}

/// The folder with the configuration, the secrets and the data.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new(plants: &Plants, vendors: &Vendors) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(home.path("secret"), format!("{}\n", plants.api_secret)).unwrap();
        fs::write(home.path("certificate"), &plants.certificate).unwrap();
        fs::write(home.path("lost"), &plants.lost_secret).unwrap();
        fs::write(home.path("webhook"), format!("whsec_{}\n", plants.webhook_key)).unwrap();
        fs::write(home.path("ca.pem"), &vendors.authority).unwrap();
        fs::write(home.config(), home.text(plants, vendors)).unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("gateway.toml")
    }

    /// A configuration that is right.
    pub(crate) fn text(&self, plants: &Plants, vendors: &Vendors) -> String {
        let dir = self.dir.path().display();
        let app = |id: &str, url: &str, credential: &str, more: &str| {
            format!(
                "[[apps]]\nid = \"{id}\"\nregions = [{{ name = \"here\", base_url = \"{url}\" }}]\n\
                 [apps.credential]\n{credential}\n[apps.quota]\nuser_events = {{ requests = 1000, per = \"1s\" }}\n\
                 channel_events = {{ requests = 1000, per = \"1s\" }}\n{more}\n"
            )
        };
        let basic = |secret: &str| {
            format!(
                "kind = \"basic\"\napi_key = {{ env = \"PLANTED_API_KEY\" }}\napi_secret = {{ file = \"{dir}/{secret}\" }}"
            )
        };
        let token =
            format!("kind = \"token\"\napp_certificate = {{ file = \"{dir}/certificate\" }}\nuid = \"gateway\"");
        let events = "[apps.events]\npoll_interval = \"20ms\"\npoll_interval_idle = \"20ms\"";
        // To the vendor, which refuses what is sent there.
        let webhook = format!(
            "[[apps.webhooks]]\nname = \"crm\"\nurl = \"{}/hook\"\nsecrets = [{{ file = \"{dir}/webhook\" }}]\n\
             retry = {{ initial = \"50ms\", max = \"1s\" }}\nmax_in_flight = 4\nallow_private_targets = true\n",
            vendors.calm.base_url()
        );
        let quiet = "[apps.events]\nstreams = []";
        let short = "[apps.events]\nstreams = [\"user_events\"]\npoll_interval = \"20ms\"\npoll_interval_idle = \"20ms\"\nretention = \"1s\"\nmax_subscriptions_per_client = 1";
        let tight = "messages = { requests = 1, per = \"1h\" }\n";
        let (plain, tls, calm) = (vendors.basic.base_url(), vendors.token.base_url(), vendors.calm.base_url());
        let digest = |key: &str| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let client = |name: &str, key: &str, allow: &str| {
            let hash = digest(key);
            format!("[[clients]]\nname = \"{name}\"\napi_key_sha256 = \"{hash}\"\nallow = [{allow}]\n")
        };
        let (admin, read) = (digest(&plants.admin_key), digest(&plants.read_key));
        let all = r#"{ app = "*", actions = ["events", "history", "count", "messages"] }"#;
        [
            format!(
                "[server]\nlisten = [\"127.0.0.1:0\"]\nrequest_body_limit = \"64KiB\"\nshutdown_grace = \"10s\"\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\napi_key_sha256 = \"{admin}\"\nread_key_sha256 = \"{read}\"\n[log]\nlevel = \"trace\"\n\
                 [store]\npath = \"{dir}/data\"\n[upstream]\nconnect_timeout = \"700ms\"\nrequest_timeout = \"700ms\"\n\
                 ca_file = \"{dir}/ca.pem\"\n[upstream.breaker]\nfailures = 0\n"
            ),
            app(BASIC, &plain, &basic("secret"), &format!("{events}\n{webhook}")),
            app("tight-app", &calm, &basic("secret"), &format!("{tight}{short}")),
            app("lost-app", &calm, &basic("lost"), quiet),
            app("away-app", "http://127.0.0.1:9", &basic("secret"), quiet),
            app(TOKEN, &tls, &token, events),
            client("all", &plants.caller_key, all),
            client("reader", &plants.reader_key, r#"{ app = "basic-app", actions = ["events"] }"#),
            client("few", &few_key(plants), all),
            "requests_per_second = 1\n".to_owned(),
        ]
        .concat()
    }
}

/// The key of a client with a ceiling: another's, and more.
pub(crate) fn few_key(plants: &Plants) -> String {
    format!("{}-few", plants.caller_key)
}

/// The running binary. Killed when dropped.
pub(crate) struct Gateway {
    running: Running,
    pub(crate) callers: SocketAddr,
    pub(crate) operators: SocketAddr,
}

impl Gateway {
    /// Starts it with the loudest log there is.
    pub(crate) fn start(home: &Home, plants: &Plants) -> Self {
        let mut command = Command::new(BINARY);
        command
            .env(
                "RUST_LOG",
                "trace,hyper=trace,hyper_util=trace,h2=trace,rustls=trace,tower=trace,tokio=trace,redb=trace",
            )
            .env("RUST_BACKTRACE", "full");
        Self::of(command, home, plants)
    }

    pub(crate) fn of(mut command: Command, home: &Home, plants: &Plants) -> Self {
        command.env("PLANTED_API_KEY", &plants.api_key).stdout(Stdio::piped());
        let running = Running::serve(command, &home.config());
        let (callers, operators) = running.ready();
        Self { running, callers, operators }
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.running.wait()
    }

    /// Asks the operator's port with this key.
    pub(crate) async fn admin(&self, key: &str, path: &str) -> Reply {
        let bearer = format!("Bearer {key}");
        Client::http1(self.operators).await.with("authorization", &bearer).get(path).await.unwrap()
    }
}

impl Deref for Gateway {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let status = self.running.put_down().unwrap();
        assert!(status.signal() != Some(11), "a segmentation fault");
    }
}

/// A caller's request on a connection of its own, HTTP/1.1 or HTTP/2; the answer lands on the heap.
pub(crate) async fn ask(
    heap: &Heap,
    at: SocketAddr,
    http2: bool,
    (method, target): (Method, &str),
    headers: &[(&'static str, &str)],
    body: &str,
) -> Reply {
    let mut client = if http2 { Client::http2(at).await } else { Client::http1(at).await };
    let reply = client.request(method, target, headers, body).await.unwrap();
    heap.reply(&format!("answer to {target}"), &reply);
    reply
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}
