//! Tests: which status lines make trust.

use proptest::prelude::*;

use super::*;
use crate::admission::gpg::output::{GpgOutput, GpgStream};

const KEY: &str = "0123456789ABCDEF0123456789ABCDEF01234567";
const PRIMARY: &str = "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF";
const GOODSIG: &str = "GOODSIG 89ABCDEF01234567 Some Body <x@example.org>";

fn validsig() -> String {
    format!("VALIDSIG {KEY} 2026-01-02 1767312000 0 4 0 22 8 00 {PRIMARY}")
}

fn ran(code: Option<i32>, stdout: &[u8]) -> GpgResult {
    let status = GpgStream { kept: stdout.to_vec(), dropped: 0 };
    let signal = code.is_none().then_some(9);
    GpgResult { exit_code: code, signal, output: GpgOutput { status, ..GpgOutput::default() } }
}

fn pins(keys: &[&str]) -> BTreeSet<Fingerprint> {
    keys.iter().map(|key| Fingerprint::parse(key).unwrap()).collect()
}

fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("[GNUPG:] {line}\n")).collect()
}

fn code(status: &[&str]) -> &'static str {
    match decide(&ran(Some(0), lines(status).as_bytes()), &pins(&[KEY])) {
        Ok(_) => "good",
        Err(refusal) => refusal.code(),
    }
}

#[test]
fn one_good_signature_by_a_pinned_key_is_trusted() {
    let status =
        lines(&["NEWSIG", "KEY_CONSIDERED x 0", GOODSIG, &validsig(), "TRUST_UNDEFINED 0 always"]);
    let result = ran(Some(0), status.as_bytes());
    for pinned in [KEY, PRIMARY] {
        let expected = GpgSignature {
            signer: Fingerprint::parse(KEY).unwrap(),
            pinned: Fingerprint::parse(pinned).unwrap(),
            hash: HashAlgorithm::Sha256,
            created: 1_767_312_000,
        };
        assert_eq!(decide(&result, &pins(&[pinned])).unwrap(), expected);
    }
    let both = decide(&result, &pins(&[KEY, PRIMARY])).unwrap();
    assert_eq!(both.pinned, both.signer);
    let other = pins(&["0000000000000000000000000000000000000000"]);
    assert_eq!(decide(&result, &other).unwrap_err().code(), "gpg.key_not_pinned");
    assert_eq!(decide(&result, &pins(&[])).unwrap_err().code(), "gpg.key_not_pinned");
    assert_eq!(
        decide(&ran(None, status.as_bytes()), &pins(&[KEY])),
        Err(GpgRefusal::Killed { signal: 9 })
    );
    for code in [1, 2, -1, 255, 256] {
        let result = ran(Some(code), status.as_bytes());
        assert_eq!(decide(&result, &pins(&[KEY])), Err(GpgRefusal::ExitCode { code }));
    }
}

#[test]
fn both_lines_are_needed_once() {
    let valid = validsig();
    assert_eq!(code(&[GOODSIG, &valid]), "good");
    assert_eq!(code(&[]), "gpg.no_proof");
    assert_eq!(code(&["NEWSIG"]), "gpg.no_proof");
    assert_eq!(code(&[GOODSIG]), "gpg.no_proof");
    assert_eq!(code(&[&valid]), "gpg.no_proof");
    assert_eq!(code(&[GOODSIG, &valid, &valid]), "gpg.several_signatures");
    assert_eq!(code(&[GOODSIG, GOODSIG, &valid]), "gpg.several_signatures");
    assert_eq!(code(&["NEWSIG", "NEWSIG", GOODSIG, &valid]), "gpg.several_signatures");
}

#[test]
fn any_line_against_it_is_enough() {
    let valid = validsig();
    for (line, expected) in [
        ("BADSIG 89ABCDEF01234567 x", "gpg.bad_signature"),
        ("BADSIG", "gpg.bad_signature"),
        ("EXPSIG 89ABCDEF01234567 x", "gpg.signature_expired"),
        ("EXPKEYSIG 89ABCDEF01234567 x", "gpg.key_expired"),
        ("REVKEYSIG 89ABCDEF01234567 x", "gpg.key_revoked"),
        ("NO_PUBKEY 89ABCDEF01234567", "gpg.key_missing"),
        ("ERRSIG 89ABCDEF01234567 22 8 00 1767312000 9 -", "gpg.key_missing"),
        ("ERRSIG 89ABCDEF01234567 22 8 00 1767312000 4 -", "gpg.cannot_check"),
        ("ERRSIG", "gpg.cannot_check"),
        ("NODATA 1", "gpg.reported"),
        ("BADARMOR", "gpg.reported"),
        ("UNEXPECTED 0", "gpg.reported"),
        ("PLAINTEXT 62 0 x", "gpg.reported"),
        ("FAILURE verify 33587281", "gpg.reported"),
        ("ERROR x 1", "gpg.reported"),
        ("IMPORT_OK 1 x", "gpg.reported"),
        // For information only.
        ("KEYEXPIRED 1609502400", "good"),
        ("NOTATION_NAME BADSIG@example.org", "good"),
        ("A_LINE_OF_THE_FUTURE 1 2 3", "good"),
        ("badsig 89ABCDEF01234567 x", "good"),
    ] {
        assert_eq!(code(&[line, GOODSIG, &valid]), expected, "{line} first");
        assert_eq!(code(&[GOODSIG, &valid, line]), expected, "{line} last");
    }
    // What is wrong with the signature says more than that something is.
    let refusal = code(&["FAILURE gpg-exit 1", "BADSIG 89ABCDEF01234567 x"]);
    assert_eq!(refusal, "gpg.bad_signature");
}

