//! Reads that bring at most so many bytes, and what of the log they hold.

use super::*;
use crate::store::Batch;

const BATCHES: u64 = 50;
const EACH: u64 = 100;
const SIZE: usize = 1000;

fn event(n: u64) -> String {
    let head = format!(r#"{{"type":"Login","user_id":"u{n}","n":{n},"pad":""#);
    format!("{head}{}\"}}", "x".repeat(SIZE - head.len() - 2))
}

fn events_of(delivery: &Delivery) -> Vec<String> {
    let of_run = |run: &Run| {
        let Content::Events(events) = &run.batch.content else { panic!("no events") };
        run.entries.clone().map(|n| String::from_utf8(events.slice(n..n + 1).to_vec()).unwrap()).collect::<Vec<_>>()
    };
    delivery.runs.iter().flat_map(of_run).collect()
}

/// A log of which the first half is not in memory.
async fn rig() -> Rig {
    let rig = Rig::quiet().await;
    for batch in 0..BATCHES {
        let events: Vec<_> = (batch * EACH..(batch + 1) * EACH).map(event).collect();
        let text = EventText::join(events.iter().map(String::as_bytes)).unwrap();
        rig.append_content(Content::Events(text)).await;
    }
    assert!(!rig.log().is_in_memory(Sequence(1)));
    rig
}

fn ways(max_bytes: usize) -> Vec<ReadRequest> {
    let only_some = Arc::new(Filter::new(&[], &["u*".to_owned()], &[]));
    let plain = ReadRequest { max_bytes, ..by("a", 1000) };
    let leased = Ack::Explicit { lease: Duration::from_secs(3600), max_attempts: 2 };
    vec![
        plain.clone(),
        ReadRequest { filter: only_some.clone(), ..plain.clone() },
        ReadRequest { ack: leased, ..plain.clone() },
        ReadRequest { ack: leased, filter: only_some, ..plain },
    ]
}

#[tokio::test(start_paused = true)]
async fn a_read_brings_no_more_bytes_than_it_asks_for_and_one_event_at_least() {
    for (max_bytes, brings) in [(usize::MAX, 1000), (100 * SIZE, 99), (2 * SIZE + 1, 2), (1, 1_usize)] {
        for (n, read) in ways(max_bytes).into_iter().enumerate() {
            let rig = rig().await;
            let all: Vec<_> = (0..BATCHES * EACH).map(event).collect();
            let mut after = 0;
            while after < all.len() {
                let delivery = rig.read(read.clone()).await.unwrap();
                let texts = events_of(&delivery);
                assert_eq!(texts, all[after..after + texts.len()], "way {n}");
                let is_all = after + texts.len() == all.len();
                // A filter leaves out commas; of what is taken one by one it is said before about how many that are.
                let most = if n == 1 { brings + 1 } else { brings };
                let least = if read.ack == Ack::OnHandover { brings } else { brings.div_ceil(2) };
                let is_right = (least..=most).contains(&texts.len());
                assert!(is_right || is_all, "{} of way {n}", texts.len());
                assert!(texts.len() == 1 || texts.iter().map(String::len).sum::<usize>() <= max_bytes, "way {n}");
                let attempts = delivery.leased.as_ref().map(|leased| leased.attempts.clone());
                assert!(attempts.is_none_or(|attempts| attempts == vec![1; texts.len()]), "way {n}");
                after += texts.len();
                delivery.receipt.handed_over();
                // A part of it is enough for the small ones.
                if after >= 250 && max_bytes < SIZE * EACH as usize {
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_from_the_store_holds_little_more_than_it_gives() {
    for (n, read) in ways(8 * SIZE).into_iter().enumerate() {
        let rig = rig().await;
        for _ in 0..60 {
            let delivery = rig.read(read.clone()).await.unwrap();
            let held: usize = delivery.runs.iter().map(|run| weight(&run.batch)).sum();
            assert!(held <= 16 * SIZE, "{held} bytes for {} of way {n}", events_of(&delivery).len());
            delivery.receipt.handed_over();
        }
    }
}

fn weight(batch: &Batch) -> usize {
    if let Content::Events(events) = &batch.content { events.text().len() } else { 0 }
}
