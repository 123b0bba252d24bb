use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::ClientAuth;
use crate::kernel::conn::{Lapse, PeerCertificate};
use test_support::certificates::{Authority, DAY, Says};

/// A folder with a server's certificate and an authority of clients.
struct Files {
    folder: tempfile::TempDir,
    config: ServerTls,
    authority: Authority,
    clock: Clock,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::new("clients");
        let config = ServerTls {
            cert: path("server.pem"),
            key: path("server.key"),
            client_ca: Some(path("client-ca.pem")),
            client_auth: ClientAuth::Optional,
            client_crl: vec![path("crl.pem")],
        };
        let files = Self { config, authority, clock: Clock::anchored(Clock::system().wall()), folder };
        files.serve(&Says::dns(files.clock.wall(), "localhost"));
        files.write("client-ca.pem", files.authority.pem());
        files.write("crl.pem", files.authority.revokes(&[], files.clock.wall() + DAY));
        files
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }

    fn serve(&self, says: &Says) {
        let made = self.authority.issue(says);
        self.write("server.pem", made.pem());
        self.write("server.key", made.key_pem());
    }

    fn open(&self) -> Result<Tls, TlsError> {
        Tls::open(&self.config, TlsDoor::Callers, &self.clock, &Metrics::new())
    }

    fn caller(&self, change: impl FnOnce(&mut Says)) -> PeerCertificate {
        caller(&self.authority, self.clock.wall(), change)
    }
}

fn caller(authority: &Authority, now: SystemTime, change: impl FnOnce(&mut Says)) -> PeerCertificate {
    let mut says = Says::nothing(now);
    change(&mut says);
    PeerCertificate::read(authority.issue(&says).chain).unwrap()
}

