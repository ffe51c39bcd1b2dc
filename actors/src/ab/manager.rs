//! The actor that begins experiments, judges them, and ends them.
//!
//! ```text
//! Create ──▶ load every treatment beside what serves ──▶ Loaded ──▶ units are dealt out
//! Tick   ──▶ what was counted ──▶ decide ──▶ winner: everybody gets it, an ordinary reload makes it current
//!                                       └──▶ given up: everybody gets the control
//! ArmLeft ──▶ its units go to the others
//! ```
//!
//! What it knows is kept in the experiments themselves, which outlive it: when it dies, units are dealt out as before, and the
//! next incarnation goes on. Lost is only the reply of whoever waited for it; loads and promotions under way tell their end to
//! whoever is behind the role then.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ractor::{ActorCell, ActorProcessingErr};
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::ids::{GenerationId, PluginName};
use themis_messages::lifecycle::{KernelFault, LoadError, LoadRequest, Operation, ReloadReceipt};
use themis_messages::limits::{
    ASK_DEADLINE, AUDIT_DEADLINE, EXPERIMENTS_MAX, EXPERIMENTS_TICK, OPERATION_DEADLINE,
};
use themis_messages::mailbox::{Admitted, Reply};

use super::lifecycle::{Event, Promotion, Status};
use super::live::{Live, Split};
use super::policy::{Decision, GivenUp};
use super::report;
use super::spec::{ExperimentError, Label, Spec};
use crate::coordinator::CoordinatorMsg;
use crate::environment::Environment;
use crate::plugin::PluginMsg;
use crate::reload::Request;
use crate::reload::member::{Replaces, Target};
use crate::role::Role;
use crate::store::{StoreFault, StoreMsg};
use crate::work;

/// Whoever waits for an experiment to begin.
type Begun = Reply<Result<(), ExperimentError>>;

/// What the manager is asked and told.
#[derive(Debug)]
pub enum ExperimentsMsg {
    /// Begin an experiment.
    Create {
        /// Which.
        spec: Box<Spec>,
        /// Who asked.
        actor: String,
        /// Answered when units are dealt out.
        reply: Begun,
    },
    /// End an experiment; everybody gets the control.
    Stop {
        /// Which.
        id: Label,
        /// Who asked.
        actor: String,
        /// Answered when it is ended.
        reply: Reply<Result<(), ExperimentError>>,
    },
    /// Make an arm the current version, whatever the evidence is.
    Promote {
        /// Which experiment.
        id: Label,
        /// Which arm.
        arm: usize,
        /// Who asked.
        actor: String,
        /// Answered when everybody gets it; how the reload went is seen in the experiment.
        reply: Reply<Result<(), ExperimentError>>,
    },
    /// The treatments of an experiment are loaded, or one is not.
    Loaded {
        /// Which.
        live: Arc<Live>,
        /// Their generations.
        loaded: Result<Vec<GenerationId>, LoadError>,
        /// Who asked.
        actor: String,
        /// Who waits.
        reply: Begun,
    },
    /// The reload that makes a winner current is over.
    PromotionEnded {
        /// Of which.
        live: Arc<Live>,
        /// How.
        ended: Result<(), LoadError>,
    },
    /// An arm takes nobody any more.
    ArmLeft {
        /// Of which plugin.
        plugin: PluginName,
        /// The arm.
        generation: GenerationId,
    },
    /// The kernel ends: write what is known now. That plugins stop then is no reason to give an experiment up.
    Close {
        /// Answered when it would outlive the process.
        reply: Reply<()>,
    },
    /// What was known at some moment is kept, or could not be.
    Kept {
        /// How it went.
        kept: Result<(), StoreFault>,
    },
    /// Look at what was counted.
    Tick,
}

/// Begins, judges and ends experiments.
#[derive(Debug)]
pub struct Manager {
    environment: Arc<Environment>,
    /// Whether the kernel is about to end.
    closing: bool,
    /// Whether something is being written.
    keeping: bool,
    /// Who waits for the next write to end, and for the one after.
    waiting: Vec<Reply<()>>,
    /// Who waits for the one that is under way.
    served: Vec<Reply<()>>,
    /// What was written last, by name: what has not changed is not written again.
    kept: BTreeMap<Label, u64>,
}

