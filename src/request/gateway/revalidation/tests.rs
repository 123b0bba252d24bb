use futures_util::FutureExt as _;
use hyper::HeaderMap;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::config::{self, Allow, Config};
use crate::http::headers::X_API_KEY;
use crate::kernel::clock::Clock;
use crate::kernel::conn::{Conn, Peer};
use crate::kernel::metrics::Metrics;
use crate::kernel::names::{Action, AppId, ClientName};
use crate::kernel::proof::{Basis, By, Evidence, Life, Proofs};
use crate::kernel::secret::SecretSource;
use crate::tls::ClientTrust;

const KEYS: u8 = 6;
const APPS: [&str; 2] = ["a1", "a2"];
const ACTIONS: [Action; 2] = [Action::Events, Action::History];

/// How a caller shows who it is: by a key, or as a user on a Unix socket; without either it is anonymous.
#[derive(Clone, Copy, Debug)]
enum Shows {
    Key(u8),
    Uid(u8),
    Nothing,
}

/// A configuration in small: what each client has.
#[derive(Clone, Debug)]
struct Client {
    keys: Vec<u8>,
    uids: Vec<u8>,
    allow: Vec<(usize, usize)>,
}

fn any_client() -> impl Strategy<Value = Client> {
    let some = || prop::collection::vec(0..KEYS, 0..3);
    let allow = prop::collection::vec((0..APPS.len(), 0..ACTIONS.len()), 0..4);
    (some(), some(), allow).prop_map(|(keys, uids, allow)| Client { keys, uids, allow })
}

fn any_config() -> impl Strategy<Value = Config> {
    let clients = prop::collection::vec(any_client(), 0..4);
    (clients, prop::option::of(0..4usize), prop::collection::vec(any::<bool>(), APPS.len())).prop_map(config)
}

fn config((clients, anonymous, apps): (Vec<Client>, Option<usize>, Vec<bool>)) -> Config {
    let name = |n: usize| ClientName::parse(&format!("c{n}")).unwrap();
    let (mut keys, mut uids) = (Vec::new(), Vec::new());
    // What proves one client proves no other: the configuration's checks see to it.
    let once = |taken: &mut Vec<u8>, mine: Vec<u8>| {
        let mine: Vec<_> = mine.into_iter().filter(|it| !taken.contains(it)).collect();
        taken.extend(&mine);
        mine
    };
    let clients: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(n, client)| {
            let allow = client.allow.into_iter().map(|(app, action)| Allow {
                app: AppId::parse(APPS[app]).ok(),
                actions: vec![ACTIONS[action]],
                users: None,
            });
            config::Client {
                api_key_sha256: once(&mut keys, client.keys)
                    .into_iter()
                    .map(|key| Sha256::digest([key + b'a']).into())
                    .collect(),
                unix_uid: once(&mut uids, client.uids).into_iter().map(u32::from).collect(),
                ..config::Client::named(name(n), allow.collect())
            }
        })
        .collect();
    let app = |id: &str| config::App {
        id: AppId::parse(id).unwrap(),
        regions: Vec::new(),
        credential: config::Credential::Token { app_certificate: SecretSource::Env("X".into()), uid: "u".into() },
        quota: config::Quota::default(),
        events: config::Events::default(),
        history: config::History::default(),
        webhooks: Vec::new(),
    };
    let apps = APPS.iter().zip(apps).filter(|(_, there)| *there).map(|(id, _)| app(id)).collect();
    let mut config = Config { clients, apps, ..Config::default() };
    config.server.anonymous_client = anonymous.filter(|n| *n < config.clients.len()).map(name);
    config
}

fn live(config: &Config) -> Live {
    Live::new(config, ClientTrust::nobody(), None, &Metrics::new())
}

/// Whom a request that shows this is of, and what showed it, if it is let in for this.
fn let_in(live: &Live, shows: Shows, app: &AppId, action: Action) -> Option<(ClientName, Evidence, Life)> {
    let (mut headers, mut uid) = (HeaderMap::new(), None);
    match shows {
        Shows::Key(key) => drop(headers.insert(&X_API_KEY, char::from(key + b'a').to_string().parse().unwrap())),
        Shows::Uid(n) => uid = Some(u32::from(n)),
        Shows::Nothing => {}
    }
    let conn = Conn::new(Peer::Unix { uid }, None);
    let client = live.identity.identify(&conn, &headers, UnixMillis(0)).now_or_never().unwrap().ok()?;
    let (name, evidence, life) = (client.name().clone(), client.evidence().clone(), client.life());
    live.policy.grant(client).app(app, action).ok().map(|_| (name, evidence, life))
}

