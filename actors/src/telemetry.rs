//! Every metric of the kernel: name, kind and meaning, described once.
//!
//! Labels are bounded: plugin names and versions that were admitted, tiers, and stable codes.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use strum::IntoEnumIterator as _;
use themis_messages::ids::{PluginName, PluginVersion};
use themis_messages::lifecycle::Retention;
use themis_messages::mailbox::Watched as _;
use themis_messages::sandbox::{Level, Usage};

use crate::environment::Environment;
use crate::generation::Generation;
use crate::lease::Serving;
use crate::slot::Slot;

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_counter!("themis_loads_total", "Loads by outcome: ok, refused or failed");
    describe_counter!("themis_reloads_total", "Reloads by outcome: ok, refused or failed");
    describe_counter!("themis_rollbacks_total", "Rollbacks by outcome: ok, failed or automatic");
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
        "themis_retained_generations",
        "Generations that are kept, by plugin and reason: serving, previous, parked, leased, ending, stuck"
    );
    describe_gauge!(
        "themis_retained_leases",
        "Calls and leases under way on generations that are kept, by plugin and reason"
    );
    describe_gauge!("themis_retained_images", "Images mapped for good, by plugin");
    describe_gauge!(
        "themis_retained_image_bytes",
        Unit::Bytes,
        "Memory of the images mapped for good, by plugin"
    );
    describe_gauge!(
        "themis_image_bytes",
        Unit::Bytes,
        "Memory of all images mapped for good: what the generation budget counts"
    );
    describe_counter!("themis_budget_spent_total", "Loads over the generation budget, by plugin");
    describe_gauge!("themis_plugin_on_probation", "1 while a new version is watched, by plugin");
    describe_gauge!("themis_plugin_unwell", "1 while the last health check failed, by plugin");
    describe_gauge!("themis_quarantined_images", "Images in quarantine, by plugin");
    describe_counter!("themis_probations_total", "Probations by outcome: settled, or why not");
    describe_counter!("themis_health_failures_total", "Failed health checks, by plugin");
    describe_counter!("themis_plugin_restarts_total", "Restarts of plugins by outcome");
    describe_gauge!("themis_mailbox_depth", "Requests waiting or being handled, by role");
    describe_counter!("themis_mailbox_refused_total", "Requests a full queue refused, by role");
    describe_counter!("themis_stuck_actors_total", "Actors ended for want of life, by role");
    describe_counter!(
        "themis_refused_writes_total",
        "Replies that plugins tried to write after their call, or from another thread"
    );
    describe_gauge!(
        "themis_loader_stuck",
        "1 when a constructor hangs and in-process loading has stopped"
    );
    describe_counter!("themis_quarantines_total", "Plugins quarantined");
    describe_counter!("themis_restarts_total", "Actors restarted, by supervisor");
    describe_counter!("themis_audit_records_total", "Records written to the audit log");
    describe_counter!("themis_audit_lost_total", "Records the audit log could not take");
    describe_counter!("themis_plugin_counter_total", "What plugins count themselves");
    describe_usage();
}

/// Of both tiers alike; in the host's own process estimated from sampled calls.
fn describe_usage() {
    describe_counter!("themis_plugin_cpu_microseconds_total", "Time on a CPU, by plugin and tier");
    describe_gauge!("themis_plugin_memory_bytes", Unit::Bytes, "Memory in use, by plugin and tier");
    describe_gauge!(
        "themis_plugin_memory_peak_bytes",
        Unit::Bytes,
        "The most memory the serving generation has used, by plugin and tier"
    );
    describe_counter!("themis_plugin_page_faults_total", "Page faults of worker processes");
    describe_counter!("themis_plugin_request_bytes_total", "Bytes of requests");
    describe_counter!("themis_plugin_reply_bytes_total", "Bytes of replies");
    describe_counter!(
        "themis_plugin_log_lines_dropped_total",
        "Log lines dropped because a plugin wrote too many"
    );
    describe_counter!(
        "themis_plugin_fuel_units_total",
        "Fuel that calls of wasm plugins have used"
    );
    describe_gauge!(
        "themis_isolation_level",
        "1 for the level that a plugin's worker is confined at: A (full) to D"
    );
    describe_counter!(
        "themis_worker_ends_total",
        "Worker processes that ended by themselves or were killed, by plugin and reason"
    );
    describe_gauge!("themis_workers", "Worker processes, those that are kept ready included");
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

/// Adds what a generation has used since this was last asked.
pub fn count_usage(generation: &Generation) {
    let now = generation.usage();
    let mut folded = generation.sampled.folded.lock();
    let labels =
        [("plugin", generation.name().to_string()), ("tier", generation.tier.as_str().to_owned())];
    let micros = |usage: &Usage| {
        usage.cpu.map_or(0, |cpu| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX))
    };
    let grown = |now: u64, before: u64| now.saturating_sub(before);
    counter!("themis_plugin_cpu_microseconds_total", &labels)
        .increment(grown(micros(&now), micros(&folded)));
    counter!("themis_plugin_request_bytes_total", &labels)
        .increment(grown(now.request_bytes, folded.request_bytes));
    counter!("themis_plugin_reply_bytes_total", &labels)
        .increment(grown(now.reply_bytes, folded.reply_bytes));
    counter!("themis_plugin_log_lines_dropped_total", &labels)
        .increment(grown(now.log_lines_dropped, folded.log_lines_dropped));
    if let Some(fuel) = now.fuel {
        counter!("themis_plugin_fuel_units_total", &labels)
            .increment(grown(fuel, folded.fuel.unwrap_or(0)));
    }
    if let Some(faults) = now.page_faults {
        counter!("themis_plugin_page_faults_total", &labels)
            .increment(grown(faults, folded.page_faults.unwrap_or(0)));
    }
    *folded = now;
}

