//! The body of `POST …/events/{stream}/next`: what was leased before and is done with, and what is to be leased now.
//!
//! Invariants: a member that is unknown or not understood is refused by its name. What is read says the same as the
//! parameters of that name of a read with `ack=explicit`, and is held to the same bounds.

use serde::Deserialize;

use super::ack_request::{holding, read};
use super::{EventsQuery, Form};
use crate::events::Holding;
use crate::kernel::names::{Stream, Streams};
use crate::request::refusal::Refusal;

/// What a body asks.
#[derive(Debug)]
pub struct NextRequest {
    /// What is done with; `None` when there is nothing yet.
    pub settle: Option<Holding>,
    /// What is to be leased then, of the same subscription. Its acknowledgement is explicit.
    pub read: EventsQuery,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NextBody {
    subscription: Option<String>,
    settle: Option<Settle>,
    limit: Option<u64>,
    wait: Option<Wait>,
    lease: Option<String>,
    max_attempts: Option<u64>,
    from: Option<String>,
    r#type: Option<Vec<String>>,
    user_id: Option<Vec<String>>,
    group_id: Option<Vec<String>>,
}

/// What an acknowledgement names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settle {
    lease: Option<String>,
    cursors: Option<Vec<String>>,
}

/// `"20s"`, or plain seconds.
#[derive(Deserialize)]
#[serde(untagged)]
enum Wait {
    Seconds(u64),
    Text(String),
}

impl NextRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// 400, naming the member.
    pub fn parse(body: &[u8], stream: Stream) -> Result<Self, Refusal> {
        let NextBody { subscription, settle, limit, wait, lease, max_attempts, from, r#type, user_id, group_id } =
            read(body, MEMBERS)?;
        let settle = settle.map(|Settle { lease, cursors }| holding(lease, cursors)).transpose();
        let settle = settle.map_err(|why| Refusal::bad(format!("settle: {why}")))?;
        let wait = wait.map(|wait| match wait {
            Wait::Seconds(seconds) => seconds.to_string(),
            Wait::Text(text) => text,
        });
        let (limit, max_attempts) = (limit.map(|n| n.to_string()), max_attempts.map(|n| n.to_string()));
        let single = [
            ("ack", Some("explicit".to_owned())),
            ("subscription", subscription),
            ("limit", limit),
            ("wait", wait),
            ("lease", lease),
            ("max_attempts", max_attempts),
            ("from", from),
        ];
        let single = single.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let mut pairs: Vec<(String, String)> = single.collect();
        for (name, patterns) in [("type", r#type), ("user_id", user_id), ("group_id", group_id)] {
            for pattern in patterns.unwrap_or_default() {
                // As in a query.
                if pattern.chars().any(char::is_control) {
                    return Err(Refusal::bad(format!("{name}: holds a control character")));
                }
                pairs.push((name.to_owned(), pattern));
            }
        }
        Ok(Self { settle, read: EventsQuery::of_pairs(pairs, Streams::One(stream), Form::Native)? })
    }
}

const MEMBERS: &str = "subscription, settle, limit, wait, lease, max_attempts, from, type, user_id, group_id";

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn parse(body: &str) -> Result<NextRequest, Refusal> {
        NextRequest::parse(body.as_bytes(), Stream::UserEvents)
    }

    #[test]
    fn what_is_read_is_what_the_parameters_of_a_read_say() {
        let body = format!(
            r#"{{"subscription":"s","settle":{{"lease":"{LEASE}"}},"limit":7,"wait":"20s","lease":"1m","max_attempts":3,
                "from":"latest","type":["Login","Log*"],"user_id":["a&b"],"group_id":[]}}"#
        );
        let next = parse(&body).unwrap();
        assert_eq!(next.settle, Some(Holding::Lease(LEASE.parse().unwrap())));
        let query = "subscription=s&limit=7&wait=20s&lease=1m&max_attempts=3&from=latest&ack=explicit\
                     &type=Login&type=Log*&user_id=a%26b";
        let read = EventsQuery::parse(Some(query), Streams::One(Stream::UserEvents), Form::Native).unwrap();
        assert_eq!(next.read, read);
        let least = parse("{}").unwrap();
        assert_eq!(least.settle, None);
        let read = EventsQuery::parse(Some("ack=explicit"), Streams::One(Stream::UserEvents), Form::Native).unwrap();
        assert_eq!(least.read, read);
        assert_eq!(parse(r#"{"wait":2}"#).unwrap().read, parse(r#"{"wait":"2s"}"#).unwrap().read);
        assert_eq!(parse(r#"{"settle":null,"limit":null}"#).unwrap().read, least.read);
    }

    #[test]
    fn a_body_that_says_anything_else_is_refused_by_the_member_s_name_without_repeating_it() {
        for (body, names) in [
            ("", "body"),
            ("[]", "body"),
            (r#"{"s3cret":1}"#, "body"),
            (r#"{"after":"earliest"}"#, "body"),
            (r#"{"ack":"auto"}"#, "body"),
            (r#"{"limit":"7"}"#, "body"),
            (r#"{"limit":-1}"#, "body"),
            (r#"{"wait":[1]}"#, "body"),
            (r#"{"type":"Login"}"#, "body"),
            (r#"{"limit":0}"#, "limit"),
            (r#"{"limit":1001}"#, "limit"),
            (r#"{"wait":"s3cret"}"#, "wait"),
            (r#"{"lease":"13h"}"#, "lease"),
            (r#"{"max_attempts":0}"#, "max_attempts"),
            (r#"{"from":"s3cret"}"#, "from"),
            (r#"{"subscription":"$webhook.x"}"#, "subscription"),
            (r#"{"user_id":["s3cret\n"]}"#, "user_id"),
            (r#"{"settle":{}}"#, "settle"),
            (r#"{"settle":{"lease":"s3cret"}}"#, "settle"),
            (r#"{"settle":{"cursors":[]}}"#, "settle"),
            (r#"{"settle":{"cursors":["s3cret"]}}"#, "settle"),
            (&format!(r#"{{"settle":{{"lease":"{LEASE}","cursors":["x"]}}}}"#), "settle"),
            (&format!(r#"{{"settle":{{"lease":"{LEASE}","delay":"5s"}}}}"#), "body"),
        ] {
            let Err(Refusal::BadRequest(detail)) = parse(body) else { panic!("{body} was taken") };
            assert!(detail.starts_with(&format!("{names}: ")) && !detail.contains("s3cret"), "{body}: {detail}");
        }
    }
}
