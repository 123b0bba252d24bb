//! Who calls: a request's head in, a [`Client`] out, or 401.
//!
//! Invariants: only this module makes a [`Client`]. Each method of proof stands by itself and says one of three things:
//! known, wrong, or nothing shown. The first that says anything decides; wrong credentials are never forgiven because
//! another method would have let the caller in. `anonymous_client` is only for callers that showed nothing at all. One
//! exception, and why, is in `mtls`: a certificate that names nobody does not stand in the way of a key.
//!
//! | shown | by | asked |
//! | --- | --- | --- |
//! | a key, or a token | `api_key`, `jwt` | first: it was put there for this request |
//! | a client certificate | `mtls` | when the head shows nothing |
//! | the user at the other end of a Unix socket | `unix_peer` | when there is no certificate |

pub mod api_key;
mod auth_method;
mod credential;
mod jwt;
mod last_use;
mod mtls;
mod strangers;
mod unix_peer;

use std::sync::Arc;

use hyper::HeaderMap;

use crate::config::{self, Config};
use crate::kernel::clock::UnixMillis;
use crate::kernel::conn::{Conn, Lapse};
use crate::kernel::fast_map::FastMap;
use crate::kernel::metrics::Metrics;
use crate::kernel::names::ClientName;
use crate::kernel::proof::{By, Ended, Evidence, Life, Verdict};
use crate::kernel::task::Lane;
use crate::request::jwks::Keys;
use crate::request::refusal::Refusal;
use crate::tls::ClientTrust;

use api_key::ApiKeys;
pub use auth_method::{AuthFault, AuthMethod, KeyHeader};
use credential::Credential;
use jwt::Tokens;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use jwt::fuzzing;
use last_use::ClientUses;
pub use last_use::{LastUse, ProofUse};
use mtls::Certificates;
pub use strangers::{StrangerPlace, Strangers};
use unix_peer::UnixPeers;

/// A caller we know. Nobody is known by name alone:
///
/// ```compile_fail,E0451
/// use rtm_gateway::kernel::names::ClientName;
/// use rtm_gateway::kernel::proof::{Evidence, Life};
/// use rtm_gateway::request::identity::{AuthMethod, Client};
///
/// fn forge(name: ClientName, evidence: Evidence, life: Life, method: AuthMethod) -> Client {
///     Client { name, evidence, life, method }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    name: ClientName,
    evidence: Evidence,
    life: Life,
    method: AuthMethod,
}

impl Client {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ClientName {
        &self.name
    }

    /// What showed it.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// For how long.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// How it was known.
    #[must_use]
    pub fn method(&self) -> AuthMethod {
        self.method
    }
}

/// A caller that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unidentified {
    /// For the log.
    pub fault: AuthFault,
    /// For the caller, who is not told which it was.
    pub refusal: Refusal,
}

impl From<AuthFault> for Unidentified {
    fn from(fault: AuthFault) -> Self {
        Self { fault, refusal: Refusal::Unauthenticated }
    }
}

/// What one method of proof found.
#[derive(Debug, PartialEq, Eq)]
enum AuthOutcome<'a> {
    Nothing,
    Wrong(AuthFault),
    Known(&'a ClientName, By),
}

/// All ways to know a caller.
#[derive(Debug)]
pub struct Identity {
    api_keys: ApiKeys,
    tokens: Option<Tokens>,
    unix_peers: UnixPeers,
    certificates: Certificates,
    trust: Arc<ClientTrust>,
    anonymous: Option<ClientName>,
    /// Of each client.
    uses: FastMap<ClientName, ClientUses>,
}

impl Identity {
    /// The ways a configuration gives; certificates are held against `trust`, tokens are checked by `keys`, those of
    /// the configured issuer, and counted.
    #[must_use]
    pub fn new(config: &Config, trust: Arc<ClientTrust>, keys: Option<Arc<Keys>>, metrics: &Metrics) -> Self {
        let jwt = config.jwt.as_ref().zip(keys);
        Self {
            api_keys: ApiKeys::new(&config.clients),
            tokens: jwt.map(|(jwt, keys)| Tokens::new(jwt, &config.clients, keys, metrics.clone())),
            unix_peers: UnixPeers::new(&config.clients),
            certificates: Certificates::new(&config.clients),
            trust,
            anonymous: config.server.anonymous_client.clone(),
            uses: config.clients.iter().map(|client| (client.name.clone(), ClientUses::new(client))).collect(),
        }
    }

    /// Whether there is a client of that name.
    #[must_use]
    pub fn knows(&self, name: &ClientName) -> bool {
        self.uses.contains_key(name)
    }

    /// Goes on from what was counted of clients before.
    pub(crate) fn go_on_from(&mut self, before: &Self) {
        for (name, uses) in &mut self.uses {
            before.uses.get(name).into_iter().for_each(|counted| uses.go_on_from(counted));
        }
    }

    /// Each way that a client has to show itself, and when it last did.
    #[must_use]
    pub fn proofs(&self, client: &config::Client) -> Vec<ProofUse> {
        let is_anonymous = self.anonymous.as_ref() == Some(&client.name);
        self.uses.get(&client.name).map_or_else(Vec::new, |uses| uses.list(client, is_anonymous))
    }

