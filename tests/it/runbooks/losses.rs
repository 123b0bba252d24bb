//! (e) Did we lose events last night?

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Endpoint, Fault};
use serde_json::{Value, json};

use crate::front::stage::{APP, Stage};
use crate::process::gateway::{self, Gateway, Home};
use crate::support::client::Client;
use crate::support::waiting::{eventually, found};

/// What the operators' port answers.
async fn ask(admin: std::net::SocketAddr, path: &str) -> (u16, Value) {
    let reply = Client::http1(admin).await.get(path).await.unwrap();
    (reply.status.as_u16(), reply.json())
}

async fn losses(admin: std::net::SocketAddr) -> Vec<Value> {
    let (status, said) = ask(admin, "/admin/v1/losses").await;
    assert_eq!((status, &said["next"], &said["left_out"]), (200, &Value::Null, &json!(false)), "{said}");
    said["losses"].as_array().unwrap().clone()
}

fn what(loss: &Value) -> Value {
    json!([loss["kind"], loss["app"], loss["stream"], loss["region"], loss["subscription"]])
}

/// An outage in which a read was answered badly, one in which nothing could be sent, and a restart: the first alone may
/// have cost something, and it is still told after the restart.
#[tokio::test]
async fn of_an_outage_with_doubt_one_without_and_a_restart_the_first_is_a_loss() {
    let nowhere = "\n[[apps]]\nid = \"away-app\"\nregions = [{ name = \"away\", base_url = \"http://127.0.0.1:1\" }]\n\
        [apps.credential]\nkind = \"basic\"\napi_key = { file = \"$DIR/key\" }\napi_secret = { file = \"$DIR/secret\" }\n\
        [apps.events]\npoll_interval = \"10ms\"\npoll_interval_idle = \"20ms\"\n";
    let stage = crate::support::stage::Stage::new().await;
    let nowhere = nowhere.replace("$DIR", stage.folder.path().to_str().unwrap());
    let mut stage = Stage::on(stage, ("", "", &nowhere)).await;
    stage.sim.emit_many(APP, Stream::ChannelEvents, 3);
    // Nothing is sent where nobody listens, so nothing can be lost.
    let is_refused =
        |poller: &rtm_gateway::events::PollerStatus| poller.region == "away" && poller.last_error.is_some();
    eventually(|| stage.parts.events.pollers().iter().filter(|poller| is_refused(poller)).count() == 2).await;
    assert_eq!(losses(stage.admin).await, Vec::<Value>::new());
    // The vendor fails in the middle of a read.
    stage.sim.on(Endpoint::UserEvents, Fault::status_but_acted(503));
    let doubt = found(async || {
        // The marker may stand before the first events that come after it.
        stage.sim.emit_many(APP, Stream::UserEvents, 1);
        losses(stage.admin).await.pop()
    })
    .await;
    assert_eq!(what(&doubt), json!(["possible_loss", APP, "user_events", "here", null]));
    assert_eq!(doubt["reason"], "status_5xx");
    let (from, to) = (doubt["from"].as_str().unwrap(), doubt["to"].as_str().unwrap());
    assert!(from <= to, "{doubt}");
    // A stop in order loses nothing, and what was lost before it is still told.
    stage.end().await;
    stage.run().await;
    stage.sim.emit_many(APP, Stream::UserEvents, 1);
    assert_eq!(losses(stage.admin).await, std::slice::from_ref(&doubt));
    // It can be asked for by stream and time; the marker stands where its cursor says.
    for (query, count) in [
        ("app=demo-app&stream=user_events".to_owned(), 1),
        ("stream=channel_events".to_owned(), 0),
        ("app=away-app".to_owned(), 0),
        (format!("since={to}&limit=1"), 1),
        (format!("until={from}"), 0),
        ("since=earliest".to_owned(), 1),
        ("since=2999-01-01T00:00:00Z".to_owned(), 0),
    ] {
        let (status, said) = ask(stage.admin, &format!("/admin/v1/losses?{query}")).await;
        assert_eq!((status, said["losses"].as_array().unwrap().len()), (200, count), "{query}: {said}");
    }
    for (query, status) in [
        ("app=other", 404),
        ("stream=other", 404),
        ("since=yesterday", 400),
        ("until=earliest", 400),
        ("limit=0", 400),
        ("after=x", 400),
    ] {
        assert_eq!(ask(stage.admin, &format!("/admin/v1/losses?{query}")).await.0, status, "{query}");
    }
    stage.stopped().await;
}

/// After `kill -9` a read may have been under way in each stream, and the list says so; what it said before, it says still.
#[tokio::test]
async fn a_kill_is_told_as_a_possible_loss_of_each_stream_and_forgets_none() {
    let vendor = gateway::vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    vendor.on(Endpoint::ChannelEvents, Fault::garbage("{\"events\":[{\"a"));
    let before = found(async || {
        vendor.emit_many(gateway::APP, Stream::ChannelEvents, 1);
        losses(gateway.operators).await.pop()
    })
    .await;
    assert_eq!((&before["reason"], &before["stream"]), (&json!("unparsable"), &json!("channel_events")));
    gateway.kill();
    let gateway = Gateway::start(&home);
    let after = found(async || {
        for stream in Stream::ALL {
            vendor.emit_many(gateway::APP, stream, 1);
        }
        Some(losses(gateway.operators).await).filter(|all| all.len() >= 3)
    })
    .await;
    assert_eq!(after[0], before);
    let mut unclean: Vec<_> =
        after[1..].iter().map(|loss| (loss["reason"].to_string(), loss["stream"].to_string())).collect();
    unclean.sort();
    let of = |stream: &str| ("\"unclean_stop\"".to_owned(), format!("\"{stream}\""));
    assert_eq!(unclean, [of("channel_events"), of("user_events")]);
    // Page by page it is the same list.
    let (mut paged, mut next) = (Vec::new(), String::new());
    for _ in 0..4 {
        let (_, said) = ask(gateway.operators, &format!("/admin/v1/losses?limit=1{next}")).await;
        paged.extend(said["losses"].as_array().unwrap().clone());
        let Some(after) = said["next"].as_str() else { break };
        next = format!("&after={after}");
    }
    assert_eq!(paged, after);
}
