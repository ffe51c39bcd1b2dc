//! An experiment as callers see it: which arm a unit gets, and where its outcomes are counted. No lock and no message is on
//! that path.
//!
//! What is here outlives the actor that manages it: the next incarnation goes on from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use themis_messages::ids::GenerationId;
use themis_messages::limits::EXPERIMENT_METRICS_MAX;

use super::assign::Assignment;
use super::lifecycle::{Promotion, Status};
use super::moments::Moments;
use super::policy::Kind;
use super::recorder::{NotFinite, Sketch, Tally, UnitSet};
use super::spec::{ExperimentError, Label, Spec};
use crate::lease::Serving;

/// What is counted of one arm.
#[derive(Debug, Default)]
pub struct Counts {
    /// Outcomes of the experiment's metric.
    pub outcomes: Tally,
    /// Seconds that calls took.
    pub latency: Tally,
    /// The same, for quantiles.
    pub sketch: Sketch,
    /// 1 for each call that ended in an error, 0 for each other.
    pub errors: Tally,
    /// Units.
    pub units: UnitSet,
}

/// Who serves which arm.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) assignment: Assignment,
    /// By arm; none for the control, and for an arm that has left.
    pub(crate) servings: Vec<Option<Arc<Serving>>>,
}

/// Metrics besides the experiment's own, by name: a tally for each arm.
type Events = Vec<(Label, Arc<[Tally]>)>;

/// An experiment.
#[derive(Debug)]
pub struct Live {
    /// What is asked.
    pub spec: Spec,
    split: ArcSwap<Split>,
    arms: Box<[Counts]>,
    events: ArcSwap<Events>,
    /// Guards the change of that.
    naming: Mutex<()>,
    /// Nothing more is counted.
    over: AtomicBool,
    /// Outcomes and events that were not counted: late, of a metric too many, or no number.
    dropped: AtomicU64,
    /// What the manager knows.
    pub(crate) state: Mutex<State>,
}

/// What the manager knows of an experiment.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) status: Status,
    pub(crate) started: Option<jiff::Timestamp>,
    pub(crate) ended: Option<jiff::Timestamp>,
    /// Generations by arm.
    pub(crate) generations: Vec<Option<GenerationId>>,
    /// Whether its arms are being loaded again.
    pub(crate) loading: bool,
    /// Whether units were dealt out differently for a time: then their ratio says nothing.
    pub(crate) ratio_changed: bool,
}

/// How a call in an arm went.
#[derive(Debug)]
pub(crate) enum Arm<R> {
    /// It is the control's.
    Control,
    /// The arm has taken it.
    Called(R),
    /// The arm takes nobody any more.
    Gone,
}

impl Live {
    /// An experiment that has not begun: everybody gets the control.
    #[must_use]
    pub fn new(spec: Spec) -> Arc<Self> {
        let names = spec.arms();
        let assignment = Assignment::new(spec.id.as_str(), spec.exposure, &names, &spec.weights);
        let count = names.len();
        let split = Split { assignment, servings: vec![None; count] };
        let state = State { generations: vec![None; count], ..State::default() };
        Arc::new(Self {
            split: ArcSwap::from_pointee(split),
            arms: (0..count).map(|_| Counts::default()).collect(),
            events: ArcSwap::default(),
            naming: Mutex::default(),
            over: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            state: Mutex::new(state),
            spec,
        })
    }

    /// What is counted, by arm.
    #[must_use]
    pub fn counts(&self) -> &[Counts] {
        &self.arms
    }

