//! Loads at start what the configuration names: the highest verified version that matches, dependencies first.

use std::collections::BTreeMap;
use std::path::PathBuf;

use themis_messages::ids::{PluginName, PluginVersion};
use themis_messages::lifecycle::LoadError;
use themis_sandbox::admission::Discovered;

use crate::config::Config;
use crate::kernel::Kernel;

/// Loads every plugin with `autoload`. A plugin that does not load is logged and on the audit record; the kernel
/// starts without it.
pub(crate) async fn run(kernel: &Kernel, config: &Config) {
    if !config.plugins.values().any(|plugin| plugin.autoload) {
        return;
    }
    let found = match kernel.discover().await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(code = error.code(), %error, "nothing was loaded at start");
            return;
        }
    };
    let mut waiting = choose(&found, config);
    // Each round loads what has its dependencies; a round that loads nothing is the last.
    loop {
        let mut unmet = BTreeMap::new();
        let before = waiting.len();
        for (name, path) in std::mem::take(&mut waiting) {
            match kernel.loader().load(path.clone(), None).await {
                Ok(_serves) => {}
                Err(LoadError::Dependency { .. }) => {
                    unmet.insert(name, path);
                }
                Err(error) => tracing::error!(%name, code = error.code(), %error, "not loaded"),
            }
        }
        if unmet.is_empty() || unmet.len() == before {
            for name in unmet.keys() {
                tracing::error!(%name, "not loaded: what it needs is not there");
            }
            return;
        }
        waiting = unmet;
    }
}

/// The highest verified version of each plugin that is to be loaded.
fn choose(found: &[Discovered], config: &Config) -> BTreeMap<PluginName, PathBuf> {
    let mut best: BTreeMap<PluginName, (PluginVersion, PathBuf)> = BTreeMap::new();
    for discovered in found {
        let Ok(plugin) = &discovered.result else { continue };
        let (name, version) = (&plugin.manifest.name, &plugin.manifest.version);
        let Some(wanted) = config.plugins.get(name).filter(|wanted| wanted.autoload) else {
            continue;
        };
        let matches = wanted.version.as_ref().is_none_or(|req| req.matches(version.semver()));
        if matches && best.get(name).is_none_or(|(highest, _)| highest < version) {
            best.insert(name.clone(), (version.clone(), discovered.path.clone()));
        }
    }
    for (name, plugin) in &config.plugins {
        if plugin.autoload && !best.contains_key(name) {
            tracing::error!(%name, "not loaded: no verified version below the plugin root matches");
        }
    }
    best.into_iter().map(|(name, (_version, path))| (name, path)).collect()
}
