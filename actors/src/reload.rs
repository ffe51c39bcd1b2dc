//! One load or reload under way, from the request to its answer.
//!
//! The order and the ways out are [`machine`]'s; this shell carries out one effect after the other and keeps what
//! they bring. It is a temporary actor: killed or dead, it gives its claim back, nothing it had not swapped was
//! ever visible, and whoever asked is told that it stopped.

use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::ids::{PluginName, named_by_place};
use themis_messages::instance::{CallStatus, HookError, Instance, ReplyBuffer};
use themis_messages::lifecycle::{
    KernelFault, LoadError, LoadRequest, MapError, Operation, ProbeError, ReloadReceipt,
};
use themis_messages::limits::{ADMIT_DEADLINE, ASK_DEADLINE, MAP_DEADLINE, PROBE_DEADLINE};
use themis_messages::mailbox::Reply;
use themis_messages::manifest::Manifest;
use themis_sandbox::admission::{self, AdmittedPlugin};
use themis_sandbox::native::{self, Image};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;

use crate::catalog::CatalogMsg;
use crate::environment::Environment;
use crate::generation::Generation;
use crate::plugin::{
    Claim, ClaimRefusal, Installed, PluginMsg, hook_error, receipt, shutdown_hook,
};
use crate::slot::Slot;
use crate::telemetry;
use crate::work::{self, WorkError};

pub(crate) mod dependencies;
pub mod host;
pub mod machine;

use machine::{Effect, Event, Machine};

/// A load or a reload, and who waits for it.
#[derive(Debug)]
pub struct Request {
    /// The plugin to replace; `None` loads a first version.
    pub replaces: Option<PluginName>,
    /// What to load.
    pub load: LoadRequest,
    /// Who asked.
    pub actor: String,
    /// When.
    pub requested: Instant,
    /// The answer.
    pub reply: Reply<Result<ReloadReceipt, LoadError>>,
}

/// Carries out one request.
#[derive(Debug)]
pub struct Reload;

/// Asked once: ends with the answer.
#[derive(Debug)]
pub struct Run {
    pub(crate) request: Request,
    /// The request's place in the coordinator's queue, given back at the end.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

impl Actor for Reload {
    type Msg = Run;
    type State = Arc<Environment>;
    type Arguments = Arc<Environment>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Run>,
        environment: Arc<Environment>,
    ) -> Result<Arc<Environment>, ActorProcessingErr> {
        Ok(environment)
    }

    async fn handle(
        &self,
        myself: ActorRef<Run>,
        run_once: Run,
        environment: &mut Arc<Environment>,
    ) -> Result<(), ActorProcessingErr> {
        let request = run_once.request;
        let operation = if request.replaces.is_some() { "reload" } else { "load" };
        let path = request.load.path.display();
        let span = tracing::info_span!("plugin", operation, %path);
        run(Arc::clone(environment), request).instrument(span).await;
        myself.stop(None);
        Ok(())
    }
}

/// Steps the machine until it replies.
async fn run(environment: Arc<Environment>, request: Request) {
    let Request { replaces, load, actor, requested, reply } = request;
    let mut progress = Progress::new(environment, replaces, load, actor, requested);
    let (mut machine, mut effect) = Machine::start();
    while effect != Effect::Reply {
        let event = match progress.carry_out(effect).await {
            Ok(()) => Event::Done,
            Err(error) => {
                let event = if error.is_stuck() { Event::Stuck } else { Event::Failed };
                // The first failure is the one to report; later ones are of the cleaning up.
                progress.error.get_or_insert(error);
                event
            }
        };
        let Some((after, wanted)) = machine.step(event) else { break };
        (machine, effect) = (after, wanted);
    }
    let outcome = progress.outcome();
    progress.count(&outcome);
    reply.send(outcome);
}

