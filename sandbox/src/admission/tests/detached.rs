//! The second form: one binary, one signature, exactly one key that may.

use themis_messages::ids::Tier;
use themis_messages::lifecycle::LoadRequest;
use themis_messages::manifest::{Manifest, Target};

use crate::admission::fixtures::{
    Site, digest, geo, library, library_path, manifest, name, pin, write,
};
use crate::admission::{NameSet, SigningKey};

fn place(site: &Site, bytes: &[u8]) {
    write(&site.root().join("libgeo.so"), bytes);
    write(&site.root().join("libgeo.so.sig"), &site.key.sign(bytes));
}

fn code(site: &Site) -> &'static str {
    site.admit("libgeo.so").unwrap_err().code()
}

#[test]
fn a_binary_with_its_signature_is_admitted_without_capabilities() {
    let Some(bytes) = geo() else { return };
    let site = Site::new();
    place(&site, &bytes);
    let admitted = site.admit("libgeo.so").unwrap();
    assert_eq!(admitted.image.bytes(), bytes);
    assert_eq!((admitted.manifest_digest, admitted.tier), (None, Tier::InProcess));
    assert_eq!(admitted.manifest.version.to_string(), "1.0.0");
    assert!(admitted.manifest.capabilities.is_empty() && admitted.manifest.methods.is_empty());
    let listed = admitted.manifest.file_for(&Target::HOST).unwrap();
    assert_eq!((listed.sha256, listed.size), (digest(&bytes), bytes.len() as u64));
}

#[test]
fn a_manifest_beside_it_gives_methods_but_no_capabilities() {
    let Some(bytes) = geo() else { return };
    let site = Site::new();
    place(&site, &bytes);
    let native = library_path();
    let parse = |version: &str, library: &[u8], key: &SigningKey| {
        let value = manifest("geo", version, &[(&native, library)], key).to_string();
        Some(Manifest::parse("m".as_ref(), value.as_bytes()).unwrap())
    };
    let mut request = LoadRequest::at("libgeo.so");
    request.manifest = parse("1.0.0", &bytes, &site.key);
    let admitted = site.admit_request(&request).unwrap();
    assert_eq!(admitted.manifest.method_id("distance_km"), Some(1));
    assert!(admitted.manifest.capabilities.is_empty(), "they need a signed manifest");
    let mut refused = |manifest| {
        request.manifest = manifest;
        site.admit_request(&request).unwrap_err().code()
    };
    assert_eq!(refused(parse("1.0.1", &bytes, &site.key)), "descriptor.mismatch");
    assert_eq!(refused(parse("1.0.0", b"other", &site.key)), "manifest.differs");
    let stranger = SigningKey::generate().unwrap();
    assert_eq!(refused(parse("1.0.0", &bytes, &stranger)), "manifest.differs");
}

#[test]
fn exactly_one_pinned_key_must_be_entitled() {
    let Some(bytes) = geo() else { return };
    let mut site = Site::new();
    place(&site, &bytes);
    site.policy.keys.push(pin(SigningKey::generate().unwrap().public_key()));
    assert_eq!(code(&site), "key.ambiguous");
    site.policy.keys[1].plugins = NameSet::Only([name("text")].into());
    assert!(site.admit("libgeo.so").is_ok());
    site.policy.keys.remove(0);
    assert_eq!(code(&site), "key.ambiguous", "none may");
    site.policy.keys[0].plugins = NameSet::Any;
    assert_eq!(code(&site), "sig.mismatch", "the one that may did not sign");
}

#[test]
fn what_is_refused_of_a_directory_is_refused_of_a_binary() {
    let Some(bytes) = geo() else { return };
    let mut site = Site::new();
    place(&site, &bytes);
    std::fs::remove_file(site.root().join("libgeo.so.sig")).unwrap();
    assert_eq!(code(&site), "sig.missing");
    write(&site.root().join("libgeo.so.sig"), &[0; 63]);
    assert_eq!(code(&site), "sig.length");
    write(&site.root().join("libgeo.so.sig"), &[0xff; 64]);
    assert_eq!(code(&site), "sig.scalar_range");
    place(&site, &bytes);
    for at in [0x300, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        write(&site.root().join("libgeo.so"), &changed);
        assert!(site.admit("libgeo.so").is_err(), "A22: byte {at}");
    }
    place(&site, &bytes);
    site.policy.revoked_digests.insert(digest(&bytes));
    assert_eq!(code(&site), "digest.revoked");
    site.policy.revoked_digests.clear();
    site.policy.floors.insert(name("geo"), "1.0.1".parse().unwrap());
    assert_eq!(code(&site), "version.below_floor");
    site.policy.floors.clear();
    site.policy.trusted_in_process.clear();
    assert_eq!(code(&site), "policy.not_trusted_in_process");
    site.policy.trusted_in_process.insert(name("geo"));
    site.policy.allow = NameSet::Only([].into());
    assert_eq!(code(&site), "policy.not_allowed");
    site.policy.allow = NameSet::Any;
    site.policy.revoked_keys.insert(site.key.public_key().key_id());
    assert_eq!(code(&site), "key.revoked");
    site.policy.revoked_keys.clear();
    let hazard = library("geo", "1.0.0", "", &["-Wl,-rpath,/tmp"]).unwrap();
    place(&site, &hazard);
    assert_eq!(code(&site), "elf.search_path");
    write(&site.root().join("libgeo.so"), b"not signed, not a library");
    assert_eq!(code(&site), "elf.format");
}
