//! [`Call`]: a [`Route`] that its caller may use.
//!
//! Invariant: only [`Call::within`] makes one, so nothing runs that was not granted.

use std::sync::Arc;

use super::{Kind, Route};
use crate::config;
use crate::kernel::proof::{Basis, Life};
use crate::request::policy::{Grant, Terms};
use crate::request::refusal::Refusal;
use crate::vendor::order::Payer;

/// What is asked, of which app, and who asks and pays.
#[derive(Debug)]
pub struct AppRequest {
    pub kind: Kind,
    pub app: Arc<config::App>,
    /// Who pays for what it costs.
    pub payer: Payer,
    /// Why it may be done. What goes on for long is judged by it again after each reload.
    pub basis: Basis,
    /// How long what showed the caller is good by itself.
    pub life: Life,
}

/// A route the caller may use. A route alone is none:
///
/// ```compile_fail,E0451
/// use rtm_gateway::request::policy::Terms;
/// use rtm_gateway::request::route::{AppRequest, Call};
///
/// fn forge(request: AppRequest) -> Call {
///     Call { request, terms: Terms::default() }
/// }
/// ```
#[derive(Debug)]
pub struct Call {
    request: AppRequest,
    terms: Terms,
}

impl Call {
    /// The call, when the grant covers it, or its client is in report mode (then the call says so).
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when it does not, or there is no such app.
    pub fn within(route: Route, grant: &Grant<'_>) -> Result<Self, Refusal> {
        let mut terms = grant.terms();
        let app = match allowed(&route, grant) {
            Ok(app) => app,
            Err(refusal) => {
                terms.would_forbid = true;
                grant.unenforced(&route.app).ok_or(refusal)?
            }
        };
        let basis = grant.basis(&route.app, route.action(), route.kind.sender());
        let request = AppRequest { kind: route.kind, app, payer: grant.payer(), basis, life: grant.life() };
        Ok(Self { request, terms })
    }

    /// On which terms it is to be admitted.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Who pays.
    #[must_use]
    pub fn payer(&self) -> &Payer {
        &self.request.payer
    }

    /// What is asked. Of no use without an [`Admitted`](crate::request::admission::Admitted).
    #[must_use]
    pub fn into_request(self) -> AppRequest {
        self.request
    }
}

fn allowed(route: &Route, grant: &Grant<'_>) -> Result<Arc<config::App>, Refusal> {
    let app = grant.app(&route.app, route.action())?;
    match route.kind.sender() {
        Some(user) if !grant.sends_as(&route.app, user) => Err(Refusal::Forbidden),
        Some(_) | None => Ok(app),
    }
}
