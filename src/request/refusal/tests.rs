//! What callers read of refusals, and that the README says the same.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use hyper::header::RETRY_AFTER;

use super::*;
use crate::http::headers::{RATELIMIT, RATELIMIT_POLICY};
use crate::http::request_id::RequestId;
use crate::upstream::egress::{Failure, VendorLimit};

/// One refusal of each kind; a new kind does not compile until it is listed.
macro_rules! every_kind {
    ($($pattern:pat => $example:expr,)+) => {
        fn every_kind() -> Vec<Refusal> {
            let all = vec![$($example,)+];
            for refusal in &all {
                match refusal { $($pattern => {})+ }
            }
            all
        }
    };
}

const SECOND: Duration = Duration::from_secs(1);

fn limit() -> Limit {
    Limit { requests: NonZeroU32::new(100).unwrap(), per: Duration::from_millis(1500) }
}

every_kind! {
    Refusal::BadRequest(_) => Refusal::bad("x"),
    Refusal::Unauthenticated => Refusal::Unauthenticated,
    Refusal::Misdirected => Refusal::Misdirected,
    Refusal::CrossSite => Refusal::CrossSite,
    Refusal::Forbidden => Refusal::Forbidden,
    Refusal::NoSuchRoute => Refusal::NoSuchRoute,
    Refusal::MethodNotAllowed { .. } => Refusal::MethodNotAllowed { allow: "GET" },
    Refusal::NotAcceptable { .. } => Refusal::NotAcceptable { kind: "x/y" },
    Refusal::RequestTimeout => Refusal::RequestTimeout,
    Refusal::CursorExpired { .. } => Refusal::CursorExpired { earliest: "x".into(), lost: Some(1) },
    Refusal::LeaseExpired => Refusal::LeaseExpired,
    Refusal::TooManySubscriptions { .. } => Refusal::TooManySubscriptions { most: None },
    Refusal::NoSuchHandle => Refusal::NoSuchHandle,
    Refusal::BodyTooLarge { .. } => Refusal::BodyTooLarge { limit: 1 },
    Refusal::UnsupportedMediaType => Refusal::UnsupportedMediaType,
    Refusal::HeadersTooLarge => Refusal::HeadersTooLarge,
    Refusal::QuotaExceeded { .. } => {
        let (bucket, cause) = (BucketName::HistoryCreate, "x".into());
        Refusal::QuotaExceeded { bucket, limit: limit(), retry_after: SECOND, in_force: None, cause }
    },
    Refusal::ClientLimit { .. } => {
        Refusal::ClientLimit { ceiling: Ceiling::MaxConcurrent(NonZeroU32::MIN), retry_after: SECOND }
    },
    Refusal::Shed { .. } => Refusal::shed(Shed::MaxRequests),
    Refusal::Internal(_) => Refusal::Internal("x".into()),
    Refusal::BadUpstream(_) => Refusal::BadUpstream("x".into()),
    Refusal::AppRefused => Refusal::AppRefused,
    Refusal::CredentialRefused => Refusal::CredentialRefused,
    Refusal::Unavailable(_) => Refusal::Unavailable("x".into()),
    Refusal::RegionDown { .. } => Refusal::RegionDown { cause: "x".into(), retry_after: SECOND },
    Refusal::CredentialUnavailable(_) => Refusal::CredentialUnavailable("x".into()),
    Refusal::UpstreamTimeout { .. } => Refusal::UpstreamTimeout { cause: "x".into(), sent: false },
    Refusal::StillRunning { .. } => Refusal::StillRunning { location: None },
}

/// `| 404, 405 | `no_such_route`, `method_not_allowed` | … |`: statuses and codes in the same order, or one status of
/// all.
#[test]
fn the_readme_lists_each_status_with_its_code_and_no_other() {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let table = readme.split("## Errors").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut listed = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| status")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let Ok(statuses) = cells[1].split(", ").map(str::parse::<u16>).collect::<Result<Vec<_>, _>>() else { continue };
        let codes: Vec<_> = cells[2].split(", ").map(|code| code.trim_matches('`')).collect();
        assert!(statuses.len() == codes.len() || statuses.len() == 1, "{row}");
        let statuses = statuses.iter().cycle();
        listed.extend(codes.into_iter().zip(statuses).map(|(code, status)| (*status, code.to_owned())));
    }
    let all = every_kind();
    let made: BTreeSet<_> = all.iter().map(|refusal| (refusal.status().as_u16(), refusal.code().to_owned())).collect();
    assert_eq!(listed, made);
}

