//! A gateway with webhooks, that can be stopped, started again and configured anew.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rtm_gateway::app::App;
use rtm_gateway::config::{self, Config, Listen};
use rtm_gateway::events::{Cursor, SubscriptionStatus};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::{AppId, Stream, WebhookName};
use rtm_gateway::kernel::task::{Kind, Tasks};
use rtm_gateway::services::Parts;
use rtm_gateway::simulator::{self, Limits, Sim};
use rtm_gateway::webhooks::WebhookStatus;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::client::{Client, DEADLINE};
use crate::support::settings;
use crate::support::waiting::{eventually, found_within};

pub(super) const APP: &str = "demo-app";

/// Keys of the specification's own test vectors.
pub(super) const SYMMETRIC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(super) const ASYMMETRIC: &str = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=";

pub(super) struct Rig {
    pub(super) sim: Sim,
    pub(super) folder: tempfile::TempDir,
    webhooks: String,
    gateway: Option<Gateway>,
    /// User events emitted.
    emitted: Cell<u64>,
}

struct Gateway {
    operators: SocketAddr,
    parts: Arc<Parts>,
    stop: CancellationToken,
    tasks: Tasks,
}

/// A webhook that tries again soon. Its secret is in the file `secret-SYMMETRIC`.
pub(super) fn webhook(name: &str, url: &str, more: &str) -> String {
    let secrets = if more.contains("secrets") { "" } else { "secrets = [{ file = \"$DIR/symmetric\" }]" };
    let retry = if more.contains("retry") { "" } else { "retry = { initial = \"20ms\", max = \"50ms\" }" };
    let streams = if more.contains("streams") { "" } else { "streams = [\"user_events\"]" };
    let private = "allow_private_targets = true";
    format!("[[apps.webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\n{secrets}\n{retry}\n{streams}\n{private}\n{more}\n")
}

