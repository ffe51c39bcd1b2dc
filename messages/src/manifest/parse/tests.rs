//! Each field of a manifest, wrong in each way it can be wrong, and what is right stays right.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn minimal() -> Value {
    json!({
        "schema": 1, "name": "geo", "version": "1.2.0", "abi": "1.0",
        "files": [{"path": "linux-x86_64/libgeo.so", "target": "linux-x86_64",
                   "sha256": DIGEST, "size": 7}],
        "key_id": "0123456789abcdef",
        "methods": [{"name": "distance_km", "id": 1}],
    })
}

fn full() -> Value {
    let mut value = minimal();
    let more = json!({
        "description": "Distances\n\ton earth", "license": "MIT", "authors": ["Ada", "Bea"],
        "files": [
            {"path": "linux-x86_64/libgeo.so", "target": "linux-x86_64", "sha256": DIGEST, "size": 7},
            {"path": "geo.wasm", "target": "wasm32", "sha256": DIGEST, "size": 8},
            {"path": "data/a.json", "target": "data", "sha256": DIGEST, "size": 0},
            {"path": "data/b.json", "target": "data", "sha256": DIGEST, "size": 1},
            {"path": "plan9/geo", "target": "plan9-mips", "sha256": DIGEST, "size": 1},
        ],
        "methods": [{"name": "distance_km", "id": 1, "encoding": "msgpack"},
                    {"name": "raw", "id": 0}],
        "dependencies": {"tokenizer": "^1.2"},
        "capabilities": ["log", "clock", "metrics", "resources"],
        "limits": {"memory_bytes": 1, "cpu_percent": 50, "pids": 16, "fuel_per_call": 1_000_000_000},
        "config": {"free": {"shape": [1, null]}},
        "self_test": [{"method": "raw", "request": "AAE=", "reply": ""}],
        "created": "2026-11-22T00:00:00Z", "expires": null,
        "extensions": {"anything": true},
    });
    for (key, field) in more.as_object().unwrap() {
        value[key] = field.clone();
    }
    value
}

fn parse(value: &Value) -> Result<Manifest, AdmitError> {
    Manifest::parse(Path::new("m.json"), value.to_string().as_bytes())
}

/// Sets what the pointer names, adding a last key that is not there.
fn set(value: &mut Value, pointer: &str, new: Value) {
    if let Some(place) = value.pointer_mut(pointer) {
        *place = new;
        return;
    }
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[key] = new;
}

#[test]
fn a_full_manifest_says_what_was_written() {
    let manifest = parse(&full()).unwrap();
    assert_eq!(manifest.name.as_str(), "geo");
    assert_eq!(manifest.abi, AbiVersion { major: 1, minor: 0 });
    assert_eq!(manifest.files.len(), 5);
    assert_eq!(manifest.files[4].target, Target::Unknown("plan9-mips".to_owned()));
    assert_eq!(manifest.methods[0].encoding, Encoding::MsgPack);
    assert_eq!(manifest.methods[1].encoding, Encoding::Bytes);
    assert_eq!(manifest.self_test[0].request, [0, 1]);
    assert_eq!(manifest.limits.pids, Some(16));
    assert_eq!(manifest.expires, None);
    assert!(manifest.wants(Capability::Resources));
    assert_eq!(manifest.config["free"]["shape"][0], 1);
}

#[test]
fn optional_fields_may_be_absent() {
    let manifest = parse(&minimal()).unwrap();
    assert_eq!(manifest.limits, RequestedLimits::default());
    assert!(manifest.capabilities.is_empty() && manifest.dependencies.is_empty());
}

#[test]
fn an_abi_of_tomorrow_is_well_formed_but_not_supported() {
    for abi in ["1.1", "2.0", "0.9"] {
        let mut value = minimal();
        value["abi"] = json!(abi);
        let manifest = parse(&value).unwrap();
        assert_eq!(manifest.abi.to_string(), abi);
        assert!(!manifest.abi.is_supported(), "{abi}");
    }
}

