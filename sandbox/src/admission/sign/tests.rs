//! What the author's tools write is what the loader admits, and they refuse what it would refuse.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::admission::fixtures::{Site, digest, geo, library_path, make_dir, time, write};
use crate::admission::verify_plugin;
use crate::admission::{VerifyError, sign_detached, verify_detached};

fn bare() -> Value {
    json!({
        "schema": 1, "name": "geo", "version": "1.0.0", "abi": "1.0",
        "methods": [{"name": "distance_km", "id": 1}], "extensions": {"kept": [1, 2]},
    })
}

fn place(site: &Site, manifest: &Value, files: &[(&str, &[u8])]) -> PathBuf {
    let dir = site.root().join("geo/1.0.0");
    for (path, bytes) in files {
        write(&dir.join(path), bytes);
    }
    write(&dir.join("manifest.json"), manifest.to_string().as_bytes());
    dir
}

#[test]
fn what_is_signed_is_admitted() {
    let Some(library) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let module = module();
    let files: [(&str, &[u8]); 4] =
        [(&native, &library), ("geo.wasm", &module), ("data/a.json", b"{}"), ("README", b"")];
    let dir = place(&site, &bare(), &files);
    let manifest = sign_dir(&dir, &site.key).unwrap();
    let listed: Vec<_> = manifest
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.target.as_str(), file.size))
        .collect();
    let native_target = Target::HOST.as_str();
    assert_eq!(
        listed,
        [
            ("README", "data", 0),
            ("data/a.json", "data", 2),
            ("geo.wasm", "wasm32", module.len() as u64),
            (native.as_str(), native_target, library.len() as u64),
        ]
    );
    assert_eq!(manifest.files[3].sha256, digest(&library));
    assert!(manifest.created.is_some());
    assert_eq!(manifest.extensions["kept"][1], 2);
    let summary = verify_plugin(&dir, &site.key.public_key(), site.now).unwrap();
    assert_eq!(summary.manifest, manifest);
    let admitted = site.admit("geo/1.0.0").unwrap();
    assert_eq!(admitted.manifest, manifest);
    assert_eq!(admitted.manifest_digest, Some(summary.manifest_digest));

    // Signing again, after a change, corrects what changed and keeps the rest.
    write(&dir.join("data/a.json"), b"[1]");
    assert!(verify_plugin(&dir, &site.key.public_key(), site.now).is_err());
    let again = sign_dir(&dir, &site.key).unwrap();
    assert_eq!(manifest.first_difference(&again).as_deref(), Some("files"));
    assert_eq!(again.created, manifest.created);
    assert!(site.admit("geo/1.0.0").is_ok());
}

#[test]
fn listed_files_keep_their_order_and_targets() {
    let site = Site::new();
    let mut manifest = bare();
    manifest["files"] = json!([
        {"path": "b", "target": "plan9-mips"},
        {"path": "a.wasm", "target": "data", "sha256": "stale", "size": "stale"},
    ]);
    let dir = place(&site, &manifest, &[("b", b"b"), ("a.wasm", b"aa")]);
    let signed = sign_dir(&dir, &site.key).unwrap();
    assert_eq!(signed.files[0].path, "b");
    assert_eq!(signed.files[0].target, Target::Unknown("plan9-mips".to_owned()));
    assert_eq!((&signed.files[1].target, signed.files[1].size), (&Target::Data, 2));
}

#[test]
fn what_the_loader_would_refuse_is_not_signed() {
    let cases: [(&str, Value, &str); 8] = [
        ("/name", json!("Geo"), "manifest.field"),
        ("/surprise", json!(1), "manifest.unknown_key"),
        ("/files", json!(7), "manifest.field"),
        ("/files", json!([7]), "manifest.field"),
        ("/files", json!([{"target": "data"}]), "manifest.field"),
        ("/files", json!([{"path": "../a", "target": "data"}]), "path.invalid"),
        ("/files", json!([{"path": "gone", "target": "data"}]), "bundle.missing_file"),
        ("/files", json!([{"path": "b", "target": "data"}]), "bundle.unlisted_file"),
    ];
    for (field, value, code) in cases {
        let site = Site::new();
        let mut manifest = bare();
        manifest[&field[1..]] = value;
        let dir = place(&site, &manifest, &[("a", b"a"), ("b", b"b")]);
        let before = fs::read(dir.join("manifest.json")).unwrap();
        let error = sign_dir(&dir, &site.key).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(fs::read(dir.join("manifest.json")).unwrap(), before, "nothing was written");
        assert!(!dir.join("plugin.sig").exists());
    }
    let site = Site::new();
    let dir = place(&site, &bare(), &[("a", b"a")]);
    symlink("a", dir.join("link")).unwrap();
    assert_eq!(sign_dir(&dir, &site.key).unwrap_err().code(), "path.symlink");
    fs::remove_file(dir.join("link")).unwrap();
    write(&dir.join("manifest.json"), b"{\"name\":1,\"name\":2}");
    assert_eq!(sign_dir(&dir, &site.key).unwrap_err().code(), "manifest.duplicate_key");
    write(&dir.join("manifest.json"), b"{");
    assert_eq!(sign_dir(&dir, &site.key).unwrap_err().code(), "manifest.syntax");
    fs::remove_file(dir.join("manifest.json")).unwrap();
    assert_eq!(sign_dir(&dir, &site.key).unwrap_err().code(), "path.not_found");
    let many = place(&site, &bare(), &[]);
    for i in 0..=FILES_MAX {
        write(&many.join(format!("f{i}")), b"");
    }
    assert_eq!(sign_dir(&many, &site.key).unwrap_err().code(), "sign.too_many_files");
}

