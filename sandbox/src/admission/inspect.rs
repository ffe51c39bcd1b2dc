//! Everything that can be said of a shared library without running any of it: for authors, before they sign it.
//!
//! The checks are admission's own, which stops at the first; here all are told, each with what to do about it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use themis_messages::admit::AdmitError;
use themis_messages::limits::FILE_BYTES_MAX;
use themis_messages::manifest::Manifest;

use super::detached::{VerifyError, read};
use super::elf::Image;
use crate::native::resident_bytes;

/// What was found out.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Memory it would keep once it is mapped, in bytes.
    pub resident_bytes: u64,
    /// What it says of itself.
    pub descriptor: Option<Described>,
    /// Its build id, in hexadecimal.
    pub build_id: Option<String>,
    /// Functions that the system's loader would run when it is mapped, before any of the kernel's checks in memory.
    pub constructors: u64,
    /// Libraries it needs.
    pub needed: Vec<String>,
    /// Symbols it takes from elsewhere.
    pub imports: Vec<String>,
    /// Symbols it offers.
    pub exports: Vec<String>,
    /// Imports that are worth a thought, and why.
    pub notable: Vec<Notable>,
    /// Everything for which it would be refused.
    pub findings: Vec<Finding>,
}

/// The descriptor, as far as it is there before relocation.
#[derive(Debug, Clone, Serialize)]
pub struct Described {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The ABI it was built for.
    pub abi: String,
    /// Feature bits.
    pub features: u64,
    /// Whether calls may overlap.
    pub thread_safe: bool,
}

/// An import that is worth a thought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notable {
    /// The symbol.
    pub symbol: String,
    /// What it means in the host's address space.
    pub why: &'static str,
}

/// One reason to refuse it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The code that admission would refuse it with.
    pub code: &'static str,
    /// What and where.
    pub what: String,
    /// What to change.
    pub remedy: &'static str,
}

/// Reads a shared library, and compares it with `manifest` if there is one.
///
/// # Errors
/// [`VerifyError`] when the file cannot be read or is too large; everything else is a finding.
pub fn inspect(path: &Path, manifest: Option<&Manifest>) -> Result<Inspection, VerifyError> {
    let bytes = read(path, FILE_BYTES_MAX)?;
    let mut inspection = Inspection {
        path: path.to_owned(),
        size: bytes.len() as u64,
        resident_bytes: resident_bytes(&bytes),
        descriptor: None,
        build_id: None,
        constructors: 0,
        needed: Vec::new(),
        imports: Vec::new(),
        exports: Vec::new(),
        notable: Vec::new(),
        findings: Vec::new(),
    };
    match Image::parse(path, &bytes) {
        Ok(image) => inspection.look(&image, manifest),
        Err(error) => inspection.find(&error),
    }
    Ok(inspection)
}

impl Inspection {
    /// Whether admission would take it, as far as the file alone decides.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, error: &AdmitError) {
        let (code, what) = (error.code(), error.to_string());
        self.findings.push(Finding { code, what, remedy: remedy(code) });
    }

    fn look(&mut self, image: &Image<'_>, manifest: Option<&Manifest>) {
        for hazard in image.hazards() {
            self.find(&hazard);
        }
        match image.build_id() {
            Ok(build_id) => self.build_id = build_id,
            Err(error) => self.find(&error),
        }
        match image.descriptor() {
            Ok(descriptor) => {
                let checked = manifest.map(|it| descriptor.check_against(&self.path, it));
                if let Some(Err(error)) = checked {
                    self.find(&error);
                }
                self.descriptor = Some(Described {
                    name: descriptor.name.to_string(),
                    version: descriptor.version.to_string(),
                    abi: descriptor.abi.to_string(),
                    features: descriptor.features,
                    thread_safe: descriptor.is_thread_safe(),
                });
            }
            Err(error) => self.find(&error),
        }
        self.constructors = image.constructors();
        self.needed = image.needed();
        (self.imports, self.exports) = image.symbol_names();
        let known = |symbol: &String| {
            let (_, why) = NOTABLE.iter().find(|(names, _)| names.contains(&symbol.as_str()))?;
            Some(Notable { symbol: symbol.clone(), why })
        };
        self.notable = self.imports.iter().filter_map(known).collect();
    }
}

/// Imports that mean something for a plugin in the host's address space.
const NOTABLE: [(&[&str], &str); 7] = [
    (
        &["__cxa_thread_atexit_impl", "pthread_key_create"],
        "thread-locals with destructors run on the host's threads when those end: fine, as images are never unmapped",
    ),
    (&["pthread_create", "clone", "thrd_create"], "its threads live on after it is unloaded"),
    (
        &["exit", "_exit", "_Exit", "quick_exit", "abort", "__assert_fail", "kill", "raise"],
        "ends the host when it is reached",
    ),
    (&["fork", "vfork", "execve", "execvp", "posix_spawn", "system", "popen"], "starts processes"),
    (&["dlopen", "dlmopen"], "can load code that nobody has signed"),
    (&["signal", "sigaction", "sigprocmask", "pthread_sigmask"], "changes the host's signals"),
    (&["setenv", "putenv", "unsetenv", "setlocale", "chdir", "umask"], "changes the whole process"),
];

/// What to change about the build, by the code of the refusal.
fn remedy(code: &str) -> &'static str {
    match code {
        "elf.format" => "give it the shared library that the linker wrote, whole",
        "elf.architecture" => {
            "build it for this machine, or list it under the target it was built for"
        }
        "elf.text_relocations" => "compile everything with -fPIC",
        "elf.executable_stack" => {
            "link with -Wl,-z,noexecstack; in assembly sources add .section .note.GNU-stack,\"\",@progbits"
        }
        "elf.writable_code" => {
            "link without -Wl,-N or -Wl,--omagic, and without a script that merges the two"
        }
        "elf.search_path" => {
            "link without -rpath; what it needs beyond the system's libraries goes into it"
        }
        "elf.filter" => "link without -Wl,-f, -Wl,-F and -Wl,--audit",
        "elf.unique_symbol" => "compile with -fno-gnu-unique, or with -fvisibility=hidden",
        "elf.static_tls" => "compile without -ftls-model=initial-exec; libraries linked in as well",
        "elf.needed" => {
            "link that library statically: only the C library's own parts may be needed"
        }
        "descriptor.missing" => {
            "export themis_plugin: THEMIS_PLUGIN_EXPORT in C, export! in Rust; see that it is not stripped"
        }
        "descriptor.invalid" => "let the header or the SDK write the descriptor; declare it const",
        "descriptor.mismatch" => "give descriptor and manifest the same name, version and ABI",
        "descriptor.unknown_feature" => {
            "clear that feature bit: this kernel does not know what it asks for"
        }
        "abi.unsupported" => "build it against this kernel's header",
        _ => "see the message",
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;
    use themis_messages::admit::AdmitErrorKind;

    use super::*;

    #[test]
    fn every_reason_that_lies_in_the_file_has_its_remedy() {
        for kind in AdmitErrorKind::iter() {
            let code = kind.code();
            let is_of_the_file = code.starts_with("elf.")
                || code.starts_with("descriptor.")
                || code.starts_with("abi.");
            assert_eq!(is_of_the_file, remedy(code) != "see the message", "{code}");
        }
    }
}
