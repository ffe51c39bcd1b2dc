//! The known attacks on signed plugins, by their number, as far as no other test has them.
//!
//! With their parts: A1–A7 and A16–A19 keys and policy, A23 and A24 (text) and A29 (manifest) the manifest's
//! parser, A29 (request) and A31 the root, A32 and A33 (shape) the pre-flight. A12 (a key that comes with the
//! download) and A15 (a threshold met by one signature twice) have no place here: keys are only ever
//! configured, and one signature by the one named key is what counts. A20: nothing is parsed as code before
//! its digest is known. A21: [`SigningKey::sign`] takes no public key.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use themis_messages::admit::AdmitError;

use crate::admission::fixtures::{
    Site, digest, geo, library, library_path, make_dir, manifest, pin, time, write,
};
use crate::admission::{NameSet, SigningKey};

/// A small plugin that is refused only because its library is none: everything before that is right.
fn hollow(site: &Site) -> std::path::PathBuf {
    let native = library_path();
    let dir = site.plugin("geo", "1.0.0", &[(&native, b"no library"), ("data/a.txt", b"a\nb\n")]);
    assert_eq!(site.refusal(), "elf.format", "untouched, it gets as far as its library");
    dir
}

#[test]
fn a8_a_signature_of_any_other_length_is_refused() {
    let site = Site::new();
    let dir = hollow(&site);
    let right = fs::read(dir.join("plugin.sig")).unwrap();
    for length in [0, 1, 32, 63, 65, 128, 100_000] {
        let wrong: Vec<u8> = right.iter().copied().cycle().take(length).collect();
        write(&dir.join("plugin.sig"), &wrong);
        let expected =
            AdmitError::SignatureLength { path: dir.join("plugin.sig"), found: length as u64 };
        assert_eq!(site.admit("geo/1.0.0").unwrap_err(), expected);
    }
}

#[test]
fn a9_a10_a_signature_counts_only_in_its_own_place() {
    let site = Site::new();
    let dir = hollow(&site);
    let code = |path: &str| site.admit(path).unwrap_err().code();
    for (place, expected) in [
        ("text/1.0.0", "manifest.id_mismatch"),
        ("geo2/1.0.0", "manifest.id_mismatch"),
        ("geo/2.0.0", "manifest.version_mismatch"),
        ("geo/1.0.0-rc.1", "manifest.version_mismatch"),
        ("geo/v1.0.0", "manifest.version_mismatch"),
    ] {
        let to = site.root().join(place);
        make_dir(to.parent().unwrap());
        fs::rename(&dir, &to).unwrap();
        assert_eq!(code(place), expected, "{place}");
        fs::rename(&to, &dir).unwrap();
    }
}

#[test]
fn a11_the_key_that_is_named_is_the_only_one_tried() {
    let mut site = Site::new();
    let dir = hollow(&site);
    let second = SigningKey::generate().unwrap();
    site.policy.keys.push(pin(second.public_key()));
    let native = library_path();
    let files: [(&str, &[u8]); 2] = [(&native, b"no library"), ("data/a.txt", b"a\nb\n")];
    // Signed by the first key, but it names the second: both are trusted, and still.
    site.sign(&dir, &manifest("geo", "1.0.0", &files, &second));
    assert_eq!(site.refusal(), "sig.mismatch");
    site.sign(&dir, &manifest("geo", "1.0.0", &files, &SigningKey::generate().unwrap()));
    assert_eq!(site.refusal(), "key.unknown");
}

#[test]
fn a12_a_key_in_the_plugin_is_not_a_key() {
    let site = Site::new();
    let dir = hollow(&site);
    let own = SigningKey::generate().unwrap();
    let native = library_path();
    let pem = own.public_key().to_pem().unwrap();
    let files: [(&str, &[u8]); 2] = [(&native, b"no library"), ("key.pub.pem", pem.as_bytes())];
    fs::remove_dir_all(&dir).unwrap();
    site.plugin("geo", "1.0.0", &files);
    let value = manifest("geo", "1.0.0", &files, &own).to_string();
    write(&dir.join("manifest.json"), value.as_bytes());
    write(&dir.join("plugin.sig"), &own.sign(value.as_bytes()));
    assert_eq!(site.refusal(), "key.unknown");
}

