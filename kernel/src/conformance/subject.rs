//! A plugin on a stage of its own: copied, signed with a throw-away key, under a kernel nobody else uses.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use themis_messages::admit::AdmitError;
use themis_messages::ids::{PluginName, PluginVersion, Tier};
use themis_messages::lifecycle::{LoadError, LoadRequest};
use themis_messages::limits::{FILES_MAX, HOLD_LIMIT_MAX, MANIFEST_BYTES_MAX, PLUGIN_BYTES_MAX};
use themis_messages::manifest::{MANIFEST_FILE, Manifest, SIGNATURE_FILE};
use themis_sandbox::admission::{KeyError, NameSet, SignError, SigningKey, TrustedKey, sign_dir};

use super::load::Oracle;
use crate::config::Program;
use crate::{Config, Kernel, PluginRef, StartError};

/// For how long a reloaded version is watched in the check of that.
const WINDOW: Duration = Duration::from_millis(300);

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Reloads under load.
    pub reloads: usize,
    /// Threads that call meanwhile.
    pub callers: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { reloads: 1_000, callers: 4 }
    }
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file could not be read or copied.
    #[error("{path}: {action}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        error: String,
    },
    /// The directory holds more than a plugin may.
    #[error("{path}: a plugin has at most {files} files of together {bytes} bytes", path = path.display())]
    TooLarge {
        /// The directory.
        path: PathBuf,
        /// Most files.
        files: usize,
        /// Most bytes.
        bytes: u64,
    },
    /// The key could not be made.
    #[error("{0}")]
    Key(KeyError),
    /// The copy could not be signed: the manifest or a file is not what it should be.
    #[error("{0}")]
    Sign(SignError),
    /// The signed copy's manifest was refused.
    #[error("{0}")]
    Manifest(AdmitError),
    /// The kernel did not start.
    #[error("{0}")]
    Start(StartError),
}

impl PrepareError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check.io",
            Self::TooLarge { .. } => "check.too_large",
            Self::Key(error) => error.code(),
            Self::Sign(error) => error.code(),
            Self::Manifest(error) => error.code(),
            Self::Start(error) => error.code(),
        }
    }
}

/// A plugin to look at.
#[derive(Debug)]
pub struct Subject {
    kernel: Kernel,
    manifest: Manifest,
    tier: Tier,
    effort: Effort,
    /// Below the plugin root.
    path: PathBuf,
    /// Removed at the end.
    _stage: tempfile::TempDir,
}

impl Subject {
    /// Copies the plugin in `dir`, signs the copy, and starts a kernel for it. Nothing in `dir` is changed, and
    /// whether it is signed does not matter.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub fn prepare(dir: &Path, tier: Tier, effort: Effort) -> Result<Self, PrepareError> {
        Self::prepare_with(dir, tier, effort, Program::Own)
    }

    /// As [`Subject::prepare`], with another program for worker processes than this one.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub fn prepare_with(
        dir: &Path,
        tier: Tier,
        effort: Effort,
        program: Program,
    ) -> Result<Self, PrepareError> {
        let stage = tempfile::Builder::new()
            .prefix("themis-check-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(io(dir, "make a temporary directory"))?;
        let key = SigningKey::generate().map_err(PrepareError::Key)?;
        let (root, unsigned) = (stage.path().join("plugins"), stage.path().join("unsigned"));
        make_dir(&root)?;
        let mut left = Left { files: FILES_MAX + 2, bytes: PLUGIN_BYTES_MAX };
        copy(dir, &unsigned, &mut left, dir)?;
        sign_dir(&unsigned, &key).map_err(PrepareError::Sign)?;
        let manifest = read_manifest(&unsigned)?;
        let path = PathBuf::from(manifest.name.as_str()).join(manifest.version.to_string());
        let place = root.join(&path);
        make_dir(&root.join(manifest.name.as_str()))?;
        fs::rename(&unsigned, &place).map_err(io(&place, "move the copy"))?;
        let mut config = config(stage.path(), root, &manifest.name, tier, &key);
        config.workers.program = program;
        let kernel = Kernel::start_blocking(config).map_err(PrepareError::Start)?;
        Ok(Self { kernel, manifest, tier, effort, path, _stage: stage })
    }

    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        &self.manifest.name
    }

    /// The plugin's version.
    #[must_use]
    pub fn version(&self) -> &PluginVersion {
        &self.manifest.version
    }

    /// Where it runs.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    pub(super) fn effort(&self) -> Effort {
        self.effort
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The plugin, loaded if it was not.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn loaded(&self) -> Result<PluginRef, LoadError> {
        match self.kernel.plugin(self.manifest.name.as_str()) {
            Some(plugin) => Ok(plugin),
            None => {
                let request = LoadRequest { tier: Some(self.tier), ..LoadRequest::at(&self.path) };
                self.kernel.loader().load_request_blocking(request)
            }
        }
    }

    /// What its calls must answer.
    pub(super) fn oracle(&self, plugin: PluginRef) -> Oracle {
        Oracle::of(&self.manifest, plugin)
    }

    /// Ends the kernel.
    pub fn end(self) {
        self.kernel.shutdown_blocking();
    }
}

