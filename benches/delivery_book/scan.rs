//! A reader by cursor of each log, who belongs to no subscription: what is in it, and where it begins.

use std::sync::Arc;
use std::time::Duration;

use rtm_gateway::events::Cursor;
use rtm_gateway::store::Sequence;
use serde::Deserialize;

use super::caller::{Caller, Ended, Manner};
use super::stage::{CUT, LOGS, Live, Phase, Stage, key};
use delivery_model::{Deed, Entry, What};

#[derive(Deserialize)]
struct Scanned {
    events: Vec<Scan>,
    next: String,
}

#[derive(Deserialize)]
struct Scan {
    cursor: String,
    user_id: Option<String>,
    group_id: Option<String>,
}

/// Reads a log as it grows, whatever happens to the gateway.
pub async fn scan(stage: Arc<Stage>, log: usize) {
    let mut caller: Option<(Live, Caller)> = None;
    let mut after: Option<String> = None;
    let (app, stream) = LOGS[log];
    let nowhere = Cursor { epoch: 0, at: Sequence(0) };
    while stage.phase() != Phase::Over {
        let live = stage.live().await;
        if caller.as_ref().is_none_or(|(of, _)| *of != live) {
            caller = Some((live, Caller::new(live.callers, "scanner")));
        }
        let Some((_, line)) = caller.as_mut() else { continue };
        let path = |after: &str| format!("/v1/apps/{app}/events/{stream}?limit=1000&after={after}");
        // A cursor of nowhere is told the beginning.
        let going = stage.begin(live.life);
        let asked = line.get(&path(&nowhere.to_string()), Manner::Plain).await;
        if let Ended::Answered(answer) = asked
            && let Some(earliest) = answer.json()["earliest"].as_str()
            && let Ok(at) = earliest.parse::<Cursor>()
        {
            begins(&stage, log, live.life, (going.from, stage.now()), at.at.0 + 1);
            after.get_or_insert_with(|| earliest.to_owned());
        }
        let Some(cursor) = after.clone() else { continue };
        let asked_at = stage.now();
        match line.get(&path(&cursor), Manner::Plain).await {
            Ended::Answered(answer) if answer.status == 200 => {
                let Ok(scanned) = serde_json::from_slice::<Scanned>(&answer.body) else {
                    stage.breach(format!("a read by cursor was answered {}", String::from_utf8_lossy(&answer.body)));
                    continue;
                };
                let is_end = scanned.events.is_empty();
                {
                    let mut known = stage.logs[log].lock().unwrap();
                    for Scan { cursor, user_id, group_id } in scanned.events {
                        let at = cursor.parse::<Cursor>().map_or(0, |cursor| cursor.at.0);
                        let whose = if stream.as_str() == "user_events" { user_id } else { group_id };
                        known.add(at, key(&whose.unwrap_or_default()), cursor);
                    }
                    if is_end {
                        known.read_to_its_end(live.life, asked_at);
                    }
                }
                after = Some(scanned.next);
                if is_end {
                    drop(going);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            // Retention was faster: what it took before anybody saw it is known by its number.
            Ended::Answered(answer) if answer.status == 410 => {
                if let Some(earliest) = answer.json()["earliest"].as_str().map(str::to_owned)
                    && let (Ok(before), Ok(at)) = (cursor.parse::<Cursor>(), earliest.parse::<Cursor>())
                {
                    let mut known = stage.logs[log].lock().unwrap();
                    for missed in before.at.0 + 1..=at.at.0 {
                        known.add(missed, 0, Cursor { at: Sequence(missed), ..at }.to_string());
                    }
                    after = Some(earliest);
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A log that is not cut begins where it did: that is told once in a life.
fn begins(stage: &Stage, log: usize, life: usize, (from, to): (u64, u64), at: Entry) {
    {
        let mut known = stage.logs[log].lock().unwrap();
        known.earliest = at;
        let told_in = known.begin_told_in.replace(life);
        if LOGS[log].0 != CUT && told_in == Some(life) {
            return;
        }
    }
    for book in stage.books.lock().unwrap().iter().filter(|book| book.log == log) {
        book.did(life, Deed { from, to, sure: true, what: What::Earliest(at) });
    }
}
