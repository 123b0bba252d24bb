//! [`Ground`]: what an order rests on, which becomes a [`Proof`] if the order has to wait.
//!
//! Most orders go out at once. Nothing can be withdrawn under such a one, so the register need not know of it.
//!
//! Invariant: it says what the proof would say that it becomes. While nothing has changed since it was let in, that is
//! known without the register; afterwards it is entered there as what was found good in the generation that it came in,
//! and is judged.

use std::sync::OnceLock;

use super::{Basis, Ended, Life, Proof, Proofs, Work};

/// What let in whoever waits for an order.
#[derive(Clone, Debug)]
pub enum Ground {
    /// A proof that is in the register.
    Entered(Proof),
    /// One that is not yet.
    Open(Box<OpenGround>),
}

/// What a proof will be made of, if one is needed.
#[derive(Clone, Debug)]
pub struct OpenGround {
    proofs: Proofs,
    basis: Basis,
    /// The generation in which it was found good.
    seen: u64,
    life: Life,
    work: Work,
    entered: OnceLock<Proof>,
}

impl Ground {
    /// Found good by what was in force in the generation `seen`, for a piece of work.
    #[must_use]
    pub fn open(proofs: &Proofs, basis: Basis, seen: u64, life: Life, work: Work) -> Self {
        Self::Open(Box::new(OpenGround { proofs: proofs.clone(), basis, seen, life, work, entered: OnceLock::new() }))
    }

    /// Whether work that was admitted may go on: see [`Proof::goes_on`].
    ///
    /// # Errors
    /// How it was withdrawn.
    pub async fn goes_on(&self) -> Result<(), Ended> {
        match self {
            Self::Open(open) if open.entered.get().is_none() && open.seen >= open.proofs.generation() => Ok(()),
            Self::Open(_) | Self::Entered(_) => self.proof().goes_on().await,
        }
    }

    /// Resolves when it was withdrawn: see [`Proof::withdrawn`].
    pub async fn withdrawn(&self) -> Ended {
        self.proof().withdrawn().await
    }

    fn proof(&self) -> &Proof {
        match self {
            Self::Entered(proof) => proof,
            Self::Open(open) => open.entered.get_or_init(|| {
                let OpenGround { proofs, basis, seen, life, work, .. } = &**open;
                proofs.enter(basis.clone(), *seen, *life).of(*work)
            }),
        }
    }
}

impl From<Proof> for Ground {
    fn from(proof: Proof) -> Self {
        Self::Entered(proof)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::kernel::clock::Clock;
    use crate::kernel::names::{Action, AppId, ClientName};
    use crate::kernel::proof::{By, Evidence, Verdict};

    fn ground(proofs: &Proofs) -> Ground {
        let basis = Basis {
            client: ClientName::parse("c").unwrap(),
            evidence: Evidence { by: By::Key([7; 32]), certificate: None },
            app: AppId::parse("a").unwrap(),
            action: Action::Messages,
            user: None,
        };
        Ground::open(proofs, basis, proofs.generation(), Life::ENDLESS, Work::Message)
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_waits_is_never_in_the_register() {
        let proofs = Proofs::new(Clock::anchored(SystemTime::UNIX_EPOCH));
        let ground = ground(&proofs);
        assert_eq!(ground.goes_on().now_or_never(), Some(Ok(())));
        assert_eq!(proofs.all().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_since_it_was_let_in_is_judged_before_it_goes_on() {
        for (verdict, said) in [
            (Verdict::Good(Life::ENDLESS), Ok(())),
            (Verdict::Ended(Ended::Expired), Ok(())),
            (Verdict::Ended(Ended::Withdrawn), Err(Ended::Withdrawn)),
        ] {
            let proofs = Proofs::new(Clock::anchored(SystemTime::UNIX_EPOCH));
            let ground = ground(&proofs);
            proofs.changed();
            assert_eq!(ground.goes_on().now_or_never(), None, "it waits for its judgement");
            let [proof] = &proofs.all()[..] else { unreachable!("one rests there") };
            assert!(proof.is_due(proofs.generation(), crate::kernel::clock::UnixMillis(0)));
            proof.judge(proofs.generation(), verdict);
            assert_eq!(ground.goes_on().now_or_never(), Some(said));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_that_it_was_withdrawn() {
        let proofs = Proofs::new(Clock::anchored(SystemTime::UNIX_EPOCH));
        let ground = ground(&proofs);
        let mut withdrawn = Box::pin(ground.withdrawn());
        assert!(futures_util::poll!(&mut withdrawn).is_pending());
        proofs.changed();
        proofs.all()[0].judge(proofs.generation(), Verdict::Ended(Ended::Forbidden));
        assert_eq!(withdrawn.now_or_never(), Some(Ended::Forbidden));
    }
}