impl Role for Manager {
    type Msg = ExperimentsMsg;
    type Seed = Arc<Environment>;

    fn start(environment: Arc<Environment>) -> Self {
        Self {
            environment,
            closing: false,
            keeping: false,
            waiting: Vec::new(),
            served: Vec::new(),
            kept: BTreeMap::new(),
        }
    }

    async fn handle(
        &mut self,
        _me: &ActorCell,
        admitted: Admitted<ExperimentsMsg>,
    ) -> Result<(), ActorProcessingErr> {
        match admitted.message {
            ExperimentsMsg::Create { spec, actor, reply } => self.create(*spec, actor, reply),
            ExperimentsMsg::Stop { id, actor, reply } => reply.send(self.stop(&id, &actor)),
            ExperimentsMsg::Promote { id, arm, actor, reply } => {
                reply.send(self.promote(&id, arm, &actor));
            }
            ExperimentsMsg::Loaded { live, loaded, actor, reply } => {
                reply.send(self.loaded(&live, loaded, &actor));
            }
            ExperimentsMsg::PromotionEnded { live, ended } => self.promotion_ended(&live, ended),
            ExperimentsMsg::ArmLeft { .. } | ExperimentsMsg::Tick if self.closing => {}
            ExperimentsMsg::ArmLeft { plugin, generation } => self.arm_left(&plugin, generation),
            ExperimentsMsg::Kept { kept } => {
                self.keeping = false;
                self.served.drain(..).for_each(|reply| reply.send(()));
                if let Err(error) = kept {
                    metrics::counter!("ab_test_store_failures_total").increment(1);
                    tracing::error!(code = error.code(), %error, "experiments could not be kept");
                    self.kept.clear();
                }
                if !self.waiting.is_empty() {
                    self.keep_all();
                }
            }
            ExperimentsMsg::Close { reply } => {
                self.closing = true;
                self.waiting.push(reply);
                self.keep_all();
            }
            ExperimentsMsg::Tick => {
                self.resume_all();
                self.judge_all();
                self.keep_all();
            }
        }
        Ok(())
    }
}

impl Manager {
    fn create(&self, spec: Spec, actor: String, reply: Begun) {
        match self.accept(spec) {
            Err(error) => reply.send(Err(error)),
            Ok(live) => self.load(live, actor, reply),
        }
    }

    fn accept(&self, spec: Spec) -> Result<Arc<Live>, ExperimentError> {
        spec.check()?;
        let all = self.environment.experiments.all();
        if all.len() >= EXPERIMENTS_MAX {
            return Err(ExperimentError::TooMany);
        }
        if all.iter().any(|live| live.spec.id == spec.id) {
            return Err(ExperimentError::Exists { id: spec.id });
        }
        let under_way =
            |live: &&Arc<Live>| live.spec.plugin == spec.plugin && !live.status().is_over();
        if let Some(other) = all.iter().find(under_way) {
            let (plugin, other) = (spec.plugin, other.spec.id.clone());
            return Err(ExperimentError::Busy { plugin, other });
        }
        let slot = self.environment.directory.find(spec.plugin.as_str());
        if !slot.is_some_and(crate::slot::Slot::is_serving) {
            return Err(ExperimentError::NotServing { plugin: spec.plugin });
        }
        let live = Live::new(spec);
        self.environment.experiments.add(Arc::clone(&live));
        Ok(live)
    }

