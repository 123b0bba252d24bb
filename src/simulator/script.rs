//! Which faults befall the next request: queued ones first, then standing ones, then chance.
//!
//! Invariant: chance comes from one seeded generator, so the same requests in the same order meet the same faults.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Endpoint;
use super::coding::Coding;
use super::fault::{Canned, Fault};

/// Faults by chance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Of the random generator.
    pub seed: u64,
    /// All that hit befall the request together.
    pub chances: Vec<Chance>,
}

/// One fault and how likely it is: from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Chance {
    /// Which endpoint; `None` is any.
    pub endpoint: Option<Endpoint>,
    pub probability: f64,
    pub fault: Fault,
}

impl Profile {
    /// No faults yet.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seed, chances: Vec::new() }
    }

    /// A fault at any endpoint.
    #[must_use]
    pub fn with(self, probability: f64, fault: Fault) -> Self {
        self.push(None, probability, fault)
    }

    /// A fault at one endpoint.
    #[must_use]
    pub fn with_at(self, endpoint: Endpoint, probability: f64, fault: Fault) -> Self {
        self.push(Some(endpoint), probability, fault)
    }

    fn push(mut self, endpoint: Option<Endpoint>, probability: f64, fault: Fault) -> Self {
        self.chances.push(Chance { endpoint, probability, fault });
        self
    }
}

/// The script of one region.
#[derive(Debug, Default)]
pub(super) struct Script {
    queued: HashMap<Endpoint, VecDeque<Fault>>,
    standing: HashMap<Endpoint, Fault>,
    chances: Vec<Chance>,
    random: Option<StdRng>,
    met: BTreeMap<&'static str, u64>,
}

impl Script {
    pub(super) fn queue(&mut self, endpoint: Endpoint, fault: Fault) {
        self.queued.entry(endpoint).or_default().push_back(fault);
    }

    pub(super) fn always(&mut self, endpoint: Endpoint, fault: Fault) {
        self.standing.insert(endpoint, fault);
    }

    pub(super) fn random(&mut self, profile: Profile) {
        self.random = Some(StdRng::seed_from_u64(profile.seed));
        self.chances = profile.chances;
    }

    pub(super) fn clear(&mut self) {
        // What was met stays: tests ask for it when all faults are over.
        *self = Self { met: std::mem::take(&mut self.met), ..Self::default() };
    }

    /// How often each kind of fault befell a request.
    pub(super) fn met(&self) -> &BTreeMap<&'static str, u64> {
        &self.met
    }

    /// What befalls the next request of an endpoint.
    pub(super) fn next(&mut self, endpoint: Endpoint) -> Plan {
        let mut plan = Plan::default();
        let random = self.random.get_or_insert_with(|| StdRng::seed_from_u64(0));
        let mut befall = |fault: Fault, random: &mut StdRng| {
            *self.met.entry(fault.name()).or_default() += 1;
            plan.add(fault, random);
        };
        if let Some(fault) = self.queued.get_mut(&endpoint).and_then(VecDeque::pop_front) {
            befall(fault, random);
        } else if let Some(fault) = self.standing.get(&endpoint) {
            befall(fault.clone(), random);
        }
        for chance in &self.chances {
            let here = chance.endpoint.is_none_or(|e| e == endpoint);
            if here && random.random_bool(chance.probability.clamp(0.0, 1.0)) {
                befall(chance.fault.clone(), random);
            }
        }
        plan
    }
}

/// What befalls one request. The default: nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) before: Duration,
    pub(super) after: Duration,
    pub(super) death: Option<Death>,
    pub(super) refusal: Option<Refusal>,
    pub(super) hang: bool,
    pub(super) canned: Option<Canned>,
    pub(super) shape: Shape,
    /// Whether there is any fault in it.
    pub(super) faulted: bool,
}

/// How a connection dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) before: bool,
    pub(super) reset: bool,
}

/// How HTTP/2 says that a request was not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Stream,
    Connection,
}

/// How an answer's body goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Only so many bytes; then the connection ends, or (`false`) is silent.
    pub(super) cut: Option<(usize, bool)>,
    pub(super) chunked: bool,
    /// Behind a byte order mark.
    pub(super) marked: bool,
    pub(super) coding: Option<Coding>,
    pub(super) pad: usize,
    pub(super) drip: Option<(usize, Duration)>,
    pub(super) close: bool,
}

impl Plan {
    fn add(&mut self, fault: Fault, random: &mut StdRng) {
        self.faulted = true;
        let mut jitter = |max: Duration| max.mul_f64(random.random::<f64>());
        match fault {
            Fault::DelayBefore(time) => self.before += time,
            Fault::DelayAfter(time) => self.after += time,
            Fault::JitterBefore(max) => self.before += jitter(max),
            Fault::JitterAfter(max) => self.after += jitter(max),
            Fault::DropBefore => self.death = Some(Death { before: true, reset: false }),
            Fault::DropAfter => self.death = Some(Death { before: false, reset: false }),
            Fault::ResetBefore => self.death = Some(Death { before: true, reset: true }),
            Fault::ResetAfter => self.death = Some(Death { before: false, reset: true }),
            Fault::RefuseStream => self.refusal = Some(Refusal::Stream),
            Fault::GoAway => self.refusal = Some(Refusal::Connection),
            Fault::Hang => self.hang = true,
            Fault::CutBody { keep } => self.shape.cut = Some((keep, true)),
            Fault::StallBody { keep } => self.shape.cut = Some((keep, false)),
            Fault::Chunked => self.shape.chunked = true,
            Fault::Marked => self.shape.marked = true,
            Fault::Encoded(coding) => self.shape.coding = Some(coding),
            Fault::Pad(bytes) => self.shape.pad = bytes,
            Fault::Drip { bytes, every } => self.shape.drip = Some((bytes.max(1), every)),
            Fault::CloseAfter => self.shape.close = true,
            Fault::Answer(canned) => self.canned = Some(canned),
            Fault::All(faults) => faults.into_iter().for_each(|fault| self.add(fault, random)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_faults_come_once_and_in_order_then_the_standing_one() {
        let mut script = Script::default();
        script.always(Endpoint::UserEvents, Fault::Hang);
        script.queue(Endpoint::UserEvents, Fault::DropBefore);
        script.queue(Endpoint::UserEvents, Fault::all([Fault::Chunked, Fault::DelayAfter(Duration::from_secs(1))]));
        assert_eq!(script.next(Endpoint::UserEvents).death, Some(Death { before: true, reset: false }));
        let both = script.next(Endpoint::UserEvents);
        assert!(both.shape.chunked && both.after == Duration::from_secs(1) && !both.hang);
        assert!(script.next(Endpoint::UserEvents).hang);
        assert_eq!(script.next(Endpoint::HistoryGet), Plan::default());
    }

    #[test]
    fn the_same_seed_meets_the_same_faults() {
        let profile = Profile::seeded(7).with(0.5, Fault::JitterBefore(Duration::from_secs(1))).with_at(
            Endpoint::HistoryGet,
            0.3,
            Fault::DropAfter,
        );
        let run = || {
            let mut script = Script::default();
            script.random(profile.clone());
            (0..50).map(|_| script.next(Endpoint::HistoryGet)).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
        assert!(run().iter().any(|p| p.death.is_some()) && run().iter().any(|p| !p.faulted));
    }
}
