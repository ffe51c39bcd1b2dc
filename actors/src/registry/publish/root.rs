//! Root metadata: which keys count, and how they are changed.
//!
//! ```text
//! init ─▶ 1.root.json ─rotate─▶ 2.root.json ─▶ …      each signed by enough keys of the one before and of its own
//! ```
//!
//! A client goes from one to the next and never skips any, so every one of them stays where it is.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use themis_sandbox::admission::SigningKey;
use tough::editor::RepositoryEditor;
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{KeyHolder, RoleKeys, RoleType, Root, Signed};

use super::keys::{self, KeyFile, ROLES};
use super::{PublishError, Registry, Validity, days_from_now, io, make_dir, write};

/// What a new registry is to be.
#[derive(Debug, Clone, Copy)]
pub struct Founding {
    /// Root keys.
    pub root_keys: u8,
    /// How many of them have to sign.
    pub threshold: u8,
    /// For how long its metadata is good.
    pub validity: Validity,
}

/// A change of keys.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rotation {
    /// Whose keys.
    pub role: &'static str,
    /// The new one.
    pub key: PathBuf,
    /// Those that do not count any more, moved out of the way.
    pub retired: Vec<PathBuf>,
    /// Number of the new root metadata.
    pub root_version: u64,
}

impl Registry {
    /// Makes a registry: keys, root metadata, and an empty publication.
    ///
    /// # Errors
    /// [`PublishError::Exists`] where the folder is not empty.
    pub async fn init(dir: &Path, founding: Founding) -> Result<Self, PublishError> {
        let Founding { root_keys, threshold, validity } = founding;
        if threshold == 0 || threshold > root_keys {
            let what = format!("{threshold} of {root_keys} root keys cannot sign");
            return Err(PublishError::Numbers(what));
        }
        make_dir(dir)?;
        if std::fs::read_dir(dir).map_err(io(dir, "read"))?.next().is_some() {
            return Err(PublishError::Exists { dir: dir.to_owned() });
        }
        let registry = Self { dir: dir.to_owned() };
        make_dir(&registry.metadata())?;
        make_dir(&registry.targets())?;
        let private = std::fs::DirBuilder::new().mode(0o700).create(registry.keys());
        private.map_err(io(&registry.keys(), "make"))?;
        let mut root = empty(validity)?;
        for (role, name) in ROLES {
            let of_root = role == RoleType::Root;
            for _ in 0..if of_root { root_keys } else { 1 } {
                let (_file, key) = keys::make(&registry.keys(), name)?;
                admit(&mut root, role, keys::public(&key))?;
            }
            let threshold = if of_root { threshold } else { 1 };
            set_threshold(&mut root, role, threshold);
        }
        registry.write_root(root, None).await?;
        let newest = newest(&registry.metadata())?;
        let editor = RepositoryEditor::new(&newest).await;
        let editor = editor.map_err(PublishError::tuf("read the root metadata"))?;
        let first = (NonZeroU64::MIN, NonZeroU64::MIN, NonZeroU64::MIN);
        let (signed, _expires) = registry.signed(editor, first, validity).await?;
        registry.write_metadata(&signed).await?;
        Ok(registry)
    }

    /// Replaces the keys of a role by a new one and publishes what there is, signed with it. Of the root's keys one is
    /// replaced, the oldest, so that the others still vouch for it.
    ///
    /// # Errors
    /// [`PublishError::Keys`] where too few root keys are here.
    pub async fn rotate(&self, role: &str, validity: Validity) -> Result<Rotation, PublishError> {
        let Some((kind, role)) = ROLES.into_iter().find(|(_, name)| *name == role) else {
            let roles = ROLES.map(|(_, name)| name).join(", ");
            return Err(PublishError::Numbers(format!("{role:?} is no role: want one of {roles}")));
        };
        let old = self.newest_root()?;
        let mut root = old.signed.clone();
        root.version = root.version.saturating_add(1);
        root.expires = days_from_now(validity.root)?;
        let mut old_keys = keys::of_role(&self.keys(), role).map_err(io(&self.keys(), "read"))?;
        if kind == RoleType::Root {
            old_keys.truncate(1);
        }
        let (key, made) = keys::make(&self.keys(), role)?;
        let retired_ids = old_keys.iter().map(|file| id_of(file)).collect::<Result<Vec<_>, _>>()?;
        dismiss(&mut root, kind, &retired_ids, kind != RoleType::Root);
        admit(&mut root, kind, keys::public(&made))?;
        let root_version = root.version.get();
        if let Err(error) = self.write_root(root, Some(&old)).await {
            // A key that nothing names would only be taken for one that counts.
            std::fs::remove_file(&key).map_err(io(&key, "remove"))?;
            return Err(error);
        }
        let retired = self.retire(&old_keys)?;
        self.publish(validity).await?;
        Ok(Rotation { role, key, retired, root_version })
    }

