//! One plugin of a load or reload under way: what is to come to serve, and how far it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use themis_messages::admit::AdmitError;
use themis_messages::audit::AuditEntry;
use themis_messages::ids::{Digest, KeyId, PluginName, Tier, named_by_place};
use themis_messages::instance::{CallStatus, HookError, Instance, ReplyBuffer};
use themis_messages::lifecycle::{
    HandOverError, KernelFault, LoadError, LoadRequest, Operation, ProbeError, ReloadReceipt,
    StateOutcome,
};
use themis_messages::limits::{ADMIT_DEADLINE, ASK_DEADLINE, PROBE_DEADLINE};
use themis_messages::mailbox::Reply;
use themis_messages::manifest::Manifest;
use themis_messages::sandbox::SandboxError;
use themis_sandbox::admission::{self, AdmittedPlugin};
use themis_sandbox::native;

use super::candidate::Candidate;
use super::{budget, loading, out_of_order};
use crate::catalog::CatalogMsg;
use crate::environment::Environment;
use crate::generation::{Again, Generation, patience};
use crate::handover;
use crate::lease::Hold;
use crate::plugin::{
    Claim, ClaimRefusal, Installation, Installed, PluginFact, PluginMsg, Set, hook_error,
    still_allowed,
};
use crate::slot::Slot;
use crate::telemetry;
use crate::usage::Sampled;
use crate::work::{self, WorkError};

/// What is to serve.
#[derive(Debug, Clone)]
pub enum Target {
    /// What lies at a place.
    Files {
        /// Where.
        load: Box<LoadRequest>,
        /// What must serve for that.
        replaces: Replaces,
    },
    /// The same image again, in a new instance.
    Again(Arc<Generation>),
}

/// What must serve before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaces {
    /// Nothing: it is a first version.
    Nothing,
    /// Some version of this plugin.
    Plugin(PluginName),
    /// Either: in a set, new plugins may join.
    Whatever,
    /// Nothing: it serves beside what serves, as an arm of an experiment.
    Beside,
}

/// What a generation is made of.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) manifest: Arc<Manifest>,
    pub(super) tier: Tier,
    pub(super) digest: Digest,
    pub(super) manifest_digest: Option<Digest>,
    pub(super) key_id: KeyId,
    pub(super) path: PathBuf,
}

impl Origin {
    fn of_admitted(admitted: &AdmittedPlugin) -> Self {
        Self {
            manifest: Arc::new(admitted.manifest.clone()),
            tier: admitted.tier,
            digest: admitted.image.digest(),
            manifest_digest: admitted.manifest_digest,
            key_id: admitted.key_id,
            path: admitted.path.clone(),
        }
    }

    fn of_generation(generation: &Generation) -> Self {
        Self {
            manifest: Arc::clone(&generation.manifest),
            tier: generation.tier,
            digest: generation.digest,
            manifest_digest: generation.manifest_digest,
            key_id: generation.key_id,
            path: generation.path.clone(),
        }
    }
}

