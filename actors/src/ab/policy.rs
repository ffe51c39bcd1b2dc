//! Whether there is evidence to stop an experiment: a pure judgement of what was seen.
//!
//! ```text
//! guard-rail broken ──────────────────────────▶ roll back
//! too little, too early, wrong ratio ─────────▶ go on
//! rule: probability, sequence, or both ──┬────▶ winner
//!                                        ├────▶ roll back: the control is better
//!                                        └────▶ go on, until the time is up: roll back
//! ```
//!
//! The probability to be the best, looked at again and again, is above 95 % at some time in 30 to 76 % of experiments between
//! arms that are the same: see [`simulate`](super::simulate). So the default demands that a confidence sequence, which is
//! good at every look, leaves out zero as well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mismatch::{self, MISMATCH_LEVEL, Units};
use super::moments::Moments;
use super::posterior::{Comparison, Posterior, compare};
use super::sequence::{Effect, Interval, TUNED_TO, normal_cdf};

/// Conversions, and failures, from which on the normal approximation of the probability to be the best is used: there it is
/// off by less than 10⁻⁴ (0.00004 at 1,000; 0.0003 at 100).
pub const APPROXIMATE_FROM: u64 = 1_000;
/// How far off that approximation is with fewer of them, at most (measured: 0.027, at 0 conversions beside 3).
const APPROXIMATION_OFF: f64 = 0.05;

/// When an experiment stops.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name", deny_unknown_fields)]
pub enum Rule {
    /// As soon as an arm is probably the best. By itself this is wrong far more often than the threshold says.
    Thompson {
        /// The probability wanted.
        threshold: f64,
    },
    /// As soon as a confidence sequence leaves out zero.
    Anytime {
        /// How often it may ever leave out the truth.
        alpha: f64,
    },
    /// As soon as both hold.
    Both {
        /// Of the first.
        threshold: f64,
        /// Of the second.
        alpha: f64,
    },
}

impl Rule {
    fn threshold(&self) -> Option<f64> {
        match *self {
            Self::Thompson { threshold } | Self::Both { threshold, .. } => Some(threshold),
            Self::Anytime { .. } => None,
        }
    }

    fn alpha(&self) -> Option<f64> {
        match *self {
            Self::Anytime { alpha } | Self::Both { alpha, .. } => Some(alpha),
            Self::Thompson { .. } => None,
        }
    }
}

/// Everything an experiment's end depends on besides what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// When there is evidence.
    pub rule: Rule,
    /// Outcomes that every arm must have.
    pub outcomes_min: u64,
    /// Conversions that every arm must have, and as many outcomes without one.
    pub conversions_min: u64,
    /// It runs at least so long: a day has a night.
    pub duration_min: Duration,
    /// It runs at most so long.
    pub duration_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rule: Rule::Both { threshold: 0.95, alpha: 0.05 },
            outcomes_min: 1_000,
            conversions_min: 40,
            duration_min: Duration::from_secs(3_600),
            duration_max: Duration::from_secs(72 * 3_600),
        }
    }
}

/// The share of experiments between two arms that are the same for which a rule finds a winner, with the default minima, a
/// conversion rate of 5 %, a look every 100 outcomes and at most 100,000 of them: as `simulate` has it, to three points.
pub const FALSE_POSITIVES: [(Rule, f64); 3] = [
    (Rule::Thompson { threshold: 0.95 }, 0.64),
    (Rule::Anytime { alpha: 0.05 }, 0.03),
    (Rule::Both { threshold: 0.95, alpha: 0.05 }, 0.03),
];

impl Policy {
    /// How often it finds what is not there; `None` where that has not been simulated (`themis ab simulate` does it).
    #[must_use]
    pub fn false_positives(&self) -> Option<f64> {
        let usual = Self::default();
        let minima = |it: &Self| (it.outcomes_min, it.conversions_min);
        let known = FALSE_POSITIVES.iter().find(|(rule, _)| *rule == self.rule)?.1;
        (minima(self) == minima(&usual)).then_some(known)
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Whether something happened.
    Conversion,
    /// How much of it.
    Continuous,
}

/// What must not get worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardRail {
    /// A metric of which less is better, such as `latency` or `errors`.
    pub metric: String,
    /// By how much its mean may be higher than the control's, in parts of that: 0.1 is ten percent.
    pub limit: f64,
}

/// What was seen of a guard-rail's metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Guarded<'a> {
    /// The guard-rail.
    pub rail: &'a GuardRail,
    /// The metric, by arm.
    pub arms: Vec<Moments>,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence<'a> {
    /// What is counted.
    pub kind: Kind,
    /// The outcomes, by arm; the control is the first. Arms that have left are not among them.
    pub arms: &'a [Moments],
    /// Units, by arm.
    pub units: &'a [Units],
    /// Guard-rails.
    pub guards: &'a [Guarded<'a>],
    /// For how long it has run.
    pub elapsed: Duration,
}

