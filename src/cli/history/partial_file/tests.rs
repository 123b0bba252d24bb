use std::io::Read as _;

use proptest::prelude::*;

use super::*;

fn asked(digest: &str, is_packed: bool) -> ExportRequest {
    let window = Window { start_time: "1".into(), end_time: "2".into() };
    ExportRequest { digest: digest.into(), window, is_packed }
}

fn content(path: &Path, is_packed: bool) -> String {
    let mut text = String::new();
    let mut file = File::open(path).unwrap();
    match is_packed {
        true => flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap(),
        false => file.read_to_string(&mut text).unwrap(),
    };
    text
}

properties! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn an_export_that_is_killed_anywhere_and_gone_on_with_holds_each_message_once(
        steps in prop::collection::vec(0u8..6, 0..40), is_packed: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let asked = asked("d", is_packed);
        let mut part = PartialFile::begin(&path, &asked, false).unwrap();
        for step in steps {
            let next = part.cursor().map_or(0, |cursor| cursor.parse::<u64>().unwrap());
            match step {
                0 => part.checkpoint().unwrap(),
                1 => {
                    // Killed: what was not synced may be there in part, or as garbage.
                    drop(part);
                    let mut file = OpenOptions::new().append(true).open(beside(&path, ".part")).unwrap();
                    file.write_all(b"garb").unwrap();
                    drop(file);
                    part = PartialFile::begin(&path, &asked, false).unwrap();
                    prop_assert_eq!(part.cursor().unwrap_or("0"), part.messages().to_string());
                }
                _ => part.append(format!("{next}\n").into_bytes(), 1, &(next + 1).to_string()).unwrap(),
            }
        }
        let messages = part.messages();
        part.finish().unwrap();
        let wanted: String = (0..messages).map(|n| format!("{n}\n")).collect();
        prop_assert_eq!(content(&path, is_packed), wanted);
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn what_is_not_ones_own_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let mut part = PartialFile::begin(&path, &asked("a", false), false).unwrap();
    part.append(b"1\n".to_vec(), 1, "C").unwrap();
    part.checkpoint().unwrap();
    assert!(matches!(PartialFile::begin(&path, &asked("a", false), false), Err(PartialFileError::InUse(_))));
    drop(part);
    assert!(matches!(PartialFile::begin(&path, &asked("b", false), false), Err(PartialFileError::OfOthers(_))));
    // Of a part that is shorter than its record, or without one, nobody knows where it ends.
    fs::write(beside(&path, ".part"), "").unwrap();
    assert!(matches!(PartialFile::begin(&path, &asked("a", false), false), Err(PartialFileError::NoRecord(_))));
    fs::write(beside(&path, ".part"), "mine").unwrap();
    fs::remove_file(beside(&path, ".part.json")).unwrap();
    assert!(matches!(PartialFile::begin(&path, &asked("a", false), false), Err(PartialFileError::NoRecord(_))));
    let mut part = PartialFile::begin(&path, &asked("b", false), true).unwrap();
    assert_eq!((part.messages(), part.cursor()), (0, None));
    part.append(b"1\n".to_vec(), 1, "C").unwrap();
    part.checkpoint().unwrap();
    // Killed as soon as it had its name, which then went to another place.
    drop(part);
    fs::rename(beside(&path, ".part"), dir.path().join("elsewhere")).unwrap();
    let mut part = PartialFile::begin(&path, &asked("b", false), false).unwrap();
    assert_eq!((part.messages(), part.cursor()), (0, None));
    part.finish().unwrap();
    assert!(matches!(PartialFile::begin(&path, &asked("a", false), false), Err(PartialFileError::IsThere(_))));
    assert_eq!(content(&path, false), "");
}
