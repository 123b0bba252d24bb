//! What a client may do: [`Client`] in, [`Grant`] out. What is not allowed is forbidden.
//!
//! Invariants: only [`Policy::grant`] makes a [`Grant`]. An app that does not exist and an app that is not the client's
//! are refused by the same words, so nobody learns which apps there are. What a client in report mode may not do is
//! allowed only where the app exists, and goes on marked as such.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::config::{self, ClientMode, Config};
use crate::kernel::fast_map::FastMap;
use crate::kernel::names::{Action, AppId, ClientName, SubscriptionName};
use crate::kernel::proof::{Basis, Life};
use crate::request::identity::Client;
use crate::request::refusal::Refusal;
use crate::vendor::order::Payer;

/// Everybody's rights.
#[derive(Debug)]
pub struct Policy {
    apps: FastMap<AppId, Arc<config::App>>,
    rights: FastMap<ClientName, Arc<Rights>>,
}

#[derive(Debug)]
struct Rights {
    weight: NonZeroU32,
    allow: Vec<config::Allow>,
    terms: Terms,
}

/// On which terms a client's request is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Requests it may have in hand.
    pub max_concurrent: Option<NonZeroU32>,
    /// Requests it may make in a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// Whether these, and `allow`, are enforced or only reported.
    pub mode: ClientMode,
    /// This request would be forbidden if it were not for the mode.
    pub would_forbid: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { max_concurrent: None, requests_per_second: None, mode: ClientMode::Enforce, would_forbid: false }
    }
}

/// A client and what it may do. A name is granted nothing:
///
/// ```compile_fail,E0308
/// use rtm_gateway::kernel::names::ClientName;
/// use rtm_gateway::request::policy::{Grant, Policy};
///
/// fn forge(policy: &Policy, name: ClientName) -> Grant<'_> {
///     policy.grant(name)
/// }
/// ```
#[derive(Debug)]
pub struct Grant<'a> {
    client: Client,
    rights: Option<&'a Rights>,
    apps: &'a FastMap<AppId, Arc<config::App>>,
}

impl Policy {
    /// The rights a configuration gives.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let apps = config.apps.iter().map(|app| (app.id.clone(), Arc::new(app.clone()))).collect();
        let rights = |c: &config::Client| {
            let terms = Terms {
                max_concurrent: c.max_concurrent,
                requests_per_second: c.requests_per_second,
                mode: c.mode,
                would_forbid: false,
            };
            Arc::new(Rights { weight: c.weight, allow: c.allow.clone(), terms })
        };
        let rights = config.clients.iter().map(|c| (c.name.clone(), rights(c))).collect();
        Self { apps, rights }
    }

    /// Whether there is an app of this id. For the log: an id that is nobody's is the caller's own text.
    #[must_use]
    pub fn has(&self, app: &AppId) -> bool {
        self.apps.contains_key(app)
    }

    /// Whether who was granted this before would be granted it still.
    #[must_use]
    pub fn still_allows(&self, basis: &Basis) -> bool {
        let Some(rights) = self.rights.get(&basis.client) else { return false };
        let is_for = |user: &str| rights.sends_as(&basis.app, user);
        let is_allowed = || rights.entries(&basis.app, basis.action).next().is_some();
        // As a request is judged: report mode lets everything be done with an app that there is.
        self.has(&basis.app)
            && (rights.terms.mode == ClientMode::Report || (is_allowed() && basis.user.as_deref().is_none_or(is_for)))
    }

    /// Whether a client may use a subscription: its own, and every shared one. The name of another client is not for
    /// sharing, whether that client is configured now or is one of whom the store holds a place (`is_stored` says so of
    /// its default subscription): who means its place would be given another, without a word.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when it may not.
    pub fn subscription(
        &self,
        client: &ClientName,
        name: &SubscriptionName,
        is_stored: impl FnOnce(&SubscriptionName) -> bool,
    ) -> Result<(), Refusal> {
        // What no client can be called is nobody's: a client's own default holds a `$`.
        let Some(of_namesake) = name.default_of_namesake() else { return Ok(()) };
        let is_configured = |other: &ClientName| other != client && other.as_str() == name.as_str();
        let is_anothers = self.rights.keys().any(is_configured) || is_stored(&of_namesake);
        if is_anothers { Err(Refusal::Forbidden) } else { Ok(()) }
    }

    /// What this client may do; possibly nothing.
    #[must_use]
    pub fn grant(&self, client: Client) -> Grant<'_> {
        let rights = self.rights.get(client.name()).map(Arc::as_ref);
        Grant { client, rights, apps: &self.apps }
    }
}

