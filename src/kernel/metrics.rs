//! Every metric: name, labels and help in one place.
//!
//! Invariants: label values come from configuration or from fixed sets, never from what a stranger sent; where there
//! may be many of them the family is a [`BoundedFamily`], so the number of series is bounded. No value of a secret is
//! ever a label. Names start with `rtm_gateway_`, but for what every program tells of itself
//! (`process_…`). Every family is on the page from the start, with its help and its type; so are the series whose
//! labels are known and few, but for histograms of an app, which begin with their first use ([`HistogramOnUse`]).
//! A [`Metrics`] is a value: two gateways in one process do not share one.

mod bounded;
mod countdown;
mod current;
mod labels;
mod on_use;
mod process;
mod subscriptions;
mod text;

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::kernel::version::{COMMIT, VERSION};
pub use bounded::{BoundedFamily, BoundedLabels, OTHER, SERIES_BY_CLIENT};
pub use countdown::Countdown;
pub use current::Current;
pub use labels::*;
pub use on_use::HistogramOnUse;
pub use subscriptions::{SubscriptionBook, SubscriptionSeries};
pub use text::TextForm;

/// Whole numbers would round away what is less than a second.
type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Time that has passed with something, in seconds.
pub type SecondsTotal = Counter<f64, std::sync::atomic::AtomicU64>;

/// The metrics of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

macro_rules! families {
    ($($family:ident: $type:ty = $name:literal, $help:literal;)+) => {
        /// The families. Reached through [`Metrics`], which derefs to it.
        pub struct Families {
            registry: Registry,
            /// What is counted of subscriptions.
            pub subscriptions: SubscriptionBook,
            $(pub $family: $type),+
        }

        impl Families {
            fn new() -> Self {
                let mut registry = Registry::default();
                registry.register_collector(Box::new(process::Process::new()));
                let own = registry.sub_registry_with_prefix("rtm_gateway");
                let build = Info::new(vec![("version", VERSION), ("commit", COMMIT)]);
                own.register("build", "What runs here", build);
                $(
                    let $family = <$type>::empty();
                    // Registered as it stands, since the order of a scrape is the order here: tools that compare two
                    // see no change.
                    own.register($name, $help, Listed($family.clone()));
                )+
                let subscriptions = SubscriptionBook::default();
                own.register_collector(Box::new(subscriptions.clone()));
                Self { registry, subscriptions, $($family),+ }
            }
        }

        /// Every family of [`Families`] as the page has it: its name there and its type.
        #[cfg(test)]
        pub(crate) fn names() -> Vec<&'static str> {
            vec![$($name),+]
        }
    };
}

