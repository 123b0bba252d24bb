//! Every metric: name, labels and help in one file.
//!
//! Invariants: label values come from configuration or from fixed sets, never from what a stranger sent, so the number
//! of series is bounded; no value of a secret is ever a label. Names start with `rtm_gateway_`. A [`Metrics`] is a
//! value: two gateways in one process do not share one.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        #[expect(missing_docs, reason = "the fields are the labels of that name")]
        pub struct $name { $(pub $field: String),+ }
    )+};
}

labels! {
    /// A finished request.
    RequestLabels { route, client, status }
    /// A route.
    RouteLabels { route }
    /// An exchange with the vendor. `status` is a number, or `error`.
    UpstreamLabels { app, region, endpoint, status }
    /// An endpoint of the vendor.
    EndpointLabels { app, endpoint }
    /// A bucket of an app.
    BucketLabels { app, bucket }
    /// A stream of a region.
    SourceLabels { app, stream, region }
    /// A stream.
    StreamLabels { app, stream }
    /// A subscription. Bounded: a subscription costs a stored cursor.
    SubscriptionLabels { app, stream, subscription }
    /// Why events may have been lost.
    LossLabels { app, stream, region, reason }
    /// An app.
    AppLabels { app }
    /// How a stream of an app's messages ended: `complete`, `broken`, or `left` by its reader.
    StreamEndLabels { app, end }
    /// Why orders of an app are sent again.
    RetryLabels { app, reason }
    /// A region's host.
    PlaceLabels { region, host }
    /// An endpoint of an app in a region.
    RegionEndpointLabels { app, region, endpoint }
    /// One app's connections in a region for one kind of request: `events`, `history` or `messages`.
    LaneLabels { app, region, kind }
    /// A cache and what a look-up found.
    CacheLabels { cache, outcome }
    /// A client.
    ClientLabels { client }
    /// One of a client's ceilings.
    CeilingLabels { client, limit }
    /// Why a client in report mode would be refused.
    WouldRefuseLabels { client, reason }
    /// What there was no room for.
    ShedLabels { reason }
    /// Something that was tried and how it ended: a reload, a handshake, a fetch, a token.
    OutcomeLabels { outcome }
    /// A webhook.
    WebhookLabels { app, webhook }
    /// What came of a webhook's try.
    WebhookOutcomeLabels { app, webhook, outcome }
    /// Who was asked to go for a newcomer: a `stranger`, or a `client`'s idle connection.
    EvictedLabels { who }
    /// What ended because its proof did, and how that did: `withdrawn`, `expired`, or the right alone: `forbidden`.
    EndedWorkLabels { work, reason }
    /// What we hold that runs out: `certificate` or `revocation_list`.
    HeldLabels { what }
}

/// The metrics of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

