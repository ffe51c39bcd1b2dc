//! One plugin: owner of its generations, and the only writer of its published pointer.
//!
//! ```text
//! PluginMsg ──▶ this shell ──Event──▶ machine ──Effect──▶ publish, shut down, forget
//!                   │                    (which generation may do what)
//!                   └── ledger, published after every message
//! ```
//!
//! When it dies, what serves goes on serving: the pointer is in the slot. The next incarnation goes on from the
//! ledger that was published last, and from the pointer where the two differ. Lost are only the replies of
//! unloads under way; their askers are told that the actor stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{ActorCell, ActorProcessingErr};
use themis_messages::admit::AdmitError;
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::event::LifecycleEvent;
use themis_messages::ids::{Digest, GenerationId, PluginVersion};
use themis_messages::instance::HookError;
use themis_messages::lifecycle::{
    KernelFault, Operation, ReloadReceipt, StateOutcome, UnloadError,
};
use themis_messages::mailbox::{Admitted, Reply};

use crate::ab::manager::ExperimentsMsg;
use crate::environment::Environment;
use crate::generation::Generation;
use crate::lease::Serving;
use crate::reload::candidate::Candidate;
use crate::role::Role;
use crate::slot::Slot;
use crate::telemetry;
use crate::work::{self, WorkError};

pub mod failures;
pub mod ledger;
pub mod machine;
pub mod messages;

mod illness;
mod rollback;
mod trial;

pub use ledger::{Claim, Ledger, Set};
pub use messages::{
    ClaimRefusal, Claimed, Installation, Installed, PluginFact, PluginMsg, RollbackRequest,
};

use ledger::Trial;
use machine::{Effect, Event, Refusal};

/// Owner of one plugin's generations.
#[derive(Debug)]
pub struct PluginActor {
    slot: &'static Slot,
    environment: Arc<Environment>,
    ledger: Ledger,
    unloading: Vec<Reply<Result<(), UnloadError>>>,
}

impl Role for PluginActor {
    type Msg = PluginMsg;
    type Seed = (&'static Slot, Arc<Environment>);

    fn start((slot, environment): Self::Seed) -> Self {
        let mut ledger = Ledger::clone(&slot.ledger());
        let published = slot.current().map(|serving| Arc::clone(&serving.generation));
        ledger.machine.reconcile(published.as_ref().map(|generation| generation.id));
        ledger.generations.extend(published.map(|generation| (generation.id, generation)));
        Self { slot, environment, ledger, unloading: Vec::new() }
    }

    /// Nothing is awaited: no kill can come between a change and its publication.
    async fn handle(
        &mut self,
        _me: &ActorCell,
        admitted: Admitted<PluginMsg>,
    ) -> Result<(), ActorProcessingErr> {
        self.answer(admitted.message);
        self.publish_ledger();
        Ok(())
    }
}

impl PluginActor {
    fn answer(&mut self, message: PluginMsg) {
        match message {
            PluginMsg::Claim { operation, digest, reply } => {
                reply.send(self.claim(operation, digest));
            }
            PluginMsg::Install { installation, reply } => reply.send(self.install(installation)),
            PluginMsg::Join { candidate, reply } => {
                self.join(candidate);
                reply.send(());
            }
            PluginMsg::Leave { generation, reply } => {
                if let Err(refusal) = self.apply(Event::Leave(generation)) {
                    tracing::debug!(%generation, ?refusal, "it has left by itself");
                }
                reply.send(());
            }
            PluginMsg::Confirm { receipt, reply } => reply.send(self.confirm(*receipt)),
            PluginMsg::Revert { generation, reply } => {
                self.ledger.trial = None;
                self.take_note(Event::Revert(generation));
                reply.send(());
            }
            PluginMsg::Rollback(request) => self.rollback(request),
            PluginMsg::Unload { actor, reply } => self.unload(&actor, reply),
            PluginMsg::Release { digest, actor, reply } => {
                reply.send(self.release(digest, &actor));
            }
            PluginMsg::Fact(fact) => self.hear(fact),
        }
    }

