//! What a bucket does after the vendor refused a request (429) all the same: someone else spends the same App ID.
//!
//! Invariants: `1 <= in_force <= N`. One burst of refusals halves once: a refusal of a seat that was given before the
//! last halving says nothing new. Growth is one seat for each whole window after the pause without a refusal, and is
//! applied when somebody looks, so it needs no timer. The vendor's word is kept as it was said and believed for as long
//! as it may be now, so a bound that is lowered counts at once.
//!
//! Refusals are one episode until all seats are in force again and a window passed without another. Its beginning and
//! its end are told once each.

use std::time::Duration;

use tokio::time::Instant;

use super::window::later;

/// The longest `Retry-After` that is believed while nothing else was said.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How far a bucket is held back.
#[derive(Debug)]
pub(super) struct Penalty {
    in_force: u32,
    /// By our own rules.
    opens_at: Instant,
    /// When the vendor asked to be left alone, and for how long.
    asked: Option<(Instant, Duration)>,
    /// The longest that it is believed.
    longest: Duration,
    grows_at: Instant,
    era: u64,
    episode: Option<Episode>,
    /// One that is over, and whose end nobody was told of yet.
    ended: Option<Episode>,
}

/// Refusals that belong together.
#[derive(Clone, Copy, Debug)]
struct Episode {
    since: Instant,
    last: Instant,
    refused: u64,
    retry_after: Option<Duration>,
    is_told: bool,
}

/// The vendor refuses requests of a bucket (429) although the quota is kept: somebody else spends the same App ID, or
/// the configuration allows more than the vendor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorRefusals {
    /// When it began to.
    pub since: Instant,
    /// When it did so last.
    pub last: Instant,
    /// How many it has refused since.
    pub refused: u64,
    /// The `Retry-After` of the last, if it had one.
    pub retry_after: Option<Duration>,
    /// Seats that may be used for now.
    pub in_force: u32,
    /// Orders are held back by it now: seats are out of use, or none is given for a while.
    pub binds: bool,
}

/// What is to be told of the vendor's refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalNews {
    Began(VendorRefusals),
    Ended(VendorRefusals),
    /// They are watched no longer: the bucket is used no more, or by another name.
    Unwatched(VendorRefusals),
}

impl Penalty {
    /// None, but closed until `opens_at`.
    pub(super) fn none(seats: u32, opens_at: Instant) -> Self {
        Self {
            in_force: seats,
            opens_at,
            asked: None,
            longest: MAX_PAUSE,
            grows_at: opens_at,
            era: 0,
            episode: None,
            ended: None,
        }
    }

    /// Seats that may be used.
    pub(super) fn in_force(&self) -> u32 {
        self.in_force
    }

    /// No seat is given before.
    pub(super) fn opens_at(&self) -> Instant {
        let asked = self.asked.map(|(at, pause)| later(at, pause.min(self.longest)));
        asked.map_or(self.opens_at, |asked| asked.max(self.opens_at))
    }

    /// The vendor's `Retry-After` is believed for so long, also one that was said before.
    pub(super) fn believe(&mut self, longest: Duration) {
        self.longest = longest;
    }

    /// Counts the halvings. A seat remembers the era it was given in.
    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// No seat is given before `at`.
    pub(super) fn close_until(&mut self, at: Instant) {
        self.opens_at = self.opens_at.max(at);
    }

    /// The vendor refused a seat of `era`. `window` is W, `slack` what is added to be sure it is over.
    pub(super) fn refused(
        &mut self,
        now: Instant,
        era: u64,
        retry_after: Option<Duration>,
        window: Duration,
        slack: Duration,
    ) {
        self.close_until(later(now, window.saturating_add(slack)));
        if let Some(asked) = retry_after {
            // A shorter wish, of an answer that was under way, does not take back a longer one.
            let before =
                self.asked.map(|(at, pause)| later(at, pause.min(self.longest)).saturating_duration_since(now));
            self.asked = Some((now, asked.saturating_add(slack).max(before.unwrap_or_default())));
        }
        self.grows_at = later(self.opens_at(), window);
        let first = Episode { since: now, last: now, refused: 0, retry_after, is_told: false };
        let episode = self.episode.get_or_insert(first);
        episode.refused += 1;
        (episode.last, episode.retry_after) = (now, retry_after);
        if era == self.era {
            self.in_force = (self.in_force / 2).max(1);
            self.era += 1;
        }
    }

