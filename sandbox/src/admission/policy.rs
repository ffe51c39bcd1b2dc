//! What the operator decided: who may load, where, signed by whom. Pure questions, no file is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use themis_messages::admit::AdmitError;
use themis_messages::ids::{Digest, KeyId, PluginName, PluginVersion, Tier};

use super::gpg::GpgRule;
use super::keys::PublicKey;

/// A set of plugin names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameSet {
    /// Every name: `"*"` in configuration.
    Any,
    /// These names.
    Only(BTreeSet<PluginName>),
}

impl NameSet {
    /// Whether the name is in the set.
    #[must_use]
    pub fn contains(&self, name: &PluginName) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// A pinned key and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// The operator's name for it.
    pub label: String,
    /// The key.
    pub key: PublicKey,
    /// It counts from then on.
    pub not_before: Option<jiff::Timestamp>,
    /// It counts until then, that moment included.
    pub not_after: Option<jiff::Timestamp>,
    /// Plugins it may sign.
    pub plugins: NameSet,
}

/// The operator's rules. Trust is configured, never discovered: nothing a plugin says adds to it.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Names that may load.
    pub allow: NameSet,
    /// Names that may run in the host's own address space.
    pub trusted_in_process: BTreeSet<PluginName>,
    /// Tier of a plugin without one of its own.
    pub default_tier: Tier,
    /// Tiers by plugin.
    pub tiers: BTreeMap<PluginName, Tier>,
    /// Pinned keys. One key under two labels counts once, with the rights of both.
    pub keys: Vec<TrustedKey>,
    /// Keys that count no more, whatever their dates.
    pub revoked_keys: BTreeSet<KeyId>,
    /// Manifests and files that never load again.
    pub revoked_digests: BTreeSet<Digest>,
    /// Which plugins need an OpenPGP signature as well. Default: none does.
    pub openpgp: Option<GpgRule>,
    /// Lowest version by plugin.
    pub floors: BTreeMap<PluginName, PluginVersion>,
    /// Largest single file, in bytes.
    pub file_bytes_max: u64,
    /// The most linear memory that a wasm module may declare, in bytes.
    pub wasm_memory_bytes_max: u64,
}

impl Policy {
    /// Whether the name is on the allow-list.
    ///
    /// # Errors
    /// [`AdmitError::NotAllowed`].
    pub fn check_name(&self, name: &PluginName) -> Result<(), AdmitError> {
        if self.allow.contains(name) {
            return Ok(());
        }
        Err(AdmitError::NotAllowed { name: name.clone() })
    }

