//! Why did this request get 429 or 502? Each of the ways, told apart by one line and by what the caller reads.

use rtm_gateway::simulator::{Endpoint, Fault};
use serde_json::Value;

use crate::front::stage::{APP, Answer, RTM, Stage, request};
use crate::support;
use crate::support::client::Client;
use crate::support::log_lines::LogLines;
use crate::support::settings;
use crate::support::waiting::found;

/// By which the line of the log is known among those of other tests.
const RETRY_AFTER: u64 = 61;

async fn ask(stage: &Stage, method: &str, target: &str, (client, id): (&str, &str), body: &str) -> Answer {
    let headers = format!("Content-Type: application/json\r\nX-Request-Id: {id}\r\n");
    stage.raw(request(method, &format!("{RTM}/{target}"), client, &headers, body)).await
}

async fn operator(stage: &Stage, target: &str) -> (u16, Value) {
    let reply = Client::http1(stage.admin).await.get(target).await.unwrap();
    (reply.status.as_u16(), reply.json())
}

#[tokio::test]
async fn whose_limit_it_was_and_what_the_vendor_answered_is_in_one_line() {
    let lines = LogLines::of_this_process();
    let capped =
        settings::client("capped", "requests_per_second = 1\nallow = [{ app = \"*\", actions = [\"events\"] }]");
    let stage = support::stage::Stage::new().await;
    // A bucket begins spent, and this one stays so for longer than anybody waits.
    let stage = Stage::on(stage, ("", "history_create = { requests = 7, per = \"60s\" }", &capped)).await;
    let line = async |id: &str| lines.one(id).await;
    let cause = |line: &Value| line["cause"].as_str().unwrap().to_owned();

    // The gateway's own count.
    let body = r#"{"filter":{"source":"a","start_time":0,"end_time":4102444800},"limit":20}"#;
    let own = ask(&stage, "POST", "message/history/query", ("all", "c-own"), body).await;
    assert_eq!((own.status, &*own.code(), &own.json()["limited_by"]), (429, "quota_exceeded", &"gateway".into()));
    assert!(own.json()["detail"].as_str().unwrap().contains("7 in 1m are allowed"), "{own:?}");
    assert_eq!(own.header("ratelimit-policy"), Some(r#""history_create";q=7;w=60"#));
    let said = line("c-own").await;
    assert!(cause(&said).contains("the gateway's own count of 7 in 1m has none free in time"), "{said}");
    assert_eq!((&said["code"], &said["upstream_exchanges"]), (&"quota_exceeded".into(), &0.into()));

    // The vendor's 429, although the count had room.
    let (_, before) = operator(&stage, "/readyz").await;
    assert_eq!(before["degraded"], serde_json::json!([]));
    stage.sim.on(Endpoint::HistoryCount, Fault::too_many(Some(&RETRY_AFTER.to_string())));
    let count = "message/history/count?source=a&start_time=0&end_time=4102444800";
    let theirs = ask(&stage, "GET", count, ("all", "c-vendor"), "").await;
    assert_eq!(
        (theirs.status, &*theirs.code(), &theirs.json()["limited_by"]),
        (429, "quota_exceeded", &"vendor".into())
    );
    let detail = theirs.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("the vendor itself refuses them (429)") && detail.contains("50 in 1s"), "{detail}");
    assert!(!detail.contains("are allowed"), "{detail}");
    assert_eq!(theirs.header("ratelimit-policy"), Some(r#""history_count";q=50;w=1"#));
    let retry_after: u64 = theirs.header("retry-after").unwrap().parse().unwrap();
    assert!((RETRY_AFTER - 5..=RETRY_AFTER + 1).contains(&retry_after), "{retry_after}");
    let said = line("c-vendor").await;
    assert!(
        cause(&said).contains("the vendor answered 429 although the gateway's count had room (1 of them"),
        "{said}"
    );
    assert!(cause(&said).contains(&format!("Retry-After {RETRY_AFTER} s")), "{said}");
    assert!(cause(&said).contains("50 of 100 in 1s are in force"), "{said}");
    assert_eq!((&said["upstream_exchanges"], &said["origin"]), (&1.into(), &"gateway".into()));
    // Who comes after it is told so, too, and the vendor is not asked.
    let after = ask(&stage, "GET", &count.replace("=a", "=b"), ("all", "c-after"), "").await;
    assert_eq!((after.status, &after.json()["limited_by"]), (429, &"vendor".into()));
    assert_eq!(line("c-after").await["upstream_exchanges"], 0);
    // It is told once, shown as long as it lasts, and no reason to take the gateway out.
    let told = async || {
        let told = lines.those(|line| line["level"] == "WARN" && line["retry_after_seconds"] == RETRY_AFTER as f64);
        (!told.is_empty()).then_some(told)
    };
    let told = found(told).await;
    assert_eq!(
        (told.len(), &told[0]["app"], &told[0]["bucket"]),
        (1, &APP.into(), &"history_count".into()),
        "{told:?}"
    );
    let (_, view) = operator(&stage, "/admin/v1/quotas").await;
    let quotas = view["quotas"].as_array().unwrap();
    let spent: Vec<_> = quotas.iter().filter(|quota| !quota["others_spend"].is_null()).collect();
    assert_eq!(
        (spent.len(), &spent[0]["bucket"], &spent[0]["others_spend"]["refused"]),
        (1, &"history_count".into(), &1.into())
    );
    for (query, is_told) in [("", true), ("?for=messages", true), ("?app=demo-app", true), ("?for=events", false)] {
        let (status, body) = operator(&stage, &format!("/readyz{query}")).await;
        assert_eq!((status, &body["ready"]), (200, &true.into()), "{query}: {body}");
        let codes: Vec<_> = body["degraded"].as_array().unwrap().iter().map(|trouble| &trouble["code"]).collect();
        assert_eq!(codes == ["quota_spent_by_others"], is_told, "{query}: {body}");
    }

    // A ceiling of the client's own.
    let first = ask(&stage, "GET", "vendor/user_events", ("capped", "c-first"), "").await;
    let second = ask(&stage, "GET", "vendor/user_events", ("capped", "c-ceiling"), "").await;
    assert_eq!((first.status, second.status, &*second.code()), (200, 429, "client_limit_exceeded"));
    assert_eq!(second.json()["limited_by"], Value::Null);
    let said = line("c-ceiling").await;
    assert_eq!((&said["client"], &said["upstream_exchanges"]), (&"capped".into(), &0.into()));

    // A vendor that fails.
    stage.sim.on(Endpoint::PeerMessages, Fault::status(500));
    let message = r#"{"destination":"b","payload":"p"}"#;
    let failed = ask(&stage, "POST", "users/u/peer_messages", ("all", "c-bad"), message).await;
    assert_eq!((failed.status, &*failed.code()), (502, "bad_upstream"));
    let said = line("c-bad").await;
    assert_eq!((&said["upstream_exchanges"], &said["origin"]), (&1.into(), &"gateway".into()), "{said}");
    assert!(cause(&said).contains("the vendor answered 500"), "{said}");
    stage.stopped().await;
}
