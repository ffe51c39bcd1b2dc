//! Keys of every kind that must not get in, signatures of every kind that must not count, and OpenSSL.

use std::process::Command;

use super::*;

/// The twelve test vectors of K. Chalkias, F. Garillot and V. Nikolaenko, "Taming the Many EdDSAs" (2020),
/// as published in `cases.json` of novifinancial/ed25519-speccheck: message, key, signature.
const SPECCHECK: [(&str, &str, &str); 12] = [
    (
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        SMALL,
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        SMALL,
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        MIXED,
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        MIXED_B,
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        MIXED_B,
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        MIXED_B,
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        PLAIN,
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        PLAIN,
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
    ),
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        MIXED,
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff03be9678ac102edcd92b0210bb34d7428d12ffc5df5f37e359941266a4e35f0f",
    ),
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        MIXED,
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffca8c5b64cd208982aa38d4936621a4775aa233aa0505711d8fdcfdaa943d4908",
    ),
    (
        "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        NON_CANONICAL,
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        NON_CANONICAL,
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
];
const SMALL: &str = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa";
const MIXED: &str = "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43";
const MIXED_B: &str = "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d";
const PLAIN: &str = "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623";
const NON_CANONICAL: &str = "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn admit_key(text: &str) -> Result<PublicKey, KeyError> {
    PublicKey::from_bytes(Path::new("k"), &bytes(text))
}

/// A1–A7: all twelve are refused, ten by the key and two (A1) by the scalar.
#[test]
fn a1_to_a7_every_speccheck_vector_is_refused() {
    for (number, (message, key, signature)) in SPECCHECK.iter().enumerate() {
        let verdict = admit_key(key);
        match number {
            6 | 7 => {
                let message = hex::decode(message).unwrap();
                let verdict = verdict.unwrap().verify(&message, &bytes(signature));
                assert_eq!(verdict, Err(SignatureFault::ScalarRange), "vector {number}");
            }
            10 | 11 => {
                assert!(matches!(verdict, Err(KeyError::NotCanonical { .. })), "vector {number}")
            }
            _ => assert!(matches!(verdict, Err(KeyError::Weak { .. })), "vector {number}"),
        }
    }
}

/// A3, A5, A6 with a good key: the point R decides, not only the key.
#[test]
fn a3_a5_a_weak_or_non_canonical_r_is_refused() {
    let key = SigningKey::generate().unwrap();
    let mut signature = key.sign(b"message");
    for r in
        [SMALL, NON_CANONICAL, "0100000000000000000000000000000000000000000000000000000000000000"]
    {
        signature[..32].copy_from_slice(&bytes::<32>(r));
        let verdict = key.public_key().verify(b"message", &signature);
        assert_eq!(verdict, Err(SignatureFault::Mismatch), "{r}");
    }
}

/// A1: adding the group order to the scalar makes a second spelling of a valid signature.
#[test]
fn a1_a_malleated_signature_is_refused_as_such() {
    let key = SigningKey::generate().unwrap();
    let mut signature = key.sign(b"message");
    assert_eq!(key.public_key().verify(b"message", &signature), Ok(()));
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "the sum still fits");
    let fault = key.public_key().verify(b"message", &signature);
    assert_eq!(fault, Err(SignatureFault::ScalarRange));
    // The order itself is the first that is out of range; one less is a scalar, of another signature.
    signature[32..].copy_from_slice(&GROUP_ORDER);
    let fault = key.public_key().verify(b"message", &signature);
    assert_eq!(fault, Err(SignatureFault::ScalarRange));
    signature[32] -= 1;
    assert_eq!(key.public_key().verify(b"message", &signature), Err(SignatureFault::Mismatch));
}

/// A18: the Ed25519ph vector of RFC 8032 §7.3 is no pure signature, over the message or over its hash.
#[test]
fn a18_a_prehashed_signature_is_not_a_pure_one() {
    let key = SigningKey {
        key: ed25519_dalek::SigningKey::from_bytes(&bytes(
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        )),
    };
    let public = "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf";
    assert_eq!(hex::encode(key.public_key().as_bytes()), public);
    let signature = bytes(concat!(
        "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41",
        "31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406",
    ));
    for message in [b"abc".to_vec(), sha2::Sha512::digest(b"abc").to_vec()] {
        let verdict = key.public_key().verify(&message, &signature);
        assert_eq!(verdict, Err(SignatureFault::Mismatch));
        assert_eq!(key.public_key().verify(&message, &key.sign(&message)), Ok(()));
    }
}

