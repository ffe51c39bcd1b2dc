//! Signatures of every kind, judged with gpg itself.

use std::fs;

use super::fixtures::{pins, write};
use super::keys::Signer;
use crate::admission::gpg::{GpgRefusal, HashAlgorithm, decide};

#[test]
fn good_signatures_are_trusted() {
    let Some(signer) = Signer::new() else { return };
    for (user, algorithm) in
        [("Ed <ed@example.org>", "ed25519"), ("R S A <rsa@example.org>", "rsa2048")]
    {
        let key = signer.key(user, algorithm);
        for (more, hash) in [
            (&["--digest-algo", "SHA256"][..], HashAlgorithm::Sha256),
            (&["--digest-algo", "SHA384"], HashAlgorithm::Sha384),
            (&["--digest-algo", "SHA512", "--armor"], HashAlgorithm::Sha512),
            (
                &["--digest-algo", "SHA256", "--armor", "--comment", "made: here"],
                HashAlgorithm::Sha256,
            ),
        ] {
            let trusted = signer.verify(&signer.sign(&key, more), &[&key]).unwrap();
            assert_eq!(
                (trusted.signer.as_str(), trusted.pinned.as_str()),
                (key.as_str(), key.as_str())
            );
            assert_eq!(trusted.hash, hash);
            assert!(trusted.created > 1_700_000_000);
        }
    }
}

#[test]
fn the_raw_run_says_what_gpg_said() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    write(&signer.path("data.sig"), &signer.sign(&key, &[]));
    let gpg = signer.verifier();
    let run = || gpg.run_gpg_verify(&signer.path("data.sig"), &signer.path("data")).unwrap();
    let result = run();
    assert_eq!(result.exit_code, Some(0));
    assert!(result.output.to_string().contains("gpg: Good signature from \"Ed <ed@example.org>\""));
    assert!(decide(&result, &pins(&[&key])).is_ok());
    write(&signer.path("data"), b"other data");
    let result = run();
    assert_eq!(result.exit_code, Some(1));
    assert!(result.output.messages.to_string().contains("BAD signature"));
}

#[test]
fn anything_changed_is_refused() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    let signature = signer.sign(&key, &[]);
    for at in [0, 3, 20, signature.len() / 2, signature.len() - 1] {
        let mut changed = signature.clone();
        changed[at] ^= 1;
        assert!(signer.verify(&changed, &[&key]).is_err(), "byte {at}");
    }
    let mut changed = signature.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(signer.refusal(&changed, &[&key]), "gpg.bad_signature");
    assert_eq!(signer.refusal(&signature[..signature.len() - 1], &[&key]), "gpg.signature_cut");
    write(&signer.path("data"), b"some dat\0\n");
    assert_eq!(signer.refusal(&signature, &[&key]), "gpg.bad_signature");
    write(&signer.path("data"), b"");
    assert_eq!(signer.refusal(&signature, &[&key]), "gpg.bad_signature");
    fs::remove_file(signer.path("data")).unwrap();
    assert_eq!(signer.refusal(&signature, &[&key]), "gpg.data_io");
}

#[test]
fn only_pinned_keys_in_the_keyring_count() {
    let Some(signer) = Signer::new() else { return };
    let Some(stranger) = Signer::new() else { return };
    let (key, other) =
        (signer.key("Ed <ed@example.org>", "ed25519"), signer.key("Al <al@x.org>", "ed25519"));
    let unknown = stranger.key("Ed <ed@example.org>", "ed25519");
    let signature = signer.sign(&key, &[]);
    assert_eq!(signer.verify(&signature, &[&other, &key]).unwrap().pinned.as_str(), key);
    assert_eq!(signer.refusal(&signature, &[&other]), "gpg.key_not_pinned");
    // Pinned or not: without the key nothing can be checked.
    let foreign = stranger.sign(&unknown, &[]);
    assert_eq!(signer.refusal(&foreign, &[&unknown]), "gpg.key_missing");
}

#[test]
fn keys_and_signatures_past_their_date_are_refused() {
    let Some(signer) = Signer::new() else { return };
    let then = ["--faked-system-time", "20200101T000000!"];
    let later = ["--faked-system-time", "20200102T000000!"];
    let expired = signer.key_at("Old <old@example.org>", "ed25519", "2021-01-01", &then);
    let key = signer.key_at("Ed <ed@example.org>", "ed25519", "never", &then);
    let signature = signer.sign(&expired, &later);
    // gpg itself ends with 0 here.
    assert_eq!(signer.refusal(&signature, &[&expired]), "gpg.key_expired");
    let short = signer.sign(&key, &[&later[..], &["--default-sig-expire", "1d"]].concat());
    assert_eq!(signer.refusal(&short, &[&key]), "gpg.signature_expired");
    assert!(signer.verify(&signer.sign(&key, &later), &[&key]).is_ok());
}

#[test]
fn revoked_keys_are_refused() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    let signature = signer.sign(&key, &[]);
    assert!(signer.verify(&signature, &[&key]).is_ok());
    let certificate = signer.path(format!("keys/openpgp-revocs.d/{key}.rev"));
    // gpg puts a colon before it, so that nobody imports it by mistake.
    let text = fs::read_to_string(certificate).unwrap().replace("\n:-----", "\n-----");
    write(&signer.path("revoke"), text.as_bytes());
    signer.gpg(&["--import".as_ref(), signer.path("revoke").as_os_str()]);
    assert_eq!(signer.refusal(&signature, &[&key]), "gpg.key_revoked");
}

