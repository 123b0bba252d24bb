//! `history export` against a gateway that is killed while it exports.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::simulator::{Endpoint, Fault, Message, Sim};

use super::gateway::{APP, Gateway, Home, vendor};
use crate::support::child::BINARY;

const MESSAGES: u64 = 1500;

fn messages(vendor: &Sim) {
    let base = Clock::system().wall_ms().0 - 3_600_000;
    let message = |n: u64| Message::peer("alice", "bob", &n.to_string()).at(base + n * 100);
    vendor.world().add_messages(APP, (0..MESSAGES).map(message));
}

fn export(home: &Home, gateway: &Gateway, file: &Path, more: &[&str]) -> Command {
    fs::write(home.path("caller"), "one").unwrap();
    let mut command = Command::new(BINARY);
    command
        .args(["history", "export", "--app", APP, "--source", "alice", "--url", &format!("http://{}", gateway.callers)])
        .arg("--key-file")
        .arg(home.path("caller"))
        .arg("--output")
        .arg(file)
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn ended(mut command: Command) -> (Option<i32>, String, Output) {
    // What a test gave it as its stdout stays.
    let run = move || command.spawn().unwrap().wait_with_output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), output)
}

/// Messages are numbered from 0: the number is all of a message's payload, or its first word.
fn assert_whole(text: &str, messages: u64) {
    let number = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        message["payload"].as_str().unwrap().split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(text.lines().map(number).eq(0..messages), "{} lines", text.lines().count());
}