/// A19: nothing is verified in batches; the verdict on a poisoned signature never changes.
#[test]
fn a19_a_thousand_verifications_agree() {
    let key = SigningKey::generate().unwrap();
    let good = key.sign(b"message");
    let mut bad = good;
    bad[..32].copy_from_slice(&bytes::<32>(SMALL));
    for _ in 0..1_000 {
        assert_eq!(key.public_key().verify(b"message", &good), Ok(()));
        assert_eq!(key.public_key().verify(b"message", &bad), Err(SignatureFault::Mismatch));
    }
}

/// The third test vector of RFC 8032 §7.1, and that a signature is of one message only.
#[test]
fn the_rfc_vector_verifies() {
    let key =
        admit_key("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025").unwrap();
    let signature = bytes(concat!(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac",
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ));
    assert_eq!(key.verify(&[0xaf, 0x82], &signature), Ok(()));
    assert_eq!(key.verify(&[0xaf, 0x83], &signature), Err(SignatureFault::Mismatch));
    assert_eq!(key.key_id().0, digest_head(key.as_bytes()));
}

fn digest_head(key: &[u8; 32]) -> [u8; 8] {
    Sha256::digest(key)[..8].try_into().unwrap()
}

#[test]
fn a_key_pair_survives_the_disk_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate().unwrap();
    let prefix = dir.path().join("dev.v1");
    let (private, public) = key.write_pem_pair(&prefix).unwrap();
    assert_eq!(private, dir.path().join("dev.v1.key.pem"));
    assert_eq!(public, dir.path().join("dev.v1.pub.pem"));
    assert_eq!(private.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let again = SigningKey::from_pem_file(&private).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    assert_eq!(PublicKey::from_pem_file(&public).unwrap(), key.public_key());
    assert!(!format!("{key:?}").contains(&hex::encode(key.key.to_bytes())));

    let before = std::fs::read(&private).unwrap();
    let refused = SigningKey::generate().unwrap().write_pem_pair(&prefix);
    assert!(matches!(refused, Err(KeyError::Io { path, .. }) if path == private));
    assert_eq!(std::fs::read(&private).unwrap(), before);
    // With only the public half in the way, no private half is left behind.
    std::fs::remove_file(&private).unwrap();
    let refused = SigningKey::generate().unwrap().write_pem_pair(&prefix);
    assert!(matches!(refused, Err(KeyError::Io { path, .. }) if path == public));
    assert!(!private.exists());
}

#[test]
fn a_private_key_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (private, _) =
        SigningKey::generate().unwrap().write_pem_pair(&dir.path().join("k")).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o666, 0o601] {
        std::fs::set_permissions(&private, std::fs::Permissions::from_mode(mode)).unwrap();
        let exposed = KeyError::Exposed { path: private.clone(), mode };
        assert_eq!(SigningKey::from_pem_file(&private).unwrap_err(), exposed);
    }
    for mode in [0o400, 0o600] {
        std::fs::set_permissions(&private, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(SigningKey::from_pem_file(&private).is_ok());
    }
}

#[test]
fn files_that_are_no_keys_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    let key = SigningKey::generate().unwrap();
    let public = key.public_key().to_pem().unwrap();
    let cut: String =
        public.lines().filter(|line| line.starts_with('-')).collect::<Vec<_>>().join("\n");
    for text in [
        "",
        "none",
        "-----BEGIN PUBLIC KEY-----\n",
        &cut,
        &public.replace("PUBLIC", "PUBLIK"),
        &public.replacen("\nM", "\nN", 1),
    ] {
        let verdict = PublicKey::from_pem(&path, text);
        assert!(matches!(verdict, Err(KeyError::Format { .. })), "{text}: {verdict:?}");
    }
    std::fs::write(&path, vec![b'-'; KEY_FILE_BYTES_MAX as usize + 1]).unwrap();
    assert!(matches!(PublicKey::from_pem_file(&path), Err(KeyError::TooLarge { .. })));
    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert!(matches!(PublicKey::from_pem_file(&path), Err(KeyError::Format { .. })));
    assert!(matches!(PublicKey::from_pem_file(dir.path()), Err(KeyError::Format { .. })));
    let gone = dir.path().join("gone");
    assert!(matches!(PublicKey::from_pem_file(&gone), Err(KeyError::Io { .. })));
    let (private, _) = key.write_pem_pair(&dir.path().join("p")).unwrap();
    let error = PublicKey::from_pem_file(&private).unwrap_err().to_string();
    assert!(error.contains("it is a private key"), "{error}");
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(
        matches!(PublicKey::from_pem_file(&pipe), Err(KeyError::Format { .. })),
        "does not hang"
    );
}

