//! What is known of an experiment, how sure that is, and how much longer it may take: for people, programs and metrics.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lifecycle::Status;
use super::live::Live;
use super::mismatch::{self, Units};
use super::moments::Moments;
use super::policy::{
    Decision, Evidence, GivenUp, Guarded, Kind, Waiting, conversions, decide, posteriors, waiting,
};
use super::posterior::compare;
use super::recorder::quantile;
use super::sequence::{Effect, Interval, TUNED_TO};
use super::spec::Label;

/// Outcomes beyond which nobody waits for evidence.
const MOST_OUTCOMES: u64 = 1 << 40;
/// Where the chance of an arm is said to be in a range.
const CREDIBLE: f64 = 0.05;

/// One arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmReport {
    /// Its name.
    pub variant: String,
    /// Units that it has seen, estimated; none when they cannot be told apart any more.
    pub units: Option<f64>,
    /// Outcomes.
    pub requests: u64,
    /// Those that converted, of a conversion.
    pub conversions: Option<u64>,
    /// The mean of the outcomes: of a conversion its rate.
    pub mean: f64,
    /// Their variance.
    pub variance: f64,
    /// The mean lies here with 95 % probability.
    pub credible: Option<Interval>,
    /// The probability that it is the best.
    pub probability_best: Option<f64>,
    /// How much worse than the best it is expected to be.
    pub expected_loss: Option<f64>,
    /// Its difference from the control's mean, good at every look.
    pub difference: Option<Interval>,
    /// Quantiles of the time that calls took, in seconds.
    pub latency_p50: Option<f64>,
    /// The same.
    pub latency_p95: Option<f64>,
    /// The same.
    pub latency_p99: Option<f64>,
    /// Whether it serves.
    pub serves: bool,
}

/// One experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub id: Label,
    /// Whose versions.
    pub plugin: String,
    /// What it is.
    #[serde(flatten)]
    pub status: Status,
    /// Since when it runs.
    pub started: Option<jiff::Timestamp>,
    /// Its arms, the control first.
    pub arms: Vec<ArmReport>,
    /// What would be done now.
    pub decision: Decision,
    /// What it is waiting for.
    pub waiting: Vec<Waiting>,
    /// The probability of so wrong a ratio by chance; none while there are too few units.
    pub ratio_probability: Option<f64>,
    /// Outcomes after which there will be evidence, if the difference is as it looks now.
    pub outcomes_to_evidence: Option<u64>,
    /// The smallest difference that so many outcomes can show.
    pub detectable: Option<f64>,
    /// How often the policy finds what is not there, where that was simulated.
    pub false_positives: Option<f64>,
    /// Outcomes and events that were not counted.
    pub dropped: u64,
}

/// Looks at everything that was counted.
#[must_use]
pub fn of(live: &Live, now: jiff::Timestamp) -> Report {
    let spec = &live.spec;
    let outcomes: Vec<Moments> = live.counts().iter().map(|it| it.outcomes.fold()).collect();
    let state = live.state.lock().clone();
    let split = live.split();
    let serves: Vec<bool> =
        split.servings.iter().enumerate().map(|(arm, it)| arm == 0 || it.is_some()).collect();
    let present: Vec<usize> = (0..outcomes.len()).filter(|arm| serves[*arm]).collect();
    let units = if state.ratio_changed { Vec::new() } else { units(live) };
    let guards: Vec<Guarded<'_>> = spec
        .guards
        .iter()
        .filter_map(|rail| {
            let all = live.metric(&rail.metric)?;
            Some(Guarded { rail, arms: present.iter().map(|arm| all[*arm]).collect() })
        })
        .collect();
    let arms: Vec<Moments> = present.iter().map(|arm| outcomes[*arm]).collect();
    let elapsed = state.started.map_or(Duration::ZERO, |started| {
        // A clock that was set back gives no time, and takes none.
        Duration::try_from(now.duration_since(started)).unwrap_or_default()
    });
    let evidence =
        Evidence { kind: spec.kind, arms: &arms, units: &units, guards: &guards, elapsed };
    let decision = renamed(decide(&evidence, &spec.policy), &present);
    let alpha = 0.05;
    let effect = arms.get(1).map(|it| Effect::difference(&arms[0], it));
    Report {
        id: spec.id.clone(),
        plugin: spec.plugin.to_string(),
        status: state.status,
        started: state.started,
        arms: arm_reports(live, &outcomes, &serves),
        decision,
        waiting: waiting(&evidence, &spec.policy),
        ratio_probability: mismatch::probability(&units),
        outcomes_to_evidence: effect
            .and_then(|it| it.outcomes_to_evidence(alpha, TUNED_TO, MOST_OUTCOMES)),
        detectable: effect.map(|it| it.detectable(alpha)).filter(|it| it.is_finite()),
        false_positives: spec.policy.false_positives(),
        dropped: live.dropped(),
    }
}

/// Arms by their place among all of them, and not among those that are left.
fn renamed(decision: Decision, present: &[usize]) -> Decision {
    let place = |arm: usize| present.get(arm).copied().unwrap_or(arm);
    match decision {
        Decision::Winner { arm } => Decision::Winner { arm: place(arm) },
        Decision::RollBack(GivenUp::Guard { metric, arm }) => {
            Decision::RollBack(GivenUp::Guard { metric, arm: place(arm) })
        }
        Decision::Continue
        | Decision::RollBack(GivenUp::ControlIsBetter | GivenUp::TimeIsUp | GivenUp::NoTreatment) => {
            decision
        }
    }
}

