//! Whether versions can stand among the plugins that serve: what they need, what others need of them, in which
//! order they change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use themis_messages::ids::PluginName;
use themis_messages::lifecycle::LoadError;
use themis_messages::manifest::Manifest;

use crate::catalog::Directory;

/// The versions that are about to serve, by plugin.
#[derive(Debug, Default)]
pub(crate) struct World(BTreeMap<PluginName, Arc<Manifest>>);

impl World {
    pub(crate) fn add(&mut self, manifest: Arc<Manifest>) {
        self.0.insert(manifest.name.clone(), manifest);
    }
}

/// Checks every need of the new versions, and every need of the others for them, against what will serve; answers
/// the order of the change: what is needed comes before what needs it.
///
/// # Errors
/// [`LoadError::Dependency`] for the first need that is not met, [`LoadError::Circle`].
pub(crate) fn order(directory: &Directory, world: &World) -> Result<Vec<PluginName>, LoadError> {
    for manifest in world.0.values() {
        check_needs(directory, world, manifest)?;
        for (plugin, wanted) in dependents(directory, &manifest.name) {
            // One that changes as well is asked for its new needs.
            let stays = !world.0.contains_key(&plugin);
            if stays && !wanted.matches(manifest.version.semver()) {
                return Err(LoadError::Dependency {
                    plugin,
                    dependency: manifest.name.clone(),
                    wanted: wanted.to_string(),
                    found: format!("{} would be loaded", manifest.version),
                });
            }
        }
    }
    in_order(world)
}

fn check_needs(directory: &Directory, world: &World, manifest: &Manifest) -> Result<(), LoadError> {
    for (dependency, wanted) in &manifest.dependencies {
        let serving = directory.find(dependency.as_str()).and_then(|slot| slot.current());
        let coming = world.0.get(dependency).map(|manifest| &manifest.version);
        let version = coming.or(serving.as_ref().map(|serving| serving.generation.version()));
        if !version.is_some_and(|version| wanted.matches(version.semver())) {
            let verb = if coming.is_some() { "would be loaded" } else { "is loaded" };
            return Err(LoadError::Dependency {
                plugin: manifest.name.clone(),
                dependency: dependency.clone(),
                wanted: wanted.to_string(),
                found: version
                    .map_or_else(|| "it is not loaded".to_owned(), |it| format!("{it} {verb}")),
            });
        }
    }
    Ok(())
}

/// What is needed first; by name where nothing decides.
fn in_order(world: &World) -> Result<Vec<PluginName>, LoadError> {
    let mut waiting: BTreeSet<_> = world.0.keys().cloned().collect();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let ready: Vec<_> = waiting
            .iter()
            .filter(|name| {
                let needs = world.0.get(*name).map(|manifest| &manifest.dependencies);
                !needs.into_iter().flatten().any(|(needed, _)| waiting.contains(needed))
            })
            .cloned()
            .collect();
        if ready.is_empty() {
            return Err(LoadError::Circle { plugins: waiting.into_iter().collect() });
        }
        for name in ready {
            waiting.remove(&name);
            order.push(name);
        }
    }
    Ok(order)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, needs: &[&str]) -> Arc<Manifest> {
        let needs: Vec<_> = needs.iter().map(|need| format!("\"{need}\": \"^1\"")).collect();
        let text = format!(
            r#"{{"schema": 1, "name": "{name}", "version": "1.0.0", "abi": "1.0",
                "files": [{{"path": "lib.so", "target": "linux-x86_64", "size": 1, "sha256": "{}"}}],
                "key_id": "0000000000000000", "methods": [], "dependencies": {{{}}}}}"#,
            "0".repeat(64),
            needs.join(", ")
        );
        Arc::new(Manifest::parse("m.json".as_ref(), text.as_bytes()).unwrap())
    }

    fn ordered(plugins: &[(&str, &[&str])]) -> Result<Vec<String>, LoadError> {
        let mut world = World::default();
        for (name, needs) in plugins {
            world.add(manifest(name, needs));
        }
        let order = order(&Directory::default(), &world)?;
        Ok(order.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_needed_changes_before_what_needs_it() {
        let order = ordered(&[("a", &["b", "d"]), ("b", &["c"]), ("c", &[]), ("d", &["c"])]);
        assert_eq!(order.unwrap(), ["c", "b", "d", "a"]);
    }

    #[test]
    fn a_circle_has_no_order_and_a_need_outside_the_set_must_be_met() {
        let circle = ordered(&[("a", &["b"]), ("b", &["a"]), ("c", &[])]).unwrap_err();
        assert_eq!(circle.to_string(), "plugins need each other in a circle: a, b");
        let unmet = ordered(&[("a", &["z"])]).unwrap_err();
        assert_eq!(unmet.to_string(), "plugin a needs z ^1, but it is not loaded");
    }
}
