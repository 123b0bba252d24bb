//! The bodies of `POST …/events/{stream}/{ack|nack|extend}`.
//!
//! Invariant: a member that is unknown, not understood, or of another of the three is refused by its name.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::query::duration;
use crate::events::{Cursor, Holding};
use crate::kernel::names::SubscriptionName;
use crate::request::refusal::Refusal;

/// What is done with what was leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckAction {
    Ack,
    Nack,
    Extend,
}

impl AckAction {
    /// The one of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "ack" => Some(Self::Ack),
            "nack" => Some(Self::Nack),
            "extend" => Some(Self::Extend),
            _ => None,
        }
    }

    /// Its name in paths, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Nack => "nack",
            Self::Extend => "extend",
        }
    }
}

/// What a body asks.
#[derive(Debug)]
pub struct AckRequest {
    /// `None`: the one of the client's name.
    pub subscription: Option<SubscriptionName>,
    pub holding: Holding,
    /// `delay` of a nack, `lease_for` of an extend.
    pub time: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    subscription: Option<String>,
    lease: Option<String>,
    cursors: Option<Vec<String>>,
    delay: Option<String>,
    lease_for: Option<String>,
}

impl AckRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// 400, naming the member.
    pub fn parse(body: &[u8], what: AckAction) -> Result<Self, Refusal> {
        let Body { subscription, lease, cursors, delay, lease_for } =
            read(body, "subscription, lease or cursors, delay, lease_for")?;
        let subscription = subscription
            .map(|name| SubscriptionName::parse(&name))
            .transpose()
            .map_err(|_| Refusal::bad("subscription: 1 to 128 of A-Z a-z 0-9 _ - ."))?;
        let holding = holding(lease, cursors).map_err(Refusal::bad)?;
        let time = match (what, delay, lease_for) {
            (AckAction::Nack, delay, None) => delay.map(|text| time("delay", &text, Duration::ZERO)).transpose()?,
            (AckAction::Extend, None, lease_for) => {
                lease_for.map(|text| time("lease_for", &text, MIN_LEASE)).transpose()?
            }
            (AckAction::Ack, None, None) => None,
            (_, Some(_), _) => return Err(Refusal::bad("delay: only of a nack")),
            (_, _, Some(_)) => return Err(Refusal::bad("lease_for: only of an extend")),
        };
        Ok(Self { subscription, holding, time })
    }
}

/// Reads a body that is a JSON object of these members.
///
/// # Errors
/// 400, which repeats nothing of it.
pub(super) fn read<T: DeserializeOwned>(body: &[u8], members: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|why| match why.classify() {
        // The text of these names a member, or what kind of thing was expected.
        serde_json::error::Category::Data if body.len() <= MAX_QUOTED => {
            Refusal::bad(format!("body: {}", printable(&why.to_string())))
        }
        _ => Refusal::bad(format!("body: not a JSON object of {members}")),
    })
}

/// What is meant: one of the two is to be there.
///
/// # Errors
/// What is wrong, by the member's name.
pub(super) fn holding(lease: Option<String>, cursors: Option<Vec<String>>) -> Result<Holding, String> {
    match (lease, cursors) {
        (Some(lease), None) => {
            lease.parse().map(Holding::Lease).map_err(|_| "lease: not the name of a lease".to_owned())
        }
        (None, Some(cursors)) if (1..=MAX_CURSORS).contains(&cursors.len()) => {
            let parsed: Result<Vec<Cursor>, _> = cursors.iter().map(|cursor| cursor.parse()).collect();
            parsed.map(Holding::Entries).map_err(|_| "cursors: holds what is not a cursor".to_owned())
        }
        (None, Some(_)) => Err(format!("cursors: 1 to {MAX_CURSORS} of them")),
        _ => Err("lease: write it or `cursors`, and not both".to_owned()),
    }
}

fn time(name: &str, text: &str, least: Duration) -> Result<Duration, Refusal> {
    let fits = |time: &Duration| (least..=crate::events::MAX_LEASE).contains(time);
    duration(text)
        .filter(fits)
        .ok_or_else(|| Refusal::bad(format!("{name}: a duration such as 5s, from {} s to 12 h", least.as_secs())))
}

/// What serde says, without what the caller wrote: that may be a key in the wrong place.
fn printable(why: &str) -> &'static str {
    if why.starts_with("unknown field") {
        "holds a member that is unknown"
    } else if why.starts_with("duplicate field") {
        "holds a member twice"
    } else {
        "a member is of the wrong kind"
    }
}

/// As many as one read gives.
const MAX_CURSORS: usize = 1000;
const MAX_QUOTED: usize = 64 << 10;
const MIN_LEASE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Sequence;

    #[test]
    fn a_body_says_what_is_held_and_for_how_long() {
        let cursor = Cursor { epoch: 1, at: Sequence(7) };
        let lease = "AAAAAAAAAAAAAAAAAAAAAA";
        let nack = format!(r#"{{"subscription":"s","cursors":["{cursor}"],"delay":"5s"}}"#);
        let ack_request = AckRequest::parse(nack.as_bytes(), AckAction::Nack).unwrap();
        assert_eq!(ack_request.holding, Holding::Entries(vec![cursor]));
        assert_eq!((ack_request.subscription.unwrap().as_str(), ack_request.time), ("s", Some(Duration::from_secs(5))));
        let extend = format!(r#"{{"lease":"{lease}","lease_for":"2m"}}"#);
        let ack_request = AckRequest::parse(extend.as_bytes(), AckAction::Extend).unwrap();
        assert_eq!(ack_request.holding, Holding::Lease(lease.parse().unwrap()));
        assert_eq!((ack_request.subscription, ack_request.time), (None, Some(Duration::from_secs(120))));
    }

    #[test]
    fn a_body_that_says_anything_else_is_refused_without_repeating_it() {
        let lease = r#""lease":"AAAAAAAAAAAAAAAAAAAAAA""#;
        for (body, names) in [
            ("", "body"),
            ("[]", "body"),
            ("{}", "lease"),
            (r#"{"lease":"short"}"#, "lease"),
            (r#"{"cursors":[]}"#, "cursors"),
            (r#"{"cursors":["x"]}"#, "cursors"),
            (r#"{"lease":1}"#, "body"),
            (r#"{"s3cret":1}"#, "body"),
            (&format!(r#"{{{lease},"cursors":["x"]}}"#), "lease"),
            (&format!(r#"{{{lease},"delay":"5s"}}"#), "delay"),
            (&format!(r#"{{{lease},"lease_for":"5s"}}"#), "lease_for"),
            (&format!(r#"{{{lease},"subscription":"$webhook.x"}}"#), "subscription"),
        ] {
            let Err(Refusal::BadRequest(detail)) = AckRequest::parse(body.as_bytes(), AckAction::Ack) else {
                panic!("{body} was taken")
            };
            assert!(detail.starts_with(&format!("{names}: ")) && !detail.contains("s3cret"), "{body}: {detail}");
        }
        for (body, what) in [("0s", AckAction::Extend), ("13h", AckAction::Extend), ("soon", AckAction::Nack)] {
            let body = format!(r#"{{{lease},"delay":"{body}","lease_for":"{body}"}}"#);
            assert!(AckRequest::parse(body.as_bytes(), what).is_err());
        }
    }
}