fn config(stage: &Path, root: PathBuf, name: &PluginName, tier: Tier, key: &SigningKey) -> Config {
    let mut config = Config::new(stage.join("var"), root);
    let only = || [name.clone()].into_iter().collect();
    config.allow = NameSet::Only(only());
    config.trusted_in_process = only();
    config.default_tier = tier;
    config.probation.window = WINDOW;
    config.hold_limit = HOLD_LIMIT_MAX;
    config.trusted_keys = vec![TrustedKey {
        label: "check".to_owned(),
        key: key.public_key(),
        not_before: None,
        not_after: None,
        plugins: NameSet::Only(only()),
    }];
    config
}

fn read_manifest(dir: &Path) -> Result<Manifest, PrepareError> {
    let path = dir.join(MANIFEST_FILE);
    let size = fs::metadata(&path).map_err(io(&path, "read"))?.len();
    if size > MANIFEST_BYTES_MAX {
        let max = MANIFEST_BYTES_MAX;
        return Err(PrepareError::Manifest(AdmitError::FileTooLarge { path, size, max }));
    }
    let bytes = fs::read(&path).map_err(io(&path, "read"))?;
    Manifest::parse(&path, &bytes).map_err(PrepareError::Manifest)
}

fn io(path: &Path, action: &'static str) -> impl Fn(std::io::Error) -> PrepareError {
    let path = path.to_owned();
    move |error| PrepareError::Io { path: path.clone(), action, error: error.to_string() }
}

/// Not writable by others, whatever the umask: such directories are refused.
fn make_dir(path: &Path) -> Result<(), PrepareError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(io(path, "make a directory"))
}

/// How much may still be copied.
struct Left {
    files: usize,
    bytes: u64,
}

/// Plain files and directories only; the signature is left behind, since the copy gets its own.
fn copy(from: &Path, to: &Path, left: &mut Left, dir: &Path) -> Result<(), PrepareError> {
    let too_large = || PrepareError::TooLarge {
        path: dir.to_owned(),
        files: FILES_MAX,
        bytes: PLUGIN_BYTES_MAX,
    };
    make_dir(to)?;
    for entry in fs::read_dir(from).map_err(io(from, "list"))? {
        let entry = entry.map_err(io(from, "list"))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&path).map_err(io(&path, "read"))?;
        left.files = left.files.checked_sub(1).ok_or_else(too_large)?;
        if metadata.is_dir() {
            copy(&path, &target, left, dir)?;
        } else if metadata.is_file() {
            left.bytes = left.bytes.checked_sub(metadata.len()).ok_or_else(too_large)?;
            if entry.file_name() != SIGNATURE_FILE {
                fs::copy(&path, &target).map_err(io(&path, "copy"))?;
                let mode = fs::Permissions::from_mode(0o644);
                fs::set_permissions(&target, mode).map_err(io(&target, "set the mode of"))?;
            }
        } else {
            let plain = std::io::Error::other("neither a file nor a directory");
            return Err(io(&path, "copy")(plain));
        }
    }
    Ok(())
}
