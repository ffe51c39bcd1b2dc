//! Tests: one reading of armored text.

use proptest::prelude::*;

use super::*;
use crate::admission::gpg::packet::only_signature;

const LINES: &str = "-----BEGIN PGP SIGNATURE-----\n\nAQIDBAU=\n-----END PGP SIGNATURE-----\n";

fn why(text: &str) -> &'static str {
    let fault = decode(text.as_bytes()).unwrap_err();
    if let SignatureFileFault::Armor { why } = fault { why } else { fault.code() }
}

#[test]
fn what_signers_write_is_read() {
    for text in [
        LINES.to_owned(),
        LINES.replace('\n', "\r\n"),
        LINES.replace('\n', " \t\n"),
        format!("\n\n{LINES}\n \n"),
        LINES.trim_end().to_owned(),
        LINES.replace("\n\n", "\nVersion: GnuPG v1\nComment: \u{e9}t\u{e9}\nHash:\n\n"),
        LINES.replace("BAU=\n", "\nBAU=\n=AbCd\n"),
    ] {
        assert_eq!(decode(text.as_bytes()).unwrap(), [1, 2, 3, 4, 5], "{text:?}");
    }
    assert_eq!(decode(LINES.replace("AQIDBAU=", "AQIDBAUG").as_bytes()).unwrap().len(), 6);
    assert_eq!(decode(LINES.replace("AQIDBAU=", "AQ==").as_bytes()).unwrap(), [1]);
    assert!(decode(LINES.replace("AQIDBAU=", "").as_bytes()).unwrap().is_empty());
}

#[test]
fn everything_else_is_refused() {
    let base64 = "it is not base64";
    let last = "its last line does not end a PGP SIGNATURE block";
    for (text, expected) in [
        ("", "gpg.signature_empty"),
        (" \n\t\r\n", "gpg.signature_empty"),
        ("hello", "its first line does not begin a PGP SIGNATURE block"),
        (&format!("x\n{LINES}"), "its first line does not begin a PGP SIGNATURE block"),
        (&format!(" {LINES}"), "its first line does not begin a PGP SIGNATURE block"),
        ("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n", "gpg.signature_not_detached"),
        ("-----BEGIN PGP MESSAGE-----\n", "gpg.signature_not_detached"),
        (&LINES.replace("\n\n", "\n"), "the empty line after its headers is missing"),
        (&LINES.replace("AQIDBAU=", "AQIDBA"), base64),
        (&LINES.replace("AQIDBAU=", "AQIDBAV="), base64),
        (&LINES.replace("AQIDBAU=", "AQ==AQID"), base64),
        (&LINES.replace("AQIDBAU=", "A==="), base64),
        (&LINES.replace("AQIDBAU=", "AQ=D"), base64),
        (&LINES.replace("AQIDBAU=", "AQ-D"), base64),
        (&LINES.replace("AQIDBAU=", "AQI D"), base64),
        (&LINES.replace("=\n", "=\n=AbCd\nAQID\n"), last),
        (&LINES.replace("-----END PGP SIGNATURE-----\n", ""), last),
        (&LINES.replace("END PGP", "END  PGP"), last),
        (&format!("{LINES}{LINES}"), "gpg.several_signatures"),
        (&format!("{LINES}x"), "there is text after its last line"),
    ] {
        assert_eq!(why(text), expected, "{text:?}");
    }
}

fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        let digit = |at: usize| match at <= chunk.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

proptest! {
    #[test]
    fn every_packet_survives_armor(bytes in prop::collection::vec(any::<u8>(), 1..200), wrap in 1_usize..80) {
        let digits = encode(&bytes);
        let lines: Vec<_> = digits.as_bytes().chunks(wrap).map(|line| str::from_utf8(line).unwrap()).collect();
        // A line that is all padding would be a checksum.
        prop_assume!(lines.iter().all(|line| !line.starts_with('=')));
        let text = LINES.replace("AQIDBAU=", &lines.join("\n"));
        prop_assert_eq!(decode(text.as_bytes()).unwrap(), bytes);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = [BEGIN, b"\n", &bytes, b"\n", END].concat();
        for file in [&bytes, &text] {
            let _ = decode(file);
            if let Ok(packet) = only_signature(file) {
                // Whatever is accepted is one packet, and reads as itself.
                prop_assert_eq!(&only_signature(&packet).unwrap(), &packet);
            }
        }
    }
}