    fn loaded(
        &self,
        live: &Arc<Live>,
        loaded: Result<Vec<GenerationId>, LoadError>,
        actor: &str,
    ) -> Result<(), ExperimentError> {
        let generations = match loaded {
            Ok(generations) => generations,
            // Another operation had the plugin when the kernel had just started: the next look tries again.
            Err(LoadError::Kernel(fault)) if live.status() == Status::Running => {
                live.state.lock().loading = false;
                return Err(fault.into());
            }
            Err(error) => {
                self.end(live, Event::Cancel)?;
                self.record(
                    live,
                    AuditOutcome::Failed,
                    actor,
                    Some(error.code()),
                    &error.to_string(),
                );
                return Err(ExperimentError::from(&error));
            }
        };
        if live.status().is_over() {
            // It was stopped meanwhile.
            let_go(&self.environment, live, generations);
            return Ok(());
        }
        let slot = self.environment.directory.find(live.spec.plugin.as_str());
        let arm = |generation: &GenerationId| slot.and_then(|slot| slot.arm(*generation));
        let servings = std::iter::once(None).chain(generations.iter().map(arm)).collect();
        live.set_split(Split { assignment: live.split().assignment.clone(), servings });
        {
            let mut state = live.state.lock();
            // One that ran before the kernel ended runs already.
            if state.status != Status::Running {
                state.status = state.status.step(Event::Start)?;
            }
            state.started.get_or_insert_with(jiff::Timestamp::now);
            state.loading = false;
            let known = generations.iter().copied().map(Some);
            state.generations = std::iter::once(None).chain(known).collect();
        }
        if let Some(slot) = slot {
            slot.set_experiment(Some(Arc::clone(live)));
        }
        let arms = live.spec.arms().join(", ");
        self.record(live, AuditOutcome::Intent, actor, None, &format!("deals out units to {arms}"));
        Ok(())
    }

    fn stop(&self, id: &Label, actor: &str) -> Result<(), ExperimentError> {
        let live = self.environment.experiments.find(id.as_str())?;
        self.end(&live, Event::Cancel)?;
        self.record(&live, AuditOutcome::Done, actor, None, "stopped");
        Ok(())
    }

    fn promote(&self, id: &Label, arm: usize, actor: &str) -> Result<(), ExperimentError> {
        let live = self.environment.experiments.find(id.as_str())?;
        if arm == 0 {
            return self.stop(id, actor);
        }
        self.won(&live, arm, actor, "promoted by hand")
    }

    /// Everybody gets the winner, and a reload makes it current.
    fn won(
        &self,
        live: &Arc<Live>,
        arm: usize,
        actor: &str,
        why: &str,
    ) -> Result<(), ExperimentError> {
        {
            let mut state = live.state.lock();
            state.status = state.status.step(Event::Won { arm })?;
            state.ended.get_or_insert_with(jiff::Timestamp::now);
        }
        live.end();
        let split = live.split();
        let (assignment, servings) = (split.assignment.only(arm), split.servings.clone());
        live.set_split(Split { assignment, servings });
        self.record(live, AuditOutcome::Intent, actor, None, why);
        let Some(treatment) = live.spec.treatments.get(arm - 1) else { return Ok(()) };
        let replaces = Replaces::Plugin(live.spec.plugin.clone());
        let load = LoadRequest::at(&treatment.path);
        let (environment, live, actor) =
            (Arc::clone(&self.environment), Arc::clone(live), actor.to_owned());
        tokio::spawn(async move {
            let reloaded =
                change(&environment, Operation::Reload, load, replaces, &actor).await.map(drop);
            let told = ExperimentsMsg::PromotionEnded { live, ended: reloaded };
            environment.roles.experiments.tell(told);
        });
        Ok(())
    }

    fn promotion_ended(&self, live: &Arc<Live>, ended: Result<(), LoadError>) {
        let (event, outcome, code, why) = match ended {
            Ok(()) => (Event::Promoted, AuditOutcome::Done, None, "promoted".to_owned()),
            Err(error) => {
                let (code, reason) = (error.code().to_owned(), error.to_string());
                let why = format!("not promoted: {reason}");
                (
                    Event::PromotionFailed { code, reason },
                    AuditOutcome::Failed,
                    Some(error.code()),
                    why,
                )
            }
        };
        let status = live.status();
        match status.step(event) {
            Ok(next) => live.state.lock().status = next,
            Err(error) => tracing::error!(id = %live.spec.id, %error, "a promotion ended twice"),
        }
        self.back_to_current(live);
        self.record(live, outcome, "kernel", code, &why);
    }

    /// Gives an experiment up, or ends it.
    fn end(&self, live: &Arc<Live>, event: Event) -> Result<(), ExperimentError> {
        {
            let mut state = live.state.lock();
            state.status = state.status.step(event)?;
            state.ended = Some(jiff::Timestamp::now());
        }
        live.end();
        self.back_to_current(live);
        Ok(())
    }

