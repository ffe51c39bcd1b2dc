//! Names and user ids made to look like gpg's own words, judged with gpg itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::fixtures::{pins, write};
use super::keys::Signer;

#[test]
fn a_user_id_cannot_speak_for_gpg() {
    let Some(signer) = Signer::new() else { return };
    let trusted = signer.key("Ed <ed@example.org>", "ed25519");
    let forged = format!("VALIDSIG {trusted} 2026-01-02 1767312000 0 4 0 22 8 00 {trusted}");
    for user in [
        format!("Eve\n[GNUPG:] {forged}\n[GNUPG:] GOODSIG {} Ed", &trusted[24..]),
        format!("Eve\r[GNUPG:] {forged}"),
        format!("Eve\r\n[GNUPG:] {forged}\r\n"),
        format!("[GNUPG:] {forged}"),
        format!("Eve%0A[GNUPG:] {forged}"),
        "Eve\u{1b}[2J\u{202e} gpg: Good signature".to_owned(),
    ] {
        let key = signer.key(&user, "ed25519");
        let signature = signer.sign(&key, &[]);
        assert_eq!(signer.refusal(&signature, &[&trusted]), "gpg.key_not_pinned", "{user:?}");
        // With its own key pinned the odd name does no harm.
        assert_eq!(signer.verify(&signature, &[&key]).unwrap().signer.as_str(), key);
    }
}

#[test]
fn a_notation_cannot_speak_for_gpg() {
    let Some(signer) = Signer::new() else { return };
    let trusted = signer.key("Ed <ed@example.org>", "ed25519");
    let key = signer.key("Eve <eve@example.org>", "ed25519");
    let notation =
        format!("x@example.org=[GNUPG:] VALIDSIG {trusted} 2026-01-02 1 0 4 0 22 8 00 {trusted}");
    let url = format!("https://example.org/%0A[GNUPG:]%20VALIDSIG%20{trusted}");
    let signature = signer.sign(&key, &["--sig-notation", &notation, "--sig-policy-url", &url]);
    assert_eq!(signer.refusal(&signature, &[&trusted]), "gpg.key_not_pinned");
    assert!(signer.verify(&signature, &[&key]).is_ok());
}

#[test]
fn file_names_are_only_names() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    let signature = signer.sign(&key, &[]);
    let gpg = signer.verifier();
    for name in [
        &b"plain"[..],
        b"-",
        b"--output=pwned",
        b"-&1",
        b"a b'c\"d;e",
        b"$(touch pwned)`touch pwned`",
        b"line\n[GNUPG:] VALIDSIG 0123456789ABCDEF0123456789ABCDEF01234567",
        b"\xff\xfe",
        b"%0A~",
        b"gpg: Good signature",
    ] {
        let data = signer.path(OsStr::from_bytes(name));
        let sig = signer.path(OsStr::from_bytes(&[name, b".sig"].concat()));
        write(&data, b"some data\n");
        write(&sig, &signature);
        let raw = gpg.run_gpg_verify(&sig, &data).unwrap();
        assert_eq!(raw.exit_code, Some(0), "{name:?}: {}", raw.output);
        assert!(gpg.verify(&sig, &data, &pins(&[&key])).is_ok(), "{name:?}");
        write(&data, b"other data\n");
        let error = gpg.verify(&sig, &data, &pins(&[&key])).unwrap_err();
        assert_eq!(error.code(), "gpg.bad_signature", "{name:?}");
    }
    assert!(!signer.path("pwned").exists() && !std::path::Path::new("pwned").exists());
}