#[test]
fn each_required_field_is_missed_by_name() {
    for field in ["schema", "name", "version", "abi", "files", "key_id", "methods"] {
        let mut value = full();
        value.as_object_mut().unwrap().remove(field);
        let missing =
            AdmitError::ManifestMissingField { path: "m.json".into(), field: field.to_owned() };
        assert_eq!(parse(&value), Err(missing));
    }
    let nested = [
        ("/files/1", "path"),
        ("/files/1", "target"),
        ("/files/1", "sha256"),
        ("/files/1", "size"),
        ("/methods/1", "name"),
        ("/methods/1", "id"),
        ("/self_test/0", "method"),
        ("/self_test/0", "request"),
        ("/self_test/0", "reply"),
    ];
    for (place, field) in nested {
        let mut value = full();
        value.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(field);
        let Err(AdmitError::ManifestMissingField { field: found, .. }) = parse(&value) else {
            panic!("{place}/{field} is required");
        };
        assert!(found.ends_with(&format!("].{field}")), "{found}");
    }
}

#[test]
fn unknown_keys_are_refused_wherever_the_shape_is_fixed() {
    for (pointer, key) in [
        ("/mode", "mode"),
        ("/Name", "Name"),
        ("/files/0/mode", "files[0].mode"),
        ("/methods/1/doc", "methods[1].doc"),
        ("/limits/io", "limits.io"),
        ("/self_test/0/note", "self_test[0].note"),
        ("/allow_unsigned", "allow_unsigned"),
    ] {
        let mut value = full();
        set(&mut value, pointer, json!(1));
        let unknown = AdmitError::ManifestUnknownKey { path: "m.json".into(), key: key.to_owned() };
        assert_eq!(parse(&value), Err(unknown));
    }
}

/// Pointer, wrong value, field the error must name.
type WrongValue = (&'static str, Value, &'static str);

fn wrong_values() -> Vec<WrongValue> {
    [wrong_at_the_top(), wrong_in_files(), wrong_in_the_rest()].concat()
}

fn wrong_at_the_top() -> Vec<WrongValue> {
    let long_text = "x".repeat(MANIFEST_TEXT_BYTES_MAX + 1);
    let long_list = vec!["a"; MANIFEST_LIST_MAX + 1];
    vec![
        ("/schema", json!(2), "schema"),
        ("/schema", json!("1"), "schema"),
        ("/schema", json!(1.0), "schema"),
        ("/schema", json!(null), "schema"),
        ("/name", json!("Geo"), "name"),
        ("/name", json!("gеo"), "name"),
        ("/name", json!(["geo"]), "name"),
        ("/name", json!(""), "name"),
        ("/version", json!("1.2"), "version"),
        ("/version", json!("1.2.0+b"), "version"),
        ("/version", json!(1.2), "version"),
        ("/abi", json!("1"), "abi"),
        ("/abi", json!("01.0"), "abi"),
        ("/abi", json!("1.+0"), "abi"),
        ("/abi", json!("1.0.0"), "abi"),
        ("/abi", json!("1.65536"), "abi"),
        ("/abi", json!(1.0), "abi"),
        ("/description", json!(1), "description"),
        ("/description", json!(null), "description"),
        ("/description", json!("\u{1b}[2J"), "description"),
        ("/description", json!(long_text), "description"),
        ("/license", json!(["MIT"]), "license"),
        ("/license", json!("\u{7f}"), "license"),
        ("/authors", json!("Ada"), "authors"),
        ("/authors", json!(long_list), "authors"),
        ("/authors/1", json!(7), "authors[1]"),
    ]
}

