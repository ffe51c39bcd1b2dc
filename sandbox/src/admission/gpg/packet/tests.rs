//! Tests: what is one signature and what is not.

use super::*;

fn fault(bytes: &[u8]) -> SignatureFileFault {
    only_signature(bytes).unwrap_err()
}

#[test]
fn a_packet_may_be_framed_in_every_way_that_names_its_end() {
    let with = |header: &[u8], body: usize| [header, &vec![7; body]].concat();
    for packet in [
        with(&[0xc2, 3], 3),
        with(&[0xc2, 0], 0),
        with(&[0xc2, 191], 191),
        with(&[0xc2, 192, 0], 192),
        with(&[0xc2, 223, 255], 8383),
        with(&[0xc2, 255, 0, 0, 0, 3], 3),
        with(&[0x88, 3], 3),
        with(&[0x89, 1, 0], 256),
        with(&[0x8a, 0, 0, 1, 0], 256),
    ] {
        assert_eq!(only_signature(&packet).unwrap(), packet);
        assert_eq!(fault(&packet[..packet.len() - 1]), SignatureFileFault::Cut);
        assert_eq!(fault(&[&packet[..], &packet].concat()), SignatureFileFault::Several);
        assert_eq!(fault(&[&packet[..], &[0]].concat()), SignatureFileFault::Trailing);
        assert_eq!(fault(&[&packet[..], b"\n"].concat()), SignatureFileFault::Trailing);
        assert_eq!(fault(&[&packet[..], &[0xca, 0]].concat()), SignatureFileFault::Trailing);
        // Even the bare beginning of another.
        assert_eq!(fault(&[&packet[..], &[0xc2]].concat()), SignatureFileFault::Several);
    }
}

#[test]
fn a_packet_that_does_not_name_its_end_is_refused() {
    for bytes in [
        &[0xc2][..],
        &[0xc2, 224, 1],
        &[0xc2, 254, 1],
        &[0xc2, 192],
        &[0xc2, 255, 0, 0, 0],
        &[0xc2, 255, 255, 255, 255, 255],
        &[0x8b, 1, 2, 3],
        &[0x8a, 255, 255, 255, 255],
        &[0x89, 1],
    ] {
        assert_eq!(fault(bytes), SignatureFileFault::Cut, "{bytes:?}");
    }
}

#[test]
fn other_packets_are_refused_by_what_they_are() {
    assert_eq!(fault(&[]), SignatureFileFault::Empty);
    for message in [0xc4, 0xc8, 0xcb, 0x90, 0xa3] {
        assert_eq!(fault(&[message, 0]), SignatureFileFault::NotDetached);
    }
    // A public key, a marker.
    assert_eq!(fault(&[0xc6, 0]), SignatureFileFault::NotASignature { tag: 6 });
    assert_eq!(fault(&[0xca, 3, b'P', b'G', b'P']), SignatureFileFault::NotASignature { tag: 10 });
    assert_eq!(fault(b"text").code(), "gpg.signature_armor");
}
