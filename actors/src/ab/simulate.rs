//! How often a policy is wrong, and how long it takes: experiments with arms whose true rates are known.
//!
//! Outcomes come in lots, one for each look, so that a hundred thousand of them are some hundred draws. The same seed makes
//! the same experiments on every machine.

use std::time::Duration;

use rand::SeedableRng as _;
use rand_distr::{Binomial, Distribution as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use super::assign::{Weights, bandit_seed};
use super::moments::Moments;
use super::policy::{
    Allocation, Decision, Evidence, GivenUp, Kind, Policy, allocate, compare_arms, decide,
};
use super::sequence::{Interval, normal_quantile};

/// Points of the curve.
pub const CURVE_POINTS: usize = 50;

/// What is tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The true conversion rate of each arm, the control first: 0 to 1.
    pub rates: Vec<f64>,
    /// Shares of the arms.
    pub weights: Weights,
    /// How units are dealt out.
    pub allocation: Allocation,
    /// When an experiment stops. Its durations count for nothing here.
    pub policy: Policy,
    /// Whether evidence for the control ends it as well, as it does in an experiment.
    pub either_side: bool,
    /// Outcomes of all arms between two looks.
    pub every: u64,
    /// Outcomes of all arms after which there is no more.
    pub most: u64,
    /// How many experiments.
    pub runs: u32,
    /// Where chance begins.
    pub seed: u64,
}

/// Why nothing is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// A rate that is none.
    #[error("a rate is 0 to 1, not {rate}")]
    Rate {
        /// What was given.
        rate: String,
    },
    /// Not one rate for each arm.
    #[error("there are {rates} rates for {arms} arms")]
    Arms {
        /// How many rates.
        rates: usize,
        /// How many arms.
        arms: usize,
    },
    /// Nothing would happen, or not between two looks.
    #[error(
        "looks come every {every} outcomes of {most} at most: want at least one per arm, and no fewer at most"
    )]
    Looks {
        /// Between two looks.
        every: u64,
        /// In all.
        most: u64,
    },
}

impl ScenarioError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rate { .. } => "ab.rate",
            Self::Arms { .. } => "ab.arms",
            Self::Looks { .. } => "ab.looks",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Experiments made.
    pub runs: u32,
    /// How many ended for each arm; for the control by evidence that it is the best.
    pub ended_for: Vec<u32>,
    /// How many ended without evidence.
    pub undecided: u32,
    /// Outcomes that an experiment took, in the mean.
    pub outcomes_mean: f64,
    /// Outcomes, and the share of experiments that had found evidence by then.
    pub curve: Vec<(u64, f64)>,
}

impl Report {
    /// The share of experiments that ended for these arms, with the range that it is in with 99 % confidence (Wilson).
    #[must_use]
    pub fn share(&self, arms: impl IntoIterator<Item = usize>) -> (f64, Interval) {
        let count: u32 = arms.into_iter().filter_map(|arm| self.ended_for.get(arm)).sum();
        let (n, z) = (f64::from(self.runs.max(1)), normal_quantile(0.995));
        let (share, square) = (f64::from(count) / n, z * z);
        let middle = (share + square / (2.0 * n)) / (1.0 + square / n);
        let scatter = share * (1.0 - share) / n + square / (4.0 * n * n);
        let half = z / (1.0 + square / n) * scatter.sqrt();
        (share, Interval { low: (middle - half).max(0.0), high: (middle + half).min(1.0) })
    }

    /// The share that found evidence, for whichever arm.
    #[must_use]
    pub fn decided(&self) -> (f64, Interval) {
        self.share(0..self.ended_for.len())
    }
}