/// Why an experiment is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum GivenUp {
    /// There is evidence that every treatment is worse.
    ControlIsBetter,
    /// An arm has made something worse that must not get worse.
    Guard {
        /// Which metric.
        metric: String,
        /// Which arm.
        arm: usize,
    },
    /// There is no evidence, and no time left.
    TimeIsUp,
    /// No treatment serves any more.
    NoTreatment,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Decision {
    /// Go on.
    Continue,
    /// Route everything to this treatment.
    Winner {
        /// Which.
        arm: usize,
    },
    /// Route everything to the control.
    RollBack(GivenUp),
}

/// What it is waiting for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "for")]
pub enum Waiting {
    /// More outcomes.
    Outcomes {
        /// In which arm.
        arm: usize,
        /// How many it has.
        has: u64,
        /// How many it must have.
        wants: u64,
    },
    /// More conversions, or more outcomes without one.
    Conversions {
        /// In which arm.
        arm: usize,
        /// How many it has of what there is less of.
        has: u64,
        /// How many it must have.
        wants: u64,
    },
    /// Its time.
    Duration {
        /// How long it has still to run.
        left: Duration,
    },
    /// A sample ratio as it should be.
    Ratio {
        /// How probable the present one is by chance.
        probability: f64,
    },
    /// Evidence.
    Evidence,
}

/// Judges.
#[must_use]
pub fn decide(evidence: &Evidence<'_>, policy: &Policy) -> Decision {
    if let Some(given_up) = broken_guard(evidence, policy) {
        return Decision::RollBack(given_up);
    }
    // One arm alone is no comparison: the others may just be on their way.
    let found = match evidence.arms.len() > 1 && waiting(evidence, policy).is_empty() {
        true => by_rule(evidence, policy),
        false => None,
    };
    match found {
        Some(decision) => decision,
        None if evidence.elapsed >= policy.duration_max => Decision::RollBack(GivenUp::TimeIsUp),
        None => Decision::Continue,
    }
}

/// What has to be there before the rule is asked at all.
#[must_use]
pub fn waiting(evidence: &Evidence<'_>, policy: &Policy) -> Vec<Waiting> {
    let mut waiting = Vec::new();
    for (arm, moments) in evidence.arms.iter().enumerate() {
        if moments.count < policy.outcomes_min {
            let (has, wants) = (moments.count, policy.outcomes_min);
            waiting.push(Waiting::Outcomes { arm, has, wants });
        }
        let has = rarer(moments);
        if evidence.kind == Kind::Conversion && has < policy.conversions_min {
            waiting.push(Waiting::Conversions { arm, has, wants: policy.conversions_min });
        }
    }
    if evidence.elapsed < policy.duration_min {
        waiting.push(Waiting::Duration { left: policy.duration_min - evidence.elapsed });
    }
    let ratio = mismatch::probability(evidence.units);
    if let Some(probability) = ratio.filter(|it| *it < MISMATCH_LEVEL) {
        waiting.push(Waiting::Ratio { probability });
    }
    waiting
}

/// Conversions of an arm, and outcomes without one.
#[must_use]
pub fn conversions(moments: &Moments) -> (u64, u64) {
    // Of a rate the sum is a whole number.
    let successes = (moments.mean() * moments.count as f64).round().max(0.0) as u64;
    let successes = successes.min(moments.count);
    (successes, moments.count - successes)
}

fn rarer(moments: &Moments) -> u64 {
    let (successes, failures) = conversions(moments);
    successes.min(failures)
}

fn broken_guard(evidence: &Evidence<'_>, policy: &Policy) -> Option<GivenUp> {
    let treatments = evidence.arms.len().saturating_sub(1).max(1) as f64;
    let alpha = policy.rule.alpha().unwrap_or(0.05) / treatments;
    for Guarded { rail, arms } in evidence.guards {
        let (control, treatments) = arms.split_first()?;
        for (index, treatment) in treatments.iter().enumerate() {
            let enough = control.count.min(treatment.count) >= policy.outcomes_min;
            let lift = Effect::lift(control, treatment).filter(|_| enough);
            if lift.is_some_and(|lift| lift.sequence(alpha, TUNED_TO).low > rail.limit) {
                let (metric, arm) = (rail.metric.clone(), index + 1);
                return Some(GivenUp::Guard { metric, arm });
            }
        }
    }
    None
}

/// The ranges of the differences from the control, by treatment, each at its part of `alpha`: several treatments have as many
/// chances to look different.
#[must_use]
pub fn sequences(arms: &[Moments], alpha: f64) -> Vec<Interval> {
    let Some((control, treatments)) = arms.split_first() else { return Vec::new() };
    let part = alpha / treatments.len().max(1) as f64;
    let range = |it: &Moments| Effect::difference(control, it).sequence(part, TUNED_TO);
    treatments.iter().map(range).collect()
}

