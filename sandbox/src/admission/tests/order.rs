//! An admission hands over what was verified, and refuses for the first real reason.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;
use themis_messages::ids::Tier;
use themis_messages::lifecycle::LoadRequest;
use themis_messages::limits::PLUGIN_BYTES_MAX;
use themis_messages::manifest::Manifest;

use crate::admission::fixtures::{
    Site, digest, geo, library, library_path, make_dir, manifest, name, time, write,
};
use crate::admission::{NameSet, SigningKey};

#[test]
fn what_is_handed_over_is_what_was_signed() {
    let Some(bytes) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let files: [(&str, &[u8]); 3] = [(&native, &bytes), ("data/a", b"aaa"), ("data/b", b"")];
    let dir = site.plugin("geo", "1.0.0", &files);
    for path in [PathBuf::from("geo/1.0.0"), PathBuf::from("geo/1.0.0/"), dir.clone()] {
        let admitted = site.admit(&path).unwrap();
        assert_eq!(admitted.image.bytes(), bytes);
        assert_eq!(admitted.image.digest(), digest(&bytes));
        assert_eq!(admitted.data.len(), 2);
        assert_eq!(admitted.data["data/a"].bytes(), b"aaa");
        assert_eq!(admitted.descriptor.name.as_str(), "geo");
        assert_eq!(admitted.manifest.name.as_str(), "geo");
        let signed = std::fs::read(dir.join("manifest.json")).unwrap();
        assert_eq!(admitted.manifest_digest, Some(digest(&signed)));
        assert_eq!(admitted.key_id, site.key.public_key().key_id());
        assert_eq!((admitted.tier, &admitted.path), (Tier::InProcess, &dir));
    }
}

#[test]
fn files_for_other_targets_are_checked_but_not_kept() {
    let Some(bytes) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let files: [(&str, &[u8]); 3] = [(&native, &bytes), ("geo.wasm", b"\0asm"), ("other", b"x")];
    let mut value = manifest("geo", "1.0.0", &files, &site.key);
    value["files"][1]["target"] = json!("wasm32");
    value["files"][2]["target"] = json!("plan9-mips");
    let dir = site.plugin("geo", "1.0.0", &files);
    site.sign(&dir, &value);
    assert!(site.admit("geo/1.0.0").unwrap().data.is_empty());
    write(&dir.join("other"), b"y");
    assert_eq!(site.refusal(), "file.digest_mismatch");
}

/// A plugin at which everything is wrong is put right step by step: each step uncovers the next reason.
#[test]
fn the_first_real_reason_is_told() {
    let Some(good) = geo() else { return };
    let Some(other) = library("geo", "1.0.1", "", &[]) else { return };
    let mut site = Site::new();
    let dir = site.root().join("geo/1.0.0");
    site.policy.allow = NameSet::Only([].into());
    site.policy.trusted_in_process.clear();
    site.policy.floors.insert(name("geo"), "2.0.0".parse().unwrap());
    assert_eq!(site.refusal(), "path.not_found");

    make_dir(&dir);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o775)).unwrap();
    assert_eq!(site.refusal(), "path.writable_by_others");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(site.refusal(), "path.not_found");
    write(&dir.join("manifest.json"), b"{}");
    assert_eq!(site.refusal(), "manifest.missing_field");

    until_the_signature(&mut site, &dir);
    from_the_signature_to_the_tier(&mut site, &dir);
    files_and_library(&mut site, &dir, &good, &other);
}

/// Place, name, keys: all that can be wrong before a signature is looked at.
fn until_the_signature(site: &mut Site, dir: &Path) {
    let stranger = SigningKey::generate().unwrap();
    let mut value = without_library(&stranger);
    (value["name"], value["version"]) = (json!("text"), json!("9.0.0"));
    let put = |site: &Site, value: &serde_json::Value| site.sign(dir, value);
    put(site, &value);
    std::fs::remove_file(dir.join("plugin.sig")).unwrap();
    assert_eq!(site.refusal(), "manifest.id_mismatch");
    value["name"] = json!("geo");
    put(site, &value);
    std::fs::remove_file(dir.join("plugin.sig")).unwrap();
    assert_eq!(site.refusal(), "manifest.version_mismatch");
    value["version"] = json!("1.0.0");
    put(site, &value);
    std::fs::remove_file(dir.join("plugin.sig")).unwrap();
    assert_eq!(site.refusal(), "policy.not_allowed");
    site.policy.allow = NameSet::Any;
    assert_eq!(site.refusal(), "key.unknown");
    value["key_id"] = json!(site.key.public_key().key_id());
    put(site, &value);
    site.policy.keys[0].plugins = NameSet::Only([].into());
    assert_eq!(site.refusal(), "key.not_entitled");
    site.policy.keys[0].plugins = NameSet::Any;
    site.policy.keys[0].not_after = Some(time("2026-05-01T00:00:00Z"));
    assert_eq!(site.refusal(), "key.expired");
    site.policy.keys[0].not_after = None;
    std::fs::remove_file(dir.join("plugin.sig")).unwrap();
    assert_eq!(site.refusal(), "sig.missing");
}

/// A manifest at which everything else is wrong that a signature covers.
fn without_library(key: &SigningKey) -> serde_json::Value {
    let no_library: [(&str, &[u8]); 1] = [("data/a", b"a")];
    let mut value = manifest("geo", "1.0.0", &no_library, key);
    value["abi"] = json!("2.0");
    value["expires"] = json!("2026-05-31T00:00:00Z");
    value
}

