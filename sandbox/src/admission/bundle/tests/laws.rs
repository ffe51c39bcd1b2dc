//! What holds for every file whatsoever, and for every good bundle that something happened to.

use std::io::Write;

use proptest::collection::vec;
use proptest::prelude::*;

use super::forge::{Member, Zip};
use super::{contents, plugin};
use crate::admission::bundle::{Bundle, pack};
use themis_messages::limits::{BUNDLE_ENTRIES_MAX, BUNDLE_UNPACKED_BYTES_MAX, FILE_BYTES_MAX};

/// Counts what it is given and keeps nothing.
#[derive(Default)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn good() -> Vec<u8> {
    pack(plugin()).unwrap()
}

/// No single byte can be changed so that a file is missing, added, renamed or different: either the bundle
/// or an entry is refused, or everything is as it was. The latter only where nothing is said that counts.
#[test]
fn one_changed_byte_is_refused_or_changes_nothing() {
    let good = good();
    let wanted = contents(&good).unwrap();
    let idle = bytes_that_do_not_count(&good);
    let mut bytes = good.clone();
    for at in 0..bytes.len() {
        for other in (0..=u8::MAX).filter(|other| *other != good[at]) {
            bytes[at] = other;
            if let Ok(all) = contents(&bytes) {
                assert_eq!(all, wanted, "byte {at} changed to {other}");
                assert!(idle.contains(&at), "byte {at} changed to {other}");
            }
        }
        bytes[at] = good[at];
    }
}

/// Who made an entry, its attributes, and what is left of the last byte of a deflate stream.
fn bytes_that_do_not_count(bundle: &[u8]) -> Vec<usize> {
    let is_entry = |at: &usize| bundle[*at..].starts_with(b"PK\x01\x02");
    let mut bytes: Vec<_> = (0..bundle.len())
        .filter(is_entry)
        .flat_map(|at| [4, 5, 36, 37, 38, 39, 40, 41].map(|field| at + field))
        .collect();
    let mut end = 0;
    for entry in Bundle::read(bundle).unwrap().entries() {
        end += 30 + entry.path().len() + entry.packed_size() as usize;
        if entry.packed_size() < entry.size() {
            bytes.push(end - 1);
        }
    }
    bytes
}

#[test]
fn a_bundle_cut_anywhere_is_refused() {
    let good = good();
    for at in 0..good.len() {
        assert!(Bundle::read(&good[..at]).is_err(), "the first {at} bytes");
        assert!(at == 0 || Bundle::read(&good[at..]).is_err(), "without the first {at} bytes");
    }
}

#[test]
fn a_byte_too_many_or_too_few_anywhere_is_refused() {
    let good = good();
    for at in 0..=good.len() {
        for byte in [0, b'P', 0xff] {
            let mut longer = good.clone();
            longer.insert(at, byte);
            assert!(Bundle::read(&longer).is_err(), "{byte} at {at}");
        }
        let mut shorter = good.clone();
        if at < shorter.len() {
            shorter.remove(at);
            assert!(Bundle::read(&shorter).is_err(), "without byte {at}");
        }
    }
}

#[test]
fn a_lying_entry_never_gives_more_than_it_says() {
    for says in [0, 1, 10, 32_767, 32_768, 32_769, 65_536, 300_000] {
        let real = Member::deflated("a", vec![7; 8 << 20]).both(|header| header.size = says);
        // Enough packed data not to look like a bomb.
        let padding: Vec<u8> = (0..5_000_u32).flat_map(u32::to_be_bytes).collect();
        let bytes = Zip::of([real, Member::stored("b", padding)]).build();
        let entry = Bundle::read(&bytes).unwrap().open("a").unwrap();
        let mut counter = Counter::default();
        assert_eq!(entry.extract(&mut counter).unwrap_err().code(), "bundle.lying_size");
        assert!(counter.0 <= u64::from(says), "{} of {says}", counter.0);
        assert_eq!(entry.to_vec().unwrap_err().code(), "bundle.lying_size");
    }
}

#[test]
fn extracting_piece_by_piece_gives_the_same_as_at_once() {
    let large: Vec<u8> = (0..100_000_u32).flat_map(|i| (i % 977).to_le_bytes()).collect();
    let bytes = pack([("large", &large)]).unwrap();
    let entry = Bundle::read(&bytes).unwrap().open("large").unwrap();
    assert!(entry.packed_size() < entry.size());
    let mut pieces = Vec::new();
    entry.extract(&mut pieces).unwrap();
    assert_eq!(pieces, large);
    assert_eq!(entry.to_vec().unwrap(), large);
}

/// Whatever the bytes are: no panic, and what is accepted is within the caps and as large as it says.
fn holds(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(bundle) = Bundle::read(bytes) else { return Ok(()) };
    prop_assert!((1..=BUNDLE_ENTRIES_MAX).contains(&bundle.entries().len()));
    let (mut total, mut packed) = (0, 0);
    for entry in bundle.entries() {
        prop_assert_eq!(bundle.open(entry.path()), Ok(*entry));
        prop_assert!(entry.size() <= FILE_BYTES_MAX);
        total += entry.size();
        packed += entry.packed_size();
        let mut counter = Counter::default();
        match entry.extract(&mut counter) {
            Ok(()) => prop_assert_eq!(counter.0, entry.size()),
            Err(fault) => {
                prop_assert!(counter.0 <= entry.size());
                prop_assert!(!fault.to_string().contains(char::is_control));
            }
        }
    }
    prop_assert!(total <= BUNDLE_UNPACKED_BYTES_MAX);
    prop_assert!(packed < bytes.len() as u64);
    Ok(())
}

/// Bytes among which the signatures of zip are frequent.
fn zippish() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"PK\x03\x04\x14\0\0\0\0\0".to_vec()),
        Just(b"PK\x01\x02\x14\x03\x14\0\0\0".to_vec()),
        Just(b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec()),
        Just(b"PK\x06\x07".to_vec()),
        Just(vec![0; 8]),
        vec(any::<u8>(), 0..12),
    ];
    vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..600)) {
        holds(&bytes)?;
    }

    #[test]
    fn any_zip_like_bytes_are_survived(bytes in zippish()) {
        holds(&bytes)?;
    }

    #[test]
    fn a_bundle_with_any_changes_is_survived(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        moved in any::<prop::sample::Index>(),
    ) {
        let mut bytes = good();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        holds(&bytes)?;
        let at = moved.index(bytes.len());
        bytes.rotate_left(at);
        holds(&bytes)?;
    }

    #[test]
    fn headers_that_agree_on_anything_are_survived(
        method in prop_oneof![Just(0_u16), Just(8), any::<u16>()],
        flags in prop_oneof![Just(0_u16), any::<u16>()],
        sizes in (any::<u32>(), prop_oneof![0_u32..200_000, any::<u32>()]),
        keep in any::<(bool, bool)>(),
        mode in prop_oneof![Just(0o100_644_u32 << 16), any::<u32>()],
        name in vec(any::<u8>(), 0..20),
        data in vec(any::<u8>(), 0..400),
    ) {
        let member = Member::stored(name, data).both(|header| {
            (header.method, header.flags) = (method, flags);
            header.packed = if keep.0 { header.packed } else { sizes.0 };
            header.size = if keep.1 { header.size } else { sizes.1 };
        });
        holds(&Zip::of([member.with(|member| member.external = mode)]).build())?;
    }
}
