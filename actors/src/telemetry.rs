//! Every metric of the kernel: name, kind and meaning, described once.
//!
//! Labels are bounded: plugin names and versions that were admitted, tiers, and stable codes.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use themis_messages::ids::{PluginName, PluginVersion};

use crate::catalog::Directory;
use crate::generation::Generation;
use crate::lease::Serving;

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_counter!("themis_loads_total", "Loads by outcome: ok, refused or failed");
    describe_counter!("themis_reloads_total", "Reloads by outcome: ok, refused or failed");
    describe_counter!("themis_rollbacks_total", "Rollbacks by outcome: ok or failed");
    describe_counter!("themis_unloads_total", "Plugins unloaded");
    describe_counter!(
        "themis_refusals_total",
        "Plugins refused before any of their code ran, by reason"
    );
    describe_counter!("themis_calls_total", "Calls, by plugin and version");
    describe_counter!(
        "themis_call_errors_total",
        "Calls that ended in an error, by plugin and version"
    );
    describe_histogram!(
        "themis_call_latency_seconds",
        Unit::Seconds,
        "Time of a call as its caller sees it, one in 64 sampled"
    );
    describe_histogram!("themis_load_latency_seconds", Unit::Seconds, "Time of a load or reload");
    describe_histogram!("themis_swap_latency_seconds", Unit::Seconds, "Time of the pointer swap");
    describe_gauge!("themis_plugins", "Plugins that serve");
    describe_gauge!("themis_generations", "Generations that serve, are warm or are draining");
    describe_gauge!("themis_images_mapped", "Distinct images mapped in this process, for good");
    describe_gauge!("themis_in_flight_calls", "Calls under way, by plugin");
    describe_gauge!(
        "themis_loader_stuck",
        "1 when a constructor hangs and in-process loading has stopped"
    );
    describe_counter!("themis_quarantines_total", "Plugins quarantined");
    describe_counter!("themis_restarts_total", "Actors restarted, by supervisor");
    describe_counter!("themis_audit_records_total", "Records written to the audit log");
    describe_counter!("themis_audit_lost_total", "Records the audit log could not take");
    describe_counter!("themis_plugin_counter_total", "What plugins count themselves");
}

/// The latency histogram of one version.
pub fn call_latency(generation: &Generation) -> metrics::Histogram {
    histogram!(
        "themis_call_latency_seconds",
        "plugin" => generation.name().to_string(),
        "version" => generation.version().to_string()
    )
}

/// Adds the calls of an ended stint to the totals of its version.
pub fn count_stint(serving: &Serving) {
    let (name, version) = (serving.generation.name(), serving.generation.version());
    let mut folded = serving.folded.lock();
    let (calls, errors) = (serving.calls(), serving.errors());
    calls_total(name, version).increment(calls - folded.0);
    errors_total(name, version).increment(errors - folded.1);
    *folded = (calls, errors);
}

fn calls_total(name: &PluginName, version: &PluginVersion) -> metrics::Counter {
    counter!("themis_calls_total", "plugin" => name.to_string(), "version" => version.to_string())
}

fn errors_total(name: &PluginName, version: &PluginVersion) -> metrics::Counter {
    let version = version.to_string();
    counter!("themis_call_errors_total", "plugin" => name.to_string(), "version" => version)
}

/// Brings counters and gauges that are kept elsewhere up to date, before a scrape.
pub fn refresh(directory: &Directory) {
    let slots = directory.slots();
    let mut serving = 0_u32;
    for slot in &slots {
        let stint = slot.current();
        let in_flight = stint.as_ref().map_or(0, |stint| stint.in_flight());
        let gauge = gauge!("themis_in_flight_calls", "plugin" => slot.name().to_string());
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        gauge.set(in_flight as f64);
        if let Some(stint) = stint {
            serving += 1;
            count_stint(&stint);
        }
    }
    gauge!("themis_plugins").set(serving);
    let images = u32::try_from(themis_sandbox::native::mapped_images()).unwrap_or(u32::MAX);
    gauge!("themis_images_mapped").set(images);
    let stuck = themis_sandbox::native::loader_stuck().is_some();
    gauge!("themis_loader_stuck").set(u8::from(stuck));
}

/// Counts the end of a load or reload.
pub fn count_operation(name: &'static str, outcome: &'static str) {
    counter!(name, "outcome" => outcome).increment(1);
}

/// A generation that serves, is warm or is draining; counted while it lives.
#[derive(Debug)]
pub struct Counted(());

impl Counted {
    /// Counts one.
    #[must_use]
    pub(crate) fn start() -> Self {
        gauge!("themis_generations").increment(1);
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!("themis_generations").decrement(1);
    }
}
