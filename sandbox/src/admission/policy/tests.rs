//! Each rule of the operator, in both directions.

use themis_messages::admit::AdmitErrorKind;

use super::*;
use crate::admission::SigningKey;
use crate::admission::fixtures::{name, pin, policy, time};

fn key() -> PublicKey {
    SigningKey::generate().unwrap().public_key()
}

fn only(names: &[&str]) -> NameSet {
    NameSet::Only(names.iter().map(|text| name(text)).collect())
}

#[test]
fn only_listed_names_may_load() {
    let mut policy = policy(key());
    policy.allow = only(&["geo"]);
    assert_eq!(policy.check_name(&name("geo")), Ok(()));
    let refused = AdmitError::NotAllowed { name: name("text") };
    assert_eq!(policy.check_name(&name("text")), Err(refused));
    policy.allow = only(&[]);
    assert!(policy.check_name(&name("geo")).is_err(), "an empty list allows nothing");
}

#[test]
fn a_key_counts_from_not_before_to_not_after_for_its_plugins() {
    let key = key();
    let mut policy = policy(key.clone());
    policy.keys[0].not_before = Some(time("2026-01-01T00:00:00Z"));
    policy.keys[0].not_after = Some(time("2026-12-31T00:00:00Z"));
    policy.keys[0].plugins = only(&["geo"]);
    let check = |policy: &Policy, plugin: &str, now: &str| {
        let verdict = policy.check_key(Path::new("m"), key.key_id(), &name(plugin), time(now));
        verdict.map(PublicKey::key_id).map_err(|error| AdmitErrorKind::from(&error))
    };
    for now in ["2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z", "2026-12-31T00:00:00Z"] {
        assert_eq!(check(&policy, "geo", now), Ok(key.key_id()));
    }
    let early = check(&policy, "geo", "2025-12-31T23:59:59Z");
    assert_eq!(early, Err(AdmitErrorKind::KeyNotYetValid));
    let late = check(&policy, "geo", "2026-12-31T00:00:01Z");
    assert_eq!(late, Err(AdmitErrorKind::KeyExpired));
    let foreign = check(&policy, "text", "2026-06-01T00:00:00Z");
    assert_eq!(foreign, Err(AdmitErrorKind::KeyNotEntitled));
    policy.revoked_keys.insert(key.key_id());
    for now in ["2020-01-01T00:00:00Z", "2026-06-01T00:00:00Z", "2030-01-01T00:00:00Z"] {
        assert_eq!(check(&policy, "geo", now), Err(AdmitErrorKind::KeyRevoked), "A13: at {now}");
    }
    policy.keys.clear();
    policy.revoked_keys.clear();
    assert_eq!(check(&policy, "geo", "2026-06-01T00:00:00Z"), Err(AdmitErrorKind::KeyUnknown));
}

/// A16: one key under two labels is one key.
#[test]
fn a16_a_key_pinned_twice_counts_once() {
    let key = key();
    let mut policy = policy(key.clone());
    policy.keys.push(TrustedKey { label: "again".to_owned(), ..pin(key.clone()) });
    assert_eq!(policy.only_key(Path::new("b"), &name("geo")), Ok(key.key_id()));
    // The pin that is still valid counts.
    policy.keys[0].not_after = Some(time("2020-01-01T00:00:00Z"));
    let now = time("2026-06-01T00:00:00Z");
    assert!(policy.check_key(Path::new("m"), key.key_id(), &name("geo"), now).is_ok());
}