/// The families. Reached through [`Metrics`], which derefs to it.
#[expect(missing_docs, reason = "each family is described where it is registered")]
pub struct Inner {
    registry: Registry,
    pub requests: Family<RequestLabels, Counter>,
    pub request_duration: Histograms<RouteLabels>,
    pub upstream_requests: Family<UpstreamLabels, Counter>,
    pub upstream_duration: Histograms<EndpointLabels>,
    pub upstream_retries: Family<RetryLabels, Counter>,
    pub upstream_retry_budget_exhausted: Family<AppLabels, Counter>,
    pub upstream_breaker_open: Family<PlaceLabels, Gauge>,
    pub upstream_endpoint_failing: Family<RegionEndpointLabels, Gauge>,
    pub upstream_endpoint_held: Family<RegionEndpointLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub upstream_connections: Family<LaneLabels, Gauge>,
    pub upstream_clock_skew: Family<PlaceLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub quota_tokens_available: Family<BucketLabels, Gauge>,
    pub quota_limit: Family<BucketLabels, Gauge>,
    pub quota_waiting: Family<BucketLabels, Gauge>,
    pub quota_wait: Histograms<BucketLabels>,
    pub quota_rejections: Family<BucketLabels, Counter>,
    pub quota_refused_by_vendor: Family<BucketLabels, Counter>,
    pub events_ingested: Family<SourceLabels, Counter>,
    pub events_duplicates: Family<SourceLabels, Counter>,
    pub events_late: Family<SourceLabels, Counter>,
    pub events_overflow_suspected: Family<SourceLabels, Counter>,
    pub events_seconds_to_overflow: Family<SourceLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub events_possible_loss: Family<LossLabels, Counter>,
    pub events_quarantined: Family<SourceLabels, Counter>,
    pub events_delivered: Family<SubscriptionLabels, Counter>,
    pub events_given_again: Family<SubscriptionLabels, Counter>,
    pub events_cut_off: Family<SubscriptionLabels, Counter>,
    pub events_acknowledged: Family<SubscriptionLabels, Counter>,
    pub events_dead_lettered: Family<SubscriptionLabels, Counter>,
    pub subscription_lag: Family<SubscriptionLabels, Gauge>,
    pub subscription_unacknowledged: Family<SubscriptionLabels, Gauge>,
    pub subscription_oldest: Family<SubscriptionLabels, Gauge>,
    pub subscription_near_retention: Family<SubscriptionLabels, Gauge>,
    pub poller_paused: Family<SourceLabels, Gauge>,
    pub store_append: Histogram,
    pub store_errors: Counter,
    pub store_written: Counter,
    pub store_syncs: Counter,
    pub store_damaged: Counter,
    pub history_resolve: Histograms<AppLabels>,
    pub history_recreated: Family<AppLabels, Counter>,
    pub history_streams: Family<StreamEndLabels, Counter>,
    pub history_stream_messages: Family<AppLabels, Counter>,
    pub history_stream_pages: Family<AppLabels, Counter>,
    pub history_stream_repairs: Family<AppLabels, Counter>,
    pub cache_requests: Family<CacheLabels, Counter>,
    pub connections: Gauge,
    pub connections_evicted: Family<EvictedLabels, Counter>,
    pub requests_in_hand: Family<ClientLabels, Gauge>,
    pub event_streams: Family<StreamLabels, Gauge>,
    pub request_body_bytes: Gauge,
    pub response_body_bytes: Gauge,
    pub requests_shed: Family<ShedLabels, Counter>,
    pub client_limit_rejections: Family<CeilingLabels, Counter>,
    pub would_refuse: Family<WouldRefuseLabels, Counter>,
    pub heap_live: Gauge,
    pub log_lines_dropped: Counter,
    pub ended_work: Family<EndedWorkLabels, Counter>,
    pub reloads: Family<OutcomeLabels, Counter>,
    pub jwks_fetches: Family<OutcomeLabels, Counter>,
    pub jwks_keys: Gauge,
    pub jwks_age: Gauge,
    pub jwt_tokens: Family<OutcomeLabels, Counter>,
    pub tls_handshakes: Family<OutcomeLabels, Counter>,
    pub tls_not_after: Family<HeldLabels, Gauge>,
    pub webhook_attempts: Family<WebhookOutcomeLabels, Counter>,
    pub webhook_attempt: Histograms<WebhookLabels>,
    pub webhook_delivered: Family<WebhookLabels, Counter>,
    pub webhook_dead_letters: Family<WebhookLabels, Counter>,
    pub webhook_in_flight: Family<WebhookLabels, Gauge>,
    pub webhook_disabled: Family<WebhookLabels, Gauge>,
}