#[test]
fn a13_a_revoked_key_is_revoked_whenever_it_signed() {
    let mut site = Site::new();
    let dir = hollow(&site);
    let native = library_path();
    let files: [(&str, &[u8]); 2] = [(&native, b"no library"), ("data/a.txt", b"a\nb\n")];
    let mut value = manifest("geo", "1.0.0", &files, &site.key);
    value["created"] = json!("2001-01-01T00:00:00Z");
    site.sign(&dir, &value);
    site.policy.revoked_keys.insert(site.key.public_key().key_id());
    for now in ["2001-01-02T00:00:00Z", "2026-06-01T00:00:00Z"] {
        site.now = time(now);
        assert_eq!(site.refusal(), "key.revoked");
    }
}

#[test]
fn a14_dates_are_refused_with_their_date() {
    let mut site = Site::new();
    let dir = hollow(&site);
    let (before, after) = (time("2026-05-01T00:00:00Z"), time("2026-07-01T00:00:00Z"));
    site.policy.keys[0].not_after = Some(before);
    let error = site.admit("geo/1.0.0").unwrap_err();
    assert!(error.code() == "key.expired" && error.to_string().contains("2026-05-01"), "{error}");
    site.policy.keys[0].not_after = None;
    site.policy.keys[0].not_before = Some(after);
    let error = site.admit("geo/1.0.0").unwrap_err();
    assert!(error.code() == "key.not_yet_valid" && error.to_string().contains("2026-07-01"));
    site.policy.keys[0].not_before = None;
    let native = library_path();
    let files: [(&str, &[u8]); 2] = [(&native, b"no library"), ("data/a.txt", b"a\nb\n")];
    let mut value = manifest("geo", "1.0.0", &files, &site.key);
    value["expires"] = json!(before.to_string());
    site.sign(&dir, &value);
    let error = site.admit("geo/1.0.0").unwrap_err();
    assert!(error.code() == "manifest.expired" && error.to_string().contains("2026-05-01"));
}

#[test]
fn a17_a34_no_manifest_chooses_an_algorithm_or_waives_its_signature() {
    let site = Site::new();
    let dir = hollow(&site);
    let files: [(&str, &[u8]); 1] = [("data/a.txt", b"a\nb\n")];
    for key in ["alg", "algorithm", "allow_unsigned", "unsigned", "signature"] {
        let mut value = manifest("geo", "1.0.0", &files, &site.key);
        value[key] = json!("none");
        site.sign(&dir, &value);
        assert_eq!(site.refusal(), "manifest.unknown_key", "{key}");
    }
    hollow(&site);
    fs::remove_file(dir.join("plugin.sig")).unwrap();
    assert_eq!(site.refusal(), "sig.missing");
}

/// Every bit of the signature and of a small file, every byte of the manifest.
#[test]
fn a22_one_changed_bit_anywhere_is_refused() {
    let site = Site::new();
    let dir = hollow(&site);
    for (file, codes) in [
        ("plugin.sig", &["sig.mismatch", "sig.scalar_range"][..]),
        ("data/a.txt", &["file.digest_mismatch"]),
    ] {
        let right = fs::read(dir.join(file)).unwrap();
        for bit in 0..right.len() * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            write(&dir.join(file), &wrong);
            assert!(codes.contains(&site.refusal()), "{file}, bit {bit}: {}", site.refusal());
        }
        write(&dir.join(file), &right);
    }
    let right = fs::read(dir.join("manifest.json")).unwrap();
    for at in 0..right.len() {
        let mut wrong = right.clone();
        wrong[at] ^= 1 << (at % 7);
        write(&dir.join("manifest.json"), &wrong);
        let code = site.refusal();
        assert_ne!(code, "elf.format", "byte {at} was not noticed");
    }
    for len in 0..right.len() {
        write(&dir.join("manifest.json"), &right[..len]);
        assert_ne!(site.refusal(), "elf.format", "cut after {len} bytes was not noticed");
    }
    write(&dir.join("manifest.json"), &right);
    assert_eq!(site.refusal(), "elf.format", "everything is as it was");
}

