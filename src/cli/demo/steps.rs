//! The walk-through: each step does real requests, says what happened, and holds or does not.

use std::io::{self, Write};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::caller::Caller;
use super::stage::{APP, MESSAGES, Stage};
use crate::kernel::names::Stream;
use crate::simulator::Endpoint;

/// Events that occur in the walk-through.
const EVENTS: usize = 500;
/// Counts that one client asks for at once, and those of the other.
const CROWD: usize = 240;
const FEW: usize = 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Does all steps, also after one that does not hold. Says whether all held.
pub(super) async fn walk(stage: &Stage, out: &mut dyn Write) -> io::Result<bool> {
    let crm = Caller::new(stage.gateway, "demo-crm");
    let audit = Caller::new(stage.gateway, "demo-audit");
    let bot = Caller::new(stage.gateway, "demo-bot");
    let stranger = Caller::new(stage.gateway, "not-a-key");
    let mut told = Walkthrough { out, number: 0, held: true };
    told.step("Two subscribers each receive every event", events(stage, &crm, &audit)).await?;
    told.step("History is one request", history(stage, &crm)).await?;
    told.step("So is a count", count(&crm)).await?;
    told.step("A client sends messages only as whom it may", messages(&bot)).await?;
    told.step("The quota holds, and is shared fairly", quota(stage, &crm, &audit)).await?;
    told.step("Nobody gets in without a key, and no credential gets out", guarded(stage, &stranger)).await?;
    Ok(told.held)
}

struct Walkthrough<'a> {
    out: &'a mut dyn Write,
    number: usize,
    held: bool,
}

impl Walkthrough<'_> {
    async fn step(&mut self, title: &str, step: impl Future<Output = Result<String, String>>) -> io::Result<()> {
        self.number += 1;
        write!(self.out, "{}. {title} … ", self.number)?;
        self.out.flush()?;
        match step.await {
            Ok(what) => writeln!(self.out, "ok\n   {what}\n"),
            Err(why) => {
                self.held = false;
                writeln!(self.out, "FAILED\n   {why}\n")
            }
        }
    }
}

async fn events(stage: &Stage, crm: &Caller, audit: &Caller) -> Result<String, String> {
    let emitted = stage.vendor.emit_many(APP, Stream::UserEvents, EVENTS);
    let emitted: Vec<Value> = emitted.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    let (by_crm, by_audit) = tokio::join!(read_all(crm), read_all(audit));
    for (name, received) in [("crm", by_crm?), ("audit", by_audit?)] {
        if received != emitted {
            return Err(format!("{name} received {} events, not the {EVENTS} that occurred in order", received.len()));
        }
    }
    let ledger = stage.vendor.ledger(APP, Stream::UserEvents);
    if ledger.counts.handed != EVENTS as u64 {
        return Err(format!("the vendor gave out {} events", ledger.counts.handed));
    }
    Ok(format!(
        "{EVENTS} events occurred. The vendor handed each over once; crm has all of them, and so has audit, in order."
    ))
}

/// Reads the caller's own subscription until as many came as occurred.
async fn read_all(caller: &Caller) -> Result<Vec<Value>, String> {
    let path = format!("/dev/v2/project/{APP}/rtm/vendor/user_events?wait=5s");
    let until = Instant::now() + PATIENCE;
    let mut received = Vec::new();
    while received.len() < EVENTS && Instant::now() < until {
        let mut body = caller.get(&path).await?.ok()?;
        match body["events"].take() {
            Value::Array(events) => received.extend(events),
            other => return Err(format!("no events in the answer: {other}")),
        }
    }
    Ok(received)
}