    /// Everybody gets what serves, and the arms go.
    fn back_to_current(&self, live: &Arc<Live>) {
        if let Some(slot) = self.environment.directory.find(live.spec.plugin.as_str()) {
            slot.set_experiment(None);
        }
        let generations = std::mem::take(&mut live.state.lock().generations);
        let_go(&self.environment, live, generations.into_iter().flatten());
    }

    /// It died, or was unloaded: the others share its units.
    fn arm_left(&self, plugin: &PluginName, generation: GenerationId) {
        let ours =
            |live: &Arc<Live>| live.spec.plugin == *plugin && live.status() == Status::Running;
        let Some(live) = self.environment.experiments.all().into_iter().find(ours) else { return };
        let arm = live.state.lock().generations.iter().position(|it| *it == Some(generation));
        let Some(arm) = arm else { return };
        let split = live.split();
        let mut servings = split.servings.clone();
        if let Some(serving) = servings.get_mut(arm) {
            *serving = None;
        }
        let some_left = servings.iter().any(Option::is_some);
        let assignment = split.assignment.without(arm).filter(|_| some_left);
        {
            let mut state = live.state.lock();
            state.generations[arm] = None;
            state.ratio_changed = true;
        }
        match assignment {
            Some(assignment) => {
                live.set_split(Split { assignment, servings });
                let why =
                    format!("arm {} has left: its units go to the others", arm_name(&live, arm));
                self.record(&live, AuditOutcome::Intent, "kernel", Some("ab.arm_left"), &why);
            }
            None => self.give_up(&live, GivenUp::NoTreatment),
        }
    }

    fn give_up(&self, live: &Arc<Live>, why: GivenUp) {
        let told = format!("rolled back: {}", report::given_up(live, &why));
        if let Err(error) = self.end(live, Event::GaveUp(why)) {
            return tracing::error!(id = %live.spec.id, %error, "could not be given up");
        }
        self.record(live, AuditOutcome::Done, "kernel", None, &told);
    }

    /// Experiments that ran when the kernel ended go on as soon as their plugin serves.
    fn resume_all(&self) {
        for live in self.environment.experiments.all() {
            let waits = {
                let mut state = live.state.lock();
                let waits = state.status == Status::Running && !state.loading;
                waits && state.generations.iter().all(Option::is_none) && {
                    let slot = self.environment.directory.find(live.spec.plugin.as_str());
                    state.loading = slot.is_some_and(crate::slot::Slot::is_serving);
                    state.loading
                }
            };
            if waits {
                let (reply, _nobody) = Reply::channel();
                self.load(live, "kernel".to_owned(), reply);
            }
        }
    }

    fn load(&self, live: Arc<Live>, actor: String, reply: Begun) {
        let environment = Arc::clone(&self.environment);
        tokio::spawn(async move {
            let loaded = load_all(&environment, &live, &actor).await;
            let told = ExperimentsMsg::Loaded { live, loaded, actor, reply };
            environment.roles.experiments.tell(told);
        });
    }

    /// Writes what has changed, off this actor; one write at a time.
    fn keep_all(&mut self) {
        if self.keeping {
            return;
        }
        let mut records = Vec::new();
        for live in self.environment.experiments.all() {
            let mark = live.mark();
            if self.kept.insert(live.spec.id.clone(), mark) != Some(mark) {
                records.push(live);
            }
        }
        if records.is_empty() {
            return self.waiting.drain(..).for_each(|reply| reply.send(()));
        }
        self.served = std::mem::take(&mut self.waiting);
        self.keeping = true;
        let environment = Arc::clone(&self.environment);
        tokio::spawn(async move {
            let written = work::run("ab", AUDIT_DEADLINE, move || {
                let record = |live: &Arc<Live>| {
                    let text = serde_json::to_vec(&live.stored()).unwrap_or_default();
                    (live.spec.id.to_string(), text)
                };
                records.iter().map(record).collect::<Vec<_>>()
            });
            let kept = match written.await {
                Ok(records) => {
                    let keep = |reply| StoreMsg::KeepExperiments { records, reply };
                    let asked = environment.roles.store.ask(AUDIT_DEADLINE, keep).await;
                    asked.unwrap_or_else(|fault| Err(fault.into()))
                }
                Err(error) => Err(KernelFault::Audit { what: error.to_string() }.into()),
            };
            environment.roles.experiments.tell(ExperimentsMsg::Kept { kept });
        });
    }