/// Makes all experiments; `told` hears how many are done.
///
/// # Errors
/// [`ScenarioError`].
pub fn simulate(scenario: &Scenario, mut told: impl FnMut(u32)) -> Result<Report, ScenarioError> {
    check(scenario)?;
    let mut report = Report {
        runs: scenario.runs,
        ended_for: vec![0; scenario.rates.len()],
        undecided: 0,
        outcomes_mean: 0.0,
        curve: Vec::new(),
    };
    let mut stops = Vec::new();
    for run in 0..scenario.runs {
        let (arm, outcomes) = experiment(scenario, run);
        match arm.and_then(|arm| report.ended_for.get_mut(arm)) {
            Some(ended) => {
                *ended += 1;
                stops.push(outcomes);
            }
            None => report.undecided += 1,
        }
        report.outcomes_mean += outcomes as f64 / f64::from(scenario.runs);
        told(run + 1);
    }
    stops.sort_unstable();
    let points = CURVE_POINTS as u64;
    let curve = (1..=points).map(|point| {
        let at = scenario.most / points * point;
        let stopped = stops.partition_point(|stop| *stop <= at);
        (at, stopped as f64 / f64::from(scenario.runs.max(1)))
    });
    report.curve = curve.collect();
    Ok(report)
}

fn check(scenario: &Scenario) -> Result<(), ScenarioError> {
    let (rates, arms) = (scenario.rates.len(), scenario.weights.as_slice().len());
    if rates != arms {
        return Err(ScenarioError::Arms { rates, arms });
    }
    let wrong = scenario.rates.iter().find(|rate| !(0.0..=1.0).contains(*rate));
    if let Some(rate) = wrong {
        return Err(ScenarioError::Rate { rate: rate.to_string() });
    }
    let (every, most) = (scenario.every, scenario.most);
    if every < arms as u64 || most < every {
        return Err(ScenarioError::Looks { every, most });
    }
    Ok(())
}

/// One experiment: the arm it ended for, if any, and the outcomes it took.
fn experiment(scenario: &Scenario, run: u32) -> (Option<usize>, u64) {
    let number = bandit_seed("simulate", scenario.seed ^ u64::from(run).rotate_left(32));
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(number);
    let mut counts = vec![(0_u64, 0_u64); scenario.rates.len()];
    let even: Vec<f64> = (0..counts.len()).map(|arm| scenario.weights.share(arm)).collect();
    let mut shares = even;
    let mut outcomes = 0;
    while outcomes + scenario.every <= scenario.most {
        outcomes += scenario.every;
        deal(scenario, &shares, &mut counts, &mut chance);
        let arms: Vec<_> =
            counts.iter().map(|(count, hits)| Moments::of_conversions(*count, *hits)).collect();
        let evidence = Evidence {
            kind: Kind::Conversion,
            arms: &arms,
            units: &[],
            guards: &[],
            // Time is not simulated.
            elapsed: scenario.policy.duration_min,
        };
        let policy = Policy { duration_max: Duration::MAX, ..scenario.policy };
        match decide(&evidence, &policy) {
            Decision::Winner { arm } => return (Some(arm), outcomes),
            Decision::RollBack(GivenUp::ControlIsBetter) if scenario.either_side => {
                return (Some(0), outcomes);
            }
            Decision::RollBack(GivenUp::ControlIsBetter) => {}
            Decision::RollBack(
                GivenUp::Guard { .. } | GivenUp::TimeIsUp | GivenUp::NoTreatment,
            ) => break,
            Decision::Continue => {}
        }
        if let Allocation::Thompson { floor } = scenario.allocation
            && let Some(comparison) = compare_arms(Kind::Conversion, &arms)
        {
            shares = allocate(&comparison.best, floor);
        }
    }
    (None, outcomes)
}

/// Deals out one lot: each arm its share of what the arms before have left.
fn deal(
    scenario: &Scenario,
    shares: &[f64],
    counts: &mut [(u64, u64)],
    chance: &mut Xoshiro256PlusPlus,
) {
    let (mut left, mut rest) = (scenario.every, 1.0_f64);
    let last = counts.len() - 1;
    for (arm, (count, hits)) in counts.iter_mut().enumerate() {
        let share = (shares[arm] / rest).clamp(0.0, 1.0);
        let lot = if arm == last { left } else { drawn(left, share, chance) };
        *count += lot;
        *hits += drawn(lot, scenario.rates[arm], chance);
        left -= lot;
        rest = (rest - shares[arm]).max(f64::EPSILON);
    }
}

/// How many of `count` there are with this probability, which was checked.
fn drawn(count: u64, probability: f64, chance: &mut Xoshiro256PlusPlus) -> u64 {
    Binomial::new(count, probability).map_or(0, |binomial| binomial.sample(chance))
}

#[cfg(test)]
mod tests;
