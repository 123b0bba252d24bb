use std::time::SystemTime;

use tokio::time::advance;

use super::*;
use crate::kernel::files;
use crate::kernel::files::tests::Hung;
use crate::kernel::secret::{Secret, SecretSource};
use crate::kernel::testing::pass;

const HOUR: Duration = Duration::from_secs(3600);

struct Rig {
    folder: tempfile::TempDir,
    credential: Arc<Credential>,
    clock: Clock,
}

impl Rig {
    fn basic() -> Self {
        Self::new(|folder| config::Credential::Basic {
            api_key: SecretSource::File(folder.join("key")),
            api_secret: SecretSource::File(folder.join("secret")),
        })
    }

    fn token() -> Self {
        Self::new(|folder| config::Credential::Token {
            app_certificate: SecretSource::File(folder.join("secret")),
            uid: "gateway".into(),
        })
    }

    fn new(source: impl FnOnce(&std::path::Path) -> config::Credential) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "k").unwrap();
        std::fs::write(folder.path().join("secret"), "s1\n").unwrap();
        let clock = Clock::anchored(SystemTime::UNIX_EPOCH + HOUR * 24 * 365);
        let source = source(folder.path());
        let credential = Credential::new(&app(), &source, Vendor::Agora, &clock).unwrap();
        read([&credential]);
        Self { folder, credential, clock }
    }

    fn write(&self, secret: &str) {
        std::fs::write(self.folder.path().join("secret"), secret).unwrap();
    }

    async fn enter(&self) -> Result<Pass, PassError> {
        self.credential.clear(self.clock.now() + Duration::from_millis(1)).await?;
        self.credential.pass().map(Option::unwrap)
    }

    async fn shown(&self) -> Vec<(String, String)> {
        let pass = self.enter().await.unwrap();
        pass.shown.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
    }

    /// What the clock's looks do within a second.
    async fn look(&self) {
        advance(LOOK_EVERY).await;
        if look_at(std::slice::from_ref(&self.credential), 1) {
            advance(LOOK_AGAIN).await;
            look_at(std::slice::from_ref(&self.credential), 1);
        }
    }

    /// The vendor's 401, and the reading that follows it: the paused clock does not move before it has ended.
    async fn refuse(&self, pass: Pass) {
        pass.refused();
        crate::kernel::testing::pass(Duration::from_millis(1)).await;
    }

    fn state(&self) -> &'static str {
        self.credential.state(&app()).state
    }
}

fn app() -> AppId {
    AppId::parse("0123456789abcdef0123456789abcdef").unwrap()
}