    fn hear(&mut self, fact: PluginFact) {
        match fact {
            PluginFact::Mapped { digest, bytes } => {
                self.ledger.images.insert(digest, bytes);
            }
            PluginFact::LoadFailed { digest, version, code, reason, stuck } => {
                self.load_failed(digest, version, code, reason, stuck);
            }
            PluginFact::RollbackReady { request, hold, state } => {
                self.roll_back(request, hold, state);
            }
            PluginFact::Judged { generation, evidence } => self.judged(generation, evidence),
            PluginFact::Health { generation, outcome } => self.heard_of_health(generation, outcome),
            PluginFact::Ended { generation, verdict } => self.ended(generation, &verdict),
            PluginFact::RestartDue { generation } => self.restart_due(generation),
            PluginFact::FirstCall { generation } => self.first_call(generation),
            PluginFact::CallStuck { generation, limit } => self.call_stuck(generation, limit),
            PluginFact::Drained { generation } => self.drained(generation),
            PluginFact::DrainOverdue { generation } => self.drain_overdue(generation),
            PluginFact::ShutdownEnded { generation, outcome } => {
                self.shutdown_ended(generation, outcome);
            }
            PluginFact::ClaimDropped => {
                self.undo_abandoned();
                self.look_after_the_dead();
            }
        }
    }

    fn claim(
        &mut self,
        operation: Operation,
        digest: Option<Digest>,
    ) -> Result<Claimed, ClaimRefusal> {
        self.undo_abandoned();
        if let Some(claim) = self.ledger.claim.upgrade() {
            return Err(ClaimRefusal::Busy { operation: claim.operation });
        }
        if let Some(quarantine) = digest.and_then(|digest| self.ledger.quarantined.get(&digest)) {
            return Err(ClaimRefusal::Quarantined { reason: quarantine.reason.clone() });
        }
        let (current, previous) =
            (self.ledger.current().map(Arc::clone), self.ledger.previous().map(Arc::clone));
        Ok(Claimed { claim: self.new_claim(operation), current, previous })
    }

    fn new_claim(&mut self, operation: Operation) -> Arc<Claim> {
        let claim = Arc::new(Claim { operation, slot: self.slot });
        self.ledger.claim = Arc::downgrade(&claim);
        claim
    }

    fn busy(&self) -> Option<KernelFault> {
        let operation = self.ledger.claim.upgrade()?.operation.as_str();
        Some(KernelFault::Busy { plugin: self.slot.name().clone(), operation })
    }

    /// Gives the candidate back, and nothing has changed, when callers that were to be held are not any more.
    fn install(&mut self, installation: Installation) -> Result<Installed, Candidate> {
        let Installation { candidate, hold, set, probation } = installation;
        if hold.is_some_and(|hold| !hold.close()) {
            return Err(candidate);
        }
        let candidate = candidate.into_generation();
        let before = self.slot.current();
        let from = self.ledger.current().map(|generation| generation.version().clone());
        let watched = probation && from.is_some();
        let rules = &self.environment.settings.probation;
        let window = if watched { rules.window } else { Duration::ZERO };
        let id = candidate.id;
        self.ledger.failures.loaded(candidate.digest);
        self.ledger.generations.insert(id, candidate);
        (self.ledger.out_of_service, self.ledger.unwell) = (None, None);
        let swap = self.apply(Event::Install(id)).unwrap_or_default();
        self.watch_end(id);
        self.ledger.trial = Some(Trial { generation: id, confirmed: false, window, before, set });
        Ok(Installed { from, swap, probation: (!window.is_zero()).then_some(window) })
    }

    fn join(&mut self, candidate: Candidate) {
        let candidate = candidate.into_generation();
        let id = candidate.id;
        self.ledger.failures.loaded(candidate.digest);
        self.ledger.generations.insert(id, candidate);
        self.take_note(Event::Join(id));
        self.watch_end(id);
    }

    fn confirm(&mut self, mut receipt: ReloadReceipt) -> ReloadReceipt {
        let serving = self.slot.current().filter(|it| it.generation.id == receipt.generation);
        receipt.first_call = serving.as_ref().and_then(|it| it.first_call().cloned());
        self.ledger.receipt = Some(receipt.clone());
        if receipt.operation == Operation::Restart {
            self.ledger.restarts = self.restarts();
        }
        self.environment.events.serves(&receipt);
        match (&mut self.ledger.trial, serving) {
            (Some(trial), Some(serving)) if trial.generation == receipt.generation => {
                trial.confirmed = true;
                self.begin_trial(serving);
            }
            // Overtaken: it was swapped back, or a call in it got stuck.
            (Some(_) | None, Some(_) | None) => {}
        }
        receipt
    }