impl std::ops::Deref for Metrics {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with everything in it.
    #[must_use]
    pub fn new() -> Self {
        let mut r = Registry::with_prefix("rtm_gateway");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "What runs here", build);
        Self(Arc::new(Inner {
            requests: add(&mut r, "requests", "Finished requests of callers"),
            request_duration: add_times(
                &mut r,
                "request_duration_seconds",
                "From a request's head to its answer's end",
            ),
            upstream_requests: add(&mut r, "upstream_requests", "Exchanges with the vendor"),
            upstream_duration: add_times(&mut r, "upstream_duration_seconds", "From sending to the whole answer"),
            upstream_retries: add(&mut r, "upstream_retries", "Orders sent again"),
            upstream_retry_budget_exhausted: add(
                &mut r,
                "upstream_retry_budget_exhausted",
                "Orders not sent again because the retry budget was spent",
            ),
            upstream_breaker_open: add(
                &mut r,
                "upstream_breaker_open",
                "1 while a region is left alone because it fails",
            ),
            upstream_endpoint_failing: add(
                &mut r,
                "upstream_endpoint_failing",
                "1 while an endpoint's answers fail (5xx, lost, late): other regions are asked first",
            ),
            upstream_endpoint_held: add(
                &mut r,
                "upstream_endpoint_held_seconds",
                "What is left of the time for which the vendor asked to be left alone (503 with Retry-After)",
            ),
            upstream_connections: add(&mut r, "upstream_connections", "Connections to the vendor that are open"),
            upstream_clock_skew: add(
                &mut r,
                "upstream_clock_skew_seconds",
                "The vendor's clock less ours, by the Date of its answers",
            ),
            quota_tokens_available: add(&mut r, "quota_tokens_available", "Seats free now"),
            quota_limit: add(
                &mut r,
                "quota_limit",
                "Seats in use or free; below the configured limit after a refusal by the vendor",
            ),
            quota_waiting: add(&mut r, "quota_waiting", "Orders that wait for a seat"),
            quota_wait: add_times(&mut r, "quota_wait_seconds", "How long orders waited for a seat"),
            quota_rejections: add(&mut r, "quota_rejections", "Orders refused because no seat could come in time"),
            quota_refused_by_vendor: add(&mut r, "quota_refused_by_vendor", "429 answers of the vendor"),
            events_ingested: add(&mut r, "events_ingested", "Events stored"),
            events_duplicates: add(
                &mut r,
                "events_duplicates",
                "Events dropped because another region had returned them",
            ),
            events_late: add(
                &mut r,
                "events_late",
                "Events that came later than the order window allows, appended out of order",
            ),
            events_overflow_suspected: add(
                &mut r,
                "events_overflow_suspected",
                "Times that two full reads followed a pause",
            ),
            events_seconds_to_overflow: add(
                &mut r,
                "events_seconds_to_overflow",
                "Time until the vendor overwrites unread events, at the present rate",
            ),
            events_possible_loss: add(
                &mut r,
                "events_possible_loss",
                "Reads that may have consumed events without handing them over",
            ),
            events_quarantined: add(&mut r, "events_quarantined", "Responses that could not be read, kept whole"),
            events_delivered: add(&mut r, "events_delivered", "Events delivered"),
            events_given_again: add(&mut r, "events_given_again", "Events whose first hand-over failed"),
            events_cut_off: add(
                &mut r,
                "events_cut_off",
                "Events that retention removed before the subscription read them",
            ),
            events_acknowledged: add(&mut r, "events_acknowledged", "Events that a reader has acknowledged"),
            events_dead_lettered: add(
                &mut r,
                "events_dead_lettered",
                "Events given up after their last attempt; see the subscription's dead letters",
            ),
            subscription_unacknowledged: add(
                &mut r,
                "subscription_unacknowledged_events",
                "Events handed out to be acknowledged that are not yet",
            ),
            subscription_oldest: add(
                &mut r,
                "subscription_oldest_event_age_seconds",
                "How long ago the oldest event was stored that is not done with; 0 when there is none",
            ),
            subscription_near_retention: add(
                &mut r,
                "subscription_near_retention",
                "1 when retention is about to remove events before the subscription has read them",
            ),
            subscription_lag: add(&mut r, "subscription_lag_events", "Events stored and not yet delivered"),
            poller_paused: add(
                &mut r,
                "poller_paused",
                "1 while reading is stopped because the store cannot keep events",
            ),
            store_append: add_with(
                &mut r,
                "store_append_seconds",
                "From an append's call to its data on stable storage",
                times(),
            ),
            store_errors: add(&mut r, "store_errors", "Store operations that failed"),
            store_written: add(
                &mut r,
                "store_written_bytes",
                "Bytes that the store wrote to its data file, in whole blocks of 4096",
            ),
            store_syncs: add(&mut r, "store_syncs", "Syncs of the store's data file: two for each commit"),
            store_damaged: add(
                &mut r,
                "store_damaged",
                "Stored batches that were found damaged; readers pass over them",
            ),
            history_resolve: add_times(&mut r, "history_resolve_seconds", "How long history queries took to resolve"),
            history_recreated: add(&mut r, "history_recreated", "History queries made again because their handle died"),
            history_streams: add(&mut r, "history_streams", "Streams of messages, by how they ended"),
            history_stream_messages: add(&mut r, "history_stream_messages", "Messages given to streams"),
            history_stream_pages: add(&mut r, "history_stream_pages", "Pages asked for by streams"),
            history_stream_repairs: add(
                &mut r,
                "history_stream_repairs",
                "Times that a stream went on by the last message's time, because the list had moved or crowded, or a \
                 caller resumed",
            ),
            cache_requests: add(&mut r, "cache_requests", "Cache look-ups"),
            ended_work: add(
                &mut r,
                "proof_ended",
                "Streams, reads, exports, queries and messages that ended because what proved who asks did",
            ),
            connections: add(&mut r, "connections", "Connections of callers"),
            connections_evicted: add(
                &mut r,
                "connections_evicted",
                "Connections without an admitted request in hand that were closed for newcomers",
            ),
            requests_in_hand: add(
                &mut r,
                "requests_in_hand",
                "Requests from their admission to the end of their answers, or until these stream",
            ),
            event_streams: add(
                &mut r,
                "event_streams",
                "Streams of events (SSE) open now; not among the requests in hand",
            ),
            request_body_bytes: add(&mut r, "request_body_bytes", "Memory that callers' bodies take"),
            response_body_bytes: add(&mut r, "response_body_bytes", "Memory that the vendor's large answers take"),
            requests_shed: add(&mut r, "requests_shed", "Requests refused because the gateway had no room"),
            client_limit_rejections: add(
                &mut r,
                "client_limit_rejections",
                "Requests refused because their client had reached a ceiling of its own",
            ),
            would_refuse: add(
                &mut r,
                "would_refuse",
                "Requests that would be refused if their client were not in report mode",
            ),
            heap_live: add(&mut r, "heap_live_bytes", "Bytes of the heap that are in use"),
            log_lines_dropped: add(
                &mut r,
                "log_lines_dropped",
                "Log lines that were dropped because nobody took them, or because they could not be written",
            ),
            reloads: add(&mut r, "reloads", "Configuration reloads"),
            jwks_fetches: add(&mut r, "jwks_fetches", "Fetches of the token issuer's keys"),
            jwks_keys: add(&mut r, "jwks_keys", "Keys of the token issuer that tokens are checked by now"),
            jwks_age: add(&mut r, "jwks_age_seconds", "Time since the token issuer's keys were last fetched"),
            jwt_tokens: add(&mut r, "jwt_tokens", "Callers' tokens, by what came of them"),
            tls_handshakes: add(&mut r, "tls_handshakes", "TLS handshakes with callers, by how they ended"),
            tls_not_after: add(
                &mut r,
                "tls_not_after_timestamp_seconds",
                "When the certificate that callers are shown, or the first revocation list, runs out",
            ),
            webhook_attempts: add(&mut r, "webhook_attempts", "Requests to webhooks, by what came of them"),
            webhook_attempt: add_times(&mut r, "webhook_attempt_seconds", "How long requests to webhooks took"),
            webhook_delivered: add(&mut r, "webhook_delivered", "Events that webhooks took"),
            webhook_dead_letters: add(
                &mut r,
                "webhook_dead_letters",
                "Events that went to a webhook's dead letters because it did not take them",
            ),
            webhook_in_flight: add(&mut r, "webhook_in_flight", "Requests to webhooks under way"),
            webhook_disabled: add(&mut r, "webhook_disabled", "1 while a webhook is disabled"),
            registry: r,
        }))
    }

    /// The Prometheus text form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; an encoder that did would give an empty page, not a panic.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

fn add_with<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
    metric
}

fn add<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    add_with(registry, name, help, M::default())
}

fn add_times<L>(registry: &mut Registry, name: &str, help: &str) -> Histograms<L>
where
    L: Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
{
    add_with(registry, name, help, Family::new_with_constructor(times as fn() -> Histogram))
}

/// 0.5 ms to 65 s, in powers of two.
fn times() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.0005, 2.0, 18))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_promised() {
        let metrics = Metrics::new();
        let labels = RequestLabels { route: "r".into(), client: "c".into(), status: "200".into() };
        metrics.requests.get_or_create(&labels).inc();
        let text = metrics.text();
        assert!(text.contains(r#"rtm_gateway_requests_total{route="r",client="c",status="200"} 1"#), "{text}");
        assert!(text.contains(r#"rtm_gateway_build_info{version=""#), "{text}");
    }
}