#[test]
fn a_detached_signature_needs_exactly_one_key() {
    let (first, second) = (key(), key());
    let mut policy = policy(first.clone());
    policy.keys[0].plugins = only(&["geo"]);
    policy.keys.push(TrustedKey { plugins: only(&["geo", "text"]), ..pin(second.clone()) });
    let ask = |policy: &Policy, plugin: &str| policy.only_key(Path::new("b"), &name(plugin));
    assert_eq!(ask(&policy, "text"), Ok(second.key_id()));
    let ambiguous = |plugin: &str, entitled| {
        Err(AdmitError::KeyAmbiguous { path: "b".into(), name: name(plugin), entitled })
    };
    assert_eq!(ask(&policy, "geo"), ambiguous("geo", 2));
    assert_eq!(ask(&policy, "none"), ambiguous("none", 0));
    policy.revoked_keys.insert(second.key_id());
    assert_eq!(ask(&policy, "geo"), Ok(first.key_id()), "a revoked key does not count");
    let revoked = AdmitError::KeyRevoked { path: "b".into(), key_id: second.key_id() };
    assert_eq!(ask(&policy, "text"), Err(revoked));
}

#[test]
fn a_floor_refuses_older_versions_only() {
    let mut policy = policy(key());
    policy.floors.insert(name("geo"), "1.2.0".parse().unwrap());
    for (plugin, version, allowed) in [
        ("geo", "1.2.0", true),
        ("geo", "1.10.0", true),
        ("geo", "1.1.9", false),
        ("geo", "1.2.0-rc.1", false),
        ("text", "0.1.0", true),
    ] {
        let verdict = policy.check_floor(&name(plugin), &version.parse().unwrap());
        assert_eq!(verdict.is_ok(), allowed, "{plugin} {version}");
    }
}

#[test]
fn a_revoked_digest_is_refused() {
    let mut policy = policy(key());
    policy.revoked_digests.insert(Digest([7; 32]));
    assert_eq!(policy.check_digest(Path::new("f"), Digest([8; 32])), Ok(()));
    let revoked = AdmitError::DigestRevoked { path: "f".into(), digest: Digest([7; 32]) };
    assert_eq!(policy.check_digest(Path::new("f"), Digest([7; 32])), Err(revoked));
}

#[test]
fn only_in_process_needs_the_operators_word() {
    let mut policy = policy(key());
    policy.default_tier = Tier::Process;
    let geo = name("geo");
    assert_eq!(policy.tier_for(&geo, None), Ok(Tier::Process));
    assert_eq!(policy.tier_for(&geo, Some(Tier::Wasm)), Ok(Tier::Wasm));
    assert_eq!(policy.tier_for(&geo, Some(Tier::InProcess)), Ok(Tier::InProcess));
    policy.tiers.insert(geo.clone(), Tier::InProcess);
    assert_eq!(policy.tier_for(&geo, None), Ok(Tier::InProcess), "the plugin's own tier");
    let text = name("text");
    let untrusted = AdmitError::NotTrustedInProcess { name: text.clone() };
    assert_eq!(policy.tier_for(&text, Some(Tier::InProcess)), Err(untrusted));
}

#[test]
fn what_was_admitted_may_serve_again_until_something_is_withdrawn() {
    let key = key();
    let mut policy = policy(key.clone());
    policy.keys[0].not_after = Some(time("2020-01-01T00:00:00Z"));
    let digest = Digest([1; 32]);
    let check = |policy: &Policy| {
        policy
            .check_still_allowed(Path::new("p"), &name("geo"), key.key_id(), [digest])
            .map_err(|error| AdmitErrorKind::from(&error))
    };
    assert_eq!(check(&policy), Ok(()), "expiry does not matter");
    let mut changed = policy.clone();
    changed.revoked_digests.insert(digest);
    assert_eq!(check(&changed), Err(AdmitErrorKind::DigestRevoked));
    let mut changed = policy.clone();
    changed.revoked_keys.insert(key.key_id());
    assert_eq!(check(&changed), Err(AdmitErrorKind::KeyRevoked));
    let mut changed = policy.clone();
    changed.allow = only(&[]);
    assert_eq!(check(&changed), Err(AdmitErrorKind::NotAllowed));
    policy.keys.clear();
    assert_eq!(check(&policy), Err(AdmitErrorKind::KeyUnknown));
}
