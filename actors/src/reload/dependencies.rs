//! Whether a version can stand among the plugins that serve: what it needs, and what others need of it.

use themis_messages::ids::PluginName;
use themis_messages::lifecycle::LoadError;
use themis_messages::manifest::Manifest;

use crate::catalog::Directory;

/// Checks both directions against what serves now.
///
/// # Errors
/// [`LoadError::Dependency`] for the first need that is not met.
pub(super) fn check(directory: &Directory, manifest: &Manifest) -> Result<(), LoadError> {
    for (dependency, wanted) in &manifest.dependencies {
        let serving = directory.find(dependency.as_str()).and_then(|slot| slot.current());
        let version = serving.as_ref().map(|serving| serving.generation.version());
        if !version.is_some_and(|version| wanted.matches(version.semver())) {
            return Err(LoadError::Dependency {
                plugin: manifest.name.clone(),
                dependency: dependency.clone(),
                wanted: wanted.to_string(),
                found: version.map_or_else(
                    || "it is not loaded".to_owned(),
                    |version| format!("{version} is loaded"),
                ),
            });
        }
    }
    for (plugin, wanted) in dependents(directory, &manifest.name) {
        if !wanted.matches(manifest.version.semver()) {
            return Err(LoadError::Dependency {
                plugin,
                dependency: manifest.name.clone(),
                wanted: wanted.to_string(),
                found: format!("{} would be loaded", manifest.version),
            });
        }
    }
    Ok(())
}

/// Plugins that serve and need `name`, with the versions they can use.
pub(crate) fn dependents(
    directory: &Directory,
    name: &PluginName,
) -> Vec<(PluginName, semver::VersionReq)> {
    let serving = directory.slots().into_iter().filter_map(|slot| slot.current());
    serving
        .filter_map(|serving| {
            let manifest = &serving.generation.manifest;
            let wanted = manifest.dependencies.get(name)?;
            Some((manifest.name.clone(), wanted.clone()))
        })
        .collect()
}