fn wrong_in_files() -> Vec<WrongValue> {
    vec![
        ("/files", json!([]), "files"),
        ("/files", json!({}), "files"),
        ("/files/0", json!(1), "files[0]"),
        ("/files/2/target", json!("linux-x86_64"), "files[2].target"),
        ("/files/2/target", json!("plan9-mips"), "files[4].target"),
        ("/files/0/target", json!(""), "files[0].target"),
        ("/files/0/target", json!("Linux"), "files[0].target"),
        ("/files/0/sha256", json!(DIGEST.to_uppercase()), "files[0].sha256"),
        ("/files/0/sha256", json!(DIGEST[1..]), "files[0].sha256"),
        ("/files/0/sha256", json!(format!("{DIGEST} ")), "files[0].sha256"),
        ("/files/0/sha256", json!(format!("sha1:{}", &DIGEST[5..])), "files[0].sha256"),
        ("/files/0/sha256", json!("g".repeat(64)), "files[0].sha256"),
        ("/files/0/sha256", json!(null), "files[0].sha256"),
        ("/files/0/size", json!(-1), "files[0].size"),
        ("/files/0/size", json!(7.5), "files[0].size"),
        ("/files/0/size", json!("7"), "files[0].size"),
        ("/files/1/path", json!("LINUX-X86_64/libgeo.so"), "files[1].path"),
        ("/files/1/path", json!("Manifest.JSON"), "files[1].path"),
        ("/files/1/path", json!("plugin.sig"), "files[1].path"),
    ]
}

fn wrong_in_the_rest() -> Vec<WrongValue> {
    vec![
        ("/key_id", json!("0123456789ABCDEF"), "key_id"),
        ("/key_id", json!("0123"), "key_id"),
        ("/key_id", json!(1), "key_id"),
        ("/methods", json!(null), "methods"),
        ("/methods/0/name", json!("Distance"), "methods[0].name"),
        ("/methods/0/name", json!("a-b"), "methods[0].name"),
        ("/methods/0/name", json!("a".repeat(64)), "methods[0].name"),
        ("/methods/1/name", json!("distance_km"), "methods[1].name"),
        ("/methods/1/id", json!(1), "methods[1].id"),
        ("/methods/1/id", json!(4_294_967_296_u64), "methods[1].id"),
        ("/methods/1/encoding", json!("xml"), "methods[1].encoding"),
        ("/dependencies", json!([]), "dependencies"),
        ("/dependencies/tokenizer", json!("one"), "dependencies.tokenizer"),
        ("/dependencies/tokenizer", json!(1), "dependencies.tokenizer"),
        ("/dependencies/geo", json!("*"), "dependencies.geo"),
        ("/dependencies/Up", json!("*"), "dependencies.Up"),
        ("/capabilities", json!("log"), "capabilities"),
        ("/capabilities/0", json!("network"), "capabilities[0]"),
        ("/capabilities/1", json!("log"), "capabilities[1]"),
        ("/limits", json!(null), "limits"),
        ("/limits/pids", json!(0), "limits.pids"),
        ("/limits/memory_bytes", json!(-1), "limits.memory_bytes"),
        ("/limits/cpu_percent", json!(4_294_967_296_u64), "limits.cpu_percent"),
        ("/limits/fuel_per_call", json!("1"), "limits.fuel_per_call"),
        ("/config", json!([]), "config"),
        ("/extensions", json!(null), "extensions"),
        ("/self_test", json!({}), "self_test"),
        ("/self_test/0/method", json!("absent"), "self_test[0].method"),
        ("/self_test/0/request", json!("AAE"), "self_test[0].request"),
        ("/self_test/0/request", json!("AAF="), "self_test[0].request"),
        ("/self_test/0/reply", json!("A A="), "self_test[0].reply"),
        ("/self_test/0/reply", json!("_-8="), "self_test[0].reply"),
        ("/created", json!("yesterday"), "created"),
        ("/created", json!(null), "created"),
        ("/expires", json!("2026-13-01T00:00:00Z"), "expires"),
        ("/expires", json!(0), "expires"),
    ]
}

