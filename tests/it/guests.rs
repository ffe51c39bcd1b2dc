//! The example plugins as modules: one source, the same answers to the last bit, and no import that is not used.

use std::path::Path;

use themis_kernel::admission::sign_dir;
use themis_kernel::call::CallError;
use themis_kernel::ids::Tier;
use themis_kernel::{Kernel, PluginRef};
use themis_tests::{Fixture, Site, built_example, built_guest, make_dir, repository};

/// An example's manifest.
fn manifest(example: &str) -> String {
    let path = repository().join(format!("sdk/examples/{example}.manifest.json"));
    std::fs::read_to_string(path).unwrap()
}

/// Puts a signed plugin below the root: its manifest and what it is built as.
fn add(site: &Site, place: &str, manifest: &str, library: Option<&Path>, module: &[u8]) {
    let dir = site.root().join(place);
    let name = place.split('/').next().unwrap();
    make_dir(&dir);
    if let Some(library) = library {
        make_dir(&dir.join("linux-x86_64"));
        std::fs::copy(library, dir.join(format!("linux-x86_64/lib{name}.so"))).unwrap();
    }
    std::fs::write(dir.join(format!("{name}.wasm")), module).unwrap();
    std::fs::write(dir.join("manifest.json"), manifest).unwrap();
    sign_dir(&dir, &site.key).unwrap();
}

fn start(site: &Site, tier: Tier, name: &str, place: &str) -> (Kernel, PluginRef) {
    let mut config = site.config(&[name]);
    config.default_tier = tier;
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = kernel.loader().load_blocking(place, None).unwrap();
    assert_eq!(plugin.info().tier, Some(tier));
    (kernel, plugin)
}

/// What the same plugin answers to the same requests, in-process and then as wasm.
fn answers_in_both_tiers(site: &Site, place: &str, method: u32, requests: &[Vec<u8>]) {
    let name = place.split('/').next().unwrap();
    let answers = |tier| {
        let (kernel, plugin) = start(site, tier, name, place);
        let answer = |request: &Vec<u8>| match plugin.call(method, request) {
            Ok(answer) => Ok(answer.bytes),
            Err(error) => Err(error.to_string()),
        };
        let answers: Vec<_> = requests.iter().map(answer).collect();
        kernel.shutdown_blocking();
        answers
    };
    let (native, wasm) = (answers(Tier::InProcess), answers(Tier::Wasm));
    assert!(native.iter().any(Result::is_ok), "{:?}", native.first());
    for (request, (native, wasm)) in requests.iter().zip(native.iter().zip(&wasm)) {
        assert_eq!(native, wasm, "{request:?}");
    }
}

/// Numbers that look random and are the same in every run.
fn numbers() -> impl Iterator<Item = f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    })
}

/// Two points as `distance_km` takes them: an array of four numbers in MessagePack.
fn packed(points: [f64; 4]) -> Vec<u8> {
    let number = |number: f64| [[0xcb].as_slice(), number.to_be_bytes().as_slice()].concat();
    [vec![0x94], points.map(number).concat()].concat()
}

#[test]
fn distances_are_the_same_to_the_last_bit_as_a_library_and_as_a_module() {
    let mut numbers = numbers();
    let mut point =
        || [numbers.next().unwrap() * 180.0 - 90.0, numbers.next().unwrap() * 360.0 - 180.0];
    let mut requests = vec![packed([0.0, 0.0, 0.5, 179.7]), packed([90.0, 0.0, -90.0, 77.0])];
    requests.push(packed([91.0, 0.0, 0.0, 0.0]));
    for _ in 0..10_000 {
        let ([lat1, lon1], [lat2, lon2]) = (point(), point());
        requests.push(packed([lat1, lon1, lat2, lon2]));
        // Nearly antipodal, where the iteration gives way to a search.
        requests.push(packed([
            lat1,
            lon1,
            -lat1,
            if lon1 > 0.0 { lon1 - 180.0 } else { lon1 + 180.0 },
        ]));
    }
    for (version, example) in [("1.0.0", "geo_1_0"), ("1.1.0", "geo_1_1")] {
        let site = Site::new();
        let (place, module) =
            (format!("geo/{version}"), std::fs::read(built_guest(example)).unwrap());
        add(&site, &place, &manifest(example), Some(&built_example(example)), &module);
        answers_in_both_tiers(&site, &place, 1, &requests);
    }
}

#[test]
fn text_is_folded_the_same_as_a_library_and_as_a_module() {
    let site = Site::new();
    let source = repository().join("sdk/examples/text/text.c");
    // An absolute path is a fixture's, too.
    let compiled = site.add(&Fixture::c(source.to_str().unwrap(), "text", "1.0.0"));
    let library = site.path().join("libtext.so");
    std::fs::copy(site.root().join(&compiled).join("linux-x86_64/libtext.so"), &library).unwrap();
    std::fs::remove_dir_all(site.root().join("text")).unwrap();
    let module = std::fs::read(built_guest("text")).unwrap();
    add(&site, "text/1.0.0", &manifest("text"), Some(&library), &module);
    let mut requests: Vec<_> =
        ('\0'..='\u{2fff}').map(|letter| letter.to_string().into_bytes()).collect();
    requests.extend([
        "São Paulo".into(),
        "É".repeat(5_000).into_bytes(),
        b"\xff".to_vec(),
        Vec::new(),
    ]);
    answers_in_both_tiers(&site, "text/1.0.0", 1, &requests);
}

#[test]
fn a_module_imports_what_its_plugin_uses_and_nothing_else() {
    let site = Site::new();
    let module = std::fs::read(built_guest("geo_1_0")).unwrap();
    let ungranted =
        manifest("geo_1_0").replace(r#""capabilities": ["log"]"#, r#""capabilities": []"#);
    add(&site, "geo/1.0.0", &ungranted, None, &module);
    let mut config = site.config(&[]);
    config.default_tier = Tier::Wasm;
    let kernel = Kernel::start_blocking(config).unwrap();
    let refused = kernel.loader().load_blocking("geo/1.0.0", None).unwrap_err();
    assert_eq!(refused.code(), "wasm.imports");
    let told = refused.to_string();
    assert!(told.contains("themis.log"), "{told}");
    for unused in ["reply", "now_ns", "counter_add", "resource_read"] {
        assert!(!told.contains(&format!("themis.{unused}")), "{told}");
    }
    kernel.shutdown_blocking();
}

#[test]
fn a_module_written_by_hand_serves() {
    let site = Site::new();
    let module = wat::parse_file(repository().join("sdk/examples/echo/echo.wat")).unwrap();
    add(&site, "echo/1.0.0", &manifest("echo"), None, &module);
    let (kernel, echo) = start(&site, Tier::Wasm, "echo", "echo/1.0.0");
    for size in [0, 1, 2, 3, 65_535, 65_536, 65_537, 1 << 20] {
        let request: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
        assert!(echo.call("echo", &request).unwrap().bytes == request, "{size} bytes");
        let reversed: Vec<u8> = request.iter().rev().copied().collect();
        assert!(echo.call("reverse", &request).unwrap().bytes == reversed, "{size} bytes");
    }
    let unknown = echo.call(3_u32, b"").unwrap_err();
    assert!(matches!(unknown, CallError::UnknownMethod { .. }), "{unknown}");
    kernel.shutdown_blocking();
}
