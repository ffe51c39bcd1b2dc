//! `new`: a plugin that builds, tests, signs, loads and answers as it comes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use themis_kernel::ids::PluginName;

use crate::output::{Failure, Printer};

/// Scaffold a plugin.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The plugin's name: a-z, then a-z 0-9 - _, at most 63
    name: PluginName,
    /// What to write it in
    #[arg(long, default_value = "rust")]
    lang: Language,
    /// Where; by default a directory of that name here
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the SDK's Rust crate lies; by default in the repository this program was built from
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    /// A crate that depends on the SDK.
    Rust,
    /// One file and the header.
    C,
}

/// Where the SDK lay when this program was built.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk");
const HEADER: &str = include_str!("../../../sdk/include/themis_plugin.h");
const MANIFEST: &str = include_str!("../../templates/manifest.json");
const README: &str = include_str!("../../templates/README.md");

const C: [(&str, &str); 4] = [
    ("{{name}}.c", include_str!("../../templates/c/plugin.c")),
    ("test.c", include_str!("../../templates/c/test.c")),
    ("themis_plugin.h", HEADER),
    ("Makefile", include_str!("../../templates/c/Makefile")),
];

const RUST: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml")),
    ("build.rs", include_str!("../../templates/rust/build.rs")),
    ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs")),
    ("Makefile", include_str!("../../templates/rust/Makefile")),
];

pub(crate) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    let Arguments { name, lang, dir, sdk } = arguments;
    let dir = dir.clone().unwrap_or_else(|| PathBuf::from(name.as_str()));
    refuse_full(&dir)?;
    let (files, sdk) = match lang {
        Language::C => (C, String::new()),
        Language::Rust => (RUST, find_sdk(sdk.as_deref())?),
    };
    let common = [("manifest.json", MANIFEST), ("README.md", README), (".gitignore", IGNORED)];
    let filled = |text: &str| {
        text.replace("{{name}}", name.as_str())
            .replace("{{crate}}", &name.as_str().replace('-', "_"))
            .replace("{{sdk}}", &sdk)
    };
    let mut written = Vec::new();
    for (path, text) in files.into_iter().chain(common) {
        let path = dir.join(filled(path));
        // The header is what it is.
        let text = if text == HEADER { text.to_owned() } else { filled(text) };
        write(&path, &text)?;
        written.push(path);
    }
    let told = json!({"name": name, "dir": dir, "files": written});
    printer.show(&told, |_| {
        let dir = dir.display();
        format!("{name} lies in {dir}; next: cd {dir} && make test && make check && make sign")
    })
}

const IGNORED: &str = "build/\ndist/\ntarget/\n*.key.pem\n";

fn refuse_full(dir: &Path) -> Result<(), Failure> {
    let is_empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_empty {
        return Ok(());
    }
    let what =
        format!("{}: is there already and not an empty directory: give --dir", dir.display());
    Err(Failure::new("new.exists", what))
}

fn find_sdk(named: Option<&Path>) -> Result<String, Failure> {
    let place = named.unwrap_or(Path::new(SDK));
    let unknown = |what: String| Failure::new("new.sdk", what);
    if !place.join("Cargo.toml").is_file() {
        let told = format!(
            "{}: there is no SDK: give --sdk DIR, the directory sdk of Themis's repository",
            place.display()
        );
        return Err(unknown(told));
    }
    let absolute = fs::canonicalize(place)
        .map_err(|error| unknown(format!("{}: {error}", place.display())))?;
    // It goes into a quoted text of Cargo.toml.
    let plain = absolute.to_str().filter(|it| !it.contains(['"', '\\', '\n']));
    plain.map(str::to_owned).ok_or_else(|| {
        unknown(format!("{}: cannot be written into a Cargo.toml", absolute.display()))
    })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new("new.write", format!("{}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}