/// Brings counters and gauges that are kept elsewhere up to date, before a scrape.
pub fn refresh(environment: &Environment) {
    let slots = environment.directory.slots();
    let mut serving = 0_u32;
    for slot in &slots {
        if let Some(stint) = slot.current() {
            serving += 1;
            count_stint(&stint);
            count_usage(&stint.generation);
        }
        refresh_plugin(slot);
    }
    gauge!("themis_plugins").set(serving);
    if let Ok(workers) = &environment.settings.workers.workers {
        gauge!("themis_workers").set(as_float(workers.running() as u64));
    }
    let bytes = slots.iter().map(|slot| slot.ledger().all_image_bytes()).sum();
    gauge!("themis_image_bytes").set(as_float(bytes));
    let images = u32::try_from(themis_sandbox::native::mapped_images()).unwrap_or(u32::MAX);
    gauge!("themis_images_mapped").set(images);
    let stuck = themis_sandbox::native::loader_stuck().is_some();
    gauge!("themis_loader_stuck").set(u8::from(stuck));
    counter!("themis_refused_writes_total").absolute(themis_sandbox::native::refused_writes());
    for role in environment.roles.all() {
        refresh_queue(role.role(), role.depth(), role.refused());
    }
    let queues = || slots.iter().map(|slot| slot.mailbox());
    let depth = queues().map(|queue| queue.depth()).sum();
    refresh_queue("plugin", depth, queues().map(|queue| queue.refused()).sum());
}

fn refresh_queue(role: &'static str, depth: usize, refused: u64) {
    gauge!("themis_mailbox_depth", "role" => role).set(as_float(depth as u64));
    counter!("themis_mailbox_refused_total", "role" => role).absolute(refused);
}

fn refresh_plugin(slot: &Slot) {
    let name = slot.name().to_string();
    let info = slot.info();
    let usage = info.usage.unwrap_or_default();
    let tier = info.tier.map_or("none", |tier| tier.as_str());
    let labels = [("plugin", name.clone()), ("tier", tier.to_owned())];
    gauge!("themis_plugin_memory_bytes", &labels).set(as_float(usage.memory_bytes.unwrap_or(0)));
    gauge!("themis_plugin_memory_peak_bytes", &labels)
        .set(as_float(usage.memory_peak_bytes.unwrap_or(0)));
    for level in [Level::A, Level::B, Level::C, Level::D] {
        let has = info.isolation.as_ref().is_some_and(|it| it.level == level);
        let labels = [("plugin", name.clone()), ("level", level.as_str().to_owned())];
        gauge!("themis_isolation_level", &labels).set(u8::from(has));
    }
    gauge!("themis_in_flight_calls", "plugin" => name.clone()).set(as_float(info.in_flight));
    for reason in Retention::iter() {
        let kept = || info.budget.generations.iter().filter(|it| it.reason == reason);
        let labels = [("plugin", name.clone()), ("reason", reason.as_str().to_owned())];
        gauge!("themis_retained_generations", &labels).set(as_float(kept().count() as u64));
        let leases = kept().map(|it| it.leases).sum();
        gauge!("themis_retained_leases", &labels).set(as_float(leases));
    }
    gauge!("themis_retained_images", "plugin" => name.clone()).set(as_float(info.budget.images));
    gauge!("themis_retained_image_bytes", "plugin" => name.clone())
        .set(as_float(info.budget.image_bytes));
    gauge!("themis_plugin_on_probation", "plugin" => name.clone())
        .set(u8::from(info.probation.is_some()));
    gauge!("themis_plugin_unwell", "plugin" => name.clone()).set(u8::from(info.unwell.is_some()));
    gauge!("themis_quarantined_images", "plugin" => name)
        .set(as_float(info.quarantined.len() as u64));
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
fn as_float(value: u64) -> f64 {
    value as f64
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
