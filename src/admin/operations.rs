//! The operations of the operators' port, as the OpenAPI document names them.
//!
//! Invariants: what is not listed here is not reached, whatever a handler would answer; so the document, which lists
//! the same, tells of all there is. What changes something, or shows what is confidential, is an [`Act`].

use hyper::Method;

use super::rejection::Rejection;
use crate::request::route::operations::operations;

operations! {
    /// What is only looked at: it changes nothing, costs little, and holds nothing that somebody wrote to somebody.
    View {
        Root = "GET" "/" "listOpenOperations",
        Document = "GET" "/openapi.json" "readDocument",
        Alive = "GET" "/healthz" "isAlive",
        Ready = "GET" "/readyz" "isReady",
        Metrics = "GET" "/metrics" "readMetrics",
        Index = "GET" "/admin/v1/" "listOperations",
        Apps = "GET" "/admin/v1/apps" "listApps",
        Quotas = "GET" "/admin/v1/quotas" "listQuotas",
        Regions = "GET" "/admin/v1/regions" "listRegions",
        Pollers = "GET" "/admin/v1/pollers" "listPollers",
        Subscriptions = "GET" "/admin/v1/subscriptions" "listSubscriptions",
        Webhooks = "GET" "/admin/v1/webhooks" "listWebhooks",
        Losses = "GET" "/admin/v1/losses" "listLosses",
        Store = "GET" "/admin/v1/store" "readStore",
        Quarantine = "GET" "/admin/v1/quarantine" "listQuarantine",
        Identity = "GET" "/admin/v1/identity" "listTokenKeys",
        Clients = "GET" "/admin/v1/clients" "listClients",
        Config = "GET" "/admin/v1/config" "readConfiguration",
    }
}

operations! {
    /// What changes something, or shows events and messages themselves: it takes the operator's own key, not the
    /// read-only one, and leaves a trace.
    Act {
        Backup = "GET" "/admin/v1/backup" "backUp",
        Quarantined = "GET" "/admin/v1/quarantine/{app}/{stream}/{id}" "getQuarantined",
        ReadAgain = "POST" "/admin/v1/quarantine/{app}/{stream}/{id}/redeliver" "redeliverQuarantined",
        RemoveSubscription =
            "DELETE" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}" "removeSubscription",
        Seek = "POST" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/seek" "seekSubscription",
        DeadLetters =
            "GET" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/dead-letters" "listDeadLetters",
        ClearDeadLetters =
            "DELETE" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/dead-letters" "clearDeadLetters",
        Redeliver =
            "POST" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/dead-letters/redeliver"
            "redeliverDeadLetters",
        ClearDeadLetter =
            "DELETE" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/dead-letters/{cursor}"
            "clearDeadLetter",
        EnableWebhook = "POST" "/admin/v1/apps/{app}/webhooks/{name}/enable" "enableWebhook",
        DisableWebhook = "POST" "/admin/v1/apps/{app}/webhooks/{name}/disable" "disableWebhook",
        TryWebhook = "POST" "/admin/v1/webhooks/{app}/{name}/try" "tryWebhook",
        WebhookDeadLetters = "GET" "/admin/v1/apps/{app}/webhooks/{name}/dead-letters" "listWebhookDeadLetters",
        ClearWebhookDeadLetters =
            "DELETE" "/admin/v1/apps/{app}/webhooks/{name}/dead-letters" "clearWebhookDeadLetters",
        RedeliverToWebhook =
            "POST" "/admin/v1/apps/{app}/webhooks/{name}/dead-letters/redeliver" "redeliverToWebhook",
        ClearWebhookDeadLetter =
            "DELETE" "/admin/v1/apps/{app}/webhooks/{name}/dead-letters/{cursor}" "clearWebhookDeadLetter",
    }
}

/// What operators may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    View(View),
    Act(Act),
}

/// Which key an operation takes, where the port has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// Either key.
    ReadKey,
    /// The operator's own.
    OperatorKey,
}

impl Needs {
    /// As the index has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::ReadKey => "read key",
            Self::OperatorKey => "operator key",
        }
    }
}

/// What a request asks for, and what stands in its path for each parameter of the template, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Match<'a> {
    pub(super) operation: Operation,
    pub(super) values: Vec<&'a str>,
}