/// What an export has written, packed by `--gzip` or not.
fn read(file: &Path, more: &[&str]) -> String {
    let mut text = String::new();
    let mut found = fs::File::open(file).unwrap();
    match more.is_empty() {
        true => found.read_to_string(&mut text).unwrap(),
        false => flate2::read::MultiGzDecoder::new(found).read_to_string(&mut text).unwrap(),
    };
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_the_whole_list_in_a_file_on_stdout_and_packed() {
    let vendor = vendor().await;
    messages(&vendor);
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let (status, said, _) = ended(export(&home, &gateway, &home.path("plain"), &[])).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("complete: 1500 messages"), "{said}");
    let plain = read(&home.path("plain"), &[]);
    assert_whole(&plain, MESSAGES);
    assert!(!home.path("plain.part").exists() && !home.path("plain.part.json").exists());
    let (status, said, output) = ended(export(&home, &gateway, Path::new("-"), &[])).await;
    assert_eq!((status, output.stdout == plain.as_bytes()), (Some(0), true), "{said}");
    let (status, said, _) = ended(export(&home, &gateway, &home.path("packed"), &["--gzip"])).await;
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(read(&home.path("packed"), &["--gzip"]), plain);
    // What is there is not replaced unasked.
    let (status, said, _) = ended(export(&home, &gateway, &home.path("plain"), &[])).await;
    assert!(status == Some(1) && said.contains("--restart"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_a_killed_gateway_cut_goes_on_and_ends_as_if_it_had_not_been() {
    // At once: the command tries again for some time before it gives the gateway up.
    let one = async |more: &[&str]| {
        let vendor = Arc::new(vendor().await);
        messages(&vendor);
        let home = Home::new(&vendor);
        let gateway = Gateway::start(&home);
        home.stay_at(&gateway);
        // After some pages the vendor gives no more: the export cannot end before the gateway does.
        let (sim, mut pages) = (Arc::downgrade(&vendor), 0);
        vendor.world().before_each(move |_, endpoint| {
            pages += u32::from(endpoint == Endpoint::HistoryGet);
            if let (Endpoint::HistoryGet, 8, Some(sim)) = (endpoint, pages, sim.upgrade()) {
                sim.always(Endpoint::HistoryGet, Fault::status(503));
            }
        });
        let (file, part) = (home.path("out"), home.path("out.part"));
        let cut = tokio::spawn(ended(export(&home, &gateway, &file, more)));
        let begun = async {
            while vendor.faults_met().is_empty() || fs::metadata(&part).map_or(0, |part| part.len()) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), begun).await.expect("messages are written as they come");
        gateway.kill();
        let (status, said, _) = cut.await.unwrap();
        assert!(status == Some(3) && said.contains("run the same command again"), "{status:?} {said}");
        assert!(!file.exists() && part.exists());
        vendor.clear_faults();
        let gateway = Gateway::start(&home);
        let (status, said, _) = ended(export(&home, &gateway, &file, &[more, &["--order", "desc"]].concat())).await;
        assert!(status == Some(1) && said.contains("--restart"), "{said}");
        let (status, said, _) = ended(export(&home, &gateway, &file, more)).await;
        assert!(status == Some(0) && said.contains("going on after"), "{said}");
        assert_whole(&read(&file, more), MESSAGES);
    };
    tokio::join!(one(&[]), one(&["--gzip"]));
}

/// The command, whose files cannot grow beyond so many blocks of 512 bytes: writes fail as on a full disk, half done.
fn with_little_room(command: &Command, blocks: u32) -> Command {
    let mut little = Command::new("sh");
    little.args(["-c", &format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\""), BINARY]);
    little.args(command.get_args()).stdout(Stdio::piped()).stderr(Stdio::piped());
    little
}

/// Messages that cannot be packed small.
fn dense_messages(vendor: &Sim) {
    let base = Clock::system().wall_ms().0 - 3_600_000;
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state.rotate_left(17) ^ state)
    };
    let mut payload = |n: u64| format!("{n} {}", (0..40).map(|_| noise()).collect::<String>());
    let messages: Vec<_> =
        (0..MESSAGES).map(|n| Message::peer("alice", "bob", &payload(n)).at(base + n * 100)).collect();
    vendor.world().add_messages(APP, messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_to_a_disk_that_was_full_goes_on_and_ends_as_if_it_had_not_been() {
    let vendor = vendor().await;
    dense_messages(&vendor);
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    for more in [&[][..], &["--gzip"]] {
        let file = home.path(&format!("out{}", more.len()));
        // The first has no room for its record, the next for one part and the beginning of another.
        for blocks in [1, 200, 700, 1100] {
            let little = with_little_room(&export(&home, &gateway, &file, more), blocks);
            let (status, said, _) = ended(little).await;
            assert!(matches!(status, Some(1 | 3)), "{status:?} {said}");
            assert!(!file.exists(), "{said}");
        }
        let (status, said, _) = ended(export(&home, &gateway, &file, more)).await;
        assert_eq!(status, Some(0), "{said}");
        assert_whole(&read(&file, more), MESSAGES);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_to_a_full_stdout_fails_and_tells_how_many_messages_are_whole() {
    let vendor = vendor().await;
    dense_messages(&vendor);
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    for more in [&[][..], &["--gzip"]] {
        let path = home.path(&format!("stdout{}", more.len()));
        let mut little = with_little_room(&export(&home, &gateway, Path::new("-"), more), 700);
        little.stdout(fs::File::create(&path).unwrap());
        let (status, said, _) = ended(little).await;
        assert!(status == Some(1) && !said.contains("whole but not all"), "{status:?} {said}");
        let told = said.split(" messages were written whole").next().unwrap().rsplit(' ').next().unwrap();
        let told: u64 = told.parse().unwrap_or_else(|_| panic!("{said}"));
        let mut bytes = Vec::new();
        let mut found = fs::File::open(&path).unwrap();
        match more.is_empty() {
            true => drop(found.read_to_end(&mut bytes).unwrap()),
            // It ends in the middle.
            false => drop(flate2::read::MultiGzDecoder::new(found).read_to_end(&mut bytes)),
        }
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let lines = whole.lines().count() as u64;
        assert!(told > 0 && (told == lines || !more.is_empty() && told <= lines), "{told} of {lines}: {said}");
        assert_whole(whole, lines);
        assert!(said.contains(&format!("not complete: {told} messages")), "{said}");
    }
    let mut full = export(&home, &gateway, Path::new("-"), &[]);
    full.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let (status, said, _) = ended(full).await;
    assert!(status == Some(1) && said.contains("not complete: 0 messages"), "{status:?} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_refused_leaves_nothing_and_ends_with_1() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let (status, said, _) = ended(export(&home, &gateway, &home.path("out"), &["--start-time", "yesterday"])).await;
    assert!(status == Some(1) && said.contains("refused: 400: start_time"), "{status:?} {said}");
    assert!(!home.path("out.part").exists() && !home.path("out.part.json").exists());
}