/// What is believed of each arm; `None` while nothing is known of the scatter of one.
#[must_use]
pub fn posteriors(kind: Kind, arms: &[Moments]) -> Option<Vec<Posterior>> {
    let posterior = |moments: &Moments| match kind {
        Kind::Conversion => {
            let (successes, failures) = conversions(moments);
            Some(Posterior::of_rate(successes, failures))
        }
        Kind::Continuous => Posterior::of_mean(moments),
    };
    arms.iter().map(posterior).collect()
}

/// The probability of each arm to be the best, and what choosing it would cost; `None` while nothing is known of the scatter.
#[must_use]
pub fn compare_arms(kind: Kind, arms: &[Moments]) -> Option<Comparison> {
    posteriors(kind, arms).map(|posteriors| compare(&posteriors))
}

fn by_rule(evidence: &Evidence<'_>, policy: &Policy) -> Option<Decision> {
    let by_sequence = match policy.rule.alpha() {
        Some(alpha) => Some(by_sequence(evidence, alpha)?),
        None => None,
    };
    let by_probability = match policy.rule.threshold() {
        Some(threshold) => Some(by_probability(evidence, threshold)?),
        None => None,
    };
    match (by_sequence, by_probability) {
        // Arms that the sequence cannot tell from the control do not win, whatever the probability says.
        (Some(better), Some(best)) if better.contains(&best) => Some(settle(best)),
        (Some(better), None) => better.into_iter().next().map(settle),
        (None, best) => best.map(settle),
        (Some(_), Some(_)) => None,
    }
}

fn settle(arm: usize) -> Decision {
    match arm {
        0 => Decision::RollBack(GivenUp::ControlIsBetter),
        arm => Decision::Winner { arm },
    }
}

/// Arms that are better than the control, the best first; or the control, where every treatment is worse.
fn by_sequence(evidence: &Evidence<'_>, alpha: f64) -> Option<Vec<usize>> {
    let ranges = sequences(evidence.arms, alpha);
    if ranges.iter().all(|range| range.high < 0.0) {
        return Some(vec![0]);
    }
    let mut better: Vec<usize> =
        (1..=ranges.len()).filter(|arm| ranges[arm - 1].low > 0.0).collect();
    better.sort_by(|a, b| evidence.arms[*b].mean().total_cmp(&evidence.arms[*a].mean()));
    (!better.is_empty()).then_some(better)
}

/// The arm that is probably the best.
fn by_probability(evidence: &Evidence<'_>, threshold: f64) -> Option<usize> {
    if let [control, treatment] = evidence.arms {
        let probable = approximate(evidence.kind, control, treatment);
        let exact = evidence.kind == Kind::Conversion
            && rarer(control).min(rarer(treatment)) < APPROXIMATE_FROM;
        if !exact {
            return chosen(&[1.0 - probable, probable], threshold);
        }
        // So far from the threshold that a closer look changes nothing.
        if probable.max(1.0 - probable) < threshold - APPROXIMATION_OFF {
            return None;
        }
    }
    chosen(&compare_arms(evidence.kind, evidence.arms)?.best, threshold)
}

fn chosen(best: &[f64], threshold: f64) -> Option<usize> {
    best.iter().position(|probability| *probability >= threshold)
}

/// The probability that the treatment is better, as if both posteriors were normal.
fn approximate(kind: Kind, control: &Moments, treatment: &Moments) -> f64 {
    if kind == Kind::Continuous {
        return Effect::difference(control, treatment).probability_above_zero();
    }
    let normal = |moments: &Moments| {
        let (successes, failures) = conversions(moments);
        let (a, b) = (successes as f64 + 1.0, failures as f64 + 1.0);
        let n = a + b;
        (a / n, a * b / (n * n * (n + 1.0)))
    };
    let ((control, scatter), (treatment, more)) = (normal(control), normal(treatment));
    normal_cdf((treatment - control) / (scatter + more).sqrt())
}

/// How units are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case", tag = "name", deny_unknown_fields)]
pub enum Allocation {
    /// As the weights say, to the end. What the sequence and the ratio test assume.
    #[default]
    Fixed,
    /// In proportion to each arm's probability to be the best.
    Thompson {
        /// The least share of an arm.
        floor: f64,
    },
}

/// Shares in proportion to the probability to be the best, none below `floor`.
#[must_use]
pub fn allocate(best: &[f64], floor: f64) -> Vec<f64> {
    let rest = 1.0 - floor * best.len() as f64;
    best.iter().map(|probability| floor + rest * probability).collect()
}

#[cfg(test)]
mod tests;