#[test]
fn a_spent_quota_says_when_to_come_back_what_the_limit_is_and_whose() {
    let vendor = VendorLimit {
        in_force: 50,
        refused: 3,
        lasting: Duration::from_secs(12),
        retry_after: Some(Duration::from_secs(5)),
    };
    for (vendor, policy, limited_by, detail, cause) in [
        (
            None,
            r#""history_create";q=100;w=2"#,
            "gateway",
            "100 in 1s 500ms are allowed",
            "the gateway's own count of 100 in 1s 500ms",
        ),
        (
            Some(vendor),
            r#""history_create";q=50;w=2"#,
            "vendor",
            "the vendor itself refuses them (429)",
            "the vendor answered 429",
        ),
    ] {
        let refusal = Refusal::from(Failure::QuotaSpent {
            bucket: BucketName::HistoryCreate,
            limit: limit(),
            retry_after: Duration::from_millis(2001),
            vendor: vendor.clone().map(Box::new),
        });
        let headers = refusal.headers();
        assert_eq!(headers[RETRY_AFTER], "3");
        assert_eq!(headers[RATELIMIT], r#""history_create";r=0;t=3"#);
        assert_eq!(headers[RATELIMIT_POLICY], policy);
        let body: serde_json::Value = serde_json::from_slice(&refusal.body(&RequestId::random())).unwrap();
        assert_eq!((&body["status"], &body["code"]), (&429.into(), &"quota_exceeded".into()));
        assert_eq!((&body["result"], &body["limited_by"]), (&"failed".into(), &limited_by.into()));
        assert!(refusal.detail().contains(detail), "{}", refusal.detail());
        let said = refusal.cause().unwrap();
        assert!(said.contains(cause), "{said}");
        if vendor.is_some() {
            assert!(!refusal.detail().contains("are allowed"), "{}", refusal.detail());
            assert!(said.contains("3 of them, since 12.0 s, the last with Retry-After 5 s"), "{said}");
            assert!(said.contains("50 of 100 in 1s 500ms are in force"), "{said}");
        }
    }
}

#[test]
fn a_ceiling_says_which_one_it_is_and_what_it_allows() {
    let most = NonZeroU32::new(5).unwrap();
    let retry_after = Duration::from_millis(200);
    for (ceiling, left, policy) in [
        (Ceiling::MaxConcurrent(most), r#""max_concurrent";r=0"#, r#""max_concurrent";q=5;qu="concurrent-requests""#),
        (Ceiling::RequestsPerSecond(most), r#""requests_per_second";r=0;t=1"#, r#""requests_per_second";q=5;w=1"#),
    ] {
        let refusal = Refusal::ClientLimit { ceiling, retry_after };
        assert_eq!((refusal.status().as_u16(), refusal.code()), (429, "client_limit_exceeded"));
        let headers = refusal.headers();
        assert_eq!(
            (&headers[RATELIMIT], &headers[RATELIMIT_POLICY]),
            (&left.parse().unwrap(), &policy.parse().unwrap())
        );
        assert_eq!(headers[RETRY_AFTER], "1");
    }
}

#[test]
fn what_went_wrong_inside_is_not_told_to_callers() {
    let inside = "connect to 10.1.2.3:443 failed, key /run/secrets/x".to_owned();
    for refusal in [
        Refusal::Internal(inside.clone()),
        Refusal::BadUpstream(inside.clone()),
        Refusal::Unavailable(inside.clone()),
        Refusal::RegionDown { cause: inside.clone(), retry_after: Duration::from_secs(1) },
        Refusal::CredentialUnavailable(inside.clone()),
        Refusal::UpstreamTimeout { cause: inside.clone(), sent: true },
    ] {
        let body = String::from_utf8(refusal.body(&RequestId::random()).to_vec()).unwrap();
        assert!(!body.contains("10.1.2.3") && !body.contains("secrets"), "{body}");
        assert_eq!(refusal.cause(), Some(inside.as_str()));
    }
}

#[test]
fn software_written_for_the_vendor_finds_its_own_words() {
    let location = Some("~/rtm/message/history/query/H".to_owned());
    let body = Refusal::StillRunning { location }.body(&RequestId::random());
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["code"], &body["location"]), (&"in progress".into(), &"~/rtm/message/history/query/H".into()));
    let gone = Refusal::NoSuchHandle;
    assert_eq!((gone.status().as_u16(), gone.code()), (410, "resource not exist"));
}

#[test]
fn who_has_as_many_subscriptions_as_it_may_is_told_when_to_look_again() {
    for most in [Some(1000), None] {
        let refusal = Refusal::TooManySubscriptions { most };
        assert_eq!((refusal.status().as_u16(), refusal.code()), (429, "too_many_subscriptions"));
        assert_eq!(refusal.headers()[RETRY_AFTER], "60");
    }
}

#[test]
fn an_answer_that_found_no_memory_cost_what_it_cost_and_may_have_been_acted_on() {
    let refusal = Refusal::shed(Shed::ResponseMemory);
    assert_eq!((refusal.status().as_u16(), refusal.code()), (503, "unavailable"));
    assert!(!refusal.cost_nothing() && refusal.detail().contains("may have been sent"));
    assert!(refusal.headers().contains_key(RETRY_AFTER));
    assert!(Refusal::shed(Shed::BodyMemory).cost_nothing());
}
