//! What an in-process plugin is given: its configuration and its way to log and count.

use std::sync::Arc;

use themis_messages::ids::PluginName;
use themis_messages::manifest::Manifest;
use themis_messages::sandbox::{Isolation, Level};
use themis_sandbox::admission::AdmittedPlugin;
use themis_sandbox::native::{HostServices, LogLevel};

use crate::environment::Settings;

/// The manifest's configuration under the operator's, as JSON text.
#[must_use]
pub fn config(manifest: &Manifest, settings: &Settings) -> String {
    let mut config = manifest.config.clone();
    if let Some(own) = settings.plugin_config.get(&manifest.name) {
        config.extend(own.clone());
    }
    serde_json::Value::Object(config).to_string()
}

/// Says loudly when a worker is not confined as well as it could be: a weaker guarantee is never silent.
pub fn tell_isolation(plugin: &PluginName, isolation: &Isolation) {
    let level = isolation.level;
    if level > Level::A {
        tracing::warn!(
            %plugin, %level, missing = isolation.missing_text(),
            "the plugin's worker is not fully confined; see `themis doctor`"
        );
    }
}

/// Logging goes to `tracing`, counting to `metrics`, both under the plugin's name.
#[must_use]
pub fn services(plugin: &AdmittedPlugin) -> HostServices {
    let name = plugin.manifest.name.clone();
    let counted = name.to_string();
    HostServices {
        plugin: name.clone(),
        capabilities: plugin.manifest.capabilities.clone(),
        log: Arc::new(move |level, message| match level {
            LogLevel::Error => tracing::error!(plugin = %name, "{message}"),
            LogLevel::Warn => tracing::warn!(plugin = %name, "{message}"),
            LogLevel::Info => tracing::info!(plugin = %name, "{message}"),
            LogLevel::Debug => tracing::debug!(plugin = %name, "{message}"),
            LogLevel::Trace => tracing::trace!(plugin = %name, "{message}"),
        }),
        counter: Arc::new(move |counter, delta| {
            let (plugin, counter) = (counted.clone(), counter.to_owned());
            metrics::counter!("themis_plugin_counter_total", "plugin" => plugin, "name" => counter)
                .increment(delta);
        }),
        data: Arc::clone(&plugin.data),
    }
}
