//! The `simulate` command's configuration (TOML). Unknown keys are errors.
//!
//! ```toml
//! seed = 1                       # of the faults by chance
//! replicate = false              # an event of one region can be read in all
//!
//! [[apps]]
//! id = "demo-app"
//! dialect = "anyrtc"             # or "agora"
//! basic = [{ api_key = "demo-key", api_secret = "demo-secret" }]
//! certificates = ["0123456789abcdef0123456789abcdef"]
//! in_progress = 1                # a query, or a count, is `in progress` so often
//! events_per_second = 1.0        # of each stream, in the first region
//! [apps.limits]
//! user_events = { requests = 10, per = "1s" }
//! history_count = { share = "history_create" }
//!
//! [[regions]]                    # beside the one at --listen
//! name = "eu"
//! listen = "127.0.0.1:8802"
//!
//! [[faults]]
//! endpoint = "history_get"       # any, if it is not there
//! probability = 0.01
//! fault = { delay_after = "3s" } # or "drop_after", { answer = { status = 503 } }, { cut_body = { keep = 10 } }, …
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::app::{App, Dialect};
use super::fault::Fault;
use super::limits::{Limit, Limits};
use super::script::{Chance, Profile};
use super::{Endpoint, Options, World};
use crate::kernel::clock::Clock;
use crate::kernel::names::BucketName;

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// An event of one region can be read in all.
    pub replicate: bool,
    /// The apps, at least one, and how many events of each stream occur in a second.
    pub apps: Vec<(App, f64)>,
    /// Regions beside the one at `--listen`.
    pub regions: Vec<(String, SocketAddr)>,
    /// Faults by chance, in all regions.
    pub faults: Profile,
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// When it is not TOML, or a key or a value is not known or not allowed.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|e| ConfigError(e.to_string()))?;
        if raw.apps.is_empty() {
            return Err(ConfigError("apps: at least one is needed".into()));
        }
        let apps = raw.apps.into_iter().map(RawApp::check).collect::<Result<_, _>>()?;
        let regions = raw.regions.into_iter().map(|r| (r.name, r.listen)).collect();
        let mut faults = Profile::seeded(raw.seed);
        for RawChance { endpoint, probability, fault } in raw.faults {
            if !(0.0..=1.0).contains(&probability) {
                return Err(ConfigError(format!("faults.probability: {probability} is not between 0 and 1")));
            }
            faults.chances.push(Chance { endpoint, probability, fault });
        }
        Ok(Self { replicate: raw.replicate, apps, regions, faults })
    }

    /// One app, `demo-app` with `demo-key` and `demo-secret`, in which a little happens.
    #[must_use]
    pub fn demo() -> Self {
        let app = App::new("demo-app").basic("demo-key", "demo-secret").rules(|rules| rules.in_progress = 1);
        Self { replicate: false, apps: vec![(app, 1.0)], regions: Vec::new(), faults: Profile::default() }
    }

    /// A world with these apps.
    #[must_use]
    pub fn world(&self, clock: Clock) -> World {
        // Nobody looks at the ledger's texts through the command.
        let world = World::new(clock, Options { seen: 0, ledger: 0, replicate: self.replicate });
        self.apps.iter().for_each(|(app, _)| world.add(app.clone()));
        world
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    replicate: bool,
    apps: Vec<RawApp>,
    #[serde(default)]
    regions: Vec<RawRegion>,
    #[serde(default)]
    faults: Vec<RawChance>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApp {
    id: String,
    #[serde(default)]
    dialect: Dialect,
    #[serde(default)]
    basic: Vec<RawBasic>,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    limits: BTreeMap<String, RawLimit>,
    #[serde(default)]
    in_progress: u32,
    #[serde(default)]
    events_per_second: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBasic {
    api_key: String,
    api_secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimit {
    requests: Option<usize>,
    per: Option<String>,
    share: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegion {
    name: String,
    listen: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChance {
    endpoint: Option<Endpoint>,
    probability: f64,
    fault: Fault,
}

impl RawApp {
    fn check(self) -> Result<(App, f64), ConfigError> {
        if self.basic.is_empty() && self.certificates.is_empty() {
            return Err(ConfigError(format!(
                "apps.{}: neither basic nor certificates: nothing would open it",
                self.id
            )));
        }
        let rate = self.events_per_second;
        if !(0.0..=1e6).contains(&rate) {
            return Err(ConfigError(format!(
                "apps.{}.events_per_second: {rate} is not between 0 and a million",
                self.id
            )));
        }
        let mut limits = Limits::default();
        for (name, raw) in &self.limits {
            let wrong = |why: &str| ConfigError(format!("apps.{}.limits.{name}: {why}", self.id));
            let bucket = BucketName::parse(name).ok_or_else(|| wrong("no such limit"))?;
            limits = limits.with(bucket, raw.check().map_err(|why| wrong(&why))?);
        }
        if !limits.is_sound() {
            return Err(ConfigError(format!("apps.{}.limits: a share must point at a limit of its own", self.id)));
        }
        let mut app = App::new(&self.id).limits(limits).rules(|rules| {
            rules.dialect = self.dialect;
            rules.in_progress = self.in_progress;
        });
        for RawBasic { api_key, api_secret } in &self.basic {
            app = app.basic(api_key, api_secret);
        }
        for certificate in &self.certificates {
            app = app.certificate(certificate);
        }
        Ok((app, rate))
    }
}

impl RawLimit {
    fn check(&self) -> Result<Limit, String> {
        match (self.requests, &self.per, &self.share) {
            (Some(requests @ 1..), Some(per), None) => {
                let per: Duration = humantime::parse_duration(per).map_err(|why| format!("per: {why}"))?;
                Ok(Limit::Own { requests, per })
            }
            (None, None, Some(share)) => {
                BucketName::parse(share).map(Limit::Share).ok_or_else(|| format!("share: no limit {share:?}"))
            }
            _ => Err("either requests (at least 1) and per, or share".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_this_files_header_is_valid() {
        let header = include_str!("config.rs").lines().take_while(|line| line.starts_with("//!"));
        let text: Vec<&str> = header.map(|line| line.trim_start_matches("//!").trim()).collect();
        let text = text.join("\n");
        let example = text.split("```toml").nth(1).unwrap().split("```").next().unwrap();
        let config = Config::parse(example).unwrap();
        assert_eq!((config.apps.len(), config.regions.len(), config.faults.chances.len()), (1, 1, 1));
        let expected = Limits::default().with(BucketName::HistoryCount, Limit::Share(BucketName::HistoryCreate));
        assert_eq!(config.apps[0].0.limits, expected);
    }

    #[test]
    fn what_is_not_known_or_not_allowed_is_refused() {
        let app = |more: &str| format!("[[apps]]\nid = \"a\"\ncertificates = [\"c\"]\n{more}");
        assert!(Config::parse(&app("")).is_ok());
        for wrong in [
            "colour = 1",
            "limits = { users = { requests = 1, per = \"1s\" } }",
            "limits = { messages = { requests = 0, per = \"1s\" } }",
            "limits = { messages = { requests = 1, per = \"1\" } }",
            "limits = { messages = { share = \"history_get\" }, history_get = { share = \"messages\" } }",
            "events_per_second = nan",
            "[[faults]]\nprobability = 2.0\nfault = \"hang\"",
            "[[faults]]\nprobability = 0.5\nfault = \"explode\"",
        ] {
            assert!(Config::parse(&app(wrong)).is_err(), "{wrong}");
        }
        assert!(Config::parse("apps = []").is_err());
        assert!(Config::parse("[[apps]]\nid = \"a\"").is_err());
    }
}
