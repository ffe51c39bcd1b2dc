//! House rules that no compiler knows: who may depend on whom, what every file starts with, what is never used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which packages of this repository a package may name, in any kind of dependency. Downwards only.
const EDGES: [(&str, &[&str]); 8] = [
    ("themis-messages", &[]),
    ("themis-plugin", &[]),
    ("themis-sandbox", &["themis-messages", "themis-plugin"]),
    ("themis-persistence", &["themis-messages"]),
    ("themis-actors", &["themis-messages", "themis-persistence", "themis-sandbox"]),
    (
        "themis-kernel",
        // The tests' fixtures only as a dev-dependency: the examples in its documentation run.
        &[
            "themis-actors",
            "themis-messages",
            "themis-persistence",
            "themis-sandbox",
            "themis-tests",
        ],
    ),
    ("themis", &["themis-kernel"]),
    ("themis-tests", &["themis-kernel", "themis-messages", "themis-plugin", "themis-sandbox"]),
];

/// Libraries that carry a risk or a design decision, and the packages that may name them.
const OWNERS: [(&str, &[&str]); 14] = [
    ("pubgrub", &["themis-actors"]),
    ("rocksdb", &["themis-persistence"]),
    ("libloading", &["themis-sandbox"]),
    ("ed25519-dalek", &["themis-sandbox"]),
    ("object", &["themis-sandbox"]),
    ("wasmtime", &["themis-sandbox"]),
    ("wasmparser", &["themis-sandbox"]),
    ("wasm-encoder", &["themis-sandbox"]),
    ("landlock", &["themis-sandbox"]),
    ("seccompiler", &["themis-sandbox"]),
    ("cgroups-rs", &["themis-sandbox"]),
    ("ractor", &["themis-messages", "themis-actors", "themis-kernel"]),
    ("tough", &["themis-actors"]),
    ("reqwest", &["themis-actors"]),
];

/// Benches compare with peers and look into every layer; nothing depends on them.
const FREE: &str = "themis-benches";

/// Where memory safety is argued for by hand: the two crates that cross the C border, and hostile plugins.
const MAY_BE_UNSAFE: [&str; 4] = ["sandbox/", "sdk/", "tests/plugins/", "tests/examples/"];

/// Plugins that hang on purpose.
const MAY_SLEEP: [&str; 2] = ["tests/plugins/", "tests/examples/"];

const FUNCTION_LINES_MAX: usize = 70;
const SOURCES: [&str; 4] = ["rs", "c", "h", "py"];

fn root() -> PathBuf {
    // Asked at run time: a test binary may run in another checkout than the one it was built in.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    Path::new(&here).parent().unwrap().to_owned()
}