families! {
    requests: BoundedFamily<RequestLabels, Counter> = "requests", "Finished requests of callers";
    request_duration: Family<RouteLabels, Histogram> = "request_duration_seconds",
        "From a request's head to its answer's end";
    response_send: Histogram = "response_send_seconds",
        "From an answer's head to its end, which is how long its caller took to take it; not of streams";
    upstream_requests: Family<UpstreamLabels, Counter> = "upstream_requests", "Exchanges with the vendor";
    upstream_duration: Family<EndpointLabels, Histogram> = "upstream_duration_seconds",
        "From sending to the whole answer";
    upstream_retries: Family<RetryLabels, Counter> = "upstream_retries", "Orders sent again";
    upstream_retry_budget_exhausted: Family<AppLabels, Counter> = "upstream_retry_budget_exhausted",
        "Orders not sent again because the retry budget was spent";
    upstream_breaker_open: Family<PlaceLabels, Gauge> = "upstream_breaker_open",
        "1 while a region is left alone because it fails";
    upstream_endpoint_failing: Family<RegionEndpointLabels, Gauge> = "upstream_endpoint_failing",
        "1 while an endpoint's answers fail (5xx, lost, late): other regions are asked first";
    upstream_endpoint_held: Family<RegionEndpointLabels, Seconds> = "upstream_endpoint_held_seconds",
        "What is left of the time for which the vendor asked to be left alone (503 with Retry-After)";
    upstream_connections: Family<LaneLabels, Gauge> = "upstream_connections", "Connections to the vendor that are open";
    upstream_clock_skew: Family<PlaceLabels, Seconds> = "upstream_clock_skew_seconds",
        "The vendor's clock less ours, by the Date of its answers";
    credential_state: Family<AppLabels, Gauge> = "credential_state",
        "1 while the app's credential can be read and the vendor has not refused it, else 0";
    quota_tokens_available: Family<BucketLabels, Gauge> = "quota_tokens_available", "Seats free now";
    quota_limit: Family<BucketLabels, Gauge> = "quota_limit",
        "Seats in use or free; below the configured limit after a refusal by the vendor";
    quota_waiting: Family<BucketLabels, Gauge> = "quota_waiting", "Orders that wait for a seat";
    quota_wait: Family<BucketLabels, Histogram> = "quota_wait_seconds", "How long orders waited for a seat";
    quota_rejections: Family<BucketLabels, Counter> = "quota_rejections",
        "Orders refused because no seat could come in time";
    quota_refused_by_vendor: Family<BucketLabels, Counter> = "quota_refused_by_vendor", "429 answers of the vendor";
    client_seats: BoundedFamily<ClientBucketLabels, Counter> = "client_seats",
        "Seats that clients' orders have used, each in the name of the client in whose line it was given";
    client_seat_wait: BoundedFamily<ClientBucketLabels, SecondsTotal> = "client_seat_wait_seconds",
        "How long clients' orders have waited in line for seats, those that wait still included";
    client_seats_waiting: BoundedFamily<ClientBucketLabels, Gauge> = "client_seats_waiting",
        "Clients' orders that wait in line for a seat";
    events_ingested: Family<SourceLabels, Counter> = "events_ingested", "Events stored";
    events_duplicates: Family<SourceLabels, Counter> = "events_duplicates",
        "Events dropped because another region had returned them";
    events_late: Family<SourceLabels, Counter> = "events_late",
        "Events that came later than the order window allows, appended out of order";
    events_overflow_suspected: Family<SourceLabels, Counter> = "events_overflow_suspected",
        "Times that two full reads followed a pause";
    events_seconds_to_overflow: Family<SourceLabels, Seconds> = "events_seconds_to_overflow",
        "Time until the vendor overwrites unread events, at the highest rate of late; runs down while nothing is read";
    events_possible_loss: Family<LossLabels, Counter> = "events_possible_loss",
        "Reads that may have consumed events without handing them over";
    events_quarantined: Family<SourceLabels, Counter> = "events_quarantined",
        "Responses that could not be read, kept whole";
    poller_paused: Family<SourceLabels, Gauge> = "poller_paused",
        "1 while reading is stopped because the store cannot keep events";
    store_bytes: Gauge = "store_bytes", "What the store's data files have of the disk";
    store_used: Gauge = "store_used_bytes",
        "About what of the data files holds something; the rest is used again before more is taken";
    store_free: Gauge = "store_free_bytes", "What is free on the file system of the store's data files";
    store_reserve: Gauge = "store_reserve_bytes",
        "What must be free, there or in the data files: with less nothing more is read from the vendor";
    store_limit: Gauge = "store_limit_bytes", "What all logs of events may take together, by retention_bytes";
    store_log: Family<StreamLabels, Gauge> = "store_log_bytes", "What a log of events takes";
    store_log_limit: Family<StreamLabels, Gauge> = "store_log_limit_bytes",
        "What a log of events may take, by retention_bytes";
    poller_last_good_read: Family<SourceLabels, Seconds> = "poller_last_good_read_seconds",
        "Time since the last read that was answered without a doubt, or since the start while none was";
    store_append: Histogram = "store_append_seconds", "From an append's call to its data on stable storage";
    store_errors: Counter = "store_errors", "Store operations that failed";
    store_written: Counter = "store_written_bytes",
        "Bytes that the store wrote to its data file, in whole blocks of 4096";
    store_syncs: Counter = "store_syncs", "Syncs of the store's data file: two for each commit";
    store_damaged: Counter = "store_damaged", "Stored batches that were found damaged; readers pass over them";
    history_resolve: Family<AppLabels, Histogram> = "history_resolve_seconds",
        "How long history queries took to resolve";
    history_recreated: Family<AppLabels, Counter> = "history_recreated",
        "History queries made again because their handle died";
    history_streams: Family<StreamEndLabels, Counter> = "history_streams", "Streams of messages, by how they ended";
    history_stream_messages: Family<AppLabels, Counter> = "history_stream_messages", "Messages given to streams";
    history_stream_pages: Family<AppLabels, Counter> = "history_stream_pages", "Pages asked for by streams";
    history_stream_repairs: Family<AppLabels, Counter> = "history_stream_repairs",
        "Times that a stream went on by the last message's time, because the list had moved or crowded, or a \
         caller resumed";
    cache_requests: Family<CacheLabels, Counter> = "cache_requests", "Cache look-ups";
    ended_work: Family<EndedWorkLabels, Counter> = "proof_ended",
        "Streams, reads, exports, queries and messages that ended because what proved who asks did";
    connections: Gauge = "connections", "Connections of callers";
    connections_limit: Gauge = "connections_limit",
        "Connections of callers that may be open at a time: server.max_connections, or what the limit of open files leaves";
    accept_pauses: Counter = "accept_pauses",
        "Times that a listener of callers could take no more connections (no descriptors, no memory)";
    accept_paused: SecondsTotal = "accept_paused_seconds", "How long listeners of callers took none, together";
    connections_evicted: Family<EvictedLabels, Counter> = "connections_evicted",
        "Connections without an admitted request in hand that were closed for newcomers";
    proxy_protocol_refused: Family<ProxyHeaderLabels, Counter> = "proxy_protocol_refused",
        "Connections closed because they did not begin with the PROXY header that server.proxy_protocol wants";
    requests_in_hand: BoundedFamily<ClientLabels, Gauge> = "requests_in_hand",
        "Requests from their admission to the end of their answers, or until these stream";
    event_streams: Family<StreamLabels, Gauge> = "event_streams",
        "Streams of events (SSE) open now; not among the requests in hand";
    request_body_bytes: Gauge = "request_body_bytes", "Memory that callers' bodies take";
    response_body_bytes: Gauge = "response_body_bytes", "Memory that the vendor's large answers take";
    unauthenticated: Family<ProofLabels, Counter> = "unauthenticated",
        "Requests whose caller is not known, by what it showed";
    requests_shed: Family<ShedLabels, Counter> = "requests_shed", "Requests refused because the gateway had no room";
    client_limit_rejections: BoundedFamily<CeilingLabels, Counter> = "client_limit_rejections",
        "Requests refused because their client had reached a ceiling of its own";
    would_refuse: BoundedFamily<WouldRefuseLabels, Counter> = "would_refuse",
        "Requests that would be refused if their client were not in report mode";
    heap_live: Gauge = "heap_live_bytes", "Bytes of the heap that are in use";
    log_lines_dropped: Counter = "log_lines_dropped",
        "Log lines that were dropped because nobody took them, or because they could not be written";
    reloads: Family<OutcomeLabels, Counter> = "reloads", "Configuration reloads";
    config_last_reload_successful: Gauge = "config_last_reload_successful",
        "1 while the last reload of the configuration was applied, or none was tried; 0 when it was refused";
    config_last_reload_success: Gauge = "config_last_reload_success_timestamp_seconds",
        "When the configuration in force was put in force";
    config: Current<ConfigLabels> = "config",
        "Which configuration is in force, by a digest of the effective one without its secrets";
    operator_refused: Family<OperatorRefusedLabels, Counter> = "operator_requests_refused",
        "Requests to the operators' port that were refused for the key they showed, or did not show";
    jwks_fetches: Family<OutcomeLabels, Counter> = "jwks_fetches", "Fetches of the token issuer's keys";
    jwks_keys: Gauge = "jwks_keys", "Keys of the token issuer that tokens are checked by now";
    jwks_age: Gauge = "jwks_age_seconds", "Time since the token issuer's keys were last fetched";
    jwt_tokens: Family<OutcomeLabels, Counter> = "jwt_tokens", "Callers' tokens, by what came of them";
    tls_handshakes: Family<OutcomeLabels, Counter> = "tls_handshakes", "TLS handshakes with callers, by how they ended";
    operator_handshakes: Family<OutcomeLabels, Counter> = "operator_tls_handshakes",
        "TLS handshakes on the operators' port, by how they ended";
    certificate_expiry: Countdown<RoleLabels> = "certificate_expiry_seconds",
        "Time until what is shown, trusted or held runs out, the earliest of each role; less than 0 when it has";
    webhook_attempts: Family<WebhookOutcomeLabels, Counter> = "webhook_attempts",
        "Requests to webhooks, by what came of them";
    webhook_attempt: Family<WebhookLabels, Histogram> = "webhook_attempt_seconds", "How long requests to webhooks took";
    webhook_delivered: Family<WebhookLabels, Counter> = "webhook_delivered", "Events that webhooks took";
    webhook_dead_letters: Family<WebhookLabels, Counter> = "webhook_dead_letters",
        "Events that went to a webhook's dead letters because it did not take them";
    webhook_in_flight: Family<WebhookLabels, Gauge> = "webhook_in_flight", "Requests to webhooks under way";
    webhook_disabled: Family<WebhookLabels, Gauge> = "webhook_disabled", "1 while a webhook is disabled";
}