impl Operation {
    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        View::ALL.iter().copied().map(Self::View).chain(Act::ALL.iter().copied().map(Self::Act))
    }

    /// Its method.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::View(view) => view.method(),
            Self::Act(act) => act.method(),
        }
    }

    /// The template of its path, as the document has it.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::View(view) => view.path(),
            Self::Act(act) => act.path(),
        }
    }

    /// Its name in the document, its `operationId`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::View(view) => view.id(),
            Self::Act(act) => act.id(),
        }
    }

    /// The operation that a request asks for.
    ///
    /// # Errors
    /// 404, or 405 when its path takes other methods.
    pub(super) fn find<'a>(method: &Method, segments: &[&'a str]) -> Result<Match<'a>, Rejection> {
        let matched = |operation: Self| Some(Match { operation, values: values(operation.path(), segments)? });
        let mut here: Vec<_> = Self::all().filter_map(matched).collect();
        // A literal segment wins over a parameter: `…/dead-letters/redeliver` is not the letter of that cursor.
        let least = here.iter().map(|found| found.values.len()).min();
        here.retain(|found| Some(found.values.len()) == least);
        let takes = |operation: Self| {
            operation.method() == method.as_str() || (method == Method::HEAD && operation.takes_head())
        };
        if let Some(at) = here.iter().position(|found| takes(found.operation)) {
            return Ok(here.swap_remove(at));
        }
        if !here.is_empty() {
            let head = here.iter().any(|found| found.operation.takes_head()).then_some("HEAD");
            let methods: Vec<_> = here.iter().map(|found| found.operation.method()).chain(head).collect();
            return Err(Rejection::method(methods.join(", ")));
        }
        Err(Rejection::nowhere("there is no such path; / and /admin/v1/ list what there is"))
    }

    pub(super) fn needs(self) -> Needs {
        match self {
            Self::View(view) if is_below_admin(&template(view.path())) => Needs::ReadKey,
            Self::View(_) => Needs::Nothing,
            Self::Act(_) => Needs::OperatorKey,
        }
    }

    /// Whether it changes nothing and costs little: any page may make a browser ask for it, and cannot read the answer.
    pub(super) fn is_harmless(self) -> bool {
        self.method() == "GET" && self != Self::Act(Act::Backup)
    }

    /// Whether HEAD is taken for GET: what probes and tools ask for. Elsewhere GET may cost.
    fn takes_head(self) -> bool {
        matches!(self, Self::View(View::Document | View::Alive | View::Ready | View::Metrics))
    }

    /// Whether it takes parameters in the query.
    pub(super) fn has_parameters(self) -> bool {
        match self {
            // Probes and scrapers add their own.
            Self::View(view) => {
                matches!(view, View::Alive | View::Ready | View::Metrics | View::Losses | View::Quarantine)
            }
            Self::Act(act) => matches!(
                act,
                Act::DeadLetters | Act::WebhookDeadLetters | Act::ClearWebhookDeadLetters | Act::ClearWebhookDeadLetter
            ),
        }
    }
}

impl Act {
    /// The names of the parameters in its path, in order.
    pub(super) fn parameters(self) -> impl Iterator<Item = &'static str> {
        self.path().split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }
}

/// Whether a path, in segments, is of what needs a key where the port has one.
pub(super) fn is_below_admin(segments: &[&str]) -> bool {
    segments.first() == Some(&"admin")
}

/// The segments of a template. A slash at the end is none, as in a request.
fn template(path: &'static str) -> Vec<&'static str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// What stands for a template's parameters in a path, if the path is one of the template's.
fn values<'a>(path: &'static str, segments: &[&'a str]) -> Option<Vec<&'a str>> {
    let wanted = template(path);
    let fits = |(wanted, segment): (&&str, &&str)| wanted.starts_with('{') || wanted == segment;
    if wanted.len() != segments.len() || !wanted.iter().zip(segments).all(fits) {
        return None;
    }
    let parameters = wanted.iter().zip(segments).filter(|(wanted, _)| wanted.starts_with('{'));
    Some(parameters.map(|(_, segment)| *segment).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, path: &str) -> Result<Operation, Rejection> {
        let segments: Vec<_> = path.split('/').skip(1).filter(|segment| !segment.is_empty()).collect();
        Operation::find(&Method::from_bytes(method.as_bytes()).unwrap(), &segments).map(|found| found.operation)
    }

    #[test]
    fn all_but_health_metrics_and_the_documents_are_below_what_needs_a_key() {
        let open = [View::Root, View::Document, View::Alive, View::Ready, View::Metrics].map(Operation::View);
        for operation in Operation::all() {
            assert_eq!(open.contains(&operation), !operation.path().starts_with("/admin/v1/"), "{operation:?}");
            assert_eq!(open.contains(&operation), operation.needs() == Needs::Nothing, "{operation:?}");
        }
    }

    #[test]
    fn what_is_only_looked_at_is_asked_by_get_and_a_trace_knows_each_parameter_of_an_act() {
        assert!(View::ALL.iter().all(|view| view.method() == "GET"));
        let known = ["app", "stream", "name", "id", "cursor"];
        for act in Act::ALL {
            assert!(act.parameters().all(|name| known.contains(&name)), "{act:?}");
        }
    }

    #[test]
    fn what_is_listed_is_found_by_method_and_path_and_nothing_else() {
        let below = "/admin/v1/apps/a/events/user_events/subscriptions/s";
        let (view, act) = (|view| Ok(Operation::View(view)), |act| Ok(Operation::Act(act)));
        assert_eq!(find("GET", "/healthz"), view(View::Alive));
        assert_eq!((find("GET", "/"), find("GET", "/admin/v1")), (view(View::Root), view(View::Index)));
        assert_eq!(find("DELETE", below), act(Act::RemoveSubscription));
        assert_eq!(find("POST", &format!("{below}/dead-letters/redeliver")), act(Act::Redeliver));
        assert_eq!(find("DELETE", &format!("{below}/dead-letters/redeliver")), Err(Rejection::method("POST")));
        assert_eq!(find("DELETE", &format!("{below}/dead-letters/c")), act(Act::ClearDeadLetter));
        assert_eq!(find("PUT", &format!("{below}/dead-letters")), Err(Rejection::method("GET, DELETE")));
        assert_eq!(find("HEAD", "/metrics"), view(View::Metrics));
        assert_eq!(find("POST", "/metrics"), Err(Rejection::method("GET, HEAD")));
        assert_eq!(find("HEAD", "/admin/v1/backup"), Err(Rejection::method("GET")));
        for nowhere in ["/admin", "/admin/v1/secrets", "/admin/v2/apps", &format!("{below}/more")] {
            assert!(find("GET", nowhere).is_err_and(|refused| refused != Rejection::method("GET")), "{nowhere}");
        }
    }
}