/// Runs OpenSSL in a directory; `None`, and a line that says so, where there is none.
fn openssl(dir: &Path, args: &str) -> Option<bool> {
    match Command::new("openssl").args(args.split(' ')).current_dir(dir).output() {
        Ok(done) => Some(done.status.success()),
        Err(_) => {
            eprintln!("skipped: there is no `openssl`");
            None
        }
    }
}

/// A17: no other algorithm gets in, each refused by its name.
#[test]
fn a17_other_algorithms_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (args, name) in [
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out k.pem", "RSA"),
        ("genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out k.pem", "RSA-PSS"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out k.pem", "ECDSA"),
        ("genpkey -algorithm ed448 -out k.pem", "Ed448"),
        ("genpkey -algorithm x25519 -out k.pem", "X25519"),
        ("genpkey -algorithm x448 -out k.pem", "X448"),
    ] {
        let Some(made) = openssl(dir.path(), args) else { return };
        assert!(made, "{args}");
        assert_eq!(openssl(dir.path(), "pkey -in k.pem -pubout -out p.pem"), Some(true));
        for verdict in [
            PublicKey::from_pem_file(&dir.path().join("p.pem")).map(drop),
            SigningKey::from_pem_file(&dir.path().join("k.pem")).map(drop),
        ] {
            let Err(KeyError::Algorithm { found, .. }) = verdict else {
                panic!("{name}: {verdict:?}");
            };
            assert!(found.starts_with(name), "{found}");
        }
    }
    let old = "-----BEGIN RSA PUBLIC KEY-----\nMAA=\n-----END RSA PUBLIC KEY-----\n";
    let verdict = PublicKey::from_pem(Path::new("k"), old);
    assert!(matches!(verdict, Err(KeyError::Algorithm { found, .. }) if found == "RSA"));
}

#[test]
fn openssl_reads_our_keys_and_we_read_its() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let Some(made) = openssl(dir.path(), "genpkey -algorithm ed25519 -out theirs.key.pem") else {
        return;
    };
    assert!(made);
    assert_eq!(
        openssl(dir.path(), "pkey -in theirs.key.pem -pubout -out theirs.pub.pem"),
        Some(true)
    );
    std::fs::write(at("message"), b"exact bytes").unwrap();
    let theirs = SigningKey::from_pem_file(&at("theirs.key.pem")).unwrap();
    assert_eq!(PublicKey::from_pem_file(&at("theirs.pub.pem")).unwrap(), theirs.public_key());
    let sign = "pkeyutl -sign -rawin -inkey theirs.key.pem -in message -out theirs.sig";
    assert_eq!(openssl(dir.path(), sign), Some(true));
    let signature: [u8; 64] = std::fs::read(at("theirs.sig")).unwrap().try_into().unwrap();
    assert_eq!(theirs.public_key().verify(b"exact bytes", &signature), Ok(()));

    let ours = SigningKey::generate().unwrap();
    ours.write_pem_pair(&at("ours")).unwrap();
    std::fs::write(at("ours.sig"), ours.sign(b"exact bytes")).unwrap();
    let verify = "pkeyutl -verify -rawin -pubin -inkey ours.pub.pem -in message -sigfile ours.sig";
    assert_eq!(openssl(dir.path(), verify), Some(true));
    std::fs::write(at("message"), b"other bytes").unwrap();
    assert_eq!(openssl(dir.path(), verify), Some(false));
}
