//! The demo's closing table: true when nothing is wrong, and not when something is.

use std::process::Output;

use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    themis_tests::program()
        .args(["demo", "--once", "--seconds", "1", "--json"])
        .args(arguments)
        .output()
        .unwrap()
}

/// The claims that did not hold.
fn broken(output: &Output) -> Vec<String> {
    let told = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    let claims = report["claims"].as_array().unwrap();
    assert!(claims.len() >= 25, "{claims:?}");
    let failed = claims.iter().filter(|claim| claim["held"] != true);
    failed.map(|claim| claim["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_claim_holds() {
    let output = demo(&[]);
    assert_eq!(broken(&output), Vec::<String>::new());
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn each_claim_that_is_broken_on_purpose_is_noticed() {
    for (sabotage, claim) in [
        ("lost", "calls lost"),
        ("wrong", "wrong answers"),
        ("rollback", "rollback to 1.0.0"),
        ("state", "call counter survived every change"),
        ("probation", "1.3.0 swapped back by itself"),
        ("memory", "a plugin that eats memory"),
        ("bundle", "geo from a bundle, as wasm"),
        ("mirror", "refused: a mirror that changed one bit"),
        ("audit", "themis audit verify"),
    ] {
        let output = demo(&["--sabotage", sabotage]);
        assert_eq!(output.status.code(), Some(1), "{sabotage}");
        let broken = broken(&output);
        assert!(broken.iter().any(|it| it == claim), "{sabotage}: {broken:?}");
    }
}
