//! The labels of the metrics.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

use super::{BoundedLabels, OTHER};

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $(pub $field: String),+ }
    )+};
}

labels! {
    /// An exchange with the vendor. `status` is a number, or `error`.
    UpstreamLabels { app, region, endpoint, status }
    /// An endpoint of the vendor.
    EndpointLabels { app, endpoint }
    /// A bucket of an app.
    BucketLabels { app, bucket }
    /// A client's seats of a bucket: a configured client, `$pollers` (the gateway's own reads), or `other`.
    ClientBucketLabels { app, bucket, client }
    /// A stream of a region.
    SourceLabels { app, stream, region }
    StreamLabels { app, stream }
    /// A subscription. Bounded: a subscription costs a stored cursor.
    SubscriptionLabels { app, stream, subscription }
    /// Why events may have been lost.
    LossLabels { app, stream, region, reason }
    AppLabels { app }
    /// How a stream of an app's messages ended: `complete`, `broken`, or `left` by its reader.
    StreamEndLabels { app, end }
    /// Why orders of an app are sent again.
    RetryLabels { app, reason }
    PlaceLabels { region, host }
    /// An endpoint of an app in a region.
    RegionEndpointLabels { app, region, endpoint }
    /// One app's connections in a region for one kind of request: `events`, `history` or `messages`.
    LaneLabels { app, region, kind }
    /// A cache and what a look-up found.
    CacheLabels { cache, outcome }
    ClientLabels { client }
    /// One of a client's ceilings.
    CeilingLabels { client, limit }
    /// Why a client in report mode would be refused.
    WouldRefuseLabels { client, reason }
    /// What there was no room for.
    ShedLabels { reason }
    /// Something that was tried and how it ended: a reload, a handshake, a fetch, a token.
    OutcomeLabels { outcome }
    /// What was wrong with a PROXY header.
    ProxyHeaderLabels { reason }
    /// What a caller showed that is not known.
    ProofLabels { proof }
    WebhookLabels { app, webhook }
    /// What came of a webhook's try.
    WebhookOutcomeLabels { app, webhook, outcome }
    /// Who was asked to go for a newcomer: a `stranger`, or a `client`'s idle connection.
    EvictedLabels { who }
    /// What ended because its proof did, and how that did: `withdrawn`, `expired`, or the right alone: `forbidden`.
    EndedWorkLabels { work, reason }
    /// Why an operator's request was refused for who asked.
    OperatorRefusedLabels { reason }
    /// What a certificate or a list is for: see [`crate::tls::Role`].
    RoleLabels { role }
    /// A configuration, by its digest.
    ConfigLabels { hash }
}

/// A finished request. Looked up for each of them, so no text is made for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub route: &'static str,
    /// Empty where nobody knew who called.
    pub client: Arc<str>,
    pub status: u16,
}

/// A route, of a fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    pub route: &'static str,
}

/// The labels that name a client.
macro_rules! by_client {
    ($($name:ident),+ $(,)?) => {$(
        impl BoundedLabels for $name {
            fn other(&self) -> Self {
                let mut other = self.clone();
                other.client = OTHER.into();
                other
            }
        }
    )+};
}

by_client!(ClientBucketLabels, RequestLabels, ClientLabels, CeilingLabels, WouldRefuseLabels);
