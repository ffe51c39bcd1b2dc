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

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ractor::{ActorCell, ActorProcessingErr};
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::ids::{GenerationId, PluginName};
use themis_messages::lifecycle::{LoadError, LoadRequest, Operation, ReloadReceipt};
use themis_messages::limits::{
    ASK_DEADLINE, EXPERIMENTS_MAX, EXPERIMENTS_TICK, OPERATION_DEADLINE,
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
    /// Look at what was counted.
    Tick,
}

/// Begins, judges and ends experiments.
#[derive(Debug)]
pub struct Manager(Arc<Environment>);

impl Role for Manager {
    type Msg = ExperimentsMsg;
    type Seed = Arc<Environment>;

    fn start(environment: Arc<Environment>) -> Self {
        Self(environment)
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
            ExperimentsMsg::ArmLeft { plugin, generation } => self.arm_left(&plugin, generation),
            ExperimentsMsg::Tick => self.judge_all(),
        }
        Ok(())
    }
}

impl Manager {
    fn create(&self, spec: Spec, actor: String, reply: Begun) {
        match self.accept(spec) {
            Err(error) => reply.send(Err(error)),
            Ok(live) => {
                let environment = Arc::clone(&self.0);
                tokio::spawn(async move {
                    let loaded = load_all(&environment, &live, &actor).await;
                    let told = ExperimentsMsg::Loaded { live, loaded, actor, reply };
                    environment.roles.experiments.tell(told);
                });
            }
        }
    }

    fn accept(&self, spec: Spec) -> Result<Arc<Live>, ExperimentError> {
        spec.check()?;
        let all = self.0.experiments.all();
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
        let slot = self.0.directory.find(spec.plugin.as_str());
        if !slot.is_some_and(crate::slot::Slot::is_serving) {
            return Err(ExperimentError::NotServing { plugin: spec.plugin });
        }
        let live = Live::new(spec);
        self.0.experiments.add(Arc::clone(&live));
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
            self.let_go(live, generations);
            return Ok(());
        }
        let slot = self.0.directory.find(live.spec.plugin.as_str());
        let arm = |generation: &GenerationId| slot.and_then(|slot| slot.arm(*generation));
        let servings = std::iter::once(None).chain(generations.iter().map(arm)).collect();
        live.set_split(Split { assignment: live.split().assignment.clone(), servings });
        {
            let mut state = live.state.lock();
            state.status = state.status.step(Event::Start)?;
            state.started = Some(jiff::Timestamp::now());
            let known = generations.iter().copied().map(Some);
            state.generations = std::iter::once(None).chain(known).collect();
        }
        if let Some(slot) = slot {
            slot.set_experiment(Some(Arc::clone(live)));
        }
        let arms = live.spec.arms().join(", ");
        self.record(live, AuditOutcome::Intent, actor, None, &format!("begins; arms: {arms}"));
        Ok(())
    }

    fn stop(&self, id: &Label, actor: &str) -> Result<(), ExperimentError> {
        let live = self.0.experiments.find(id.as_str())?;
        self.end(&live, Event::Cancel)?;
        self.record(&live, AuditOutcome::Done, actor, None, "stopped");
        Ok(())
    }

    fn promote(&self, id: &Label, arm: usize, actor: &str) -> Result<(), ExperimentError> {
        let live = self.0.experiments.find(id.as_str())?;
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
        let (environment, live, actor) = (Arc::clone(&self.0), Arc::clone(live), actor.to_owned());
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
        if let Some(slot) = self.0.directory.find(live.spec.plugin.as_str()) {
            slot.set_experiment(None);
        }
        let generations = std::mem::take(&mut live.state.lock().generations);
        self.let_go(live, generations.into_iter().flatten());
    }

    fn let_go(&self, live: &Live, generations: impl IntoIterator<Item = GenerationId>) {
        let Some(slot) = self.0.directory.find(live.spec.plugin.as_str()) else { return };
        for generation in generations {
            tokio::spawn(async move {
                let leave = |reply| PluginMsg::Leave { generation, reply };
                if let Err(fault) = slot.mailbox().insist(ASK_DEADLINE, leave).await {
                    tracing::error!(%generation, %fault, "an arm was not told to leave");
                }
            });
        }
    }

    /// It died, or was unloaded: the others share its units.
    fn arm_left(&self, plugin: &PluginName, generation: GenerationId) {
        let ours =
            |live: &Arc<Live>| live.spec.plugin == *plugin && live.status() == Status::Running;
        let Some(live) = self.0.experiments.all().into_iter().find(ours) else { return };
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

    fn judge_all(&self) {
        for live in self.0.experiments.all() {
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
        self.0.note(entry);
    }
}

fn arm_name(live: &Live, arm: usize) -> String {
    live.spec.arms().get(arm).map_or_else(|| arm.to_string(), |name| (*name).to_owned())
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
                Manager(Arc::clone(environment)).let_go(live, loaded);
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