/// What the effects have brought so far.
struct Progress {
    environment: Arc<Environment>,
    replaces: Option<PluginName>,
    load: LoadRequest,
    actor: String,
    requested: Instant,
    admitted: Option<Arc<AdmittedPlugin>>,
    /// Held until the answer: nobody else may change the plugin meanwhile.
    claim: Option<(&'static Slot, Arc<Claim>)>,
    image: Option<Arc<Image>>,
    candidate: Option<Arc<Generation>>,
    installed: Option<Installed>,
    audit_seq: Option<u64>,
    error: Option<LoadError>,
}

/// A step that needs what an earlier one did not bring: the machine's order rules it out.
fn out_of_order() -> LoadError {
    KernelFault::Stopped { role: "reload" }.into()
}

impl Progress {
    fn new(
        environment: Arc<Environment>,
        replaces: Option<PluginName>,
        load: LoadRequest,
        actor: String,
        requested: Instant,
    ) -> Self {
        Self {
            environment,
            replaces,
            load,
            actor,
            requested,
            admitted: None,
            claim: None,
            image: None,
            candidate: None,
            installed: None,
            audit_seq: None,
            error: None,
        }
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), LoadError> {
        tracing::debug!(?effect, path = %self.load.path.display(), "reload");
        match effect {
            Effect::Admit => self.admit().await,
            Effect::Claim => self.take_claim().await,
            Effect::RecordIntent => self.record(AuditOutcome::Intent).await.map(drop),
            Effect::Map => self.map().await,
            Effect::Initialise => self.initialise().await,
            Effect::Probe => self.probe().await,
            Effect::Swap => self.swap().await,
            Effect::RecordOutcome => {
                self.audit_seq = Some(self.record(AuditOutcome::Done).await?);
                Ok(())
            }
            Effect::Confirm => self.tell(PluginMsg::Confirm),
            Effect::Revert => self.ask(|reply| PluginMsg::Revert { reply }).await,
            Effect::Discard => self.discard().await,
            Effect::Quarantine => self.quarantine(),
            Effect::RecordFailure => {
                let refused = matches!(self.error, Some(LoadError::Refused(_)));
                let outcome = if refused { AuditOutcome::Refused } else { AuditOutcome::Failed };
                self.record(outcome).await.map(drop)
            }
            Effect::Reply => Ok(()),
        }
    }

    async fn admit(&mut self) -> Result<(), LoadError> {
        // New threads register thread-local destructors under the lock that the stuck constructor holds: nothing
        // below would end.
        if let Some(by) = native::loader_stuck() {
            return Err(LoadError::LoaderStuck { by });
        }
        let environment = Arc::clone(&self.environment);
        let load = self.load.clone();
        let admitted = work::run("admit", ADMIT_DEADLINE, move || {
            let settings = &environment.settings;
            let now = jiff::Timestamp::now();
            admission::admit(&settings.root, &load, &settings.policy, now, &settings.scratch)
        });
        let admitted = match admitted.await {
            Ok(admitted) => admitted.map_err(LoadError::Refused)?,
            Err(WorkError::Deadline { limit }) => {
                return Err(KernelFault::NoAnswer { role: "admission", limit }.into());
            }
            Err(WorkError::Spawn { .. } | WorkError::Panicked { .. }) => {
                return Err(KernelFault::Stopped { role: "admission" }.into());
            }
        };
        let found = &admitted.manifest.name;
        if let Some(plugin) = self.replaces.as_ref().filter(|plugin| *plugin != found) {
            let (plugin, found) = (plugin.clone(), found.clone());
            return Err(LoadError::OtherPlugin { plugin, found, path: self.load.path.clone() });
        }
        self.admitted = Some(Arc::new(admitted));
        Ok(())
    }