fn basic(text: &str) -> Vec<(String, String)> {
    vec![("authorization".into(), format!("Basic {text}"))]
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_in_use_a_second_later() {
    let rig = Rig::basic();
    assert_eq!(rig.shown().await, basic("azpzMQ=="));
    rig.write("s2");
    assert_eq!(rig.shown().await, basic("azpzMQ=="));
    advance(LOOK_EVERY).await;
    assert!(look_at(std::slice::from_ref(&rig.credential), 1), "it may still be written");
    assert_eq!(rig.shown().await, basic("azpzMQ=="));
    advance(LOOK_AGAIN).await;
    assert!(!look_at(std::slice::from_ref(&rig.credential), 1));
    assert_eq!(rig.shown().await, basic("azpzMg=="));
    assert!(LOOK_EVERY + LOOK_AGAIN < Duration::from_secs(1));
    rig.write("s3");
    read([&rig.credential]);
    assert_eq!(rig.shown().await, basic("azpzMw=="));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_secret_serves_for_its_grace_then_stops_and_mends_itself() {
    let rig = Rig::basic();
    // A file about to be written again is empty for a moment.
    rig.write("");
    rig.look().await;
    assert_eq!(rig.shown().await, basic("azpzMQ=="));
    assert_eq!(rig.state(), "grace");
    advance(GRACE).await;
    assert!(matches!(rig.enter().await, Err(PassError::Unavailable(SecretError::Unusable(_)))));
    assert_eq!(rig.state(), "unavailable");
    rig.write("s4");
    rig.look().await;
    assert_eq!(rig.shown().await, basic("azpzNA=="));
    assert_eq!(rig.state(), "good");
}

#[tokio::test(start_paused = true)]
async fn a_key_with_a_colon_is_never_sent() {
    let rig = Rig::basic();
    std::fs::write(rig.folder.path().join("key"), "a:b").unwrap();
    rig.look().await;
    assert_eq!(rig.shown().await, basic("azpzMQ=="));
    advance(GRACE).await;
    assert!(matches!(rig.enter().await, Err(PassError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_minted_once_and_again_at_half_its_life() {
    let rig = Rig::token();
    let first = rig.shown().await;
    assert_eq!(first[0].0, "x-agora-token");
    assert_eq!(first[1], ("x-agora-uid".into(), "gateway".into()));
    let parsed = token::parse(&first[0].1).unwrap();
    assert!(parsed.signed_by(&Secret::new("s1".into()), "gateway"));
    assert_eq!(u64::from(parsed.ts), rig.clock.wall_ms().seconds() + 24 * 3600);

    advance(HOUR * 11).await;
    assert_eq!(rig.shown().await, first);
    advance(HOUR).await;
    let second = rig.shown().await;
    let parsed = token::parse(&second[0].1).unwrap();
    assert_eq!(u64::from(parsed.ts), rig.clock.wall_ms().seconds() + 24 * 3600);
    assert_eq!(rig.credential.secrets.current().unwrap().content, 1);
}

#[tokio::test(start_paused = true)]
async fn no_jump_of_the_wall_clock_keeps_a_dead_token_or_mints_without_end() {
    let rig = Rig::token();
    let hour = i64::try_from(HOUR.as_millis()).unwrap();
    let mut shown = vec![rig.shown().await];
    // Of each jump, what follows it: how many tokens there are in the next minute, at a look a second.
    for jump in [hour, -hour, -hour, 25 * hour, -25 * hour] {
        rig.clock.jump(jump);
        for _ in 0..60 {
            advance(Duration::from_secs(1)).await;
            shown.push(rig.shown().await);
        }
    }
    shown.dedup();
    assert!(shown.len() <= 6, "{} tokens for 5 jumps", shown.len());
    // A clock that is set back an hour every hour shows a token for ever young. It is not used for ever.
    let mut minted = rig.clock.now();
    let mut last = rig.shown().await;
    for _ in 0..40 {
        advance(HOUR).await;
        rig.clock.jump(-hour + 1000);
        let now = rig.shown().await;
        if now != last {
            (minted, last) = (rig.clock.now(), now);
        }
        assert!(rig.clock.now() - minted <= HOUR * 13, "older than half its life");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_401_a_token_is_minted_anew_but_once() {
    let rig = Rig::token();
    let (a, b) = (rig.enter().await.unwrap(), rig.enter().await.unwrap());
    let first = rig.shown().await;
    rig.refuse(a).await;
    let second = rig.shown().await;
    assert_ne!(first[0], second[0]);
    rig.refuse(b).await;
    assert_eq!(rig.shown().await, second);
}

#[test]
fn a_uid_that_cannot_stand_in_a_header_is_refused() {
    let source =
        config::Credential::Token { app_certificate: SecretSource::Env("NO_SUCH_VARIABLE".into()), uid: "a\nb".into() };
    assert!(Credential::new(&app(), &source, Vendor::AnyRtc, &Clock::system()).is_err());
}

#[tokio::test(start_paused = true)]
async fn after_one_401_one_order_tries_and_the_others_wait_for_its_verdict() {
    let rig = Rig::basic();
    let early: Vec<_> = vec![rig.enter().await.unwrap(), rig.enter().await.unwrap(), rig.enter().await.unwrap()];
    early.into_iter().for_each(Pass::refused);
    assert!(matches!(rig.credential.pass(), Ok(None)), "nobody goes out before the secret was read again");
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.state(), "doubted");

    let trial = rig.enter().await.unwrap();
    assert!(trial.trial.is_some());
    assert!(matches!(rig.enter().await, Err(PassError::Undecided)));
    // One that gives up without a verdict makes room for the next.
    let waiting = rig.credential.clear(rig.clock.now() + HOUR);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    drop(trial);
    waiting.await.unwrap();
    let trial = rig.enter().await.unwrap();
    trial.accepted();
    assert!(rig.enter().await.unwrap().trial.is_none());
    assert_eq!(rig.state(), "good");
}

#[tokio::test(start_paused = true)]
async fn a_refused_secret_is_probed_once_a_minute_until_it_is_taken() {
    let rig = Rig::basic();
    rig.refuse(rig.enter().await.unwrap()).await;
    rig.refuse(rig.enter().await.unwrap()).await;
    assert_eq!(rig.state(), "refused");
    let mut sent = 0;
    for _ in 0..600 {
        advance(Duration::from_secs(1)).await;
        if let Ok(probe) = rig.enter().await {
            rig.refuse(probe).await;
            sent += 1;
        }
    }
    assert_eq!(sent, 10);
    advance(breaker::PROBE_EVERY).await;
    rig.enter().await.unwrap().accepted();
    assert_eq!(rig.state(), "good");
}

#[tokio::test(start_paused = true)]
async fn what_the_vendor_says_is_counted_for_the_secret_that_was_shown() {
    let rig = Rig::basic();
    let secret = || rig.credential.state(&app()).secret.unwrap();
    let (first, straggler) = (rig.enter().await.unwrap(), rig.enter().await.unwrap());
    first.accepted();
    let old = secret();
    assert_eq!((old.accepted, old.refused, old.digest), (1, 0, None));
    assert_eq!((old.last_accepted_at.as_ref(), old.last_refused_at), (Some(&old.since), None));
    advance(HOUR).await;
    rig.write("a-secret-of-many-letters");
    rig.look().await;
    // Of the old one.
    straggler.accepted();
    let new = secret();
    assert_eq!((new.accepted, new.refused, new.digest.as_deref().map(str::len)), (0, 0, Some(8)));
    assert!(new.since > old.since);
    rig.refuse(rig.enter().await.unwrap()).await;
    rig.refuse(rig.enter().await.unwrap()).await;
    assert_eq!((secret().accepted, secret().refused, rig.state()), (0, 2, "refused"));
}

#[tokio::test(start_paused = true)]
async fn probes_are_told_of_a_credential_from_its_refusal_or_its_grace_s_end_until_it_is_taken() {
    let rig = Rig::basic();
    let trouble = || rig.credential.trouble().map(|(symptom, _)| symptom);
    rig.refuse(rig.enter().await.unwrap()).await;
    assert_eq!(trouble(), None, "a doubt is none yet");
    rig.refuse(rig.enter().await.unwrap()).await;
    let since = rig.clock.wall_ms();
    advance(breaker::PROBE_EVERY).await;
    rig.refuse(rig.enter().await.unwrap()).await;
    let (symptom, began) = rig.credential.trouble().unwrap();
    assert!(symptom == Symptom::CredentialRefused && began <= since, "a probe in vain begins nothing anew");
    advance(breaker::PROBE_EVERY).await;
    rig.enter().await.unwrap().accepted();
    assert_eq!(trouble(), None);
    std::fs::remove_file(rig.folder.path().join("secret")).unwrap();
    rig.look().await;
    assert_eq!((trouble(), rig.state()), (None, "grace"));
    advance(GRACE).await;
    assert_eq!(trouble(), Some(Symptom::CredentialUnavailable));
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_opens_the_guard_and_is_judged_by_itself() {
    let rig = Rig::basic();
    let straggler = rig.enter().await.unwrap();
    rig.refuse(rig.enter().await.unwrap()).await;
    rig.refuse(rig.enter().await.unwrap()).await;
    assert!(matches!(rig.enter().await, Err(PassError::Refused)));
    rig.write("s2");
    rig.look().await;
    assert!(rig.enter().await.unwrap().trial.is_none());
    // A 401 to the old secret says nothing about the new one.
    rig.refuse(straggler).await;
    assert_eq!(rig.state(), "good");
    rig.refuse(rig.enter().await.unwrap()).await;
    assert_eq!(rig.state(), "doubted");
}

#[tokio::test(start_paused = true)]
async fn a_401_finds_a_secret_changed_meanwhile_without_waiting_a_second() {
    let rig = Rig::basic();
    let pass = rig.enter().await.unwrap();
    rig.write("s2");
    pass.refused();
    assert_eq!(rig.shown().await, basic("azpzMg=="));
    assert_eq!(rig.state(), "good");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_seat_holds_no_trial_and_spends_no_probe() {
    let rig = Rig::basic();
    rig.refuse(rig.enter().await.unwrap()).await;
    // Cleared, and then no seat came: the trial is another's.
    rig.credential.clear(rig.clock.now()).await.unwrap();
    let trial = rig.credential.pass().unwrap().unwrap();
    assert!(rig.credential.pass().unwrap().is_none());
    rig.refuse(trial).await;
    advance(breaker::PROBE_EVERY).await;
    for _ in 0..3 {
        rig.credential.clear(rig.clock.now()).await.unwrap();
    }
    rig.enter().await.unwrap().accepted();
    assert_eq!(rig.state(), "good");
}

#[tokio::test(start_paused = true)]
async fn a_refused_secret_is_tried_at_once_where_requests_go_elsewhere() {
    let rig = Rig::basic();
    rig.refuse(rig.enter().await.unwrap()).await;
    rig.refuse(rig.enter().await.unwrap()).await;
    assert!(matches!(rig.enter().await, Err(PassError::Refused)));
    rig.credential.try_anew();
    rig.refuse(rig.enter().await.unwrap()).await;
    assert!(matches!(rig.enter().await, Err(PassError::Refused)));
    rig.credential.try_anew();
    rig.enter().await.unwrap().accepted();
    assert_eq!(rig.state(), "good");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_being_written_is_not_taken_before_it_rests() {
    let rig = Rig::basic();
    for half in ["s", "s2", "s2-of-a-long", "s2-of-a-longer"] {
        rig.write(half);
        assert!(look_at(std::slice::from_ref(&rig.credential), 1));
        assert_eq!(rig.shown().await, basic("azpzMQ=="));
    }
    look_at(std::slice::from_ref(&rig.credential), 1);
    assert_ne!(rig.shown().await, basic("azpzMQ=="));
    // A reload takes what it finds.
    rig.write("s3");
    read([&rig.credential]);
    assert_eq!(rig.shown().await, basic("azpzMw=="));
}

#[tokio::test(start_paused = true)]
async fn a_fifo_in_a_secret_s_place_holds_up_nobody_and_the_last_value_serves_its_grace() {
    let rig = Rig::basic();
    let path = rig.folder.path().join("secret");
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    rig.look().await;
    assert_eq!((rig.shown().await, rig.state()), (basic("azpzMQ=="), "grace"));
    // Not even a 401 waits for it.
    rig.refuse(rig.enter().await.unwrap()).await;
    assert_eq!(rig.state(), "doubted");
    advance(GRACE).await;
    let why = rig.enter().await.err();
    assert!(matches!(
        why,
        Some(PassError::Unavailable(SecretError::Unreadable { why: files::Unreadable::NotRegular, .. }))
    ));
    std::fs::remove_file(&path).unwrap();
    rig.write("s2");
    rig.look().await;
    assert_eq!(rig.shown().await, basic("azpzMg=="));
}

#[tokio::test(start_paused = true)]
async fn files_that_have_not_changed_are_not_read() {
    let rig = Rig::basic();
    let path = rig.folder.path().join("secret");
    let later = Clock::anchored(std::fs::metadata(&path).unwrap().modified().unwrap() + HOUR);
    let source = rig.credential.source.clone();
    let credential = Credential::new(&app(), &source, Vendor::Agora, &later).unwrap();
    read([&credential]);
    let cache = &credential.secrets;
    let hung = Hung::below(rig.folder.path());
    assert!(!SecretCache::glance(&[(cache, false)]));
    assert_eq!(cache.problem(), None, "by its marks it is the same");
    SecretCache::glance(&[(cache, true)]);
    assert!(cache.problem().is_some(), "once a minute they are not believed");
    drop(hung);
    while cache.problem().is_some() {
        SecretCache::glance(&[(cache, false)]);
    }
    std::fs::write(&path, "s2").unwrap();
    assert!(SecretCache::glance(&[(cache, false)]), "it may still be written");
    assert!(!SecretCache::glance(&[(cache, false)]), "and it is in use");
    assert_eq!(credential.secrets.content(), Some(2));
}

#[test]
fn files_that_hang_when_they_are_read_take_hardly_longer_than_one_and_hold_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let one = |name: String| {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("secret"), "s1").unwrap();
        let app_certificate = SecretSource::File(folder.join("secret"));
        let source = config::Credential::Token { app_certificate, uid: "gateway".into() };
        Credential::new(&app(), &source, Vendor::Agora, &Clock::system()).unwrap()
    };
    let mut all: Vec<_> = (0..100).map(|n| one(format!("mount/{n}"))).collect();
    all.push(one("disk".to_owned()));
    read(&all);
    for credential in &all {
        std::fs::write(credential.secrets.files().next().unwrap(), "s2").unwrap();
    }
    let hung = Hung::below(&folder.path().join("mount"));
    let began = Instant::now();
    assert!(look_at(&all, 1));
    assert!(!look_at(&all, 1));
    // One after another they would take forty times as long.
    assert!(began.elapsed() < files::PATIENCE * 5, "{:?}", began.elapsed());
    assert_eq!(all.last().unwrap().secrets.content(), Some(2));
    let is_hung = |credential: &Arc<Credential>| {
        let hangs = |why| matches!(why, SecretError::Unreadable { why: files::Unreadable::Hangs, .. });
        credential.secrets.problem().is_some_and(hangs) && credential.secrets.content() == Some(1)
    };
    assert!(all[..100].iter().all(is_hung));
    drop(hung);
}

#[test]
fn what_was_read_first_is_not_put_in_force_last() {
    let rig = Rig::basic();
    let cache = &rig.credential.secrets;
    let secrets = |secret: &str| Ok(vec![Secret::new("k".into()), Secret::new(secret.into())]);
    let (one, other) = (cache.begin(Vec::new()), cache.begin(Vec::new()));
    assert!(cache.take(one, secrets("s2")));
    // It may have read before the first did.
    assert!(!cache.take(other, secrets("s1")));
    assert_eq!(cache.content(), Some(2));
    assert!(cache.take(cache.begin(Vec::new()), secrets("s3")));
    assert_eq!(cache.content(), Some(3));
}
