//! What a registry offers: its signed entries, ready to be looked up and to choose versions from.

use std::collections::BTreeMap;

use themis_messages::ids::{PluginName, PluginVersion};
use themis_messages::limits::REGISTRY_RELEASES_MAX;
use themis_messages::manifest::Target;
use themis_messages::registry::error::MetadataFault;
use themis_messages::registry::{RegistryError, Release};
use tough::Repository;

use super::entry::Entry;
use super::resolve;

/// Everything a registry offers at one moment.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    releases: BTreeMap<PluginName, BTreeMap<PluginVersion, Release>>,
    /// The same, to choose from.
    pub index: resolve::Index,
    /// Entries that were passed over, and why.
    pub refused: Vec<RegistryError>,
}

impl Offer {
    /// Reads verified metadata. An entry that cannot be right is passed over and told: one bad entry must not take the
    /// others away.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`] when there are more entries than there may be.
    pub fn read(repository: &Repository) -> Result<Self, RegistryError> {
        let (mut releases, mut refused) = (BTreeMap::<_, BTreeMap<_, _>>::new(), Vec::new());
        for (count, (name, target)) in repository.all_targets().enumerate() {
            if count >= REGISTRY_RELEASES_MAX {
                let why = format!("it lists more than {REGISTRY_RELEASES_MAX} versions");
                let fault = MetadataFault::Malformed;
                return Err(RegistryError::Metadata { role: "targets", fault, why });
            }
            match Entry::read(name, target).and_then(|entry| entry.release(name, target)) {
                Ok(release) => {
                    let versions = releases.entry(release.plugin.clone()).or_default();
                    versions.insert(release.version.clone(), release);
                }
                Err(error) => refused.push(error),
            }
        }
        let versions = |versions: &BTreeMap<PluginVersion, Release>| {
            versions.iter().map(|(version, it)| (version.clone(), to_choose_from(it))).collect()
        };
        let all = releases.iter().map(|(name, it)| (name.clone(), versions(it)));
        let index = resolve::Index::new(all.collect());
        Ok(Self { releases, index, refused })
    }

    /// A version of a plugin.
    #[must_use]
    pub fn find(&self, plugin: &PluginName, version: &PluginVersion) -> Option<&Release> {
        self.releases.get(plugin)?.get(version)
    }

    /// All versions of all plugins, by name and version.
    pub fn releases(&self) -> impl Iterator<Item = &Release> {
        self.releases.values().flat_map(BTreeMap::values)
    }
}

/// What matters about a release when versions are chosen.
pub(super) fn to_choose_from(release: &Release) -> resolve::Release {
    let here = [Target::HOST.as_str(), Target::Wasm32.as_str()];
    resolve::Release {
        dependencies: release.dependencies.clone(),
        yanked: release.yanked,
        runs_here: here.iter().any(|platform| release.platforms.contains(*platform)),
    }
}
