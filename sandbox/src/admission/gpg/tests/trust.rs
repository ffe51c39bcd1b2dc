//! What was verified is what the caller holds, whatever happens to names while gpg runs.

use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::fs::{MemfdFlags, SealFlags};

use super::fixtures::{pins, write};
use super::keys::Signer;

#[test]
fn open_files_are_verified_although_their_names_are_replaced() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    let (sig, data) = (signer.path("data.sig"), signer.path("data"));
    write(&sig, &signer.sign(&key, &[]));
    let verifier = signer.verifier_by(&signer.wrapper("mv \"$DIR/evil\" \"$DIR/data\""));
    let evil = || write(&signer.path("evil"), b"evil data\n");

    evil();
    let (open_sig, mut open_data) = (fs::File::open(&sig).unwrap(), fs::File::open(&data).unwrap());
    let verified = verifier.verify_open(open_sig.as_fd(), open_data.as_fd(), &pins(&[&key]));
    assert_eq!(verified.unwrap().signer.as_str(), key);
    let mut text = String::new();
    open_data.read_to_string(&mut text).unwrap();
    assert_eq!(text, "some data\n");
    assert_eq!(fs::read(&data).unwrap(), b"evil data\n");

    // By name gpg sees the other file; and the other way round it does not help to put the good one there.
    evil();
    write(&data, b"some data\n");
    assert_eq!(
        verifier.verify(&sig, &data, &pins(&[&key])).unwrap_err().code(),
        "gpg.bad_signature"
    );
    let open_evil = fs::File::open(&data).unwrap();
    write(&signer.path("evil"), b"some data\n");
    let refused = verifier.verify_open(open_sig.as_fd(), open_evil.as_fd(), &pins(&[&key]));
    assert_eq!(refused.unwrap_err().code(), "gpg.bad_signature");
}

#[test]
fn sealed_memory_is_verified() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    let signature = signer.sign(&key, &[]);
    let verifier = signer.verifier();
    let memory = |bytes: &[u8]| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = fs::File::from(rustix::fs::memfd_create("test", flags).unwrap());
        file.write_all(bytes).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)
            .unwrap();
        file
    };
    let (sig, mut data) = (memory(&signature), memory(b"some data\n"));
    // Wherever its position is: at its end now, then at its beginning.
    assert!(verifier.verify_open(sig.as_fd(), data.as_fd(), &pins(&[&key])).is_ok());
    data.rewind().unwrap();
    assert!(verifier.verify_open(sig.as_fd(), data.as_fd(), &pins(&[&key])).is_ok());
    assert_eq!(data.stream_position().unwrap(), 0);
    let raw = verifier.run_gpg_verify_open(sig.as_fd(), data.as_fd()).unwrap();
    assert_eq!(raw.exit_code, Some(0));
    let other = memory(b"same data\n");
    let refused = verifier.verify_open(sig.as_fd(), other.as_fd(), &pins(&[&key])).unwrap_err();
    assert_eq!(refused.code(), "gpg.bad_signature");
}

#[test]
fn the_signature_gpg_reads_is_the_one_that_was_looked_at() {
    let Some(signer) = Signer::new() else { return };
    let key = signer.key("Ed <ed@example.org>", "ed25519");
    let (sig, data) = (signer.path("data.sig"), signer.path("data"));
    write(&sig, &signer.sign(&key, &[]));
    write(&signer.path("evil"), b"no signature");
    let verifier = signer.verifier_by(&signer.wrapper("mv \"$DIR/evil\" \"$DIR/data.sig\""));
    assert!(verifier.verify(&sig, &data, &pins(&[&key])).is_ok());
    assert_eq!(fs::read(&sig).unwrap(), b"no signature");
}