    /// The operation that installed what serves died before it was on record: as if it had failed.
    fn undo_abandoned(&mut self) {
        if self.ledger.claim.strong_count() > 0 {
            return;
        }
        let Some(trial) = self.ledger.trial.take_if(|trial| !trial.confirmed) else { return };
        let mut entry = self.entry(AuditEvent::Reload, AuditOutcome::Failed, "kernel");
        describe(&mut entry, self.ledger.generations.get(&trial.generation).map(Arc::as_ref));
        entry.code = Some("reload.abandoned".to_owned());
        entry.reason = Some("the operation died before it was on record: undone".to_owned());
        tracing::error!(plugin = %self.slot.name(), "a reload died before it was on record: undone");
        self.environment.note(entry);
        self.take_note(Event::Revert(trial.generation));
    }

    fn unload(&mut self, actor: &str, reply: Reply<Result<(), UnloadError>>) {
        self.undo_abandoned();
        if let Some(busy) = self.busy() {
            return reply.send(Err(busy.into()));
        }
        let plugin = self.slot.name().clone();
        let leaving = self.ledger.current().map(Arc::clone);
        if self.apply(Event::Unload).is_err() {
            return reply.send(Err(UnloadError::NotLoaded { plugin }));
        }
        self.ledger.trial = None;
        (self.ledger.out_of_service, self.ledger.unwell) = (None, None);
        metrics::counter!("themis_unloads_total").increment(1);
        let mut entry = self.entry(AuditEvent::Unload, AuditOutcome::Done, actor);
        describe(&mut entry, leaving.as_deref());
        self.environment.note(entry);
        self.environment.events.emit(LifecycleEvent::Unloaded { plugin });
        self.unloading.push(reply);
        self.answer_unloads();
    }

    /// An unload is answered once nothing of the plugin is left.
    fn answer_unloads(&mut self) {
        if self.ledger.machine.retiring() == 0 {
            for reply in self.unloading.drain(..) {
                reply.send(Ok(()));
            }
        }
    }

    fn first_call(&mut self, generation: GenerationId) {
        let Some(serving) = self.slot.current().filter(|it| it.generation.id == generation) else {
            return;
        };
        let Some(first) = serving.first_call().cloned() else { return };
        let mut entry = self.entry(AuditEvent::FirstCall, AuditOutcome::Done, "kernel");
        describe(&mut entry, Some(&serving.generation));
        let answered = if first.ok { "answered" } else { "ended in an error" };
        entry.reason =
            Some(format!("method {} {answered}, {:.1?} after the swap", first.method, first.after));
        self.environment.note(entry);
        tracing::info!(plugin = %self.slot.name(), version = %first.version, after = ?first.after, "first call");
        if let Some(receipt) = self.ledger.receipt.as_mut().filter(|it| it.generation == generation)
        {
            receipt.first_call = Some(first.clone());
        }
        let plugin = self.slot.name().clone();
        self.environment.events.emit(LifecycleEvent::FirstCall { plugin, first });
    }

    fn drained(&mut self, generation: GenerationId) {
        let is_it = |it: &Arc<Serving>| it.generation.id == generation && it.in_flight() == 0;
        if let Some(index) = self.ledger.closed.iter().position(is_it) {
            let stint = self.ledger.closed.swap_remove(index);
            telemetry::count_stint(&stint);
            self.ledger.ended_calls += stint.calls();
        }
        self.take_note(Event::Drained(generation));
    }

    fn drain_overdue(&self, generation: GenerationId) {
        let limit = self.environment.settings.drain_limit;
        tracing::warn!(
            plugin = %self.slot.name(), %generation, ?limit,
            "a replaced generation is still leased; it stays until that lease ends"
        );
        let mut entry = self.entry(AuditEvent::Retire, AuditOutcome::Intent, "kernel");
        describe(&mut entry, self.ledger.generations.get(&generation).map(Arc::as_ref));
        entry.code = Some("drain.overdue".to_owned());
        entry.reason = Some(format!("still leased after {limit:?}"));
        self.environment.note(entry);
    }

    fn shutdown_ended(&mut self, generation: GenerationId, outcome: Result<(), HookError>) {
        let ended = self.ledger.generations.get(&generation).map(Arc::clone);
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
            let reason = "its shutdown hook never returned".to_owned();
            self.quarantine(ended.digest, ended.version().clone(), "shutdown.deadline", reason);
        }
        self.take_note(Event::Ended(generation));
        let plugin = self.slot.name().clone();
        self.environment.events.emit(LifecycleEvent::Retired { plugin, generation });
        self.answer_unloads();
    }