    /// The one key of that id, if it may sign this plugin now. Keys are never tried in turn. `path` is
    /// what is signed, for the error.
    ///
    /// # Errors
    /// The `Key…` variants of [`AdmitError`]; revocation is said before anything else.
    pub fn check_key(
        &self,
        path: &Path,
        key_id: KeyId,
        name: &PluginName,
        now: jiff::Timestamp,
    ) -> Result<&PublicKey, AdmitError> {
        let mut first_fault = None;
        for entitled in self.entitled(path, key_id, name)? {
            match entitled.check_time(path, now) {
                Ok(()) => return Ok(&entitled.key),
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        Err(first_fault.unwrap_or_else(|| AdmitError::KeyUnknown { path: path.to_owned(), key_id }))
    }

    /// The pins of an unrevoked key that cover the plugin: at least one.
    fn entitled(
        &self,
        path: &Path,
        key_id: KeyId,
        name: &PluginName,
    ) -> Result<Vec<&TrustedKey>, AdmitError> {
        let path = || path.to_owned();
        if self.revoked_keys.contains(&key_id) {
            return Err(AdmitError::KeyRevoked { path: path(), key_id });
        }
        let pinned = self.keys.iter().filter(|pin| pin.key.key_id() == key_id);
        let pinned: Vec<_> = pinned.collect();
        if pinned.is_empty() {
            return Err(AdmitError::KeyUnknown { path: path(), key_id });
        }
        let entitled: Vec<_> =
            pinned.into_iter().filter(|pin| pin.plugins.contains(name)).collect();
        if entitled.is_empty() {
            return Err(AdmitError::KeyNotEntitled { path: path(), key_id, name: name.clone() });
        }
        Ok(entitled)
    }

    /// The id of the only key that may sign the plugin: a detached signature does not name one. Revoked
    /// keys do not count; keys outside their dates do, so that the refusal can say so.
    ///
    /// # Errors
    /// [`AdmitError::KeyAmbiguous`] when there is none or more than one; [`AdmitError::KeyRevoked`] when
    /// there is none because the only one is revoked.
    pub fn only_key(&self, path: &Path, name: &PluginName) -> Result<KeyId, AdmitError> {
        let entitled: BTreeSet<KeyId> = self
            .keys
            .iter()
            .filter(|pin| pin.plugins.contains(name))
            .map(|pin| pin.key.key_id())
            .collect();
        let live: Vec<KeyId> = entitled.difference(&self.revoked_keys).copied().collect();
        match (live.as_slice(), entitled.first()) {
            ([only], _) => Ok(*only),
            ([], Some(revoked)) if entitled.len() == 1 => {
                Err(AdmitError::KeyRevoked { path: path.to_owned(), key_id: *revoked })
            }
            (live, _) => Err(AdmitError::KeyAmbiguous {
                path: path.to_owned(),
                name: name.clone(),
                entitled: live.len(),
            }),
        }
    }

    /// What the operator demands of the plugin beside the Ed25519 signature.
    #[must_use]
    pub fn openpgp_for(&self, name: &PluginName) -> Option<&GpgRule> {
        self.openpgp.as_ref().filter(|rule| rule.plugins.contains(name))
    }

    /// Whether the version is not below the plugin's floor.
    ///
    /// # Errors
    /// [`AdmitError::BelowFloor`].
    pub fn check_floor(
        &self,
        name: &PluginName,
        version: &PluginVersion,
    ) -> Result<(), AdmitError> {
        match self.floors.get(name) {
            Some(floor) if version < floor => Err(AdmitError::BelowFloor {
                name: name.clone(),
                version: version.clone(),
                floor: floor.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the digest is not revoked.
    ///
    /// # Errors
    /// [`AdmitError::DigestRevoked`].
    pub fn check_digest(&self, path: &Path, digest: Digest) -> Result<(), AdmitError> {
        if self.revoked_digests.contains(&digest) {
            return Err(AdmitError::DigestRevoked { path: path.to_owned(), digest });
        }
        Ok(())
    }

    /// Where the plugin runs: as asked for, else as configured for it, else the default.
    ///
    /// # Errors
    /// [`AdmitError::NotTrustedInProcess`].
    pub fn tier_for(&self, name: &PluginName, asked: Option<Tier>) -> Result<Tier, AdmitError> {
        let tier = asked.or_else(|| self.tiers.get(name).copied()).unwrap_or(self.default_tier);
        match tier {
            Tier::InProcess if self.trusted_in_process.contains(name) => Ok(tier),
            Tier::InProcess => Err(AdmitError::NotTrustedInProcess { name: name.clone() }),
            Tier::Process | Tier::Wasm => Ok(tier),
        }
    }

    /// Whether what was admitted once may serve again, as a rollback or restart asks: the name is still
    /// allowed, its key still pinned for it, and neither key nor digest has been revoked. Dates do not
    /// matter here: expiry must not take away the version to fall back to.
    ///
    /// # Errors
    /// [`AdmitError`] with what has been withdrawn.
    pub fn check_still_allowed(
        &self,
        path: &Path,
        name: &PluginName,
        key_id: KeyId,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Result<(), AdmitError> {
        self.check_name(name)?;
        self.entitled(path, key_id, name)?;
        digests.into_iter().try_for_each(|digest| self.check_digest(path, digest))
    }
}

impl TrustedKey {
    fn check_time(&self, path: &Path, now: jiff::Timestamp) -> Result<(), AdmitError> {
        let (path, key_id) = (path.to_owned(), self.key.key_id());
        match (self.not_before, self.not_after) {
            (Some(not_before), _) if now < not_before => {
                Err(AdmitError::KeyNotYetValid { path, key_id, not_before })
            }
            (_, Some(not_after)) if now > not_after => {
                Err(AdmitError::KeyExpired { path, key_id, not_after })
            }
            (_, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