/// Units by arm, beside how many there should be; nothing when they cannot be told apart any more.
fn units(live: &Live) -> Vec<Units> {
    let counts: Vec<_> = live.counts().iter().map(|it| it.units.count()).collect();
    let Some(estimates) = counts.iter().map(|it| it.estimate).collect::<Option<Vec<f64>>>() else {
        return Vec::new();
    };
    let (all, split) = (estimates.iter().sum::<f64>(), live.split());
    let unit = |(arm, (count, estimate)): (usize, (&super::recorder::UnitCount, &f64))| Units {
        count: *estimate,
        error: count.error,
        expected: all * split.assignment.share(arm),
    };
    counts.iter().zip(&estimates).enumerate().map(unit).collect()
}

fn arm_reports(live: &Live, outcomes: &[Moments], serves: &[bool]) -> Vec<ArmReport> {
    let kind = live.spec.kind;
    let posteriors = posteriors(kind, outcomes);
    let comparison = posteriors.as_deref().map(compare);
    let names = live.spec.arms();
    let report = |(arm, moments): (usize, &Moments)| {
        let counts = &live.counts()[arm];
        let times = counts.sketch.fold();
        let is_rate = kind == Kind::Conversion;
        let chances = comparison.as_ref();
        let posterior = posteriors.as_ref().and_then(|all| all.get(arm));
        let difference = (arm > 0 && moments.count > 1 && outcomes[0].count > 1)
            .then(|| Effect::difference(&outcomes[0], moments).sequence(0.05, TUNED_TO));
        ArmReport {
            variant: names.get(arm).copied().unwrap_or_default().to_owned(),
            units: counts.units.count().estimate,
            requests: moments.count,
            conversions: is_rate.then(|| conversions(moments).0),
            mean: moments.mean(),
            variance: moments.variance(),
            credible: posterior.map(|it| it.credible(CREDIBLE)),
            probability_best: chances.and_then(|it| it.best.get(arm).copied()),
            expected_loss: chances.and_then(|it| it.loss.get(arm).copied()),
            difference,
            latency_p50: quantile(&times, 0.5),
            latency_p95: quantile(&times, 0.95),
            latency_p99: quantile(&times, 0.99),
            serves: serves.get(arm).copied().unwrap_or_default(),
        }
    };
    outcomes.iter().enumerate().map(report).collect()
}

impl Report {
    /// What is known, how sure, how much longer: one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let rate = |arm: &ArmReport| format!("{} {:.4} of {}", arm.variant, arm.mean, arm.requests);
        let rates: Vec<String> = self.arms.iter().map(rate).collect();
        let best = self.arms.iter().filter_map(|arm| Some((arm, arm.probability_best?)));
        let best = best.max_by(|a, b| a.1.total_cmp(&b.1));
        let sure = best.map_or_else(String::new, |(arm, probability)| {
            format!(
                "; {} is the best with a probability of {:.1} %",
                arm.variant,
                100.0 * probability
            )
        });
        let has: u64 = self.arms.iter().map(|arm| arm.requests).sum();
        let longer = match self.outcomes_to_evidence {
            Some(wanted) if wanted > has => {
                format!("; about {} more outcomes to evidence", wanted - has)
            }
            Some(_) | None => String::new(),
        };
        format!("{}{sure}{longer}", rates.join(", "))
    }
}

/// Why an experiment was given up, for people.
#[must_use]
pub fn given_up(live: &Live, why: &GivenUp) -> String {
    let name = |arm: usize| live.spec.arms().get(arm).map_or("?", |name| *name).to_owned();
    match why {
        GivenUp::ControlIsBetter => "the control is better".to_owned(),
        GivenUp::Guard { metric, arm } => format!("{} has made {metric} worse", name(*arm)),
        GivenUp::TimeIsUp => "its time is up, and there is no evidence".to_owned(),
        GivenUp::NoTreatment => "no treatment serves any more".to_owned(),
    }
}

/// Shows it to whoever scrapes.
pub(crate) fn export(live: &Live, report: &Report) {
    let test = live.spec.id.to_string();
    for arm in &report.arms {
        let labels = [("test", test.clone()), ("variant", arm.variant.clone())];
        metrics::counter!("ab_test_requests_total", &labels).absolute(arm.requests);
        if let Some(conversions) = arm.conversions {
            metrics::counter!("ab_test_conversions_total", &labels).absolute(conversions);
        }
        if let Some(probability) = arm.probability_best {
            metrics::gauge!("ab_test_probability_best", &labels).set(probability);
        }
        let quantiles =
            [("0.5", arm.latency_p50), ("0.95", arm.latency_p95), ("0.99", arm.latency_p99)];
        for (quantile, seconds) in quantiles {
            let [test, variant] = labels.clone();
            let labels = [test, variant, ("quantile", quantile.to_owned())];
            metrics::gauge!("ab_test_latency_seconds", &labels).set(seconds.unwrap_or(0.0));
        }
    }
}
