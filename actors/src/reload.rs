//! One load or reload under way, of one plugin or of a set, from the request to its answer.
//!
//! The order and the ways out are [`machine`]'s; this shell carries out one effect after the other, each for every
//! [`member`], and keeps what they bring. It is a temporary actor. Killed or dead, whoever asked is told that it
//! stopped; its claims go back, its candidates are shut down, a swap that was not on record is undone by the
//! plugin's actor, and held callers go on: all of that by what it drops.

use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::event::LifecycleEvent;
use themis_messages::lifecycle::{KernelFault, LoadError, Operation, ReloadReceipt};
use themis_messages::limits::SET_MAX;
use themis_messages::mailbox::Reply;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;

use crate::drill::Fate;
use crate::environment::Environment;
use crate::plugin::{Change, Set, receipt};
use crate::telemetry;

pub mod budget;
pub(crate) mod candidate;
pub(crate) mod dependencies;
pub mod host;
mod loading;
pub mod machine;
pub mod member;

use dependencies::World;
use machine::{Effect, Event, Machine};
use member::{Member, Target};

/// A load or a reload, and who waits for it.
#[derive(Debug)]
pub struct Request {
    /// What it is.
    pub operation: Operation,
    /// What is to serve afterwards: all of it or nothing.
    pub targets: Vec<Target>,
    /// Who asked.
    pub actor: String,
    /// When.
    pub requested: Instant,
    /// The answer: a receipt for each, in the order of the change.
    pub reply: Reply<Result<Vec<ReloadReceipt>, LoadError>>,
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
        let span = tracing::info_span!("plugin", operation = request.operation.as_str());
        run(Arc::clone(environment), request, myself.get_cell()).instrument(span).await;
        myself.stop(None);
        Ok(())
    }
}

/// Steps the machine until it replies.
async fn run(environment: Arc<Environment>, request: Request, me: ActorCell) {
    let Request { operation, targets, actor, requested, reply } = request;
    let count = targets.len();
    if count == 0 || count > SET_MAX {
        return reply.send(Err(LoadError::SetSize { count, max: SET_MAX }));
    }
    let members = targets.into_iter().map(Member::new).collect();
    let mut progress =
        Progress { environment, operation, actor, requested, members, error: None, culprit: None };
    let (mut machine, mut effect) = Machine::start();
    while effect != Effect::Reply {
        if progress.environment.drill.reached(effect) == Fate::Die {
            me.kill();
            std::future::pending::<()>().await;
        }
        let event = match progress.carry_out(effect).await {
            Ok(()) => Event::Done,
            Err(error) => {
                // The first failure is the one to report; later ones are of the cleaning up.
                progress.error.get_or_insert(error);
                Event::Failed
            }
        };
        let Some((after, wanted)) = machine.step(event) else { break };
        (machine, effect) = (after, wanted);
    }
    let outcome = progress.outcome().await;
    progress.tell(&outcome);
    reply.send(outcome);
}

/// What the effects have brought so far.
struct Progress {
    environment: Arc<Environment>,
    operation: Operation,
    actor: String,
    requested: Instant,
    /// In the order of the change, once that is known.
    members: Vec<Member>,
    error: Option<LoadError>,
    /// The member the first error is of.
    culprit: Option<usize>,
}

/// A step that needs what an earlier one did not bring: the machine's order rules it out.
fn out_of_order() -> LoadError {
    KernelFault::Stopped { role: "reload" }.into()
}

impl Progress {
    async fn carry_out(&mut self, effect: Effect) -> Result<(), LoadError> {
        self.show(effect);
        match effect {
            Effect::Discard | Effect::Revert => self.undo(effect).await,
            Effect::RecordFailure => self.record_failure().await,
            Effect::Claim => self.claim().await,
            Effect::Swap => self.swap().await,
            Effect::Admit
            | Effect::RecordIntent
            | Effect::Map
            | Effect::Initialise
            | Effect::Probe
            | Effect::HandOver
            | Effect::RecordOutcome => self.each(effect).await,
            // The receipts are confirmed when they are written: see `outcome`.
            Effect::Confirm | Effect::Reply => Ok(()),
        }
    }

    fn show(&self, effect: Effect) {
        tracing::debug!(?effect, "step");
        let Some(stage) = effect.stage() else { return };
        for member in &self.members {
            let manifest = member.origin.as_ref().map(|origin| &origin.manifest);
            self.environment.events.emit(LifecycleEvent::Progress {
                operation: self.operation,
                plugin: manifest.map(|manifest| manifest.name.clone()),
                version: manifest.map(|manifest| manifest.version.clone()),
                stage,
            });
        }
    }