    /// Steps the machine and carries out what it asks for; answers how long a swap took.
    fn apply(&mut self, event: Event) -> Result<Duration, Refusal> {
        let mut swap = Duration::ZERO;
        for effect in self.ledger.machine.step(event)? {
            match effect {
                Effect::Publish(next) => swap = self.publish(next),
                Effect::Open(generation) => self.open(generation),
                Effect::Close(generation) => self.close(generation),
                Effect::Shutdown(generation) => self.shut_down(generation),
                Effect::Forget(generation) => {
                    if let Some(forgotten) = self.ledger.generations.remove(&generation) {
                        telemetry::count_usage(&forgotten);
                    }
                    self.ledger.ended.remove(&generation);
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
        let next = next.and_then(|id| self.ledger.generations.get(&id)).map(|generation| {
            Serving::new(Arc::clone(generation), telemetry::call_latency(generation))
        });
        let (replaced, swap) = self.slot.publish(next);
        if let Some(replaced) = replaced {
            self.ledger.closed.push(Arc::clone(&replaced));
            let limit = self.environment.settings.drain_limit;
            tokio::spawn(watch_drain(replaced, self.slot, limit));
        }
        metrics::histogram!("themis_swap_latency_seconds").record(swap.as_secs_f64());
        swap
    }

    fn open(&self, id: GenerationId) {
        let Some(generation) = self.ledger.generations.get(&id) else { return };
        let latency = telemetry::call_latency(generation);
        self.slot.open_arm(Serving::new(Arc::clone(generation), latency));
    }

    fn close(&mut self, id: GenerationId) {
        let Some(arm) = self.slot.close_arm(id) else { return };
        self.ledger.closed.push(Arc::clone(&arm));
        let limit = self.environment.settings.drain_limit;
        tokio::spawn(watch_drain(arm, self.slot, limit));
        let plugin = self.slot.name().clone();
        let left = ExperimentsMsg::ArmLeft { plugin, generation: id };
        self.environment.roles.experiments.tell(left);
    }

    /// Runs the shutdown hook on a thread of its own; the actor goes on.
    fn shut_down(&self, id: GenerationId) {
        let Some(generation) = self.ledger.generations.get(&id).map(Arc::clone) else { return };
        let limit = self.environment.settings.hook_deadline;
        let slot = self.slot;
        tokio::spawn(async move {
            let outcome = shutdown_hook(generation, limit).await;
            slot.tell(PluginFact::ShutdownEnded { generation: id, outcome });
        });
    }

    fn entry(&self, event: AuditEvent, outcome: AuditOutcome, actor: &str) -> AuditEntry {
        let mut entry = AuditEntry::new(event, outcome, actor);
        entry.plugin = Some(self.slot.name().clone());
        entry
    }

    fn publish_ledger(&self) {
        self.slot.set_ledger(self.ledger.clone());
    }
}

/// Runs a shutdown hook with its deadline.
pub(crate) async fn shutdown_hook(
    generation: Arc<Generation>,
    limit: Duration,
) -> Result<(), HookError> {
    let name = format!("hook-{}", generation.name());
    match work::run(&name, generation.patience(limit), move || generation.instance.shutdown()).await
    {
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
pub(crate) fn still_allowed(
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
        slot.tell(PluginFact::DrainOverdue { generation });
        serving.drained().await;
    }
    slot.tell(PluginFact::Drained { generation });
}

/// How a version came to serve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) operation: Operation,
    pub(crate) requested: Instant,
    pub(crate) swap: Duration,
    pub(crate) state: StateOutcome,
}

/// What proves that `generation` serves.
pub(crate) fn receipt(
    generation: &Generation,
    from: Option<PluginVersion>,
    change: Change,
) -> ReloadReceipt {
    let evidence = generation.instance.evidence();
    ReloadReceipt {
        operation: change.operation,
        plugin: generation.name().clone(),
        from,
        to: generation.version().clone(),
        generation: generation.id,
        tier: generation.tier,
        digest: generation.digest,
        build_id: evidence.build_id.clone(),
        image_reused: evidence.reused,
        total: change.requested.elapsed(),
        swap: change.swap,
        audit_seq: None,
        state: change.state,
        first_call: None,
        probation: None,
        evidence: None,
    }
}