/// One plugin of the operation.
pub(super) struct Member {
    pub(super) target: Target,
    pub(super) origin: Option<Origin>,
    admitted: Option<Arc<AdmittedPlugin>>,
    again: Option<Again>,
    current: Option<Arc<Generation>>,
    pub(super) candidate: Option<Candidate>,
    hold: Option<Hold>,
    pub(super) state: StateOutcome,
    pub(super) installed: Option<(Arc<Generation>, Installed)>,
    pub(super) audit_seq: Option<u64>,
    /// Held until the answer: nobody else may change the plugin meanwhile. The last to be dropped: whoever claims the plugin
    /// next finds no hold of an operation that was ended.
    claim: Option<(&'static Slot, Arc<Claim>)>,
}

impl Member {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            origin: None,
            admitted: None,
            again: None,
            claim: None,
            current: None,
            candidate: None,
            hold: None,
            state: StateOutcome::None,
            installed: None,
            audit_seq: None,
        }
    }

    pub(super) fn origin(&self) -> Result<&Origin, LoadError> {
        self.origin.as_ref().ok_or_else(out_of_order)
    }

    pub(super) fn slot(&self) -> Result<&'static Slot, LoadError> {
        self.claim.as_ref().map(|(slot, _claim)| *slot).ok_or_else(out_of_order)
    }

    pub(super) fn candidate(&self) -> Result<Arc<Generation>, LoadError> {
        self.candidate.as_ref().map(|it| Arc::clone(it.generation())).ok_or_else(out_of_order)
    }

    /// Verifies what lies at the place; what ran already only has to be allowed still.
    pub(super) async fn admit(&mut self, environment: &Arc<Environment>) -> Result<(), LoadError> {
        // New threads register thread-local destructors under the lock that the stuck constructor holds: nothing
        // below would end.
        if let (Some(by), false) = (native::loader_stuck(), self.is_restart_elsewhere()) {
            return Err(LoadError::LoaderStuck { by });
        }
        let (load, replaces) = match &self.target {
            Target::Files { load, replaces } => (load.clone(), replaces.clone()),
            Target::Again(generation) => {
                let policy = &environment.settings.policy;
                still_allowed(policy, generation).map_err(LoadError::Refused)?;
                self.origin = Some(Origin::of_generation(generation));
                self.again = Some(generation.again.clone());
                return Ok(());
            }
        };
        let path = load.path.clone();
        let admitted = verify(Arc::clone(environment), *load).await?;
        let found = &admitted.manifest.name;
        if let Replaces::Plugin(plugin) = replaces
            && plugin != *found
        {
            return Err(LoadError::OtherPlugin { plugin, found: found.clone(), path });
        }
        self.origin = Some(Origin::of_admitted(&admitted));
        self.admitted = Some(Arc::new(admitted));
        Ok(())
    }

    /// Whether it becomes an arm, and what serves stays.
    pub(super) fn is_beside(&self) -> bool {
        matches!(&self.target, Target::Files { replaces: Replaces::Beside, .. })
    }

    /// Of what does not run in this process.
    fn is_restart_elsewhere(&self) -> bool {
        matches!(&self.target, Target::Again(generation) if generation.tier != Tier::InProcess)
    }

    pub(super) async fn claim(
        &mut self,
        environment: &Environment,
        operation: Operation,
    ) -> Result<(), LoadError> {
        let Origin { manifest, digest, .. } = self.origin()?;
        let (manifest, digest) = (Arc::clone(manifest), Some(*digest));
        let plugin = manifest.name.clone();
        let catalog = &environment.roles.catalog;
        let slot = catalog
            .ask(ASK_DEADLINE, |reply| CatalogMsg::Ensure { name: plugin.clone(), reply })
            .await??;
        let claimed = slot
            .mailbox()
            .ask(ASK_DEADLINE, |reply| PluginMsg::Claim { operation, digest, reply })
            .await?;
        let claimed = claimed.map_err(|refusal| match refusal {
            ClaimRefusal::Busy { operation } => {
                let operation = operation.as_str();
                KernelFault::Busy { plugin: plugin.clone(), operation }.into()
            }
            ClaimRefusal::Quarantined { reason } => {
                let (plugin, version) = (plugin.clone(), manifest.version.clone());
                LoadError::Quarantined { plugin, version, reason }
            }
        })?;
        self.claim = Some((slot, claimed.claim));
        self.check_current(plugin, claimed.current.as_deref())?;
        self.current = claimed.current;
        let image = self.admitted.as_ref().map(|admitted| admitted.image.bytes());
        // What is mapped in a worker goes with it.
        let stays = self.origin()?.tier == Tier::InProcess;
        let bytes = image.filter(|_| stays).map_or(0, native::resident_bytes);
        budget::check(environment, slot, &self.origin()?.digest, bytes)
    }

    fn check_current(
        &self,
        plugin: PluginName,
        current: Option<&Generation>,
    ) -> Result<(), LoadError> {
        match (&self.target, current) {
            (Target::Files { replaces: Replaces::Nothing, .. }, Some(current)) => {
                let version = current.version().clone();
                Err(LoadError::AlreadyLoaded { plugin, version })
            }
            (
                Target::Files { replaces: Replaces::Plugin(_) | Replaces::Beside, .. }
                | Target::Again(_),
                None,
            ) => Err(LoadError::NotLoaded { plugin }),
            // It was replaced while its restart was on its way.
            (Target::Again(unwell), Some(current)) if unwell.id != current.id => {
                let version = current.version().clone();
                Err(LoadError::AlreadyLoaded { plugin, version })
            }
            (Target::Files { .. } | Target::Again(_), _) => Ok(()),
        }
    }

    /// Maps the image, unless it is a restart's, which is made anew with its instance.
    pub(super) async fn map(&mut self, environment: &Environment) -> Result<(), LoadError> {
        if self.again.is_some() {
            return Ok(());
        }
        // Kept until the answer: giving its memory back takes longer than anybody should wait for.
        let admitted = self.admitted.clone().ok_or_else(out_of_order)?;
        let mapped = loading::map(admitted, environment).await?;
        if let Some((digest, bytes)) = mapped.for_good {
            self.tell(PluginFact::Mapped { digest, bytes })?;
        }
        self.again = Some(mapped.again);
        Ok(())
    }

    pub(super) async fn initialise(&mut self, environment: &Environment) -> Result<(), LoadError> {
        let origin = self.origin()?.clone();
        let again = self.again.clone().ok_or_else(out_of_order)?;
        let limit = environment.settings.hook_deadline;
        let until = patience(origin.tier, limit);
        let name = format!("hook-{}", origin.manifest.name);
        let initialising = again.clone();
        let ready = work::run(&name, until, move || initialising.init()).await;
        let instance = ready.map_err(hook_error).and_then(|ready| ready).map_err(|error| {
            let (plugin, version) = (origin.manifest.name.clone(), origin.manifest.version.clone());
            LoadError::Init { plugin, version, error }
        })?;
        let generation = Generation {
            id: environment.next_generation(),
            manifest: origin.manifest,
            tier: origin.tier,
            digest: origin.digest,
            manifest_digest: origin.manifest_digest,
            key_id: origin.key_id,
            path: origin.path,
            instance,
            again,
            sampled: Sampled::default(),
            _counted: telemetry::Counted::start(),
        };
        self.candidate = Some(Candidate::new(generation, limit));
        Ok(())
    }

    pub(super) async fn probe(&mut self, environment: &Environment) -> Result<(), LoadError> {
        let candidate = self.candidate()?;
        let (plugin, version) = (candidate.name().clone(), candidate.version().clone());
        let failed =
            |error| LoadError::Probe { plugin: plugin.clone(), version: version.clone(), error };
        let limit = environment.settings.hook_deadline;
        let instance = Arc::clone(&candidate.instance);
        let name = format!("hook-{plugin}");
        let health = work::run(&name, candidate.patience(limit), move || instance.health()).await;
        let health = health.map_err(hook_error).and_then(|health| health);
        health.map_err(|error| failed(ProbeError::Health(error)))?;
        if candidate.manifest.self_test.is_empty() {
            return Ok(());
        }
        let tests = work::run(&name, PROBE_DEADLINE, move || {
            self_tests(candidate.instance.as_ref(), &candidate.manifest)
        });
        match tests.await {
            Ok(outcome) => outcome.map_err(failed),
            Err(WorkError::Deadline { limit }) => Err(failed(ProbeError::Deadline { limit })),
            Err(error @ (WorkError::Spawn { .. } | WorkError::Panicked { .. })) => {
                Err(failed(ProbeError::Health(hook_error(error))))
            }
        }
    }

    /// Holds new leases and moves the state, if both versions have hooks for it. A restart begins afresh: what is
    /// not well is not asked for its state.
    pub(super) async fn hand_over(&mut self, environment: &Environment) -> Result<(), LoadError> {
        let (slot, candidate) = (self.slot()?, self.candidate()?);
        let Some(current) = self.current.clone() else { return Ok(()) };
        // The state stays with what serves.
        if matches!(self.target, Target::Again(_)) || self.is_beside() {
            self.state = StateOutcome::Fresh;
            return Ok(());
        }
        if !handover::moves_state(&current, &candidate) {
            return Ok(());
        }
        let limit = environment.settings.hold_limit;
        let carried = handover::carry(slot, &current, &candidate, limit).await;
        let carried = carried.map_err(|error| self.hand_over_error(&candidate, error))?;
        (self.hold, self.state) = (Some(carried.hold), carried.outcome);
        Ok(())
    }

    fn hand_over_error(&self, candidate: &Generation, error: HandOverError) -> LoadError {
        let (plugin, version) = (candidate.name().clone(), candidate.version().clone());
        LoadError::HandOver { plugin, version, error }
    }

    pub(super) async fn swap(
        &mut self,
        environment: &Environment,
        set: Option<Arc<Set>>,
    ) -> Result<(), LoadError> {
        let candidate = self.candidate.take().ok_or_else(out_of_order)?;
        let generation = Arc::clone(candidate.generation());
        if self.is_beside() {
            self.ask(|reply| PluginMsg::Join { candidate, reply }).await?;
            let (from, swap, probation) = (None, Duration::ZERO, None);
            self.installed = Some((generation, Installed { from, swap, probation }));
            return Ok(());
        }
        // What is restarted was not well: there is nothing to compare with and nothing to go back to.
        let probation = !matches!(self.target, Target::Again(_));
        let hold = self.hold.take();
        let installation = Installation { candidate, hold, set, probation };
        match self.ask(|reply| PluginMsg::Install { installation, reply }).await? {
            Ok(installed) => {
                self.installed = Some((generation, installed));
                Ok(())
            }
            Err(candidate) => {
                self.candidate = Some(candidate);
                let limit = environment.settings.hold_limit;
                Err(self.hand_over_error(&generation, HandOverError::Lapsed { limit }))
            }
        }
    }

    /// Back to what served, if this member was swapped.
    pub(super) async fn revert(&mut self) -> Result<(), LoadError> {
        let Some((generation, _)) = self.installed.take() else { return Ok(()) };
        let generation = generation.id;
        if self.is_beside() {
            let leave = |reply| PluginMsg::Leave { generation, reply };
            return Ok(self.slot()?.mailbox().insist(ASK_DEADLINE, leave).await?);
        }
        let revert = |reply| PluginMsg::Revert { generation, reply };
        Ok(self.slot()?.mailbox().insist(ASK_DEADLINE, revert).await?)
    }

    /// The outcome is on record: what serves may stay. Answers the receipt as the plugin's actor keeps it.
    pub(super) async fn confirm(&self, receipt: ReloadReceipt) -> Result<ReloadReceipt, LoadError> {
        if self.is_beside() {
            return Ok(receipt);
        }
        let boxed = Box::new(receipt.clone());
        let confirm = |reply| PluginMsg::Confirm { receipt: boxed, reply };
        let confirmed = self.slot()?.mailbox().insist(ASK_DEADLINE, confirm).await;
        // Should its actor be late, it hears of it all the same.
        Ok(confirmed.unwrap_or(receipt))
    }

    /// Shuts a candidate down that never served.
    pub(super) async fn discard(&mut self) -> Result<(), LoadError> {
        self.hold = None;
        let Some(candidate) = self.candidate.take() else { return Ok(()) };
        let Some(error) = candidate.discard().await.err() else { return Ok(()) };
        tracing::warn!(%error, "a discarded candidate did not shut down cleanly");
        if matches!(error, HookError::Deadline { .. }) {
            let Origin { digest, manifest, .. } = self.origin()?.clone();
            let (version, code) = (manifest.version.clone(), "shutdown.deadline");
            let reason = "its shutdown hook never returned".to_owned();
            let stuck = true;
            return self.tell(PluginFact::LoadFailed { digest, version, code, reason, stuck });
        }
        Ok(())
    }

    /// Tells the plugin's actor that its code has failed; refusals before it ran do not count.
    pub(super) fn report(&mut self, error: &LoadError) {
        let counts = is_its_codes_fault(error)
            || matches!(error, LoadError::HandOver { error, .. } if error.is_takers_fault());
        let (Some(origin), Some((slot, _))) = (&self.origin, &self.claim) else { return };
        if !counts {
            return;
        }
        // In a process of its own it is ended, whatever it is doing.
        let stuck = error.is_stuck() && origin.tier == Tier::InProcess;
        if let Some(candidate) = self.candidate.take_if(|_| error.is_stuck()) {
            candidate.abandon();
        }
        slot.tell(PluginFact::LoadFailed {
            digest: origin.digest,
            version: origin.manifest.version.clone(),
            code: error.code(),
            reason: error.to_string(),
            stuck,
        });
    }

    pub(super) fn tell(&self, fact: PluginFact) -> Result<(), LoadError> {
        self.slot()?.tell(fact);
        Ok(())
    }

    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> PluginMsg,
    ) -> Result<T, LoadError> {
        Ok(self.slot()?.mailbox().ask(ASK_DEADLINE, request).await?)
    }

    /// Fills in what is known so far.
    pub(super) fn describe(&self, entry: &mut AuditEntry) {
        // Before admission the place is all that says what was asked for.
        if let Target::Files { load, replaces } = &self.target {
            (entry.plugin, entry.version) = named_by_place(&load.path).unzip();
            if let Replaces::Plugin(plugin) = replaces {
                entry.plugin = Some(plugin.clone());
            }
            entry.reason = Some(load.path.display().to_string());
        }
        if let Some(origin) = &self.origin {
            entry.plugin = Some(origin.manifest.name.clone());
            entry.version = Some(origin.manifest.version.clone());
            entry.digest = Some(origin.digest);
            entry.key_id = Some(origin.key_id);
            entry.tier = Some(origin.tier);
        }
        let candidate = self.candidate.as_ref().map(Candidate::generation);
        let installed = self.installed.as_ref().map(|(generation, _)| generation);
        entry.generation = candidate.or(installed).map(|generation| generation.id);
    }
}