    fn newest_root(&self) -> Result<Signed<Root>, PublishError> {
        let path = newest(&self.metadata())?;
        let bytes = std::fs::read(&path).map_err(io(&path, "read"))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| io(&path, "read")(std::io::Error::other(error)))
    }

    /// Signs root metadata with its own keys and those of the one before, as far as they are here.
    async fn write_root(
        &self,
        root: Root,
        before: Option<&Signed<Root>>,
    ) -> Result<(), PublishError> {
        let files = keys::of_role(&self.keys(), "root").map_err(io(&self.keys(), "read"))?;
        let sources: Vec<Box<dyn KeySource>> =
            files.into_iter().map(|it| Box::new(KeyFile(it)) as _).collect();
        let random = SystemRandom::new();
        let name = format!("{}.root.json", root.version);
        let sign = async |holder: &Root| {
            let holder = KeyHolder::Root(holder.clone());
            let signed = SignedRole::new(root.clone(), &holder, &sources, &random).await;
            signed.map_err(PublishError::tuf("sign the root metadata"))
        };
        let mut signed = sign(&root).await?;
        self.check_signatures(&root, signed.signed())?;
        if let Some(before) = before {
            let theirs = sign(&before.signed).await?;
            self.check_signatures(&before.signed, theirs.signed())?;
            let theirs = theirs.signed().signatures.clone();
            signed = signed
                .add_old_signatures(theirs)
                .map_err(PublishError::tuf("sign the root metadata with the keys of the last"))?;
        }
        write(&self.metadata().join(name), signed.buffer())
    }

    fn check_signatures(&self, by: &Root, signed: &Signed<Root>) -> Result<(), PublishError> {
        let Some(keys) = by.roles.get(&RoleType::Root) else { return Ok(()) };
        let threshold = keys.threshold.get();
        let present = signed.signatures.iter().filter(|it| keys.keyids.contains(&it.keyid)).count();
        if present as u64 >= threshold {
            return Ok(());
        }
        let keys = self.keys().display().to_string();
        Err(PublishError::Keys { role: "root", threshold, keys, present })
    }

    fn retire(&self, files: &[PathBuf]) -> Result<Vec<PathBuf>, PublishError> {
        let dir = self.keys().join("retired");
        make_dir(&dir)?;
        let mut moved = Vec::new();
        for file in files {
            let to = dir.join(file.file_name().unwrap_or_default());
            std::fs::rename(file, &to).map_err(io(file, "move"))?;
            moved.push(to);
        }
        Ok(moved)
    }
}

/// The root metadata with the highest number.
pub(super) fn newest(metadata: &Path) -> Result<PathBuf, PublishError> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in std::fs::read_dir(metadata).map_err(io(metadata, "read"))? {
        let path = entry.map_err(io(metadata, "read"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(".root.json").and_then(|number| number.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(highest, _)| number > *highest)
        {
            newest = Some((number, path));
        }
    }
    let found = newest.map(|(_, path)| path);
    found.ok_or_else(|| PublishError::NotARegistry { dir: metadata.to_owned() })
}

fn empty(validity: Validity) -> Result<Root, PublishError> {
    Ok(Root {
        spec_version: "1.0.0".to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: days_from_now(validity.root)?,
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    })
}

fn key_id(key: &Key) -> Result<Decoded<Hex>, PublishError> {
    key.key_id().map_err(|error| PublishError::Numbers(format!("a key has no id: {error}")))
}

fn id_of(file: &Path) -> Result<Decoded<Hex>, PublishError> {
    key_id(&keys::public(&SigningKey::from_pem_file(file)?))
}

fn admit(root: &mut Root, role: RoleType, key: Key) -> Result<(), PublishError> {
    let id = key_id(&key)?;
    root.keys.insert(id.clone(), key);
    let none = || RoleKeys { keyids: vec![], threshold: NonZeroU64::MIN, _extra: HashMap::new() };
    root.roles.entry(role).or_insert_with(none).keyids.push(id);
    Ok(())
}

fn set_threshold(root: &mut Root, role: RoleType, threshold: u8) {
    if let (Some(keys), Some(threshold)) =
        (root.roles.get_mut(&role), NonZeroU64::new(u64::from(threshold)))
    {
        keys.threshold = threshold;
    }
}

/// Takes keys from a role: those with these ids, or all, whether their files are here or not.
fn dismiss(root: &mut Root, role: RoleType, ids: &[Decoded<Hex>], all: bool) {
    if let Some(keys) = root.roles.get_mut(&role) {
        keys.keyids.retain(|id| !all && !ids.contains(id));
    }
    let used: Vec<_> = root.roles.values().flat_map(|role| role.keyids.clone()).collect();
    root.keys.retain(|id, _| used.contains(id));
}