#[test]
fn a_subkey_counts_for_its_primary_key() {
    let Some(signer) = Signer::new() else { return };
    let then = ["--faked-system-time", "20200101T000000!"];
    let later = ["--faked-system-time", "20200102T000000!"];
    let primary = signer.key_at("Ed <ed@example.org>", "ed25519", "never", &then);
    let old = signer.subkey(&primary, "2021-01-01", &later);
    let new = signer.subkey(&primary, "never", &[]);
    let other = signer.key("Al <al@example.org>", "ed25519");
    let signature = signer.sign(&new, &[]);
    // The other subkey has expired, of which gpg speaks; this one has not.
    for pinned in [&primary, &new] {
        let trusted = signer.verify(&signature, &[pinned]).unwrap();
        assert_eq!(
            (trusted.signer.as_str(), trusted.pinned.as_str()),
            (new.as_str(), pinned.as_str())
        );
    }
    assert_eq!(signer.refusal(&signature, &[&old, &other]), "gpg.key_not_pinned");
    let by_primary = signer.sign(&primary, &[]);
    assert!(signer.verify(&by_primary, &[&primary]).is_ok());
    assert_eq!(signer.refusal(&by_primary, &[&new]), "gpg.key_not_pinned");
    let by_old = signer.sign(&old, &["--faked-system-time", "20200103T000000!"]);
    assert_eq!(signer.refusal(&by_old, &[&primary]), "gpg.key_expired");
}

#[test]
fn several_signatures_are_refused_even_if_all_are_good() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    let first = signer.sign(&key, &[]);
    let second = signer.sign(&key, &["--digest-algo", "SHA512"]);
    let text = signer.sign(&key, &["--textmode"]);
    let armored = signer.sign(&key, &["--armor"]);
    let gpg = signer.verifier();
    for several in [
        [&first[..], &first].concat(),
        [&first[..], &second].concat(),
        [&first[..], &text].concat(),
        [&armored[..], &armored].concat(),
    ] {
        assert_eq!(signer.refusal(&several, &[&key]), "gpg.several_signatures");
    }
    let run = |signature: &[u8]| {
        write(&signer.path("two.sig"), signature);
        let result = gpg.run_gpg_verify(&signer.path("two.sig"), &signer.path("data")).unwrap();
        decide(&result, &pins(&[&key])).map_err(|refusal| refusal.code())
    };
    assert_eq!(run(&[&first[..], &second].concat()), Err("gpg.several_signatures"));
    // Of this pair gpg checks and reports only the first: why the file is taken apart here.
    assert!(run(&[&first[..], &text].concat()).is_ok());
}

#[test]
fn other_kinds_of_signature_are_refused() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    for (more, code) in [
        (&["--clearsign"][..], "gpg.signature_not_detached"),
        (&["--sign"], "gpg.signature_not_detached"),
        (&["--sign", "--compress-algo", "none"], "gpg.signature_not_detached"),
        (&["--sign", "--armor"], "gpg.signature_not_detached"),
        (&["--textmode"], "gpg.signature_class"),
        (&["--digest-algo", "SHA1"], "gpg.weak_hash"),
        (&["--digest-algo", "RIPEMD160"], "gpg.weak_hash"),
    ] {
        assert_eq!(signer.refusal(&signer.sign(&key, more), &[&key]), code, "{more:?}");
    }
    assert_eq!(signer.refusal(&signer.gpg(&["--export"]), &[&key]), "gpg.signature_wrong_packet");
    assert_eq!(signer.refusal(b"not a signature", &[&key]), "gpg.signature_armor");
    // A packet with nothing in it that gpg would know.
    assert!(signer.verify(&[0xc2, 3, 1, 2, 3], &[&key]).is_err());
}

#[test]
fn a_keyring_that_is_none_is_refused() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    write(&signer.path("data.sig"), &signer.sign(&key, &[]));
    let gpg = signer.verifier();
    let verify = || gpg.verify(&signer.path("data.sig"), &signer.path("data"), &pins(&[&key]));
    assert!(verify().is_ok());
    for content in [&b""[..], b"garbage", &[0; 1000]] {
        write(&signer.path("home/pub.gpg"), content);
        let error = verify().unwrap_err();
        assert!(["gpg.key_missing", "gpg.reported"].contains(&error.code()), "{error}");
    }
}

#[test]
fn nothing_is_written_to_the_home() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    assert!(signer.verify(&signer.sign(&key, &[]), &[&key]).is_ok());
    let names: Vec<_> =
        fs::read_dir(signer.path("home")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["pub.gpg"]);
}

#[test]
fn a_bad_signature_names_the_key() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    let signature = signer.sign(&key, &[]);
    write(&signer.path("data"), b"other");
    write(&signer.path("data.sig"), &signature);
    let result =
        signer.verifier().run_gpg_verify(&signer.path("data.sig"), &signer.path("data")).unwrap();
    let expected = GpgRefusal::BadSignature { key: key[24..].to_owned() };
    assert_eq!(decide(&result, &pins(&[&key])), Err(expected));
}