fn any_shown() -> impl Strategy<Value = Shows> {
    prop_oneof![4 => (0..KEYS).prop_map(Shows::Key), 2 => (0..KEYS).prop_map(Shows::Uid), 1 => Just(Shows::Nothing)]
}

properties! {
    /// Whatever is reloaded in whatever order, a proof stands exactly as long as each configuration since would have
    /// let the same request in as the same client.
    #[test]
    fn through_random_reloads_a_proof_stands_as_long_as_a_request_like_it_would_be_let_in(
        configs in prop::collection::vec(any_config(), 1..8),
        asks in prop::collection::vec((any_shown(), 0..APPS.len(), 0..ACTIONS.len()), 1..12),
    ) {
        let proofs = Proofs::new(Clock::system());
        let found = RoundCounts::default();
        let mut open: Vec<(Shows, Proof, bool)> = Vec::new();
        for config in configs {
            let live = live(&config);
            proofs.changed();
            let generation = proofs.generation();
            let now = UnixMillis(0);
            for proof in proofs.all().iter().filter(|proof| proof.is_due(generation, now)) {
                found.judge(&live, proof, Moment { generation, now });
            }
            for (shows, proof, should_stand) in &mut open {
                let basis = proof.basis();
                let would_be = let_in(&live, *shows, &basis.app, basis.action);
                *should_stand &= would_be.is_some_and(|(client, evidence, _)| {
                    client == basis.client && evidence == basis.evidence
                });
                prop_assert_eq!(proof.stands().now_or_never().map(|it| it.is_ok()), Some(*should_stand), "{:?}", basis);
            }
            for (shows, app, action) in &asks {
                let (app, action) = (AppId::parse(APPS[*app]).unwrap(), ACTIONS[*action]);
                if let Some((client, evidence, life)) = let_in(&live, *shows, &app, action) {
                    // A user whom no client has counts as nobody, also when one has it later: nothing was shown.
                    let shows = if evidence.by == By::Nothing { Shows::Nothing } else { *shows };
                    let proof = proofs.enter(Basis { client, evidence, app, action, user: None }, generation, life);
                    open.push((shows, proof, true));
                }
            }
        }
    }
}

#[test]
fn ten_thousand_proofs_are_judged_well_within_five_seconds_and_equal_ones_once() {
    const MANY: usize = 10_000;
    let digest = |n: usize| -> [u8; 32] { Sha256::digest(n.to_be_bytes()).into() };
    let (client, app) = (ClientName::parse("c").unwrap(), AppId::parse("a1").unwrap());
    let allow = Allow { app: Some(app.clone()), actions: vec![Action::Events], users: None };
    let mut one = config::Client::named(client.clone(), vec![allow]);
    one.api_key_sha256 = (0..MANY).map(digest).collect();
    let mut config = config((Vec::new(), None, vec![true]));
    config.clients.push(one);
    let proofs = Proofs::new(Clock::system());
    let basis = |n| Basis {
        client: client.clone(),
        evidence: Evidence { by: By::Key(digest(n)), certificate: None },
        app: app.clone(),
        action: Action::Events,
        user: None,
    };
    let open: Vec<_> = (0..MANY).map(|n| proofs.enter(basis(n), 0, Life::ENDLESS)).collect();
    let shared: Vec<_> = (0..MANY).map(|_| proofs.enter(basis(0), 0, Life::ENDLESS)).collect();
    assert_eq!(proofs.all().len(), MANY);
    config.clients[0].api_key_sha256.retain(|key| key[0] < 128);
    let live = live(&config);
    proofs.changed();
    let (clock, generation) = (Clock::system(), proofs.generation());
    let began = clock.wall();
    let found = RoundCounts::default();
    for proof in proofs.all() {
        assert!(live.identity.is_quick(&proof.basis().evidence, UnixMillis(0)));
        found.judge(&live, &proof, Moment { generation, now: UnixMillis(0) });
    }
    let took = clock.wall().duration_since(began).unwrap_or_default();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let gone = open.iter().filter(|proof| proof.is_withdrawn()).count();
    assert_eq!(gone, (0..MANY).filter(|n| digest(*n)[0] >= 128).count());
    assert_eq!(found.withdrawn.load(Ordering::Relaxed), gone);
    assert!(shared.iter().all(|proof| proof.is(&open[0])));
}