/// What is wrong, without the folder.
fn told<T>(result: Result<T, TlsError>, folder: &Path) -> String {
    result.map(drop).unwrap_err().to_string().replace(&format!("{}/", folder.display()), "")
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_used_are_refused_by_name_and_what_is_in_force_stays() {
    let files = Files::new();
    let tls = files.open().unwrap();
    let before = tls.live();
    let now = files.clock.wall();
    let other = Authority::new("clients");
    let leaf = files.authority.issue(&Says::nothing(now));
    let list = files.authority.revokes(&[], now + DAY);
    for (name, content, expected) in [
        ("server.pem", leaf.pem(), "server.tls.key: server.key is not the key of the certificate in server.pem"),
        ("server.pem", "hello".to_owned(), "server.tls.cert: server.pem holds no certificate in PEM"),
        ("server.pem", leaf.pem().replace("MII", "!!!"), "server.tls.cert: server.pem is not PEM"),
        ("server.key", leaf.key_pem(), "server.tls.key: server.key is not the key of the certificate in server.pem"),
        (
            "server.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".to_owned(),
            "server.tls.key: server.key holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)",
        ),
        ("client-ca.pem", String::new(), "server.tls.client_ca: client-ca.pem holds no certificate in PEM"),
        ("client-ca.pem", leaf.pem(), "server.tls.client_ca: client-ca.pem holds a certificate that is no authority's"),
        ("crl.pem", files.authority.pem(), "server.tls.client_crl: crl.pem holds no revocation list"),
        (
            "crl.pem",
            other.revokes(&[], now + DAY),
            "server.tls.client_crl: crl.pem holds a revocation list that its authority has not signed",
        ),
        (
            "crl.pem",
            files.authority.revokes(&[], now - Duration::from_secs(1)),
            "server.tls.client_crl: crl.pem holds a revocation list that has run out",
        ),
        ("crl.pem", list[..list.len() / 2].to_owned(), "server.tls.client_crl: crl.pem is neither PEM nor DER"),
        (
            "crl.pem",
            "0garbage".to_owned(),
            "server.tls.client_crl: crl.pem holds a revocation list that cannot be read",
        ),
    ] {
        let path = files.folder.path().join(name);
        let good = std::fs::read(&path).unwrap();
        files.write(name, content);
        assert_eq!(told(tls.prepare(&files.config), files.folder.path()), expected);
        files.write(name, good);
    }
    std::fs::remove_file(files.folder.path().join("server.key")).unwrap();
    let gone = told(tls.prepare(&files.config), files.folder.path());
    assert_eq!(gone, "server.tls.key: cannot read server.key: entity not found");
    assert!(Arc::ptr_eq(&before, &tls.live()));
}

#[tokio::test(start_paused = true)]
async fn files_that_have_not_changed_change_nothing_even_when_they_have_run_out_since() {
    let files = Files::new();
    let tls = files.open().unwrap();
    tokio::time::advance(3 * DAY).await;
    assert!(Arc::ptr_eq(&tls.live(), &tls.prepare(&files.config).unwrap()));
    // But what has run out takes nobody's place.
    files.serve(&Says::dns(files.clock.wall() - 2 * DAY, "localhost"));
    let told = told(tls.prepare(&files.config), files.folder.path());
    assert_eq!(told, "server.tls.cert: server.pem holds a certificate that has expired");
    // At a start there is nothing better.
    assert!(files.open().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_taken_as_long_as_a_handshake_would_take_it() {
    let files = Files::new();
    let tls = files.open().unwrap();
    let takes = |certificate: &PeerCertificate| tls.live().trust.judge(certificate, tls.now()).is_ok();
    let reload = || tls.put_in_force(tls.prepare(&files.config).unwrap());

    let (caller, expiring) = (files.caller(|_| {}), files.caller(|says| says.until -= DAY - Duration::from_secs(10)));
    let early = files.caller(|says| says.from += 2 * DAY);
    let server = files.caller(|says| says.purposes = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    let stranger = super::tests::caller(&Authority::new("clients"), files.clock.wall(), |_| {});
    assert!(takes(&caller) && takes(&expiring));
    assert!(!takes(&early) && !takes(&server) && !takes(&stranger));
    tokio::time::advance(Duration::from_secs(12)).await;
    assert!(takes(&caller) && !takes(&expiring));

    // Revoked, which a verdict of a moment ago does not outlive.
    files.write("crl.pem", files.authority.revocation_list(&[7], files.clock.wall() + DAY).der());
    reload();
    assert!(!takes(&caller));
    files.write("crl.pem", files.authority.revokes(&[8], files.clock.wall() + Duration::from_secs(30)));
    reload();
    assert!(takes(&caller));
    // The list runs out while nobody looks.
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(!takes(&caller));

    // Another authority of the same name.
    let other = Authority::new("clients");
    files.write("client-ca.pem", other.pem());
    files.write("crl.pem", other.revokes(&[], files.clock.wall() + DAY));
    reload();
    assert!(!takes(&caller));
}

#[tokio::test(start_paused = true)]
async fn every_authority_of_a_chain_needs_a_revocation_list_and_a_revoked_one_takes_its_certificates_along() {
    let files = Files::new();
    let between = files.authority.below("between", 3);
    let caller = super::tests::caller(&between, files.clock.wall(), |_| {});
    let end = files.clock.wall() + DAY;
    let (of_anchor, of_between) = (|serials: &[u8]| files.authority.revokes(serials, end), between.revokes(&[], end));
    let tls = files.open().unwrap();
    for (lists, taken) in [
        (of_anchor(&[]), false),
        (format!("{}{of_between}", of_anchor(&[])), true),
        (format!("{}{of_between}", of_anchor(&[3])), false),
    ] {
        files.write("crl.pem", lists);
        tls.put_in_force(tls.prepare(&files.config).unwrap());
        assert_eq!(tls.live().trust.judge(&caller, tls.now()).is_ok(), taken);
    }
    // The authority between as the anchor: its own list is all that is needed.
    files.write("client-ca.pem", between.pem());
    files.write("crl.pem", of_between);
    tls.put_in_force(tls.prepare(&files.config).unwrap());
    assert!(tls.live().trust.judge(&caller, tls.now()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn another_revocation_list_is_looked_up_by_number_and_only_other_authorities_need_a_path() {
    let files = Files::new();
    let now = files.clock.wall();
    let between = files.authority.below("between", 3);
    let of = |serial: u8| super::tests::caller(&between, now, |says| says.serial = serial);
    let direct = files.caller(|says| says.serial = 40);
    let callers: Vec<_> = (10..20).map(of).collect();
    let lists = |anchor: &[u8], below: &[u8]| {
        format!("{}{}", files.authority.revokes(anchor, now + DAY), between.revokes(below, now + DAY))
    };
    files.write("crl.pem", lists(&[], &[]));
    let tls = files.open().unwrap();
    let reload = |content: String| {
        files.write("crl.pem", content);
        tls.put_in_force(tls.prepare(&files.config).unwrap());
        tls.live().trust.clone()
    };
    let trust = tls.live().trust.clone();
    assert!(callers.iter().chain([&direct]).all(|caller| trust.recall(caller, tls.now()).is_none()), "a path first");
    assert!(callers.iter().chain([&direct]).all(|caller| trust.judge(caller, tls.now()).is_ok()));

    // Whoever is in the list is refused without a path; the first of the others needs one, they do not.
    let trust = reload(lists(&[], &[12, 200]));
    assert_eq!(trust.recall(&callers[2], tls.now()), Some(Err(Lapse::Refused)));
    assert_eq!(trust.recall(&callers[0], tls.now()), None);
    assert_eq!(trust.judge(&callers[0], tls.now()), Ok(()));
    for (n, caller) in callers.iter().enumerate() {
        assert_eq!(trust.recall(caller, tls.now()), Some(if n == 2 { Err(Lapse::Refused) } else { Ok(()) }), "{n}");
    }
    assert_eq!(trust.recall(&direct, tls.now()), None, "it has another authority");

    // The authority between is revoked: the look-up alone would not see it, so it is not asked.
    let trust = reload(lists(&[3], &[]));
    assert!(callers.iter().all(|caller| trust.judge(caller, tls.now()) == Err(Lapse::Refused)));
    assert_eq!(trust.judge(&direct, tls.now()), Ok(()));
    // A list of which nobody knows who signed it.
    let impostor = Authority::new("impostor").below("between", 3);
    let trust = reload(format!("{}{}", files.authority.revokes(&[], now + DAY), impostor.revokes(&[], now + DAY)));
    assert!(callers.iter().all(|caller| trust.judge(caller, tls.now()) == Err(Lapse::Refused)));

    // It runs out: that is no withdrawal.
    let trust = reload(lists(&[], &[]));
    assert!(callers.iter().all(|caller| trust.judge(caller, tls.now()).is_ok()));
    assert_eq!(
        trust.life(&callers[0], tls.now()).again,
        UnixMillis::from(now + DAY).before(Duration::from_millis(UnixMillis::from(now).0 % 1000))
    );
    let later = UnixMillis::from(now + DAY);
    assert_eq!(trust.judge(&callers[0], later), Err(Lapse::Expired));
}

#[tokio::test(start_paused = true)]
async fn how_long_each_has_left_is_told_by_its_role_and_door_and_follows_what_is_in_force() {
    let files = Files::new();
    let metrics = Metrics::new();
    let open = |door| Tls::open(&files.config, door, &files.clock, &metrics).unwrap();
    let shown = |role: &str| {
        let page = metrics.text();
        let name = format!("rtm_gateway_certificate_expiry_seconds{{role=\"{role}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).map(|seconds| seconds.parse::<i64>().unwrap())
    };
    let day = i64::try_from(DAY.as_secs()).unwrap();
    let tls = open(TlsDoor::Callers);
    let authorities = shown("client_ca").unwrap();
    assert!(authorities > 0 && shown("server").unwrap() > 0, "{}", metrics.text());
    // Whole seconds are counted from whole seconds.
    assert!((day - 1..=day).contains(&shown("revocation_list").unwrap()));
    assert_eq!(shown("admin_server"), None);
    let _operators = open(TlsDoor::Operators);
    assert_eq!((shown("admin_server"), shown("admin_client_ca")), (shown("server"), Some(authorities)));

    files.clock.jump(2 * day * 1000);
    files.serve(&Says::dns(files.clock.wall(), "localhost"));
    assert!((-day - 1..=-day).contains(&shown("revocation_list").unwrap()), "it has run out");
    // A list that has run out is not taken: what is in force is told of, not what lies there.
    files.write("crl.pem", files.authority.revokes(&[], files.clock.wall() - DAY / 2));
    assert!(tls.prepare(&files.config).is_err());
    assert!(shown("revocation_list").unwrap() < 1 - day);
    files.write("crl.pem", files.authority.revokes(&[], files.clock.wall() + DAY));
    tls.put_in_force(tls.prepare(&files.config).unwrap());
    assert!((day - 1..=day).contains(&shown("revocation_list").unwrap()));
    assert!((-day - 1..=-day).contains(&shown("admin_revocation_list").unwrap()), "the other door has its own");

    let without = ServerTls { client_ca: None, client_auth: ClientAuth::Off, ..files.config.clone() };
    tls.put_in_force(tls.prepare(&without).unwrap());
    assert_eq!((shown("client_ca"), shown("revocation_list")), (None, None));
}

#[test]
fn a_fault_says_whose_port_it_is_of() {
    let files = Files::new();
    files.write("server.pem", "hello");
    let open = |door| Tls::open(&files.config, door, &files.clock, &Metrics::new());
    let fault = |door| told(open(door), files.folder.path());
    assert_eq!(fault(TlsDoor::Callers), "server.tls.cert: server.pem holds no certificate in PEM");
    assert_eq!(fault(TlsDoor::Operators), "admin.tls.cert: server.pem holds no certificate in PEM");
}