async fn verify(
    environment: Arc<Environment>,
    load: LoadRequest,
) -> Result<AdmittedPlugin, LoadError> {
    let admitted: Result<Result<AdmittedPlugin, AdmitError>, WorkError> =
        work::run("admit", ADMIT_DEADLINE, move || {
            let settings = &environment.settings;
            let now = jiff::Timestamp::now();
            let (root, scratch) = (&settings.root, &settings.scratch);
            let admitted = admission::admit(root, &load, &settings.policy, now, scratch)?;
            environment.check_floor(&admitted.manifest.name, &admitted.manifest.version)?;
            Ok(admitted)
        })
        .await;
    match admitted {
        Ok(admitted) => admitted.map_err(LoadError::Refused),
        Err(WorkError::Deadline { limit }) => {
            Err(KernelFault::NoAnswer { role: "admission", limit }.into())
        }
        Err(WorkError::Spawn { .. } | WorkError::Panicked { .. }) => {
            Err(KernelFault::Stopped { role: "admission" }.into())
        }
    }
}

/// Makes the manifest's calls and compares the answers.
fn self_tests(instance: &dyn Instance, manifest: &Manifest) -> Result<(), ProbeError> {
    for (index, test) in manifest.self_test.iter().enumerate() {
        let failed =
            |what: String| Err(ProbeError::SelfTest { index, method: test.method.clone(), what });
        let Some(id) = manifest.method_id(&test.method) else {
            return failed("the method is not listed".to_owned());
        };
        let mut reply = Vec::new();
        let status = instance.call(id, &test.request, &mut ReplyBuffer::new(&mut reply));
        if status != CallStatus::Ok {
            return failed(format!("the call ended with {status:?}"));
        }
        if reply != test.reply {
            let (got, want) = (reply.len(), test.reply.len());
            return failed(format!(
                "the reply ({got} bytes) is not the expected one ({want} bytes)"
            ));
        }
    }
    Ok(())
}

/// Whether its code has failed; what the machine did to it, or somebody else, says nothing about it.
fn is_its_codes_fault(error: &LoadError) -> bool {
    if let LoadError::Sandbox { error: SandboxError::Ended(verdict), .. } = error {
        return verdict.is_its_own();
    }
    if let LoadError::Init { error: HookError::Ended { verdict }, .. } = error {
        return verdict.is_its_own();
    }
    matches!(
        error,
        LoadError::Map { .. }
            | LoadError::Init { .. }
            | LoadError::Probe { .. }
            | LoadError::Sandbox { error: SandboxError::Map(_), .. }
    )
}