async fn history(stage: &Stage, crm: &Caller) -> Result<String, String> {
    stage.vendor.world().set_rules(APP, |rules| rules.in_progress = 1);
    let began = Instant::now();
    let body = json!({
        "filter": { "destination": "lobby", "start_time": 1, "end_time": 4_000_000_000_u64 }, "limit": MESSAGES,
    });
    let path = format!("/dev/v2/project/{APP}/rtm/message/history/query");
    let answer = crm.post(&path, &body).await?.ok()?;
    let took = began.elapsed();
    stage.vendor.world().set_rules(APP, |rules| rules.in_progress = 0);
    let payloads: Vec<&str> =
        answer["messages"].as_array().into_iter().flatten().filter_map(|m| m["payload"].as_str()).collect();
    let expected: Vec<String> = (0..MESSAGES).map(|n| format!("message {n}")).collect();
    if payloads != expected {
        return Err(format!("{} messages came, not the {MESSAGES} there are in order", payloads.len()));
    }
    let stats = stage.vendor.stats();
    Ok(format!(
        "{MESSAGES} messages in one answer after {:.1} s. The vendor was asked {} times for it: it gives 100 at most, \
         and said \"in progress\" first.",
        took.as_secs_f64(),
        stats.of(Endpoint::HistoryCreate).answered() + stats.of(Endpoint::HistoryGet).answered(),
    ))
}

async fn count(crm: &Caller) -> Result<String, String> {
    // As the vendor's own examples write it: a leading `&`, and quotes.
    let query = "&destination=\"lobby\"&start_time=1&end_time=4000000000".replace('"', "%22");
    let path = format!("/dev/v2/project/{APP}/rtm/message/history/count?{query}");
    let answer = crm.get(&path).await?.ok()?;
    match answer["count"].as_u64() {
        Some(count) if count == MESSAGES as u64 => Ok(format!("{count} messages in lobby.")),
        _ => Err(format!("another count than {MESSAGES}: {answer}")),
    }
}

async fn messages(bot: &Caller) -> Result<String, String> {
    let body = json!({ "destination": "alice", "enable_historical_messaging": true, "payload": "hello" });
    let send = |user: &str| format!("/dev/v2/project/{APP}/rtm/users/{user}/peer_messages");
    bot.post(&send("bot-7"), &body).await?.ok()?;
    let other = bot.post(&send("alice"), &body).await?;
    if other.status != 403 {
        return Err(format!("sending as alice was answered {}", other.status));
    }
    Ok("bot sent one as bot-7. As alice: 403, and the vendor was not asked.".into())
}

async fn quota(stage: &Stage, crm: &Caller, audit: &Caller) -> Result<String, String> {
    let (crowd, few) = tokio::join!(ask(crm, 1, CROWD), async {
        // When the crowd waits already.
        tokio::time::sleep(Duration::from_millis(200)).await;
        ask(audit, 1000, FEW).await
    });
    let (crowd, few) = (crowd?, few?);
    let breaches = stage.vendor.world().breaches();
    if !breaches.is_empty() {
        return Err(format!("the vendor counted too many requests: {breaches:?}"));
    }
    if few >= crowd {
        return Err("audit had to wait for all of crm's requests".into());
    }
    Ok(format!(
        "crm asked {CROWD} different counts at once, audit {FEW} a moment later, against 100 a second. All were \
         answered: crm's after {:.1} s, audit's after {:.1} s. The vendor counted no breach in any window.",
        crowd.as_secs_f64(),
        few.as_secs_f64()
    ))
}

/// Asks so many different counts at once and says how long it took until all were answered.
async fn ask(caller: &Caller, from: usize, many: usize) -> Result<Duration, String> {
    let began = Instant::now();
    let asked = (from..from + many).map(|start| async move {
        let query = format!("destination=lobby&start_time={start}&end_time=4000000000");
        caller.get(&format!("/dev/v2/project/{APP}/rtm/message/history/count?{query}")).await?.ok()
    });
    for answer in join_all(asked).await {
        answer?;
    }
    Ok(began.elapsed())
}

async fn guarded(stage: &Stage, stranger: &Caller) -> Result<String, String> {
    let answer = stranger.get(&format!("/dev/v2/project/{APP}/rtm/vendor/user_events")).await?;
    if answer.status != 401 {
        return Err(format!("a stranger was answered {}", answer.status));
    }
    let violations = stage.vendor.violations();
    if !violations.is_empty() {
        return Err(format!("the vendor saw what it should not: {violations:?}"));
    }
    Ok("A stranger got 401. The vendor saw its own credential in every request, and no caller's key in any.".into())
}