#[test]
fn a22_a_library_cut_short_anywhere_is_refused() {
    let Some(bytes) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let dir = site.plugin("geo", "1.0.0", &[(&native, &bytes)]);
    for len in 0..bytes.len() {
        write(&dir.join(&native), &bytes[..len]);
        assert_eq!(site.refusal(), "file.size_mismatch", "cut after {len} bytes");
    }
}

#[test]
fn a22_one_changed_bit_in_the_library_is_refused() {
    let Some(bytes) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let dir = site.plugin("geo", "1.0.0", &[(&native, &bytes)]);
    for at in 0..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1 << (at % 8);
        write(&dir.join(&native), &wrong);
        let expected = AdmitError::DigestMismatch {
            path: dir.join(&native),
            expected: digest(&bytes),
            found: digest(&wrong),
        };
        assert_eq!(site.admit("geo/1.0.0").unwrap_err(), expected);
    }
    write(&dir.join(&native), &bytes[..bytes.len() - 1]);
    assert_eq!(site.refusal(), "file.size_mismatch", "A20: cut short");
    write(&dir.join(&native), &bytes);
    assert!(site.admit("geo/1.0.0").is_ok());
}

#[test]
fn a24_a_manifest_of_100_mb_is_not_read() {
    let site = Site::new();
    let dir = hollow(&site);
    let file = fs::File::options().write(true).open(dir.join("manifest.json")).unwrap();
    file.set_len(100_000_000).unwrap();
    let error = site.admit("geo/1.0.0").unwrap_err();
    assert!(matches!(error, AdmitError::FileTooLarge { size: 100_000_000, .. }), "{error}");
}

#[test]
fn a25_what_is_not_listed_may_not_lie_beside_it() {
    let site = Site::new();
    let dir = hollow(&site);
    for extra in ["extra", ".hidden", "data/extra", "data/manifest.json", "manifest.json.bak"] {
        write(&dir.join(extra), b"");
        let expected = AdmitError::UnlistedFile { path: dir.join(extra) };
        assert_eq!(site.admit("geo/1.0.0").unwrap_err(), expected);
        fs::remove_file(dir.join(extra)).unwrap();
    }
    for extra in ["empty", "data/deep/er"] {
        make_dir(&dir.join(extra));
        assert_eq!(site.refusal(), "bundle.unlisted_file", "a directory, {extra}");
        fs::remove_dir_all(dir.join(extra)).unwrap();
        if extra.starts_with("data") {
            fs::remove_dir_all(dir.join("data/deep")).unwrap();
        }
    }
    for i in 0..2_000 {
        write(&dir.join(format!("data/flood{i}")), b"");
    }
    assert_eq!(site.refusal(), "bundle.unlisted_file", "one among very many");
}

#[test]
fn a26_a27_the_missing_or_rewritten_file_is_named() {
    let site = Site::new();
    let dir = hollow(&site);
    let file = dir.join("data/a.txt");
    write(&file, b"a\r\nb\r\n");
    let error = site.admit("geo/1.0.0").unwrap_err();
    let expected = AdmitError::SizeMismatch { path: file.clone(), expected: 4, found: 6 };
    assert_eq!(error, expected, "A27: line ends");
    write(&file, b"a\rb\r");
    assert!(site.admit("geo/1.0.0").unwrap_err().to_string().contains("data/a.txt"));
    fs::remove_file(&file).unwrap();
    let missing = AdmitError::MissingFile { path: file.clone() };
    assert_eq!(site.admit("geo/1.0.0").unwrap_err(), missing, "A26");
    fs::remove_dir(dir.join("data")).unwrap();
    assert_eq!(site.admit("geo/1.0.0").unwrap_err(), missing, "A26: with its directory");
    make_dir(&file);
    assert_eq!(site.refusal(), "path.wrong_file_type", "a directory of that name");
}

