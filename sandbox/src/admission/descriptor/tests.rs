//! Each field of a descriptor, wrong in each way.

use super::*;

fn good() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    put(&mut bytes, 0, &abi::MAGIC);
    put(&mut bytes, 8, &(SIZE as u32).to_le_bytes());
    put(&mut bytes, 12, &1_u16.to_le_bytes());
    put(&mut bytes, 16, &(abi::THREAD_SAFE | 1 << 20).to_le_bytes());
    put(&mut bytes, 24, b"geo");
    put(&mut bytes, 88, b"1.2.0");
    bytes
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn parse(bytes: &[u8]) -> Result<Descriptor, AdmitError> {
    Descriptor::parse(Path::new("lib.so"), bytes)
}

#[test]
fn a_descriptor_says_what_its_author_wrote() {
    let descriptor = parse(&good()).unwrap();
    assert_eq!(descriptor.name.as_str(), "geo");
    assert_eq!(descriptor.version.to_string(), "1.2.0");
    assert_eq!(descriptor.abi, AbiVersion { major: 1, minor: 0 });
    assert!(descriptor.is_thread_safe(), "unknown low bits are ignored");
    let mut longer = good();
    longer.extend([9; 64]);
    put(&mut longer, 8, &(SIZE as u32 + 64).to_le_bytes());
    assert_eq!(parse(&longer).unwrap().struct_size, SIZE as u32 + 64, "newer plugins are larger");
    let full = "n".repeat(63);
    let mut bytes = good();
    put(&mut bytes, 24, full.as_bytes());
    assert_eq!(parse(&bytes).unwrap().name.as_str(), full);
}

#[test]
fn each_wrong_field_is_named() {
    let cases: [(usize, &[u8], &str); 11] = [
        (0, b"THEMIS2\0", "magic"),
        (7, b" ", "magic"),
        (8, &0_u32.to_le_bytes(), "struct_size"),
        (8, &(SIZE as u32 - 1).to_le_bytes(), "struct_size"),
        (8, &(SIZE as u32 + 1).to_le_bytes(), "struct_size"),
        (8, &u32::MAX.to_le_bytes(), "struct_size"),
        (24, b"Geo", "name"),
        (24, b"\0geo", "name"),
        (24, &[b'n'; 64], "name"),
        (88, b"1.2\0", "version"),
        (100, b"x", "version"),
    ];
    for (at, new, wrong) in cases {
        let mut bytes = good();
        put(&mut bytes, at, new);
        let error = parse(&bytes).unwrap_err();
        assert!(
            matches!(error, AdmitError::DescriptorInvalid { field, .. } if field == wrong),
            "{at}: {error}"
        );
    }
    let mut bytes = good();
    put(&mut bytes, 24, b"g\xffo");
    let error = parse(&bytes).unwrap_err();
    assert!(matches!(error, AdmitError::DescriptorInvalid { field: "name", .. }), "{error}");
}

#[test]
fn a_descriptor_cut_anywhere_is_refused() {
    let bytes = good();
    for end in 0..bytes.len() {
        let error = parse(&bytes[..end]).unwrap_err();
        assert!(matches!(error, AdmitError::DescriptorInvalid { .. }), "{end}: {error}");
    }
}

#[test]
fn another_abi_is_refused_as_such() {
    for (major, minor) in [(0_u16, 0_u16), (1, 1), (2, 0), (u16::MAX, u16::MAX)] {
        let mut bytes = good();
        put(&mut bytes, 12, &major.to_le_bytes());
        put(&mut bytes, 14, &minor.to_le_bytes());
        let expected = AdmitError::AbiUnsupported {
            path: "lib.so".into(),
            found: format!("{major}.{minor}"),
            supported: "1.0".to_owned(),
        };
        assert_eq!(parse(&bytes), Err(expected));
    }
}

#[test]
fn a_required_feature_nobody_knows_is_refused_by_its_bit() {
    for bit in 0..64 {
        let mut bytes = good();
        put(&mut bytes, 16, &(1_u64 << bit).to_le_bytes());
        let verdict = parse(&bytes);
        if bit < 32 {
            assert_eq!(verdict.unwrap().is_thread_safe(), bit == 0);
        } else {
            let unknown = AdmitError::FeatureUnknown { path: "lib.so".into(), bit };
            assert_eq!(verdict, Err(unknown));
        }
    }
}
