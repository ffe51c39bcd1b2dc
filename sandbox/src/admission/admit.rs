//! One admission from path to verified image, in an order that tells the operator the first real reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use themis_messages::admit::AdmitError;
use themis_messages::ids::{Digest, KeyId, Tier};
use themis_messages::lifecycle::LoadRequest;
use themis_messages::manifest::{ListedFile, Manifest, Target};

use super::descriptor::Descriptor;
use super::detached;
use super::elf::preflight;
use super::policy::Policy;
use super::root::{Dir, Opened, PluginFile, PluginRoot};
use super::sealed::{Purpose, SealedFile, Sealer, hash};
use super::signed::{check_files, check_listing, check_signed};

/// A plugin that may be mapped, with the very bytes that were verified.
#[derive(Debug)]
pub struct AdmittedPlugin {
    /// The signed manifest, or what stands for it beside a detached signature.
    pub manifest: Manifest,
    /// SHA-256 of the signed manifest; none beside a detached signature.
    pub manifest_digest: Option<Digest>,
    /// The shared library.
    pub image: SealedFile,
    /// What the library says of itself: the same as the manifest.
    pub descriptor: Descriptor,
    /// Its `data` files by listed path.
    pub data: Arc<BTreeMap<String, SealedFile>>,
    /// The key that signed it.
    pub key_id: KeyId,
    /// Where it will run.
    pub tier: Tier,
    /// Where it lay.
    pub path: PathBuf,
}

/// Everything that decides one admission.
pub(super) struct Admission<'a> {
    pub(super) request: &'a LoadRequest,
    pub(super) policy: &'a Policy,
    pub(super) now: jiff::Timestamp,
    pub(super) sealer: Sealer<'a>,
}

/// Reads, verifies and pre-flights one plugin. Nothing of it is mapped as code, nothing runs.
///
/// `scratch` is a directory only its owner has rights to; it is used where the system forbids executable
/// memory files.
///
/// # Errors
/// [`AdmitError`]: the first reason to refuse it.
pub fn admit(
    root: &PluginRoot,
    request: &LoadRequest,
    policy: &Policy,
    now: jiff::Timestamp,
    scratch: &Path,
) -> Result<AdmittedPlugin, AdmitError> {
    Admission { request, policy, now, sealer: Sealer::new(scratch) }.run(root)
}

impl Admission<'_> {
    pub(super) fn run(&self, root: &PluginRoot) -> Result<AdmittedPlugin, AdmitError> {
        let components = root.components(&self.request.path)?;
        let (parent, plugin) = open_below(root, &components)?;
        match (plugin, components.as_slice()) {
            (Opened::Dir(dir), [.., name, version]) => self.directory(&dir, (name, version)),
            // A directory right below the root: its manifest, if any, is told where it belongs.
            (Opened::Dir(dir), components) => {
                let version = components.last().map_or("", String::as_str);
                self.directory(&dir, ("", version))
            }
            (Opened::File(file), components) => {
                let name = components.last().map_or("", String::as_str);
                let dir = match &parent {
                    Some(parent) => parent,
                    None => root.dir()?,
                };
                detached::admit(self, dir, name, file)
            }
        }
    }

    fn directory(&self, dir: &Dir, place: (&str, &str)) -> Result<AdmittedPlugin, AdmitError> {
        let signed = check_signed(dir, place, self.policy, self.now)?;
        let manifest = signed.manifest;
        if let Some(field) =
            self.request.manifest.as_ref().and_then(|given| manifest.first_difference(given))
        {
            let path = dir.path.join(themis_messages::manifest::MANIFEST_FILE);
            return Err(AdmitError::ManifestDiffers { path, field });
        }
        let tier = self.policy.tier_for(&manifest.name, self.request.tier)?;
        let no_target = || AdmitError::NoTarget {
            path: dir.path.clone(),
            target: Target::HOST.as_str().to_owned(),
        };
        let native = manifest.file_for(&Target::HOST).ok_or_else(no_target)?.path.clone();
        check_listing(dir, &manifest)?;

        let mut kept = Kept::default();
        check_files(dir, &manifest, self.policy, |listed, file| {
            self.keep(&mut kept, listed, file)
        })?;
        let image = kept.image.ok_or_else(no_target)?;
        let path = dir.path.join(native);
        let descriptor = preflight(&path, image.bytes(), &manifest)?;
        Ok(AdmittedPlugin {
            manifest_digest: Some(signed.manifest_digest),
            image,
            descriptor,
            data: Arc::new(kept.data),
            key_id: signed.key_id,
            tier,
            path: dir.path.clone(),
            manifest,
        })
    }

    /// Keeps what this machine will use; the rest is only hashed.
    fn keep(
        &self,
        kept: &mut Kept,
        listed: &ListedFile,
        file: PluginFile,
    ) -> Result<Digest, AdmitError> {
        let max = self.policy.file_bytes_max;
        if listed.target == Target::HOST {
            let image = self.sealer.seal(file, max, Purpose::Code)?;
            return Ok(kept.image.insert(image).digest());
        }
        match &listed.target {
            Target::Data => {
                let sealed = self.sealer.seal(file, max, Purpose::Data)?;
                let digest = sealed.digest();
                kept.data.insert(listed.path.clone(), sealed);
                Ok(digest)
            }
            Target::Wasm32 | Target::Native(_) | Target::Unknown(_) => {
                hash(&file, max).map(|(digest, _size)| digest)
            }
        }
    }
}

#[derive(Default)]
struct Kept {
    image: Option<SealedFile>,
    data: BTreeMap<String, SealedFile>,
}

/// Opens what lies below the root, and the directory it lies in when that is not the root itself.
fn open_below(
    root: &PluginRoot,
    components: &[String],
) -> Result<(Option<Dir>, Opened), AdmitError> {
    let mut parent: Option<Dir> = None;
    let Some((last, above)) = components.split_last() else {
        return Err(AdmitError::WrongFileType {
            path: root.path().to_owned(),
            wanted: "plugin below the root",
        });
    };
    for name in above {
        let next = match &parent {
            Some(dir) => dir.open_dir(name)?,
            None => root.dir()?.open_dir(name)?,
        };
        parent = Some(next);
    }
    let plugin = match &parent {
        Some(dir) => dir.open_any(last)?,
        None => root.dir()?.open_any(last)?,
    };
    Ok((parent, plugin))
}
