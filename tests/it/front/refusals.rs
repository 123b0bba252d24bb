//! A vendor on HTTP/2 that, at random, goes away from its connections and refuses requests while many callers ask: what it
//! says that it did not process costs nobody anything, and what it did process happened once.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::{BucketName, Stream};
use rtm_gateway::simulator::{Endpoint, Fault, Limit, Limits, Listen, Options, Profile, SeenRequest, Sim, World};
use tokio::task::JoinSet;

use super::stage::{APP, Answer, RTM, Stage, request};
use crate::support;

/// Of one seed. More find more: what the vendor says meets other moments each time.
const ROUNDS: usize = 20;

/// An order is sent again so often because the vendor did not process it.
const AGAIN: usize = 2;

/// What shares connections: a GOAWAY to one turns away others of the same line.
const LANES: [&[Endpoint]; 3] = [
    &[Endpoint::PeerMessages, Endpoint::ChannelMessages],
    &[Endpoint::HistoryCreate, Endpoint::HistoryGet, Endpoint::HistoryCount],
    &[Endpoint::UserEvents, Endpoint::ChannelEvents],
];

/// What a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Peer,
    Channel,
    Count,
    Query,
}

impl Ask {
    const ALL: [Self; 4] = [Self::Peer, Self::Channel, Self::Count, Self::Query];

    /// What is to be counted once for it.
    fn endpoint(self) -> Endpoint {
        match self {
            Self::Peer => Endpoint::PeerMessages,
            Self::Channel => Endpoint::ChannelMessages,
            Self::Count => Endpoint::HistoryCount,
            Self::Query => Endpoint::HistoryCreate,
        }
    }

