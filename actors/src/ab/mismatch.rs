//! Whether the arms got the units they should have: the sample-ratio mismatch test.
//!
//! Where they did not, something loses or adds units of one arm, and nothing that the outcomes say can be believed. The
//! test is Pearson's chi-squared test; arms without a share are left out, and the degrees of freedom follow from the
//! others. It is looked at again and again, so the level is strict: at 0.001, a hundred looks raise a false alarm in 1.5 %
//! of experiments, at 0.05 in 36 %.

use serde::{Deserialize, Serialize};
use statrs::function::gamma::gamma_ur;

/// Below this probability the ratio is not by chance.
pub const MISMATCH_LEVEL: f64 = 0.001;
/// Below so many expected units in an arm the test says nothing.
pub const EXPECTED_MIN: f64 = 8.0;

/// Units of one arm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Units {
    /// How many there were, counted or estimated.
    pub count: f64,
    /// The variance of that estimate; 0 where it was counted.
    pub error: f64,
    /// How many there should have been.
    pub expected: f64,
}

/// The probability of a ratio as far off as this one; `None` while there are too few units to say.
#[must_use]
pub fn probability(arms: &[Units]) -> Option<f64> {
    let arms: Vec<_> = arms.iter().filter(|arm| arm.expected > 0.0).collect();
    if arms.len() < 2 || arms.iter().any(|arm| arm.expected < EXPECTED_MIN) {
        return None;
    }
    let distance = |arm: &&Units| {
        let off = arm.count - arm.expected;
        off * off / (arm.expected + arm.error)
    };
    let distance: f64 = arms.iter().map(distance).sum();
    let degrees = (arms.len() - 1) as f64;
    Some(if distance <= 0.0 { 1.0 } else { gamma_ur(degrees / 2.0, distance / 2.0) })
}

/// Units that were counted, beside the shares they should have.
#[must_use]
pub fn counted(counts: &[u64], shares: &[f64]) -> Vec<Units> {
    let all: u64 = counts.iter().zip(shares).filter(|it| *it.1 > 0.0).map(|it| *it.0).sum();
    let whole: f64 = shares.iter().sum();
    let arms = counts.iter().zip(shares).map(|(count, share)| Units {
        count: *count as f64,
        error: 0.0,
        expected: all as f64 * share / whole,
    });
    arms.collect()
}

#[cfg(test)]
mod tests;