#[test]
fn a28_a_name_that_looks_alike_is_another_name() {
    let mut site = Site::new();
    let dir = hollow(&site);
    site.policy.allow = NameSet::Only(["geo".parse().unwrap()].into());
    for alike in ["Geo", "GEO", "gеo", "ge\u{43e}", "geo\u{301}"] {
        let to = site.root().join(alike).join("1.0.0");
        make_dir(to.parent().unwrap());
        fs::rename(&dir, &to).unwrap();
        let code = site.admit(Path::new(alike).join("1.0.0")).unwrap_err().code();
        assert_eq!(code, "manifest.id_mismatch", "{alike}");
        let mut value = manifest("geo", "1.0.0", &[("a", b"")], &site.key);
        value["name"] = json!(alike);
        site.sign(&to, &value);
        let code = site.admit(Path::new(alike).join("1.0.0")).unwrap_err().code();
        assert_eq!(code, "manifest.field", "{alike}");
        fs::remove_dir_all(site.root().join(alike)).unwrap();
        hollow(&site);
    }
}

/// A30: a file swapped by rename ten thousand times while it is admitted. What is admitted is always what
/// was signed; the other version is always refused.
#[test]
fn a30_swapping_by_rename_has_no_effect() {
    let Some(good) = geo() else { return };
    let Some(mut evil) = library("geo", "1.0.0", "int evil;", &[]) else { return };
    evil.resize(good.len(), 0);
    assert_ne!(good, evil);
    let site = Site::new();
    let native = library_path();
    let dir = site.plugin("geo", "1.0.0", &[(&native, &good)]);
    let (stash, target) = (site.dir.path().join("stash"), dir.join(&native));
    let swaps = 10_000;
    race(&site, &good, || {
        for i in 0..swaps {
            write(&stash, if i % 2 == 0 { &evil } else { &good });
            fs::rename(&stash, &target).unwrap();
        }
    });
}

/// A30: the same file overwritten in place, through a second name for it.
#[test]
fn a30_overwriting_in_place_has_no_effect() {
    let Some(good) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let dir = site.plugin("geo", "1.0.0", &[(&native, &good)]);
    let second_name = site.dir.path().join("hard-link");
    fs::hard_link(dir.join(&native), &second_name).unwrap();
    let mut evil = good.clone();
    evil[good.len() / 2] ^= 1;
    race(&site, &good, || {
        for i in 0..10_000 {
            fs::write(&second_name, if i % 2 == 0 { &evil } else { &good }).unwrap();
        }
    });
}

/// A30: a whole plugin directory swapped for a link to another one.
#[test]
fn a30_swapping_a_directory_for_a_link_has_no_effect() {
    let Some(good) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let dir = site.plugin("geo", "1.0.0", &[(&native, &good)]);
    let (aside, link) = (site.dir.path().join("aside"), site.dir.path().join("link"));
    let evil = site.dir.path().join("evil");
    write(&evil.join(&native), b"evil");
    race(&site, &good, || {
        for _ in 0..2_000 {
            symlink(&evil, &link).unwrap();
            fs::rename(&dir, &aside).unwrap();
            fs::rename(&link, &dir).unwrap();
            fs::remove_file(&dir).unwrap();
            fs::rename(&aside, &dir).unwrap();
        }
    });
}

/// Admits over and over while `attack` runs in another thread, and once more when it is over.
fn race(site: &Site, good: &[u8], attack: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let attacker = scope.spawn(attack);
        loop {
            let last = attacker.is_finished();
            if let Ok(admitted) = site.admit("geo/1.0.0") {
                assert_eq!(admitted.image.digest(), digest(good));
                assert_eq!(admitted.image.bytes(), good);
            }
            if last {
                break;
            }
        }
    });
    let native = library_path();
    write(&site.root().join("geo/1.0.0").join(native), good);
    assert!(site.admit("geo/1.0.0").is_ok());
}

