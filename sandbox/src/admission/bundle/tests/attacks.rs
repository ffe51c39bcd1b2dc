//! Every bundle attack of the list, built from raw bytes, with the code it is refused with.

use std::collections::BTreeSet;

use expect_test::expect_file;
use strum::IntoEnumIterator as _;

use super::forge::{Member, Zip};
use super::rows::{Row, Stage, rows};
use super::{contents, plugin};
use crate::admission::bundle::{Bundle, pack};
use themis_messages::bundle::{BundleFaultKind, EntryFaultKind};
use themis_messages::limits::{BUNDLE_BYTES_MAX, BUNDLE_ENTRIES_MAX};

#[test]
fn the_forger_can_make_a_bundle_that_is_accepted() {
    let members = plugin().into_iter().enumerate().map(|(i, (name, content))| match i % 2 {
        0 => Member::stored(name, content),
        _ => Member::deflated(name, content),
    });
    let all = contents(&Zip::of(members).build()).unwrap();
    let wanted = plugin().into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
    assert_eq!(all, wanted);
}

#[test]
fn every_attack_is_refused_with_its_code_at_its_stage() {
    for Row { attack, what, bytes, stage, code } in rows() {
        match (Bundle::read(&bytes), stage) {
            (Err(fault), Stage::Read) => {
                assert_eq!(fault.code(), code, "{attack} {what}: {fault}");
            }
            (Ok(_), Stage::Extract) => {
                let fault = contents(&bytes).unwrap_err();
                assert_eq!(fault.code(), code, "{attack} {what}: {fault}");
            }
            (read, stage) => {
                let read = read.map(|bundle| bundle.entries().len());
                panic!("{attack} {what}: want {code} at {stage:?}, got {read:?}");
            }
        }
    }
}

#[test]
fn every_row_of_the_list_that_is_about_bundles_is_tried() {
    let tried: BTreeSet<_> = rows().iter().map(|row| row.attack).collect();
    // 23 is accepted on purpose, 24 is the writer's, 26 and 27 are the admission's: see the tests below.
    for number in (1..=27).filter(|number| ![23, 24, 26, 27].contains(number)) {
        assert!(tried.contains(format!("B{number}").as_str()), "B{number}");
    }
}

#[test]
fn every_code_is_reached_and_tells_the_faults_apart() {
    let mut reached: BTreeSet<_> = rows().iter().map(|row| row.code).collect();
    // Each has a test of its own below; the last one stands for an entry's.
    reached.extend(["bundle.too_large", "bundle.missing_file", "bundle.write", "bundle.entry"]);
    let of_bundle: BTreeSet<_> = BundleFaultKind::iter().map(BundleFaultKind::code).collect();
    let of_entry: BTreeSet<_> = EntryFaultKind::iter().map(EntryFaultKind::code).collect();
    assert_eq!(of_bundle.len(), BundleFaultKind::iter().count());
    assert_eq!(of_entry.len(), EntryFaultKind::iter().count());
    assert_eq!(&of_bundle | &of_entry, reached);
    // The same wrong thing, of the archive or of an entry.
    let shared: Vec<_> = of_bundle.intersection(&of_entry).copied().collect();
    assert_eq!(shared, ["bundle.comment", "bundle.split", "bundle.zip64"]);
}

#[test]
fn a_refusal_says_what_and_where_without_what_a_terminal_would_obey() {
    let mut trace = String::new();
    for row in rows() {
        let fault = contents(&row.bytes).unwrap_err();
        let message = fault.to_string();
        assert!(!message.contains(char::is_control), "{message:?}");
        assert!(message.len() < 600, "{message}");
        trace += &format!("{} {}\n    {}\n    {message}\n", row.attack, row.what, row.code);
    }
    expect_file!["messages.txt"].assert_eq(&trace);
}

#[test]
fn a_file_larger_than_any_bundle_is_refused_unread() {
    let bytes = vec![0; BUNDLE_BYTES_MAX as usize + 1];
    assert_eq!(Bundle::read(&bytes).unwrap_err().code(), "bundle.too_large");
}

#[test]
fn as_many_entries_as_a_plugin_has_files_are_accepted() {
    let members = |count| (0..count).map(|i| Member::stored(format!("{i}"), ""));
    assert_eq!(
        contents(&Zip::of(members(BUNDLE_ENTRIES_MAX)).build()).unwrap().len(),
        BUNDLE_ENTRIES_MAX
    );
    let fault = Bundle::read(&Zip::of(members(BUNDLE_ENTRIES_MAX + 1)).build()).unwrap_err();
    assert_eq!(fault.code(), "bundle.too_many");
}

#[test]
fn b23_an_archive_inside_a_bundle_comes_out_as_it_went_in() {
    let inner = pack([("deep", vec![0; 60 << 10])]).unwrap();
    let members = [Member::stored("inner.zip", &inner), Member::deflated("again.zip", &inner)];
    let all = contents(&Zip::of(members).build()).unwrap();
    assert_eq!(all["inner.zip"], inner);
    assert_eq!(all["again.zip"], inner);
}

#[test]
fn b24_a_full_disk_is_reported_as_such() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for member in [Member::stored("a", "abc"), Member::deflated("a", "abc")] {
        let bytes = Zip::of([member]).build();
        let entry = Bundle::read(&bytes).unwrap().open("a").unwrap();
        let fault = entry.extract(&mut Full).unwrap_err();
        assert_eq!(fault.code(), "bundle.write");
        assert!(fault.to_string().contains("no storage space"), "{fault}");
    }
}

#[test]
fn a_path_is_opened_only_as_it_is_spelled() {
    let bytes = Zip::of([Member::stored("data/a", "abc")]).build();
    let bundle = Bundle::read(&bytes).unwrap();
    assert_eq!(bundle.open("data/a").unwrap().to_vec().unwrap(), b"abc");
    for other in ["data/A", "data//a", "./data/a", "data/a/", "data", "", "\u{1b}[2J"] {
        let fault = bundle.open(other).unwrap_err();
        assert_eq!(fault.code(), "bundle.missing_file");
        assert!(!fault.to_string().contains(char::is_control), "{fault:?}");
    }
}
