//! One plugin: owner of its generations, and the only writer of its published pointer.
//!
//! Which generation may do what is decided by [`machine`]; this shell maps numbers to generations, publishes,
//! runs shutdown hooks and tells the audit log.
//!
//! When it dies, what serves goes on serving: the pointer is in the slot, and the next incarnation finds it
//! there. The warm previous generation is lost as a rollback target, and stints that were draining are no
//! longer watched: their instances stay mapped and are never shut down.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use themis_messages::admit::AdmitError;
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::ids::{Digest, GenerationId, PluginVersion};
use themis_messages::instance::HookError;
use themis_messages::lifecycle::{
    KernelFault, Operation, ReloadReceipt, RollbackError, UnloadError,
};
use themis_messages::mailbox::{Admitted, Reply};

use crate::environment::Environment;
use crate::generation::Generation;
use crate::lease::Serving;
use crate::slot::{Slot, Standing};
use crate::telemetry;
use crate::work::{self, WorkError};

pub mod machine;

use machine::{Effect, Event, Machine, Refusal};

/// The right to change a plugin. It is given back when dropped, also by an operation that dies.
#[derive(Debug)]
pub struct Claim {
    operation: &'static str,
}

/// A claim, and what serves while it lasts.
#[derive(Debug)]
pub struct Claimed {
    /// The claim.
    pub claim: Arc<Claim>,
    /// What serves.
    pub current: Option<Arc<Generation>>,
}

/// Why a plugin cannot be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRefusal {
    /// Another operation has it.
    Busy {
        /// That operation.
        operation: &'static str,
    },
    /// This image misbehaved before.
    Quarantined {
        /// What it did.
        reason: String,
    },
}

/// A candidate that serves now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What served before.
    pub from: Option<PluginVersion>,
    /// How long the pointer store took.
    pub swap: Duration,
}

/// What one plugin's actor is told.
#[derive(Debug)]
pub enum PluginMsg {
    /// Asks for the right to change the plugin.
    Claim {
        /// "load" or "reload".
        operation: &'static str,
        /// The image that is to be loaded.
        digest: Digest,
        /// The right.
        reply: Reply<Result<Claimed, ClaimRefusal>>,
    },
    /// Makes a proven candidate serve.
    Install {
        /// The candidate.
        candidate: Arc<Generation>,
        /// What it replaced.
        reply: Reply<Installed>,
    },
    /// The last install is on record.
    Confirm,
    /// The last install could not be recorded: back to what was.
    Revert {
        /// Answered when that is done.
        reply: Reply<()>,
    },
    /// Back to the warm previous generation.
    Rollback {
        /// Who asked.
        actor: String,
        /// When.
        requested: Instant,
        /// What serves now.
        reply: Reply<Result<ReloadReceipt, RollbackError>>,
    },
    /// Stops serving, drains, shuts down.
    Unload {
        /// Who asked.
        actor: String,
        /// Answered when nothing is inside any more.
        reply: Reply<Result<(), UnloadError>>,
    },
    /// A hook of this image never returned.
    HookStuck {
        /// The image.
        digest: Digest,
        /// What it did.
        reason: String,
    },
    /// A call of this generation did not end while another waited for its turn.
    CallStuck {
        /// The generation.
        generation: GenerationId,
        /// How long the other waited.
        limit: Duration,
    },
    /// The last caller left a closed stint.
    Drained {
        /// Whose stint.
        generation: GenerationId,
    },
    /// A closed stint is still leased after the drain limit.
    DrainOverdue {
        /// Whose stint.
        generation: GenerationId,
    },
    /// A shutdown hook is over.
    ShutdownEnded {
        /// Whose.
        generation: GenerationId,
        /// How.
        outcome: Result<(), HookError>,
    },
}

/// Owner of one plugin's generations.
#[derive(Debug)]
pub struct PluginActor;

/// The one place where a plugin's generations are known.
#[derive(Debug)]
pub struct State {
    slot: &'static Slot,
    environment: Arc<Environment>,
    machine: Machine,
    generations: HashMap<GenerationId, Arc<Generation>>,
    claim: Weak<Claim>,
    /// Images that misbehaved.
    quarantined: BTreeMap<Digest, String>,
    /// Why nothing serves, when that is so.
    out_of_service: Option<String>,
    unloading: Vec<Reply<Result<(), UnloadError>>>,
}