    /// One member after the other, until one fails.
    async fn each(&mut self, effect: Effect) -> Result<(), LoadError> {
        for index in 0..self.members.len() {
            if let Err(error) = self.step(index, effect).await {
                self.members[index].report(&error);
                self.culprit.get_or_insert(index);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn step(&mut self, index: usize, effect: Effect) -> Result<(), LoadError> {
        let environment = Arc::clone(&self.environment);
        let operation = self.operation;
        if matches!(effect, Effect::RecordIntent | Effect::RecordOutcome) {
            let is_intent = effect == Effect::RecordIntent;
            let outcome = if is_intent { AuditOutcome::Intent } else { AuditOutcome::Done };
            let number = self.record(index, outcome).await?;
            self.members[index].audit_seq = Some(number);
            return Ok(());
        }
        let member = &mut self.members[index];
        match effect {
            Effect::Admit => member.admit(&environment).await,
            Effect::Claim => member.claim(&environment, operation).await,
            Effect::Map => member.map(&environment).await,
            Effect::Initialise => member.initialise(&environment).await,
            Effect::Probe => member.probe(&environment).await,
            Effect::HandOver => member.hand_over(&environment).await,
            Effect::RecordIntent
            | Effect::RecordOutcome
            | Effect::Swap
            | Effect::Confirm
            | Effect::Revert
            | Effect::Discard
            | Effect::RecordFailure
            | Effect::Reply => Err(out_of_order()),
        }
    }

    /// Claims every plugin, checks that they fit together and with what serves, and puts them in order.
    async fn claim(&mut self) -> Result<(), LoadError> {
        let mut world = World::default();
        let mut names = Vec::new();
        for member in &self.members {
            let manifest = &member.origin()?.manifest;
            if names.contains(&manifest.name) {
                return Err(LoadError::Twice { plugin: manifest.name.clone() });
            }
            names.push(manifest.name.clone());
            world.add(Arc::clone(manifest));
        }
        self.each(Effect::Claim).await?;
        let order = dependencies::order(&self.environment.directory, &world)?;
        let place = |member: &Member| {
            let name = member.origin.as_ref().map(|origin| &origin.manifest.name);
            order.iter().position(|it| Some(it) == name)
        };
        self.members.sort_by_key(place);
        Ok(())
    }

    /// Swaps all, what is needed before what needs it.
    async fn swap(&mut self) -> Result<(), LoadError> {
        let set = self.set()?;
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if let Err(error) = member.swap(&self.environment, set.clone()).await {
                self.culprit.get_or_insert(index);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What is swapped back together; a single plugin needs none.
    fn set(&self) -> Result<Option<Arc<Set>>, LoadError> {
        if self.members.len() < 2 {
            return Ok(None);
        }
        let mut members = Vec::new();
        for member in &self.members {
            members.push((member.slot()?, member.candidate()?.id));
        }
        Ok(Some(Arc::new(Set { members })))
    }

    /// Undoes what was done, last first; goes on when one fails.
    async fn undo(&mut self, effect: Effect) -> Result<(), LoadError> {
        let mut first = Ok(());
        for member in self.members.iter_mut().rev() {
            let undone = if effect == Effect::Revert {
                member.revert().await
            } else {
                member.discard().await
            };
            if let Err(error) = undone {
                tracing::error!(%error, ?effect, "could not be undone");
                first = first.and(Err(error));
            }
        }
        first
    }

    async fn record_failure(&self) -> Result<(), LoadError> {
        let refused = matches!(self.error, Some(LoadError::Refused(_)));
        let outcome = if refused { AuditOutcome::Refused } else { AuditOutcome::Failed };
        for index in 0..self.members.len() {
            self.record(index, outcome).await?;
        }
        Ok(())
    }

    async fn record(&self, index: usize, outcome: AuditOutcome) -> Result<u64, LoadError> {
        let event = match self.operation {
            Operation::Load => AuditEvent::Load,
            Operation::Reload => AuditEvent::Reload,
            Operation::Restart => AuditEvent::Restart,
            Operation::Rollback | Operation::SwapBack => AuditEvent::Rollback,
        };
        let mut entry = AuditEntry::new(event, outcome, self.actor.as_str());
        self.members[index].describe(&mut entry);
        if self.members[index].is_beside() {
            entry.reason = Some("as an arm of an experiment, beside what serves".to_owned());
        }
        if let Some(error) = &self.error {
            entry.code = Some(error.code().to_owned());
            let is_own = self.culprit.is_none_or(|culprit| culprit == index);
            entry.reason =
                Some(if is_own { error.to_string() } else { format!("with its set: {error}") });
        }
        Ok(self.environment.record(entry).await?)
    }

    /// The receipts, confirmed by each plugin's actor; or the first error.
    async fn outcome(&mut self) -> Result<Vec<ReloadReceipt>, LoadError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut receipts = Vec::new();
        for member in &mut self.members {
            let (generation, installed) = member.installed.take().ok_or_else(out_of_order)?;
            let (operation, requested) = (self.operation, self.requested);
            let change = Change { operation, requested, swap: installed.swap, state: member.state };
            let mut receipt = receipt(&generation, installed.from, change);
            receipt.audit_seq = member.audit_seq;
            receipt.probation = installed.probation;
            receipts.push(member.confirm(receipt).await?);
        }
        Ok(receipts)
    }

    /// Counts, logs and shows how it ended.
    fn tell(&self, outcome: &Result<Vec<ReloadReceipt>, LoadError>) {
        let total = match self.operation {
            Operation::Load => "themis_loads_total",
            Operation::Restart => "themis_plugin_restarts_total",
            Operation::Reload | Operation::Rollback | Operation::SwapBack => "themis_reloads_total",
        };
        let error = match outcome {
            Ok(receipts) => {
                for receipt in receipts {
                    telemetry::count_operation(total, "ok");
                    metrics::histogram!("themis_load_latency_seconds")
                        .record(receipt.total.as_secs_f64());
                    tracing::info!(
                        plugin = %receipt.plugin, version = %receipt.to, digest = %receipt.digest,
                        build_id = receipt.build_id.as_deref().unwrap_or("none"), "serves"
                    );
                }
                return;
            }
            Err(error) => error,
        };
        let refused = matches!(error, LoadError::Refused(_));
        telemetry::count_operation(total, if refused { "refused" } else { "failed" });
        if refused {
            metrics::counter!("themis_refusals_total", "reason" => error.code()).increment(1);
        }
        tracing::warn!(code = error.code(), %error, "not done");
        let culprit = self.culprit.and_then(|index| self.members.get(index));
        let origin = culprit.or(self.members.first()).and_then(|member| member.origin.as_ref());
        self.environment.events.emit(LifecycleEvent::Failed {
            operation: self.operation,
            plugin: origin.map(|origin| origin.manifest.name.clone()),
            code: error.code(),
            reason: error.to_string(),
        });
    }
}
