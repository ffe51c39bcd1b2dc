//! What happens in a kernel, as its subscribers see it: typed events, numbered, with progress.
//!
//! Events are for watching, not for proof: a slow subscriber misses some and is told how many. The audit log
//! misses none.

use std::time::Duration;

use serde::Serialize;

use crate::ids::{Digest, GenerationId, PluginName, PluginVersion};
use crate::lifecycle::{FirstCall, Operation, ReloadReceipt, Stage, as_millis};
use crate::probation::Evidence;
use crate::sandbox::Verdict;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Counts up by one for every event of this kernel, from 1.
    pub number: u64,
    /// When, by the system's clock.
    pub at: jiff::Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: LifecycleEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum LifecycleEvent {
    /// A load or reload has begun a step.
    Progress {
        /// Which operation.
        operation: Operation,
        /// The plugin, once it is known.
        plugin: Option<PluginName>,
        /// The version, once it is known.
        version: Option<PluginVersion>,
        /// The step.
        stage: Stage,
    },
    /// A version serves: loaded, reloaded, restarted or gone back to.
    Serves {
        /// The proof.
        receipt: Box<ReloadReceipt>,
    },
    /// An operation failed; what served before still serves.
    Failed {
        /// Which operation.
        operation: Operation,
        /// The plugin, when it is known.
        plugin: Option<PluginName>,
        /// Stable code.
        code: &'static str,
        /// The sentence for people.
        reason: String,
    },
    /// A plugin stopped serving by request.
    Unloaded {
        /// The plugin.
        plugin: PluginName,
    },
    /// A replaced generation ended: nobody is inside, its shutdown hook has run.
    Retired {
        /// The plugin.
        plugin: PluginName,
        /// The generation.
        generation: GenerationId,
    },
    /// The first call was answered by a generation that just took over.
    FirstCall {
        /// The plugin.
        plugin: PluginName,
        /// Who answered, after how long.
        first: FirstCall,
    },
    /// A version is watched from now on.
    ProbationBegan {
        /// The plugin.
        plugin: PluginName,
        /// The generation on probation.
        generation: GenerationId,
        /// For how long.
        #[serde(rename = "window_ms", serialize_with = "as_millis")]
        window: Duration,
    },
    /// A version has passed its probation.
    Settled {
        /// The plugin.
        plugin: PluginName,
        /// The generation.
        generation: GenerationId,
        /// What was seen.
        evidence: Evidence,
    },
    /// A health check failed.
    Unwell {
        /// The plugin.
        plugin: PluginName,
        /// The generation.
        generation: GenerationId,
        /// What it said, or that it said nothing.
        reason: String,
    },
    /// The process of a generation ended by itself, or was killed for what it did.
    WorkerEnded {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: PluginVersion,
        /// The generation.
        generation: GenerationId,
        /// How it ended.
        #[serde(flatten)]
        verdict: Verdict,
    },
    /// A plugin will be restarted.
    RestartDue {
        /// The plugin.
        plugin: PluginName,
        /// Its how manieth restart of the period.
        attempt: usize,
        /// After this long.
        #[serde(rename = "wait_ms", serialize_with = "as_millis")]
        wait: Duration,
    },
    /// An image is not loaded any more until it is released.
    Quarantined {
        /// The plugin.
        plugin: PluginName,
        /// The image.
        digest: Digest,
        /// What it did.
        reason: String,
    },
    /// A quarantined image may be loaded again.
    Released {
        /// The plugin.
        plugin: PluginName,
        /// The image.
        digest: Digest,
    },
    /// A load went over the generation budget, which the configuration only warns about.
    BudgetExceeded {
        /// The plugin.
        plugin: PluginName,
        /// What is spent.
        what: String,
    },
    /// An actor of the kernel failed and is restarted.
    ActorRestarted {
        /// Its name.
        actor: String,
        /// After this long.
        #[serde(rename = "wait_ms", serialize_with = "as_millis")]
        wait: Duration,
    },
    /// An actor shows no life and is ended by force.
    ActorStuck {
        /// Its role.
        role: &'static str,
    },
    /// The kernel takes no more requests; loaded plugins go on serving.
    KernelFailed,
    /// This subscriber was too slow: so many events are gone for it.
    Missed {
        /// How many.
        events: u64,
    },
}