/// A family that is on the page before it has a series: the library would leave it out, and whoever writes an alert
/// could not tell a name that is wrong from one that has nothing to say yet.
#[derive(Debug)]
struct Listed<M>(M);

impl<M: EncodeMetric> EncodeMetric for Listed<M> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}

/// Makes the series of these labels, which are there at 0 from now on: a rate sees their first step.
pub fn from_the_start<L, M>(family: &Family<L, M>, labels: impl IntoIterator<Item = L>)
where
    L: Clone + std::hash::Hash + Eq,
{
    labels.into_iter().for_each(|labels| drop(family.get_or_create(&labels)));
}

/// [`from_the_start`] for all outcomes that there are.
pub fn outcomes_from_the_start<'a, M>(family: &Family<OutcomeLabels, M>, outcomes: impl IntoIterator<Item = &'a str>) {
    from_the_start(family, outcomes.into_iter().map(|outcome| OutcomeLabels { outcome: outcome.to_owned() }));
}

/// A metric that has counted nothing yet. `Default` will not do: a histogram has none, since somebody must choose its
/// buckets.
trait Empty {
    fn empty() -> Self;
}

impl Empty for Counter {
    fn empty() -> Self {
        Self::default()
    }
}

impl Empty for SecondsTotal {
    fn empty() -> Self {
        Self::default()
    }
}