impl Actor for PluginActor {
    type Msg = Admitted<PluginMsg>;
    type State = State;
    type Arguments = (&'static Slot, Arc<Environment>);

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        (slot, environment): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let found = slot.current().map(|serving| Arc::clone(&serving.generation));
        Ok(State {
            slot,
            environment,
            machine: Machine::found(found.as_ref().map(|generation| generation.id)),
            generations: found.into_iter().map(|generation| (generation.id, generation)).collect(),
            claim: Weak::new(),
            quarantined: BTreeMap::new(),
            out_of_service: None,
            unloading: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        admitted: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.handle(admitted.message);
        state.publish_standing();
        Ok(())
    }
}

impl State {
    fn handle(&mut self, message: PluginMsg) {
        match message {
            PluginMsg::Claim { operation, digest, reply } => {
                reply.send(self.claim(operation, digest));
            }
            PluginMsg::Install { candidate, reply } => reply.send(self.install(candidate)),
            PluginMsg::Confirm => {
                self.take_note(Event::Confirm);
            }
            PluginMsg::Revert { reply } => {
                self.take_note(Event::Revert);
                reply.send(());
            }
            PluginMsg::Rollback { actor, requested, reply } => {
                let outcome = self.rollback(requested);
                self.note_rollback(&actor, &outcome);
                reply.send(outcome);
            }
            PluginMsg::Unload { actor, reply } => self.unload(&actor, reply),
            PluginMsg::HookStuck { digest, reason } => self.quarantine(digest, reason),
            PluginMsg::CallStuck { generation, limit } => self.call_stuck(generation, limit),
            PluginMsg::Drained { generation } => {
                self.take_note(Event::Drained(generation));
            }
            PluginMsg::DrainOverdue { generation } => self.drain_overdue(generation),
            PluginMsg::ShutdownEnded { generation, outcome } => {
                self.shutdown_ended(generation, outcome);
            }
        }
    }

    fn claim(&mut self, operation: &'static str, digest: Digest) -> Result<Claimed, ClaimRefusal> {
        self.refuse_if_busy()?;
        if let Some(reason) = self.quarantined.get(&digest) {
            return Err(ClaimRefusal::Quarantined { reason: reason.clone() });
        }
        let claim = Arc::new(Claim { operation });
        self.claim = Arc::downgrade(&claim);
        Ok(Claimed { claim, current: self.current() })
    }

    fn refuse_if_busy(&self) -> Result<(), ClaimRefusal> {
        match self.claim.upgrade() {
            Some(claim) => Err(ClaimRefusal::Busy { operation: claim.operation }),
            None => Ok(()),
        }
    }

    fn busy(&self) -> Option<KernelFault> {
        let operation = self.claim.upgrade()?.operation;
        Some(KernelFault::Busy { plugin: self.slot.name().clone(), operation })
    }

    fn current(&self) -> Option<Arc<Generation>> {
        self.machine.current().and_then(|id| self.generations.get(&id)).map(Arc::clone)
    }

    fn install(&mut self, candidate: Arc<Generation>) -> Installed {
        let from = self.current().map(|generation| generation.version().clone());
        let id = candidate.id;
        self.generations.insert(id, candidate);
        self.out_of_service = None;
        let swap = self.apply(Event::Install(id)).unwrap_or_default();
        Installed { from, swap }
    }

    /// Swaps first and tells afterwards: neither the faulty version nor the disk can delay a rollback.
    fn rollback(&mut self, requested: Instant) -> Result<ReloadReceipt, RollbackError> {
        let plugin = self.slot.name().clone();
        if let Some(busy) = self.busy() {
            return Err(busy.into());
        }
        if let Some(target) = self.machine.previous().and_then(|id| self.generations.get(&id)) {
            let policy = &self.environment.settings.policy;
            still_allowed(policy, target).map_err(RollbackError::Refused)?;
        }
        let from = self.current().map(|generation| generation.version().clone());
        let swap = self.apply(Event::Rollback).map_err(|refusal| match refusal {
            Refusal::NoPrevious => RollbackError::NoPrevious { plugin: plugin.clone() },
            Refusal::NotServing => RollbackError::NotLoaded { plugin: plugin.clone() },
        })?;
        self.out_of_service = None;
        let now = self.current().ok_or(RollbackError::NotLoaded { plugin })?;
        Ok(receipt(Operation::Rollback, &now, from, swap, requested))
    }

    fn note_rollback(&self, actor: &str, outcome: &Result<ReloadReceipt, RollbackError>) {
        let result = if outcome.is_ok() { AuditOutcome::Done } else { AuditOutcome::Failed };
        let mut entry = self.entry(AuditEvent::Rollback, result, actor);
        match outcome {
            Ok(receipt) => {
                telemetry::count_operation("themis_rollbacks_total", "ok");
                describe(&mut entry, self.current().as_deref());
                entry.reason = receipt.from.as_ref().map(|from| format!("back from {from}"));
                tracing::info!(plugin = %receipt.plugin, to = %receipt.to, "rolled back");
            }
            Err(error) => {
                telemetry::count_operation("themis_rollbacks_total", "failed");
                entry.code = Some(error.code().to_owned());
                entry.reason = Some(error.to_string());
            }
        }
        self.environment.note(entry);
    }

    fn unload(&mut self, actor: &str, reply: Reply<Result<(), UnloadError>>) {
        if let Some(busy) = self.busy() {
            return reply.send(Err(busy.into()));
        }
        let leaving = self.current();
        if self.apply(Event::Unload).is_err() {
            let plugin = self.slot.name().clone();
            return reply.send(Err(UnloadError::NotLoaded { plugin }));
        }
        self.out_of_service = None;
        metrics::counter!("themis_unloads_total").increment(1);
        let mut entry = self.entry(AuditEvent::Unload, AuditOutcome::Done, actor);
        describe(&mut entry, leaving.as_deref());
        self.environment.note(entry);
        self.unloading.push(reply);
        self.answer_unloads();
    }

    /// An unload is answered once nothing of the plugin is left.
    fn answer_unloads(&mut self) {
        if self.machine.retiring() == 0 {
            for reply in self.unloading.drain(..) {
                reply.send(Ok(()));
            }
        }
    }

    fn quarantine(&mut self, digest: Digest, reason: String) {
        tracing::error!(plugin = %self.slot.name(), %digest, reason, "quarantined");
        metrics::counter!("themis_quarantines_total").increment(1);
        let mut entry = self.entry(AuditEvent::Quarantine, AuditOutcome::Done, "kernel");
        entry.digest = Some(digest);
        entry.reason = Some(reason.clone());
        self.environment.note(entry);
        if self.machine.current().is_none() {
            self.out_of_service = Some(reason.clone());
        }
        self.quarantined.insert(digest, reason);
    }

    fn call_stuck(&mut self, generation: GenerationId, limit: Duration) {
        let Some(digest) = self.generations.get(&generation).map(|it| it.digest) else { return };
        if self.quarantined.contains_key(&digest) {
            return;
        }
        let reason = format!("a call did not end while another waited {limit:?} for its turn");
        // Said before the pointer is taken away: whoever finds nothing serving is told why.
        if self.machine.current() == Some(generation) {
            self.out_of_service = Some(reason.clone());
            self.publish_standing();
        }
        self.take_note(Event::Stuck(generation));
        self.quarantine(digest, reason);
    }

    fn drain_overdue(&self, generation: GenerationId) {
        let limit = self.environment.settings.drain_limit;
        tracing::warn!(
            plugin = %self.slot.name(), %generation, ?limit,
            "a replaced generation is still leased; it stays until that lease ends"
        );
        let mut entry = self.entry(AuditEvent::Retire, AuditOutcome::Intent, "kernel");
        describe(&mut entry, self.generations.get(&generation).map(Arc::as_ref));
        entry.code = Some("drain.overdue".to_owned());
        entry.reason = Some(format!("still leased after {limit:?}"));
        self.environment.note(entry);
    }

    fn shutdown_ended(&mut self, generation: GenerationId, outcome: Result<(), HookError>) {
        let ended = self.generations.get(&generation).map(Arc::clone);
        let result = if outcome.is_ok() { AuditOutcome::Done } else { AuditOutcome::Failed };
        let mut entry = self.entry(AuditEvent::Retire, result, "kernel");
        describe(&mut entry, ended.as_deref());
        if let Err(error) = &outcome {
            entry.code = Some("shutdown.failed".to_owned());
            entry.reason = Some(error.to_string());
            tracing::warn!(plugin = %self.slot.name(), %generation, %error, "shutdown hook failed");
        }
        self.environment.note(entry);
        if let (Err(HookError::Deadline { .. }), Some(ended)) = (&outcome, &ended) {
            self.quarantine(ended.digest, "its shutdown hook never returned".to_owned());
        }
        self.take_note(Event::Ended(generation));
        self.answer_unloads();
    }

    /// Steps the machine and carries out what it asks for; answers how long a swap took.
    fn apply(&mut self, event: Event) -> Result<Duration, Refusal> {
        let mut swap = Duration::ZERO;
        for effect in self.machine.step(event)? {
            match effect {
                Effect::Publish(next) => swap = self.publish(next),
                Effect::Shutdown(generation) => self.shut_down(generation),
                Effect::Forget(generation) => {
                    self.generations.remove(&generation);
                }
            }
        }
        Ok(swap)
    }

    /// Applies what has happened already and so cannot be refused; a refusal is a fault of ours, worth a line.
    fn take_note(&mut self, event: Event) {
        if let Err(refusal) = self.apply(event) {
            tracing::error!(plugin = %self.slot.name(), ?event, ?refusal, "an event did not apply");
        }
    }

    fn publish(&mut self, next: Option<GenerationId>) -> Duration {
        let next = next.and_then(|id| self.generations.get(&id)).map(|generation| {
            Serving::new(Arc::clone(generation), telemetry::call_latency(generation))
        });
        let (replaced, swap) = self.slot.publish(next);
        if let Some(replaced) = replaced {
            let limit = self.environment.settings.drain_limit;
            tokio::spawn(watch_drain(replaced, self.slot, limit));
        }
        metrics::histogram!("themis_swap_latency_seconds").record(swap.as_secs_f64());
        swap
    }

    /// Runs the shutdown hook on a thread of its own; the actor goes on.
    fn shut_down(&self, id: GenerationId) {
        let Some(generation) = self.generations.get(&id).map(Arc::clone) else { return };
        let limit = self.environment.settings.hook_deadline;
        let slot = self.slot;
        tokio::spawn(async move {
            let outcome = shutdown_hook(generation, limit).await;
            tell(slot, PluginMsg::ShutdownEnded { generation: id, outcome });
        });
    }

    fn entry(&self, event: AuditEvent, outcome: AuditOutcome, actor: &str) -> AuditEntry {
        let mut entry = AuditEntry::new(event, outcome, actor);
        entry.plugin = Some(self.slot.name().clone());
        entry
    }

    fn publish_standing(&self) {
        let previous = self.machine.previous().and_then(|id| self.generations.get(&id));
        self.slot.set_standing(Standing {
            previous: previous.map(|generation| generation.version().clone()),
            draining: self.machine.draining(),
            quarantine: self.out_of_service.clone(),
        });
    }
}

/// Runs a shutdown hook with its deadline.
pub(crate) async fn shutdown_hook(
    generation: Arc<Generation>,
    limit: Duration,
) -> Result<(), HookError> {
    let name = format!("hook-{}", generation.name());
    match work::run(&name, limit, move || generation.instance.shutdown()).await {
        Ok(outcome) => outcome,
        Err(error) => Err(hook_error(error)),
    }
}

/// A hook's thread that gave no result.
pub(crate) fn hook_error(error: WorkError) -> HookError {
    match error {
        WorkError::Deadline { limit } => HookError::Deadline { limit },
        WorkError::Spawn { .. } | WorkError::Panicked { .. } => {
            HookError::Thread { what: error.to_string() }
        }
    }
}

/// Fills in what is known of a generation.
fn describe(entry: &mut AuditEntry, generation: Option<&Generation>) {
    let Some(generation) = generation else { return };
    entry.version = Some(generation.version().clone());
    entry.digest = Some(generation.digest);
    entry.key_id = Some(generation.key_id);
    entry.tier = Some(generation.tier);
    entry.generation = Some(generation.id);
}

/// Neither key, file nor manifest was revoked, and the name is still allowed; expiry does not matter here.
fn still_allowed(
    policy: &themis_sandbox::admission::Policy,
    generation: &Generation,
) -> Result<(), AdmitError> {
    let digests = [Some(generation.digest), generation.manifest_digest];
    policy.check_still_allowed(
        &generation.path,
        generation.name(),
        generation.key_id,
        digests.into_iter().flatten(),
    )
}

/// Waits for the last caller of a closed stint, and reports when that takes long.
async fn watch_drain(serving: Arc<Serving>, slot: &'static Slot, limit: Duration) {
    let generation = serving.generation.id;
    if tokio::time::timeout(limit, serving.drained()).await.is_err() {
        tell(slot, PluginMsg::DrainOverdue { generation });
        serving.drained().await;
    }
    telemetry::count_stint(&serving);
    slot.add_ended_calls(serving.calls());
    tell(slot, PluginMsg::Drained { generation });
}

/// A fact for the plugin's actor: it is never refused for want of room.
fn tell(slot: &'static Slot, fact: PluginMsg) {
    if let Err(fault) = slot.mailbox().tell(fact) {
        tracing::debug!(plugin = %slot.name(), %fault, "a fact found nobody");
    }
}

/// What proves that `generation` serves.
pub(crate) fn receipt(
    operation: Operation,
    generation: &Generation,
    from: Option<PluginVersion>,
    swap: Duration,
    requested: Instant,
) -> ReloadReceipt {
    let evidence = generation.instance.evidence();
    ReloadReceipt {
        operation,
        plugin: generation.name().clone(),
        from,
        to: generation.version().clone(),
        generation: generation.id,
        tier: generation.tier,
        digest: generation.digest,
        build_id: evidence.build_id.clone(),
        image_reused: evidence.reused,
        total: requested.elapsed(),
        swap,
        audit_seq: None,
    }
}