    /// Outcomes and events that were not counted.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.lock().status.clone()
    }

    /// Since when it runs.
    #[must_use]
    pub fn started(&self) -> Option<jiff::Timestamp> {
        self.state.lock().started
    }

    pub(crate) fn split(&self) -> Arc<Split> {
        self.split.load_full()
    }

    pub(crate) fn set_split(&self, split: Split) {
        self.split.store(Arc::new(split));
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// The arm of a unit; `None` for one that takes no part.
    #[must_use]
    pub fn arm_of(&self, unit: &[u8]) -> Option<usize> {
        let split = self.split.load();
        let assignment = &split.assignment;
        assignment.is_exposed(unit).then(|| assignment.arm_of(assignment.hash(unit)))
    }

    pub(crate) fn with_arm<R>(
        &self,
        arm: usize,
        call: impl FnOnce(&Serving) -> Option<R>,
    ) -> Arm<R> {
        if arm == 0 {
            return Arm::Control;
        }
        let split = self.split.load();
        let serving = split.servings.get(arm).and_then(Option::as_ref);
        serving.and_then(|serving| call(serving)).map_or(Arm::Gone, Arm::Called)
    }

    /// Counts a call, and its unit if that is new.
    pub(crate) fn called(&self, arm: usize, unit: &[u8], took: Duration, ok: bool) {
        let Some(counts) = self.arms.get(arm).filter(|_| !self.is_over()) else { return };
        counts.units.insert(self.split.load().assignment.hash(unit));
        let seconds = took.as_secs_f64();
        counts.sketch.add(seconds);
        counts.latency.count(seconds);
        counts.errors.count(if ok { 0.0 } else { 1.0 });
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The arm of that name.
    ///
    /// # Errors
    /// [`ExperimentError::UnknownArm`].
    pub fn arm(&self, name: &str) -> Result<usize, ExperimentError> {
        let treatments = &self.spec.treatments;
        let arm = match name {
            super::spec::CONTROL => Some(0),
            name => treatments.iter().position(|it| it.name.as_str() == name).map(|at| at + 1),
        };
        arm.ok_or_else(|| {
            let (id, arm) = (self.spec.id.to_string(), name.chars().take(80).collect());
            ExperimentError::UnknownArm { id, arm }
        })
    }

    /// Counts an outcome: 1 or 0 of a conversion, any number of a continuous metric. What comes late is dropped and counted.
    ///
    /// # Errors
    /// [`NotFinite`], also for a conversion that is neither 0 nor 1.
    pub fn record(&self, arm: usize, value: f64) -> Result<(), NotFinite> {
        let is_one = self.spec.kind == Kind::Continuous || value == 0.0 || value == 1.0;
        let counts = self.arms.get(arm).filter(|_| !self.is_over());
        match counts {
            Some(counts) if is_one => counts.outcomes.add(value).inspect_err(|_| self.drop_one()),
            Some(_) => {
                self.drop_one();
                Err(NotFinite)
            }
            None => {
                self.drop_one();
                Ok(())
            }
        }
    }

    /// Counts an event of another metric. The first event of a metric takes a lock; metrics beyond the limit are dropped and
    /// counted.
    ///
    /// # Errors
    /// [`NotFinite`].
    pub fn record_event(&self, arm: usize, metric: &str, value: f64) -> Result<(), NotFinite> {
        let counted = |events: &Events| {
            let tallies = &events.iter().find(|(name, _)| name.as_str() == metric)?.1;
            Some(tallies.get(arm)?.add(value))
        };
        if self.is_over() {
            self.drop_one();
            return Ok(());
        }
        if let Some(counted) = counted(&self.events.load()) {
            return counted.inspect_err(|_| self.drop_one());
        }
        self.name(metric);
        counted(&self.events.load()).unwrap_or_else(|| {
            self.drop_one();
            Ok(())
        })
    }

    fn name(&self, metric: &str) {
        let Ok(name) = metric.parse::<Label>() else { return };
        let _naming = self.naming.lock();
        let mut events = Events::clone(&self.events.load());
        let known = events.iter().any(|(known, _)| *known == name);
        if known || events.len() >= EXPERIMENT_METRICS_MAX {
            return;
        }
        events.push((name, self.arms.iter().map(|_| Tally::default()).collect()));
        self.events.store(Arc::new(events));
    }

    /// What was counted of a metric, by arm: `latency`, `errors`, or one of the events.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<Vec<Moments>> {
        let of = |pick: fn(&Counts) -> &Tally| self.arms.iter().map(|it| pick(it).fold()).collect();
        match name {
            "latency" => Some(of(|it| &it.latency)),
            "errors" => Some(of(|it| &it.errors)),
            other => {
                let events = self.events.load();
                let tallies = &events.iter().find(|(name, _)| name.as_str() == other)?.1;
                Some(tallies.iter().map(Tally::fold).collect())
            }
        }
    }

    /// A number that changes with everything that is kept.
    pub(crate) fn mark(&self) -> u64 {
        let counts = |it: &Counts| it.outcomes.fold().count + it.latency.fold().count;
        let events = self.events.load();
        let events: u64 =
            events.iter().flat_map(|(_, it)| it.iter()).map(|it| it.fold().count).sum();
        let text = format!("{:?}", self.state.lock());
        let status = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        let counted: u64 = self.arms.iter().map(counts).sum();
        status.wrapping_add(counted).wrapping_add(events).wrapping_add(self.dropped())
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// An experiment as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    spec: Spec,
    status: Status,
    started: Option<jiff::Timestamp>,
    ended: Option<jiff::Timestamp>,
    ratio_changed: bool,
    arms: Vec<StoredArm>,
    events: Vec<(Label, Vec<Moments>)>,
    dropped: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredArm {
    outcomes: Moments,
    latency: Moments,
    errors: Moments,
    /// Buckets that are not empty.
    sketch: Vec<(u32, u64)>,
    /// In hexadecimal.
    units: String,
}

impl StoredArm {
    fn of(counts: &Counts) -> Self {
        let sketch = counts.sketch.fold().into_iter().zip(0..).filter(|(count, _)| *count > 0);
        let words = counts.units.words();
        Self {
            outcomes: counts.outcomes.fold(),
            latency: counts.latency.fold(),
            errors: counts.errors.fold(),
            sketch: sketch.map(|(count, bucket)| (bucket, count)).collect(),
            units: hex::encode(
                words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>(),
            ),
        }
    }

    fn restore(&self, counts: &Counts) {
        counts.outcomes.restore(&self.outcomes);
        counts.latency.restore(&self.latency);
        counts.errors.restore(&self.errors);
        counts.sketch.restore(&self.sketch);
        let bytes = hex::decode(&self.units).unwrap_or_default();
        let words = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok());
        counts.units.restore(&words.map(u64::from_be_bytes).collect::<Vec<_>>());
    }
}

impl Live {
    /// As it is kept.
    #[must_use]
    pub fn stored(&self) -> Stored {
        let state = self.state.lock().clone();
        let events = self.events.load();
        let folded = |(name, tallies): &(Label, Arc<[Tally]>)| {
            (name.clone(), tallies.iter().map(Tally::fold).collect())
        };
        Stored {
            spec: self.spec.clone(),
            status: state.status,
            started: state.started,
            ended: state.ended,
            ratio_changed: state.ratio_changed,
            arms: self.arms.iter().map(StoredArm::of).collect(),
            events: events.iter().map(folded).collect(),
            dropped: self.dropped(),
        }
    }

    /// As it was kept. What was on its way then is not any more: a winner that was not promoted yet waits to be promoted by
    /// hand, and arms that were being loaded are not.
    #[must_use]
    pub fn restore(stored: Stored) -> Arc<Self> {
        let live = Self::new(stored.spec);
        for (counts, kept) in live.arms.iter().zip(&stored.arms) {
            kept.restore(counts);
        }
        let restored = |(name, kept): (Label, Vec<Moments>)| {
            let tallies = live.arms.iter().enumerate().map(|(arm, _)| {
                let tally = Tally::default();
                kept.get(arm).inspect(|moments| tally.restore(moments));
                tally
            });
            let tallies: Arc<[Tally]> = tallies.collect();
            (name, tallies)
        };
        live.events.store(Arc::new(stored.events.into_iter().map(restored).collect()));
        live.dropped.store(stored.dropped, Ordering::Relaxed);
        let status = match stored.status {
            Status::Draft => Status::Cancelled,
            Status::Concluded { arm, promotion: Promotion::Pending } => {
                let (code, reason) =
                    ("ab.interrupted", "the kernel ended meanwhile; promote it again");
                let promotion =
                    Promotion::Failed { code: code.to_owned(), reason: reason.to_owned() };
                Status::Concluded { arm, promotion }
            }
            other @ (Status::Running
            | Status::Concluded { .. }
            | Status::RolledBack { .. }
            | Status::Cancelled) => other,
        };
        if status.is_over() {
            live.end();
        }
        {
            let mut state = live.state.lock();
            (state.status, state.started, state.ended) = (status, stored.started, stored.ended);
            state.ratio_changed = stored.ratio_changed;
        }
        live
    }
}

/// The arm that served a unit: where its outcomes belong.
#[derive(Debug, Clone)]
pub struct Assigned {
    live: Arc<Live>,
    arm: usize,
}

impl Assigned {
    pub(crate) fn new(live: Arc<Live>, arm: usize) -> Self {
        Self { live, arm }
    }

    /// The experiment's name.
    #[must_use]
    pub fn experiment(&self) -> &str {
        self.live.spec.id.as_str()
    }

    /// The arm's name.
    #[must_use]
    pub fn arm(&self) -> &str {
        match self.arm.checked_sub(1).and_then(|at| self.live.spec.treatments.get(at)) {
            Some(treatment) => treatment.name.as_str(),
            None => super::spec::CONTROL,
        }
    }

    /// Counts whether the unit did what was hoped for.
    pub fn converted(&self, converted: bool) {
        match self.live.record(self.arm, if converted { 1.0 } else { 0.0 }) {
            // These two numbers can be counted.
            Ok(()) | Err(NotFinite) => {}
        }
    }

    /// Counts how much came of it.
    ///
    /// # Errors
    /// [`NotFinite`].
    pub fn value(&self, value: f64) -> Result<(), NotFinite> {
        self.live.record(self.arm, value)
    }

    /// Counts an event of another metric.
    ///
    /// # Errors
    /// [`NotFinite`].
    pub fn event(&self, metric: &str, value: f64) -> Result<(), NotFinite> {
        self.live.record_event(self.arm, metric, value)
    }
}

/// All experiments, by name.
#[derive(Debug, Default)]
pub struct Experiments(ArcSwap<BTreeMap<Label, Arc<Live>>>);

impl Experiments {
    /// One of them: no lock.
    ///
    /// # Errors
    /// [`ExperimentError::Unknown`].
    pub fn find(&self, id: &str) -> Result<Arc<Live>, ExperimentError> {
        let all = self.0.load();
        all.get(id)
            .cloned()
            .ok_or_else(|| ExperimentError::Unknown { id: id.chars().take(80).collect() })
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Live>> {
        self.0.load().values().cloned().collect()
    }

    /// Adds one: before the kernel has started what was kept, then only the manager.
    pub fn add(&self, live: Arc<Live>) {
        let mut all = BTreeMap::clone(&self.0.load());
        all.insert(live.spec.id.clone(), live);
        self.0.store(Arc::new(all));
    }
}

#[cfg(test)]
mod tests;