impl Rig {
    pub(super) async fn start(webhooks: &str) -> Self {
        let limits = Limits::all(simulator::Limit::per_second(1000));
        let sim = Sim::start(simulator::App::new(APP).basic("key", "secret").limits(limits)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("key", "key"), ("secret", "secret"), ("symmetric", SYMMETRIC), ("asymmetric", ASYMMETRIC)]
        {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut rig = Self { sim, folder, webhooks: webhooks.to_owned(), gateway: None, emitted: Cell::default() };
        rig.run().await;
        rig
    }

    fn config(&self) -> Config {
        let dir = self.folder.path();
        let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nshutdown_grace = \"10s\"\n";
        let app = settings::demo_app(dir, &self.sim.base_url(), "");
        let webhooks = self.webhooks.replace("$DIR", dir.to_str().unwrap());
        let text = format!("{server}{app}{webhooks}");
        config::load::from_text(&text, Path::new("test.toml"))
            .unwrap_or_else(|faults| panic!("{faults}\n{text}"))
            .config
    }

    /// Starts the gateway, and waits until its webhooks run.
    pub(super) async fn run(&mut self) {
        let app = App::build(self.config(), Clock::system()).await.unwrap();
        let Listen::Tcp(operators) = app.admin_address() else { panic!("no TCP listener") };
        let (stop, tasks, parts) = (CancellationToken::new(), Tasks::new(), app.parts().clone());
        let run = app.run(stop.clone(), None);
        tasks.spawn(Kind::Simulator, async move { run.await.unwrap() });
        let wanted = self.webhooks.matches("[[apps.webhooks]]").count();
        let runs = |webhook: &&WebhookStatus| webhook.state != "starting";
        eventually(|| parts.webhooks.status().iter().filter(runs).count() >= wanted).await;
        self.gateway = Some(Gateway { operators, parts, stop, tasks });
    }

    /// Stops it in order.
    pub(super) async fn stop(&mut self) {
        let gateway = self.gateway.take().unwrap();
        gateway.stop.cancel();
        assert_eq!(gateway.tasks.finish(DEADLINE).await, 0);
    }

    /// Puts other webhooks in force, without a stop.
    pub(super) async fn reload(&mut self, webhooks: &str) {
        self.webhooks = webhooks.to_owned();
        self.parts().apply(&self.config()).await.unwrap();
    }

    /// The configuration that the next start finds.
    pub(super) fn configure(&mut self, webhooks: &str) {
        self.webhooks = webhooks.to_owned();
    }

    pub(super) fn parts(&self) -> &Arc<Parts> {
        &self.gateway.as_ref().unwrap().parts
    }

    /// Events of these users, one each, as they are sent to an endpoint in one vendor read or more.
    pub(super) fn emit(&self, users: &[&str]) -> Vec<String> {
        self.emitted.set(self.emitted.get() + users.len() as u64);
        let event = |user: &&str| {
            let text = format!(r#"{{"ms":1476095418189,"type":"Login","user_id":"{user}"}}"#);
            self.sim.emit_raw(APP, Stream::UserEvents, &text).to_string()
        };
        users.iter().map(event).collect()
    }

    /// Channel events of these users, one each.
    pub(super) fn emit_of_channel(&self, users: &[&str]) {
        for user in users {
            let text = format!(r#"{{"group_id":"g","ms":1476095418189,"type":"Join","user_id":"{user}"}}"#);
            self.sim.emit_raw(APP, Stream::ChannelEvents, &text);
        }
    }

    /// Waits until so many user events were read from the vendor.
    pub(super) async fn reads(&self, events: u64) {
        eventually(|| self.sim.ledger(APP, Stream::UserEvents).counts.handed >= events).await;
    }

    /// So many user events.
    pub(super) fn emit_many(&self, count: usize) -> Vec<String> {
        self.emitted.set(self.emitted.get() + count as u64);
        self.sim.emit_many(APP, Stream::UserEvents, count).iter().map(ToString::to_string).collect()
    }

    pub(super) fn status(&self, name: &str) -> WebhookStatus {
        let all = self.parts().webhooks.status();
        all.into_iter().find(|webhook| webhook.name == name).unwrap_or_else(|| panic!("{name} is not running"))
    }

    /// Waits until a webhook stands as wanted.
    pub(super) async fn stands(&self, name: &str, wanted: impl Fn(&WebhookStatus) -> bool) -> WebhookStatus {
        let stands = found_within(DEADLINE, async || Some(self.status(name)).filter(&wanted)).await;
        stands.unwrap_or_else(|| panic!("{:?}", self.status(name)))
    }

    /// Waits until nothing is left to do for a webhook of the events that were emitted.
    pub(super) async fn idle(&self, name: &str) {
        self.stands(name, |status| status.held == 0 && self.is_read(name)).await;
    }

    fn is_read(&self, name: &str) -> bool {
        let of = format!("$webhook.{name}");
        let all = self.parts().events.subscriptions();
        let is_read = |s: &SubscriptionStatus| {
            let cursor: Cursor = s.cursor.parse().unwrap();
            s.subscription == of && s.stream == "user_events" && s.lag == 0 && cursor.at.0 >= self.emitted.get()
        };
        all.iter().any(is_read)
    }

    pub(super) async fn enable(&self, name: &str) {
        let (app, name) = (AppId::parse(APP).unwrap(), WebhookName::parse(name).unwrap());
        self.parts().webhooks.enable(&app, &name).await.unwrap();
    }

    pub(super) async fn disable(&self, name: &str) {
        let (app, name) = (AppId::parse(APP).unwrap(), WebhookName::parse(name).unwrap());
        self.parts().webhooks.disable(&app, &name).await.unwrap();
    }

    /// Asks the operator's port.
    pub(super) async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut client = Client::http1(self.gateway.as_ref().unwrap().operators).await;
        let (kind, body) = match body {
            Some(body) => (&[("content-type", "application/json")][..], body.to_string()),
            None => (&[][..], String::new()),
        };
        let reply = client.request(method.parse().unwrap(), path, kind, &body).await.unwrap();
        (reply.status.as_u16(), reply.json())
    }

    /// Asks the operator's port until it says what is wanted.
    pub(super) async fn says(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let said = found_within(DEADLINE, async || {
            let (status, said) = self.admin("GET", path, None).await;
            assert_eq!(status, 200, "{said}");
            wanted(&said).then_some(said)
        });
        said.await.unwrap_or_else(|| panic!("{path} never said what was wanted"))
    }

    /// What a metric says; 0 when it is not there.
    pub(super) fn metric(&self, series: &str) -> f64 {
        let text = self.parts().metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}
