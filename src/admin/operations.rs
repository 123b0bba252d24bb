//! The operations of the operators' port, as the OpenAPI document names them.
//!
//! Invariant: what is not listed here is not reached, whatever a handler would answer; so the document, which lists the
//! same, tells of all there is.

use hyper::Method;

use super::rejection::Rejection;
use crate::request::route::operations::operations;

operations! {
    /// What operators may ask.
    Operation {
        Document = "GET" "/openapi.json",
        Alive = "GET" "/healthz",
        Ready = "GET" "/readyz",
        Metrics = "GET" "/metrics",
        Apps = "GET" "/admin/v1/apps",
        Quotas = "GET" "/admin/v1/quotas",
        Regions = "GET" "/admin/v1/regions",
        Pollers = "GET" "/admin/v1/pollers",
        Subscriptions = "GET" "/admin/v1/subscriptions",
        Webhooks = "GET" "/admin/v1/webhooks",
        Losses = "GET" "/admin/v1/losses",
        Quarantine = "GET" "/admin/v1/quarantine",
        Quarantined = "GET" "/admin/v1/quarantine/{app}/{stream}/{id}",
        ReadAgain = "POST" "/admin/v1/quarantine/{app}/{stream}/{id}/redeliver",
        Identity = "GET" "/admin/v1/identity",
        Clients = "GET" "/admin/v1/clients",
        Config = "GET" "/admin/v1/config",
        Backup = "GET" "/admin/v1/backup",
        RemoveSubscription = "DELETE" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}",
        Seek = "POST" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/seek",
        DeadLetters = "GET" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/dead-letters",
        ClearDeadLetters = "DELETE" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/dead-letters",
        Redeliver = "POST" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/dead-letters/redeliver",
        ClearDeadLetter = "DELETE" "/admin/v1/apps/{app}/events/{stream}/subscriptions/{name}/dead-letters/{cursor}",
        EnableWebhook = "POST" "/admin/v1/apps/{app}/webhooks/{name}/enable",
        DisableWebhook = "POST" "/admin/v1/apps/{app}/webhooks/{name}/disable",
        TryWebhook = "POST" "/admin/v1/webhooks/{app}/{name}/try",
        WebhookDeadLetters = "GET" "/admin/v1/apps/{app}/webhooks/{name}/dead-letters",
        ClearWebhookDeadLetters = "DELETE" "/admin/v1/apps/{app}/webhooks/{name}/dead-letters",
        RedeliverToWebhook = "POST" "/admin/v1/apps/{app}/webhooks/{name}/dead-letters/redeliver",
        ClearWebhookDeadLetter = "DELETE" "/admin/v1/apps/{app}/webhooks/{name}/dead-letters/{cursor}",
    }
}

/// What a request asks for, and what stands in its path for each parameter of the template, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Match<'a> {
    pub(super) operation: Operation,
    pub(super) values: Vec<&'a str>,
}

impl Operation {
    /// The operation that a request asks for.
    ///
    /// # Errors
    /// 404, or 405 when its path takes other methods.
    pub(super) fn find<'a>(method: &Method, segments: &[&'a str]) -> Result<Match<'a>, Rejection> {
        let matched = |&operation: &Self| Some(Match { operation, values: values(operation.path(), segments)? });
        let mut here: Vec<_> = Self::ALL.iter().filter_map(matched).collect();
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
        let words = Self::ALL.iter().map(|operation| operation.path()).filter(|path| !path.contains('{'));
        Err(Rejection::nowhere(format_args!("see {}", words.collect::<Vec<_>>().join(", "))))
    }

    /// Whether it changes nothing and costs little: any page may make a browser ask for it, and cannot read the answer.
    pub(super) fn is_harmless(self) -> bool {
        self.method() == "GET" && self != Self::Backup
    }

    /// Whether HEAD is taken for GET: what probes and tools ask for. Elsewhere GET may cost.
    fn takes_head(self) -> bool {
        matches!(self, Self::Document | Self::Alive | Self::Ready | Self::Metrics)
    }

    /// Whether it takes parameters in the query.
    pub(super) fn has_parameters(self) -> bool {
        matches!(
            self,
            // Probes and scrapers add their own.
            Self::Alive
                | Self::Ready
                | Self::Metrics
                | Self::Losses
                | Self::Quarantine
                | Self::DeadLetters
                | Self::WebhookDeadLetters
                | Self::ClearWebhookDeadLetters
                | Self::ClearWebhookDeadLetter
        )
    }
}

/// What stands for a template's parameters in a path, if the path is one of the template's.
fn values<'a>(template: &str, segments: &[&'a str]) -> Option<Vec<&'a str>> {
    let wanted: Vec<&str> = template.split('/').skip(1).collect();
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
        let segments: Vec<_> = path.split('/').skip(1).collect();
        Operation::find(&Method::from_bytes(method.as_bytes()).unwrap(), &segments).map(|found| found.operation)
    }

    #[test]
    fn all_but_health_metrics_and_the_document_are_below_what_needs_the_key() {
        let open = [Operation::Document, Operation::Alive, Operation::Ready, Operation::Metrics];
        for operation in Operation::ALL {
            assert_eq!(open.contains(operation), !operation.path().starts_with("/admin/v1/"), "{operation:?}");
        }
    }

    #[test]
    fn what_is_listed_is_found_by_method_and_path_and_nothing_else() {
        let below = "/admin/v1/apps/a/events/user_events/subscriptions/s";
        assert_eq!(find("GET", "/healthz"), Ok(Operation::Alive));
        assert_eq!(find("DELETE", below), Ok(Operation::RemoveSubscription));
        assert_eq!(find("POST", &format!("{below}/dead-letters/redeliver")), Ok(Operation::Redeliver));
        assert_eq!(find("DELETE", &format!("{below}/dead-letters/redeliver")), Err(Rejection::method("POST")));
        assert_eq!(find("DELETE", &format!("{below}/dead-letters/c")), Ok(Operation::ClearDeadLetter));
        assert_eq!(find("PUT", &format!("{below}/dead-letters")), Err(Rejection::method("GET, DELETE")));
        assert_eq!(find("HEAD", "/metrics"), Ok(Operation::Metrics));
        assert_eq!(find("POST", "/metrics"), Err(Rejection::method("GET, HEAD")));
        assert_eq!(find("HEAD", "/admin/v1/backup"), Err(Rejection::method("GET")));
        for nowhere in ["/", "/admin/v1", "/admin/v1/apps/", "/admin/v1/secrets", &format!("{below}/more")] {
            assert!(find("GET", nowhere).is_err_and(|refused| refused != Rejection::method("GET")), "{nowhere}");
        }
    }
}