    async fn take_claim(&mut self) -> Result<(), LoadError> {
        let admitted = self.admitted.clone().ok_or_else(out_of_order)?;
        let manifest = &admitted.manifest;
        let plugin = manifest.name.clone();
        let catalog = &self.environment.roles.catalog;
        let slot = catalog
            .ask(ASK_DEADLINE, |reply| CatalogMsg::Ensure { name: plugin.clone(), reply })
            .await??;
        let digest = admitted.image.digest();
        let operation = if self.replaces.is_some() { "reload" } else { "load" };
        let claimed = slot
            .mailbox()
            .ask(ASK_DEADLINE, |reply| PluginMsg::Claim { operation, digest, reply })
            .await?;
        let claimed = claimed.map_err(|refusal| match refusal {
            ClaimRefusal::Busy { operation } => {
                KernelFault::Busy { plugin: plugin.clone(), operation }.into()
            }
            ClaimRefusal::Quarantined { reason } => {
                let (plugin, version) = (plugin.clone(), manifest.version.clone());
                LoadError::Quarantined { plugin, version, reason }
            }
        })?;
        self.claim = Some((slot, claimed.claim));
        match (&claimed.current, &self.replaces) {
            (Some(current), None) => {
                let version = current.version().clone();
                return Err(LoadError::AlreadyLoaded { plugin, version });
            }
            (None, Some(_)) => return Err(LoadError::NotLoaded { plugin }),
            (Some(_), Some(_)) | (None, None) => {}
        }
        dependencies::check(&self.environment.directory, manifest)
    }

    async fn map(&mut self) -> Result<(), LoadError> {
        let admitted = self.admitted.clone().ok_or_else(out_of_order)?;
        let plugin = admitted.manifest.name.clone();
        let name = format!("map-{plugin}");
        let mapped = work::run(&name, MAP_DEADLINE, move || native::map(&admitted)).await;
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(WorkError::Deadline { limit }) => Err(MapError::Deadline { limit }),
            Err(error @ (WorkError::Spawn { .. } | WorkError::Panicked { .. })) => {
                Err(MapError::Thread { what: error.to_string() })
            }
        };
        self.image = Some(mapped.map_err(|error| LoadError::Map { plugin, error })?);
        Ok(())
    }