/// Path below the root and text of every file with one of the extensions.
fn files(extensions: &[&str]) -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.clone()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if kind.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted))
            {
                let below = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.insert(below, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(!found.is_empty(), "no {extensions:?} files below {}", root.display());
    found
}

fn none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

/// The code of a line: without a comment at its end. Text in quotes stays, which is why this file spells the
/// words it looks for in halves.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

fn is_below(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// Name and dependencies of every package.
fn packages() -> BTreeMap<String, Vec<String>> {
    let mut packages = BTreeMap::new();
    for (path, text) in files(&["toml"]) {
        // Members are one folder deep; what lies deeper is a workspace of its own or data.
        if !path.ends_with("/Cargo.toml") || path.matches('/').count() > 1 {
            continue;
        }
        let manifest: toml::Table = text.parse().unwrap();
        let Some(name) = manifest.get("package").and_then(|package| package["name"].as_str())
        else {
            continue;
        };
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
        let names = tables.flat_map(|table| table.keys().cloned()).collect();
        packages.insert(name.to_owned(), names);
    }
    packages
}

#[test]
fn dependencies_point_down() {
    let packages = packages();
    let mut offences = Vec::new();
    for (package, dependencies) in packages.iter().filter(|(package, _)| *package != FREE) {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| name == package) else {
            offences.push(format!("{package} is not in the list of edges"));
            continue;
        };
        let own = dependencies.iter().filter(|name| packages.contains_key(*name));
        let wrong = own.filter(|name| !allowed.contains(&name.as_str()));
        offences.extend(wrong.map(|name| format!("{package} must not depend on {name}")));
    }
    for (package, _) in EDGES {
        if !packages.contains_key(package) {
            offences.push(format!("{package} is in the list of edges but not in the repository"));
        }
    }
    none(&offences);
}

#[test]
fn libraries_have_owners() {
    let mut offences = Vec::new();
    for (package, dependencies) in packages().iter().filter(|(package, _)| *package != FREE) {
        for (library, owners) in OWNERS {
            if dependencies.iter().any(|name| name == library)
                && !owners.contains(&package.as_str())
            {
                offences.push(format!(
                    "{package} must not name {library}, which belongs to {owners:?}"
                ));
            }
        }
    }
    none(&offences);
}

#[test]
fn code_that_is_not_checked_stays_at_the_borders() {
    let word = concat!("un", "safe");
    let mut offences = Vec::new();
    for (path, text) in files(&["rs"]).iter().filter(|(path, _)| !is_below(path, &MAY_BE_UNSAFE)) {
        let lines = text.lines().enumerate();
        let wrong = lines.filter(|(_, line)| has_word(code(line), word));
        offences
            .extend(wrong.map(|(index, line)| format!("{path}:{}: {}", index + 1, line.trim())));
    }
    none(&offences);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let files = files(&["rs"]);
    let silent = files.iter().filter(|(_, text)| !text.starts_with("//! "));
    none(&silent.map(|(path, _)| format!("{path} does not open with `//! `")).collect::<Vec<_>>());
}

#[test]
fn modules_have_names() {
    let unnamed = concat!("/mo", "d.rs");
    let files = files(&["rs"]);
    none(&files.keys().filter(|path| path.ends_with(unnamed)).cloned().collect::<Vec<_>>());
}

#[test]
fn no_test_is_ignored_and_none_waits_for_time_to_pass() {
    let ignored = concat!("#[", "ignore");
    let blocking = concat!("thread::", "sleep");
    let sleeping = concat!("sle", "ep(");
    let mut offences = Vec::new();
    for (path, text) in files(&["rs"]).iter().filter(|(path, _)| !is_below(path, &MAY_SLEEP)) {
        let mut is_test = path.starts_with("tests/") || path.ends_with("tests.rs");
        for (index, line) in text.lines().enumerate() {
            is_test |= line.ends_with("mod tests {");
            let line_code = code(line);
            let waits = line_code.contains(blocking) || (is_test && line_code.contains(sleeping));
            if line_code.trim_start().starts_with(ignored) || waits {
                offences.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    none(&offences);
}

#[test]
fn functions_fit_on_a_screen() {
    let mut offences = Vec::new();
    for (path, text) in files(&["rs"]) {
        let lines: Vec<_> = text.lines().collect();
        for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            // Formatted code closes a function where it opened it.
            let indent = line.len() - line.trim_start().len();
            let close = format!("{}}}", " ".repeat(indent));
            let rest = lines.iter().skip(start + 1).take_while(|line| **line != close);
            let length = rest.filter(|line| !code(line).trim().is_empty()).count();
            let is_closed = !line.ends_with('}') && !line.ends_with(';');
            if is_closed && has_body(&lines, start) && length > FUNCTION_LINES_MAX {
                offences.push(format!("{path}:{}: {length} lines", start + 1));
            }
        }
    }
    none(&offences);
}

fn is_function(line: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().take(7).collect();
    let modifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "extern", "\"C\""];
    let first =
        words.iter().find(|word| !modifiers.contains(word) && **word != concat!("un", "safe"));
    first == Some(&"fn")
}

/// Whether the signature that starts there ends in a body: a declaration in a trait ends in `;`.
fn has_body(lines: &[&str], start: usize) -> bool {
    let end = lines.iter().skip(start).find(|line| line.ends_with('{') || line.ends_with(';'));
    end.is_some_and(|line| line.ends_with('{'))
}

#[test]
fn the_map_names_every_source_file() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sources = files(&SOURCES);
    let missing = sources.keys().filter(|path| !map.contains(path.as_str()));
    none(&missing.map(|path| format!("ARCHITECTURE.md does not name {path}")).collect::<Vec<_>>());
}

#[test]
fn the_rules_see_what_they_forbid() {
    assert!(has_word("    danger { x }", "danger") && !has_word("danger_code = 1", "danger"));
    assert_eq!(code("let x = 1; // danger"), "let x = 1; ");
    for yes in ["fn a() {", "    pub(crate) const fn b(", "pub async fn c() -> u8 {"] {
        assert!(is_function(yes), "{yes}");
    }
    for no in ["// fn a() {", "let f = fn_pointer;", "impl Fn for X {"] {
        assert!(!is_function(no), "{no}");
    }
    assert!(has_body(&["fn a(", ") {"], 0) && !has_body(&["fn a(", ");", "fn b() {"], 0));
}
