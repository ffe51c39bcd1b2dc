//! What is known of one plugin, published after every message: its next actor goes on from it, and readers see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use themis_messages::ids::{Digest, GenerationId};
use themis_messages::lifecycle::{
    Budget, Operation, Probation, Quarantine, ReloadReceipt, Retained,
};

use super::failures::Failures;
use super::machine::Machine;
use crate::generation::Generation;
use crate::lease::Serving;
use crate::slot::Slot;

/// The right to change a plugin. It is given back when dropped, also by an operation that dies.
#[derive(Debug)]
pub struct Claim {
    /// What it is for.
    pub operation: Operation,
    pub(super) slot: &'static Slot,
}

impl Drop for Claim {
    /// An install that nobody confirmed is undone by the plugin's actor.
    fn drop(&mut self) {
        self.slot.tell(super::PluginFact::ClaimDropped);
    }
}

/// Plugins that were reloaded together: when one is swapped back, all are.
#[derive(Debug)]
pub struct Set {
    /// Each with the generation that the reload made.
    pub members: Vec<(&'static Slot, GenerationId)>,
}

/// An install that is not over yet: to be confirmed, or on probation.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) generation: GenerationId,
    pub(super) confirmed: bool,
    /// For how long it is watched once confirmed.
    pub(super) window: Duration,
    /// The stint before, to compare with.
    pub(super) before: Option<Arc<Serving>>,
    pub(super) set: Option<Arc<Set>>,
}

/// Everything that must outlive the plugin's actor.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub(super) machine: Machine,
    pub(super) generations: HashMap<GenerationId, Arc<Generation>>,
    pub(super) claim: Weak<Claim>,
    pub(super) trial: Option<Trial>,
    pub(super) failures: Failures,
    pub(super) quarantined: BTreeMap<Digest, Quarantine>,
    /// Generations whose process is gone.
    pub(super) ended: BTreeSet<GenerationId>,
    /// Why nothing serves, when that is so.
    pub(super) out_of_service: Option<String>,
    /// What the last health check of the serving generation found wrong.
    pub(super) unwell: Option<String>,
    /// Closed stints that still have callers inside.
    pub(super) closed: Vec<Arc<Serving>>,
    /// Calls of stints that have ended.
    pub(super) ended_calls: u64,
    /// Memory of each image that was ever mapped, in bytes.
    pub(super) images: BTreeMap<Digest, u64>,
    /// How what serves came to serve.
    pub(super) receipt: Option<ReloadReceipt>,
    pub(super) restarts: usize,
}

impl Ledger {
    /// What serves.
    #[must_use]
    pub(crate) fn current(&self) -> Option<&Arc<Generation>> {
        self.machine.current().and_then(|id| self.generations.get(&id))
    }

    /// What a rollback would go back to.
    #[must_use]
    pub(crate) fn previous(&self) -> Option<&Arc<Generation>> {
        self.machine.previous().and_then(|id| self.generations.get(&id))
    }

    /// Why nothing serves, when that is so.
    #[must_use]
    pub(crate) fn out_of_service(&self) -> Option<&str> {
        self.out_of_service.as_deref()
    }

    /// The version on probation.
    #[must_use]
    pub fn probation(&self) -> Option<Probation> {
        let trial = self.trial.as_ref().filter(|trial| trial.confirmed)?;
        Some(Probation { generation: trial.generation, window: trial.window })
    }

    /// Images that are not loaded.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantine> {
        self.quarantined.values().cloned().collect()
    }

    /// How what serves came to serve.
    #[must_use]
    pub fn receipt(&self) -> Option<&ReloadReceipt> {
        self.receipt.as_ref()
    }

    /// Whether a thread is inside this generation for good.
    #[must_use]
    pub fn is_pinned(&self, generation: GenerationId) -> bool {
        self.machine.is_pinned(generation)
    }

    /// Memory of this image, in bytes, when it is mapped for this plugin.
    pub(crate) fn image_bytes(&self, digest: &Digest) -> Option<u64> {
        self.images.get(digest).copied()
    }

    /// Generations that are initialised.
    pub(crate) fn initialised(&self) -> u64 {
        self.generations.len() as u64
    }

    /// Memory of all images mapped for this plugin, in bytes.
    pub(crate) fn all_image_bytes(&self) -> u64 {
        self.images.values().sum()
    }

    pub(crate) fn unwell(&self) -> Option<String> {
        self.unwell.clone()
    }

    pub(crate) fn restarts(&self) -> usize {
        self.restarts
    }

    pub(crate) fn draining(&self) -> usize {
        self.machine.draining()
    }

    /// Calls of every stint but the one that serves.
    pub(crate) fn earlier_calls(&self) -> u64 {
        self.ended_calls + self.closed.iter().map(|stint| stint.calls()).sum::<u64>()
    }

    /// What is kept of the plugin's versions; `serving` is the stint that serves.
    #[must_use]
    pub fn budget(&self, serving: Option<&Serving>) -> Budget {
        let leases_of = |id: GenerationId| {
            let stints = self.closed.iter().map(Arc::as_ref).chain(serving);
            stints.filter(|stint| stint.generation.id == id).map(Serving::in_flight).sum()
        };
        let mut generations: Vec<_> = self
            .generations
            .values()
            .filter_map(|it| {
                Some(Retained {
                    generation: it.id,
                    version: it.version().clone(),
                    digest: it.digest,
                    leases: leases_of(it.id),
                    reason: self.machine.retention(it.id)?,
                })
            })
            .collect();
        generations.sort_by_key(|it| it.generation);
        Budget {
            generations,
            images: self.images.len() as u64,
            image_bytes: self.images.values().sum(),
        }
    }
}
