//! `new`: a plugin that builds, tests, signs, loads and answers as it comes.

use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;
use themis_kernel::ids::PluginName;
use themis_kernel::manifest::Target;

use crate::output::{Failure, Printer, clean};

/// Where the SDK lay when this program was built; used only where it still lies there.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk");

/// What every scaffold has, by its path in it.
const COMMON: [(&str, &str); 2] = [
    (".gitignore", include_str!("../../templates/gitignore")),
    ("themis.toml", include_str!("../../templates/themis.toml")),
];

const C: [(&str, &str); 9] = [
    ("{{name}}.c", include_str!("../../templates/c/plugin.c")),
    ("themis_plugin.h", include_str!("../../../sdk/include/themis_plugin.h")),
    ("themis_wasm.h", include_str!("../../../sdk/include/themis_wasm.h")),
    ("wasm/stdlib.h", include_str!("../../../sdk/include/wasm/stdlib.h")),
    ("wasm/string.h", include_str!("../../../sdk/include/wasm/string.h")),
    ("manifest.json", include_str!("../../templates/c/manifest.json")),
    ("Makefile", include_str!("../../templates/c/Makefile")),
    ("README.md", include_str!("../../templates/c/README.md")),
    ("tests/answers.c", include_str!("../../templates/c/tests/answers.c")),
];

const RUST: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml")),
    ("build.rs", include_str!("../../templates/rust/build.rs")),
    ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs")),
    ("manifest.json", include_str!("../../templates/rust/manifest.json")),
    ("Makefile", include_str!("../../templates/rust/Makefile")),
    ("README.md", include_str!("../../templates/rust/README.md")),
];

/// What the plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    Rust,
    C,
}

/// Start a plugin of one's own.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Its name: a lower-case letter, then up to 62 of a-z, 0-9, _ and -
    name: PluginName,
    /// What to write it in
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// Where to: a new or empty directory; without it, ./NAME
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The directory of the `themis-plugin` crate, for Rust; without it, where it lay when this program was built
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

pub(crate) fn new(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    let name = arguments.name.as_str();
    let dir = arguments.dir.clone().unwrap_or_else(|| PathBuf::from(name));
    let (language, sdk): (&[(&str, &str)], _) = match arguments.lang {
        Language::C => (&C, String::new()),
        Language::Rust => (&RUST, quoted_sdk(arguments.sdk.as_deref())?),
    };
    claim(&dir)?;
    let fill = |text: &str| {
        text.replace("{{name}}", name)
            .replace("{{crate}}", &name.replace('-', "_"))
            .replace("{{target}}", Target::HOST.as_str())
            .replace("{{sdk}}", &sdk)
    };
    let mut files = Vec::new();
    for (path, text) in language.iter().copied().chain(COMMON) {
        let path = fill(path);
        write(&dir.join(&path), &fill(text))?;
        files.push(path);
    }
    files.sort_unstable();
    let made = json!({"name": name, "dir": dir, "files": files});
    printer.show(&made, |_| {
        let place = clean(&dir.display().to_string());
        format!("{place}: {} files; `cd` there and `make`; README.md says what next", files.len())
    })
}

/// The SDK's absolute path as Cargo.toml spells a text.
fn quoted_sdk(given: Option<&Path>) -> Result<String, Failure> {
    let sdk = given.unwrap_or(Path::new(SDK));
    let missing = |why: String| {
        let message = format!("{}: {why}: say where it lies with --sdk PATH", sdk.display());
        Failure::new("new.sdk", message)
    };
    let path = sdk.canonicalize().map_err(|error| {
        missing(format!("the directory of the `themis-plugin` crate is not there ({error})"))
    })?;
    let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
    if !manifest.contains("name = \"themis-plugin\"") {
        return Err(missing("is not the directory of the `themis-plugin` crate".to_owned()));
    }
    let text = path.to_str().ok_or_else(|| missing("the path is not UTF-8".to_owned()))?;
    // What JSON calls a string, TOML calls a basic string.
    Ok(json!(text).to_string())
}

/// Makes the directory; an existing one must be empty, so that nothing is ever overwritten.
fn claim(dir: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| at(dir, "make the directory", &error);
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                let message = format!("{}: is not empty: choose another --dir", dir.display());
                Err(Failure::new("new.not_empty", message))
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound => make_dirs(dir).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| at(path, "write", &error);
    path.parent().map_or(Ok(()), make_dirs).map_err(failed)?;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(failed)
}

/// Not writable by others, whatever the umask: signing and loading refuse what is.
fn make_dirs(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn at(path: &Path, action: &str, error: &std::io::Error) -> Failure {
    Failure::new("new.write", format!("{}: cannot {action}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_known() {
        for (path, text) in C.into_iter().chain(RUST).chain(COMMON) {
            let known = ["{{name}}", "{{crate}}", "{{target}}", "{{sdk}}"];
            let rest = known.iter().fold(text.to_owned(), |rest, it| rest.replace(it, ""));
            // Two braces also open a C initialiser.
            let unknown = rest.split("{{").skip(1).any(|it| it.starts_with(char::is_alphabetic));
            assert!(!unknown, "{path}");
        }
    }

    #[test]
    fn a_path_is_quoted_for_cargo() {
        let sdk = quoted_sdk(Some(Path::new("../sdk"))).unwrap();
        assert!(sdk.starts_with("\"/") && sdk.ends_with("sdk\""), "{sdk}");
        for wrong in ["/nonexistent", "/"] {
            let failure = quoted_sdk(Some(Path::new(wrong))).unwrap_err();
            assert_eq!(failure.code, "new.sdk");
            assert!(failure.message.contains("--sdk"), "{}", failure.message);
        }
    }
}