    /// The request; the vendor will see its number.
    fn request(self, number: u32) -> String {
        let post = |target: &str, body: &str| {
            let headers = "Content-Type: application/json\r\nPrefer: wait=9\r\n";
            request("POST", &format!("{RTM}/{target}"), "all", headers, body)
        };
        match self {
            Self::Peer => post("users/a/peer_messages", &format!(r#"{{"destination":"b","payload":"{number}"}}"#)),
            Self::Channel => {
                post("users/a/channel_messages", &format!(r#"{{"channel_name":"c","payload":"{number}"}}"#))
            }
            Self::Count => {
                let target =
                    format!("{RTM}/message/history/count?destination=c&start_time={number}&end_time=4102444800");
                request("GET", &target, "all", "Prefer: wait=9\r\n", "")
            }
            Self::Query => {
                let filter = format!(r#"{{"destination":"c","start_time":{number},"end_time":4102444800}}"#);
                post("message/history/query", &format!(r#"{{"filter":{filter},"limit":20}}"#))
            }
        }
    }
}

/// The number in a request that the vendor saw.
fn number_of(seen: &SeenRequest) -> Option<u32> {
    let (text, member) = match seen.endpoint? {
        Endpoint::PeerMessages | Endpoint::ChannelMessages => (std::str::from_utf8(&seen.body).unwrap(), "payload"),
        Endpoint::HistoryCreate => (std::str::from_utf8(&seen.body).unwrap(), "start_time"),
        Endpoint::HistoryCount => (seen.target.as_str(), "start_time"),
        Endpoint::HistoryGet | Endpoint::UserEvents | Endpoint::ChannelEvents => return None,
    };
    let after = text.split(member).nth(1).unwrap().trim_start_matches(|c: char| !c.is_ascii_digit());
    Some(after.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
}

/// What a caller was told.
type Told = (Ask, u32, u16, String);

/// Compares what callers were told with what the vendor counted; gives what does not agree.
fn broken(told: &[Told], seen: &[SeenRequest]) -> Vec<String> {
    let mut counted: HashMap<(Endpoint, u32), u32> = HashMap::new();
    for one in seen.iter().filter(|one| one.counted.is_some()) {
        if let (Some(endpoint), Some(number)) = (one.endpoint, number_of(one)) {
            *counted.entry((endpoint, number)).or_default() += 1;
        }
    }
    let judge = |(ask, number, status, text): &Told| {
        let counted = counted.get(&(ask.endpoint(), *number)).copied().unwrap_or_default();
        let wrong = match (*status, counted) {
            (200, 1) => return None,
            (200, 0) => "told as sent, but not counted",
            (_, 0) => "failed, although the vendor only did not process it",
            (_, 1) => "counted, but told as failed",
            _ => "doubled",
        };
        Some(format!("{ask:?} {number}: {wrong}: {status}, counted {counted} times; {text}"))
    };
    told.iter().filter_map(judge).collect()
}

/// A gateway before such a vendor.
struct Drive {
    stage: Stage,
    random: StdRng,
    asked: u32,
    told: Vec<Told>,
    events: [Vec<serde_json::Value>; 2],
    /// Connections the vendor went away from in the round before, of each lane: it may yet turn away one of this round.
    gone: [usize; LANES.len()],
}

impl Drive {
    async fn start(seed: u64) -> Self {
        let (tls, ca) = crate::support::server_tls::certified(&["h2"]);
        let world = World::new(Clock::system(), Options { seen: 1 << 20, ..Options::default() });
        let messages = Limit::Own { requests: 40, per: Duration::from_millis(200) };
        let events = Limit::per_second(1000);
        let limits = Limits::default()
            .with(BucketName::Messages, messages)
            .with(BucketName::UserEvents, events)
            .with(BucketName::ChannelEvents, events);
        world.add(support::stage::vendor_app().limits(limits));
        let sim = Sim::listen(&world, "default", Listen { addr: None, tls: Some(tls) }).await.unwrap();
        let stage = support::stage::Stage::before(sim);
        stage.write("ca.pem", ca);
        let upstream = format!(
            "[upstream]\nca_file = \"{}\"\n[upstream.retry]\npercent = 100\nmin_per_second = 1000",
            stage.path("ca.pem").display()
        );
        let quota = r#"messages = { requests = 40, per = "200ms" }"#;
        Self {
            stage: Stage::on(stage, (&upstream, quota, "")).await,
            random: StdRng::seed_from_u64(seed),
            asked: 0,
            told: Vec::new(),
            events: [Vec::new(), Vec::new()],
            gone: [0; LANES.len()],
        }
    }

    /// Many ask at the same time, and the vendor turns some away: none more often than it is sent again.
    async fn round(&mut self) {
        self.plant();
        let mut callers = JoinSet::new();
        for _ in 0..self.random.random_range(1..40) {
            self.asked += 1;
            let (ask, number) = (Ask::ALL[self.random.random_range(0..Ask::ALL.len())], self.asked);
            callers.spawn(asking(self.stage.addr, ask, number));
        }
        for (stream, events) in Stream::ALL.into_iter().zip(&mut self.events) {
            let emitted = self.stage.sim.emit_many(APP, stream, self.random.random_range(0..20));
            events.extend(emitted.iter().map(|event| serde_json::from_str::<serde_json::Value>(event).unwrap()));
        }
        self.told.extend(callers.join_all().await);
    }

    fn plant(&mut self) {
        let (sim, random) = (&self.stage.sim, &mut self.random);
        sim.clear_faults().max_streams([1, 3, 10, 1000][random.random_range(0..4)]).random(
            Profile::seeded(random.random())
                .with(0.3, Fault::JitterBefore(Duration::from_millis(10)))
                .with(0.5, Fault::JitterAfter(Duration::from_millis(30))),
        );
        for (lane, gone) in LANES.into_iter().zip(&mut self.gone) {
            let faults = random.random_range(0..=AGAIN - *gone);
            *gone = 0;
            for _ in 0..faults {
                let endpoint = lane[random.random_range(0..lane.len())];
                // Some come before it.
                for _ in 0..random.random_range(0..6) {
                    sim.on(endpoint, Fault::Chunked);
                }
                let goes = random.random_bool(0.6);
                *gone += usize::from(goes);
                sim.on(endpoint, if goes { Fault::GoAway } else { Fault::RefuseStream });
            }
        }
    }

    /// Reads so many events, and what stands between and behind them.
    async fn read(&self, stream: Stream, count: usize) -> Vec<serde_json::Value> {
        let mut events = Vec::new();
        loop {
            let wait = if events.len() < count { 9 } else { 0 };
            let target = format!("/v1/apps/{APP}/events/{}?wait={wait}s&limit=1000", stream.as_str());
            let answer = self.stage.get(&target).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let read = answer.json();
            let read = read["events"].as_array().unwrap();
            if read.is_empty() && events.len() >= count {
                return events;
            }
            events.extend(read.iter().map(|one| one["event"].clone()));
        }
    }
}

/// A caller with a connection of its own.
async fn asking(gateway: std::net::SocketAddr, ask: Ask, number: u32) -> Told {
    use tokio::io::AsyncWriteExt as _;
    let mut tcp = tokio::net::TcpStream::connect(gateway).await.unwrap();
    tcp.write_all(ask.request(number).as_bytes()).await.unwrap();
    let answer = Answer::read(&mut tcp).await;
    (ask, number, answer.status, answer.text().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_vendor_did_not_process_costs_nobody_anything_and_what_it_did_happens_once() {
    let mut drive = Drive::start(1).await;
    for _ in 0..ROUNDS {
        drive.round().await;
    }
    let sim = &drive.stage.sim;
    sim.clear_faults();
    assert_eq!(broken(&drive.told, &sim.seen()), [""; 0]);
    for (stream, events) in Stream::ALL.into_iter().zip(&drive.events) {
        assert_eq!(drive.read(stream, events.len()).await, *events);
    }
    assert_eq!(sim.violations(), []);
    let met = sim.faults_met();
    assert!(met["go_away"] > 0 && met["refuse_stream"] > 0, "{met:?}");
    drive.stage.stopped().await;
}

/// What a gateway would show that takes a processed request for one that was not, or the other way round.
#[tokio::test]
async fn a_message_that_is_doubled_lost_or_given_up_is_found() {
    let drive = Drive::start(1).await;
    let (sim, gateway) = (&drive.stage.sim, drive.stage.addr);
    let mut told = vec![asking(gateway, Ask::Peer, 1).await];
    assert_eq!(broken(&told, &sim.seen()), [""; 0]);

    asking(gateway, Ask::Peer, 1).await;
    sim.on(Endpoint::ChannelMessages, Fault::DropAfter);
    told.push(asking(gateway, Ask::Channel, 2).await);
    for _ in 0..=AGAIN {
        sim.on(Endpoint::HistoryCount, Fault::RefuseStream);
    }
    told.push(asking(gateway, Ask::Count, 3).await);
    told.push((Ask::Query, 4, 200, String::new()));
    let found = broken(&told, &sim.seen());
    assert_eq!(found.len(), 4, "{found:?}");
    for (found, what) in found.iter().zip([
        "Peer 1: doubled: 200",
        "Channel 2: counted, but told as failed: 502",
        "Count 3: failed, although the vendor only did not process it: 503",
        "Query 4: told as sent, but not counted: 200",
    ]) {
        assert!(found.starts_with(what), "{found}");
    }
    drive.stage.stopped().await;
}