#[test]
fn each_wrong_value_is_refused_with_its_field() {
    for (pointer, wrong, field) in wrong_values() {
        let mut value = full();
        set(&mut value, pointer, wrong.clone());
        match parse(&value) {
            Err(AdmitError::ManifestField { field: found, why, .. }) => {
                assert_eq!(found, field, "{pointer} = {wrong:.60}");
                assert!(!why.is_empty());
                assert!(!why.contains(|c: char| c.is_control()), "{why:?} is safe to print");
            }
            other => panic!("{pointer} = {wrong:.60}: {other:?}"),
        }
    }
}

#[test]
fn a_manifest_is_an_object() {
    for value in [json!([]), json!(null), json!("x"), json!(1)] {
        assert!(matches!(parse(&value), Err(AdmitError::ManifestField { .. })), "{value}");
    }
}

#[test]
fn too_many_files_are_refused() {
    let mut value = minimal();
    value["files"] = (0..=FILES_MAX)
        .map(|i| json!({"path": format!("{i}"), "target": "data", "sha256": DIGEST, "size": 1}))
        .collect();
    let size = value.to_string().len() as u64;
    assert!(size <= MANIFEST_BYTES_MAX, "the list's own cap is the one that refuses");
    assert!(
        matches!(parse(&value), Err(AdmitError::ManifestField { field, .. }) if field == "files")
    );
}

/// A24: tricks with JSON itself, and the cap that comes before any parsing.
#[test]
fn a24_json_tricks_are_refused() {
    let good = minimal().to_string();
    let refusal = |text: &[u8]| Manifest::parse(Path::new("m.json"), text).unwrap_err();
    let duplicate = good.replacen('{', "{\"name\":\"other\",", 1);
    assert!(
        matches!(refusal(duplicate.as_bytes()), AdmitError::ManifestDuplicateKey { key, .. } if key == "name")
    );
    let nested = good.replacen("\"size\":7", "\"size\":7,\"size\":8", 1);
    assert!(matches!(refusal(nested.as_bytes()), AdmitError::ManifestDuplicateKey { .. }));
    for text in [
        format!("\u{feff}{good}"),
        format!("{good}x"),
        format!("{good}{good}"),
        good.replace("\"size\":7", "\"size\":NaN"),
        good.replace("\"size\":7", "\"size\":1e400"),
        "[".repeat(10_000),
        String::new(),
    ] {
        assert!(
            matches!(refusal(text.as_bytes()), AdmitError::ManifestSyntax { .. }),
            "{text:.40}"
        );
    }
    let padded = |size: usize| [good.as_bytes(), &vec![b' '; size - good.len()]].concat();
    let cap = MANIFEST_BYTES_MAX as usize;
    assert!(
        Manifest::parse(Path::new("m.json"), &padded(cap)).is_ok(),
        "the cap itself is allowed"
    );
    let too_large = AdmitError::FileTooLarge {
        path: "m.json".into(),
        size: MANIFEST_BYTES_MAX + 1,
        max: MANIFEST_BYTES_MAX,
    };
    assert_eq!(refusal(&padded(cap + 1)), too_large);
}

