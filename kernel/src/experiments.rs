//! Experiments as a host sees them: beginning and ending them, telling what came of a call, and reading what is known.

use std::sync::Arc;

use themis_actors::ab::live::{Live, Stored};
use themis_actors::ab::manager::{ExperimentsMsg, create_limit};
use themis_actors::ab::report::{self, Report};
use themis_actors::ab::spec::{ExperimentError, Label, Spec};
use themis_actors::environment::Environment;
use themis_messages::call::Answer;
use themis_messages::limits::ASK_DEADLINE;
use themis_persistence::experiments::Read;

pub use themis_actors::ab::live::Assigned;

use crate::refs::Control;

/// Puts an experiment back as it was kept. One that cannot be read is told of and left in the store.
pub(crate) fn restore(environment: &Environment, read: Read) {
    let stored = read.map_err(|error| error.to_string()).and_then(|bytes| {
        serde_json::from_slice::<Stored>(&bytes).map_err(|error| error.to_string())
    });
    match stored {
        Ok(stored) => environment.experiments.add(Live::restore(stored)),
        Err(error) => {
            metrics::counter!("ab_test_store_failures_total").increment(1);
            tracing::error!(error, "an experiment is not taken up again");
        }
    }
}

/// A call that was made for a unit: the answer, and where the unit's outcomes belong.
#[derive(Debug, Clone)]
pub struct Served {
    /// The answer.
    pub answer: Answer,
    /// The experiment and arm; `None` where there is no experiment, or the unit takes no part in it.
    pub assigned: Option<Assigned>,
}

/// Begins and ends experiments between versions of a plugin.
///
/// ```no_run
/// use themis_kernel::ab::spec::{Spec, Treatment};
/// use themis_kernel::{Config, Kernel};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let kernel = Kernel::start_blocking(Config::from_file("themis.toml".as_ref())?)?;
/// // What serves now is the control.
/// let treatment = Treatment { name: "faster".parse()?, path: "geo/1.1.0".into() };
/// let spec = Spec::new("geo-faster".parse()?, "geo".parse()?, vec![treatment])?;
/// kernel.experiments().create_blocking(spec)?;
///
/// // The same user always gets the same version.
/// let geo = kernel.plugin("geo").ok_or("not loaded")?;
/// let served = geo.call_for(b"user-17", "nearest", b"52.5 13.4")?;
/// if let Some(arm) = &served.assigned {
///     arm.converted(true);
/// }
/// println!("{}", kernel.experiments().report("geo-faster")?.sentence());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ExperimentManager(pub(crate) Control);

impl ExperimentManager {
    /// Loads the treatments beside what serves, and deals units out from then on. The evidence is looked at every second; when
    /// there is enough, the winner becomes the current version by an ordinary reload, or everybody gets the control again.
    ///
    /// # Errors
    /// [`ExperimentError`]; then nothing has changed.
    pub async fn create(&self, spec: Spec) -> Result<(), ExperimentError> {
        let (environment, actor) = (Arc::clone(&self.0.environment), self.0.actor.to_string());
        let asked = self.0.executor.run(async move {
            let (limit, spec) = (create_limit(&spec), Box::new(spec));
            let experiments = &environment.roles.experiments;
            experiments.ask(limit, |reply| ExperimentsMsg::Create { spec, actor, reply }).await
        });
        asked.await??
    }

    /// Blocking twin of [`ExperimentManager::create`].
    ///
    /// # Errors
    /// As that; also when called on a runtime's thread.
    pub fn create_blocking(&self, spec: Spec) -> Result<(), ExperimentError> {
        self.0.executor.block(self.create(spec))?
    }

    /// Ends an experiment without a winner: everybody gets what serves.
    ///
    /// # Errors
    /// [`ExperimentError`].
    pub async fn stop(&self, id: &str) -> Result<(), ExperimentError> {
        let id = self.known(id)?;
        let (environment, actor) = (Arc::clone(&self.0.environment), self.0.actor.to_string());
        let asked = self.0.executor.run(async move {
            let experiments = &environment.roles.experiments;
            experiments.ask(ASK_DEADLINE, |reply| ExperimentsMsg::Stop { id, actor, reply }).await
        });
        asked.await??
    }

    /// Blocking twin of [`ExperimentManager::stop`].
    ///
    /// # Errors
    /// As that; also when called on a runtime's thread.
    pub fn stop_blocking(&self, id: &str) -> Result<(), ExperimentError> {
        self.0.executor.block(self.stop(id))?
    }

    /// Makes an arm the current version, whatever the evidence is; again, where that has failed. How the reload goes is seen in
    /// the experiment's status.
    ///
    /// # Errors
    /// [`ExperimentError`].
    pub async fn promote(&self, id: &str, arm: &str) -> Result<(), ExperimentError> {
        let live = self.0.environment.experiments.find(id)?;
        let (id, arm) = (live.spec.id.clone(), live.arm(arm)?);
        let (environment, actor) = (Arc::clone(&self.0.environment), self.0.actor.to_string());
        let asked = self.0.executor.run(async move {
            let experiments = &environment.roles.experiments;
            let promote = |reply| ExperimentsMsg::Promote { id, arm, actor, reply };
            experiments.ask(ASK_DEADLINE, promote).await
        });
        asked.await??
    }

    /// Blocking twin of [`ExperimentManager::promote`].
    ///
    /// # Errors
    /// As that; also when called on a runtime's thread.
    pub fn promote_blocking(&self, id: &str, arm: &str) -> Result<(), ExperimentError> {
        self.0.executor.block(self.promote(id, arm))?
    }

    /// What is known of one experiment.
    ///
    /// # Errors
    /// [`ExperimentError::Unknown`].
    pub fn report(&self, id: &str) -> Result<Report, ExperimentError> {
        let live = self.0.environment.experiments.find(id)?;
        Ok(report::of(&live, jiff::Timestamp::now()))
    }

    /// What is known of all of them, by name.
    #[must_use]
    pub fn export_metrics_snapshot(&self) -> Vec<Report> {
        let all = self.0.environment.experiments.all();
        all.iter().map(|live| report::of(live, jiff::Timestamp::now())).collect()
    }

    /// Counts an outcome by names: 1 or 0 of a conversion, any number of a continuous metric. No lock, no message. Whoever has
    /// made the call tells it to [`Served::assigned`], which looks nothing up.
    ///
    /// # Errors
    /// [`ExperimentError`]: an unknown experiment or arm, or a value that cannot be counted. What comes after the end is dropped
    /// and counted.
    pub fn record_outcome(
        &self,
        test: &str,
        variant: &str,
        value: f64,
    ) -> Result<(), ExperimentError> {
        let live = self.0.environment.experiments.find(test)?;
        live.record(live.arm(variant)?, value).map_err(ExperimentError::Value)
    }

    /// Counts an event of another metric, such as one that a guard-rail watches.
    ///
    /// # Errors
    /// As [`ExperimentManager::record_outcome`].
    pub fn record_event(
        &self,
        test: &str,
        variant: &str,
        metric: &str,
        value: f64,
    ) -> Result<(), ExperimentError> {
        let live = self.0.environment.experiments.find(test)?;
        live.record_event(live.arm(variant)?, metric, value).map_err(ExperimentError::Value)
    }

    fn known(&self, id: &str) -> Result<Label, ExperimentError> {
        Ok(self.0.environment.experiments.find(id)?.spec.id.clone())
    }
}
