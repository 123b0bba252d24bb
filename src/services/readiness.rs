//! [`Readiness`]: whether the gateway, or what a probe asks after of it, is of use.
//!
//! Invariant: a gateway is unready as a whole only while it is of use to nobody, so that a balancer which takes it out
//! for that takes nothing away. Where a part fails it is ready and degraded; whoever needs that part asks after it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Parts;
use crate::kernel::names::AppId;
use crate::kernel::trouble::{Part, Symptom, Trouble};

/// What a probe asks after: without anything, after the gateway as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// These parts; none: all.
    pub parts: Vec<Part>,
    /// Of these apps; none: of all.
    pub apps: Vec<AppId>,
}

impl Probe {
    fn is_for_the_whole(&self) -> bool {
        self.parts.is_empty() && self.apps.is_empty()
    }

    /// Whether this is of what is asked after. What is everybody's is each app's, too.
    fn takes_in(&self, trouble: &Trouble) -> bool {
        let is_of_part = self.parts.is_empty() || self.parts.contains(&trouble.part);
        let is_of_app = self.apps.is_empty() || trouble.app.as_ref().is_none_or(|app| self.apps.contains(app));
        is_of_part && is_of_app
    }
}

/// How it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Why what was asked after is of no use; empty when it is of use.
    pub why: Vec<String>,
    /// What of it fails.
    pub degraded: Vec<Trouble>,
    /// Whether a changed configuration was refused: the one before it is in force.
    pub has_refused_configuration: bool,
}

impl Readiness {
    /// Whether what was asked after is of use.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.why.is_empty()
    }

    /// For probes.
    #[must_use]
    pub fn as_json(&self) -> Value {
        json!({
            "ready": self.is_ready(), "why": self.why, "degraded": self.degraded,
            "refused_configuration": self.has_refused_configuration,
        })
    }

    fn new(probe: &Probe, mut why: Vec<String>, all: Vec<Trouble>, has_refused_configuration: bool) -> Self {
        // Of one symptom of an app's the earliest: its streams and regions have it one by one.
        let mut earliest: BTreeMap<_, Trouble> = BTreeMap::new();
        for trouble in all.into_iter().filter(|trouble| probe.takes_in(trouble)) {
            let key = (trouble.part, trouble.app.clone(), trouble.symptom);
            let kept = earliest.entry(key).or_insert_with(|| trouble.clone());
            kept.since = kept.since.min(trouble.since);
        }
        let degraded: Vec<_> = earliest.into_values().collect();
        if !probe.is_for_the_whole() {
            why.extend(degraded.iter().filter(|trouble| trouble.symptom.is_failure()).map(
                |Trouble { part, app, symptom, .. }| match app {
                    Some(app) => format!("{} of {app}: {}", part.as_str(), symptom.detail()),
                    None => format!("{}: {}", part.as_str(), symptom.detail()),
                },
            ));
        }
        Self { why, degraded, has_refused_configuration }
    }
}

impl Parts {
    /// Whether the gateway, or what is asked after of it, is of use. A refused reload does not make it unready: the
    /// configuration in force is good, and taking every replica out for one bad edit would turn a typo into an outage.
    #[must_use]
    pub fn readiness(&self, probe: &Probe) -> Readiness {
        let refused = self.reload.load().last_refusal.is_some();
        Readiness::new(probe, self.not_ready(), self.troubles(), refused)
    }

    /// Why the gateway as a whole is of no use to callers; empty when it is.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let draining = self.draining.is_cancelled().then(|| "draining".to_owned());
        draining.into_iter().chain(self.events.not_ready()).collect()
    }

    /// All that fails: each part of the gateway says it of itself.
    fn troubles(&self) -> Vec<Trouble> {
        let mut all = self.events.troubles();
        all.extend(self.egress.troubles());
        let paused = self.accept_pauses.since();
        let of_callers = |since| Trouble { part: Part::Callers, app: None, symptom: Symptom::AcceptPaused, since };
        all.extend(paused.map(of_callers));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::clock::UnixMillis;

    fn app(name: &str) -> AppId {
        AppId::parse(name).unwrap()
    }

    fn trouble(part: Part, name: Option<&str>, since: u64) -> Trouble {
        Trouble { part, app: name.map(app), symptom: Symptom::ReadingStopped, since: UnixMillis(since) }
    }

    fn asked(parts: &[Part], apps: &[&str], all: &[Trouble]) -> Readiness {
        let probe = Probe { parts: parts.to_vec(), apps: apps.iter().map(|name| app(name)).collect() };
        Readiness::new(&probe, Vec::new(), all.to_vec(), false)
    }

    #[test]
    fn what_fails_is_told_and_makes_unready_only_who_asks_after_it() {
        let all = [trouble(Part::Events, Some("a"), 7), trouble(Part::Events, Some("a"), 3)];
        let whole = asked(&[], &[], &all);
        assert!(whole.is_ready());
        assert_eq!(whole.degraded, [trouble(Part::Events, Some("a"), 3)], "once, since it began");
        assert!(!asked(&[Part::Events], &[], &all).is_ready());
        assert!(!asked(&[], &["a"], &all).is_ready());
        assert!(!asked(&[Part::Messages, Part::Events], &["b", "a"], &all).is_ready());
        for other in
            [asked(&[Part::Messages], &[], &all), asked(&[], &["b"], &all), asked(&[Part::Callers], &["a"], &all)]
        {
            assert!(other.is_ready() && other.degraded.is_empty(), "{other:?}");
        }
    }

    #[test]
    fn what_only_makes_a_part_slower_is_told_and_makes_nobody_unready() {
        let slow = Trouble { symptom: Symptom::QuotaSpentByOthers, ..trouble(Part::Messages, Some("a"), 1) };
        let asked = asked(&[Part::Messages], &["a"], std::slice::from_ref(&slow));
        assert!(asked.is_ready());
        assert_eq!(asked.degraded, [slow]);
    }

    #[test]
    fn what_is_everybodys_is_each_apps() {
        let all = [trouble(Part::Callers, None, 1)];
        assert!(!asked(&[], &["a"], &all).is_ready());
        assert!(!asked(&[Part::Callers], &[], &all).is_ready());
        assert!(asked(&[Part::Events], &["a"], &all).is_ready());
    }

    #[test]
    fn who_asks_after_a_part_is_told_too_why_the_whole_is_of_no_use() {
        let probe = Probe { parts: vec![Part::Messages], apps: Vec::new() };
        assert!(!Readiness::new(&probe, vec!["draining".to_owned()], Vec::new(), false).is_ready());
    }
}