#[test]
fn the_lines_must_be_as_documented() {
    let valid = validsig();
    let with = |from: &str, to: &str| code(&[GOODSIG, &valid.replacen(from, to, 1)]);
    assert_eq!(with(" 8 00", " 08 00"), "good", "a number is a number");
    for (from, to) in [
        (KEY, "0123456789ABCDEF"),
        (KEY, "0123456789abcdef0123456789abcdef01234567"),
        (KEY, ""),
        (PRIMARY, "FFFF"),
        (" 00 ", " 0 "),
        (" 00 ", "  00 "),
        (" 8 ", " SHA256 "),
        (" 8 ", " +8 "),
        (" 8 ", " -8 "),
        (" 8 ", " 99999999999999999999999 "),
        (" 1767312000 ", " 20260102T000000 "),
        (PRIMARY, "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF more"),
        (" 22 8 00", " 22 8"),
    ] {
        assert_eq!(with(from, to), "gpg.status_malformed", "{from:?} to {to:?}");
    }
    assert_eq!(with(&format!(" {PRIMARY}"), ""), "good", "very old versions name no primary key");
    assert_eq!(code(&["VALIDSIG", GOODSIG]), "gpg.status_malformed");
    assert_eq!(code(&[GOODSIG, &valid.replace("VALIDSIG ", "VALIDSIG\t")]), "gpg.no_proof");
    assert_eq!(code(&[GOODSIG, &valid.replace("VALIDSIG", "VALIDSIGX")]), "gpg.no_proof");
    for name in ["GOODSIG", "GOODSIG ", "GOODSIG 89ABCDEF01234568 x", "GOODSIG 01234567 x"] {
        let expected = if name == "GOODSIG" { "gpg.status_malformed" } else { "gpg.keys_differ" };
        assert_eq!(code(&[name, &valid]), expected, "{name:?}");
    }
}

#[test]
fn only_strong_hashes_over_bytes_count() {
    let valid = validsig();
    for number in 0..20 {
        let expected = match number {
            8..=12 | 14 => "good",
            _ => "gpg.weak_hash",
        };
        let line = valid.replace(" 8 00 ", &format!(" {number} 00 "));
        assert_eq!(code(&[GOODSIG, &line]), expected, "{number}");
    }
    for class in ["01", "02", "10", "13", "18", "1F", "40"] {
        let line = valid.replace(" 00 ", &format!(" {class} "));
        assert_eq!(code(&[GOODSIG, &line]), "gpg.signature_class");
    }
}

#[test]
fn a_forged_line_does_not_count() {
    let (good, valid) = (format!("[GNUPG:] {GOODSIG}"), format!("[GNUPG:] {}", validsig()));
    let decide =
        |text: &str| decide(&ran(Some(0), text.as_bytes()), &pins(&[KEY])).map_err(|r| r.code());
    assert!(decide(&format!("{good}\n{valid}\n")).is_ok());
    for (text, expected) in [
        // In the middle of a line, as a name or a notation.
        (format!("{good} {valid}\n"), "gpg.no_proof"),
        (format!("{good}%0A{valid}\n"), "gpg.no_proof"),
        (format!("{good}\r{valid}\n"), "gpg.no_proof"),
        (format!("{good}\0{valid}\n"), "gpg.no_proof"),
        (format!("{good}\u{2028}{valid}\n"), "gpg.no_proof"),
        (format!("{good}\n[GNUPG:] NOTATION_DATA {valid}\n"), "gpg.no_proof"),
        (format!("{good}\n {valid}\n"), "gpg.status_stray"),
        (format!("{good}\ngpg: {valid}\n"), "gpg.status_stray"),
        (format!("{good}\n{}\n", valid.replace("[GNUPG:] ", "[GNUPG:]")), "gpg.status_stray"),
        (format!("{good}\n{}\n", valid.replace("GNUPG", "gnupg")), "gpg.status_stray"),
        (format!("{good}\n\n{valid}\n"), "gpg.status_stray"),
        (format!("{good}\n{valid}"), "gpg.status_cut"),
    ] {
        assert_eq!(decide(&text), Err(expected), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_trusted_or_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decide(&ran(Some(0), &bytes), &pins(&[KEY])).is_err());
        let framed = [b"[GNUPG:] ", &bytes[..], b"\n"].concat();
        prop_assert!(decide(&ran(Some(0), &framed), &pins(&[KEY])).is_err());
    }

    #[test]
    fn one_wrong_byte_never_names_another_key(at in 0_usize..300, byte in any::<u8>()) {
        let mut text = lines(&["NEWSIG", GOODSIG, &validsig()]).into_bytes();
        let at = at % text.len();
        text[at] = byte;
        if let Ok(signature) = decide(&ran(Some(0), &text), &pins(&[KEY])) {
            prop_assert_eq!(signature.signer.as_str(), KEY);
        }
    }

    #[test]
    fn a_line_lost_is_trust_lost(lost in 0_usize..2, junk in "[A-Z_]{1,12} [ -~]{0,40}") {
        let all = [GOODSIG.to_owned(), validsig()];
        let kept = [all[lost].as_str(), &junk, "NEWSIG"];
        prop_assert_ne!(code(&kept), "good");
    }
}
