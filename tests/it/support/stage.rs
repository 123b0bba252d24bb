//! A whole gateway in this process, over real sockets, in front of a simulated vendor. What a room needs besides (a
//! configuration, certificates, a way to ask) it puts around this.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use rtm_gateway::app::App;
use rtm_gateway::config::{self, Config, Listen};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::task::{Kind, Tasks};
use rtm_gateway::services::Parts;
use rtm_gateway::simulator::{self, Limit, Limits, Sim};
use tokio_util::sync::CancellationToken;

use super::client::{Client, DEADLINE};
use super::settings;

pub(crate) const APP: &str = "demo-app";
const VENDOR_KEY: &str = "vendor-key";
pub(crate) const VENDOR_SECRET: &str = "the-s3cret-of-the-vendor";

/// A vendor, a folder with a configuration and its files, and the [`Gateway`] of these while one runs.
pub(crate) struct Stage {
    pub(crate) sim: Sim,
    /// The credential is in its files `key` and `secret`.
    pub(crate) folder: tempfile::TempDir,
    /// Of the gateways that are started from now on.
    pub(crate) clock: Clock,
    gateway: Option<Gateway>,
}

pub(crate) struct Gateway {
    /// Where callers connect.
    pub(crate) addr: SocketAddr,
    /// Where operators connect.
    pub(crate) admin: SocketAddr,
    pub(crate) parts: Arc<Parts>,
    stop: CancellationToken,
    tasks: Tasks,
}

/// The app, as the vendor knows it.
pub(crate) fn vendor_app() -> simulator::App {
    simulator::App::new(APP).basic(VENDOR_KEY, VENDOR_SECRET)
}

impl Stage {
    /// With a vendor whose limits are in nobody's way. No gateway runs yet.
    pub(crate) async fn new() -> Self {
        Self::before(Sim::start(vendor_app().limits(Limits::all(Limit::per_second(1000)))).await.unwrap())
    }

    /// With this vendor, which knows [`vendor_app`].
    pub(crate) fn before(sim: Sim) -> Self {
        let stage = Self { sim, folder: tempfile::tempdir().unwrap(), clock: Clock::system(), gateway: None };
        stage.write("key", VENDOR_KEY);
        stage.write("secret", VENDOR_SECRET);
        stage
    }

    /// The place of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// See [`settings::demo_app`].
    pub(crate) fn demo_app(&self, quota: &str) -> String {
        settings::demo_app(self.folder.path(), &self.sim.base_url(), quota)
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path("gateway.toml")
    }

    /// The configuration that the next start finds.
    pub(crate) fn configure(&self, text: &str) {
        self.write("gateway.toml", text);
    }

    /// What the file says now.
    pub(crate) fn config(&self) -> Config {
        let file = self.config_file();
        let loaded = config::load::from_file(&file);
        loaded.unwrap_or_else(|faults| panic!("{faults}\n{}", std::fs::read_to_string(&file).unwrap())).config
    }

    /// Starts a gateway with the configuration of [`Stage::configure`].
    pub(crate) async fn run(&mut self) {
        assert!(self.gateway.is_none(), "one runs already");
        let app = App::build(self.config(), self.clock.clone()).await.unwrap();
        let Some(Listen::Tcp(addr)) = app.addresses().first().cloned() else { panic!("no TCP listener") };
        let Listen::Tcp(admin) = app.admin_address() else { panic!("no TCP listener") };
        let (stop, tasks, parts) = (CancellationToken::new(), Tasks::new(), app.parts().clone());
        let run = app.run(stop.clone(), None);
        tasks.spawn(Kind::Simulator, async move { run.await.unwrap() });
        self.gateway = Some(Gateway { addr, admin, parts, stop, tasks });
    }

    /// Begins to stop it; see [`Stage::stopped`].
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it has stopped; no connection may be left to cut, and the vendor may have seen nothing that it should not.
    /// What the gateway consisted of may still be looked at.
    pub(crate) async fn stopped(&self) {
        self.stop();
        assert_eq!(self.tasks.finish(DEADLINE).await, 0);
        assert_eq!(self.sim.violations(), []);
    }

    /// The same, and leaves nothing of it, so that another can [`Stage::run`].
    pub(crate) async fn end(&mut self) {
        self.stopped().await;
        self.gateway = None;
    }
}

/// Panics while none runs.
impl Deref for Stage {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        self.gateway.as_ref().expect("a gateway runs")
    }
}

#[tokio::test]
#[should_panic(expected = "no such app")]
async fn a_stop_tells_what_the_vendor_saw_that_it_should_not() {
    let mut stage = Stage::new().await;
    stage.configure(&format!("[server]\nlisten = [\"127.0.0.1:0\"]\n{}", stage.demo_app("")));
    stage.run().await;
    let asked = Client::http1(stage.sim.addr()).await.get("/dev/v2/project/nobody/rtm/vendor/user_events").await;
    assert_eq!(asked.unwrap().status, 401);
    stage.end().await;
}
