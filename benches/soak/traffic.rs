//! Other traffic: history, counts and messages.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::simulator::{Endpoint, ViolationKind};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::caller::{Caller, Ended};
use super::readers::judge;
use super::stage::{Live, Stage};
use super::vendor::{MESSAGES, ONE};

/// How long a count takes at least that the gateway asks for anew because no answer came in time: `request_timeout`, and
/// the vendor's pause after `in progress`.
const ASKED_ANEW: Duration = Duration::from_secs(4);

pub fn start(stage: &Arc<Stage>, seed: u64, tasks: &mut JoinSet<()>) {
    for n in 0..6 {
        tasks.spawn(call(stage.clone(), n, StdRng::seed_from_u64(seed ^ (n << 32))));
    }
}

async fn call(stage: Arc<Stage>, caller: u64, mut random: StdRng) {
    let mut line: Option<(Live, Caller)> = None;
    let mut number = 0;
    while !stage.is_finishing() {
        tokio::time::sleep(Duration::from_millis(random.random_range(5..120))).await;
        if stage.vendor.is_at_rest() {
            continue;
        }
        let live = stage.live().await;
        if line.as_ref().is_none_or(|(of, _)| *of != live) {
            line = Some((live, Caller::new(live.callers, "reader")));
        }
        let Some((_, line)) = line.as_mut() else { continue };
        number += 1;
        // Each question is another: after a kill nobody knows what the vendor had been asked.
        let end = 4_000_000_000_u64 + caller * 10_000_000 + number;
        let began = Instant::now();
        let (what, ended) = match random.random_range(0..10) {
            0..2 => {
                let filter = format!(r#"{{"source":"ann","destination":"bob","start_time":1,"end_time":{end}}}"#);
                let body = format!(r#"{{"filter":{filter},"limit":1000}}"#);
                ("history", line.post(&api("message/history/query"), &body).await)
            }
            2..4 => {
                let query = format!("source=ann&destination=bob&start_time=1&end_time={end}");
                ("count", line.get(&api(&format!("message/history/count?{query}")), super::caller::Manner::Plain).await)
            }
            _ => {
                let body = r#"{"destination":"carl","payload":"hello"}"#;
                ("messages", line.post(&api("users/bot/peer_messages"), body).await)
            }
        };
        if what == "count" && began.elapsed() >= ASKED_ANEW {
            stage.slow_counts.lock().unwrap().insert(end);
        }
        match ended {
            Ended::Answered(answer) => {
                stage.status(what, answer.status);
                judge(&stage, what, &answer);
                let body = answer.json();
                let found = match what {
                    "history" if answer.status == 200 => body["messages"].as_array().map(Vec::len),
                    "count" if answer.status == 200 => body["count"].as_u64().and_then(|n| usize::try_from(n).ok()),
                    _ => Some(MESSAGES),
                };
                if found != Some(MESSAGES) {
                    stage.breach(format!("{what} says {found:?} messages of {MESSAGES}: {body}"));
                }
            }
            Ended::Hung => stage.breach(format!("a call of {what} was not answered")),
            Ended::Unasked | Ended::Nothing | Ended::Broken | Ended::Left => stage.status(what, "cut"),
        }
    }
}

/// Whether a count that was asked for again too soon, as the vendor sees it, may have been one whose `in progress` came
/// when the gateway no longer waited for it: the vendor stood still, or the machine did. Then the call took its time.
pub fn may_have_been_given_up(stage: &Stage, kind: &ViolationKind) -> bool {
    let ViolationKind::TooSoon { endpoint: Endpoint::HistoryCount, of, .. } = kind else { return false };
    let end = of.split('&').find_map(|pair| pair.strip_prefix("end_time=")?.parse().ok());
    end.is_some_and(|end| stage.slow_counts.lock().unwrap().contains(&end))
}

fn api(path: &str) -> String {
    format!("/dev/v2/project/{ONE}/rtm/{path}")
}
