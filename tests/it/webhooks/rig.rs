//! A gateway with webhooks, that can be stopped, started again and configured anew.

use std::cell::Cell;
use std::ops::Deref;

use rtm_gateway::events::{Cursor, SubscriptionStatus};
use rtm_gateway::kernel::names::{AppId, Stream, WebhookName};
use rtm_gateway::webhooks::WebhookStatus;
use serde_json::Value;

use crate::support;
use crate::support::client::{Client, DEADLINE};
pub(crate) use crate::support::stage::APP;
use crate::support::waiting::{eventually, found_within};

/// Keys of the specification's own test vectors.
pub(crate) const SYMMETRIC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const ASYMMETRIC: &str = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=";

pub(crate) struct Rig {
    stage: support::stage::Stage,
    webhooks: String,
    /// User events emitted.
    emitted: Cell<u64>,
}

impl Deref for Rig {
    type Target = support::stage::Stage;

    fn deref(&self) -> &Self::Target {
        &self.stage
    }
}

/// A webhook that tries again soon. Its secret is in the file `secret-SYMMETRIC`.
pub(crate) fn webhook(name: &str, url: &str, more: &str) -> String {
    let secrets = if more.contains("secrets") { "" } else { "secrets = [{ file = \"$DIR/symmetric\" }]" };
    let retry = if more.contains("retry") { "" } else { "retry = { initial = \"20ms\", max = \"50ms\" }" };
    let streams = if more.contains("streams") { "" } else { "streams = [\"user_events\"]" };
    let private = "allow_private_targets = true";
    format!("[[apps.webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\n{secrets}\n{retry}\n{streams}\n{private}\n{more}\n")
}

impl Rig {
    pub(crate) async fn start(webhooks: &str) -> Self {
        let stage = support::stage::Stage::new().await;
        stage.write("symmetric", SYMMETRIC);
        stage.write("asymmetric", ASYMMETRIC);
        let mut rig = Self { stage, webhooks: webhooks.to_owned(), emitted: Cell::default() };
        rig.run().await;
        rig
    }

    fn write_config(&self) {
        let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nshutdown_grace = \"10s\"\n";
        let webhooks = self.webhooks.replace("$DIR", self.stage.folder.path().to_str().unwrap());
        self.stage.configure(&format!("{server}{}{webhooks}", self.stage.demo_app("")));
    }

    /// Starts the gateway, and waits until its webhooks run.
    pub(crate) async fn run(&mut self) {
        self.write_config();
        self.stage.run().await;
        let wanted = self.webhooks.matches("[[apps.webhooks]]").count();
        let runs = |webhook: &&WebhookStatus| webhook.state != "starting";
        eventually(|| self.parts.webhooks.status().iter().filter(runs).count() >= wanted).await;
    }

    /// Stops it in order.
    pub(crate) async fn stop(&mut self) {
        self.stage.end().await;
    }

    /// Puts other webhooks in force, without a stop.
    pub(crate) async fn reload(&mut self, webhooks: &str) {
        self.webhooks = webhooks.to_owned();
        self.write_config();
        self.parts.apply(&self.stage.config()).await.unwrap();
    }

    /// The configuration that the next start finds.
    pub(crate) fn configure(&mut self, webhooks: &str) {
        self.webhooks = webhooks.to_owned();
    }

    /// Events of these users, one each, as they are sent to an endpoint in one vendor read or more.
    pub(crate) fn emit(&self, users: &[&str]) -> Vec<String> {
        self.emitted.set(self.emitted.get() + users.len() as u64);
        let event = |user: &&str| {
            let text = format!(r#"{{"ms":1476095418189,"type":"Login","user_id":"{user}"}}"#);
            self.sim.emit_raw(APP, Stream::UserEvents, &text).to_string()
        };
        users.iter().map(event).collect()
    }

    /// Channel events of these users, one each.
    pub(crate) fn emit_of_channel(&self, users: &[&str]) {
        for user in users {
            let text = format!(r#"{{"group_id":"g","ms":1476095418189,"type":"Join","user_id":"{user}"}}"#);
            self.sim.emit_raw(APP, Stream::ChannelEvents, &text);
        }
    }

    /// Waits until so many user events were read from the vendor.
    pub(crate) async fn reads(&self, events: u64) {
        eventually(|| self.sim.ledger(APP, Stream::UserEvents).counts.handed >= events).await;
    }

    /// So many user events.
    pub(crate) fn emit_many(&self, count: usize) -> Vec<String> {
        self.emitted.set(self.emitted.get() + count as u64);
        self.sim.emit_many(APP, Stream::UserEvents, count).iter().map(ToString::to_string).collect()
    }

    pub(crate) fn status(&self, name: &str) -> WebhookStatus {
        let all = self.parts.webhooks.status();
        all.into_iter().find(|webhook| webhook.name == name).unwrap_or_else(|| panic!("{name} is not running"))
    }

    /// Waits until a webhook stands as wanted.
    pub(crate) async fn stands(&self, name: &str, wanted: impl Fn(&WebhookStatus) -> bool) -> WebhookStatus {
        let stands = found_within(DEADLINE, async || Some(self.status(name)).filter(&wanted)).await;
        stands.unwrap_or_else(|| panic!("{:?}", self.status(name)))
    }

    /// Waits until nothing is left to do for a webhook of the events that were emitted.
    pub(crate) async fn idle(&self, name: &str) {
        self.stands(name, |status| status.held == 0 && self.is_read(name)).await;
    }

    fn is_read(&self, name: &str) -> bool {
        let of = format!("$webhook.{name}");
        let all = self.parts.events.subscriptions();
        let is_read = |s: &SubscriptionStatus| {
            let cursor: Cursor = s.cursor.parse().unwrap();
            s.subscription == of && s.stream == "user_events" && s.lag == 0 && cursor.at.0 >= self.emitted.get()
        };
        all.iter().any(is_read)
    }

    pub(crate) async fn enable(&self, name: &str) {
        let (app, name) = (AppId::parse(APP).unwrap(), WebhookName::parse(name).unwrap());
        self.parts.webhooks.enable(&app, &name).await.unwrap();
    }

    pub(crate) async fn disable(&self, name: &str) {
        let (app, name) = (AppId::parse(APP).unwrap(), WebhookName::parse(name).unwrap());
        self.parts.webhooks.disable(&app, &name).await.unwrap();
    }

    /// Asks the operator's port.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut client = Client::http1(self.stage.admin).await;
        let (kind, body) = match body {
            Some(body) => (&[("content-type", "application/json")][..], body.to_string()),
            None => (&[][..], String::new()),
        };
        let reply = client.request(method.parse().unwrap(), path, kind, &body).await.unwrap();
        (reply.status.as_u16(), reply.json())
    }

    /// Asks the operator's port until it says what is wanted.
    pub(crate) async fn says(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let said = found_within(DEADLINE, async || {
            let (status, said) = self.admin("GET", path, None).await;
            assert_eq!(status, 200, "{said}");
            wanted(&said).then_some(said)
        });
        said.await.unwrap_or_else(|| panic!("{path} never said what was wanted"))
    }

    /// What a metric says; 0 when it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.parts.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}
