//! A stop while requests are under way whose callers have left, on a network that is late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::metrics::Metrics;
use rtm_gateway::kernel::names::BucketName;
use rtm_gateway::kernel::task::Tasks;
use rtm_gateway::simulator::{Endpoint, Sim};
use rtm_gateway::store::Store;
use rtm_gateway::store::embedded::EmbeddedStore;
use rtm_gateway::upstream::egress::{Egress, PreviousRun};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::rig::{Rig, message, vendor};
use crate::support::waiting::{eventually, pause};

/// Later than a window is long.
const LATE: Duration = Duration::from_millis(1500);

/// A network in front of a vendor: what goes there arrives late, and arrives although whoever sent it is gone.
async fn late_network(tasks: &Tasks, sim: &Sim) -> (String, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let sees = seen.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap();
    let far = sim.base_url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let spawner = tasks.clone();
    tasks.spawn(rtm_gateway::kernel::task::Kind::Simulator, async move {
        while let Ok((client, _)) = listener.accept().await {
            let (far, sees) = (far.clone(), sees.clone());
            spawner.spawn(rtm_gateway::kernel::task::Kind::Simulator, async move {
                let server = TcpStream::connect(far).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let there = async move {
                    let mut piece = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = from_client.read(&mut piece).await {
                        if piece.starts_with(b"POST ") {
                            sees.fetch_add(1, Ordering::SeqCst);
                        }
                        pause(LATE).await;
                        if to_server.write_all(&piece[..read]).await.is_err() {
                            break;
                        }
                    }
                    // Its end arrives, too, but nothing that was sent is lost by it.
                    pause(LATE).await;
                };
                let back = async move { drop(tokio::io::copy(&mut from_server, &mut to_client).await) };
                tokio::join!(there, back);
            });
        }
    });
    (format!("http://{near}"), seen)
}

/// Sends so many messages, whose callers leave as soon as they are under way.
async fn send_and_leave(egress: &Egress, seen: &AtomicUsize, count: usize) {
    for number in 1..=count {
        let sent = egress.send(message());
        tokio::select! {
            early = sent => panic!("{early:?}"),
            () = eventually(|| seen.load(Ordering::SeqCst) >= number) => {}
        }
    }
}

struct Runs {
    folder: tempfile::TempDir,
    clock: Clock,
}

impl Runs {
    /// Runs an egress that the store before it is told of, stops it with this grace, and notes the stop.
    async fn run<R>(&self, rig: &Rig, grace: Duration, during: impl AsyncFnOnce(Egress) -> R) -> R {
        let (tasks, of_store) = (Tasks::new(), Tasks::new());
        let (at, clock) = (self.folder.path(), self.clock.clone());
        let store = EmbeddedStore::open(at, of_store.clone(), clock.clone(), Metrics::new()).await.unwrap();
        let before = PreviousRun::of(&*store, &clock).await.unwrap();
        let egress = Egress::new(&rig.config, before, clock.clone(), Metrics::new(), &tasks).unwrap();
        let result = during(egress.clone()).await;
        tasks.finish(grace).await;
        egress.note_stop(&*store).await.unwrap();
        store.close(clock.wall_ms()).await.unwrap();
        of_store.finish(Duration::from_secs(5)).await;
        result
    }
}

/// A rig whose vendor is behind the late network, and an earlier run that ended longer ago than a window.
async fn stage(sim: &Sim, network: &Tasks) -> (Rig, Runs, Arc<AtomicUsize>) {
    let (base_url, seen) = late_network(network, sim).await;
    let rig = Rig::new(&base_url);
    let runs = Runs { folder: tempfile::tempdir().unwrap(), clock: Clock::anchored(SystemTime::UNIX_EPOCH) };
    runs.run(&rig, Duration::ZERO, async |_| {}).await;
    pause(Duration::from_millis(1100)).await;
    (rig, runs, seen)
}

#[tokio::test]
async fn a_stop_waits_for_requests_under_way_whose_callers_have_left() {
    let (sim, network) = (vendor().await, Tasks::new());
    let (rig, runs, seen) = stage(&sim, &network).await;
    runs.run(&rig, Duration::from_secs(20), async |egress| send_and_leave(&egress, &seen, 5).await).await;
    assert_eq!(sim.stats().of(Endpoint::PeerMessages).ok, 5);
    network.finish(Duration::ZERO).await;
    sim.stop().await;
}

/// The grace is over at once, the wall clock jumps, and the next run, which does not know these requests, sends what it may.
#[tokio::test]
async fn what_a_stop_cuts_off_is_counted_by_the_next_run_whatever_the_network_holds() {
    let (sim, network) = (vendor().await, Tasks::new());
    let (rig, runs, seen) = stage(&sim, &network).await;
    runs.run(&rig, Duration::ZERO, async |egress| send_and_leave(&egress, &seen, 12).await).await;
    assert_eq!(sim.stats().of(Endpoint::PeerMessages).counted, 0, "all of it is on its way");
    runs.clock.jump(3_600_000);
    // Longer than a window: an end in order alone would open the buckets.
    pause(Duration::from_millis(1100)).await;
    let began = Instant::now();
    runs.run(&rig, Duration::from_secs(20), async |egress| {
        let look = |name| egress.bucket(&rig.config.apps[0].id, name).unwrap();
        assert_eq!(look(BucketName::Messages).free, 0);
        assert!(look(BucketName::Messages).next > rig.config.upstream.request_timeout, "until they are over");
        // What was not under way has nothing to wait for.
        assert_eq!(look(BucketName::UserEvents).free, 20);
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(5), "who sends nothing stops at once");
    network.finish(Duration::ZERO).await;
    sim.stop().await;
}