fn from_the_signature_to_the_tier(site: &mut Site, dir: &Path) {
    let mut value = without_library(&site.key);
    let put = |site: &Site, value: &serde_json::Value| site.sign(dir, value);
    put(site, &value);
    write(&dir.join("plugin.sig"), &[0; 64]);
    assert_eq!(site.refusal(), "sig.mismatch");
    put(site, &value);
    assert_eq!(site.refusal(), "manifest.expired");
    value["expires"] = json!(null);
    put(site, &value);
    assert_eq!(site.refusal(), "version.below_floor");
    site.policy.floors.clear();
    let revoked = digest(value.to_string().as_bytes());
    site.policy.revoked_digests.insert(revoked);
    assert_eq!(site.refusal(), "digest.revoked");
    site.policy.revoked_digests.clear();
    assert_eq!(site.refusal(), "abi.unsupported");
    value["abi"] = json!("1.0");
    put(site, &value);
    assert_eq!(site.refusal(), "policy.not_trusted_in_process");
    site.policy.trusted_in_process.insert(name("geo"));
    assert_eq!(site.refusal(), "manifest.no_target");
}

fn files_and_library(site: &mut Site, dir: &Path, good: &[u8], other: &[u8]) {
    let native = library_path();
    let files: [(&str, &[u8]); 2] = [(&native, good), ("data/a", b"a")];
    site.sign(dir, &manifest("geo", "1.0.0", &files, &site.key));
    assert_eq!(site.refusal(), "bundle.missing_file");
    write(&dir.join(&native), other);
    write(&dir.join("data/a"), b"b");
    write(&dir.join("extra"), b"");
    assert_eq!(site.refusal(), "bundle.unlisted_file");
    std::fs::remove_file(dir.join("extra")).unwrap();
    write(&dir.join(&native), &[other, b"x"].concat());
    assert_eq!(site.refusal(), "file.size_mismatch");
    let mut same_size = good.to_vec();
    same_size[0] ^= 1;
    write(&dir.join(&native), &same_size);
    assert_eq!(site.refusal(), "file.digest_mismatch");
    write(&dir.join(&native), good);
    assert_eq!(site.refusal(), "file.digest_mismatch", "the data file");
    write(&dir.join("data/a"), b"a");
    site.policy.revoked_digests.insert(digest(b"a"));
    assert_eq!(site.refusal(), "digest.revoked", "of a file");
    site.policy.revoked_digests.clear();
    assert!(site.admit("geo/1.0.0").is_ok());

    let files: [(&str, &[u8]); 1] = [(&native, other)];
    std::fs::remove_dir_all(dir.join("data")).unwrap();
    site.plugin("geo", "1.0.0", &files);
    assert_eq!(site.refusal(), "descriptor.mismatch", "the library says 1.0.1");
    site.policy.file_bytes_max = 100;
    assert_eq!(site.refusal(), "file.too_large");
}

#[test]
fn a_manifest_handed_over_must_be_the_signed_one() {
    let Some(bytes) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let dir = site.plugin("geo", "1.0.0", &[(&native, &bytes)]);
    let path = dir.join("manifest.json");
    let signed = Manifest::parse(&path, &std::fs::read(&path).unwrap()).unwrap();
    let mut request = LoadRequest::at("geo/1.0.0");
    request.manifest = Some(signed.clone());
    assert!(site.admit_request(&request).is_ok());
    request.manifest = Some(Manifest { license: Some("X".to_owned()), ..signed });
    let error = site.admit_request(&request).unwrap_err();
    assert_eq!(error.code(), "manifest.differs");
    assert!(error.to_string().contains("license"), "{error}");
}

#[test]
fn only_a_place_below_the_root_can_be_loaded() {
    let Some(bytes) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    site.plugin("geo", "1.0.0", &[(&native, &bytes)]);
    let code = |path: &str| site.admit(path).unwrap_err().code();
    assert_eq!(code("."), "path.invalid");
    assert_eq!(code("geo"), "path.not_found", "there is no manifest");
    assert_eq!(code("geo/2.0.0"), "path.not_found");
    assert_eq!(code("../plugins/geo/1.0.0"), "path.escapes");
    assert_eq!(code("/geo/1.0.0"), "path.escapes");
    symlink("geo", site.root().join("link")).unwrap();
    assert_eq!(code("link/1.0.0"), "path.symlink");
    // A plugin right below the root is in no place that could say its name.
    let flat = site.root().join("1.0.0");
    std::fs::rename(site.root().join("geo/1.0.0"), &flat).unwrap();
    assert_eq!(code("1.0.0"), "manifest.id_mismatch");
}

#[test]
fn all_files_together_have_a_limit_too() {
    let site = Site::new();
    let files: [(&str, &[u8]); 2] = [(&library_path(), b"elf"), ("data/a", b"a")];
    let dir = site.plugin("geo", "1.0.0", &files);
    let mut value = manifest("geo", "1.0.0", &files, &site.key);
    for file in 0..2 {
        value["files"][file]["size"] = json!(PLUGIN_BYTES_MAX / 2 + 1);
    }
    site.sign(&dir, &value);
    assert_eq!(site.refusal(), "file.too_large");
}