    /// Says who calls, by what is known of the connection, what the head shows, and the time. Counts that it did.
    ///
    /// # Errors
    /// What was wrong with what was shown, or that nothing was: [`Refusal::Unauthenticated`]; [`Refusal::Unavailable`]
    /// when a token was shown and the issuer's keys are not known.
    pub async fn identify(&self, conn: &Conn, headers: &HeaderMap, now: UnixMillis) -> Result<Client, Unidentified> {
        // For each request, not once a connection: a certificate may expire or be revoked while it is used. And before
        // the head is looked at: a certificate that is good no more is not made up for by a key.
        let by_connection = match conn.certificate() {
            None => self.unix_peers.identify(conn),
            Some(certificate) if self.trust.vouches_for(certificate, now).await => {
                self.certificates.identify(certificate)
            }
            Some(_) => {
                // Expired, revoked or of an authority that is trusted no more. Another handshake says which.
                conn.end_soon();
                return Err(AuthFault::BadCertificate.into());
            }
        };
        let credential = Credential::of(headers);
        let by_head = self.by_head(&credential, now).await?;
        let decided = if by_head == AuthOutcome::Nothing { by_connection } else { by_head };
        let (name, by) = match (decided, &self.anonymous) {
            (AuthOutcome::Known(name, by), _) => (name, by),
            (AuthOutcome::Wrong(fault), _) => return Err(fault.into()),
            (AuthOutcome::Nothing, Some(anonymous)) => (anonymous, By::Nothing),
            (AuthOutcome::Nothing, None) => return Err(AuthFault::Nothing.into()),
        };
        let number = self.uses.get(name).and_then(|uses| uses.count(&by, now));
        let method = match &by {
            By::Key(_) => AuthMethod::Key { shown: credential.header(), number: number.unwrap_or_default() },
            By::Token(_) => AuthMethod::Jwt,
            By::Certificate => AuthMethod::Certificate,
            By::User(_) => AuthMethod::UnixPeer,
            By::Nothing => AuthMethod::Anonymous,
        };
        let evidence = Evidence { by, certificate: conn.certificate().cloned() };
        let life = self.life(&evidence, now);
        Ok(Client { name: name.clone(), evidence, life, method })
    }

    /// Whether what showed that this client calls still shows it. Looks up, but for a certificate that is held against
    /// new authorities: see [`Identity::is_quick`].
    #[must_use]
    pub fn judge(&self, client: &ClientName, evidence: &Evidence, now: UnixMillis) -> Verdict {
        let is_named = match &evidence.by {
            By::Key(digest) => self.api_keys.owner(digest) == Some(client),
            By::Token(token) => match self.tokens.as_ref().map(|tokens| tokens.still_believes(token, client)) {
                Some(Some(still)) => still,
                Some(None) => return Verdict::Undecided,
                None => false,
            },
            By::Certificate => evidence.certificate.as_ref().is_some_and(|certificate| {
                matches!(self.certificates.identify(certificate), AuthOutcome::Known(name, _) if name == client)
            }),
            By::User(uid) => self.unix_peers.owner(*uid) == Some(client),
            By::Nothing => self.anonymous.as_ref() == Some(client),
        };
        if !is_named {
            return Verdict::Ended(Ended::Withdrawn);
        }
        match evidence.certificate.as_ref().map(|certificate| self.trust.judge(certificate, now)) {
            None | Some(Ok(())) => {}
            Some(Err(Lapse::Expired)) => return Verdict::Ended(Ended::Expired),
            Some(Err(Lapse::Refused)) => return Verdict::Ended(Ended::Withdrawn),
        }
        Verdict::Good(self.life(evidence, now))
    }

    /// Whether [`Identity::judge`] only looks up.
    #[must_use]
    pub fn is_quick(&self, evidence: &Evidence, now: UnixMillis) -> bool {
        evidence.certificate.as_ref().is_none_or(|certificate| self.trust.recall(certificate, now).is_some())
    }

    /// Looks for what [`Identity::judge`] would have to look for, in that lane.
    pub async fn prepare(&self, lane: &Lane, evidence: &Evidence, now: UnixMillis) {
        if let Some(certificate) = &evidence.certificate {
            self.trust.prepare(lane, certificate, now).await;
        }
    }

    /// Whether the token issuer's keys are known now, if tokens are configured.
    #[must_use]
    pub fn has_keys(&self) -> Option<bool> {
        self.tokens.as_ref().map(Tokens::has_keys)
    }

    fn life(&self, evidence: &Evidence, now: UnixMillis) -> Life {
        let own = match (&evidence.by, &self.tokens) {
            (By::Token(token), Some(tokens)) => tokens.life(token),
            _ => Life::ENDLESS,
        };
        let certificate = evidence.certificate.as_ref();
        own.and(certificate.map_or(Life::ENDLESS, |certificate| self.trust.life(certificate, now)))
    }

    async fn by_head(&self, shown: &Credential<'_>, now: UnixMillis) -> Result<AuthOutcome<'_>, Unidentified> {
        match (shown, &self.tokens) {
            (Credential::Bearer(bearer), Some(tokens)) if jwt::is_token(bearer) => {
                let unchecked = |refusal| Unidentified { fault: AuthFault::UncheckedToken, refusal };
                // In a box: keys, which most show, need no room to wait in.
                Box::pin(tokens.identify(bearer, now)).await.map_err(unchecked)
            }
            _ => Ok(self.api_keys.identify(shown)),
        }
    }
}

#[cfg(test)]
mod tests;
