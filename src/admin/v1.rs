//! `/admin/v1/…`: which handler answers which path.
//!
//! | path | methods | handler |
//! | --- | --- | --- |
//! | `/{what}` | GET | `shown` |
//! | `/apps/{app}/events/{stream}/subscriptions/{name}` | DELETE | `subscriptions` |
//! | `…/{name}/seek` | POST | `subscriptions` |
//! | `…/{name}/dead-letters` | GET, DELETE | `dead_letters` |
//! | `…/{name}/dead-letters/redeliver` | POST | `dead_letters` |
//! | `…/{name}/dead-letters/{cursor}` | DELETE | `dead_letters` |
//! | `/apps/{app}/webhooks/{name}/enable`, `…/disable` | POST | `webhooks` |
//! | `/apps/{app}/webhooks/{name}/dead-letters…` | as above | `webhooks` |

use hyper::Method;

use super::answer::{Answer, Refused};
use super::call::Call;
use super::subscriptions::Which;
use super::{dead_letters, shown, subscriptions, webhooks};
use crate::route::path;

/// Answers a request whose path begins with `/admin/v1/`.
pub(super) async fn answer(call: Call<'_>) -> Answer {
    let whole = call.path().to_owned();
    let segments = path::segments(&whole)?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match segments.get(2..).unwrap_or_default() {
        [what] if *call.method() == Method::GET => {
            call.no_query()?;
            shown::answer(call.parts, what).await
        }
        [_] => Err(Refused::method("GET")),
        ["apps", app, "events", stream, "subscriptions", name, rest @ ..] => {
            let which = Which::parse(app, stream, name)?;
            match rest {
                ["dead-letters", rest @ ..] => dead_letters::answer(call, &which, rest).await,
                rest => subscriptions::answer(call, &which, rest).await,
            }
        }
        ["apps", app, "webhooks", name, rest @ ..] => webhooks::answer(call, app, name, rest).await,
        _ => Err(Refused::nowhere("see /admin/v1/apps, regions, quotas, pollers, subscriptions, quarantine, config")),
    }
}
