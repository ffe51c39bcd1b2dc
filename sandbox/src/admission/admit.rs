//! One admission from path to verified image, in an order that tells the operator the first real reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use themis_messages::admit::AdmitError;
use themis_messages::ids::{Digest, KeyId, Tier};
use themis_messages::lifecycle::LoadRequest;
use themis_messages::manifest::{ListedFile, Manifest, Target};
use themis_plugin::abi;

use super::descriptor::Descriptor;
use super::detached;
use super::elf::preflight;
use super::policy::Policy;
use super::root::{Dir, Opened, PluginFile, PluginRoot};
use super::sealed::{Purpose, SealedFile, Sealer, hash};
use super::signed::{check_files, check_listing, check_signed};
use super::source::{OpenBundle, Source, is_bundle};
use crate::wasm::examine::{Examined, examine};

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
    /// What was seen of it where it is a wasm module.
    pub(crate) wasm: Option<Examined>,
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
            (Opened::Dir(dir), [.., name, version]) => {
                self.files(Source::Dir(&dir), Some((name, version)))
            }
            // A directory right below the root: its manifest, if any, is told where it belongs.
            (Opened::Dir(dir), components) => {
                let version = components.last().map_or("", String::as_str);
                self.files(Source::Dir(&dir), Some(("", version)))
            }
            (Opened::File(file), _) if is_bundle(&file.path) => {
                let path = file.path.clone();
                let sealed = OpenBundle::seal(&self.sealer, file)?;
                let bundle = OpenBundle::read(&path, sealed.bytes())?;
                self.files(Source::Bundle(&bundle), None)
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

    /// A directory or a bundle of the same files.
    fn files(
        &self,
        source: Source<'_>,
        place: Option<(&str, &str)>,
    ) -> Result<AdmittedPlugin, AdmitError> {
        let signed = check_signed(source, place, self.policy, self.now)?;
        let manifest = signed.manifest;
        if let Some(field) =
            self.request.manifest.as_ref().and_then(|given| manifest.first_difference(given))
        {
            let path = source.path().join(themis_messages::manifest::MANIFEST_FILE);
            return Err(AdmitError::ManifestDiffers { path, field });
        }
        let tier = self.policy.tier_for(&manifest.name, self.request.tier)?;
        let (tier, listed) = self.choose(source, &manifest, tier)?;
        let (target, code) = (listed.target.clone(), source.path().join(&listed.path));
        check_listing(source, &manifest)?;

        let mut kept = Kept::default();
        check_files(source, &manifest, self.policy, |listed, file| {
            self.keep(&mut kept, &target, listed, file)
        })?;
        let image = kept.image.ok_or_else(|| no_target(source, &manifest, &target))?;
        let (descriptor, wasm) = match tier {
            Tier::Wasm => {
                let examined = self.examine(&code, &image, &manifest)?;
                (described(&manifest, &examined), Some(examined))
            }
            Tier::InProcess | Tier::Process => (preflight(&code, image.bytes(), &manifest)?, None),
        };
        Ok(AdmittedPlugin {
            manifest_digest: Some(signed.manifest_digest),
            image,
            descriptor,
            wasm,
            data: Arc::new(kept.data),
            key_id: signed.key_id,
            tier,
            path: source.path().to_owned(),
            manifest,
        })
    }

    /// The build that will run: the one for this machine, or the wasm one where that is asked for, or all there is. Whoever
    /// asks for a tier by name gets that or nothing.
    fn choose<'m>(
        &self,
        source: Source<'_>,
        manifest: &'m Manifest,
        tier: Tier,
    ) -> Result<(Tier, &'m ListedFile), AdmitError> {
        let (native, wasm) = (manifest.file_for(&Target::HOST), manifest.file_for(&Target::Wasm32));
        match (tier, native, wasm) {
            (Tier::Wasm, _, Some(wasm)) => Ok((Tier::Wasm, wasm)),
            (Tier::InProcess | Tier::Process, Some(native), _) => Ok((tier, native)),
            (Tier::InProcess | Tier::Process, None, Some(wasm)) if self.request.tier.is_none() => {
                Ok((Tier::Wasm, wasm))
            }
            (Tier::Wasm, _, None) => Err(no_target(source, manifest, &Target::Wasm32)),
            (Tier::InProcess | Tier::Process, None, _) => {
                Err(no_target(source, manifest, &Target::HOST))
            }
        }
    }

    /// What a module is, if it may be compiled.
    fn examine(
        &self,
        path: &Path,
        image: &SealedFile,
        manifest: &Manifest,
    ) -> Result<Examined, AdmitError> {
        let examined = examine(image.bytes(), manifest, self.policy.wasm_memory_bytes_max);
        examined.map_err(|fault| AdmitError::Wasm { path: path.to_owned(), fault })
    }

    /// Keeps what will be used; the rest is only hashed.
    fn keep(
        &self,
        kept: &mut Kept,
        code: &Target,
        listed: &ListedFile,
        file: PluginFile,
    ) -> Result<Digest, AdmitError> {
        let max = self.policy.file_bytes_max;
        if listed.target == *code {
            // A module is compiled; its file is no code of this machine.
            let purpose = if *code == Target::Wasm32 { Purpose::Data } else { Purpose::Code };
            let image = self.sealer.seal(file, max, purpose)?;
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

/// What a module says of itself, in the words of a shared library.
fn described(manifest: &Manifest, examined: &Examined) -> Descriptor {
    Descriptor {
        struct_size: 0,
        abi: examined.abi,
        features: if examined.is_single() { 0 } else { abi::THREAD_SAFE },
        name: manifest.name.clone(),
        version: manifest.version.clone(),
    }
}

/// What is wanted and what there is.
fn no_target(source: Source<'_>, manifest: &Manifest, wanted: &Target) -> AdmitError {
    let there = manifest.files.iter().map(|file| file.target.as_str());
    let there: Vec<_> = there.filter(|target| *target != Target::Data.as_str()).collect();
    AdmitError::NoTarget {
        path: source.path().to_owned(),
        target: wanted.as_str().to_owned(),
        there: there.join(", "),
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
