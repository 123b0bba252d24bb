//! Log targets are paths of modules, and operators write filters with them: where a module moved, its old path means
//! the new.

/// Where modules were, and are: those inside of others first.
const MOVED: &[(&str, &str)] = &[
    ("rtm_gateway::credentials::guard", "rtm_gateway::upstream::credentials::breaker"),
    ("rtm_gateway::credentials::kept", "rtm_gateway::upstream::credentials::secret_cache"),
    ("rtm_gateway::egress::linger", "rtm_gateway::upstream::egress::detached"),
    ("rtm_gateway::egress::places", "rtm_gateway::upstream::egress::hosts"),
    ("rtm_gateway::events::dead_letters", "rtm_gateway::events::subscription::persistence"),
    ("rtm_gateway::events::dropped", "rtm_gateway::events::append::dropped_copies"),
    ("rtm_gateway::events::lag", "rtm_gateway::events::subscription::lag"),
    ("rtm_gateway::events::leftovers", "rtm_gateway::events::ingest::pending_writes"),
    ("rtm_gateway::events::marks", "rtm_gateway::events::log::cursor_pair"),
    ("rtm_gateway::events::poller::under_way", "rtm_gateway::events::ingest::poller::in_flight"),
    ("rtm_gateway::events::poller", "rtm_gateway::events::ingest::poller"),
    ("rtm_gateway::events::quarantine", "rtm_gateway::events::ingest::quarantine"),
    ("rtm_gateway::events::saver", "rtm_gateway::events::subscription::cursor_writer"),
    ("rtm_gateway::events::sequencer", "rtm_gateway::events::append::reorder_task"),
    ("rtm_gateway::events::subscription::recalled", "rtm_gateway::events::subscription::notes"),
    ("rtm_gateway::events::subscription::saving", "rtm_gateway::events::subscription::persistence"),
    ("rtm_gateway::events::waiting", "rtm_gateway::events::append::reorder_buffer"),
    ("rtm_gateway::events::witness", "rtm_gateway::events::log::age_guard"),
    ("rtm_gateway::history::steady", "rtm_gateway::history::retrying_pages"),
    ("rtm_gateway::gateway::judge", "rtm_gateway::request::gateway::revalidation"),
    ("rtm_gateway::request::gateway::judge", "rtm_gateway::request::gateway::revalidation"),
    ("rtm_gateway::routes::events::leased", "rtm_gateway::request::routes::events::sse"),
    ("rtm_gateway::upstream::password", "rtm_gateway::upstream::pool::password"),
    ("rtm_gateway::webhooks::courier", "rtm_gateway::webhooks::delivery_loop"),
    ("rtm_gateway::admission", "rtm_gateway::request::admission"),
    ("rtm_gateway::body", "rtm_gateway::http::body"),
    ("rtm_gateway::clock", "rtm_gateway::kernel::clock"),
    ("rtm_gateway::conn", "rtm_gateway::kernel::conn"),
    ("rtm_gateway::credentials", "rtm_gateway::upstream::credentials"),
    ("rtm_gateway::descriptors", "rtm_gateway::server::descriptors"),
    ("rtm_gateway::dns", "rtm_gateway::kernel::dns"),
    ("rtm_gateway::egress", "rtm_gateway::upstream::egress"),
    ("rtm_gateway::files", "rtm_gateway::kernel::files"),
    ("rtm_gateway::flow", "rtm_gateway::request::flow"),
    ("rtm_gateway::gateway", "rtm_gateway::request::gateway"),
    ("rtm_gateway::headers", "rtm_gateway::http::headers"),
    ("rtm_gateway::heap", "rtm_gateway::kernel::heap"),
    ("rtm_gateway::identity", "rtm_gateway::request::identity"),
    ("rtm_gateway::jwks", "rtm_gateway::request::jwks"),
    ("rtm_gateway::listener", "rtm_gateway::server::listener"),
    ("rtm_gateway::metrics", "rtm_gateway::kernel::metrics"),
    ("rtm_gateway::names", "rtm_gateway::kernel::names"),
    ("rtm_gateway::openapi", "rtm_gateway::request::openapi"),
    ("rtm_gateway::order", "rtm_gateway::vendor::order"),
    ("rtm_gateway::policy", "rtm_gateway::request::policy"),
    ("rtm_gateway::proof", "rtm_gateway::kernel::proof"),
    ("rtm_gateway::quota", "rtm_gateway::upstream::quota"),
    ("rtm_gateway::refusal", "rtm_gateway::request::refusal"),
    ("rtm_gateway::reload", "rtm_gateway::app::reload"),
    ("rtm_gateway::request_id", "rtm_gateway::http::request_id"),
    ("rtm_gateway::route", "rtm_gateway::request::route"),
    ("rtm_gateway::routes", "rtm_gateway::request::routes"),
    ("rtm_gateway::secret", "rtm_gateway::kernel::secret"),
    ("rtm_gateway::share", "rtm_gateway::kernel::share"),
    ("rtm_gateway::standard_webhooks", "rtm_gateway::kernel::standard_webhooks"),
    ("rtm_gateway::targets", "rtm_gateway::kernel::targets"),
    ("rtm_gateway::task", "rtm_gateway::kernel::task"),
    ("rtm_gateway::telemetry", "rtm_gateway::app::telemetry"),
];

/// A filter's text, with the targets of today.
pub(super) fn renamed(filter: &str) -> String {
    let mut all = String::with_capacity(filter.len());
    // A directive ends at a comma that is not inside of what it says of spans.
    let (mut depth, mut begin) = (0_u32, 0);
    for (at, c) in filter.char_indices().chain([(filter.len(), ',')]) {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 || at == filter.len() => {
                if begin > 0 {
                    all.push(',');
                }
                all.push_str(&directive(&filter[begin..at]));
                begin = at + 1;
            }
            _ => {}
        }
    }
    all
}

fn directive(text: &str) -> String {
    let trimmed = text.trim();
    let moved = MOVED.iter().find_map(|(old, new)| {
        let rest = trimmed.strip_prefix(old)?;
        let is_whole = rest.is_empty() || rest.starts_with(['=', '[', ':']);
        is_whole.then(|| format!("{new}{rest}"))
    });
    moved.unwrap_or_else(|| trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_old_targets_means_the_modules_that_moved() {
        for (old, new) in [
            ("info", "info"),
            ("", ""),
            ("info,rtm_gateway::quota=debug", "info,rtm_gateway::upstream::quota=debug"),
            (
                "rtm_gateway::routes::events=trace, rtm_gateway::route",
                "rtm_gateway::request::routes::events=trace,rtm_gateway::request::route",
            ),
            ("rtm_gateway::upstream::quota=debug,warn", "rtm_gateway::upstream::quota=debug,warn"),
            ("rtm_gateway::quotas=debug", "rtm_gateway::quotas=debug"),
            ("rtm_gateway::task[{a=1,b=2}]=info,off", "rtm_gateway::kernel::task[{a=1,b=2}]=info,off"),
            ("rtm_gateway=debug,hyper=info", "rtm_gateway=debug,hyper=info"),
        ] {
            assert_eq!(renamed(old), new);
        }
    }

    #[test]
    fn each_new_target_is_a_module() {
        for (_, new) in MOVED {
            let path = new.replacen("rtm_gateway", concat!(env!("CARGO_MANIFEST_DIR"), "/src"), 1).replace("::", "/");
            assert!(std::path::Path::new(&(path + ".rs")).exists(), "{new}");
        }
    }
}
