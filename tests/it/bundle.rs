//! Bundles: one file with builds for several platforms, from which this machine takes what it can run.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use themis_kernel::Kernel;
use themis_kernel::admission::bundle::{Bundle, pack};
use themis_kernel::admission::{Inspected, SigningKey, inspect, pack_dir, sign_dir, verify_plugin};
use themis_kernel::ids::Tier;
use themis_kernel::lifecycle::LoadRequest;
use themis_tests::{Fixture, Site, Timestamp};

/// A bundle with the builds of `counter` for these targets.
fn bundle(site: &Site, version: &str, targets: &[&str]) -> PathBuf {
    let fixture = Fixture::c("counter.c", "counter", version).with_wasm();
    let dir = site.root().join(site.add(&fixture.data("data/words.txt", b"some words")));
    let path = dir.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let files = manifest["files"].as_array_mut().unwrap();
    files.retain(|file| {
        let (target, path) = (file["target"].as_str().unwrap(), file["path"].as_str().unwrap());
        let stays = target == "data" || targets.contains(&target);
        if !stays {
            std::fs::remove_file(dir.join(path)).unwrap();
        }
        stays
    });
    if targets.contains(&"macos-aarch64") {
        themis_tests::make_dir(&dir.join("macos-aarch64"));
        std::fs::write(dir.join("macos-aarch64/libcounter.dylib"), b"of another machine").unwrap();
        files.push(json!({"path": "macos-aarch64/libcounter.dylib", "target": "macos-aarch64"}));
    }
    if !targets.contains(&"linux-x86_64") {
        std::fs::remove_dir(dir.join("linux-x86_64")).unwrap();
    }
    std::fs::write(&path, manifest.to_string()).unwrap();
    sign_dir(&dir, &site.key).unwrap();
    let bundle = site.root().join(format!("counter-{version}.tdb"));
    pack_dir(&dir, Some(&bundle)).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    bundle
}

fn start(site: &Site) -> Kernel {
    let mut config = site.config(&["counter"]);
    config.default_tier = Tier::Process;
    Kernel::start_blocking(config).unwrap()
}

#[test]
fn a_bundle_loads_as_the_build_for_this_machine_else_as_wasm() {
    for (targets, tier) in [
        (&["linux-x86_64", "wasm32", "macos-aarch64"][..], Tier::Process),
        (&["wasm32", "macos-aarch64"], Tier::Wasm),
        (&["linux-x86_64"], Tier::Process),
    ] {
        let site = Site::new();
        let path = bundle(&site, "1.0.0", targets);
        let kernel = start(&site);
        let counter = kernel.loader().load_blocking(&path, None).unwrap();
        assert_eq!(counter.info().tier, Some(tier), "{targets:?}");
        assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
        let next = bundle(&site, "1.1.0", targets);
        kernel.reloads().reload_module_blocking("counter", &next).unwrap();
        assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.1.0");
        kernel.reloads().rollback_blocking("counter").unwrap();
        assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
        kernel.shutdown_blocking();
    }
}

#[test]
fn without_a_build_for_this_machine_what_is_inside_is_named() {
    let site = Site::new();
    let path = bundle(&site, "1.0.0", &["macos-aarch64"]);
    let kernel = start(&site);
    let refused = kernel.loader().load_blocking(&path, None).unwrap_err();
    assert_eq!(refused.code(), "manifest.no_target");
    assert!(refused.to_string().contains("macos-aarch64"), "{refused}");
    kernel.shutdown_blocking();
}

#[test]
fn a_tier_that_was_asked_for_by_name_is_not_replaced() {
    let site = Site::new();
    let path = bundle(&site, "1.0.0", &["wasm32"]);
    let kernel = start(&site);
    let request = LoadRequest { tier: Some(Tier::Process), ..LoadRequest::at(path) };
    let refused = kernel.loader().load_request_blocking(request).unwrap_err();
    assert_eq!(refused.code(), "manifest.no_target");
    assert!(refused.to_string().contains("wasm32"), "{refused}");
    kernel.shutdown_blocking();
}

/// Everything that a directory is refused for, a bundle of the same files is.
#[test]
fn what_is_signed_counts_and_nothing_else() {
    let site = Site::new();
    let key = site.key.public_key();
    let good = bundle(&site, "1.0.0", &["linux-x86_64", "wasm32"]);
    let now = Timestamp::now();
    assert_eq!(verify_plugin(&good, &key, now).unwrap().manifest.name.as_str(), "counter");
    let stranger = SigningKey::generate().unwrap().public_key();
    assert_eq!(verify_plugin(&good, &stranger, now).unwrap_err().code(), "key.unknown");
    let sixty_four = "0".repeat(63) + "\0";
    for (what, path, text, expected) in [
        ("another file beside", "extra", "x", "bundle.unlisted_file"),
        ("another manifest", "manifest.json", "{}", "manifest.missing_field"),
        ("another signature", "plugin.sig", sixty_four.as_str(), "sig.mismatch"),
        ("a short signature", "plugin.sig", "short", "sig.length"),
        ("other data", "data/words.txt", "same words", "file.digest_mismatch"),
        ("longer data", "data/words.txt", "some words and more", "file.size_mismatch"),
    ] {
        let changed = repacked(&good, path, text);
        let found = verify_plugin(&changed, &key, now).map(drop).map_err(|it| it.code());
        assert_eq!(found, Err(expected), "{what}");
    }
}

/// A bundle with one file changed or added.
fn repacked(good: &Path, path: &str, text: &str) -> PathBuf {
    let bytes = std::fs::read(good).unwrap();
    let bundle = Bundle::read(&bytes).unwrap();
    let kept = bundle.entries().iter().filter(|entry| entry.path() != path);
    let mut files: Vec<_> =
        kept.map(|entry| (entry.path().to_owned(), entry.to_vec().unwrap())).collect();
    files.push((path.to_owned(), text.as_bytes().to_vec()));
    let changed = good.with_file_name("changed.tdb");
    std::fs::write(&changed, pack(files).unwrap()).unwrap();
    changed
}

#[test]
fn a_bundle_is_looked_at_without_running_any_of_it() {
    let site = Site::new();
    let path = bundle(&site, "1.0.0", &["linux-x86_64", "wasm32"]);
    let Inspected::Bundle(found) = inspect(&path).unwrap() else { panic!("it is a bundle") };
    assert_eq!((found.name.as_str(), found.version.as_str()), ("counter", "1.0.0"));
    assert_eq!(found.runs_here.as_deref(), Some("linux-x86_64"));
    let files: Vec<_> =
        found.files.iter().map(|it| (it.path.as_str(), it.target.as_deref())).collect();
    let expected = [
        ("manifest.json", None),
        ("plugin.sig", None),
        ("counter.wasm", Some("wasm32")),
        ("data/words.txt", Some("data")),
        ("linux-x86_64/libcounter.so", Some("linux-x86_64")),
    ];
    assert_eq!(files, expected);
    assert!(found.files.iter().all(|it| it.packed_size <= it.size));
}

#[test]
fn nothing_of_a_bundle_is_left_in_a_directory() {
    let site = Site::new();
    let path = bundle(&site, "1.0.0", &["linux-x86_64", "wasm32"]);
    let kernel = start(&site);
    let before = files_below(site.path());
    kernel.loader().load_blocking(&path, None).unwrap();
    kernel.unload_blocking("counter").unwrap();
    let after = files_below(site.path());
    let new: Vec<_> = after.into_iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(new, Vec::<PathBuf>::new());
    kernel.shutdown_blocking();
}

/// Files but those of the database, which makes its own.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.join("CURRENT").exists() {
            found.extend(files_below(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}
