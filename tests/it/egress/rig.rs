//! An egress in front of a simulated vendor.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use rtm_gateway::config::{App, Config, Credential, Limit, Quota, QuotaRule, Region};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::metrics::Metrics;
use rtm_gateway::kernel::names::{AppId, BucketName, ClientName, RegionName, Stream};
use rtm_gateway::kernel::secret::SecretSource;
use rtm_gateway::kernel::task::Tasks;
use rtm_gateway::simulator::{self, Limits, Sim};
use rtm_gateway::upstream::egress::{Egress, LastShutdown};
use rtm_gateway::upstream::quota::Snapshot;
use rtm_gateway::vendor::order::{Message, Operation, Order, Payer};
use tokio::time::Instant;

pub(super) const APP: &str = "demo-app";
pub(super) const KEY: &str = "the-key";
pub(super) const SECRET: &str = "the-s3cret-of-the-app";

/// An egress and all it stands on. Secrets are files of a folder.
pub(super) struct Rig {
    pub(super) egress: Egress,
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    pub(super) tasks: Tasks,
    pub(super) folder: tempfile::TempDir,
}

/// A simulated vendor that knows the rig's credential, with 20 requests a second of everything.
pub(super) async fn vendor() -> Sim {
    Sim::start(vendor_app(20)).await.unwrap()
}

pub(super) fn vendor_app(per_second: usize) -> simulator::App {
    simulator::App::new(APP).basic(KEY, SECRET).limits(Limits::all(simulator::Limit::per_second(per_second)))
}

impl Rig {
    pub(super) fn new(base_url: &str) -> Self {
        Self::with(base_url, |_| {})
    }

    pub(super) fn with(base_url: &str, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), KEY).unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let mut config = Config::default();
        config.apps = vec![App {
            id: AppId::parse(APP).unwrap(),
            regions: vec![Region { name: RegionName::parse("cn").unwrap(), base_url: base_url.parse().unwrap() }],
            credential: Credential::Basic {
                api_key: SecretSource::File(folder.path().join("key")),
                api_secret: SecretSource::File(folder.path().join("secret")),
            },
            quota: quota(20),
            events: rtm_gateway::config::Events::default(),
            history: rtm_gateway::config::History::default(),
            webhooks: Vec::new(),
        }];
        change(&mut config);
        let (metrics, tasks) = (Metrics::new(), Tasks::new());
        let egress = Egress::new(&config, LastShutdown::None, Clock::system(), metrics.clone(), &tasks).unwrap();
        Self { egress, config, metrics, tasks, folder }
    }

    pub(super) fn bucket(&self, name: BucketName) -> Snapshot {
        self.egress.buckets().into_iter().find(|(_, bucket, _)| *bucket == name).unwrap().2
    }

    /// Free seats of the bucket of user events.
    pub(super) fn free(&self) -> u32 {
        self.bucket(BucketName::UserEvents).free
    }
}

pub(super) fn quota(per_second: u32) -> Quota {
    let rule = QuotaRule::Own(Limit { requests: NonZeroU32::new(per_second).unwrap(), per: Duration::from_secs(1) });
    Quota {
        user_events: rule,
        channel_events: rule,
        history_create: rule,
        history_get: rule,
        history_count: rule,
        messages: rule,
    }
}

/// An order that may wait this long for a seat.
pub(super) fn order(operation: Operation, patience: Duration) -> Order {
    Order {
        app: AppId::parse(APP).unwrap(),
        operation,
        payer: Payer { client: ClientName::parse("tester").unwrap(), weight: 1 },
        proof: None,
        sharers: None,
        is_repeat: false,
        seat_by: None,
        deadline: Instant::now() + patience,
        sent: None,
        retry_after_limit: None,
        region: None,
        headers: Vec::new(),
    }
}

pub(super) fn read() -> Order {
    order(Operation::ReadEvents(Stream::UserEvents), Duration::from_secs(5))
}

pub(super) fn count() -> Order {
    let query = ["source", "destination", "start_time", "end_time"];
    let values = ["alice", "", "1", "2"];
    let query = query.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
    let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    order(Operation::CountHistory(query), Duration::from_secs(5))
}

pub(super) fn message() -> Order {
    let body = Bytes::from_static(br#"{"destination":"bob","payload":"hi"}"#);
    order(Operation::PeerMessage(Message { user: "alice".into(), query: Vec::new(), body }), Duration::from_secs(5))
}