#[test]
fn a30_what_was_admitted_does_not_change_with_its_file() {
    let Some(good) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let dir = site.plugin("geo", "1.0.0", &[(&native, &good), ("data/a", b"kept")]);
    let admitted = site.admit("geo/1.0.0").unwrap();
    fs::write(dir.join(&native), vec![0; good.len()]).unwrap();
    fs::write(dir.join("data/a"), b"").unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(admitted.image.bytes(), good);
    assert_eq!(admitted.data["data/a"].bytes(), b"kept");
}

#[test]
fn a31_a_link_in_the_plugin_is_refused_wherever_it_leads() {
    let site = Site::new();
    let dir = hollow(&site);
    write(&site.dir.path().join("outside"), b"a\nb\n");
    for target in [site.dir.path().join("outside"), dir.join("manifest.json"), "/dev/null".into()] {
        fs::remove_file(dir.join("data/a.txt")).unwrap();
        symlink(&target, dir.join("data/a.txt")).unwrap();
        let error = site.admit("geo/1.0.0").unwrap_err();
        assert_eq!(error, AdmitError::PathSymlink { path: dir.join("data/a.txt") });
        assert!(error.is_permission());
    }
    fs::remove_dir_all(dir.join("data")).unwrap();
    symlink(site.dir.path(), dir.join("data")).unwrap();
    assert_eq!(site.refusal(), "path.symlink", "a directory of the plugin");
    fs::remove_file(dir.join("manifest.json")).unwrap();
    symlink(site.dir.path().join("outside"), dir.join("manifest.json")).unwrap();
    assert_eq!(site.refusal(), "path.symlink", "the manifest");
}

#[test]
fn a32_a33_a_signature_does_not_make_a_library_fit() {
    let native = library_path();
    let signed = |bytes: &[u8]| {
        let site = Site::new();
        site.plugin("geo", "1.0.0", &[(&native, bytes)]);
        site.refusal()
    };
    assert_eq!(signed(b""), "elf.format", "empty");
    assert_eq!(signed(b"\0asm\x01\0\0\0"), "elf.format", "a module under a library's name");
    let Some(good) = geo() else { return };
    let mut foreign = good;
    foreign[18..20].copy_from_slice(&[8, 0]);
    assert_eq!(signed(&foreign), "elf.architecture");
    let rpath = library("geo", "1.0.0", "", &["-Wl,-rpath,/tmp"]).unwrap();
    assert_eq!(signed(&rpath), "elf.search_path", "A32");
    let needs = library("geo", "1.0.0", "", &["-Wl,--no-as-needed", "-lresolv"]).unwrap();
    assert_eq!(signed(&needs), "elf.needed", "A32");
    let text = library("text", "1.0.0", "", &[]).unwrap();
    assert_eq!(signed(&text), "descriptor.mismatch", "another plugin's library");
}

/// A35: an update in place shows the key that signed the update, not the one of what lay there before.
#[test]
fn a35_provenance_is_that_of_the_new_files() {
    let Some(bytes) = geo() else { return };
    let mut site = Site::new();
    let native = library_path();
    site.plugin("geo", "1.0.0", &[(&native, &bytes)]);
    let first = site.admit("geo/1.0.0").unwrap().key_id;
    site.key = SigningKey::generate().unwrap();
    site.plugin("geo", "1.0.0", &[(&native, &bytes)]);
    assert_eq!(site.refusal(), "key.unknown");
    site.policy.keys.push(pin(site.key.public_key()));
    let second = site.admit("geo/1.0.0").unwrap().key_id;
    assert_eq!(second, site.key.public_key().key_id());
    assert_ne!(first, second);
}
