//! Which client eats the quota? One that exports much, and one that merely waits for its turn, and some that share what they ask.

use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::simulator::Message;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::front::stage::{APP, Answer, RTM, Stage, request};
use crate::support;
use crate::support::client::Client;
use crate::support::log_lines::LogLines;
use crate::support::settings;
use crate::support::waiting::found;

const ALL: &str = r#"allow = [{ app = "*", actions = ["history"] }]"#;

/// What the page has an operator look at.
async fn quota(stage: &Stage, bucket: &str) -> Value {
    let view = Client::http1(stage.admin).await.get("/admin/v1/quotas").await.unwrap().json();
    let all = view["quotas"].as_array().unwrap();
    all.iter().find(|quota| quota["app"] == APP && quota["bucket"] == bucket).unwrap().clone()
}

/// A client's row of it.
fn row<'a>(quota: &'a Value, client: &str) -> Option<&'a Value> {
    quota["clients"].as_array().unwrap().iter().find(|row| row["client"] == client)
}

async fn seats(stage: &Stage, client: &str) -> u64 {
    row(&quota(stage, "history_create").await, client).map_or(0, |row| row["seats"].as_u64().unwrap())
}

fn query(client: &str, id: &str, start: u64) -> String {
    let headers = format!("Content-Type: application/json\r\nX-Request-Id: {id}\r\n");
    let filter = format!(r#"{{"source":"alice","start_time":{start},"end_time":4102444800}}"#);
    request(
        "POST",
        &format!("{RTM}/message/history/query"),
        client,
        &headers,
        &format!(r#"{{"filter":{filter},"limit":20}}"#),
    )
}

#[tokio::test]
async fn who_exports_much_is_told_while_it_runs_from_who_merely_waits_and_what_is_shared_is_counted_once() {
    let lines = LogLines::of_this_process();
    let clients = ["exporter", "waiter", "one", "two"].map(|name| settings::client(name, ALL)).concat();
    let stage = support::stage::Stage::new().await;
    let quota_lines = "history_create = { requests = 2, per = \"1s\" }";
    let stage = Stage::on(stage, ("", quota_lines, &clients)).await;
    let base = Clock::system().wall_ms().0 - 3_600_000;
    let messages = (0..5000).map(|n| Message::peer("alice", "bob", &n.to_string()).at(base + n * 20));
    stage.sim.world().add_messages(APP, messages);

    let mut exporter = stage.connect().await;
    let target = format!("/v1/apps/{APP}/history?source=alice&start_time=0&end_time=4102444800");
    let headers = "Accept: application/x-ndjson\r\nX-Request-Id: a-exporter\r\n";
    exporter.write_all(request("GET", &target, "exporter", headers, "").as_bytes()).await.unwrap();
    found(async || (seats(&stage, "exporter").await >= 6).then_some(())).await;
    // It has a turn of its own soon, and waits for that.
    assert_eq!(stage.raw(query("waiter", "a-waiter", 0)).await.status, 200);
    // Two who want the same at the same time, as both find no seat free.
    let (mut one, mut two) = (stage.connect().await, stage.connect().await);
    one.write_all(query("one", "a-one", 1).as_bytes()).await.unwrap();
    two.write_all(query("two", "a-two", 1).as_bytes()).await.unwrap();
    assert_eq!((Answer::read(&mut one).await.status, Answer::read(&mut two).await.status), (200, 200));

    let now = quota(&stage, "history_create").await;
    let numbers = |client: &str| {
        let row = row(&now, client).unwrap_or_else(|| panic!("{client}: {now}"));
        let waited = row["waited_seconds"].as_f64().unwrap();
        (row["seats"].as_u64().unwrap(), row["seats_last_minute"].as_u64().unwrap(), waited)
    };
    assert_eq!(now["clients"][0]["client"], "exporter", "{now}");
    assert!(numbers("exporter").0 >= 6 && numbers("exporter").1 >= 6, "{now}");
    let (used, of_late, waited) = numbers("waiter");
    assert!((used, of_late) == (1, 1) && waited > 0.0, "{now}");
    assert_eq!(numbers("one").0 + numbers("two").0, 1, "one seat for both: {now}");
    // What the gateway reads by itself is nobody's.
    let own = quota(&stage, "user_events").await;
    assert!(row(&own, "$pollers").unwrap()["seats"].as_u64().unwrap() > 0, "{own}");
    let metrics = Client::http1(stage.admin).await.get("/metrics").await.unwrap().text().to_owned();
    let series = format!(r#"rtm_gateway_client_seats_total{{app="{APP}",bucket="history_create",client="#);
    assert!(metrics.contains(&format!("{series}\"waiter\"}} 1\n")), "{metrics}");
    let exported = metrics.lines().find_map(|line| line.strip_prefix(&format!("{series}\"exporter\"}} "))).unwrap();
    assert!(exported.parse::<u64>().unwrap() >= 6, "{exported}");
    assert!(!metrics.contains(r#"status="200",client="exporter""#) && !metrics.contains(r#"client="exporter",status"#));

    // The lines say what was done for each.
    let (waiter, one, two) = (lines.one("a-waiter").await, lines.one("a-one").await, lines.one("a-two").await);
    assert_eq!((&waiter["upstream_exchanges"], &waiter["shared"]), (&2.into(), &false.into()), "{waiter}");
    assert!(waiter["queue_wait_ms"].as_f64().unwrap() > 0.0 && waiter["upstream_ms"].as_f64().unwrap() > 0.0);
    for line in [&one, &two] {
        assert_eq!((&line["upstream_exchanges"], &line["shared"]), (&2.into(), &true.into()), "{line}");
    }
    assert!(lines.of("a-exporter").is_empty());
    drop(exporter);
    let exporter = lines.one("a-exporter").await;
    assert_eq!((&exporter["end"], &exporter["shared"]), (&"cut".into(), &false.into()), "{exporter}");
    assert!(exporter["upstream_exchanges"].as_u64().unwrap() >= 12, "a creation and a fetch each: {exporter}");
    assert!(exporter["queue_wait_ms"].as_f64().unwrap() > 1000.0, "{exporter}");
    stage.stopped().await;
}
