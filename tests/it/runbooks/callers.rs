//! Who is calling at all, strangers too? A stranger with a key that nobody has, one with none, a client that goes on with its
//! old key, and its look-alike: the same client when that key is gone, which seems to be a stranger.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::front::stage::{Answer, RTM, Stage};
use crate::support::client::Client;
use crate::support::log_lines::LogLines;

fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn billing(keys: &[&str]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| format!("\"{}\"", digest(key))).collect();
    format!(
        "[[clients]]\nname = \"billing\"\napi_key_sha256 = [{}]\nallow = [{{ app = \"*\", actions = [\"events\"] }}]\n",
        keys.join(", ")
    )
}

/// A request as `user_agent`: where it came from, and its line.
async fn call(stage: &Stage, lines: &LogLines, id: &str, user_agent: &str, key: Option<&str>) -> (String, Value) {
    let mut tcp = stage.connect().await;
    let from = tcp.local_addr().unwrap().to_string();
    let shown = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    let head = format!("GET {RTM}/vendor/user_events HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n");
    tcp.write_all(format!("{head}User-Agent: {user_agent}\r\n{shown}\r\n").as_bytes()).await.unwrap();
    Answer::read(&mut tcp).await;
    (from, lines.one(id).await)
}

/// `GET /admin/v1/clients`.
async fn clients(stage: &Stage) -> Value {
    Client::http1(stage.admin).await.get("/admin/v1/clients").await.unwrap().json()
}

/// How often, and when last, the client showed itself in each way.
fn proofs<'v>(view: &'v Value, client: &str) -> Vec<(&'v str, u64, Option<&'v str>)> {
    let entries = view["clients"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["name"] == client).unwrap();
    let proofs = entry["proofs"].as_array().unwrap().iter();
    proofs.map(|p| (p["proof"].as_str().unwrap(), p["uses"].as_u64().unwrap(), p["last_used"].as_str())).collect()
}

#[tokio::test]
async fn strangers_and_an_old_key_are_told_apart_and_each_is_found_by_where_it_calls_from() {
    let lines = LogLines::of_this_process();
    let stage = Stage::with("", &billing(&["old-key", "new-key", "unused-key"])).await;
    for (id, user_agent, key, proof, client) in [
        ("h-new", "billing/2", Some("new-key"), "key:2", "billing"),
        ("h-old", "night-job/1", Some("old-key"), "key:1", "billing"),
        ("h-wrong", "guesser", Some("guess"), "wrong_key", ""),
        ("h-none", "scanner/3", None, "none", ""),
        ("h-none-2", "scanner/3", None, "none", ""),
    ] {
        let (from, line) = call(&stage, &lines, id, user_agent, key).await;
        let said = [&line["peer"], &line["user_agent"], &line["proof"], &line["client"]];
        assert_eq!(said.map(|text| text.as_str().unwrap()), [&from, user_agent, proof, client], "{line}");
    }

    let view = clients(&stage).await;
    let [(_, 1, Some(old)), (_, 1, Some(new)), ("key:3", 0, None)] = proofs(&view, "billing")[..] else {
        panic!("{view}");
    };
    assert!(old >= new && new >= view["since"].as_str().unwrap(), "{view}");
    let of_billing = view["clients"].as_array().unwrap().iter().find(|entry| entry["name"] == "billing").unwrap();
    assert_eq!(of_billing["proofs"][0]["sha256"], digest("old-key")[..8]);
    assert_eq!(proofs(&view, "all"), [("key:1", 0, None)]);
    let strangers = &view["unauthenticated"];
    assert_eq!((&strangers["by_proof"]["none"], &strangers["by_proof"]["wrong_key"]), (&2.into(), &1.into()), "{view}");
    let [place] = &strangers["last"].as_array().unwrap()[..] else { panic!("{view}") };
    assert_eq!((&place["address"], &place["requests"]), (&"127.0.0.1".into(), &3.into()));
    assert_eq!(place["last_proof"], "none");
    let metrics = stage.parts.metrics.text();
    assert!(metrics.contains(r#"rtm_gateway_unauthenticated_total{proof="wrong_key"} 1"#), "{metrics}");

    // The key is taken away from who still uses it: a wrong key like a stranger's. The lines from before say whose it was.
    let mut config = stage.config();
    let new: [u8; 32] = Sha256::digest("new-key").into();
    config.clients.iter_mut().for_each(|client| {
        if client.name.as_str() == "billing" {
            client.api_key_sha256.retain(|digest| *digest == new);
        }
    });
    stage.parts.apply(&config).await.unwrap();
    let (_, line) = call(&stage, &lines, "h-gone", "night-job/1", Some("old-key")).await;
    assert_eq!((&line["proof"], &line["client"]), (&"wrong_key".into(), &"".into()), "{line}");
    let ids = ["h-new", "h-old", "h-wrong", "h-none", "h-none-2"];
    let before = ids.map(|id| lines.of(id)).into_iter().flatten();
    let before: Vec<_> = before.filter(|before| before["user_agent"] == line["user_agent"]).collect();
    assert_eq!(before.len(), 1);
    assert_eq!((&before[0]["client"], &before[0]["proof"]), (&"billing".into(), &"key:1".into()));
    // What was counted of the key that stays is kept, whatever its number is now.
    assert!(matches!(proofs(&clients(&stage).await, "billing")[..], [("key:1", 1, Some(_))]));
    stage.stopped().await;
}