impl Grant<'_> {
    /// The app, if there is one of this id and the client may do this with it.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] otherwise.
    pub fn app(&self, app: &AppId, action: Action) -> Result<Arc<config::App>, Refusal> {
        let allowed = self.entries(app, action).next().is_some();
        self.apps.get(app).filter(|_| allowed).cloned().ok_or(Refusal::Forbidden)
    }

    /// Whether the client may send messages of this app as this user.
    #[must_use]
    pub fn sends_as(&self, app: &AppId, user: &str) -> bool {
        self.rights.is_some_and(|rights| rights.sends_as(app, user))
    }

    /// Who pays for what this client causes.
    #[must_use]
    pub fn payer(&self) -> Payer {
        Payer { client: self.client.name().clone(), weight: self.rights.map_or(1, |r| r.weight.get()) }
    }

    /// What a request rests on that does this with this app, as this user where it sends a message.
    #[must_use]
    pub fn basis(&self, app: &AppId, action: Action, user: Option<&str>) -> Basis {
        let (client, evidence) = (self.client.name().clone(), self.client.evidence().clone());
        Basis { client, evidence, app: app.clone(), action, user: user.map(Into::into) }
    }

    /// How long what showed the client is good by itself.
    #[must_use]
    pub fn life(&self) -> Life {
        self.client.life()
    }

    /// On which terms its requests are admitted.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.rights.map(|r| r.terms).unwrap_or_default()
    }

    /// The app, if there is one of this id and the client is in report mode: then what is not allowed is only reported.
    #[must_use]
    pub fn unenforced(&self, app: &AppId) -> Option<Arc<config::App>> {
        self.apps.get(app).filter(|_| self.terms().mode == ClientMode::Report).cloned()
    }

    fn entries<'a>(&'a self, app: &'a AppId, action: Action) -> impl Iterator<Item = &'a config::Allow> {
        self.rights.into_iter().flat_map(move |rights| rights.entries(app, action))
    }
}

impl Rights {
    fn sends_as(&self, app: &AppId, user: &str) -> bool {
        let fits = |allow: &config::Allow| match &allow.users {
            None => true,
            Some(patterns) => patterns.iter().any(|p| p.matches(user)),
        };
        self.entries(app, Action::Messages).any(fits)
    }

    fn entries<'a>(&'a self, app: &'a AppId, action: Action) -> impl Iterator<Item = &'a config::Allow> {
        self.allow.iter().filter(move |a| a.actions.contains(&action) && a.app.as_ref().is_none_or(|id| id == app))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allow;
    use crate::kernel::names::Pattern;

    fn app(id: &str) -> AppId {
        AppId::parse(id).unwrap()
    }

    fn policy(allow: Vec<Allow>) -> Policy {
        let client = config::Client::named(ClientName::parse("c").unwrap(), allow);
        let mut policy = Policy::new(&Config { clients: vec![client], ..Config::default() });
        for id in ["a1", "a2"] {
            let uid = config::Credential::Token {
                app_certificate: crate::kernel::secret::SecretSource::Env("X".into()),
                uid: "u".into(),
            };
            let config = config::App {
                id: app(id),
                regions: Vec::new(),
                credential: uid,
                quota: config::Quota::default(),
                events: config::Events::default(),
                history: config::History::default(),
                webhooks: Vec::new(),
            };
            policy.apps.insert(app(id), Arc::new(config));
        }
        policy
    }

    fn grant<'a>(policy: &'a Policy, name: &str) -> Grant<'a> {
        policy.grant(Client::for_tests(name))
    }

    #[test]
    fn what_is_not_allowed_is_forbidden() {
        let allow =
            |id: Option<&str>, actions: &[Action]| Allow { app: id.map(app), actions: actions.to_vec(), users: None };
        let nothing = policy(vec![]);
        assert_eq!(grant(&nothing, "c").app(&app("a1"), Action::Events).unwrap_err(), Refusal::Forbidden);
        let some = policy(vec![allow(Some("a1"), &[Action::Events]), allow(None, &[Action::Count])]);
        let c = grant(&some, "c");
        assert!(c.app(&app("a1"), Action::Events).is_ok());
        assert!(c.app(&app("a2"), Action::Count).is_ok());
        for (id, action) in [("a2", Action::Events), ("a1", Action::History), ("none", Action::Count)] {
            assert_eq!(c.app(&app(id), action).unwrap_err(), Refusal::Forbidden, "{id}");
        }
        // A client that is gone after a reload has no rights.
        assert!(grant(&some, "gone").app(&app("a1"), Action::Events).is_err());
    }

    #[test]
    fn messages_are_bound_to_the_users_of_the_entry_that_allows_them() {
        let entry = |id: &str, users: Option<&[&str]>| Allow {
            app: Some(app(id)),
            actions: vec![Action::Messages],
            users: users.map(|all| all.iter().map(|p| Pattern::new(p)).collect()),
        };
        let policy = policy(vec![entry("a1", Some(&["bot-*", "system"])), entry("a2", None)]);
        let c = grant(&policy, "c");
        assert!(c.sends_as(&app("a1"), "bot-7") && c.sends_as(&app("a1"), "system"));
        assert!(!c.sends_as(&app("a1"), "alice"));
        assert!(c.sends_as(&app("a2"), "alice"));
    }
}
