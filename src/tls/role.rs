//! What a certificate or a list is for: by that its expiry is told.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::kernel::clock::Clock;
use crate::kernel::metrics::{Metrics, OutcomeLabels, RoleLabels};

/// What a certificate or a revocation list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Shown to callers.
    Server,
    /// The authorities that callers' certificates may come from.
    ClientCa,
    /// Of those authorities.
    RevocationList,
    /// Shown to operators.
    AdminServer,
    /// The authorities that operators' certificates may come from.
    AdminClientCa,
    /// Of those authorities.
    AdminRevocationList,
    /// `upstream.ca_file`.
    UpstreamCa,
    /// The `ca_file` of webhooks.
    WebhookCa,
    /// The `ca_file` of the token issuer's address.
    JwksCa,
}

/// Who comes in where TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsDoor {
    /// `[server.tls]`
    Callers,
    /// `[admin.tls]`
    Operators,
}

impl Role {
    /// As the metrics have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ClientCa => "client_ca",
            Self::RevocationList => "revocation_list",
            Self::AdminServer => "admin_server",
            Self::AdminClientCa => "admin_client_ca",
            Self::AdminRevocationList => "admin_revocation_list",
            Self::UpstreamCa => "upstream_ca",
            Self::WebhookCa => "webhook_ca",
            Self::JwksCa => "jwks_ca",
        }
    }

    /// Tells the metrics when the first of that role runs out, in seconds since 1970. `None`: there is none.
    pub fn ends(self, at: Option<i64>, metrics: &Metrics, clock: &Clock) {
        metrics.certificate_expiry.set(&RoleLabels { role: self.as_str().to_owned() }, at, clock);
    }
}

impl TlsDoor {
    /// Its section of the configuration.
    #[must_use]
    pub fn section(self) -> &'static str {
        match self {
            Self::Callers => "server.tls",
            Self::Operators => "admin.tls",
        }
    }

    /// Where its handshakes are counted.
    pub(super) fn handshakes(self, metrics: &Metrics) -> &Family<OutcomeLabels, Counter> {
        match self {
            Self::Callers => &metrics.tls_handshakes,
            Self::Operators => &metrics.operator_handshakes,
        }
    }

    /// What is shown there; the authorities that are trusted there; their revocation lists.
    pub(super) fn roles(self) -> [Role; 3] {
        match self {
            Self::Callers => [Role::Server, Role::ClientCa, Role::RevocationList],
            Self::Operators => [Role::AdminServer, Role::AdminClientCa, Role::AdminRevocationList],
        }
    }
}