    async fn initialise(&mut self) -> Result<(), LoadError> {
        let admitted = self.admitted.clone().ok_or_else(out_of_order)?;
        let image = self.image.clone().ok_or_else(out_of_order)?;
        let manifest = &admitted.manifest;
        let services = host::services(&admitted);
        let config = host::config(manifest, &self.environment.settings);
        let limit = self.environment.settings.hook_deadline;
        let name = format!("hook-{}", manifest.name);
        let ready = work::run(&name, limit, move || image.init(services, config.as_bytes())).await;
        let instance = ready.map_err(hook_error).and_then(|ready| ready).map_err(|error| {
            let (plugin, version) = (manifest.name.clone(), manifest.version.clone());
            LoadError::Init { plugin, version, error }
        })?;
        self.candidate = Some(Arc::new(Generation {
            id: self.environment.next_generation(),
            manifest: Arc::new(manifest.clone()),
            tier: admitted.tier,
            digest: admitted.image.digest(),
            manifest_digest: admitted.manifest_digest,
            key_id: admitted.key_id,
            path: admitted.path.clone(),
            instance,
            _counted: telemetry::Counted::start(),
        }));
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), LoadError> {
        let candidate = self.candidate.clone().ok_or_else(out_of_order)?;
        let (plugin, version) = (candidate.name().clone(), candidate.version().clone());
        let failed =
            |error| LoadError::Probe { plugin: plugin.clone(), version: version.clone(), error };
        let limit = self.environment.settings.hook_deadline;
        let instance = Arc::clone(&candidate.instance);
        let name = format!("hook-{plugin}");
        let health = work::run(&name, limit, move || instance.health()).await;
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

    async fn swap(&mut self) -> Result<(), LoadError> {
        let candidate = self.candidate.clone().ok_or_else(out_of_order)?;
        self.installed = Some(self.ask(|reply| PluginMsg::Install { candidate, reply }).await?);
        Ok(())
    }

    async fn discard(&mut self) -> Result<(), LoadError> {
        let candidate = self.candidate.take().ok_or_else(out_of_order)?;
        let limit = self.environment.settings.hook_deadline;
        let digest = candidate.digest;
        if let Err(error) = shutdown_hook(candidate, limit).await {
            tracing::warn!(%error, "a discarded candidate did not shut down cleanly");
            if matches!(error, HookError::Deadline { .. }) {
                let reason = "its shutdown hook never returned".to_owned();
                return self.tell(PluginMsg::HookStuck { digest, reason });
            }
        }
        Ok(())
    }

    fn quarantine(&mut self) -> Result<(), LoadError> {
        let admitted = self.admitted.clone().ok_or_else(out_of_order)?;
        let reason = self.error.as_ref().map(ToString::to_string).unwrap_or_default();
        self.tell(PluginMsg::HookStuck { digest: admitted.image.digest(), reason })
    }

    fn tell(&self, fact: PluginMsg) -> Result<(), LoadError> {
        let (slot, _claim) = self.claim.as_ref().ok_or_else(out_of_order)?;
        Ok(slot.mailbox().tell(fact)?)
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> PluginMsg) -> Result<T, LoadError> {
        let (slot, _claim) = self.claim.as_ref().ok_or_else(out_of_order)?;
        Ok(slot.mailbox().ask(ASK_DEADLINE, request).await?)
    }

    async fn record(&self, outcome: AuditOutcome) -> Result<u64, LoadError> {
        let event = if self.replaces.is_some() { AuditEvent::Reload } else { AuditEvent::Load };
        let mut entry = AuditEntry::new(event, outcome, self.actor.as_str());
        // Before admission the place is all that says what was asked for.
        (entry.plugin, entry.version) = named_by_place(&self.load.path).unzip();
        if let Some(plugin) = &self.replaces {
            entry.plugin = Some(plugin.clone());
        }
        if let Some(admitted) = &self.admitted {
            entry.plugin = Some(admitted.manifest.name.clone());
            entry.version = Some(admitted.manifest.version.clone());
            entry.digest = Some(admitted.image.digest());
            entry.key_id = Some(admitted.key_id);
            entry.tier = Some(admitted.tier);
        }
        entry.generation = self.candidate.as_ref().map(|candidate| candidate.id);
        match &self.error {
            Some(error) => {
                entry.code = Some(error.code().to_owned());
                entry.reason = Some(error.to_string());
            }
            None => entry.reason = Some(self.load.path.display().to_string()),
        }
        Ok(self.environment.record(entry).await?)
    }

    fn outcome(&mut self) -> Result<ReloadReceipt, LoadError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let candidate = self.candidate.as_ref().ok_or_else(out_of_order)?;
        let installed = self.installed.take().ok_or_else(out_of_order)?;
        let operation = if self.replaces.is_some() { Operation::Reload } else { Operation::Load };
        let Installed { from, swap } = installed;
        let mut receipt = receipt(operation, candidate, from, swap, self.requested);
        receipt.audit_seq = self.audit_seq;
        Ok(receipt)
    }

    fn count(&self, outcome: &Result<ReloadReceipt, LoadError>) {
        let total = match self.replaces {
            Some(_) => "themis_reloads_total",
            None => "themis_loads_total",
        };
        match outcome {
            Ok(receipt) => {
                telemetry::count_operation(total, "ok");
                metrics::histogram!("themis_load_latency_seconds")
                    .record(receipt.total.as_secs_f64());
                tracing::info!(plugin = %receipt.plugin, version = %receipt.to, "serves");
            }
            Err(error @ LoadError::Refused(_)) => {
                telemetry::count_operation(total, "refused");
                metrics::counter!("themis_refusals_total", "reason" => error.code()).increment(1);
                tracing::warn!(code = error.code(), %error, "refused");
            }
            Err(error) => {
                telemetry::count_operation(total, "failed");
                tracing::warn!(code = error.code(), %error, "failed");
            }
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