    fn judge_all(&self) {
        for live in self.environment.experiments.all() {
            if live.status() != Status::Running {
                continue;
            }
            let report = report::of(&live, jiff::Timestamp::now());
            report::export(&live, &report);
            match report.decision {
                Decision::Continue => {}
                Decision::Winner { arm } => {
                    let why = format!("{} has won: {}", arm_name(&live, arm), report.sentence());
                    if let Err(error) = self.won(&live, arm, "kernel", &why) {
                        tracing::error!(id = %live.spec.id, %error, "a winner was not taken");
                    }
                }
                Decision::RollBack(why) => self.give_up(&live, why),
            }
        }
    }

    fn record(
        &self,
        live: &Live,
        outcome: AuditOutcome,
        actor: &str,
        code: Option<&str>,
        why: &str,
    ) {
        let mut entry = AuditEntry::new(AuditEvent::Experiment, outcome, actor);
        entry.plugin = Some(live.spec.plugin.clone());
        entry.code = code.map(str::to_owned);
        entry.reason = Some(format!("experiment {}: {why}", live.spec.id));
        tracing::info!(id = %live.spec.id, plugin = %live.spec.plugin, why, "experiment");
        self.environment.note(entry);
    }
}

fn arm_name(live: &Live, arm: usize) -> String {
    live.spec.arms().get(arm).map_or_else(|| arm.to_string(), |name| (*name).to_owned())
}

fn let_go(
    environment: &Environment,
    live: &Live,
    generations: impl IntoIterator<Item = GenerationId>,
) {
    let Some(slot) = environment.directory.find(live.spec.plugin.as_str()) else { return };
    for generation in generations {
        tokio::spawn(async move {
            let leave = |reply| PluginMsg::Leave { generation, reply };
            if let Err(fault) = slot.mailbox().insist(ASK_DEADLINE, leave).await {
                tracing::error!(%generation, %fault, "an arm was not told to leave");
            }
        });
    }
}

/// Loads every treatment beside what serves, or none of them.
async fn load_all(
    environment: &Arc<Environment>,
    live: &Live,
    actor: &str,
) -> Result<Vec<GenerationId>, LoadError> {
    let mut loaded = Vec::new();
    for treatment in &live.spec.treatments {
        let load = LoadRequest::at(&treatment.path);
        let receipts = change(environment, Operation::Load, load, Replaces::Beside, actor).await;
        match receipts {
            Ok(receipts) => loaded.extend(receipts.into_iter().map(|it| it.generation)),
            Err(error) => {
                let_go(environment, live, loaded);
                return Err(error);
            }
        }
    }
    Ok(loaded)
}

async fn change(
    environment: &Environment,
    operation: Operation,
    load: LoadRequest,
    replaces: Replaces,
    actor: &str,
) -> Result<Vec<ReloadReceipt>, LoadError> {
    let targets = vec![Target::Files { load: Box::new(load), replaces }];
    let (actor, requested) = (actor.to_owned(), Instant::now());
    let ask = environment.roles.coordinator.ask(OPERATION_DEADLINE, |reply| {
        CoordinatorMsg::Replace(Box::new(Request { operation, targets, actor, requested, reply }))
    });
    ask.await?
}

/// Whether a winner is still on its way.
#[must_use]
pub fn is_settled(status: &Status) -> bool {
    !matches!(status, Status::Concluded { promotion: Promotion::Pending, .. })
}

/// Wakes the manager now and then; ends when `environment` is let go.
pub(crate) async fn tick(environment: Weak<Environment>) {
    let mut period = tokio::time::interval(EXPERIMENTS_TICK);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let Some(alive) = environment.upgrade() else { return };
        if alive.experiments.all().is_empty() {
            continue;
        }
        if let Err(fault) = alive.roles.experiments.send(ExperimentsMsg::Tick) {
            tracing::debug!(%fault, "experiments were not looked at");
        }
    }
}

/// How long whoever begins an experiment waits at most: every treatment is a load.
#[must_use]
pub fn create_limit(spec: &Spec) -> Duration {
    let loads = u32::try_from(spec.treatments.len()).unwrap_or(u32::MAX);
    OPERATION_DEADLINE.saturating_mul(loads).saturating_add(ASK_DEADLINE)
}
