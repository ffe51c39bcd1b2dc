//! What discovery finds, refuses and passes over.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::admission::fixtures::{Site, make_dir, write};

fn run(site: &Site) -> Vec<(String, Result<String, &'static str>)> {
    let found = discover(&site.open(), &site.policy, site.now).unwrap();
    let root = site.root();
    let tell = |found: Discovered| {
        let path = found.path.strip_prefix(&root).unwrap().display().to_string();
        let told = found.result.map(|it| format!("{} {}", it.manifest.name, it.manifest.version));
        (path, told.map_err(|error| error.code()))
    };
    found.into_iter().map(tell).collect()
}

#[test]
fn an_empty_root_holds_nothing() {
    assert_eq!(run(&Site::new()), []);
}

#[test]
fn each_version_is_verified_in_full_and_told_in_order() {
    let site = Site::new();
    let data: [(&str, &[u8]); 1] = [("data/a", b"bytes")];
    for (name, version) in
        [("text", "1.0.0"), ("geo", "1.10.0"), ("geo", "1.2.0"), ("bad", "1.0.0"), ("bad", "2.0.0")]
    {
        site.plugin(name, version, &data);
    }
    write(&site.root().join("bad/1.0.0/data/a"), b"bytez");
    write(&site.root().join("bad/2.0.0/extra"), b"");
    site.plugin("moved", "1.0.0", &data);
    fs::rename(site.root().join("moved/1.0.0"), site.root().join("moved/3.0.0")).unwrap();
    make_dir(&site.root().join("empty/1.0.0"));
    make_dir(&site.root().join("nothing"));
    make_dir(&site.root().join(".staging/1.0.0"));
    write(&site.root().join("libalone.so"), b"passed over");
    symlink("geo", site.root().join("link")).unwrap();
    let told = |text: &str| Ok(text.to_owned());
    let expected = [
        ("bad/1.0.0", Err("file.digest_mismatch")),
        ("bad/2.0.0", Err("bundle.unlisted_file")),
        ("empty/1.0.0", Err("path.not_found")),
        ("geo/1.10.0", told("geo 1.10.0")),
        ("geo/1.2.0", told("geo 1.2.0")),
        ("link", Err("path.symlink")),
        ("moved/3.0.0", Err("manifest.version_mismatch")),
        ("text/1.0.0", told("text 1.0.0")),
    ];
    assert_eq!(run(&site), expected.map(|(path, told)| (path.to_owned(), told)));
}

#[test]
fn many_versions_are_shared_out_without_losing_one() {
    let site = Site::new();
    let versions: Vec<String> = (0..200).map(|i| format!("1.0.{i}")).collect();
    for version in &versions {
        site.plugin("geo", version, &[("a", version.as_bytes())]);
    }
    let found = run(&site);
    assert_eq!(found.len(), versions.len());
    assert!(found.iter().all(|(_, result)| result.is_ok()));
    assert!(found.is_sorted());
}

#[test]
fn a_root_that_became_writable_is_not_looked_at() {
    let site = Site::new();
    let root = site.open();
    fs::set_permissions(site.root(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let refused = discover(&root, &site.policy, site.now).unwrap_err();
    assert_eq!(refused.code(), "path.writable_by_others");
}
