//! What the packer writes, the reader reads, and it is always the same.

use std::collections::BTreeMap;

use expect_test::expect;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{contents, plugin};
use crate::admission::bundle::{Bundle, PackError, pack, pack_into};
use themis_messages::admit::PathFault;
use themis_messages::limits::{
    BUNDLE_ENTRIES_MAX, FILE_BYTES_MAX, MANIFEST_BYTES_MAX, PLUGIN_BYTES_MAX,
};
use themis_messages::manifest::check_relative_path;

#[test]
fn the_same_files_make_these_very_bytes() {
    let bundle = pack(plugin()).unwrap();
    let entries = Bundle::read(&bundle).unwrap();
    let lines: String = entries
        .entries()
        .iter()
        .map(|entry| format!("{} {} {}\n", entry.path(), entry.size(), entry.packed_size()))
        .collect();
    // A new compressor may pack differently: then bundles change for the same files, and this says so.
    expect![[r#"
        manifest.json 54 54
        plugin.sig 64 64
        data/empty 0 0
        data/größe.csv 28 10
        linux-x86_64/libgeo.so 39 13
    "#]]
    .assert_eq(&lines);
    expect!["685 db9bde84"].assert_eq(&format!(
        "{} {:08x}",
        bundle.len(),
        crc32fast::hash(&bundle)
    ));
}

#[test]
fn nothing_of_this_machine_or_day_is_in_a_bundle() {
    let bundle = pack([("a", "x")]).unwrap();
    expect![[r#"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00!\x00\x83\x16\xdc\x8c\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00axPK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00\x00\x00!\x00\x83\x16\xdc\x8c\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xa4\x81\x00\x00\x00\x00aPK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00/\x00\x00\x00 \x00\x00\x00\x00\x00"#]].assert_eq(&format!("{}", bundle.escape_ascii()));
}

#[test]
fn the_manifest_comes_first_and_its_signature_second() {
    let files = ["z", "plugin.sig", "Zoo", "manifest.json", "a/b", "LICENSE"];
    let bundle = pack(files.map(|path| (path, path))).unwrap();
    let paths: Vec<_> =
        Bundle::read(&bundle).unwrap().entries().iter().map(|e| e.path().to_owned()).collect();
    assert_eq!(paths, ["manifest.json", "plugin.sig", "LICENSE", "Zoo", "a/b", "z"]);
}

#[test]
fn what_shrinks_like_a_bomb_is_stored() {
    let bundle = pack([("zeros", vec![0; 1 << 20]), ("few", vec![0; 60 << 10])]).unwrap();
    let read = Bundle::read(&bundle).unwrap();
    let [zeros, few] = ["zeros", "few"].map(|path| read.open(path).unwrap());
    assert_eq!(zeros.packed_size(), 1 << 20);
    assert!(few.packed_size() < 1 << 10, "{}", few.packed_size());
    assert_eq!(zeros.to_vec().unwrap(), vec![0; 1 << 20]);
}

#[test]
fn what_does_not_shrink_is_stored() {
    let deflated = |text: &String| miniz_oxide::deflate::compress_to_vec(text.as_bytes(), 6);
    let mut runs = (1..20).map(|len| "a".repeat(len));
    let same = runs.find(|run| deflated(run).len() == run.len()).unwrap();
    for content in ["", "x", &same] {
        let bundle = pack([("a", content)]).unwrap();
        assert_eq!(&bundle[31..31 + content.len()], content.as_bytes());
    }
}

#[test]
fn the_packer_refuses_what_the_reader_would() {
    let refusal = |files: &[(&str, &str)]| pack(files.iter().copied()).unwrap_err();
    let path = |path: &str, fault| PackError::Path { path: path.to_owned(), fault };
    assert_eq!(refusal(&[]), PackError::Empty);
    assert_eq!(refusal(&[("../a", "")]), path("../a", PathFault::Parent));
    assert_eq!(refusal(&[("/a", "")]), path("/a", PathFault::Absolute));
    assert_eq!(refusal(&[("a/", "")]), path("a/", PathFault::Component));
    assert_eq!(refusal(&[("a\n", "")]), path("a\\n", PathFault::Character));
    assert_eq!(refusal(&[("a", ""), ("a", "")]).code(), "pack.duplicate");
    assert_eq!(refusal(&[("a", ""), ("A", "")]).code(), "pack.case_collision");
    assert_eq!(refusal(&[("a/b", ""), ("a", "")]).code(), "pack.file_and_directory");

    let manifest = vec![b' '; MANIFEST_BYTES_MAX as usize + 1];
    let fault = pack([("manifest.json", &manifest)]).unwrap_err();
    assert_eq!(fault.code(), "pack.file_too_large");
    let many = (0..).map(|i| (i.to_string(), ""));
    assert_eq!(pack(many).unwrap_err(), PackError::TooMany);
    let most = (0..BUNDLE_ENTRIES_MAX).map(|i| (i.to_string(), ""));
    assert_eq!(contents(&pack(most).unwrap()).unwrap().len(), BUNDLE_ENTRIES_MAX);
}

#[test]
fn too_much_is_refused_before_anything_is_written() {
    struct Untouched;
    impl std::io::Write for Untouched {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            panic!("{} bytes were written", bytes.len());
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let zeros = vec![0; FILE_BYTES_MAX as usize + 1];
    let whole = &zeros[1..];
    let fault = pack_into([("a", &zeros)], &mut Untouched).unwrap_err();
    assert_eq!(fault.code(), "pack.file_too_large");
    let count = PLUGIN_BYTES_MAX / FILE_BYTES_MAX + 1;
    let files = (0..count).map(|i| (i.to_string(), whole));
    assert_eq!(pack_into(files, &mut Untouched).unwrap_err().code(), "pack.total_too_large");
}

#[test]
fn a_bundle_that_cannot_be_written_is_reported() {
    let mut room = [0_u8; 100];
    let fault = pack_into(plugin(), &mut &mut room[..]).unwrap_err();
    assert_eq!(fault.code(), "pack.write");
}

/// Mostly paths that may be, in few letters so that some clash.
fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-cA-Cäß._ -]{1,4}(/[a-cA-C]{1,2}){0,2}",
        1 => Just("manifest.json".to_owned()),
        1 => Just("plugin.sig".to_owned()),
        1 => "\\PC{0,8}",
    ]
}

/// A file's content, shown by its length.
#[derive(Clone, PartialEq)]
struct Content(Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes from {:?}", self.0.len(), self.0.first())
    }
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        vec(any::<u8>(), 30_000..70_000),
        (any::<u8>(), 0_usize..300_000).prop_map(|(byte, len)| vec![byte; len]),
        (vec(any::<u8>(), 1..40), 1_usize..5_000).prop_map(|(part, times)| part.repeat(times)),
        // A bundle inside a bundle has all the signatures a reader looks for.
        vec(any::<u8>(), 0..50).prop_map(|bytes| pack([("in", bytes)]).unwrap()),
    ]
    .prop_map(Content)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn the_reader_gives_back_what_was_packed(files in vec((path(), content()), 1..8)) {
        match pack(files.iter().map(|(path, content)| (path, content))) {
            Ok(bundle) => {
                let all = contents(&bundle)?.into_iter().map(|(path, bytes)| (path, Content(bytes)));
                let wanted: BTreeMap<_, _> = files.into_iter().collect();
                prop_assert_eq!(all.collect::<BTreeMap<_, _>>(), wanted);
            }
            Err(PackError::Path { .. }) => {
                prop_assert!(files.iter().any(|(path, _)| check_relative_path(path).is_err()));
            }
            Err(PackError::FileTooLarge { path, size, .. }) => {
                prop_assert_eq!(path, "manifest.json");
                prop_assert!(size > MANIFEST_BYTES_MAX);
            }
            Err(fault) => {
                let clashes = ["pack.duplicate", "pack.case_collision", "pack.file_and_directory"];
                prop_assert!(clashes.contains(&fault.code()), "{}", fault);
            }
        }
    }

    #[test]
    fn the_order_of_the_files_does_not_matter(
        files in proptest::collection::btree_map("[a-c]{1,3}", content(), 2..6),
        by in 1_usize..5,
    ) {
        let mut files: Vec<_> = files.into_iter().collect();
        let bundle = pack(files.clone()).unwrap();
        let by = by % files.len();
        files.rotate_left(by);
        prop_assert_eq!(pack(files.clone()).unwrap(), bundle.clone());
        let mut written = Vec::new();
        pack_into(files, &mut written).unwrap();
        prop_assert_eq!(written, bundle);
    }
}
