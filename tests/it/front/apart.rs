//! What hangs on the runtime's blocking threads holds up nothing of the disk's.

use std::sync::{Arc, Mutex, mpsc};

use rtm_gateway::kernel::names::Stream;
use rtm_gateway::kernel::task::detached;

use super::stage::{APP, DEADLINE, RTM, Stage};

#[test]
fn while_all_blocking_threads_of_the_runtime_hang_events_are_stored_and_delivered_and_a_stop_ends() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(2).enable_all().build().unwrap();
    let (_hold, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    runtime.block_on(async {
        for _ in 0..10 {
            let held = held.clone();
            detached(move || {
                let _ = held.lock().unwrap().recv();
            });
        }
        let hung_all_along = async {
            let stage = Stage::start().await;
            for round in 0..3 {
                stage.sim.emit_many(APP, Stream::UserEvents, 5);
                let mut got = 0;
                while got < 5 {
                    let answer = stage.get(&format!("{RTM}/vendor/user_events?wait=10s")).await;
                    assert_eq!(answer.status, 200, "{round}");
                    got += answer.json()["events"].as_array().unwrap().len();
                }
            }
            stage.stopped().await;
        };
        tokio::time::timeout(DEADLINE, hung_all_along).await.expect("nothing waits for what hangs");
    });
    runtime.shutdown_background();
}