/// A29: paths that lead elsewhere, or that another system would read as another name.
#[test]
fn a29_paths_that_lead_elsewhere_are_refused() {
    let long = "a/".repeat(PATH_BYTES_MAX);
    let long_component = "a".repeat(PATH_COMPONENT_BYTES_MAX + 1);
    for (path, fault) in [
        ("", PathFault::Empty),
        ("/etc/passwd", PathFault::Absolute),
        ("C:/evil", PathFault::Absolute),
        ("c:evil.dll", PathFault::Absolute),
        ("../x", PathFault::Parent),
        ("a/../x", PathFault::Parent),
        ("a/..", PathFault::Parent),
        ("a//b", PathFault::Component),
        ("a/./b", PathFault::Component),
        ("./a", PathFault::Component),
        ("a/", PathFault::Component),
        (".", PathFault::Component),
        ("a\0b", PathFault::Character),
        ("a\nb", PathFault::Character),
        ("..\\x", PathFault::Character),
        ("a\\b", PathFault::Character),
        ("ab:stream", PathFault::Character),
        ("a*", PathFault::Character),
        ("a\u{85}", PathFault::Character),
        ("a.", PathFault::Reserved),
        ("a ", PathFault::Reserved),
        ("a./b", PathFault::Reserved),
        ("...", PathFault::Reserved),
        ("NUL", PathFault::Reserved),
        ("data/con.txt", PathFault::Reserved),
        ("aux .x", PathFault::Reserved),
        ("COM9", PathFault::Reserved),
        ("lpt1.tar.gz", PathFault::Reserved),
        ("com¹", PathFault::Reserved),
        (long.as_str(), PathFault::TooLong),
        (long_component.as_str(), PathFault::TooLong),
    ] {
        assert_eq!(check_relative_path(path), Err(fault), "{path:.40?}");
        let mut value = full();
        set(&mut value, "/files/2/path", json!(path));
        assert!(
            matches!(parse(&value), Err(AdmitError::ManifestField { field, .. }) if field == "files[2].path"),
            "{path:.40?}"
        );
    }
    let longest = "a".repeat(PATH_COMPONENT_BYTES_MAX);
    for path in
        ["a", "a/b.c", ".hidden", "data/größe.csv", "console", "com", "com10", "a b", &longest]
    {
        assert_eq!(check_relative_path(path), Ok(()), "{path}");
    }
}

#[test]
fn every_difference_between_manifests_is_named() {
    let manifest = parse(&full()).unwrap();
    assert_eq!(manifest.first_difference(&manifest), None);
    for (pointer, new, field) in [
        ("/name", json!("geo2"), "name"),
        ("/version", json!("1.2.1"), "version"),
        ("/abi", json!("1.1"), "abi"),
        ("/description", json!("d"), "description"),
        ("/license", json!("X"), "license"),
        ("/authors", json!([]), "authors"),
        ("/files/0/size", json!(9), "files"),
        ("/key_id", json!("1123456789abcdef"), "key_id"),
        ("/methods/0/id", json!(9), "methods"),
        ("/dependencies", json!({}), "dependencies"),
        ("/capabilities", json!([]), "capabilities"),
        ("/limits", json!({}), "limits"),
        ("/config", json!({}), "config"),
        ("/self_test", json!([]), "self_test"),
        ("/created", json!("2026-11-23T00:00:00Z"), "created"),
        ("/expires", json!("2026-11-23T00:00:00Z"), "expires"),
        ("/extensions", json!({}), "extensions"),
    ] {
        let mut value = full();
        set(&mut value, pointer, new);
        let other = parse(&value).unwrap();
        assert_eq!(manifest.first_difference(&other).as_deref(), Some(field));
        assert_eq!(manifest == other, manifest.first_difference(&other).is_none());
    }
}

proptest! {
    #[test]
    fn never_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _verdict = Manifest::parse(Path::new("m.json"), &bytes);
        let _verdict = check_relative_path(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn never_panics_on_a_damaged_manifest(at in 0_usize..1_500, byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = full().to_string().into_bytes();
        let at = at % bytes.len();
        if cut { bytes.truncate(at); } else { bytes[at] = byte; }
        if let Ok(manifest) = Manifest::parse(Path::new("m.json"), &bytes) {
            prop_assert!(!manifest.files.is_empty());
        }
    }

    #[test]
    fn an_accepted_path_stays_below(path in "[a-c./\\\\ :A-C]{0,12}") {
        if check_relative_path(&path).is_ok() {
            let normal = |c: std::path::Component<'_>| matches!(c, std::path::Component::Normal(_));
            prop_assert!(Path::new(&path).components().all(normal));
            prop_assert_eq!(Path::new(&path).components().count(), path.split('/').count());
        }
    }
}