impl Empty for Gauge {
    fn empty() -> Self {
        Self::default()
    }
}

impl Empty for Seconds {
    fn empty() -> Self {
        Self::default()
    }
}

impl Empty for Histogram {
    /// Of times: 0.5 ms to 65 s, in powers of two.
    fn empty() -> Self {
        Self::new(exponential_buckets(0.0005, 2.0, 18))
    }
}

impl<L> Empty for Countdown<L> {
    fn empty() -> Self {
        Self::default()
    }
}

impl<L> Empty for Current<L> {
    fn empty() -> Self {
        Self::default()
    }
}

/// By client: so far there may be many of nothing else.
impl<L: BoundedLabels, M: Empty + Clone> Empty for BoundedFamily<L, M> {
    fn empty() -> Self {
        Self::new(SERIES_BY_CLIENT, M::empty)
    }
}

impl<L: Clone + std::hash::Hash + Eq, M: Empty> Empty for Family<L, M> {
    fn empty() -> Self {
        Self::new_with_constructor(M::empty)
    }
}

impl std::ops::Deref for Metrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.0
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
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
        Self(Arc::new(Families::new()))
    }

    /// The page in the classic text form.
    #[must_use]
    pub fn text(&self) -> String {
        self.page(TextForm::Classic)
    }

    /// The page in that form.
    #[must_use]
    pub fn page(&self, form: TextForm) -> String {
        let mut page = String::new();
        // Writing to a String cannot fail; an encoder that did would give an empty page, not a panic.
        if encode(&mut page, &self.registry).is_err() {
            page.clear();
        }
        match form {
            TextForm::OpenMetrics => page,
            TextForm::Classic => text::classic(&page),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_promised() {
        let metrics = Metrics::new();
        let labels = RequestLabels { route: "r", client: "c".into(), status: 200 };
        metrics.requests.get_or_create(&labels).inc();
        let text = metrics.text();
        assert!(text.contains(r#"rtm_gateway_requests_total{route="r",client="c",status="200"} 1"#), "{text}");
        assert!(text.contains(r#"rtm_gateway_build_info{version=""#), "{text}");
    }

    #[test]
    fn every_family_is_on_a_fresh_page_once_with_help_and_type_under_its_name() {
        let metrics = Metrics::new();
        for form in TextForm::ALL {
            let page = metrics.page(form);
            let types: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
            let helps = page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
            assert!(helps.map(|(name, _)| name).eq(types.iter().map(|(name, _)| *name)), "{page}");
            let own = names().into_iter().map(|name| format!("rtm_gateway_{name}"));
            let processes = ["cpu_seconds", "open_fds", "max_fds", "threads", "start_time_seconds"];
            let processes = processes.into_iter().chain(["virtual_memory_bytes", "resident_memory_bytes"]);
            let processes = processes.map(|name| format!("process_{name}"));
            for name in own.chain(processes).chain(["rtm_gateway_build".to_owned()]) {
                let found: Vec<_> = types
                    .iter()
                    .filter(|(found, kind)| {
                        let found = match (form, *kind) {
                            (TextForm::OpenMetrics, _) => found,
                            (TextForm::Classic, "counter") => found.strip_suffix("_total").unwrap(),
                            (TextForm::Classic, _) => found.strip_suffix("_info").unwrap_or(found),
                        };
                        found == name
                    })
                    .collect();
                assert_eq!(found.len(), 1, "{name} in {form:?}: {found:?}");
            }
            assert_eq!(page.ends_with("# EOF\n"), form == TextForm::OpenMetrics);
        }
    }

    #[test]
    fn a_certificates_time_is_told_at_each_look() {
        let metrics = Metrics::new();
        let clock = crate::kernel::clock::Clock::anchored(std::time::SystemTime::UNIX_EPOCH);
        let role = RoleLabels { role: "server".into() };
        metrics.certificate_expiry.set(&role, Some(90), &clock);
        let shown = |seconds: &str| {
            metrics.text().contains(&format!("\nrtm_gateway_certificate_expiry_seconds{{role=\"server\"}} {seconds}\n"))
        };
        assert!(shown("90"));
        clock.jump(100_000);
        assert!(shown("-10"));
        metrics.certificate_expiry.set(&role, None, &clock);
        assert!(!metrics.text().contains("role="));
    }
}