#[test]
fn verifying_says_what_loading_would() {
    let Some(library) = geo() else { return };
    let site = Site::new();
    let native = library_path();
    let dir = place(&site, &bare(), &[(&native, &library)]);
    sign_dir(&dir, &site.key).unwrap();
    let key = site.key.public_key();
    let verify = |dir: &Path| verify_plugin(dir, &key, site.now).map(drop).map_err(|e| e.code());
    assert_eq!(verify(&dir), Ok(()));
    let stranger = SigningKey::generate().unwrap().public_key();
    assert_eq!(verify_plugin(&dir, &stranger, site.now).unwrap_err().code(), "key.unknown");
    let moved = site.root().join("geo/2.0.0");
    fs::rename(&dir, &moved).unwrap();
    assert_eq!(verify(&moved), Err("manifest.version_mismatch"));
    fs::rename(&moved, &dir).unwrap();
    let mut damaged = library.clone();
    damaged[0] ^= 1;
    write(&dir.join(&native), &damaged);
    assert_eq!(verify(&dir), Err("file.digest_mismatch"));
    write(&dir.join(&native), b"no library");
    sign_dir(&dir, &site.key).unwrap();
    assert_eq!(verify(&dir), Err("elf.format"), "signed, but not a library");
    assert_eq!(verify(&site.root().join("gone/1.0.0")), Err("path.not_found"));
}

#[test]
fn an_expired_manifest_does_not_verify() {
    let site = Site::new();
    let mut manifest = bare();
    manifest["expires"] = json!("2026-05-31T00:00:00Z");
    let dir = place(&site, &manifest, &[("a", b"a")]);
    sign_dir(&dir, &site.key).unwrap();
    let key = site.key.public_key();
    assert_eq!(verify_plugin(&dir, &key, site.now).unwrap_err().code(), "manifest.expired");
    assert!(verify_plugin(&dir, &key, time("2026-05-30T00:00:00Z")).is_ok());
}

#[test]
fn a_detached_signature_is_of_every_byte_of_one_file() {
    let site = Site::new();
    let (binary, signature) = (site.root().join("f"), site.root().join("f.sig"));
    write(&binary, b"some bytes");
    let key = site.key.public_key();
    let made = sign_detached(&binary, &signature, &site.key).unwrap();
    assert_eq!((made.digest, made.size, made.key_id), (digest(b"some bytes"), 10, key.key_id()));
    let verify = || verify_detached(&binary, &signature, &key);
    assert_eq!(verify(), Ok(made.clone()));
    assert_eq!(sign_detached(&binary, &signature, &site.key), Ok(made), "replaces its own");

    let stranger = SigningKey::generate().unwrap().public_key();
    let mismatch = VerifyError::Mismatch { path: binary.clone(), key_id: stranger.key_id() };
    assert_eq!(verify_detached(&binary, &signature, &stranger), Err(mismatch));
    for at in 0..10 {
        let mut bytes = b"some bytes".to_vec();
        bytes[at] ^= 1;
        write(&binary, &bytes);
        assert!(matches!(verify(), Err(VerifyError::Mismatch { .. })), "byte {at}");
    }
    for length in [0, 32, 63, 65, 128] {
        write(&signature, &vec![0; length]);
        let found = length.min(65) as u64;
        let wrong = VerifyError::SignatureLength { path: signature.clone(), found };
        assert_eq!(verify(), Err(wrong));
    }
    write(&signature, &[0xff; 64]);
    assert!(matches!(verify(), Err(VerifyError::ScalarRange { .. })));
    make_dir(&site.root().join("dir"));
    let dir = verify_detached(&site.root().join("dir"), &signature, &key);
    assert!(matches!(dir, Err(VerifyError::NotAFile { .. })));
    let gone = verify_detached(&binary, &site.root().join("gone"), &key);
    assert!(matches!(gone, Err(VerifyError::Io { .. })));
}

/// The least module that is a plugin.
fn module() -> Vec<u8> {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "themis_alloc") (param i32) (result i32) (i32.const 0))
        (func (export "themis_init") (param i32 i32) (result i32) (i32.const 0))
        (func (export "themis_call") (param i32 i32 i32) (result i32) (i32.const 0))
        (@custom "themis" "{\22name\22:\22geo\22,\22version\22:\221.0.0\22,\22abi\22:\221.0\22}"))"#;
    wat::parse_str(text).unwrap()
}