    /// Applies the growth that is due.
    pub(super) fn grow(&mut self, now: Instant, seats: u32, window: Duration) {
        let due = self.grown_by(now, seats, window);
        if due > 0 {
            self.in_force += due;
            self.grows_at = later(self.grows_at, window.saturating_mul(due));
        }
        if self.in_force >= seats && now >= self.grows_at && self.episode.is_some() {
            self.ended = self.episode.take();
        }
    }

    /// That the vendor refuses, as long as it does.
    pub(super) fn refusals(&self, now: Instant, seats: u32) -> Option<VendorRefusals> {
        self.episode.map(|episode| self.told_of(episode, now, seats))
    }

    /// That it began to refuse, or refuses no more.
    pub(super) fn news(&mut self, now: Instant, seats: u32) -> Option<RefusalNews> {
        let told = |episode: &mut Episode| std::mem::replace(&mut episode.is_told, true);
        if let Some(mut ended) = self.ended.take() {
            let was_told = told(&mut ended);
            let news = self.told_of(ended, now, seats);
            if was_told {
                return Some(RefusalNews::Ended(news));
            }
            // Over before anybody looked: first that it began.
            self.ended = Some(ended);
            return Some(RefusalNews::Began(news));
        }
        let episode = self.episode.as_mut().filter(|episode| !episode.is_told)?;
        told(episode);
        self.refusals(now, seats).map(RefusalNews::Began)
    }

    /// The bucket is used no more, or by another name: what was told to have begun is told to be over.
    pub(super) fn last_news(&mut self, now: Instant, seats: u32) -> Option<RefusalNews> {
        let (ended, left) = (self.ended.take(), self.episode.take());
        let ended = ended.map(|episode| (episode, RefusalNews::Ended as fn(VendorRefusals) -> RefusalNews));
        let left = left.map(|episode| (episode, RefusalNews::Unwatched as fn(VendorRefusals) -> RefusalNews));
        let (episode, news) = ended.into_iter().chain(left).find(|(episode, _)| episode.is_told)?;
        Some(news(self.told_of(episode, now, seats)))
    }

    fn told_of(
        &self,
        Episode { since, last, refused, retry_after, .. }: Episode,
        now: Instant,
        seats: u32,
    ) -> VendorRefusals {
        let binds = self.in_force < seats || now < self.opens_at();
        VendorRefusals { since, last, refused, retry_after, in_force: self.in_force, binds }
    }

    /// How many seats more there will be at `at` if the vendor refuses none until then.
    pub(super) fn grown_by(&self, at: Instant, seats: u32, window: Duration) -> u32 {
        let missing = seats.saturating_sub(self.in_force);
        if missing == 0 || at < self.grows_at {
            return 0;
        }
        let windows = (at - self.grows_at).as_nanos() / window.as_nanos().max(1) + 1;
        u32::try_from(windows).unwrap_or(u32::MAX).min(missing)
    }

    /// When the next seat grows back; `None` when none is missing.
    pub(super) fn grows_at(&self, seats: u32) -> Option<Instant> {
        (self.in_force < seats).then_some(self.grows_at)
    }

    /// The limit changed from `old` to `new` seats. A penalty stays, what was whole stays whole.
    pub(super) fn reseat(&mut self, old: u32, new: u32) {
        self.in_force = if self.in_force < old { self.in_force.min(new) } else { new };
    }
}
